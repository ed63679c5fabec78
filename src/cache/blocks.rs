//! Which blocks of the disk a sparse data file occupies. Pure.
//!
//! The budget counts these and not bytes: ten thousand files of a hundred bytes take 40 MB. Whatever is in doubt counts
//! as occupied, so that the disk never holds more than is counted.

use crate::types::Span;

use super::spans::SpanSet;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Bytes in a block; a power of two.
    unit: u64,
    /// Every block below is occupied, but for `holes`. Both keep to whole blocks.
    end: u64,
    holes: SpanSet,
}

impl Blocks {
    pub fn new(unit: u64) -> Self {
        Self { unit, end: 0, holes: SpanSet::default() }
    }

    /// The first so many bytes, whole blocks, and no hole.
    pub fn solid(unit: u64, bytes: u64) -> Self {
        Self { end: bytes, ..Self::new(unit) }
    }

    pub fn is_solid(&self) -> bool {
        self.holes.is_empty()
    }

    /// Occupied bytes.
    pub fn bytes(&self) -> u64 {
        self.end - self.holes.bytes()
    }

    /// Occupied bytes of the blocks that `span` touches.
    pub fn occupied(&self, span: Span) -> u64 {
        let touched = self.outward(&span);
        let below = touched.start.min(self.end)..touched.end.min(self.end);
        below.end - below.start - self.holes.covered(below)
    }

    /// The parts of `span` that lie in occupied blocks.
    pub fn occupied_parts(&self, span: Span) -> Vec<Span> {
        self.holes.missing(span.start..span.end.min(self.end))
    }

    /// What writing `span` adds to `bytes`.
    pub fn lacking(&self, span: Span) -> u64 {
        let touched = self.outward(&span);
        touched.end - touched.start - self.occupied(span)
    }

    /// `span` is written.
    pub fn occupy(&mut self, span: Span) {
        if span.is_empty() {
            return;
        }
        let touched = self.outward(&span);
        self.holes.insert(self.end..touched.start);
        self.end = self.end.max(touched.end);
        self.holes.remove(touched);
    }

    /// `span` became a hole: of blocks that it covers in part nothing is freed.
    pub fn free(&mut self, span: Span) {
        let whole = self.up(span.start)..self.down(span.end.min(self.end));
        if whole.start < whole.end {
            self.holes.insert(whole);
        }
    }

    /// The file was cut to `size`.
    pub fn cut(&mut self, size: u64) {
        self.end = self.end.min(self.up(size));
        self.holes.cut(self.end);
    }

    pub fn clear(&mut self) {
        *self = Self::new(self.unit);
    }

    fn outward(&self, span: &Span) -> Span {
        if span.is_empty() { span.start..span.start } else { self.down(span.start)..self.up(span.end) }
    }

    fn down(&self, at: u64) -> u64 {
        at / self.unit * self.unit
    }

    fn up(&self, at: u64) -> u64 {
        at.div_ceil(self.unit).saturating_mul(self.unit)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNIT: u64 = 4;
    const COUNT: usize = 12;

    fn span() -> impl Strategy<Value = Span> {
        (0..UNIT * COUNT as u64, 0..UNIT * COUNT as u64).prop_map(|(a, b)| a.min(b)..a.max(b))
    }

    fn touches(span: &Span, block: usize) -> bool {
        let start = block as u64 * UNIT;
        !span.is_empty() && span.start < start + UNIT && start < span.end
    }

    proptest! {
        #[test]
        fn it_is_one_bit_a_block(steps in prop::collection::vec((0..4u8, span()), 0..30)) {
            let (mut blocks, mut bits) = (Blocks::new(UNIT), [false; COUNT]);
            for (kind, span) in steps {
                let more = (0..COUNT).filter(|&n| touches(&span, n) && !bits[n]).count() as u64 * UNIT;
                prop_assert_eq!(blocks.lacking(span.clone()), more);
                let there = (0..COUNT).filter(|&n| touches(&span, n) && bits[n]).count() as u64 * UNIT;
                prop_assert_eq!(blocks.occupied(span.clone()), there);
                match kind {
                    0 | 1 => {
                        blocks.occupy(span.clone());
                        (0..COUNT).filter(|&n| touches(&span, n)).for_each(|n| bits[n] = true);
                    }
                    2 => {
                        blocks.free(span.clone());
                        let inside = |n: usize| span.start <= n as u64 * UNIT && (n as u64 + 1) * UNIT <= span.end;
                        (0..COUNT).filter(|&n| inside(n)).for_each(|n| bits[n] = false);
                    }
                    _ => {
                        blocks.cut(span.start);
                        bits[span.start.div_ceil(UNIT) as usize..].fill(false);
                    }
                }
                prop_assert_eq!(blocks.bytes(), bits.iter().filter(|bit| **bit).count() as u64 * UNIT);
            }
        }
    }
}
