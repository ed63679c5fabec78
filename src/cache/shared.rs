//! What the data files of one cache have in common: budget, index, open descriptors, journal; and eviction.
//!
//! Lock order, outermost first: the state of *one* file, `index`, `descriptors`, then leaves (`budget`, `ids`,
//! `stale`, `pressed`, `recalled`, the journal). Eviction runs under the state of the file that needs room, so it takes the state of its
//! victim with `try_lock` only: a file that is being used at this moment is no victim.

use std::collections::BTreeSet;
use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::error::Result;
use crate::journal::{Change, Journal};
use crate::types::FileId;

use super::budget::{Budget, Lack};
use super::disk::Disk;
use super::file::LocalFile;
use super::index::Index;
use super::spares::Spares;

/// Descriptors kept open beyond those of pinned files. Opening costs 2 µs; a process has 1,024 by default.
const DESCRIPTORS: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// One that nobody uses takes 0.9 KB of resident memory (60,000 of them, after a start), so that all of them take a gigabyte.
const MAX_FILES: usize = 1_000_000;

/// Files looked at with the index locked.
const REST_BATCH: usize = 256;

/// Ids are reserved in the journal by so many at once: one commit for as many new files.
const ID_BATCH: u64 = 4096;

pub struct Shared {
    pub disk: Disk,
    pub journal: Arc<Journal>,
    pub budget: Budget,
    pub index: Mutex<Index>,
    /// Of files that nobody has pinned.
    pub descriptors: Mutex<LruCache<FileId, Arc<File>>>,
    /// Files that `Cache::sync` has work with.
    pub stale: Mutex<BTreeSet<FileId>>,
    /// Room may have been made.
    pub room: Notify,
    /// Somebody waits for room, or for what was freed.
    pub calls: Notify,
    waiting: AtomicUsize,
    /// When a writer was refused for want of room, last.
    pressed: Mutex<Option<Instant>>,
    /// Files whose freed parts somebody needs.
    pub recalled: Mutex<BTreeSet<FileId>>,
    pub damage: Counters,
    pub spares: Spares,
    ids: Mutex<Ids>,
}

/// What was found damaged since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Times that cached bytes were dropped, to be fetched again.
    pub refetched: AtomicU64,
    /// Files whose unsent bytes are damaged.
    pub unsent: AtomicU64,
    /// Files in the folder of those that a crash of the machine has torn, kept there for people.
    pub kept: AtomicU64,
}

/// So long after a writer was refused, what is fetched goes past the cache: room that is made is the writer's.
const PRESSED: Duration = Duration::from_secs(1);

/// A writer that waits for room, until dropped.
pub struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Ids {
    next: u64,
    /// Reserved up to here, exclusive.
    end: u64,
}

impl Shared {
    /// `clock`: past every use that was journalled.
    pub fn new(disk: Disk, journal: Arc<Journal>, budget: Budget, clock: u64, next_id: u64, damage: Counters) -> Arc<Self> {
        Arc::new_cyclic(|home| Self {
            disk,
            journal,
            budget,
            index: Mutex::new(Index::new(clock, home.clone())),
            descriptors: Mutex::new(LruCache::new(DESCRIPTORS)),
            stale: Mutex::default(),
            room: Notify::new(),
            calls: Notify::new(),
            waiting: AtomicUsize::new(0),
            pressed: Mutex::default(),
            recalled: Mutex::default(),
            damage,
            spares: Spares::default(),
            ids: Mutex::new(Ids { next: next_id, end: next_id }),
        })
    }

    /// A number that no data file of this directory ever had.
    pub fn new_id(&self) -> Result<FileId> {
        let mut ids = self.ids.lock();
        if ids.next == ids.end {
            self.journal.set_meta(super::open::NEXT_ID, &(ids.next + ID_BATCH).to_string())?;
            ids.end = ids.next + ID_BATCH;
        }
        ids.next += 1;
        Ok(FileId(ids.next - 1))
    }

    /// Puts a new file into the index.
    pub fn enroll(&self, file: &Arc<LocalFile>) {
        self.index.lock().insert(file.clone());
        self.bound_files();
    }

    /// Evicts where there are too many files, however few bytes they have.
    pub fn bound_files(&self) {
        let surplus = self.index.lock().len().saturating_sub(MAX_FILES);
        for _ in 0..surplus {
            if self.evict_one().is_none() {
                break;
            }
        }
    }

    /// Forgets what need not be in memory of files that nobody uses.
    pub fn rest(&self) {
        let mut left = self.index.lock().surplus();
        while left > 0 {
            self.index.lock().rest(REST_BATCH);
            left = left.saturating_sub(REST_BATCH);
        }
    }

    /// Counts `bytes` as used, evicting as needed. False: there is no room, nothing is counted.
    pub fn reserve(&self, bytes: u64, dirty: bool) -> bool {
        loop {
            match self.budget.reserve(bytes, dirty, || self.disk.available()) {
                Ok(()) => return true,
                Err(Lack::Hopeless) => return false,
                Err(Lack::Bytes(lacking)) => {
                    if !self.evict(lacking) {
                        return false;
                    }
                }
            }
        }
    }

    /// A writer was refused for want of room.
    pub fn press(&self) {
        *self.pressed.lock() = Some(Instant::now());
        self.calls.notify_one();
    }

    /// A writer waits for room, or did a moment ago.
    pub fn is_pressed(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0 || self.pressed.lock().is_some_and(|at| at.elapsed() < PRESSED)
    }

    pub fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        Waiting(&self.waiting)
    }

    /// Gives bytes back that are gone from the disk.
    pub fn release(&self, bytes: u64, dirty: bool) {
        if bytes > 0 {
            self.budget.release(bytes, dirty);
            self.room.notify_waiters();
        }
    }

    /// Evicts until `bytes` are freed or nothing is left to evict; false if nothing at all was freed.
    pub fn evict(&self, bytes: u64) -> bool {
        let mut freed = 0;
        while freed < bytes {
            match self.evict_one() {
                Some(more) => freed += more,
                None => break,
            }
        }
        freed > 0
    }

    /// Makes room for what was written past the budget.
    pub fn keep_to_the_limit(&self) {
        let over = self.budget.counts().bytes.saturating_sub(self.budget.limits().size_bytes);
        if over > 0 {
            self.evict(over);
        }
    }

    /// Deletes the file that was used longest ago; the bytes that it held.
    fn evict_one(&self) -> Option<u64> {
        let mut index = self.index.lock();
        for _ in 0..index.evictable() {
            let victim = index.oldest()?;
            let Some(mut state) = victim.state.try_lock() else {
                index.let_go(&victim);
                continue;
            };
            index.remove(victim.id(), state.base.as_ref());
            drop(index);
            let freed = state.charged();
            victim.bury(&mut state);
            return Some(freed);
        }
        None
    }

    /// Removes the file's row. That it stays is harmless: without a data file it is dropped at the next start.
    pub fn forget_row(&self, id: FileId) {
        if let Err(error) = self.journal.apply(&[Change::RemoveFile(id)]) {
            tracing::warn!(file = %id, "the row of a deleted data file stays in the journal: {error}");
        }
    }

    pub fn mark_stale(&self, id: FileId) {
        self.stale.lock().insert(id);
    }
}
