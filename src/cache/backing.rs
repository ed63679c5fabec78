//! Data files that the kernel reads by itself (FUSE passthrough): which ones may be, and what must not happen to them then.
//!
//! Such reads pass no checksum. So a file is given to the kernel once all its bytes were written or found right since the
//! daemon started, and only while nobody else has touched it since: the disk's own times tell, at each open.
//!
//! Writes through it pass nothing of ours either; such a file is *loose*. The daemon learns of them by looking: the length and
//! the times that the disk has are compared with those of the last look. While it is loose a file has no sums and no seal, so
//! that a start after a kill takes it as it finds it, and every change counts as one of all its bytes.
//!
//! A power cut takes a file that is loose: without sums nothing proves what of it reached the disk. One that rests, or is
//! synced, is in the bucket by then.
//!
//! INVARIANTS
//! - While `backed` is above zero no byte of the file becomes a hole, since it would read as zeros.
//! - A clean file that is loose has a row and a broken seal in the journal: changed behind the daemon, it is unsent data.
//! - No other file takes bytes from a loose one: they may not be its version's any more.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error::{Error, Result};
use crate::types::Span;

use super::disk::{self, on_disk};
use super::file::LocalFile;
use super::state::State;

/// What an open(2) may read to check a file: no more than the first read of it would. Larger ones are checked by being read.
const CHECK_BYTES: u64 = 1 << 20;

/// A data file as fstat shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    pub size: u64,
    pub mtime_ns: i64,
    pub ctime_ns: i64,
}

impl Look {
    fn of(metadata: &Metadata) -> Self {
        let disk = on_disk(metadata);
        Self { size: disk.size, mtime_ns: disk.mtime_ns, ctime_ns: metadata.ctime() * 1_000_000_000 + metadata.ctime_nsec() }
    }

    /// When it was written to last.
    pub fn modified(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(self.mtime_ns).unwrap_or(0))
    }
}

impl State {
    /// The daemon has just written this span, or cut the file at its start where it is empty.
    pub fn wrote(&mut self, span: Span) {
        self.seen.cut(self.size);
        self.see(span);
        self.looked = None;
        if self.loose > 0 {
            // Who else wrote between two looks can't be told apart.
            let all = 0..self.size;
            self.changes.record(all);
        }
    }

    /// This span is what it was left as.
    pub fn see(&mut self, span: Span) {
        if !span.is_empty() {
            self.seen.insert(span);
        }
    }

    /// Takes note of how the file is. Where the daemon didn't change it, somebody else may have: nothing is proven then.
    pub fn look(&mut self, metadata: &Metadata) {
        let now = Look::of(metadata);
        if self.looked.is_some_and(|before| before != now) {
            self.seen.clear();
            self.verified = None;
        }
        self.looked = Some(now);
    }
}

/// A data file whose descriptor the kernel has, until dropped.
pub struct Backing {
    file: Arc<LocalFile>,
    descriptor: Arc<File>,
}

impl Backing {
    /// Open read-write, without O_APPEND.
    pub fn descriptor(&self) -> &File {
        &self.descriptor
    }

    pub fn file(&self) -> &Arc<LocalFile> {
        &self.file
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        self.file.state.lock().backed -= 1;
    }
}

impl LocalFile {
    /// For the kernel to use. None: a byte is absent or not proven to be right, and the daemon has to serve it.
    pub fn back(self: &Arc<Self>) -> Result<Option<Backing>> {
        if let Some(backing) = self.back_proven()? {
            return Ok(Some(backing));
        }
        if !self.is_complete() || self.size() > CHECK_BYTES || !self.verify_all()? {
            return Ok(None);
        }
        self.back_proven()
    }

    fn back_proven(self: &Arc<Self>) -> Result<Option<Backing>> {
        let mut state = self.state.lock();
        if state.gone || !state.complete {
            return Ok(None);
        }
        let descriptor = self.file(&mut state)?;
        let metadata = descriptor.metadata()?;
        if state.loose == 0 {
            state.look(&metadata);
            if metadata.len() != state.size || !state.seen.contains(&(0..state.size)) {
                return Ok(None);
            }
        }
        state.backed += 1;
        Ok(Some(Backing { file: self.clone(), descriptor }))
    }

    /// Somebody may write to the file past the daemon from now on, until `tighten`. It is backed. The journal has heard of it
    /// when this returns.
    pub fn loosen(&self) -> Result<()> {
        let mut state = self.state.lock();
        if !state.complete || state.gone {
            return Err(Error::Stale);
        }
        state.loose += 1;
        if state.loose > 1 {
            return Ok(());
        }
        if let Err(error) = self.journal_loose(&mut state) {
            state.loose -= 1;
            return Err(error);
        }
        Ok(())
    }

    fn journal_loose(&self, state: &mut State) -> Result<()> {
        let metadata = self.file(state)?.metadata()?;
        state.look(&metadata);
        if state.seal.is_some() || state.size > 0 {
            self.forget_all_sums(state)?;
        }
        if !state.dirty && state.base.is_some() && !state.departed { self.journal_row(state, &[]) } else { Ok(()) }
    }

    /// The last one who could write past the daemon is gone, if this was called as often as `loosen`. To be preceded by `news`.
    pub fn tighten(&self) {
        let mut state = self.state.lock();
        state.loose = state.loose.saturating_sub(1);
        if state.loose > 0 {
            return;
        }
        // What was a hole may have been written to since the last look: no byte is taken for a zero unread.
        let (size, before) = (state.size, state.charged());
        state.blocks.occupy(0..size);
        self.shared.budget.force(state.charged().saturating_sub(before), state.dirty);
        state.see(0..size);
        self.make_stale(&mut state);
    }

    pub fn is_loose(&self) -> bool {
        self.state.lock().loose > 0
    }

    /// What a loose file is by now, where the daemon has not taken that in yet; for stat.
    pub fn glimpse(&self) -> Option<Look> {
        let mut state = self.state.lock();
        if state.loose == 0 {
            return None;
        }
        let now = Look::of(&self.file(&mut state).ok()?.metadata().ok()?);
        let differs = state.looked.is_some_and(|before| before != now) || now.size != state.size;
        if differs { Some(now) } else { state.news.as_deref().copied() }
    }

    /// Takes in what was written past the daemon; what it came to, until `told`.
    pub fn news(&self) -> Result<Option<Look>> {
        let mut state = self.state.lock();
        if state.loose > 0 {
            let metadata = self.file(&mut state)?.metadata()?;
            self.take_in(&mut state, &metadata);
        }
        Ok(state.news.as_deref().copied())
    }

    /// This news is known now.
    pub fn told(&self, news: Look) {
        let mut state = self.state.lock();
        if state.news.as_deref() == Some(&news) {
            state.news = None;
        }
    }

    /// Of a loose file.
    pub(super) fn take_in(&self, state: &mut State, metadata: &Metadata) {
        let now = Look::of(metadata);
        let before = state.looked.replace(now);
        // After a change by the daemon it can't be told who did what; what it did counts as a change of all.
        if before.is_some_and(|before| before != now) || now.size != state.size {
            self.absorb(state, now.size);
            state.verified = None;
            state.news = Some(Box::new(now));
            self.make_stale(state);
            self.shared.keep_to_the_limit();
        }
    }

    /// The daemon itself has changed a loose file.
    pub(super) fn look_after_change(&self, state: &mut State) {
        if state.loose > 0 {
            let metadata = self.file(state).ok().and_then(|file| file.metadata().ok());
            state.looked = metadata.map(|metadata| Look::of(&metadata));
        }
    }

    /// Before a loose file is read to be sent: its pages go to the disk, so that a program that stores into them through mmap
    /// moves the file's times again. Blocking pool only.
    pub fn settle_pages(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.loose == 0 {
            return Ok(());
        }
        let file = self.file(&mut state)?;
        drop(state);
        Ok(disk::write_pages(&file)?)
    }
}
