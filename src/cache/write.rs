//! Local changes of a data file: write, truncate, zero.
//!
//! The order of each: room, the sums told (`rewrite`), the change noted (an upload under way must see it), bytes, journal, then memory and the
//! caller. A crash in between leaves a journal that says less than the file holds: the change was not acknowledged,
//! and absent bytes still come from the base. Only what takes bytes away is journalled before it is done.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::journal::Change;
use crate::simulation::{self, Event};
use crate::types::Span;

use super::WriteRefused;
use super::disk;
use super::file::LocalFile;
use super::state::State;

type Outcome = std::result::Result<(), WriteRefused>;

/// Zeros are written in pieces of this size where the file system can't make holes.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl LocalFile {
    /// Writes local bytes. The file must be dirty. A range that becomes present in an incomplete file is in the
    /// journal when this returns.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> Outcome {
        let mut state = self.state.lock();
        changeable(&state)?;
        let outcome = self.write_locked(&mut state, offset, data);
        self.note_refusal(&mut state, outcome)
    }

    fn write_locked(&self, state: &mut State, offset: u64, data: &[u8]) -> Outcome {
        if data.is_empty() {
            return Ok(());
        }
        let span = offset..checked_end(offset, data.len() as u64)?;
        let file = self.file(state)?;
        let touched = span.start.min(state.size)..span.end;
        leaves_freed_alone(state, &touched)?;
        let (need, dirty, old_size) = (state.blocks.lacking(span.clone()), state.dirty, state.size);
        if !self.shared.reserve(need, dirty) {
            return Err(WriteRefused::Full);
        }
        let rewrite = self.begin_rewrite(state, &file, touched.clone()).inspect_err(|_| self.shared.release(need, dirty))?;
        self.note_change(state, touched.clone());
        let written = self.put(&file, data, offset).map_err(refusal);
        let gained = written.and_then(|()| Ok(self.gain(state, touched.clone(), span.end.max(old_size), true)?));
        if let Err(refused) = gained {
            rewrite.over(state);
            let kept = self.take_back(state, &file, span.start.min(old_size)..span.end.min(old_size));
            self.shared.release(need - kept, dirty);
            // What went past the end is no part of the file.
            if span.end > old_size {
                file.set_len(old_size).map_err(Error::from)?;
            }
            return Err(refused);
        }
        state.hot = span.end;
        state.wrote(touched);
        state.blocks.occupy(span);
        rewrite.wrote(state, offset, data);
        Ok(())
    }

    /// After a write that failed: a part of it may be on the disk. How many bytes that takes.
    fn take_back(&self, state: &mut State, file: &File, span: Span) -> u64 {
        let before = state.charged();
        state.blocks.occupy(span.clone());
        let absent = if state.complete { Vec::new() } else { state.parts.present.missing(span) };
        for part in absent {
            if disk::punch_silently(file, &part).is_ok() {
                state.blocks.free(part);
            }
        }
        state.charged().saturating_sub(before)
    }

    /// Who waits for room is still writing, and is told of when there is some.
    fn note_refusal(&self, state: &mut State, outcome: Outcome) -> Outcome {
        self.look_after_change(state);
        if matches!(outcome, Err(WriteRefused::Full)) {
            state.changed_at = Instant::now();
            self.shared.press();
        }
        outcome
    }

    /// Sets the length; what is added reads as zeros and counts as changed.
    pub fn truncate(&self, size: u64) -> Outcome {
        let mut state = self.state.lock();
        changeable(&state)?;
        checked_end(size, 0)?;
        let outcome = match size.cmp(&state.size) {
            std::cmp::Ordering::Less => {
                leaves_freed_alone(&state, &(size..u64::MAX))?;
                self.shrink(&mut state, size).map_err(WriteRefused::from)
            }
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => self.grow(&mut state, size).map_err(WriteRefused::from),
        };
        self.note_refusal(&mut state, outcome)
    }

    fn grow(&self, state: &mut State, size: u64) -> Result<()> {
        let file = self.file(state)?;
        let old_size = state.size;
        self.begin_rewrite(state, &file, old_size..size)?.over(state);
        self.note_change(state, old_size..size);
        file.set_len(size)?;
        simulation::saw(|| Event::Written);
        if let Err(error) = self.gain(state, old_size..size, size, true) {
            file.set_len(old_size)?;
            return Err(error);
        }
        state.wrote(old_size..size);
        Ok(())
    }

    fn shrink(&self, state: &mut State, size: u64) -> Result<()> {
        let file = self.file(state)?;
        let (charged, dirty, old_size) = (state.charged(), state.dirty, state.size);
        let rewrite = self.begin_rewrite(state, &file, size..old_size)?;
        let before = state.parts.clone();
        state.size = size;
        let dropped = state.parts.cut(size);
        let forget = (!dropped.is_empty()).then_some(Change::ForgetFreed(self.id, size..old_size));
        state.cuts += 1;
        if !state.complete
            && let Err(error) = self.journal_row(state, forget.as_slice())
        {
            state.size = old_size;
            state.parts = before;
            rewrite.over(state);
            return Err(error);
        }
        state.changes.cut(size);
        state.changed_at = Instant::now();
        self.make_stale(state);
        file.set_len(size)?;
        simulation::saw(|| Event::Written);
        state.blocks.cut(size);
        state.parts.change(|sets| sets.vacated.cut(size));
        state.wrote(size..size);
        rewrite.over(state);
        self.shared.release(charged - state.charged(), dirty);
        if !state.complete && state.is_full() {
            self.journal_complete(state, &[])?;
            state.become_complete();
        }
        self.filled.notify_waiters();
        Ok(())
    }

    /// Zeros `span` (clamped to nothing: it may extend the file when `keep_size` is false); for fallocate.
    pub fn zero(&self, span: Span, keep_size: bool) -> Outcome {
        let mut state = self.state.lock();
        changeable(&state)?;
        checked_end(span.end, 0)?;
        let end = if keep_size { span.end.min(state.size) } else { span.end };
        if span.start >= end {
            return Ok(());
        }
        leaves_freed_alone(&state, &(span.start..end))?;
        let inside = span.start..end.min(state.size);
        let mut outcome = if inside.is_empty() { Ok(()) } else { self.zero_inside(&mut state, inside) };
        if outcome.is_ok() && end > state.size {
            outcome = self.grow(&mut state, end).map_err(WriteRefused::from);
        }
        self.note_refusal(&mut state, outcome)
    }

    fn zero_inside(&self, state: &mut State, span: Span) -> Outcome {
        let file = self.file(state)?;
        let rewrite = self.begin_rewrite(state, &file, span.clone())?;
        match disk::punch(&file, &span) {
            Ok(()) => {}
            Err(error) => {
                rewrite.over(state);
                let can_write = error.raw_os_error() == Some(libc::EOPNOTSUPP);
                return if can_write { self.write_zeros(state, span) } else { Err(refusal(error)) };
            }
        }
        if file.metadata().map_err(refusal)?.len() < span.end {
            file.set_len(span.end).map_err(refusal)?;
        }
        self.note_change(state, span.clone());
        let (charged, dirty, size) = (state.charged(), state.dirty, state.size);
        if let Err(error) = self.gain(state, span.clone(), size, true) {
            rewrite.over(state);
            return Err(error.into());
        }
        state.blocks.free(span.clone());
        state.wrote(span.clone());
        rewrite.zeroed(state, span);
        state.cuts += 1;
        self.shared.release(charged - state.charged(), dirty);
        Ok(())
    }

    fn write_zeros(&self, state: &mut State, span: Span) -> Outcome {
        let mut at = span.start;
        while at < span.end {
            let length = (span.end - at).min(ZEROS.len() as u64);
            self.write_locked(state, at, &ZEROS[..length as usize])?;
            at += length;
        }
        Ok(())
    }

    pub(super) fn note_change(&self, state: &mut State, span: Span) {
        state.changes.record(span);
        state.changed_at = Instant::now();
        self.make_stale(state);
    }

    /// Writes bytes to the disk; where that is full, what can be evicted goes first.
    pub(super) fn put(&self, file: &File, data: &[u8], offset: u64) -> io::Result<()> {
        loop {
            match file.write_all_at(data, offset) {
                Err(error) if disk::is_full(&error) && self.shared.evict(data.len() as u64) => {}
                result => {
                    simulation::saw(|| Event::Written);
                    return result;
                }
            }
        }
    }

    /// The bytes of `span` are in the data file, which is `size` long now: journals that where it has to be, then
    /// takes it into the state. On an error nothing has changed.
    pub(super) fn gain(&self, state: &mut State, span: Span, size: u64, local: bool) -> Result<()> {
        if state.complete {
            state.size = size;
            return Ok(());
        }
        let (absent, old_size) = (state.parts.present.missing(span.clone()), state.size);
        let back: Vec<Span> = state.freed_parts(&span).collect();
        back.iter().for_each(|part| _ = state.parts.freed.remove(&part.start));
        absent.iter().for_each(|part| state.parts.present.insert(part.clone()));
        state.size = size;
        let known = size == old_size && state.parts.journalled.contains(&span);
        let kept_back = !local && state.keeps_fetched_back();
        let journalled = if kept_back { Ok(()) } else { self.journal_gain(state, span, local && !known, &back) };
        if let Err(error) = journalled {
            absent.into_iter().for_each(|part| state.parts.present.remove(part));
            state.parts.freed.extend(back.into_iter().map(|part| (part.start, part.end)));
            state.size = old_size;
            return Err(error);
        }
        self.make_stale(state);
        self.filled.notify_waiters();
        Ok(())
    }

    /// `back`: parts that were freed and are here again.
    fn journal_gain(&self, state: &mut State, span: Span, new_change: bool, back: &[Span]) -> Result<()> {
        let mut changes: Vec<Change> = back.iter().map(|part| Change::ForgetFreed(self.id, part.clone())).collect();
        if state.is_full() {
            if state.dirty {
                self.journal_complete(state, &changes)?;
            }
            state.become_complete();
        } else if new_change && !state.discarded {
            changes.push(Change::AddPresent(self.id, span.clone(), state.size));
            self.shared.journal.apply(&changes)?;
            state.parts.journalled.insert(span);
        }
        Ok(())
    }
}

/// Bytes that an upload holds can't be changed in part: they are not here to be put together with the new ones.
fn leaves_freed_alone(state: &State, span: &Span) -> Outcome {
    let cut_into = |part: Span| part.start < span.start || span.end < part.end;
    match state.freed_parts(span).any(cut_into) {
        true if state.forfeited => Err(WriteRefused::Failed(Error::Stale)),
        true => Err(WriteRefused::Freed),
        false => Ok(()),
    }
}

fn changeable(state: &State) -> Outcome {
    if state.gone {
        return Err(WriteRefused::Failed(Error::Stale));
    }
    if state.dirty { Ok(()) } else { Err(WriteRefused::Clean) }
}

/// The kernel's offsets are signed.
fn checked_end(offset: u64, length: u64) -> std::result::Result<u64, WriteRefused> {
    offset.checked_add(length).filter(|end| *end <= i64::MAX as u64).ok_or(WriteRefused::Failed(Error::TooLarge))
}

fn refusal(error: io::Error) -> WriteRefused {
    if disk::is_full(&error) { WriteRefused::Full } else { WriteRefused::Failed(error.into()) }
}

impl From<Error> for WriteRefused {
    /// A full disk is one error more that waiting for room may cure.
    fn from(error: Error) -> Self {
        match error {
            Error::NoSpace => Self::Full,
            error => Self::Failed(error),
        }
    }
}
