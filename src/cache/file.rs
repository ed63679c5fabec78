//! One data file: its descriptor, and what can be asked of it. `state` has the invariants, `write`, `fill` and `settle`
//! the changes.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::types::{FileId, Key, Span, Version};

use super::disk::on_disk;
use super::shared::Shared;
use super::state::State;

/// One data file. All methods are safe from any thread and short: no network, no fsync, except `Cache::sync`.
///
/// A file that nobody has pinned may be evicted at any time: it then has nothing present and takes nothing in.
/// Whoever uses it for longer than a call holds a [`super::Pin`].
pub struct LocalFile {
    pub(super) id: FileId,
    pub(super) shared: Arc<Shared>,
    pub(super) state: Mutex<State>,
    pub(super) filled: Notify,
    /// Counts what was taken off the disk while readers may be at it.
    pub(super) drops: AtomicU64,
    used: AtomicU64,
    writers: AtomicUsize,
}

/// What a file held at one instant; equal stamps mean nothing changed in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Counts local changes.
    pub change: u64,
    /// Of the data file, from fstat: they catch writers that don't pass through the daemon.
    pub size: u64,
    pub mtime_ns: i64,
}

impl LocalFile {
    pub(super) fn new(id: FileId, shared: Arc<Shared>, state: State) -> Arc<Self> {
        let (used, writers) = (AtomicU64::new(0), AtomicUsize::new(0));
        let (state, filled, drops) = (Mutex::new(state), Notify::new(), AtomicU64::new(0));
        Arc::new(Self { id, shared, state, filled, drops, used, writers })
    }

    pub fn id(&self) -> FileId {
        self.id
    }

    /// Length in bytes as readers see it.
    pub fn size(&self) -> u64 {
        self.state.lock().size
    }

    /// The version that absent bytes have to come from, and that a change builds on.
    pub fn base(&self) -> Option<Version> {
        self.state.lock().base.clone()
    }

    pub fn is_dirty(&self) -> bool {
        self.state.lock().dirty
    }

    /// No byte is absent.
    pub fn is_complete(&self) -> bool {
        let state = self.state.lock();
        !state.gone && state.is_full()
    }

    /// The parts of `span` that are absent, in order.
    pub fn missing(&self, span: Span) -> Vec<Span> {
        self.state.lock().missing(span)
    }

    /// Parts changed locally since `base`, in order; all of it where there is no base or it isn't known.
    pub fn changed(&self) -> Vec<Span> {
        let state = self.state.lock();
        let mut changed = state.changes.all();
        if state.base.is_none() {
            changed.insert(0..state.size);
        }
        changed.within(0..state.size)
    }

    /// When local bytes changed last (virtual time in tests).
    pub fn changed_at(&self) -> Instant {
        self.state.lock().changed_at
    }

    pub fn stamp(&self) -> Result<Stamp> {
        self.stamp_now(&mut self.state.lock())
    }

    /// Takes in what changed the file's length behind our back; a program may write to it without the daemon.
    pub(super) fn stamp_now(&self, state: &mut State) -> Result<Stamp> {
        let metadata = self.file(state)?.metadata()?;
        match state.loose {
            0 => state.look(&metadata),
            _ => self.take_in(state, &metadata),
        }
        let disk = on_disk(&metadata);
        if state.complete && disk.size != state.size {
            self.other_length(state, disk.size)?;
        }
        Ok(Stamp { change: state.changes.mark(), size: disk.size, mtime_ns: disk.mtime_ns })
    }

    /// The data file is not as long as it was left: a program wrote to it past the daemon, or it is damaged.
    fn other_length(&self, state: &mut State, size: u64) -> Result<()> {
        let cut = size.min(state.size)..size.max(state.size);
        if !state.dirty && state.base.is_some() && self.writers() == 0 {
            // What lies past the end is nobody's.
            return if size < state.size { self.give_up(state, vec![cut]) } else { Ok(()) };
        }
        if state.is_sealed() {
            return Err(self.damaged(state, cut));
        }
        self.forget_all_sums(state)?;
        state.seen.clear();
        self.absorb(state, size);
        Ok(())
    }

    pub(super) fn absorb(&self, state: &mut State, size: u64) {
        let before = state.charged();
        state.blocks.cut(size);
        // Holes may have been written to as well.
        state.blocks.occupy(0..size);
        state.changes.cut(size);
        state.changes.record(0..size);
        state.size = size;
        state.changed_at = Instant::now();
        let after = state.charged();
        self.shared.budget.force(after.saturating_sub(before), state.dirty);
        self.shared.release(before.saturating_sub(after), state.dirty);
    }

    /// The data file vanished from under us: of a clean one, nothing is present then. True if that helps.
    pub(super) fn lost(&self, state: &mut State) -> bool {
        if !state.is_evictable() {
            return false;
        }
        tracing::warn!(file = %self.id, "a cached file vanished from the cache directory");
        self.shared.release(state.charged(), false);
        state.blocks.clear();
        state.parts.change(|sets| sets.present.clear());
        state.forget_sums(&(0..u64::MAX));
        state.seen.clear();
        state.complete = state.size == 0;
        state.on_disk = false;
        true
    }

    /// Resolves when bytes were filled in, or the base changed, since this call was made (not since the first await):
    /// make it, look at the file, then await it.
    pub fn filled(&self) -> Notified<'_> {
        self.filled.notified()
    }

    /// Openers that may write; the writer waits for them to close or to rest.
    pub fn writers(&self) -> usize {
        self.writers.load(Ordering::Acquire)
    }

    pub fn add_writer(&self) {
        self.writers.fetch_add(1, Ordering::AcqRel);
    }

    pub fn remove_writer(&self) {
        let before = self.writers.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "more writers closed than opened");
        if before == 1 {
            let mut state = self.state.lock();
            if !state.dirty && !state.is_sealed() {
                // Its row says that somebody may be writing to it.
                self.make_stale(&mut state);
            }
        }
    }

    /// The open data file (read-write, no O_APPEND): what passthrough hands to the kernel.
    pub fn handle(&self) -> Result<Arc<File>> {
        self.file(&mut self.state.lock())
    }

    /// The descriptor, opened where it isn't. Pinned files keep theirs, the others share a bounded number.
    pub(super) fn file(&self, state: &mut State) -> Result<Arc<File>> {
        if let Some(file) = &state.handle {
            return Ok(file.clone());
        }
        if state.gone {
            return Err(Error::Stale);
        }
        let kept = self.shared.descriptors.lock().get(&self.id).cloned();
        let file = match kept {
            Some(file) => file,
            None => Arc::new(self.shared.disk.open_file(self.id, !state.on_disk)?),
        };
        if !state.on_disk {
            state.on_disk = true;
            state.new_name = true;
        }
        self.keep(state, &file);
        Ok(file)
    }

    pub(super) fn keep(&self, state: &mut State, file: &Arc<File>) {
        let mut descriptors = self.shared.descriptors.lock();
        let surplus = if state.pins > 0 {
            state.handle = Some(file.clone());
            descriptors.pop(&self.id)
        } else {
            descriptors.push(self.id, file.clone()).map(|(_, file)| file)
        };
        drop(descriptors);
        // Closed outside the lock.
        drop(surplus);
    }

    /// The journal has nothing of the file any more, its sums neither.
    pub(super) fn leave_journal(&self, state: &mut State) {
        if std::mem::take(&mut state.in_journal) {
            self.shared.forget_row(self.id);
        }
        (state.sums, state.seal, state.unsure, state.told) = (None, None, false, state.copies);
    }

    /// The version that a clean file holds was one of `key`, which is gone.
    pub(super) fn forget_version_of(&self, key: &Key) {
        let mut state = self.state.lock();
        let is_of_key = state.base.as_ref().is_some_and(|base| base.key == *key);
        if state.dirty || state.gone || state.discarded || !is_of_key {
            return;
        }
        if state.pins > 0 {
            self.leave_names(&mut state);
        } else {
            self.shared.index.lock().remove(self.id, state.base.as_ref());
            self.bury(&mut state);
        }
    }

    /// Its name was removed or replaced here, and a program has it open: nobody else finds it from now on. Written to past the
    /// daemon, it would else look like unsent data of that name after a kill.
    pub fn depart(&self) {
        let mut state = self.state.lock();
        if !state.dirty && !state.gone && !state.discarded && state.pins > 0 {
            self.leave_names(&mut state);
        }
    }

    fn leave_names(&self, state: &mut State) {
        self.shared.index.lock().forget_version(self.id, state.base.as_ref());
        state.departed = true;
        self.leave_journal(state);
    }

    /// Deletes the data file; its row first, so that a crash in between leaves a file that nobody names.
    pub(super) fn bury(&self, state: &mut State) {
        self.leave_journal(state);
        state.handle = None;
        let open = self.shared.descriptors.lock().pop(&self.id);
        drop(open);
        // A power cut takes the latest commits away: a journal that still wants these bytes has to find them.
        let may_be_wanted = state.dirty && state.on_disk && !state.new_name;
        let settled = if may_be_wanted { self.shared.journal.flush() } else { Ok(()) };
        if state.on_disk
            && let Err(error) = settled.and_then(|()| self.shared.disk.remove(self.id).map_err(Error::from))
        {
            tracing::warn!(file = %self.id, "can't delete a data file: {error}");
        }
        let (freed, dirty) = (state.charged(), state.dirty);
        state.gone = true;
        state.on_disk = false;
        state.complete = false;
        state.parts.clear();
        state.seen.clear();
        state.blocks.clear();
        self.shared.release(freed, dirty);
    }

    /// `Cache::sync` shall look at this file.
    pub(super) fn make_stale(&self, state: &mut State) {
        if !state.stale && !state.discarded && !state.gone {
            state.stale = true;
            self.shared.mark_stale(self.id);
        }
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn set_used(&self, used: u64) {
        self.used.store(used, Ordering::Relaxed);
    }
}
