//! Fetched bytes go into a data file only where nothing is present: what is there is newer, or the same.

use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::types::{Span, Version};

use super::file::LocalFile;
use super::state::State;

/// Copied at once from one data file to another.
const TWIN_STEP_BYTES: usize = 1 << 20;

impl LocalFile {
    /// Stores fetched bytes of `base` at `offset`, only where they are absent, and wakes readers. False: the file
    /// has another base by now, nothing was stored. Err(NoSpace): no room to cache, the caller serves them uncached.
    pub fn fill(&self, base: &Version, offset: u64, data: &[u8]) -> Result<bool> {
        let mut state = self.state.lock();
        if state.gone {
            return Err(Error::NoSpace);
        }
        if state.base.as_ref() != Some(base) {
            return Ok(false);
        }
        let file = self.file_to_fill(&mut state)?;
        let end = offset.saturating_add(data.len() as u64).min(state.size).min(base.size);
        let (size, dirty) = (state.size, state.dirty);
        for part in state.missing(offset..end) {
            let need = state.blocks.lacking(part.clone());
            // Writers come first: they can't do without.
            if need > 0 && (self.shared.is_pressed() || !self.shared.reserve(need, dirty)) {
                return Err(Error::NoSpace);
            }
            let bytes = &data[(part.start - offset) as usize..(part.end - offset) as usize];
            let written = self.put(&file, bytes, part.start).map_err(Error::from);
            let summed = written.and_then(|()| self.sum_filled(&mut state, &part, bytes));
            if let Err(error) = summed.and_then(|()| self.gain(&mut state, part.clone(), size, false)) {
                state.forget_sums(&part);
                self.shared.release(need, dirty);
                return Err(error);
            }
            state.blocks.occupy(part);
        }
        Ok(true)
    }

    /// Takes what is absent from `twin`, which holds `base` too. What can't be had, or finds no room, stays absent.
    pub fn fill_from(&self, twin: &LocalFile, base: &Version) -> Result<()> {
        let mut buffer = vec![0; TWIN_STEP_BYTES];
        for span in self.missing(0..base.size) {
            let mut at = span.start;
            while at < span.end {
                let wanted = (span.end - at).min(TWIN_STEP_BYTES as u64) as usize;
                let Some(length) = twin.read_at(at, &mut buffer[..wanted])?.filter(|length| *length > 0) else { return Ok(()) };
                match self.fill(base, at, &buffer[..length]) {
                    Ok(true) => at += length as u64,
                    Ok(false) | Err(Error::NoSpace) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn sum_filled(&self, state: &mut State, part: &Span, bytes: &[u8]) -> Result<()> {
        self.sums(state)?;
        // The journal may have sums of what was here before it was dropped.
        state.forget_sums(part);
        if state.loose == 0 {
            self.sums(state)?.add(part.start, bytes);
        }
        state.wrote(part.clone());
        Ok(())
    }

    fn file_to_fill(&self, state: &mut State) -> Result<Arc<File>> {
        match self.file(state) {
            Err(Error::Disk(error)) if error.kind() == io::ErrorKind::NotFound && self.lost(state) => self.file(state),
            other => other,
        }
    }
}
