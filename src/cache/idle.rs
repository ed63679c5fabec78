//! What is kept in memory of a file that nobody uses, which is far less than what one in use takes.
//!
//! Of a clean file at rest the journal and the disk have everything else. It is made whole again when somebody asks for it,
//! which costs no I/O.

use std::sync::Arc;

use crate::journal::Seal;
use crate::types::{FileId, Version};

use super::backing::Look;
use super::blocks::Blocks;
use super::file::LocalFile;
use super::shared::Shared;
use super::state::State;

/// A complete clean file whose row and sums are in the journal.
pub struct Idle {
    base: Version,
    blocks: u64,
    /// All of it was written or found right since the daemon started, and the data file was that then.
    seen: bool,
    looked: Option<Look>,
    used: u64,
}

impl LocalFile {
    /// Nobody uses it, and it is `version` and nothing else: who wants it again finds it under that.
    pub fn is_at_rest_as(&self, version: &Version) -> bool {
        let state = self.state.lock();
        let is_unused = state.pins == 0 && state.backed == 0 && state.loose == 0 && self.writers() == 0;
        is_unused && state.is_evictable() && state.base.as_ref() == Some(version) && state.size == version.size
    }

    /// None: somebody uses it, or more is to be known of it than that.
    pub(super) fn idle(self: &Arc<Self>) -> Option<Box<Idle>> {
        // The index has one reference; who gets another one has to ask the index, whose lock the caller holds.
        if Arc::strong_count(self) > 1 || self.writers() > 0 {
            return None;
        }
        let state = self.state.try_lock()?;
        let base = state.base.clone().filter(|_| state.is_at_rest())?;
        let seen = state.seen.contains(&(0..state.size));
        Some(Box::new(Idle { base, blocks: state.charged(), seen, looked: state.looked, used: self.used() }))
    }
}

impl Idle {
    pub(super) fn wake(self, id: FileId, shared: Arc<Shared>) -> Arc<LocalFile> {
        let mut state = State::empty(shared.disk.block_bytes);
        state.size = self.base.size;
        state.base = Some(self.base);
        state.blocks = Blocks::solid(shared.disk.block_bytes, self.blocks);
        // A clean file's name is never synced.
        (state.on_disk, state.in_journal, state.new_name) = (true, true, true);
        state.seal = Some(Seal { size: state.size, whole: true });
        state.looked = self.looked;
        if self.seen {
            state.see(0..state.size);
        }
        let file = LocalFile::new(id, shared, state);
        file.set_used(self.used);
        file
    }
}

impl State {
    /// Clean, complete and untouched; all that is known of it beside its base is in the journal or on the disk.
    fn is_at_rest(&self) -> bool {
        let is_whole = self.is_evictable() && self.complete && self.on_disk && self.blocks.is_solid();
        let is_journalled = self.in_journal && !self.stale && self.sums.is_none() && self.is_sealed() && !self.unsure;
        let is_unused = self.pins == 0 && self.backed == 0 && self.loose == 0 && self.handle.is_none() && self.news.is_none();
        let is_plain =
            self.parts.freed.is_empty() && self.parts.vacated.is_empty() && self.base.as_ref().is_some_and(|base| base.size == self.size);
        is_whole && is_journalled && is_unused && is_plain
    }
}
