//! What happens every few seconds, on the blocking pool: dirty bytes to the disk, then the rows that lag behind.
//!
//! Clean files are not fsynced: after a crash of the machine they are thrown away anyway.

use crate::error::{Error, Result};
use crate::journal::Change;
use crate::simulation::{self, Event};
use crate::types::FileId;

use super::file::LocalFile;
use super::shared::Shared;
use super::spans::SpanSet;

/// Rows of the order of use in one transaction: a millisecond in which other commits wait.
const USED_BATCH: usize = 256;

/// What of a dirty file went to the disk.
pub(super) struct Written {
    /// Present when it was asked for; empty where the file is complete.
    pub present: SpanSet,
    pub cuts: u64,
}

impl Shared {
    /// fsyncs what is dirty and was written since the last call, then journals rows. All files are tried; the first
    /// error is returned.
    pub fn sync(&self) -> Result<()> {
        let stale: Vec<FileId> = std::mem::take(&mut *self.stale.lock()).into_iter().collect();
        let mut first_error = Ok(());
        let mut names = Vec::new();
        for id in stale {
            let Some(file) = self.index.lock().get(id) else { continue };
            match file.sync() {
                Ok(new_name) => names.extend(new_name.then_some(id)),
                Err(error) => {
                    tracing::error!(file = %id, "syncing a data file: {error}");
                    let mut state = file.state.lock();
                    state.new_name = true;
                    file.make_stale(&mut state);
                    first_error = first_error.and(Err(error));
                }
            }
        }
        first_error.and(self.disk.sync_names(names.into_iter()).map_err(Error::from)).and(self.journal_use())
    }

    fn journal_use(&self) -> Result<()> {
        let touched = self.index.lock().take_touched();
        for batch in touched.chunks(USED_BATCH) {
            let changes: Vec<Change> = batch.iter().map(|&(id, used)| Change::Used(id, used)).collect();
            self.journal.apply(&changes)?;
        }
        Ok(())
    }
}

impl LocalFile {
    /// True where the file's name has yet to be synced.
    fn sync(&self) -> Result<bool> {
        let mut state = self.state.lock();
        state.stale = false;
        if state.discarded || state.gone {
            return Ok(false);
        }
        if !state.dirty {
            // An empty file is found again without a row.
            let worth_a_row = state.base.is_some() && state.charged() > 0;
            return if worth_a_row { self.journal_row(&mut state).map(|()| false) } else { Ok(false) };
        }
        let data = self.file(&mut state)?;
        let new_name = std::mem::take(&mut state.new_name);
        let written = Written { present: state.present.clone(), cuts: state.cuts };
        drop(state);
        data.sync_data()?;
        simulation::saw(|| Event::FileSynced(self.shared.disk.path(self.id)));
        self.record_durable(written)?;
        Ok(new_name)
    }

    /// What went to the disk and was not taken away meanwhile can't be lost any more; the row says so.
    pub(super) fn record_durable(&self, written: Written) -> Result<()> {
        let mut state = self.state.lock();
        if state.cuts != written.cuts || state.complete || !state.dirty {
            return Ok(());
        }
        state.durable = written.present;
        self.journal_row(&mut state)
    }
}
