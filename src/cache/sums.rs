//! Checksums of one data file's bytes, in memory and as the journal keeps them. Pure.
//!
//! The file is cut into blocks on a fixed grid, and what is present of a block has a sum for each contiguous piece:
//! usually one for the whole block. So bytes that arrive in order only extend a sum, and a read need check no more than
//! the blocks that it touches. CRC-32 finds every flipped byte, and every burst of 32 bits, within a block.
//!
//! INVARIANT: sums are sorted, disjoint, lie within a block each, and two that touch within a block are one. A region's
//! `kept` sums are in the journal; they are dropped there before bytes under one of them change.
//!
//! Must not: do I/O, or know which bytes are present.

use std::collections::BTreeMap;

use crc32fast::Hasher;

use crate::types::Span;

/// A random read of 4 KiB pays for a block of this; each GiB of an open file takes 768 KiB of memory for its sums.
pub const BLOCK_BYTES: u64 = 16 << 10;

/// What the journal keeps in one row (10 KiB of sums), so that a change of a huge file stays a small one.
pub const REGION_BYTES: u64 = 16 << 20;

/// In the journal: where in the region, how long, the sum; little-endian.
const ENCODED_BYTES: usize = 10;

/// Set in the length of a damaged piece; a block's length leaves it free.
const BAD: u16 = 1 << 15;

/// One contiguous piece of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum {
    /// From the region's start.
    at: u32,
    length: u16,
    crc: u32,
    /// Found damaged: no content of it is right until it is written over.
    bad: bool,
}

impl Sum {
    fn end(self) -> u32 {
        self.at + u32::from(self.length)
    }

    fn joins(self, other: Sum) -> bool {
        !self.bad && !other.bad && self.end() == other.at && u64::from(self.at) / BLOCK_BYTES == u64::from(other.at) / BLOCK_BYTES
    }
}

#[derive(Debug, Default)]
struct Region {
    sums: Vec<Sum>,
    /// The journal has a row of this region.
    kept: bool,
    /// That row is not what is known.
    behind: bool,
    /// It has sums that are forgotten here.
    forgotten: bool,
}

#[derive(Debug, Default)]
pub struct Sums {
    regions: BTreeMap<u64, Region>,
}

/// A piece and what its bytes have to sum up to; None: it is known to be damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub span: Span,
    pub crc: Option<u32>,
}

impl Expected {
    pub fn is_right(&self, bytes: &[u8]) -> bool {
        self.crc == Some(crc32fast::hash(bytes))
    }
}

/// The part of the grid that `at` lies in.
pub fn block_of(at: u64) -> Span {
    let start = at - at % BLOCK_BYTES;
    start..start.saturating_add(BLOCK_BYTES)
}

/// `span` cut at the grid's lines.
pub fn blocks(span: Span) -> impl Iterator<Item = Span> {
    let mut at = span.start;
    std::iter::from_fn(move || {
        let piece = at..block_of(at).end.min(span.end);
        at = piece.end;
        (!piece.is_empty()).then_some(piece)
    })
}

impl Sums {
    /// Sums of pieces that `span` touches, in order.
    pub fn touching(&self, span: &Span) -> Vec<Expected> {
        let mut found = Vec::new();
        for (number, region) in self.regions_of(span) {
            let start = number * REGION_BYTES;
            let first = region.sums.partition_point(|sum| start + u64::from(sum.end()) <= span.start);
            let sums = region.sums[first..].iter().take_while(|sum| start + u64::from(sum.at) < span.end);
            found.extend(
                sums.map(|sum| Expected {
                    span: start + u64::from(sum.at)..start + u64::from(sum.end()),
                    crc: (!sum.bad).then_some(sum.crc),
                }),
            );
        }
        found
    }

    /// The parts of `span` that have no sum, in order.
    pub fn gaps(&self, span: &Span) -> Vec<Span> {
        let mut gaps: Vec<Span> = Vec::new();
        let mut at = span.start;
        for expected in self.touching(span) {
            if at < expected.span.start {
                gaps.push(at..expected.span.start);
            }
            at = expected.span.end;
        }
        if at < span.end {
            gaps.push(at..span.end);
        }
        gaps
    }

    /// `data` came to lie at `offset`, where no sum is.
    pub fn add(&mut self, offset: u64, data: &[u8]) {
        for piece in blocks(offset..offset + data.len() as u64) {
            let bytes = &data[(piece.start - offset) as usize..(piece.end - offset) as usize];
            self.add_piece(piece, bytes);
        }
    }

    fn add_piece(&mut self, piece: Span, bytes: &[u8]) {
        let (number, at, length) = place(&piece);
        let region = self.region(number);
        region.behind = true;
        let mut sum = Sum { at, length, crc: 0, bad: false };
        let mut index = region.sums.partition_point(|sum| sum.at < at);
        match index.checked_sub(1).map(|before| region.sums[before]).filter(|before| before.joins(sum)) {
            Some(before) => {
                sum = Sum { at: before.at, length: before.length + length, crc: extended(before.crc, bytes), bad: false };
                index -= 1;
                region.sums[index] = sum;
            }
            None => {
                sum.crc = crc32fast::hash(bytes);
                region.sums.insert(index, sum);
            }
        }
        if let Some(after) = region.sums.get(index + 1).copied().filter(|after| sum.joins(*after)) {
            region.sums[index] = Sum { at: sum.at, length: sum.length + after.length, crc: joined(sum.crc, after), bad: false };
            region.sums.remove(index + 1);
        }
    }

    /// A piece of a block, where no sum is, is damaged.
    pub fn add_bad(&mut self, piece: &Span) {
        let (number, at, length) = place(piece);
        let region = self.region(number);
        let index = region.sums.partition_point(|sum| sum.at < at);
        region.sums.insert(index, Sum { at, length, crc: 0, bad: true });
        region.behind = true;
    }

    /// Forgets the sums of all pieces that `span` touches.
    pub fn forget(&mut self, span: &Span) {
        let numbers: Vec<u64> = self.regions_of(span).map(|(number, _)| number).collect();
        for number in numbers {
            let start = number * REGION_BYTES;
            let region = self.region(number);
            let first = region.sums.partition_point(|sum| start + u64::from(sum.end()) <= span.start);
            let last = region.sums.partition_point(|sum| start + u64::from(sum.at) < span.end);
            if first < last {
                region.sums.drain(first..last);
                (region.behind, region.forgotten) = (true, region.kept);
            }
        }
    }

    /// The regions of which the journal has, or may have, sums of bytes in `span`.
    pub fn kept_over(&self, span: &Span) -> Vec<u64> {
        let kept = self.regions_of(span).filter(|(_, region)| region.kept);
        let over = kept.filter(|(number, region)| region.forgotten || !self.touching(&within_region(*number, span)).is_empty());
        over.map(|(number, _)| number).collect()
    }

    /// The journal has nothing of these regions any more.
    pub fn dropped(&mut self, numbers: &[u64]) {
        for number in numbers {
            let region = self.region(*number);
            (region.kept, region.behind, region.forgotten) = (false, true, false);
        }
    }

    /// What the journal doesn't have yet, encoded.
    pub fn behind(&self) -> Vec<(u64, Vec<u8>)> {
        self.regions.iter().filter(|(_, region)| region.behind).map(|(number, region)| (*number, encode(&region.sums))).collect()
    }

    pub fn is_behind(&self) -> bool {
        self.regions.values().any(|region| region.behind)
    }

    /// The journal has taken `behind`.
    pub fn kept(&mut self) {
        for region in self.regions.values_mut() {
            region.kept |= region.behind;
            (region.behind, region.forgotten) = (false, false);
        }
    }

    /// The journal has taken what was behind in this region some time ago; since then sums were only added.
    pub fn kept_in_part(&mut self, number: u64) {
        let region = self.region(number);
        (region.kept, region.behind, region.forgotten) = (true, true, false);
    }

    /// None where a row is not what `behind` gave.
    pub fn from_journal(rows: Vec<(u64, Vec<u8>)>) -> Option<Self> {
        let mut regions = BTreeMap::new();
        for (number, encoded) in rows {
            regions.insert(number, Region { sums: decode(&encoded)?, kept: true, ..Region::default() });
        }
        Some(Self { regions })
    }

    fn region(&mut self, number: u64) -> &mut Region {
        self.regions.entry(number).or_default()
    }

    fn regions_of(&self, span: &Span) -> impl Iterator<Item = (u64, &Region)> {
        let numbers = if span.is_empty() { 0..0 } else { span.start / REGION_BYTES..(span.end - 1) / REGION_BYTES + 1 };
        self.regions.range(numbers).map(|(number, region)| (*number, region))
    }
}

/// Region, offset in it, length.
fn place(piece: &Span) -> (u64, u32, u16) {
    debug_assert!(!piece.is_empty() && block_of(piece.start).end >= piece.end);
    (piece.start / REGION_BYTES, (piece.start % REGION_BYTES) as u32, (piece.end - piece.start) as u16)
}

fn within_region(number: u64, span: &Span) -> Span {
    span.start.max(number * REGION_BYTES)..span.end.min((number + 1) * REGION_BYTES)
}

/// The sum of bytes with the sum `crc`, and `more` behind them.
fn extended(crc: u32, more: &[u8]) -> u32 {
    let mut hasher = Hasher::new_with_initial(crc);
    hasher.update(more);
    hasher.finalize()
}

fn joined(crc: u32, after: Sum) -> u32 {
    let mut hasher = Hasher::new_with_initial(crc);
    hasher.combine(&Hasher::new_with_initial_len(after.crc, u64::from(after.length)));
    hasher.finalize()
}

fn encode(sums: &[Sum]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(sums.len() * ENCODED_BYTES);
    for sum in sums {
        encoded.extend_from_slice(&sum.at.to_le_bytes());
        encoded.extend_from_slice(&(sum.length | if sum.bad { BAD } else { 0 }).to_le_bytes());
        encoded.extend_from_slice(&sum.crc.to_le_bytes());
    }
    encoded
}

fn decode(encoded: &[u8]) -> Option<Vec<Sum>> {
    let (chunks, rest) = encoded.as_chunks::<ENCODED_BYTES>();
    let mut sums: Vec<Sum> = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let [a, b, c, d, e, f, g, h, i, j] = *chunk;
        let (at, length, crc) = (u32::from_le_bytes([a, b, c, d]), u16::from_le_bytes([e, f]), u32::from_le_bytes([g, h, i, j]));
        let sum = Sum { at, length: length & !BAD, crc, bad: length & BAD != 0 };
        let last = u64::from(sum.at) + u64::from(sum.length).saturating_sub(1);
        let sound = sum.length > 0 && last < REGION_BYTES && last / BLOCK_BYTES == u64::from(sum.at) / BLOCK_BYTES;
        if !sound || sums.last().is_some_and(|before| before.end() > sum.at) {
            return None;
        }
        sums.push(sum);
    }
    rest.is_empty().then_some(sums)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Two blocks before a region's border and two behind it.
    const FROM: u64 = REGION_BYTES - 2 * BLOCK_BYTES;
    const LENGTH: u64 = 4 * BLOCK_BYTES;

    #[derive(Clone, Debug)]
    enum Step {
        Add(Span),
        Forget(Span),
        Journal,
    }

    fn span() -> impl Strategy<Value = Span> {
        // Often along the grid, where the mistakes are.
        let at = || prop_oneof![(0..=8u64).prop_map(|half| half * BLOCK_BYTES / 2), 0..LENGTH];
        (at(), at()).prop_map(|(a, b)| FROM + a.min(b)..FROM + a.max(b))
    }

    fn byte(at: u64) -> u8 {
        (at % 251) as u8
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn every_byte_that_was_added_is_under_a_right_sum(steps in prop::collection::vec(prop_oneof![
            6 => span().prop_map(Step::Add), 2 => span().prop_map(Step::Forget), 1 => Just(Step::Journal),
        ], 1..20)) {
            let mut sums = Sums::default();
            let mut summed = vec![false; LENGTH as usize];
            for step in steps {
                match step {
                    Step::Add(span) => {
                        for gap in sums.gaps(&span) {
                            let data: Vec<u8> = gap.clone().map(byte).collect();
                            sums.add(gap.start, &data);
                        }
                        summed[(span.start - FROM) as usize..(span.end - FROM) as usize].fill(true);
                    }
                    Step::Forget(span) => {
                        for expected in sums.touching(&span) {
                            summed[(expected.span.start - FROM) as usize..(expected.span.end - FROM) as usize].fill(false);
                        }
                        sums.forget(&span);
                    }
                    Step::Journal => {
                        let rows = sums.behind();
                        sums.kept();
                        prop_assert!(!sums.is_behind());
                        let read = Sums::from_journal(rows).unwrap();
                        for number in read.regions.keys() {
                            prop_assert_eq!(&read.regions[number].sums, &sums.regions[number].sums);
                        }
                    }
                }
                let all = FROM..FROM + LENGTH;
                let touching = sums.touching(&all);
                for expected in &touching {
                    let data: Vec<u8> = expected.span.clone().map(byte).collect();
                    prop_assert!(expected.is_right(&data), "{:?}", &expected.span);
                }
                for pair in touching.windows(2) {
                    let apart = pair[0].span.end < pair[1].span.start || pair[1].span.start % BLOCK_BYTES == 0;
                    prop_assert!(apart, "{:?}", pair);
                }
                for gap in sums.gaps(&all) {
                    prop_assert!(gap.clone().all(|at| !summed[(at - FROM) as usize]));
                }
                prop_assert_eq!(summed.iter().filter(|byte| **byte).count() as u64, touching.iter().map(|e| e.span.end - e.span.start).sum::<u64>());
            }
        }
    }

    #[test]
    fn the_journal_is_told_before_bytes_under_a_sum_change() {
        let mut sums = Sums::default();
        sums.add(0, &[1; 100]);
        assert!(sums.kept_over(&(0..100)).is_empty(), "it knows nothing yet");
        sums.kept();
        assert_eq!(sums.kept_over(&(50..60)), [0]);
        assert!(sums.kept_over(&(100..5000)).is_empty(), "what is added behind a sum leaves it right");
        sums.add(100, &[2; 10]);
        assert!(sums.is_behind());
        sums.dropped(&[0]);
        assert!(sums.kept_over(&(0..100)).is_empty() && sums.is_behind());
        sums.kept();
        sums.forget(&(0..1));
        assert_eq!(sums.kept_over(&(5000..5001)), [0], "what is forgotten here is still there");
    }

    #[test]
    fn a_damaged_piece_joins_nothing_and_stays_so() {
        let mut sums = Sums::default();
        sums.add_bad(&(10..20));
        sums.add(0, &[1; 10]);
        sums.add(20, &[1; 10]);
        let read = Sums::from_journal(sums.behind()).unwrap();
        let bad: Vec<_> = read.touching(&(0..100)).into_iter().map(|piece| (piece.span, piece.crc.is_none())).collect();
        assert_eq!(bad, [(0..10, false), (10..20, true), (20..30, false)]);
    }

    #[test]
    fn rows_that_nobody_wrote_are_not_believed() {
        let row = |at: u32, length: u16| encode(&[Sum { at, length, crc: 7, bad: false }]);
        for bad in [row(0, 0), row(10, BLOCK_BYTES as u16), row(REGION_BYTES as u32, 1), vec![0; 9], [row(5, 5), row(9, 1)].concat()] {
            assert!(Sums::from_journal(vec![(0, bad)]).is_none());
        }
        assert!(Sums::from_journal(vec![(0, [row(5, 5), row(10, 1)].concat())]).is_some());
    }
}
