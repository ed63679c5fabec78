//! Local data files: the disk cache of clean versions and the staging files of dirty ones, which are the same files.
//!
//! - `spans`, `changes`: sets of bytes, and which of them changed since when. Pure.
//! - `state`: what is known of one file, and its invariants.
//! - `file`, `write`, `fill`, `settle`, `pin`, `row`: what can be done with it.
//! - `backing`, `watchful`: files that the kernel reads and writes by itself, and where it may write.
//! - `freed`: parts that an upload holds, and other bytes that the bucket has, give up their room.
//! - `sums`, `verify`, `damage`, `rewrite`, `seal`: checksums of what it holds: pure, checked by reads, found wrong, of bytes
//!   that change, and as the journal has them.
//! - `blocks`, `index`, `budget`, `disk`: all files, their bytes, their places on the disk. `idle`: those that nobody uses.
//! - `shared`: what they have in common; eviction; the lock order. `spares`: files made ahead.
//! - `open`, `torn`, `sync`: a start, one after a crash of the machine, and every few seconds. `audit`: is a file whole?
//!
//! Invariants:
//! - The disk's blocks of all data files together never pass the limit, and writing never takes the disk below the floor.
//! - Dirty and pinned files are never evicted.
//! - A byte that a file calls present is the base's or a local change; it is never a hole of the sparse file.
//! - No byte is read that is not the one that was written, as far as it has a sum: what comes to rest has one.
//! - A crash loses no acknowledged change. See `write` for the order that makes it so.
//!
//! Must not: know keys beyond those in a version, talk to the bucket, or decide what is to be uploaded.

mod adopt;
mod audit;
mod backing;
mod blocks;
mod budget;
mod changes;
mod damage;
mod disk;
mod file;
mod fill;
mod freed;
mod idle;
mod index;
mod open;
mod parts;
mod pin;
mod rewrite;
mod row;
mod seal;
mod settle;
mod shared;
mod spans;
mod spares;
mod state;
mod sums;
mod sync;
#[cfg(test)]
mod tests;
mod torn;
mod verify;
mod watchful;
mod write;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::futures::Notified;

use crate::error::Result;
use crate::journal::Journal;
use crate::types::{FileId, Key, Version};

pub use audit::{Audit, Evidence, audit};
pub use backing::{Backing, Look};
pub use disk::{OnDisk, data_files, data_path};
pub use file::{LocalFile, Stamp};
pub use freed::Watch;
pub use pin::Pin;
use shared::Shared;
pub use spans::SpanSet;
use state::State;
pub use torn::{Torn, torn_files};
pub use watchful::tells_of_every_write;

/// Budget of the cache directory, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// All data files together, dirty and clean.
    pub size_bytes: u64,
    /// Never leave less than this free on the disk.
    pub free_floor_bytes: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub bytes: u64,
    pub dirty_bytes: u64,
    pub limit_bytes: u64,
    pub files: u64,
}

/// Damage found since the start, of which the log has more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Times that cached bytes were dropped, to be fetched again.
    pub refetched: u64,
    /// Files whose unsent bytes are damaged on the disk.
    pub unsent_files: u64,
    /// Files that a crash of the machine has torn, kept in the folder `damaged`; of earlier starts too.
    pub kept_files: u64,
}

/// Why a local write was not done.
#[derive(Debug)]
pub enum WriteRefused {
    /// The file is clean: its desired state has to be journalled (`Writer::apply`) before its bytes change.
    Clean,
    /// No room until something is uploaded or evicted: wait for `Cache::room` and try again.
    Full,
    /// It would change a part of what an upload holds: `LocalFile::recall` was called, wait as for room.
    Freed,
    Failed(crate::error::Error),
}

pub struct Cache {
    shared: Arc<Shared>,
    behind: Vec<FileId>,
    unclaimed: Vec<FileId>,
    lost: Vec<(FileId, Option<Version>)>,
    emptied: Vec<FileId>,
}

impl Cache {
    /// Loads the index from the journal. `trusted` false (the machine crashed) throws the clean files away.
    pub fn open(directory: &Path, journal: Arc<Journal>, limits: Limits, trusted: bool) -> Result<Arc<Cache>> {
        open::open(directory, journal, limits, trusted)
    }

    /// A new empty file without a base: complete, clean until `mark_dirty`.
    pub fn create(&self) -> Result<Arc<LocalFile>> {
        let made_ahead = self.shared.take_spare().map(|id| self.empty(id, true)).filter(|file| file.handle().is_ok());
        let file = match made_ahead {
            Some(file) => file,
            None => self.empty(self.shared.new_id()?, false),
        };
        file.handle()?;
        self.shared.enroll(&file);
        Ok(file)
    }

    /// `is_there`: on the disk, where it is empty.
    fn empty(&self, id: FileId, is_there: bool) -> Arc<LocalFile> {
        let state = State { on_disk: is_there, new_name: is_there, ..State::empty(self.shared.disk.block_bytes) };
        LocalFile::new(id, self.shared.clone(), state)
    }

    /// Has some empty files ready from the first `create` on, which is faster then.
    pub fn keep_spares(&self) {
        self.shared.spares.keep();
    }

    /// Deletes those that nobody took.
    pub fn drop_spares(&self) {
        self.shared.drop_spares();
    }

    /// The file that holds this version, sparse and empty where there was none.
    pub fn of_version(&self, version: &Version) -> Result<Arc<LocalFile>> {
        if let Some(file) = self.find_version(version) {
            return Ok(file);
        }
        let mut state = State::empty(self.shared.disk.block_bytes);
        state.base = Some(version.clone());
        state.size = version.size;
        state.complete = version.size == 0;
        let file = LocalFile::new(self.shared.new_id()?, self.shared.clone(), state);
        {
            let mut index = self.shared.index.lock();
            // Another thread may have been faster.
            if let Some(theirs) = index.find(version) {
                return Ok(theirs);
            }
            index.insert(file.clone());
            index.name_version(version, file.id());
            index.let_go(&file);
        }
        self.shared.bound_files();
        Ok(file)
    }

    /// The same, only if it is there (for stat and eviction decisions; does not create).
    pub fn find_version(&self, version: &Version) -> Option<Arc<LocalFile>> {
        self.shared.index.lock().find(version)
    }

    /// Whether a clean file holds this version, whole or in part. Doesn't count as a use of it.
    pub fn has_version(&self, version: &Version) -> bool {
        self.shared.index.lock().has_version(version)
    }

    /// The bucket holds nothing under `key` any more: cached versions of it are of no use, and must not be shown as what is
    /// known when the bucket can't be asked. Who has one open goes on with it: it may have another name by now.
    pub fn forget_key(&self, key: &Key) {
        let of_key = self.shared.index.lock().of_key(key);
        of_key.into_iter().filter_map(|id| self.get(id)).for_each(|file| file.forget_version_of(key));
    }

    /// Every version that has a clean file, whole or in part; of one key the latest last.
    pub fn versions(&self) -> Vec<Version> {
        self.shared.index.lock().versions()
    }

    pub fn get(&self, id: FileId) -> Option<Arc<LocalFile>> {
        self.shared.index.lock().get(id)
    }

    /// Deletes the file now if nobody holds an open pin, else when the last pin goes. Its bytes are wanted by nobody.
    /// Its row goes at once; from now on it is found under no name.
    pub fn discard(&self, id: FileId) {
        let Some(file) = self.get(id) else { return };
        let mut state = file.state.lock();
        if state.discarded {
            return;
        }
        state.discarded = true;
        self.shared.index.lock().remove(id, state.base.as_ref());
        file.leave_journal(&mut state);
        if state.pins == 0 {
            file.bury(&mut state);
        }
    }

    /// Resolves when room may have been made since this call was made (not since the first await): make it, try to
    /// write, then await it. Room that other programs make on the disk is not noticed: don't wait for ever.
    /// While it is held the caller counts as a writer that waits.
    pub fn room(&self) -> impl Future<Output = ()> + Send + '_ {
        let (room, waiting) = (self.shared.room.notified(), self.shared.wait());
        async move {
            room.await;
            drop(waiting);
        }
    }

    /// Resolves when a writer was refused for want of room, or freed bytes are needed, since this call was made.
    pub fn called(&self) -> Notified<'_> {
        self.shared.calls.notified()
    }

    /// A writer waits for room, or did a moment ago.
    pub fn is_pressed(&self) -> bool {
        self.shared.is_pressed()
    }

    /// Files whose freed bytes somebody needs, since the last call.
    pub fn take_recalled(&self) -> Vec<FileId> {
        std::mem::take(&mut *self.shared.recalled.lock()).into_iter().collect()
    }

    /// Frees what files that can't be evicted hold of their base: of clean ones, and of dirty ones over `dirty_from_bytes`
    /// (smaller ones go up whole, and shall have all they need). Bytes freed. May fsync: blocking pool only.
    pub fn squeeze(&self, dirty_from_bytes: u64) -> Result<u64> {
        let held = self.shared.index.lock().held();
        held.iter().try_fold(0, |freed, file| Ok(freed + file.squeeze(dirty_from_bytes)?))
    }

    /// What the data files may hold together, in bytes, as far as limit, floor and disk allow now.
    pub fn capacity(&self) -> u64 {
        self.shared.budget.capacity(|| self.shared.disk.available())
    }

    /// What may be written before something has to be uploaded, in bytes.
    pub fn free(&self) -> u64 {
        self.capacity().saturating_sub(self.shared.budget.counts().dirty_bytes)
    }

    pub fn usage(&self) -> Usage {
        let counts = self.shared.budget.counts();
        let files = self.shared.index.lock().len() as u64;
        let limit_bytes = self.shared.budget.limits().size_bytes;
        Usage { bytes: counts.bytes, dirty_bytes: counts.dirty_bytes, limit_bytes, files }
    }

    pub fn damage(&self) -> Damage {
        let counters = &self.shared.damage;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Damage { refetched: count(&counters.refetched), unsent_files: count(&counters.unsent), kept_files: count(&counters.kept) }
    }

    /// fsyncs every data file written since the last call; then journals present maps. To be followed by `Journal::sync`.
    pub fn sync(&self) -> Result<()> {
        self.shared.sync()
    }

    /// Brings all that is acknowledged to the disk: the data, then the journal, which by then says what of it is there.
    /// Called every few seconds. May take long: blocking pool only.
    pub fn persist(&self) -> Result<()> {
        self.sync()?;
        self.shared.journal.sync()
    }

    /// Files that were clean when the last session ended and were written to since: unsent data, dirty now, still
    /// without a desired state. `base` tells the key that they were opened under.
    pub fn changed_behind(&self) -> Vec<Arc<LocalFile>> {
        self.behind.iter().filter_map(|&id| self.get(id)).collect()
    }

    /// Files with unsent changes that went down with the machine before they were synced, and what they were made from.
    /// Their rows are still there.
    pub fn lost(&self) -> &[(FileId, Option<Version>)] {
        &self.lost
    }

    /// Dirty files of which the machine's end left nothing local: each is its base, byte for byte.
    pub fn emptied(&self) -> &[FileId] {
        &self.emptied
    }

    /// Files that were dirty at the start though no desired state names them: left by a crash between the two. They are
    /// kept, and count against the budget, until somebody discards them.
    pub fn unclaimed(&self) -> Vec<Arc<LocalFile>> {
        self.unclaimed.iter().filter_map(|&id| self.get(id)).collect()
    }
}

impl Drop for Cache {
    /// The files hold what they share and the index in it holds them: this opens the circle.
    fn drop(&mut self) {
        self.shared.drop_spares();
        self.shared.index.lock().clear();
    }
}
