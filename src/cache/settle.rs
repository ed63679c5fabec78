//! How a data file changes sides: clean to dirty before its first change, dirty to clean with the evidence of an upload.
//!
//! The journal's row follows under the file's lock. A clean row that is written here or by `Cache::sync` while the
//! writer journals a dirty one is noticed in `mark_dirty`, by whichever of the two comes last.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::journal::Change;
use crate::types::Version;

use super::file::{LocalFile, Stamp};
use super::state::State;

impl LocalFile {
    /// Called by the writer with the desired state journalled in the same transaction: `row(true)` gives the row for
    /// it. Where that is not what the journal says, the row is written here.
    pub fn mark_dirty(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.dirty {
            return;
        }
        self.revive(&mut state);
        if !state.gone {
            let mut index = self.shared.index.lock();
            index.hold(self.id);
            index.forget_version(self.id, state.base.as_ref());
        }
        self.shared.budget.move_to(state.charged(), true);
        (state.dirty, state.departed) = (true, false);
        if !state.row_dirty
            && let Err(error) = self.ensure_data_file(&mut state).and_then(|()| self.journal_row(&mut state, &[]))
        {
            tracing::error!(file = %self.id, "a changed file is not in the journal: {error}");
        }
        self.make_stale(&mut state);
    }

    /// After an upload: if nothing changed since `stamp`, the file is clean and holds `version`: true. Else it stays
    /// dirty, `version` becomes the base with only what changed since `stamp` counted as changed: false.
    pub fn settle(&self, stamp: &Stamp, version: &Version) -> Result<bool> {
        self.settle_with(stamp, version, &[], &[])
    }

    /// `also` goes into the journal with it: the end of the upload, whose parts are this version's from here on. So does
    /// `if_clean`, where the file is clean by this.
    pub fn settle_with(&self, stamp: &Stamp, version: &Version, also: &[Change], if_clean: &[Change]) -> Result<bool> {
        let mut state = self.state.lock();
        let now = self.stamp_now(&mut state)?;
        let clean = now == *stamp && version.size == state.size;
        state.changes.forget_before(stamp.change);
        if !clean && now.change == stamp.change {
            // Somebody wrote past the daemon: anything may have changed.
            let all = 0..state.size;
            state.changes.record(all);
        }
        let old_base = state.base.replace(version.clone());
        state.parts.change(|sets| sets.freed.clear());
        if clean {
            self.become_clean(&mut state, old_base.as_ref());
        }
        self.make_stale(&mut state);
        let also = [also, if clean { if_clean } else { &[] }].concat();
        let journalled = self.journal_row(&mut state, &also);
        drop(state);
        self.filled.notify_waiters();
        self.shared.room.notify_waiters();
        journalled.map(|()| clean)
    }

    fn become_clean(&self, state: &mut State, old_base: Option<&Version>) {
        if state.dirty {
            state.dirty = false;
            state.parts.change(|sets| (sets.journalled, sets.durable) = Default::default());
            self.shared.budget.move_to(state.charged(), false);
        }
        if state.is_full() {
            state.become_complete();
        }
        self.name(state, old_base);
    }

    /// The same bytes now lie in the bucket as `version` (after a server-side copy): identity changes, bytes stay.
    /// `Error::Invalid`: a version of another size can't hold the same bytes.
    pub fn rebase(&self, version: &Version) -> Result<()> {
        let mut state = self.state.lock();
        if state.base.as_ref().is_some_and(|base| base.size != version.size) {
            return Err(Error::Invalid);
        }
        let old_base = state.base.replace(version.clone());
        self.make_stale(&mut state);
        let journalled = if state.dirty {
            self.journal_row(&mut state, &[])
        } else {
            state.row_dirty = false;
            self.name(&mut state, old_base.as_ref());
            // A row that names a key which is about to be deleted would show it again in an outage after a crash.
            if state.in_journal { self.journal_row(&mut state, &[]) } else { Ok(()) }
        };
        drop(state);
        self.filled.notify_waiters();
        journalled
    }

    /// Makes a clean file known under its base.
    fn name(&self, state: &mut State, old_base: Option<&Version>) {
        if state.discarded || state.gone {
            return;
        }
        state.departed = false;
        let mut index = self.shared.index.lock();
        index.forget_version(self.id, old_base);
        let Some(base) = &state.base else { return };
        index.name_version(base, self.id);
        if state.pins == 0
            && let Some(this) = index.get(self.id)
        {
            index.let_go(&this);
        }
    }
}
