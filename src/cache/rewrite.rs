//! Sums of bytes that a program changes. Before: what of their blocks stays is read and checked, the journal forgets.
//! After: what stayed gets its sum again, and what is new gets one.
//!
//! So a change of a part of a damaged block heals no more than that part, and a block that is written over is healed.

use std::fs::File;

use crate::error::Result;
use crate::journal::{Change, Seal};
use crate::types::Span;

use super::file::LocalFile;
use super::state::State;
use super::sums::{Expected, REGION_BYTES, Sums, blocks};
use super::verify::read_full;

static ZEROS: [u8; super::sums::BLOCK_BYTES as usize] = [0; super::sums::BLOCK_BYTES as usize];

/// More zeros than this stay without sums: they are a hole, and known for that.
const ZEROS_SUMMED: u64 = 1 << 20;

/// Pieces of blocks into which a change cuts.
pub(super) struct Rewrite {
    span: Span,
    kept: Vec<Kept>,
}

struct Kept {
    span: Span,
    /// None: damaged.
    bytes: Option<Vec<u8>>,
}

const ALL: Span = 0..u64::MAX;

impl LocalFile {
    /// Bytes of `span` are about to change, or to go. The journal has heard of it when this returns.
    pub(super) fn begin_rewrite(&self, state: &mut State, file: &File, span: Span) -> Result<Rewrite> {
        let touched = self.sums(state)?.touching(&span);
        let mut kept = Vec::new();
        for piece in touched.iter().filter(|piece| piece.span.start < span.start || piece.span.end > span.end) {
            if state.has(&piece.span) {
                kept.push(Kept { span: piece.span.clone(), bytes: read_piece(file, piece) });
            } else {
                state.unsure = true;
            }
        }
        self.unseal(state, &span)?;
        state.overwrites += u64::from(span.start < state.size);
        if let Some(sums) = &mut state.sums {
            sums.forget(&span);
        }
        Ok(Rewrite { span, kept })
    }

    /// Anything may have changed.
    pub(super) fn forget_all_sums(&self, state: &mut State) -> Result<()> {
        self.sums(state)?;
        self.unseal(state, &ALL)?;
        state.overwrites += 1;
        state.forget_sums(&ALL);
        Ok(())
    }

    /// The same in memory alone: the journal hears of it with the claim.
    pub(super) fn distrust(&self, state: &mut State) -> Result<()> {
        self.sums(state)?;
        state.seal = None;
        state.overwrites += 1;
        state.forget_sums(&ALL);
        Ok(())
    }

    /// The row of a file that was written to after the last daemon died, and `also`, its desired state. Only together: until
    /// then the broken seal over a clean row is what tells the next start that the bytes are unsent.
    pub fn claim_with(&self, also: &[Change]) -> Result<()> {
        let mut state = self.state.lock();
        let unsealed = self.unsealed(&state, &ALL);
        let mut changes: Vec<Change> = also.iter().chain(&unsealed.changes).cloned().collect();
        changes.push(Change::BreakSeal(self.id));
        unsealed.told(&mut state);
        self.journal_row(&mut state, &changes)
    }

    /// Takes from the journal what is not true any more.
    fn unseal(&self, state: &mut State, span: &Span) -> Result<()> {
        let unsealed = self.unsealed(state, span);
        if !state.discarded {
            self.shared.journal.apply(&unsealed.changes)?;
        }
        unsealed.told(state);
        Ok(())
    }

    fn unsealed(&self, state: &State, span: &Span) -> Unsealed {
        let regions = state.sums.as_ref().map(|sums| sums.kept_over(span)).unwrap_or_default();
        let mut changes: Vec<Change> = regions.iter().map(|region| Change::DropSums(self.id, *region)).collect();
        // A region's sums go together.
        let first = regions.first().map_or(span.start, |region| span.start.min(region * REGION_BYTES));
        let seal = state.seal.filter(|seal| first >= seal.size).map(|seal| Seal { whole: false, ..seal });
        if seal != state.seal {
            changes.push(seal.map_or(Change::BreakSeal(self.id), |seal| Change::Seal(self.id, seal)));
        }
        Unsealed { seal, regions, changes }
    }
}

/// What the journal has to hear before bytes change, and what is true then.
struct Unsealed {
    seal: Option<Seal>,
    regions: Vec<u64>,
    changes: Vec<Change>,
}

impl Unsealed {
    fn told(self, state: &mut State) {
        state.seal = self.seal;
        if let Some(sums) = &mut state.sums {
            sums.dropped(&self.regions);
        }
    }
}

fn read_piece(file: &File, piece: &Expected) -> Option<Vec<u8>> {
    let mut bytes = vec![0; (piece.span.end - piece.span.start) as usize];
    let whole = read_full(file, piece.span.start, &mut bytes).is_ok_and(|read| read == bytes.len());
    (whole && piece.is_right(&bytes)).then_some(bytes)
}

impl Rewrite {
    /// `data` was written at `offset`.
    pub fn wrote(self, state: &mut State, offset: u64, data: &[u8]) {
        if state.loose > 0 {
            return;
        }
        if let Some(sums) = &mut state.sums {
            self.restore(sums);
            sums.add(offset, data);
        }
    }

    pub fn zeroed(self, state: &mut State, span: Span) {
        if state.loose > 0 {
            return;
        }
        let Some(sums) = &mut state.sums else { return };
        self.restore(sums);
        if span.end - span.start <= ZEROS_SUMMED {
            for piece in blocks(span) {
                sums.add(piece.start, &ZEROS[..(piece.end - piece.start) as usize]);
            }
        }
    }

    /// The bytes are gone, or nobody knows what became of them.
    pub fn over(self, state: &mut State) {
        if state.loose > 0 {
            return;
        }
        if let Some(sums) = &mut state.sums {
            self.restore(sums);
        }
    }

    fn restore(&self, sums: &mut Sums) {
        for kept in &self.kept {
            for part in [kept.span.start..kept.span.end.min(self.span.start), kept.span.start.max(self.span.end)..kept.span.end] {
                if part.is_empty() {
                    continue;
                }
                match &kept.bytes {
                    Some(bytes) => {
                        sums.add(part.start, &bytes[(part.start - kept.span.start) as usize..(part.end - kept.span.start) as usize])
                    }
                    None => sums.add_bad(&part),
                }
            }
        }
    }
}
