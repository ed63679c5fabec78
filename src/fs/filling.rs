//! A directory in which a program makes one new name after the other: how it is known that they are new.
//!
//! All names of the directory are listed once in a while, and what the list lacks is missing: one LIST a second for up to
//! ten thousand names, however many are made. Of a wider one that would be LISTs without an end. There a HEAD asks for each
//! new name, as whether a file has it is what another host changes; that no directory has it, an old list tells, and a new one
//! comes once as many names were asked for as it has pages. It is fetched behind what goes on. Names that come in their
//! order, as of numbered files, all belong at the end: where a directory has more than a page, one LIST a second shows what lies
//! behind the last ones, and the new names are asked for no more.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Fs, WriteMode};
use crate::error::{Error, Result};
use crate::namespace::{Directory, Ino, Tail, keys};
use crate::store::ListRequest;
use crate::types::Key;

/// To this size listing a directory anew is cheaper than asking for each of the names that a program makes in it: a LIST
/// a second, against a HEAD and a LIST for each.
const LIST_FOR_FILLING: usize = 10_000;

/// Names that one LIST shows.
const PAGE: usize = 1000;

/// So long a list of a wide directory tells which names no directory in it has.
const DIRECTORIES: Duration = Duration::from_secs(60);

/// A LIST costs as much as twelve HEADs: so many names in a row, each of which would be asked for, are worth one.
const WORTH_A_LIST: u32 = 16;

/// Names that are made at the same time need not come in their order.
const AT_ONCE: usize = 64;

/// What to do about a new name in a directory that is being filled.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Filling {
    /// What is known of all names is too old, or not enough.
    Ask,
    /// List the directory.
    List,
    /// Ask for a file of that name, or for anything where nobody knows of directories.
    Wide { object_only: bool },
    /// List what comes behind this name, which is a little before the new one.
    Tail { after: Arc<str> },
}

impl Fs {
    pub(super) fn filling(&self, node: &Directory, name: &Arc<str>) -> Filling {
        let believed = self.absence_ttl(node);
        if believed.is_zero() || !node.complete || self.outage.is_on() {
            return Filling::Ask;
        }
        if let Some(after) = self.due_tail(node, name) {
            return Filling::Tail { after };
        }
        let is_shown = node.peeks.tail.as_ref().is_some_and(|tail| tail.unknown.contains(name));
        if node.children.len() >= LIST_FOR_FILLING {
            let directories_known = node.complete_at().is_some_and(|known| known.elapsed() < DIRECTORIES);
            return Filling::Wide { object_only: directories_known && !is_shown };
        }
        if is_shown {
            return Filling::Ask;
        }
        match node.peeks.last {
            // Others who come meanwhile ask for themselves.
            Some(last) if last.elapsed() < believed => Filling::Ask,
            _ => Filling::List,
        }
    }

    /// A program has made this name.
    pub(super) fn count_made(&self, node: &mut Directory, name: &Arc<str>) {
        node.made_of_late.count(Instant::now());
        node.peeks.appended = if is_last(node, name) { node.peeks.appended.saturating_add(1) } else { 0 };
    }

    /// What was listed a moment ago says that there is no such name. `begun`: what was asked since then is new enough.
    pub(super) fn is_behind_tail(&self, node: &Directory, directory: &Key, name: &str, begun: Instant) -> bool {
        let Some(tail) = &node.peeks.tail else { return false };
        (tail.asked >= begun || tail.asked.elapsed() < self.config.negative_ttl) && tail.lacks(directory, name)
    }

    /// Where to begin, if one LIST is cheaper than to go on asking: names come in their order, and the last such LIST is as old
    /// as an absence is believed.
    fn due_tail(&self, node: &Directory, name: &Arc<str>) -> Option<Arc<str>> {
        let is_old = node.peeks.tail_begun.is_none_or(|begun| begun.elapsed() >= self.config.negative_ttl);
        let is_worth_it = node.children.len() >= PAGE && node.peeks.appended >= WORTH_A_LIST;
        if self.config.write_mode == WriteMode::Through || !is_worth_it || !is_old || !is_last(node, name) {
            return None;
        }
        // Others who make names at the same time may be a little behind.
        node.children.range::<Arc<str>, _>(..name).nth_back(AT_ONCE).map(|(after, _)| Arc::clone(after))
    }

    /// Learns what comes behind that name. An error is left to the question that is asked then.
    pub(super) async fn list_tail(&self, ino: Ino, after: Arc<str>) -> Result<()> {
        let (key, asked) = {
            let mut names = self.names.lock();
            let key = self.directory_key(&names, ino)?;
            let node = names.directory_mut(ino).ok_or(Error::NotDirectory)?;
            let asked = Instant::now();
            (node.peeks.tail_begun, node.peeks.appended) = (Some(asked), 0);
            (key, asked)
        };
        let watch = self.watch(ino, &key);
        let start_after = Some(key.child(&after).as_str().to_owned());
        let request = ListRequest { prefix: key.as_str().into(), by_directory: true, start_after, ..ListRequest::default() };
        let page = match self.store.list(&request).await {
            Ok(page) => page,
            Err(error) => {
                tracing::debug!(%key, %error, "the end of a directory that is being filled can't be listed");
                return Ok(());
            }
        };
        let keys = || page.objects.iter().map(|object| &object.key).chain(&page.prefixes);
        // Then an object beside it makes a directory.
        if keys().any(|key| keys::marked_by_hadoop(key).is_some()) {
            return Ok(());
        }
        let mut names = self.names.lock();
        if !self.take_in_arrived(&mut names, ino, &key, &watch, asked) {
            return Ok(());
        }
        let shown = keys().filter(|shown| shown.is_below(&key)).map(|shown| shown.as_str()[key.as_str().len()..].trim_end_matches('/'));
        let unknown = shown.map(|name| self.spelled(name)).filter(|name| names.child(ino, name).is_none()).collect();
        let last = page.next.as_ref().and_then(|_| keys().max().cloned());
        if page.next.is_some() && last.is_none() {
            return Ok(());
        }
        if let Some(node) = names.directory_mut(ino) {
            node.peeks.tail = Some(Box::new(Tail { directory: key, after, last, unknown, asked }));
        }
        Ok(())
    }

    /// A name of a wide directory is asked for: lists all of them, where that is due, without being waited for.
    pub(super) fn list_behind(&self, ino: Ino) {
        let Some(fs) = self.shared() else { return };
        {
            let mut names = self.names.lock();
            let Some(node) = names.directory_mut(ino) else { return };
            node.peeks.asked += 1;
            let is_old = node.complete_at().is_none_or(|known| known.elapsed() >= DIRECTORIES / 2);
            let is_paid = node.peeks.asked > node.children.len() / PAGE;
            if !is_old || !is_paid || node.peeks.is_under_way {
                return;
            }
            (node.peeks.asked, node.peeks.is_under_way) = (0, true);
        }
        tokio::spawn(async move {
            if let Err(error) = fs.load_listing(ino, Some(Instant::now())).await {
                tracing::debug!(%error, "a directory that is being filled can't be listed");
            }
            if let Some(node) = fs.names.lock().directory_mut(ino) {
                node.peeks.is_under_way = false;
            }
        });
    }

    /// How long a directory's names are all that it has. While a program fills it, one LIST a second tells which of its new
    /// names are free, however many pages that takes.
    pub(super) fn absence_ttl(&self, node: &Directory) -> Duration {
        let pages = if node.is_filling(Instant::now()) { node.children.len() / PAGE + 1 } else { 1 };
        self.config.negative_ttl.saturating_mul(u32::try_from(pages).unwrap_or(u32::MAX)).min(self.config.ttl)
    }

    pub(super) fn is_believed(&self, node: &Directory, known: Instant) -> bool {
        self.config.exclusive || known.elapsed() < self.absence_ttl(node)
    }
}

/// The name belongs behind all others of the directory, but for those of who fills it at the same time.
fn is_last(node: &Directory, name: &Arc<str>) -> bool {
    node.children.range::<Arc<str>, _>((Bound::Excluded(name), Bound::Unbounded)).nth(AT_ONCE).is_none()
}
