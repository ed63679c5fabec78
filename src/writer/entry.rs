//! One key whose desired state the bucket doesn't have yet: what is wanted, since when, and who waits for it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::WriterConfig;
use crate::cache::LocalFile;
use crate::error::{Error, Result};
use crate::journal::{Content, Desired};
use crate::types::Key;

/// Why an entry stopped.
#[derive(Debug)]
pub struct Failure {
    pub error: Error,
    pub since: SystemTime,
    /// Tried again by itself then; None: only when the key changes or somebody asks.
    pub retry_at: Option<Instant>,
    /// Somebody was told.
    pub told: bool,
}

/// Somebody who waits until the bucket holds what is wanted now.
#[derive(Debug)]
pub struct Waiter {
    /// A flight of this number or later began after the waiter came, so it carries what the waiter means.
    pub from_flight: u64,
    pub tell: oneshot::Sender<Result<()>>,
}

impl Waiter {
    /// Whoever has gone away needs no answer.
    pub fn done(self, result: Result<()>) {
        let _ = self.tell.send(result);
    }
}

pub struct Entry {
    /// What the journal's row says.
    pub desired: Desired,
    /// The data file of staged content; None there: it is lost, and the entry has failed.
    pub file: Option<Arc<LocalFile>>,
    /// The journal had so many commits when it had the row.
    pub commits: u64,
    /// Another one for each change of `desired` from above.
    pub generation: u64,
    pub first_dirty: Instant,
    pub changed_at: Instant,
    /// Loaded from the journal: it has settled long ago.
    pub settled: bool,
    /// Somebody waits: neither settling nor resting delays it.
    pub urgent: bool,
    /// Failures in a row.
    pub attempts: u32,
    pub not_before: Option<Instant>,
    pub failed: Option<Box<Failure>>,
    pub waiters: Vec<Waiter>,
    /// An attempt whose end nobody saw may have taken effect.
    pub unsure: bool,
    /// Made under a name that was being deleted: once it is, the name has to be new.
    pub new_once_deleted: bool,
    /// A writer waits for the room that its finished parts would make.
    pub ahead: bool,
    /// Its bytes go up from here: the version that they came from is about to be overwritten.
    pub local_only: bool,
}

impl Entry {
    pub fn new(desired: Desired, file: Option<Arc<LocalFile>>, generation: u64, now: Instant) -> Self {
        Self {
            desired,
            file,
            commits: u64::MAX,
            generation,
            first_dirty: now,
            changed_at: now,
            settled: false,
            urgent: false,
            attempts: 0,
            not_before: None,
            failed: None,
            waiters: Vec::new(),
            unsure: false,
            new_once_deleted: false,
            ahead: false,
            local_only: false,
        }
    }

    pub fn is_absent(&self) -> bool {
        self.desired.content == Content::Absent
    }

    /// In bytes, of what is here and not in the bucket.
    pub fn dirty_bytes(&self) -> u64 {
        match &self.desired.content {
            Content::Inline(bytes) => bytes.len() as u64,
            _ => self.file.as_ref().map_or(0, |file| file.size()),
        }
    }

    /// The key that has to stay as it is until this entry is in the bucket: a copy's source, or a file's base. Of a file
    /// that is complete here it is what a power cut leaves of it, unless that was seen to (`local_only`).
    pub fn source(&self, key: &Key) -> Option<Key> {
        let from = match (&self.desired.content, &self.file) {
            (Content::CopyOf(version) | Content::Restored(version), _) => Some(version.key.clone()),
            (Content::Staged(_), Some(file)) => {
                let base = file.base()?;
                let needed = !file.is_complete() || !self.local_only;
                needed.then_some(base.key)
            }
            _ => None,
        };
        from.filter(|from| from != key)
    }

    /// When it may go, as far as settling and open files go; in the future: when to look again.
    pub fn due(&self, config: &WriterConfig, now: Instant) -> Instant {
        if self.settled {
            return self.first_dirty;
        }
        let open = self.file.as_ref().map(|file| OpenFile { writers: file.writers(), changed_at: file.changed_at() });
        due(self.first_dirty, self.changed_at, open, config, now)
    }
}

/// What is known of a staged file that programs may have open.
#[derive(Clone, Copy, Debug)]
pub struct OpenFile {
    pub writers: usize,
    pub changed_at: Instant,
}

fn due(first_dirty: Instant, changed_at: Instant, file: Option<OpenFile>, config: &WriterConfig, now: Instant) -> Instant {
    let changed_at = file.map_or(changed_at, |file| file.changed_at.max(changed_at));
    let settled = (changed_at + config.settle).min(first_dirty + config.settle_limit);
    match file {
        Some(file) if file.writers > 0 => {
            let rested = changed_at + config.rest;
            if rested <= now { rested } else { rested.min(look_again(first_dirty, config, now)).max(settled) }
        }
        _ => settled,
    }
}

/// `closed` says when a file was closed; should nobody say so, it is looked at ever more rarely.
fn look_again(first_dirty: Instant, config: &WriterConfig, now: Instant) -> Instant {
    let longest = config.rest.max(config.settle);
    now + (now - first_dirty).clamp(config.settle.max(Duration::from_millis(1)).min(longest), longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> WriterConfig {
        WriterConfig { parallel_files: 4, parallel_parts: 4, host: "h".into(), ..WriterConfig::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn changes_settle_but_not_for_ever() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        for (first, changed, file, now, expected) in [
            (0, 0, None, 0, 100),
            (0, 50, None, 60, 150),
            (0, 950, None, 960, 1_000),
            // A write that the daemon was not told of counts as a change.
            (0, 0, Some((0, 70)), 100, 170),
            (0, 0, Some((0, 2_000)), 2_000, 1_000),
            // Open: looked at again, later and later, until it has rested.
            (0, 0, Some((1, 0)), 100, 200),
            (0, 0, Some((1, 1_500)), 1_600, 3_200),
            (0, 0, Some((1, 100_000)), 100_000, 105_000),
            (0, 0, Some((1, 4_000)), 8_999, 9_000),
            (0, 0, Some((1, 4_000)), 9_000, 9_000),
        ] {
            let file = file.map(|(writers, changed)| OpenFile { writers, changed_at: at(changed) });
            assert_eq!(due(at(first), at(changed), file, &config(), at(now)), at(expected), "{first} {changed} {file:?} {now}");
        }
    }
}
