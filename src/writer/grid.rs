//! How a file is cut into parts, and which of them the store can copy from the version that they came from.
//!
//! Pure. The grid follows from the new size alone: R2 takes only equal parts (the last may be smaller), S3 none below
//! 5 MiB but the last and 10,000 at most. A part that was not touched and lies wholly within the base goes up as a
//! server-side copy, all others as data; so one changed byte costs one part.

use crate::types::Span;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Sizes, in bytes, at which a transfer changes its form. Tests shrink them; the defaults follow S3's and R2's limits.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// One PUT up to here: a second request would cost more than its parallelism gains.
    pub single_bytes: u64,
    /// Parts begin at this size; a power of two.
    pub part_bytes: u64,
    /// Parts that have to fit a small cache: S3 and R2 refuse smaller ones, but for the last.
    pub least_part_bytes: u64,
    /// S3 and R2 refuse more parts.
    pub max_parts: u64,
    /// R2's largest object (S3's is a little larger).
    pub max_object_bytes: u64,
    /// The largest CopyObject of S3 and R2.
    pub copy_bytes: u64,
    /// Parts of larger copies: they move nothing through this host, so few are best.
    pub copy_part_bytes: u64,
    /// Bytes of parts in memory at once, all files together.
    pub memory_bytes: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            single_bytes: 16 * MIB,
            part_bytes: 16 * MIB,
            least_part_bytes: 5 * MIB,
            max_parts: 10_000,
            max_object_bytes: 4_995 * (GIB * 1024 / 1000),
            copy_bytes: 5 * GIB - 5 * MIB,
            copy_part_bytes: GIB,
            memory_bytes: 48 * MIB,
        }
    }
}

/// So many parts of a growing file shall fit into the cache: one being written, the others on their way up.
const AHEAD_PARTS: u64 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartSource {
    /// From the file.
    Data,
    /// From the same bytes of the base, by the store.
    Base,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartPlan {
    /// From 1.
    pub number: u32,
    pub span: Span,
    pub source: PartSource,
}

/// The smallest doubling of `first` with which `size` bytes fit into `max_parts` parts.
pub fn part_bytes(size: u64, first: u64, max_parts: u64) -> u64 {
    let mut part = first;
    while part.saturating_mul(max_parts) < size {
        part *= 2;
    }
    part
}

/// Parts for a file that is still growing, in a cache that holds `capacity` bytes: small enough that many fit, so that some
/// go up while others are written; and large enough for a file twice as long as now.
pub fn ahead_part_bytes(size: u64, capacity: u64, tuning: &Tuning) -> u64 {
    let mut part = tuning.part_bytes;
    while part > capacity / AHEAD_PARTS && part > tuning.least_part_bytes {
        part = (part / 2).max(tuning.least_part_bytes);
    }
    part_bytes(size.saturating_mul(2), part, tuning.max_parts)
}

/// Cuts `size` bytes into parts of `part` bytes. `base`: the size of the version that untouched parts may be copied
/// from; `changed`: what differs from it, in order.
pub fn plan(size: u64, part: u64, base: Option<u64>, changed: &[Span]) -> Vec<PartPlan> {
    let mut changed = changed.iter().filter(|span| !span.is_empty()).peekable();
    (0..size.div_ceil(part))
        .map(|index| {
            let span = index * part..((index + 1) * part).min(size);
            while changed.next_if(|c| c.end <= span.start).is_some() {}
            let touched = changed.peek().is_some_and(|c| c.start < span.end);
            let source = if !touched && base.is_some_and(|base| span.end <= base) { PartSource::Base } else { PartSource::Data };
            PartPlan { number: index as u32 + 1, span, source }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_grow_only_when_ten_thousand_do_not_suffice() {
        let tuning = Tuning::default();
        for (size, expected) in
            [(17 * MIB, 16 * MIB), (160_000 * MIB, 16 * MIB), (160_000 * MIB + 1, 32 * MIB), (tuning.max_object_bytes, 1024 * MIB)]
        {
            assert_eq!(part_bytes(size, tuning.part_bytes, tuning.max_parts), expected, "{size}");
        }
        assert!((5_017..5_120).contains(&(tuning.max_object_bytes / GIB)), "4.9 to 5 TiB");
    }

    #[test]
    fn parts_of_a_growing_file_fit_the_cache_and_the_limits() {
        let tuning = Tuning::default();
        for (size, capacity, expected) in [
            (0, u64::MAX, 16 * MIB),
            (50 * MIB, 64 * MIB, 8 * MIB),
            (50 * MIB, 60 * MIB, 5 * MIB),
            (10 * MIB, MIB, 5 * MIB),
            (25_000 * MIB, 60 * MIB, 5 * MIB),
            (25_001 * MIB, 60 * MIB, 10 * MIB),
            (100_000 * MIB, u64::MAX, 32 * MIB),
        ] {
            assert_eq!(ahead_part_bytes(size, capacity, &tuning), expected, "{size} {capacity}");
        }
    }

    #[test]
    fn one_changed_byte_costs_one_part() {
        let data = |changed: &[(u64, u64)], size, base| -> Vec<u32> {
            let changed: Vec<Span> = changed.iter().map(|&(start, end)| start..end).collect();
            plan(size, 10, base, &changed).into_iter().filter(|p| p.source == PartSource::Data).map(|p| p.number).collect()
        };
        assert_eq!(data(&[(45, 46)], 95, Some(95)), [5]);
        assert_eq!(data(&[], 95, Some(95)), Vec::<u32>::new());
        assert_eq!(data(&[(9, 11)], 95, Some(95)), [1, 2]);
        assert_eq!(data(&[(10, 20)], 95, Some(95)), [2]);
        assert_eq!(data(&[(20, 20)], 95, Some(95)), Vec::<u32>::new());
        // Grown: the part that the old end lies in, and all behind it.
        assert_eq!(data(&[(95, 120)], 120, Some(95)), [10, 11, 12]);
        // Cut: the last part is smaller than it was, but still the base's bytes.
        assert_eq!(data(&[], 42, Some(95)), Vec::<u32>::new());
        assert_eq!(data(&[(0, 5)], 20, None), [1, 2]);
    }

    proptest! {
        #[test]
        fn parts_tile_the_file_and_never_copy_what_changed(
            size in 1u64..5_000, part in 1u64..700, base in proptest::option::of(0u64..6_000),
            mut changed in proptest::collection::vec((0u64..5_000, 0u64..300).prop_map(|(at, len)| at..at + len), 0..6),
        ) {
            changed.sort_by_key(|span| span.start);
            let mut disjoint: Vec<Span> = Vec::new();
            for span in changed {
                if disjoint.last().is_none_or(|last| last.end <= span.start) {
                    disjoint.push(span);
                }
            }
            let parts = plan(size, part, base, &disjoint);
            let mut at = 0;
            for (index, p) in parts.iter().enumerate() {
                prop_assert_eq!(p.span.start, at);
                prop_assert_eq!(p.number as usize, index + 1);
                prop_assert!(p.span.end - p.span.start == part || p.span.end == size);
                let touched = disjoint.iter().any(|c| !c.is_empty() && c.start < p.span.end && p.span.start < c.end);
                let copied = p.source == PartSource::Base;
                prop_assert_eq!(copied, !touched && base.is_some_and(|base| p.span.end <= base));
                at = p.span.end;
            }
            prop_assert_eq!(at, size);
        }

        #[test]
        fn any_size_fits_the_limits(size in 1u64..=4_995 * (GIB * 1024 / 1000)) {
            let tuning = Tuning::default();
            let part = part_bytes(size, tuning.part_bytes, tuning.max_parts);
            prop_assert!((5 * MIB..=5 * GIB - 5 * MIB).contains(&part) && part.is_power_of_two());
            prop_assert!(size.div_ceil(part) <= tuning.max_parts);
        }
    }
}
