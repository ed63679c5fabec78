//! The pages of a journal as its last commit left them: the database's, and over them those of the log.
//!
//! Pure. The log is read further than SQLite reads it: each frame carries the checksum that the next one continues, so
//! that a damaged frame doesn't take those behind it along. A frame belongs to the log if it carries the log's salts;
//! what lies behind the last commit was never acknowledged. A damaged frame's page is used all the same: each row in
//! it verifies by itself or not.

use std::collections::{BTreeSet, HashMap};

const PAGE_BYTES: usize = 4096;
const LOG_HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// Of the log's first word; the last bit says that its checksums are over big-endian words.
const LOG_MAGIC: u32 = 0x377f_0682;
/// In the database's header: the first page of the list of free pages, and their number.
const FREE_FIRST: usize = 32;
const FREE_COUNT: usize = 36;

pub struct Pages<'a> {
    database: &'a [u8],
    log: HashMap<u32, &'a [u8]>,
    /// In pages.
    count: u32,
    /// Frames up to the last commit whose checksum is wrong.
    pub damaged_frames: usize,
}

impl<'a> Pages<'a> {
    pub fn new(database: &'a [u8], log: &'a [u8]) -> Pages<'a> {
        let mut pages = Pages { database, log: HashMap::new(), count: (database.len() / PAGE_BYTES) as u32, damaged_frames: 0 };
        pages.read_log(log);
        pages
    }

    fn read_log(&mut self, log: &'a [u8]) {
        let frames: Vec<&[u8]> = match log.get(LOG_HEADER_BYTES..) {
            Some(rest) => rest.chunks_exact(FRAME_HEADER_BYTES + PAGE_BYTES).collect(),
            None => return,
        };
        let (Some(header), Some(first)) = (log.get(..LOG_HEADER_BYTES), frames.first()) else { return };
        let big = word(header, 0) == LOG_MAGIC | 1;
        let sound = word(header, 0) & !1 == LOG_MAGIC && sums(big, (0, 0), &header[..24]) == pair(header, 24);
        // A damaged header: the first frame tells the salts as well.
        let salts = if sound { pair(header, 16) } else { pair(first, 8) };
        let ours = |frame: &&[u8]| pair(frame, 8) == salts;
        let Some(last) = frames.iter().rposition(|frame| ours(frame) && word(frame, 4) != 0) else { return };
        // A log that was begun anew and not written yet still carries the frames of the one before.
        let mut chain = if sound { pair(header, 24) } else { (0, 0) };
        let mut known = sound;
        for (at, frame) in frames[..=last].iter().enumerate() {
            let stored = pair(frame, 16);
            let right = ours(frame) && sums(big, sums(big, chain, &frame[..8]), &frame[FRAME_HEADER_BYTES..]) == stored;
            self.damaged_frames += usize::from(!(right || !known && at == 0));
            (chain, known) = (stored, true);
            self.log.insert(word(frame, 0), &frame[FRAME_HEADER_BYTES..]);
        }
        self.damaged_frames += usize::from(!sound);
        self.count = self.count.max(word(frames[last], 4).min(self.count.saturating_add(frames.len() as u32)));
    }

    /// Pages are numbered from 1.
    pub fn numbers(&self) -> std::ops::RangeInclusive<u32> {
        1..=self.count
    }

    pub fn get(&self, number: u32) -> Option<&'a [u8]> {
        let start = (number.checked_sub(1)? as usize).checked_mul(PAGE_BYTES)?;
        self.log.get(&number).copied().or_else(|| self.database.get(start..start + PAGE_BYTES))
    }

    /// Where the database says how it was made: the schema's version.
    pub fn version(&self) -> Option<u32> {
        self.get(1).map(|page| word(page, 60))
    }

    /// The pages that carry nothing any more, but may carry rows of old. None where their list is damaged.
    pub fn free(&self) -> Option<BTreeSet<u32>> {
        let first = self.get(1)?;
        let (mut trunk, count) = (word(first, FREE_FIRST), word(first, FREE_COUNT) as usize);
        let mut free = BTreeSet::new();
        while trunk != 0 {
            let page = self.get(trunk).filter(|_| free.insert(trunk))?;
            let leaves = word(page, 4) as usize;
            if leaves > PAGE_BYTES / 4 - 2 {
                return None;
            }
            free.extend((0..leaves).map(|at| word(page, 8 + at * 4)));
            trunk = word(page, 0);
        }
        (free.len() == count).then_some(free)
    }
}

/// Big-endian; 0 past the end.
fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn pair(bytes: &[u8], at: usize) -> (u32, u32) {
    (word(bytes, at), word(bytes, at + 4))
}

/// SQLite's checksum of the log, continued from `from`.
fn sums(big: bool, from: (u32, u32), bytes: &[u8]) -> (u32, u32) {
    let number = |four: &[u8; 4]| if big { u32::from_be_bytes(*four) } else { u32::from_le_bytes(*four) };
    let (words, _) = bytes.as_chunks::<4>();
    let (pairs, _) = words.as_chunks::<2>();
    pairs.iter().fold(from, |(mut one, mut two), [first, second]| {
        one = one.wrapping_add(number(first)).wrapping_add(two);
        two = two.wrapping_add(number(second)).wrapping_add(one);
        (one, two)
    })
}
