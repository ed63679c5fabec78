//! A directory in which a program makes one new name after the other: how it is known that they are new.
//!
//! All names of the directory are listed once in a while, and what the list lacks is missing: one LIST a second for up to
//! ten thousand names, however many are made. Of a wider one that would be LISTs without an end. There a HEAD asks for each
//! new name, as whether a file has it is what another host changes; that no directory has it, an old list tells, and a new one
//! comes once as many names were asked for as it has pages. It is fetched behind what goes on.

use std::time::Duration;

use tokio::time::Instant;

use super::Fs;
use crate::namespace::{Directory, Ino};

/// To this size listing a directory anew is cheaper than asking for each of the names that a program makes in it: a LIST
/// a second, against a HEAD and a LIST for each.
const LIST_FOR_FILLING: usize = 10_000;

/// Names that one LIST shows.
const PAGE: usize = 1000;

/// So long a list of a wide directory tells which names no directory in it has.
const DIRECTORIES: Duration = Duration::from_secs(60);

/// What to do about a new name in a directory that is being filled.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Filling {
    /// What is known of all names is too old, or not enough.
    Ask,
    /// List the directory.
    List,
    /// Ask for a file of that name, or for anything where nobody knows of directories.
    Wide { object_only: bool },
}

impl Fs {
    pub(super) fn filling(&self, node: &Directory) -> Filling {
        let believed = self.absence_ttl(node);
        if believed.is_zero() || !node.complete || self.outage.is_on() {
            return Filling::Ask;
        }
        if node.children.len() >= LIST_FOR_FILLING {
            return Filling::Wide { object_only: node.complete_at().is_some_and(|known| known.elapsed() < DIRECTORIES) };
        }
        match node.peeks.last {
            // Others who come meanwhile ask for themselves.
            Some(last) if last.elapsed() < believed => Filling::Ask,
            _ => Filling::List,
        }
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
