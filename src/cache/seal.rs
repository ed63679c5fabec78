//! What the journal says of a file's sums, and when it is told.
//!
//! A file at rest is *sealed*: all that is present has a sum in the journal, or is a hole and reads as zeros. After a kill, a
//! sealed file has to be what its sums say; after a power cut nothing else proves that unsent bytes reached the disk. A
//! seal is broken in the journal before a byte under it changes; what is added behind it leaves it good for what it covers.

use crate::error::{Error, Result};
use crate::journal::{Change, Seal};
use crate::types::Span;

use super::file::LocalFile;
use super::state::State;
use super::sums::Sums;

/// What close(2) may read to find sums, a fraction of a millisecond; the next sync does more.
const CLOSE_BYTES: u64 = 1 << 20;

impl State {
    /// What has no sum below this reads as zeros.
    pub fn zeros_below(&self) -> u64 {
        match self.seal {
            Some(seal) if !self.unsure => seal.size,
            _ => 0,
        }
    }

    /// At rest, and the disk can't have another length.
    pub fn is_sealed(&self) -> bool {
        self.seal.is_some_and(|seal| seal.whole && seal.size == self.size)
    }
}

impl LocalFile {
    /// The sums, from the journal where they aren't in memory.
    pub(super) fn sums<'a>(&self, state: &'a mut State) -> Result<&'a mut Sums> {
        if state.sums.is_none() {
            let rows = if state.in_journal { self.shared.journal.sums(self.id)? } else { Vec::new() };
            let damaged = || Error::Corrupt(format!("the checksums of data file {} don't make sense", self.id));
            let mut sums = Sums::from_journal(rows).ok_or_else(damaged)?;
            // Fetched bytes may be absent again that share a sum with others.
            let mut pieces = if state.complete { Vec::new() } else { sums.touching(&(0..u64::MAX)) };
            pieces.retain(|piece| !state.has(&piece.span));
            for piece in pieces {
                state.unsure |= state.parts.present.covered(piece.span.clone()) > 0;
                sums.forget(&piece.span);
            }
            state.sums = Some(Box::new(sums));
        }
        Ok(state.sums.get_or_insert_default())
    }

    /// Present bytes without a sum that are not known to be a hole.
    pub(super) fn unsummed(&self, state: &mut State) -> Result<Vec<Span>> {
        self.sums(state)?;
        Ok(state.unsummed())
    }

    /// Journals the sums of a changed file that comes to rest: at close, fsync and every sync. A file that would take long
    /// to read is left to the sync.
    pub fn seal(&self) -> Result<()> {
        if self.prepare_seal()? { self.seal_with(&[]) } else { Ok(()) }
    }

    /// Finds what sums `seal_with` needs, by reading. False: there is nothing to seal, or not now.
    pub fn prepare_seal(&self) -> Result<bool> {
        {
            let state = self.state.lock();
            let is_behind = state.sums.as_ref().is_some_and(|sums| sums.is_behind());
            let told = state.is_sealed() && (!is_behind || state.keeps_fetched_back());
            if !state.dirty || state.discarded || state.gone || state.loose > 0 || told {
                return Ok(false);
            }
        }
        match self.sum_up(CLOSE_BYTES) {
            // Damage was noted; whoever reads or sends the file meets it again.
            Err(Error::Damaged(_)) => Ok(false),
            done => done,
        }
    }

    /// Journals the seal of what `prepare_seal` has read, and `also` with it; `also` alone where the file is no more what it was.
    pub fn seal_with(&self, also: &[Change]) -> Result<()> {
        let mut state = self.state.lock();
        let at_rest = state.dirty && !state.discarded && !state.gone && state.loose == 0;
        if !at_rest || !self.unsummed(&mut state)?.is_empty() {
            return self.shared.journal.apply(also);
        }
        let seal = Some(Seal { size: state.size, whole: true });
        self.ensure_data_file(&mut state)?;
        let mut changes = also.to_vec();
        changes.extend(self.sum_changes(&state, seal));
        // A sum may cover fetched bytes beside changed ones: what the journal has one of, it has to call present.
        let fetched = state.parts.present.iter().flat_map(|span| state.parts.journalled.missing(span));
        changes.extend(fetched.map(|span| Change::AddPresent(self.id, span, state.size)));
        self.shared.journal.apply(&changes)?;
        state.told_sums(seal);
        state.parts.change(|sets| sets.journalled.clone_from(&sets.present));
        Ok(())
    }

    /// What the journal shall say with a row that is written now.
    pub(super) fn seal_for_row(&self, state: &State) -> Option<Seal> {
        if state.loose > 0 {
            // Of a clean one it says that whatever is found may be unsent.
            return (!state.dirty).then_some(Seal { size: 0, whole: false });
        }
        if state.sums.is_none() {
            return state.seal.map(|seal| Seal { whole: seal.whole && self.may_rest(state), ..seal });
        }
        let unsummed = state.unsummed();
        match state.dirty {
            // Only what was sealed and still is.
            true => state.seal.filter(|seal| unsummed.iter().all(|span| span.start >= seal.size)),
            false => unsummed.is_empty().then(|| Seal { size: state.size, whole: self.may_rest(state) }),
        }
    }

    /// Nobody may write to a clean file without the journal's knowledge.
    fn may_rest(&self, state: &State) -> bool {
        state.dirty || self.writers() == 0
    }

    pub(super) fn sum_changes(&self, state: &State, seal: Option<Seal>) -> Vec<Change> {
        let mut changes: Vec<Change> = state.behind().into_iter().map(|(region, sums)| Change::PutSums(self.id, region, sums)).collect();
        if seal != state.seal {
            changes.push(seal.map_or(Change::BreakSeal(self.id), |seal| Change::Seal(self.id, seal)));
        }
        changes
    }
}

impl State {
    /// The journal took what `sum_changes` gave.
    pub fn told_sums(&mut self, seal: Option<Seal>) {
        (self.seal, self.told) = (seal, self.copies);
        self.unsure &= !self.unsummed().is_empty();
        if let Some(sums) = &mut self.sums {
            sums.kept();
        }
    }

    /// Rows of sums that the journal lacks.
    pub fn behind(&self) -> Vec<(u64, Vec<u8>)> {
        self.sums.as_deref().map(Sums::behind).unwrap_or_default()
    }

    /// Bytes of `span` go, or others came in their place.
    pub fn forget_sums(&mut self, span: &Span) {
        let Some(sums) = &mut self.sums else { return };
        let touched = sums.touching(span);
        self.unsure |= touched.iter().any(|piece| piece.span.start < span.start || piece.span.end > span.end);
        if !touched.is_empty() {
            sums.forget(span);
            // Whoever took a copy of the sums must not journal it.
            self.overwrites += 1;
        }
    }

    pub(super) fn unsummed(&self) -> Vec<Span> {
        let Some(sums) = &self.sums else { return Vec::new() };
        let whole = std::iter::once(0..self.size);
        let present: Vec<Span> = if self.complete { whole.collect() } else { self.parts.present.iter().collect() };
        let gaps = present.iter().flat_map(|span| sums.gaps(span));
        gaps.flat_map(|gap| self.blocks.occupied_parts(gap)).collect()
    }

    /// The journal has them; they are read again when they are needed.
    pub fn unload_sums(&mut self) {
        if self.pins == 0 && self.in_journal && self.sums.as_ref().is_some_and(|sums| !sums.is_behind()) {
            self.sums = None;
        }
    }
}
