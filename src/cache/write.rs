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
        self.write_locked(&mut state, offset, data)
    }

    fn write_locked(&self, state: &mut State, offset: u64, data: &[u8]) -> Outcome {
        if data.is_empty() {
            return Ok(());
        }
        let span = offset..checked_end(offset, data.len() as u64)?;
        let file = self.file(state)?;
        let (need, dirty, old_size) = (state.uncharged(span.clone()), state.dirty, state.size);
        if !self.shared.reserve(need, dirty) {
            return Err(WriteRefused::Full);
        }
        let touched = span.start.min(old_size)..span.end;
        let rewrite = self.begin_rewrite(state, &file, touched.clone()).inspect_err(|_| self.shared.release(need, dirty))?;
        self.note_change(state, touched.clone());
        let written = self.put(&file, data, offset).map_err(refusal);
        let gained = written.and_then(|()| Ok(self.gain(state, touched, span.end.max(old_size), true)?));
        if let Err(refused) = gained {
            rewrite.over(state);
            self.shared.release(need, dirty);
            // What went past the end is no part of the file.
            if span.end > old_size {
                file.set_len(old_size).map_err(Error::from)?;
            }
            return Err(refused);
        }
        if old_size < span.start {
            state.holes.insert(old_size..span.start);
        }
        state.holes.remove(span);
        rewrite.wrote(state, offset, data);
        Ok(())
    }

    /// Sets the length; what is added reads as zeros and counts as changed.
    pub fn truncate(&self, size: u64) -> Outcome {
        let mut state = self.state.lock();
        changeable(&state)?;
        checked_end(size, 0)?;
        match size.cmp(&state.size) {
            std::cmp::Ordering::Less => Ok(self.shrink(&mut state, size)?),
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Ok(self.grow(&mut state, size)?),
        }
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
        state.holes.insert(old_size..size);
        Ok(())
    }

    fn shrink(&self, state: &mut State, size: u64) -> Result<()> {
        let file = self.file(state)?;
        let (charged, dirty, old_size) = (state.charged(), state.dirty, state.size);
        let rewrite = self.begin_rewrite(state, &file, size..old_size)?;
        let before = (state.present.clone(), state.journalled.clone(), state.durable.clone(), state.holes.clone());
        state.size = size;
        state.present.cut(size);
        state.journalled.cut(size);
        state.durable.cut(size);
        state.holes.cut(size);
        state.cuts += 1;
        if !state.complete
            && let Err(error) = self.journal_row(state)
        {
            state.size = old_size;
            (state.present, state.journalled, state.durable, state.holes) = before;
            rewrite.over(state);
            return Err(error);
        }
        state.changes.cut(size);
        state.changed_at = Instant::now();
        self.make_stale(state);
        file.set_len(size)?;
        simulation::saw(|| Event::Written);
        rewrite.over(state);
        self.shared.release(charged - state.charged(), dirty);
        if !state.complete && state.is_full() {
            self.journal_complete(state)?;
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
        let inside = span.start..end.min(state.size);
        if !inside.is_empty() {
            self.zero_inside(&mut state, inside)?;
        }
        if end > state.size { Ok(self.grow(&mut state, end)?) } else { Ok(()) }
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
        state.holes.insert(span.clone());
        rewrite.zeroed(state, span);
        state.cuts += 1;
        // What becomes present here is a hole at once, so the sum can only fall.
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

    fn note_change(&self, state: &mut State, span: Span) {
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
        let (absent, old_size) = (state.present.missing(span.clone()), state.size);
        absent.iter().for_each(|part| state.present.insert(part.clone()));
        state.size = size;
        let known = size == old_size && state.journalled.contains(&span);
        if let Err(error) = self.journal_gain(state, span, local && !known) {
            absent.into_iter().for_each(|part| state.present.remove(part));
            state.size = old_size;
            return Err(error);
        }
        self.make_stale(state);
        self.filled.notify_waiters();
        Ok(())
    }

    fn journal_gain(&self, state: &mut State, span: Span, new_change: bool) -> Result<()> {
        if state.is_full() {
            if state.dirty {
                self.journal_complete(state)?;
            }
            state.become_complete();
        } else if new_change && !state.discarded {
            self.shared.journal.apply(&[Change::AddPresent(self.id, span.clone(), state.size)])?;
            state.journalled.insert(span);
        }
        Ok(())
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
