//! Decides what to fetch: how far ahead of a reader, in which pieces.
//!
//! Pure: no I/O, no clock, no locks. A reader that goes forward gets a window that doubles as it proves itself, and
//! grows fourfold where it was too small for the line; one that jumps gets what it asked for, rounded. What is present or under way is never fetched again, which is what
//! makes one GET out of two readers of one block.

use std::cmp::{max, min};

use super::spans::{intersect, overlaps, subtract};
use crate::types::Span;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// An object up to this size is one GET: at 1 MiB the request costs about as much as the bytes.
pub const SMALL_BYTES: u64 = MIB;
/// What is fetched first for a reader that starts at the beginning: it may only want the header.
pub const WINDOW_FIRST_BYTES: u64 = MIB;
/// The farthest that is fetched ahead: half a second of a 1 Gbit/s line.
pub const WINDOW_LIMIT_BYTES: u64 = 64 * MIB;
/// The longest single GET. A window is several of them in parallel: one connection seldom fills the line.
pub const GET_LIMIT_BYTES: u64 = 8 * MIB;
/// Random reads are rounded out to this, so that neighbours don't leave slivers.
const ROUND_BYTES: u64 = 64 * KIB;
/// The least that one random read fetches: less would cost as long.
pub const RANDOM_BYTES: u64 = 128 * KIB;
/// Reads so near to where the last one ended still count as going forward: the kernel's read-ahead comes in any order,
/// and players skip over a track that they don't play.
const SEEK_BYTES: u64 = MIB;

/// How one handle has read so far.
#[derive(Debug, Default)]
pub struct Pace {
    started: bool,
    /// Where a reader that goes forward will go on.
    next: u64,
    /// Bytes read since the last jump.
    run: u64,
    /// How far ahead to fetch; 0 while reads are random.
    window: u64,
    /// Up to here the bytes were planned for this handle.
    planned_to: u64,
}

impl Pace {
    /// Takes note of a read (once each). True where the window moved, so that there may be something to fetch ahead.
    pub fn note(&mut self, want: &Span) -> bool {
        let length = want.end - want.start;
        if !self.goes_forward(want) {
            *self = Self { started: true, next: want.end, run: length, window: 0, planned_to: want.end };
            return false;
        }
        let first = !std::mem::replace(&mut self.started, true);
        self.run += length;
        self.next = max(self.next, want.end);
        if first {
            self.window = WINDOW_FIRST_BYTES;
            self.planned_to = max(WINDOW_FIRST_BYTES, want.end);
            return true;
        }
        self.window = match self.window {
            // One read after a jump may be half of a program's; more of them are a run.
            0 if self.run < RANDOM_BYTES => return false,
            0 => WINDOW_FIRST_BYTES,
            // It has caught up with all that was planned for it: the line takes more than this at once.
            window if self.next >= self.planned_to => min(window * 4, WINDOW_LIMIT_BYTES),
            // Half of the window is the reserve that hides the next round trips.
            window if self.next + window / 2 > self.planned_to => min(window * 2, WINDOW_LIMIT_BYTES),
            _ => return false,
        };
        self.planned_to = max(self.planned_to, self.next + self.window);
        true
    }

    /// Begins anew with a small window: what was planned ahead found no room.
    pub fn narrow(&mut self) {
        *self = Self { started: true, next: self.next, planned_to: self.next, ..Self::default() };
    }

    /// The bytes that should be present or under way for a read of `want` in an object of `size` bytes, after
    /// [`Pace::note`] of it.
    pub fn reach(&self, want: &Span, size: u64) -> Span {
        if size <= SMALL_BYTES {
            return 0..size;
        }
        let rounded = round_out(want, size);
        if self.window == 0 { rounded } else { rounded.start..min(max(self.planned_to, rounded.end), size) }
    }

    /// The part of that which lies ahead of a read whose own bytes are present. Empty where nothing is left to plan.
    pub fn ahead(&self, want: &Span, size: u64) -> Span {
        let reach = self.reach(want, size);
        min(want.end, reach.end)..reach.end
    }

    fn goes_forward(&self, want: &Span) -> bool {
        if !self.started {
            return want.start < WINDOW_FIRST_BYTES;
        }
        let farthest = max(self.next.saturating_add(SEEK_BYTES), self.planned_to);
        want.start.saturating_add(SEEK_BYTES) >= self.next && want.start <= farthest
    }
}

/// One GET to start now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Get {
    pub span: Span,
    /// A reader waits for bytes of it; else it is for later.
    pub urgent: bool,
}

/// The GETs that bring `reach` in: `missing` are its absent parts, in order; `in_flight` what is under way already.
/// They come in the order of their offsets and cover no byte twice; those that touch `want` are urgent.
pub fn plan(want: &Span, reach: &Span, missing: &[Span], in_flight: &[Span]) -> Vec<Get> {
    let absent = subtract(&intersect(missing, reach), in_flight);
    absent.into_iter().flat_map(pieces).map(|span| Get { urgent: overlaps(&span, want), span }).collect()
}

/// Cuts a span into equal pieces within the limit, so that none is a sliver.
fn pieces(span: Span) -> impl Iterator<Item = Span> {
    let length = span.end - span.start;
    let count = length.div_ceil(GET_LIMIT_BYTES).max(1);
    let step = min(length.div_ceil(count).next_multiple_of(ROUND_BYTES), GET_LIMIT_BYTES);
    (0..count).map(move |at| span.start + at * step..min(span.start + (at + 1) * step, span.end)).filter(|span| !span.is_empty())
}

/// `want` rounded out, [`RANDOM_BYTES`] at least, within the object.
fn round_out(want: &Span, size: u64) -> Span {
    let start = want.start / ROUND_BYTES * ROUND_BYTES;
    let end = min(max(want.end.next_multiple_of(ROUND_BYTES), start + RANDOM_BYTES), size);
    // At the object's end there is nothing behind to round to, so it goes towards the front.
    min(start, end.saturating_sub(RANDOM_BYTES))..end
}

#[cfg(test)]
mod tests;
