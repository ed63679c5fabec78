#![allow(clippy::single_range_in_vec_init, reason = "a list of one span is what is meant")]

use proptest::prelude::*;

use super::*;

fn mib(n: u64) -> u64 {
    n * MIB
}

/// Reads `wants` in turn with all of it fetched at once; gives the GETs of each.
fn run(size: u64, wants: &[Span]) -> Vec<Vec<Span>> {
    let (mut pace, mut fetched) = (Pace::default(), Vec::new());
    let mut rounds = Vec::new();
    for want in wants {
        let missing_before = !subtract(std::slice::from_ref(want), &fetched).is_empty();
        let moved = pace.note(want);
        let reach = match (missing_before, moved) {
            (true, _) => pace.reach(want, size),
            (false, true) => pace.ahead(want, size),
            (false, false) => 0..0,
        };
        let missing = subtract(&[0..size], &fetched);
        let gets: Vec<Span> = plan(want, &reach, &missing, &[]).into_iter().map(|get| get.span).collect();
        fetched.extend(gets.iter().cloned());
        rounds.push(gets);
    }
    rounds
}

fn sequential(size: u64, step: u64) -> Vec<Span> {
    (0..size.div_ceil(step)).map(|at| at * step..min((at + 1) * step, size)).collect()
}

#[test]
fn a_small_object_is_one_get_wherever_it_is_read() {
    assert_eq!(run(MIB, &[0..100]), [vec![0..MIB]]);
    assert_eq!(run(MIB, &[MIB - 5..MIB, 0..100]), [vec![0..MIB], vec![]]);
    assert_eq!(run(3, &[0..3]), [vec![0..3]]);
}

#[test]
fn a_header_costs_the_first_window() {
    assert_eq!(run(mib(100), &[0..4096]), [vec![0..MIB]]);
    assert_eq!(run(mib(100), &[4096..8192]), [vec![0..MIB]]);
}

#[test]
fn a_sequential_reader_gets_a_doubling_window_in_few_gets() {
    let rounds = run(mib(256), &sequential(mib(256), 128 * KIB));
    let gets: Vec<Span> = rounds.into_iter().flatten().collect();
    assert_eq!(gets.first(), Some(&(0..MIB)));
    assert!(gets.iter().all(|get| get.end - get.start <= GET_LIMIT_BYTES));
    assert!(gets.len() <= 48, "{} GETs", gets.len());
    let lengths: Vec<u64> = gets.iter().take(4).map(|get| get.end - get.start).collect();
    assert!(lengths.is_sorted(), "{lengths:?}");
    assert_eq!(gets.iter().map(|get| get.end - get.start).sum::<u64>(), mib(256));
}

#[test]
fn random_reads_fetch_what_they_ask_for() {
    let size = mib(1024);
    let wants: Vec<Span> = (1..100).map(|at| (at * 37 % 100) * mib(10) + 5000).map(|start| start..start + 64 * KIB).collect();
    for (want, gets) in wants.iter().zip(run(size, &wants)) {
        assert_eq!(gets.len(), 1);
        assert!(gets[0].start <= want.start && gets[0].end >= want.end);
        assert_eq!(gets[0].end - gets[0].start, RANDOM_BYTES);
    }
}

#[test]
fn a_run_after_a_jump_grows_a_window_again() {
    let from = mib(500);
    let wants: Vec<Span> = sequential(mib(4), 128 * KIB).into_iter().map(|span| from + span.start..from + span.end).collect();
    let rounds = run(mib(1024), &wants);
    assert_eq!(rounds[0], [from..from + RANDOM_BYTES]);
    assert!(rounds[1][0].end - rounds[1][0].start >= MIB);
    assert!(rounds.iter().flatten().count() < 8);
}

#[test]
fn a_short_skip_forward_keeps_the_window_and_a_long_one_drops_it() {
    let mut pace = Pace::default();
    sequential(mib(32), MIB).iter().for_each(|want| {
        pace.note(want);
    });
    let window = pace.window;
    assert!(window >= mib(16));
    pace.note(&(pace.planned_to - MIB..pace.planned_to));
    assert!(pace.window >= window);
    let far = pace.planned_to + mib(2);
    pace.note(&(far..far + 10));
    assert_eq!(pace.window, 0);
    assert_eq!(pace.reach(&(far..far + 10), mib(500)).end - far / ROUND_BYTES * ROUND_BYTES, RANDOM_BYTES);
}

#[test]
fn reads_out_of_order_still_go_forward() {
    let mut wants = sequential(mib(16), 128 * KIB);
    wants.chunks_mut(4).for_each(|four| four.reverse());
    let gets: Vec<Span> = run(mib(64), &wants).into_iter().flatten().collect();
    assert!(gets.len() < 20, "{gets:?}");
}

#[test]
fn a_small_rest_at_the_end_is_rounded_towards_the_front() {
    assert_eq!(round_out(&(mib(10) - 5..mib(10)), mib(10)), mib(10) - RANDOM_BYTES..mib(10));
    assert_eq!(round_out(&(70..80), 100), 0..100);
    assert_eq!(round_out(&(ROUND_BYTES..ROUND_BYTES + 1), mib(9)), ROUND_BYTES..ROUND_BYTES + RANDOM_BYTES);
}

fn any_span(within: u64) -> impl Strategy<Value = Span> {
    (0..within, 1..mib(3)).prop_map(move |(start, length)| start..min(start + length, within))
}

fn covered(at: u64, spans: &[Span]) -> bool {
    spans.iter().any(|span| span.contains(&at))
}

proptest! {
    #[test]
    fn a_plan_covers_the_want_and_nothing_twice(
        size in 1u64..mib(200),
        history in prop::collection::vec((0.0f64..1.0, 1u64..mib(2)), 1..20),
        present in prop::collection::vec((0.0f64..1.0, 0.0f64..0.3), 0..4),
        flying in prop::collection::vec((0.0f64..1.0, 0.0f64..0.3), 0..4),
    ) {
        let spans = |parts: &[(f64, f64)]| -> Vec<Span> {
            let at = |part: f64| (part * size as f64) as u64;
            parts.iter().map(|(start, length)| at(*start)..min(at(*start) + at(*length), size)).collect()
        };
        let (present, in_flight) = (spans(&present), spans(&flying));
        let mut pace = Pace::default();
        for (at, length) in history {
            let start = min((at * size as f64) as u64, size - 1);
            let want = start..min(start + length, size);
            pace.note(&want);
            let reach = pace.reach(&want, size);
            prop_assert!(reach.start <= want.start && reach.end >= want.end && reach.end <= size);
            prop_assert!(reach.end - reach.start <= 3 * WINDOW_LIMIT_BYTES / 2 + 4 * MIB);
            let missing = subtract(std::slice::from_ref(&reach), &present);
            let gets = plan(&want, &reach, &missing, &in_flight);
            let planned: Vec<Span> = gets.iter().map(|get| get.span.clone()).collect();
            for (number, get) in gets.iter().enumerate() {
                prop_assert!(!get.span.is_empty() && get.span.end - get.span.start <= GET_LIMIT_BYTES);
                prop_assert_eq!(get.urgent, overlaps(&get.span, &want));
                prop_assert!(!present.iter().chain(&in_flight).any(|span| !span.is_empty() && overlaps(span, &get.span)));
                prop_assert!(!planned[..number].iter().any(|span| overlaps(span, &get.span)));
            }
            let left = subtract(&subtract(&subtract(std::slice::from_ref(&want), &present), &in_flight), &planned);
            prop_assert!(left.is_empty(), "{:?}", left);
        }
    }

    #[test]
    fn rounding_stays_inside_and_covers(size in 1u64..mib(8), want in any_span(mib(8))) {
        let want = min(want.start, size - 1)..min(want.end, size).max(min(want.start, size - 1) + 1);
        let rounded = round_out(&want, size);
        prop_assert!(rounded.start <= want.start && want.end <= rounded.end && rounded.end <= size);
        prop_assert!(rounded.end - rounded.start >= min(RANDOM_BYTES, size));
        prop_assert!(covered(want.start, &[rounded]));
    }
}
