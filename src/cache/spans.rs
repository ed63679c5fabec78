//! A set of bytes of a file, as sorted, disjoint, non-touching spans. Pure.
//!
//! A tree, not a vector: random reads into a large file make a hundred thousand spans, and each step stays logarithmic. Most
//! sets are one span, of which there are several for each file that the cache has: those take no tree.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::types::Span;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpanSet {
    ends: Ends,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Ends {
    /// One span, or none where it is empty.
    One(u64, u64),
    /// Two and more.
    Many(Box<Spans>),
}

/// Start to end. Never empty spans; between two of them lies at least one byte.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Spans {
    ends: BTreeMap<u64, u64>,
    bytes: u64,
}

impl Default for Ends {
    fn default() -> Self {
        Self::One(0, 0)
    }
}

impl Ends {
    /// The spans that start in `starts`, in order.
    fn starting(&self, starts: Range<u64>) -> impl Iterator<Item = (u64, u64)> + '_ {
        let (one, many) = match self {
            Self::One(start, end) => (Some((*start, *end)).filter(|(start, end)| start < end && starts.contains(start)), None),
            Self::Many(spans) => (None, Some(spans.ends.range(starts).map(|(&start, &end)| (start, end)))),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    fn first_of(&self, starts: Range<u64>) -> Option<(u64, u64)> {
        self.starting(starts).next()
    }

    /// The span that starts at `at` or before, and nearest to it.
    fn last_to(&self, at: u64) -> Option<(u64, u64)> {
        match self {
            Self::One(start, end) => Some((*start, *end)).filter(|(start, end)| start < end && *start <= at),
            Self::Many(spans) => spans.ends.range(..=at).next_back().map(|(&start, &end)| (start, end)),
        }
    }

    /// Puts in a span that touches no other one.
    fn put(&mut self, start: u64, end: u64) {
        match self {
            Self::One(from, to) if from == to => (*from, *to) = (start, end),
            Self::One(from, to) => {
                let ends = BTreeMap::from([(*from, *to), (start, end)]);
                *self = Self::Many(Box::new(Spans { bytes: *to - *from + end - start, ends }));
            }
            Self::Many(spans) => {
                spans.ends.insert(start, end);
                spans.bytes += end - start;
            }
        }
    }

    /// Takes out the span that starts there.
    fn take(&mut self, start: u64) {
        match self {
            Self::One(..) => *self = Self::default(),
            Self::Many(spans) => {
                spans.bytes -= spans.ends.remove(&start).map_or(0, |end| end - start);
                if spans.ends.len() == 1
                    && let Some((&start, &end)) = spans.ends.first_key_value()
                {
                    *self = Self::One(start, end);
                }
            }
        }
    }
}

impl SpanSet {
    pub const NONE: Self = Self { ends: Ends::One(0, 0) };

    /// Bytes in the set.
    pub fn bytes(&self) -> u64 {
        match &self.ends {
            Ends::One(start, end) => end - start,
            Ends::Many(spans) => spans.bytes,
        }
    }

    pub fn is_empty(&self) -> bool {
        matches!(self.ends, Ends::One(start, end) if start == end)
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    pub fn iter(&self) -> impl Iterator<Item = Span> + '_ {
        self.ends.starting(0..u64::MAX).map(|(start, end)| start..end)
    }

    pub fn insert(&mut self, span: Span) {
        if span.is_empty() {
            return;
        }
        let Span { mut start, mut end } = span;
        if let Some((before, before_end)) = self.ends.last_to(start)
            && before_end >= start
        {
            if before_end >= end {
                return;
            }
            start = before;
        }
        while let Some((next, next_end)) = self.ends.first_of(start..end.saturating_add(1)) {
            end = end.max(next_end);
            self.ends.take(next);
        }
        self.ends.put(start, end);
    }

    pub fn remove(&mut self, span: Span) {
        for part in self.within(span.clone()) {
            let (start, end) = self.holding(part.start).expect("a part of the set lies in one of its spans");
            self.ends.take(start);
            if start < part.start {
                self.ends.put(start, part.start);
            }
            if part.end < end {
                self.ends.put(part.end, end);
            }
        }
    }

    /// Everything from `size` on goes.
    pub fn cut(&mut self, size: u64) {
        self.remove(size..u64::MAX);
    }

    /// True when every byte of `span` is in the set.
    pub fn contains(&self, span: &Span) -> bool {
        span.is_empty() || self.holding(span.start).is_some_and(|(_, end)| end >= span.end)
    }

    /// The parts of `span` that are in the set, in order.
    pub fn within(&self, span: Span) -> Vec<Span> {
        if span.is_empty() {
            return Vec::new();
        }
        let first = self.holding(span.start).map_or(span.start, |(start, _)| start);
        self.ends.starting(first..span.end).map(|(start, end)| start.max(span.start)..end.min(span.end)).collect()
    }

    /// The parts of `span` that are not in the set, in order.
    pub fn missing(&self, span: Span) -> Vec<Span> {
        let mut at = span.start;
        // An empty span, also one that ends before it starts, misses nothing.
        let mut missing = Vec::new();
        for part in self.within(span.clone()) {
            if at < part.start {
                missing.push(at..part.start);
            }
            at = part.end;
        }
        if at < span.end {
            missing.push(at..span.end);
        }
        missing
    }

    /// How many bytes of `span` are in the set.
    pub fn covered(&self, span: Span) -> u64 {
        self.within(span).iter().map(|part| part.end - part.start).sum()
    }

    /// Everything of `other` too.
    pub fn unite(&mut self, other: &SpanSet) {
        other.iter().for_each(|span| self.insert(span));
    }

    fn holding(&self, at: u64) -> Option<(u64, u64)> {
        self.ends.last_to(at).filter(|&(_, end)| end > at)
    }
}

impl FromIterator<Span> for SpanSet {
    fn from_iter<I: IntoIterator<Item = Span>>(spans: I) -> Self {
        let mut set = Self::default();
        spans.into_iter().for_each(|span| set.insert(span));
        set
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: u64 = 48;

    fn spans_of(bits: &[bool], wanted: bool, window: Span) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        for at in window {
            if bits[at as usize] == wanted {
                match spans.last_mut() {
                    Some(last) if last.end == at => last.end += 1,
                    _ => spans.push(at..at + 1),
                }
            }
        }
        spans
    }

    fn span() -> impl Strategy<Value = Span> {
        (0..SIZE, 0..SIZE).prop_map(|(a, b)| a.min(b)..a.max(b))
    }

    proptest! {
        #[test]
        fn it_is_a_bit_vector(steps in prop::collection::vec((0..3u8, span()), 0..40), window in span()) {
            let mut set = SpanSet::default();
            let mut bits = vec![false; SIZE as usize];
            for (kind, span) in steps {
                match kind {
                    0 | 1 => { set.insert(span.clone()); bits[span.start as usize..span.end as usize].fill(true); }
                    _ => { set.remove(span.clone()); bits[span.start as usize..span.end as usize].fill(false); }
                }
            }
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), spans_of(&bits, true, 0..SIZE));
            prop_assert_eq!(set.bytes(), bits.iter().filter(|bit| **bit).count() as u64);
            prop_assert_eq!(set.within(window.clone()), spans_of(&bits, true, window.clone()));
            prop_assert_eq!(set.missing(window.clone()), spans_of(&bits, false, window.clone()));
            prop_assert_eq!(set.contains(&window), spans_of(&bits, false, window.clone()).is_empty());
            prop_assert_eq!(set.covered(window.clone()), spans_of(&bits, true, window).iter().map(|s| s.end - s.start).sum::<u64>());
            let copied: SpanSet = set.iter().collect();
            prop_assert_eq!(&copied, &set);
            set.cut(20);
            bits[20..].fill(false);
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), spans_of(&bits, true, 0..SIZE));
        }
    }
}
