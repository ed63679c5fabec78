//! A data file's row in the journal: what it says, and when it is written.

use crate::error::{Error, Result};
use crate::journal::{Change, FileRow};

use super::disk::on_disk;
use super::file::LocalFile;
use super::state::State;

impl LocalFile {
    /// The row for `Change::PutFile`. With `dirty`, of a clean file: the row that makes it dirty; journal it in the
    /// transaction that sets the desired state, then call `mark_dirty`, which has nothing left to journal then. A dirty
    /// file's row says dirty in any case.
    pub fn row(&self, dirty: bool) -> Result<FileRow> {
        let mut state = self.state.lock();
        let mut row = self.row_of(&mut state)?;
        state.in_journal = true;
        if dirty && !state.dirty {
            self.ensure_data_file(&mut state)?;
            row.dirty = true;
            // Fetched bytes count as durable only once they are synced.
            row.present = Vec::new();
            state.row_dirty = true;
        }
        Ok(row)
    }

    /// A dirty file that says to be complete and isn't there is a loss: an empty one has to be there too.
    pub(super) fn ensure_data_file(&self, state: &mut State) -> Result<()> {
        if state.complete && !state.on_disk { self.file(state).map(|_| ()) } else { Ok(()) }
    }

    pub(super) fn row_of(&self, state: &mut State) -> Result<FileRow> {
        let mtime_ns = if !state.dirty && state.complete && state.on_disk && !state.gone {
            // Of a loose file what was last looked at: it may be another by now, and a start has to notice.
            let looked = state.looked.filter(|_| state.loose > 0);
            looked.map_or_else(|| Ok::<_, Error>(on_disk(&self.file(state)?.metadata()?).mtime_ns), |look| Ok(look.mtime_ns))?
        } else {
            0
        };
        let parts = if state.dirty { &state.parts.durable } else { &state.parts.present };
        Ok(FileRow {
            id: self.id,
            base: state.base.clone(),
            size: state.size,
            dirty: state.dirty,
            present: if state.complete { Vec::new() } else { parts.iter().collect() },
            complete: state.complete,
            mtime_ns,
            used: self.used(),
        })
    }

    /// Writes the row as it is now; of a dirty, incomplete file also the parts that a power cut could still take.
    /// `also` goes into the same transaction.
    pub(super) fn journal_row(&self, state: &mut State, also: &[Change]) -> Result<()> {
        if state.discarded || state.gone {
            return self.shared.journal.apply(also);
        }
        let mut changes = also.to_vec();
        changes.push(Change::ReplaceFile(self.row_of(state)?));
        let keeps_back = state.keeps_fetched_back();
        let told = if keeps_back { state.parts.told_or_durable() } else { state.parts.present.clone() };
        if state.dirty && !state.complete {
            let volatile = told.iter().flat_map(|span| state.parts.durable.missing(span));
            changes.extend(volatile.map(|span| Change::AddPresent(self.id, span, state.size)));
        }
        let seal = self.seal_for_row(state);
        if !keeps_back {
            changes.extend(self.sum_changes(state, seal));
        }
        self.shared.journal.apply(&changes)?;
        state.in_journal = true;
        if !keeps_back {
            state.told_sums(seal);
        }
        state.row_dirty = state.dirty;
        if state.dirty {
            state.parts.change(|sets| sets.journalled = told);
        }
        Ok(())
    }

    /// The file has all its bytes: writes the row that says so. From then on its length is the disk's, so that has to
    /// be right before.
    pub(super) fn journal_complete(&self, state: &mut State, also: &[Change]) -> Result<()> {
        if state.discarded || state.gone {
            return Ok(());
        }
        let row = FileRow { complete: true, present: Vec::new(), ..self.row_of(state)? };
        let seal = self.seal_for_row(state);
        let mut changes = also.to_vec();
        changes.push(Change::ReplaceFile(row));
        changes.extend(self.sum_changes(state, seal));
        self.shared.journal.apply(&changes)?;
        state.in_journal = true;
        state.told_sums(seal);
        Ok(())
    }
}
