//! Reads of present bytes, checked against their sums.
//!
//! Every read that passes here checks the blocks it touches, each time: a byte may be flipped while the daemon runs. Bytes
//! without a sum get one when they are read, so that what was seen once is what is seen again and what goes up. Reads run
//! outside the file's lock; whatever doesn't look right counts only if nothing changed meanwhile.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use crate::error::{Error, Result};
use crate::types::Span;

use super::file::LocalFile;
use super::state::State;
use super::sums::Expected;

/// Tries beside a writer that keeps changing what is read; the next one makes it wait.
const TRIES: usize = 4;

/// Bytes in one step of a check of a whole file.
const STEP_BYTES: u64 = 1 << 20;

/// What a read has to find.
struct Plan {
    span: Span,
    /// Pieces that the span touches, whole.
    expected: Vec<Expected>,
    /// Parts of the span that get a sum by this read. Holes that are known for what they are need none.
    unknown: Vec<Span>,
    /// Parts without a sum that are zeros, or something is wrong.
    zeros: Vec<Span>,
    /// Changes of the file when this was true.
    count: u64,
    /// What was taken off the disk by then.
    drops: u64,
}

enum Found {
    Right,
    /// The data file ends here.
    Short(u64),
    /// These pieces are not what they were.
    Wrong(Vec<Span>),
    Failed(io::Error),
}

enum Round {
    Over(Option<usize>),
    Changed,
}

impl LocalFile {
    /// Reads present bytes at `offset` into `buffer`, to the end of the file; Ok(None) where a byte of the range is absent,
    /// or was found damaged and is absent from now on. `Error::Damaged`: it was, and the bucket doesn't have it.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<Option<usize>> {
        for _ in 0..TRIES {
            if let Round::Over(read) = self.try_read(offset, buffer, false)? {
                return Ok(read);
            }
        }
        match self.try_read(offset, buffer, true)? {
            Round::Over(read) => Ok(read),
            Round::Changed => Err(Error::Stale),
        }
    }

    fn try_read(&self, offset: u64, buffer: &mut [u8], hold: bool) -> Result<Round> {
        let mut state = self.state.lock();
        let length = (buffer.len() as u64).min(state.size.saturating_sub(offset)) as usize;
        if length == 0 {
            return Ok(Round::Over(Some(0)));
        }
        let span = offset..offset + length as u64;
        if !state.has(&span) {
            return Ok(Round::Over(None));
        }
        let Some(file) = self.file_to_read(&mut state)? else { return Ok(Round::Over(None)) };
        let plan = self.plan(&mut state, span)?;
        let buffer = &mut buffer[..length];
        let found = match hold {
            true => check(&file, &plan, buffer),
            // Readers of one file don't wait for each other.
            false => MutexGuard::unlocked(&mut state, || check(&file, &plan, buffer)),
        };
        if matches!(found, Found::Right) && plan.unknown.is_empty() {
            state.see(plan.span);
            return Ok(Round::Over(Some(length)));
        }
        // What was taken off the disk meanwhile was read as zeros, perhaps.
        if self.drops.load(Ordering::Acquire) != plan.drops || state.changes.count() != plan.count || state.gone || !state.has(&plan.span) {
            return Ok(Round::Changed);
        }
        self.judge(&mut state, &plan, found, buffer).map(Round::Over)
    }

    fn file_to_read(&self, state: &mut State) -> Result<Option<Arc<File>>> {
        match self.file(state) {
            Err(Error::Disk(error)) if error.kind() == io::ErrorKind::NotFound => match self.lost(state) {
                true => Ok(None),
                false => Err(self.damaged(state, 0..state.size)),
            },
            other => other.map(Some),
        }
    }

    fn plan(&self, state: &mut State, span: Span) -> Result<Plan> {
        let count = state.changes.count();
        let sealed = state.zeros_below();
        let sums = self.sums(state)?;
        let (mut expected, gaps) = (sums.touching(&span), sums.gaps(&span));
        expected.retain(|piece| state.has(&piece.span));
        let below = gaps.iter().map(|gap| gap.start..gap.end.min(sealed));
        let zeros: Vec<Span> = below.filter(|gap| !gap.is_empty()).collect();
        let beyond = gaps.iter().map(|gap| gap.start.max(sealed)..gap.end).filter(|gap| !gap.is_empty());
        let occupied = zeros.iter().flat_map(|gap| state.blocks.occupied_parts(gap.clone()));
        let unknown = occupied.chain(beyond).collect();
        Ok(Plan { span, expected, unknown, zeros, count, drops: self.drops.load(Ordering::Acquire) })
    }

    /// Nothing changed while it was read: what is wrong is damage.
    fn judge(&self, state: &mut State, plan: &Plan, found: Found, buffer: &[u8]) -> Result<Option<usize>> {
        let wrong = match found {
            Found::Right => {
                self.learn(state, plan, buffer);
                state.see(plan.span.clone());
                return Ok(Some(buffer.len()));
            }
            Found::Short(end) => vec![end.min(state.size)..state.size],
            Found::Wrong(wrong) => wrong,
            Found::Failed(error) if state.dirty || state.base.is_none() => return Err(error.into()),
            Found::Failed(error) => {
                tracing::warn!(file = %self.id, %error, "the cache disk can't be read");
                vec![plan.span.clone()]
            }
        };
        self.give_up(state, wrong).map(|()| None)
    }

    /// Bytes that nobody had a sum of.
    fn learn(&self, state: &mut State, plan: &Plan, buffer: &[u8]) {
        if state.loose > 0 {
            return;
        }
        let Some(sums) = &mut state.sums else { return };
        for gap in &plan.unknown {
            let start = plan.span.start;
            // What is summed meanwhile was read by somebody else too.
            for part in sums.gaps(gap) {
                sums.add(part.start, &buffer[(part.start - start) as usize..(part.end - start) as usize]);
            }
        }
        self.make_stale(state);
    }

    /// Reads everything that is present: what has no sum gets one, and what is damaged is found. True: no byte is absent or
    /// damaged. Costs a comparison where nothing changed since it last was true.
    pub fn verify_all(&self) -> Result<bool> {
        let stamp = self.stamp()?;
        if self.state.lock().verified.as_deref() == Some(&stamp) {
            return Ok(true);
        }
        let mut buffer = vec![0; STEP_BYTES as usize];
        let mut at = 0;
        while let Some(length) = self.read_at(at, &mut buffer)? {
            if length == 0 {
                let same = self.stamp()? == stamp;
                self.state.lock().verified = same.then(|| Box::new(stamp));
                return Ok(same);
            }
            at += length as u64;
        }
        Ok(false)
    }

    /// Gives every present byte a sum, by reading those that have none. False: something changed all the time.
    pub(super) fn sum_up(&self, limit_bytes: u64) -> Result<bool> {
        if self.is_loose() {
            return Ok(false);
        }
        for _ in 0..TRIES {
            let unsummed = self.unsummed(&mut self.state.lock())?;
            if unsummed.is_empty() {
                return Ok(true);
            }
            if unsummed.iter().map(|span| span.end - span.start).sum::<u64>() > limit_bytes {
                return Ok(false);
            }
            for span in unsummed {
                let mut at = span.start;
                while at < span.end {
                    let mut buffer = vec![0; (span.end - at).min(STEP_BYTES) as usize];
                    match self.read_at(at, &mut buffer)? {
                        None | Some(0) => break,
                        Some(length) => at += length as u64,
                    }
                }
            }
        }
        Ok(false)
    }
}

/// Reads the plan's span into `buffer`, and what else has to be read to check it.
fn check(file: &File, plan: &Plan, buffer: &mut [u8]) -> Found {
    let start = plan.expected.first().map_or(plan.span.start, |first| first.span.start.min(plan.span.start));
    let end = plan.expected.last().map_or(plan.span.end, |last| last.span.end.max(plan.span.end));
    if (start..end) == plan.span {
        return check_in(file, plan, start, buffer);
    }
    let mut wide = vec![0; (end - start) as usize];
    let found = check_in(file, plan, start, &mut wide);
    let from = (plan.span.start - start) as usize;
    buffer.copy_from_slice(&wide[from..from + buffer.len()]);
    found
}

fn check_in(file: &File, plan: &Plan, start: u64, bytes: &mut [u8]) -> Found {
    match read_full(file, start, bytes) {
        Err(error) => return Found::Failed(error),
        Ok(read) if read < bytes.len() => return Found::Short(start + read as u64),
        Ok(_) => {}
    }
    let part = |span: &Span| &bytes[(span.start - start) as usize..(span.end - start) as usize];
    let wrong_sums = plan.expected.iter().filter(|piece| !piece.is_right(part(&piece.span))).map(|piece| piece.span.clone());
    let not_zeros = plan.zeros.iter().filter(|gap| part(gap).iter().any(|byte| *byte != 0)).cloned();
    let wrong: Vec<Span> = wrong_sums.chain(not_zeros).collect();
    if wrong.is_empty() { Found::Right } else { Found::Wrong(wrong) }
}

/// Fills `buffer` as far as the file goes.
pub(super) fn read_full(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
