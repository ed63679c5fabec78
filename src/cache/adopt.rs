//! A file takes a version's bytes for its own without having one of them: what copy_file_range(2) of an object becomes.
//!
//! Must not: be asked for a version that may change before the writer knows of it; the caller holds its key.

use crate::error::Error;
use crate::types::Version;

use super::WriteRefused;
use super::file::LocalFile;
use super::state::State;

impl LocalFile {
    /// The file's content becomes the first `end` bytes of `base`, of which it has the first `from` already: it is empty,
    /// or an earlier call brought it there and nothing was changed since. `Error::Unsupported`: it is neither, or
    /// the kernel has its descriptor. The file must be dirty; it is journalled when this returns.
    pub fn adopt(&self, base: &Version, from: u64, end: u64) -> Result<(), WriteRefused> {
        let mut state = self.state.lock();
        if !state.dirty && !state.gone {
            return Err(WriteRefused::Clean);
        }
        let begins = from == 0 && state.size == 0;
        let goes_on = state.base.as_ref() == Some(base) && state.size == from && state.changes.all().is_empty();
        if state.gone || state.backed > 0 || end > base.size || !(begins || goes_on) {
            return Err(WriteRefused::Failed(Error::Unsupported));
        }
        self.file(&mut state)?;
        let before = (state.base.clone(), state.size, state.complete, state.parts.present.clone());
        take(&mut state, base, end);
        if let Err(error) = self.journal_row(&mut state, &[]) {
            (state.base, state.size, state.complete, state.parts.present) = before;
            return Err(error.into());
        }
        // An upload under way sees that the file isn't what it was; no byte of it differs from the base.
        self.note_change(&mut state, 0..0);
        Ok(())
    }
}

fn take(state: &mut State, base: &Version, end: u64) {
    if state.complete {
        state.complete = false;
        state.parts.present = std::iter::once(0..state.size).collect();
    }
    state.base = Some(base.clone());
    state.size = end;
}
