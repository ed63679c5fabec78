//! What happens every few seconds, on the blocking pool: dirty bytes to the disk, then the rows that lag behind.
//!
//! Clean files are not fsynced: after a crash of the machine they are thrown away anyway.

use crate::error::{Error, Result};
use crate::journal::{Change, Seal};
use crate::simulation::{self, Event};
use crate::types::FileId;

use super::file::LocalFile;
use super::shared::Shared;
use super::spans::SpanSet;
use super::state::State;

/// Rows of the order of use in one transaction: a millisecond in which other commits wait.
const USED_BATCH: usize = 256;

/// What of a dirty file went to the disk.
pub(super) struct Written {
    /// Present when it was asked for; empty where the file is complete.
    pub present: SpanSet,
    pub cuts: u64,
    pub size: u64,
    pub overwrites: u64,
    /// The rows of its sums, where all of it had one.
    pub sums: Option<Vec<(u64, Vec<u8>)>>,
    /// Which copy of the sums that is.
    pub copy: u64,
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
        self.rest();
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
    /// All of it is here, and the journal hasn't heard of what was fetched.
    pub fn keeps_fetched_back(&self) -> bool {
        let state = self.state.lock();
        state.is_full() && state.keeps_fetched_back()
    }

    /// Brings that to the disk and tells the journal: the version that it was fetched from is about to be replaced, and nothing
    /// else has those bytes then. fsyncs: blocking pool only.
    pub fn keep_fetched(&self) -> Result<()> {
        if self.keeps_fetched_back() && self.sync()? {
            let mut state = self.state.lock();
            state.new_name = true;
            self.make_stale(&mut state);
        }
        Ok(())
    }

    /// True where the file's name has yet to be synced.
    fn sync(&self) -> Result<bool> {
        // Outside the lock: it may have to read what a program wrote in an odd way. Damage is met again by who needs the bytes.
        let summed = self.is_dirty() && self.sum_up(u64::MAX).unwrap_or(false);
        let mut state = self.state.lock();
        state.stale = false;
        if state.discarded || state.gone {
            return Ok(false);
        }
        if !state.dirty {
            // An empty file is found again without a row.
            let worth_a_row = state.base.is_some() && state.charged() > 0 && !state.departed;
            let journalled = if worth_a_row { self.journal_row(&mut state, &[]) } else { Ok(()) };
            state.unload_sums();
            return journalled.map(|()| false);
        }
        let data = self.file(&mut state)?;
        let new_name = std::mem::take(&mut state.new_name);
        let written = self.written(&mut state, summed)?;
        drop(state);
        simulation::sync_data(&data, || Event::FileSynced(self.shared.disk.path(self.id)))?;
        self.record_durable(written)?;
        Ok(new_name)
    }

    pub(super) fn written(&self, state: &mut State, summed: bool) -> Result<Written> {
        let sealed = summed && state.loose == 0 && self.unsummed(state)?.is_empty();
        let sums = sealed.then(|| state.behind());
        state.copies += 1;
        let (cuts, size, overwrites, copy) = (state.cuts, state.size, state.overwrites, state.copies);
        Ok(Written { present: state.parts.present.clone(), cuts, size, overwrites, sums, copy })
    }

    /// What went to the disk and was not taken away meanwhile can't be lost any more; the row says so.
    pub(super) fn record_durable(&self, written: Written) -> Result<()> {
        let mut state = self.state.lock();
        if !state.dirty || state.discarded || state.gone {
            return Ok(());
        }
        if let Some(sums) = written.sums.filter(|_| state.loose == 0 && state.overwrites == written.overwrites) {
            self.seal_synced(&mut state, written.size, sums, written.copy)?;
        }
        if state.cuts == written.cuts && !state.complete {
            let is_whole = written.present.contains(&(0..state.size));
            state.parts.durable = written.present;
            if is_whole {
                self.journal_complete(&mut state, &[])?;
                state.become_complete();
            } else {
                self.journal_row(&mut state, &[])?;
            }
        }
        state.unload_sums();
        Ok(())
    }

    /// What was added since the sums were taken leaves them right.
    fn seal_synced(&self, state: &mut State, size: u64, sums: Vec<(u64, Vec<u8>)>, copy: u64) -> Result<()> {
        let seal = Seal { size, whole: state.size == size };
        if copy <= state.told {
            // A close or another sync came in between: older rows in the place of its rows would make good bytes look damaged.
            if state.seal.is_none_or(|known| known.size < size) {
                self.shared.journal.apply(&[Change::Seal(self.id, seal)])?;
                state.seal = Some(seal);
            }
            return Ok(());
        }
        if sums.is_empty() && state.seal == Some(seal) {
            return Ok(());
        }
        let unchanged = sums == state.behind();
        let regions: Vec<u64> = sums.iter().map(|(region, _)| *region).collect();
        let rows = sums.into_iter().map(|(region, sums)| Change::PutSums(self.id, region, sums));
        self.shared.journal.apply(&rows.chain([Change::Seal(self.id, seal)]).collect::<Vec<_>>())?;
        if unchanged {
            state.told_sums(Some(seal));
        } else if let Some(sums) = &mut state.sums {
            regions.into_iter().for_each(|region| sums.kept_in_part(region));
            (state.seal, state.told) = (Some(seal), copy);
        }
        Ok(())
    }
}
