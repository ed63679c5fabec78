//! Arithmetic on ordered lists of spans.

use std::cmp::{max, min};

use crate::types::Span;

pub fn overlaps(a: &Span, b: &Span) -> bool {
    max(a.start, b.start) < min(a.end, b.end)
}

/// The parts of `spans` within `bounds`, without empty ones.
pub fn intersect(spans: &[Span], bounds: &Span) -> Vec<Span> {
    spans.iter().map(|span| max(span.start, bounds.start)..min(span.end, bounds.end)).filter(|span| !span.is_empty()).collect()
}

/// The parts of `spans` that are in none of `taken`, which may be in any order and overlap.
pub fn subtract(spans: &[Span], taken: &[Span]) -> Vec<Span> {
    let mut left = spans.to_vec();
    for hole in taken.iter().filter(|hole| !hole.is_empty()) {
        left = left.into_iter().flat_map(|span| [span.start..min(span.end, hole.start), max(span.start, hole.end)..span.end]).collect();
        left.retain(|span| !span.is_empty());
    }
    left
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(spans: &[Span]) -> Vec<u64> {
        spans.iter().cloned().flatten().collect()
    }

    fn any_spans() -> impl Strategy<Value = Vec<Span>> {
        prop::collection::vec((0u64..40, 0u64..10).prop_map(|(start, len)| start..start + len), 0..6)
    }

    proptest! {
        #[test]
        fn they_do_what_sets_of_bytes_do(spans in any_spans(), taken in any_spans(), bounds in (0u64..40, 0u64..20)) {
            let bounds = bounds.0..bounds.0 + bounds.1;
            let inside: Vec<u64> = bytes(&spans).into_iter().filter(|at| bounds.contains(at)).collect();
            prop_assert_eq!(bytes(&intersect(&spans, &bounds)), inside);
            let left: Vec<u64> = bytes(&spans).into_iter().filter(|at| !taken.iter().any(|span| span.contains(at))).collect();
            prop_assert_eq!(bytes(&subtract(&spans, &taken)), left);
        }
    }

    #[test]
    fn touching_is_not_overlapping() {
        assert!(!overlaps(&(0..5), &(5..6)));
        assert!(overlaps(&(0..5), &(4..6)));
        assert!(!overlaps(&(0..5), &(3..3)));
    }
}
