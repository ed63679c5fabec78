//! Bytes that give up their room while their file is in use: parts that went up ahead of the rest of a file that is
//! larger than the cache, and what the base has too.
//!
//! The order, so that neither a kill nor a power cut takes a byte: what else the file holds is synced to the disk, the map
//! and the journal are told (from here on nobody reads those bytes here), the journal is synced, and only then a hole is
//! punched. A start that finds the second step without the last punches again.
//!
//! Freed parts are nowhere but in an upload that isn't complete, and can't be had back from there. Who needs them calls
//! [`LocalFile::recall`]: the writer completes the upload, and they are bytes of the base like others.
//!
//! Must not: make holes in a file that the kernel reads by itself (`backing`): they would read as zeros.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use crate::error::Result;
use crate::journal::Change;
use crate::simulation::{self, Event};
use crate::types::Span;

use super::disk;
use super::file::LocalFile;
use super::spans::SpanSet;
use super::state::State;
use super::sums::BLOCK_BYTES;

/// What lay on the disk when it was asked.
struct Synced {
    present: SpanSet,
    cuts: u64,
}

/// Looks at a span of a file that is being read, until dropped.
pub struct Watch {
    file: Arc<LocalFile>,
    number: u64,
    span: Span,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.file.state.lock().changes.unwatch(self.number);
    }
}

impl LocalFile {
    /// To be made before the bytes are read that `free` shall free.
    pub fn watch(self: &Arc<Self>, span: Span) -> Watch {
        let number = self.state.lock().changes.watch(span.clone());
        Watch { file: self.clone(), number, span }
    }

    /// Freed parts, in order.
    pub fn freed(&self) -> Vec<Span> {
        self.state.lock().parts.freed.iter().map(|(&start, &end)| start..end).collect()
    }

    /// A byte of `span` is freed.
    pub fn is_freed(&self, span: Span) -> bool {
        self.state.lock().freed_parts(&span).next().is_some()
    }

    /// All of `span` is here, some of it takes room, and no writer is at it.
    pub fn is_finished(&self, span: Span) -> bool {
        let state = self.state.lock();
        let is_hot = span.start <= state.hot && state.hot < span.end;
        !state.gone && span.end <= state.size && !is_hot && state.has(&span) && state.blocks.occupied(span) > 0
    }

    /// Somebody needs what was freed: wakes the writer. Wait for `filled`, look again, and don't wait for ever.
    pub fn recall(&self) {
        self.shared.recalled.lock().insert(self.id);
        self.shared.calls.notify_one();
    }

    /// The upload that held the freed parts is given up: nobody gets them any more.
    pub fn forfeit(&self) {
        let mut state = self.state.lock();
        state.forfeited |= !state.parts.freed.is_empty();
        drop(state);
        self.filled.notify_waiters();
    }

    pub fn is_forfeited(&self) -> bool {
        self.state.lock().forfeited
    }

    /// Frees the watched part, which an upload holds as it was when the watch began. `also` goes into the journal with it.
    /// False: it has changed since, or isn't all here, and nothing was done. fsyncs: blocking pool only.
    pub fn free(&self, watch: &Watch, also: &[Change]) -> Result<bool> {
        let part = |state: &State| {
            let sound = state.dirty && !state.changes.has_changed(watch.number) && state.has(&watch.span);
            if sound { vec![watch.span.clone()] } else { Vec::new() }
        };
        Ok(self.vacate(&part, true, also)? > 0)
    }

    /// Frees what the base has too; how many bytes.
    pub(super) fn squeeze(&self, dirty_from_bytes: u64) -> Result<u64> {
        let same = |state: &State| {
            let Some(base) = &state.base else { return Vec::new() };
            if state.discarded || (state.dirty && base.size <= dirty_from_bytes) {
                return Vec::new();
            }
            let end = base.size.min(state.size);
            let mut same: SpanSet = if state.complete { std::iter::once(0..end).collect() } else { state.parts.present.clone() };
            same.cut(end);
            state.changes.all().iter().for_each(|changed| same.remove(changed));
            // Whole blocks: a sum that covers a byte that stays can't be kept in part.
            let whole = same.iter().map(|span| span.start.next_multiple_of(BLOCK_BYTES)..cut_down(span.end, state.size));
            whole.filter(|span| !span.is_empty() && state.blocks.occupied(span.clone()) > 0).collect()
        };
        self.vacate(&same, false, &[])
    }

    fn vacate(&self, choose: &dyn Fn(&State) -> Vec<Span>, freed: bool, also: &[Change]) -> Result<u64> {
        let mut state = self.state.lock();
        if state.gone || state.backed > 0 || (choose(&state).is_empty() && state.parts.vacated.is_empty()) {
            return Ok(0);
        }
        let (data, dirty) = (self.file(&mut state)?, state.dirty);
        let present = if state.complete { std::iter::once(0..state.size).collect() } else { state.parts.present.clone() };
        let written = Synced { present, cuts: state.cuts };
        drop(state);
        if dirty {
            simulation::sync_data(&data, || Event::FileSynced(self.shared.disk.path(self.id)))?;
        }
        let mut state = self.state.lock();
        let spans = choose(&state);
        if state.gone || state.backed > 0 || (spans.is_empty() && state.parts.vacated.is_empty()) {
            return Ok(0);
        }
        self.take_out(&mut state, &spans, &written, freed, also)?;
        let dirty = state.dirty;
        drop(state);
        if dirty {
            self.shared.journal.sync()?;
        }
        self.punch_vacated()?;
        Ok(spans.iter().map(|span| span.end - span.start).sum())
    }

    /// From here on the bytes are absent. On an error nothing has changed.
    fn take_out(&self, state: &mut State, spans: &[Span], written: &Synced, freed: bool, also: &[Change]) -> Result<()> {
        let before = (state.complete, state.parts.clone());
        if state.complete {
            state.complete = false;
            state.parts.present = std::iter::once(0..state.size).collect();
            if state.dirty && state.cuts == written.cuts {
                state.parts.durable.clone_from(&written.present);
            }
        }
        for span in spans {
            state.parts.take_out(span);
            if freed {
                state.parts.freed.insert(span.start, span.end);
            }
        }
        if let Err(error) = self.journal_row(state, also) {
            (state.complete, state.parts) = before;
            return Err(error);
        }
        for span in spans {
            state.forget_sums(span);
            state.seen.remove(span.clone());
            state.parts.vacated.insert(span.clone());
        }
        state.cuts += 1;
        if freed {
            // Whoever waited for this room is still writing.
            state.changed_at = Instant::now();
        }
        self.drops.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// What came back meanwhile stays.
    fn punch_vacated(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.gone {
            return Ok(());
        }
        let data = self.file(&mut state)?;
        let (charged, dirty) = (state.charged(), state.dirty);
        let vacated: Vec<Span> = state.parts.change(|sets| std::mem::take(&mut sets.vacated)).iter().collect();
        let mut punched = Ok(());
        for span in vacated {
            let absent = if state.complete { Vec::new() } else { state.parts.present.missing(span.clone()) };
            punched = absent.iter().try_for_each(|part| disk::punch_silently(&data, part));
            if punched.is_err() {
                state.parts.vacated.insert(span);
                break;
            }
            absent.into_iter().for_each(|part| state.blocks.free(part));
        }
        simulation::saw(|| Event::Written);
        state.looked = None;
        self.shared.release(charged - state.charged(), dirty);
        Ok(punched?)
    }
}

/// The end of the file is the end of a block.
fn cut_down(end: u64, size: u64) -> u64 {
    if end == size { end } else { end / BLOCK_BYTES * BLOCK_BYTES }
}
