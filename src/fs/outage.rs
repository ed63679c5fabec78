//! What still holds while the bucket doesn't answer.
//!
//! A name that was known goes on being shown as it was, with the files of the cache and what is wanted locally; a name
//! that a complete listing lacked goes on being missing, so that new files can be saved (they go up as new names only,
//! and a name taken meanwhile is a conflict that keeps both). What was never known fails: it is neither there nor missing.
//!
//! The first question that fails, or takes longer than a person waits, begins the outage; so does whoever else sees that
//! nothing is answered any more. From then on memory answers at once, and one probe at a time finds out when it is over,
//! whether or not anybody asks for anything.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Bound;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Fs;
use super::question::Question;
use crate::clock;
use crate::error::{Error, Result};
use crate::journal::Content;
use crate::namespace::{Child, Ino, Namespace, Seen};
use crate::store::StoreError;
use crate::types::{Key, Version};

/// How long a question about a known name may take before what is known is the better answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// What a probe asks for. Whether there is such an object doesn't matter.
const PROBED: &str = ".mediafs-probe";

#[derive(Default)]
pub(super) struct Outage {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Since when, and why.
    away: Option<(SystemTime, String)>,
    /// When that was noticed.
    noticed: Option<Instant>,
    /// What the cache holds, by key; taken at the first need.
    cached: Option<Arc<BTreeMap<Key, Version>>>,
}

/// What memory says of a name.
pub(super) enum Remembered {
    Inode(Ino),
    Missing,
}

impl Outage {
    pub(super) fn is_on(&self) -> bool {
        self.state.lock().away.is_some()
    }

    fn has_lasted(&self, time: Duration) -> bool {
        self.state.lock().noticed.is_some_and(|noticed| noticed.elapsed() >= time)
    }

    /// True where it was not on before.
    fn begin(&self, since: SystemTime, why: String) -> bool {
        let mut state = self.state.lock();
        let begins = state.away.is_none();
        state.away.get_or_insert((since, why));
        state.noticed.get_or_insert_with(Instant::now);
        begins
    }

    /// True where it was on.
    fn end(&self) -> bool {
        let mut state = self.state.lock();
        (state.cached, state.noticed) = (None, None);
        state.away.take().is_some()
    }
}

/// A failure that says nothing about the object: what was known of it still holds.
pub(super) fn is_outage(error: &Error) -> bool {
    match error {
        Error::Timeout => true,
        Error::Store(StoreError { kind, .. }) => kind.is_transient(),
        _ => false,
    }
}

impl Fs {
    /// The bucket hasn't answered since then: memory answers from now on, until a probe is answered.
    pub fn assume_outage(&self, since: SystemTime, why: String) {
        if self.outage.begin(since, why) {
            tokio::spawn(probe(self.me.clone(), self.patience()));
        }
    }

    /// Since when the bucket hasn't answered, and why; None while it does.
    pub fn degraded(&self) -> Option<(SystemTime, String)> {
        self.outage.state.lock().away.clone()
    }

    /// The bucket was heard of.
    pub(super) fn answered(&self) {
        if self.outage.end() {
            tracing::info!("the bucket answers again");
            self.writer.hurry();
        }
    }

    /// Returns when waiting on is of little use: the outage has outlasted a whole deadline. The kernel asks up to four times
    /// for what it can't read, and a program must not wait a deadline for each.
    pub(super) async fn outage_outlasts_patience(&self) {
        loop {
            tokio::time::sleep(self.patience()).await;
            if self.outage.has_lasted(self.config.timeout) {
                return;
            }
        }
    }

    /// Well below the time after which the operation would fail.
    fn patience(&self) -> Duration {
        PATIENCE.min(self.config.timeout / 2)
    }

    fn unanswered(&self, error: &Error) {
        if !self.outage.is_on() {
            tracing::warn!(%error, "the bucket doesn't answer: what is known is shown as it was");
            self.assume_outage(clock::now(), error.to_string());
        }
    }

    /// Asks the bucket; Some: it doesn't answer, and this was known of the name.
    pub(super) async fn ask_or_remember(&self, question: Question) -> Result<Option<Remembered>> {
        let (parent, name, key) = (question.parent, Arc::clone(&question.name), question.key.clone());
        let known = self.remembered(parent, &name, &key);
        let known_before = known.is_some();
        if known_before && self.outage.is_on() {
            return Ok(known);
        }
        match self.answer_of(known_before, self.ask(question)).await {
            Ok(()) => {
                self.answered();
                Ok(None)
            }
            Err(error) if is_outage(&error) => self.remembered(parent, &name, &key).map_or(Err(error), |known| Ok(Some(known))),
            Err(error) => Err(error),
        }
    }

    /// What the bucket answers; an outage begins where it doesn't. Nobody waits a whole deadline where something is
    /// `known_before`, or where the bucket is away already. An Ok may have come from memory, and ends no outage.
    pub(super) async fn answer_of<T>(&self, known_before: bool, asking: impl Future<Output = Result<T>>) -> Result<T> {
        let answer = if known_before || self.outage.is_on() {
            tokio::time::timeout(self.patience(), asking).await.unwrap_or(Err(Error::Timeout))
        } else {
            asking.await
        };
        answer.inspect_err(|error| {
            if is_outage(error) {
                self.unanswered(error);
            }
        })
    }

    fn remembered(&self, parent: Ino, name: &Arc<str>, key: &Key) -> Option<Remembered> {
        let mut names = self.names.lock();
        let node = names.directory(parent)?;
        let was_listed = node.complete;
        match node.children.get(name) {
            Some(Child::Missing(_)) => return Some(Remembered::Missing),
            Some(Child::Inode(ino)) => {
                let ino = *ino;
                if self.is_usable(&mut names, ino) {
                    return Some(Remembered::Inode(ino));
                }
            }
            None if was_listed => return Some(Remembered::Missing),
            None => {}
        }
        if !self.outage.is_on() {
            return None;
        }
        let is_removed = |key: &Key| self.writer.pending(key).is_some_and(|desired| desired.content == Content::Absent);
        match self.adopt_cached(&mut names, parent, name, key) {
            None if is_removed(key) || is_removed(&key.as_directory()) => Some(Remembered::Missing),
            adopted => adopted.map(Remembered::Inode),
        }
    }

    /// Whether all that a look-up tells of an inode is known. In an outage, what was learned of its version last will do, and
    /// of what the cache holds the defaults: enough to read it, and not known for that.
    fn is_usable(&self, names: &mut Namespace, ino: Ino) -> bool {
        let asks = self.asks_headers(names, ino);
        let Some(inode) = names.get_mut(ino) else { return false };
        if inode.known || inode.is_directory() {
            return true;
        }
        let Some(version) = inode.version().cloned().filter(|_| self.outage.is_on()) else { return !asks };
        if let Some((_, headers)) = self.journal.last_headers(&version.key, &version.etag) {
            inode.take_headers_of(&version.etag, headers);
            return true;
        }
        !asks || self.cached().get(&version.key) == Some(&version)
    }

    fn cached(&self) -> Arc<BTreeMap<Key, Version>> {
        let mut state = self.outage.state.lock();
        let map = || Arc::new(self.cache.versions().into_iter().map(|version| (version.key.clone(), version)).collect());
        Arc::clone(state.cached.get_or_insert_with(map))
    }

    /// An inode for what only the cache knows: a file of it, or a directory that one of its files lies in.
    fn adopt_cached(&self, names: &mut Namespace, parent: Ino, name: &Arc<str>, key: &Key) -> Option<Ino> {
        let cached = self.cached();
        let marker = key.as_directory();
        let below = (Bound::Excluded(&marker), Bound::Unbounded);
        let now = Instant::now();
        // The map is as old as the outage: what was removed or replaced since then is not in the cache any more. What is
        // still to be removed is.
        let is_held = |version: &Version| self.cache.has_version(version) && self.writer.pending(&version.key).is_none();
        let mut inside = cached.range::<Key, _>(below).take_while(|(key, _)| key.is_below(&marker));
        let inode = if inside.any(|(_, version)| is_held(version)) {
            names.absorb(parent, name, Seen::Directory, now, clock::now()).ino
        } else {
            let version = cached.get(key).filter(|version| is_held(version))?.clone();
            let learned = self.journal.last_headers(&version.key, &version.etag);
            let (modified, headers) =
                learned.map_or_else(|| (clock::now(), None), |(modified, headers)| (modified, Some(Box::new(headers))));
            names.absorb(parent, name, Seen::Object { version, modified, headers }, now, clock::now()).ino
        };
        if let Some(inode) = names.get_mut(inode) {
            inode.known |= inode.is_directory();
            inode.checked = None;
        }
        Some(inode)
    }

    /// The children of a directory that the cache knows of, when it can't be listed. What a complete listing lacked stays
    /// missing: what the cache has of it is older.
    fn adopt_cached_children(&self, ino: Ino) -> Result<()> {
        let mut names = self.names.lock();
        let directory = self.directory_key(&names, ino)?;
        if names.directory(ino).is_some_and(|node| node.complete) {
            return Ok(());
        }
        let cached = self.cached();
        let below = (Bound::Excluded(&directory), Bound::Unbounded);
        let inside = cached.range::<Key, _>(below).take_while(|(key, _)| key.is_below(&directory));
        for (key, _) in inside {
            let rest = &key.as_str()[directory.as_str().len()..];
            let name: Arc<str> = rest.split('/').next().unwrap_or_default().into();
            // So does one that was found missing by itself.
            let known = names.directory(ino).is_some_and(|node| node.children.contains_key(&name));
            if !name.is_empty() && !known {
                self.adopt_cached(&mut names, ino, &name, &directory.child(&name));
            }
        }
        Ok(())
    }

    /// A listing that can't be had is what is known. Err: nothing is.
    pub(super) async fn load_listing_or_remember(&self, ino: Ino, since: Option<Instant>) -> Result<()> {
        let known_before = self.names.lock().directory(ino).is_some_and(|node| node.complete);
        if known_before && self.outage.is_on() {
            return Ok(());
        }
        match self.answer_of(known_before, self.load_listing(ino, since)).await {
            Err(error) if is_outage(&error) => {
                self.adopt_cached_children(ino)?;
                let names = self.names.lock();
                let node = names.directory(ino).ok_or(Error::NotFound)?;
                if node.complete || !node.children.is_empty() { Ok(()) } else { Err(error) }
            }
            Ok(()) => {
                self.answered();
                Ok(())
            }
            refused => refused,
        }
    }
}

/// Asks on until the bucket answers, be it with a refusal.
async fn probe(fs: Weak<Fs>, patience: Duration) {
    let key = Key::from(PROBED);
    loop {
        tokio::time::sleep(PROBE_INTERVAL).await;
        let Some(fs) = fs.upgrade().filter(|fs| fs.outage.is_on()) else { return };
        match tokio::time::timeout(patience, fs.head(&key)).await {
            Err(_) => {}
            Ok(Err(error)) if is_outage(&error) => {}
            Ok(_) => return fs.answered(),
        }
    }
}
