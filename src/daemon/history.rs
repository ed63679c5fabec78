//! The last hour, in steps of five seconds: for the plots of the status page, and for what a month will cost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::cost::Billed;
use super::status::Sources;
use crate::store::timing::Times;
use crate::store::trace::RequestCounts;
use crate::store::{Bill, Operation};

const STEP: Duration = Duration::from_secs(5);
/// An hour.
const KEPT: usize = 720;
/// With less to go by, a month is guesswork.
const LEAST_FOR_A_MONTH: Duration = Duration::from_secs(60);
/// A year's twelfth.
const MONTH_SECONDS: f64 = 365.25 / 12.0 * 86_400.0;

/// What had been counted at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    billed: Billed,
    up_bytes: u64,
    down_bytes: u64,
    failures: u64,
    reads: Times,
    writes: Times,
    dirty_files: u64,
    dirty_bytes: u64,
    cache_bytes: u64,
}

#[derive(Default)]
pub struct History {
    samples: Mutex<VecDeque<Sample>>,
}

/// Each column has one value for each step, the oldest first; None where nothing was asked in it.
#[derive(Debug, Default, Serialize)]
pub struct Series {
    pub seconds_ago: Vec<f64>,
    /// Bytes a second.
    pub up: Vec<f64>,
    pub down: Vec<f64>,
    /// Requests a second.
    pub requests: Vec<f64>,
    pub failures: Vec<f64>,
    /// Milliseconds to the head of the answer: half of the requests took no longer, and 95 of 100.
    pub read_ms: Vec<Option<f64>>,
    pub read_95_ms: Vec<Option<f64>>,
    pub write_ms: Vec<Option<f64>>,
    pub write_95_ms: Vec<Option<f64>>,
    pub dirty_files: Vec<u64>,
    pub dirty_bytes: Vec<u64>,
    pub cache_bytes: Vec<u64>,
}

/// Takes a sample at each step until it is dropped.
pub async fn record(sources: Arc<Sources>) {
    let mut ticks = interval(STEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (backlog, usage) = (sources.writer.backlog(), sources.cache.usage());
        sources.history.add(Sample {
            dirty_files: backlog.dirty_files,
            dirty_bytes: backlog.dirty_bytes,
            cache_bytes: usage.bytes,
            ..Sample::of(&sources.counts)
        });
    }
}

impl Sample {
    fn of(counts: &RequestCounts) -> Self {
        let (mut reads, mut writes) = (Times::default(), Times::default());
        for operation in Operation::ALL {
            let class = if operation.bill() == Bill::Read { &mut reads } else { &mut writes };
            class.add(&counts.times(operation));
        }
        Self {
            at: Instant::now(),
            billed: Billed::of(counts),
            up_bytes: counts.bytes_up(),
            down_bytes: counts.bytes_down(),
            failures: counts.failures().values().sum(),
            reads,
            writes,
            dirty_files: 0,
            dirty_bytes: 0,
            cache_bytes: 0,
        }
    }
}

impl History {
    fn add(&self, sample: Sample) {
        let mut samples = self.samples.lock();
        samples.push_back(sample);
        while samples.len() > KEPT {
            samples.pop_front();
        }
    }

    /// What a month takes at the rate of the last hour, and how many such months fit into what is known of it.
    pub fn months(&self, billed: &Billed) -> Option<(Billed, f64)> {
        let oldest = self.samples.lock().front().copied()?;
        let passed = oldest.at.elapsed();
        (passed >= LEAST_FOR_A_MONTH).then(|| (billed.since(&oldest.billed), MONTH_SECONDS / passed.as_secs_f64()))
    }

    pub fn series(&self) -> Series {
        let samples: Vec<Sample> = self.samples.lock().iter().copied().collect();
        let now = Instant::now();
        let mut series = Series::default();
        for (before, after) in samples.iter().zip(samples.iter().skip(1)) {
            let seconds = (after.at - before.at).as_secs_f64().max(0.001);
            let rate = |before: u64, after: u64| rounded(after.saturating_sub(before) as f64 / seconds);
            let (reads, writes) = (after.reads.since(&before.reads), after.writes.since(&before.writes));
            let millis = |times: &Times, part| times.quantile_ms(part).map(rounded);
            series.seconds_ago.push(rounded((now - after.at).as_secs_f64()));
            series.up.push(rate(before.up_bytes, after.up_bytes).round());
            series.down.push(rate(before.down_bytes, after.down_bytes).round());
            series.requests.push(rate(0, reads.total() + writes.total()));
            series.failures.push(rate(before.failures, after.failures));
            series.read_ms.push(millis(&reads, 0.5));
            series.read_95_ms.push(millis(&reads, 0.95));
            series.write_ms.push(millis(&writes, 0.5));
            series.write_95_ms.push(millis(&writes, 0.95));
            series.dirty_files.push(after.dirty_files);
            series.dirty_bytes.push(after.dirty_bytes);
            series.cache_bytes.push(after.cache_bytes);
        }
        series
    }
}

/// To two digits: more would only be longer.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_hour_is_kept_and_shown_as_rates() {
        let (history, counts) = (History::default(), RequestCounts::new());
        for step in 0..KEPT + 10 {
            history.add(Sample { dirty_files: step as u64, ..Sample::of(&counts) });
            tokio::time::advance(STEP).await;
            (0..10).for_each(|_| counts.count_time(Operation::GetObject, Duration::from_millis(8)));
        }
        let series = history.series();
        assert_eq!(series.up.len(), KEPT - 1);
        assert_eq!(series.requests.first(), Some(&2.0), "ten in five seconds");
        assert!(series.read_ms[0].is_some_and(|ms| (5.0..10.0).contains(&ms)) && series.write_ms[0].is_none());
        assert_eq!(series.dirty_files.last(), Some(&(KEPT as u64 + 9)));
        assert!(series.seconds_ago.first() > series.seconds_ago.last());
    }

    #[tokio::test(start_paused = true)]
    async fn a_month_is_reckoned_from_a_minute_on() {
        let (history, counts) = (History::default(), RequestCounts::new());
        history.add(Sample::of(&counts));
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(history.months(&Billed::of(&counts)), None);
        counts.count(Operation::PutObject);
        tokio::time::advance(Duration::from_secs(1)).await;
        let (billed, times) = history.months(&Billed::of(&counts)).expect("a minute");
        assert_eq!(billed.writes, 1);
        assert!((times - MONTH_SECONDS / 60.0).abs() < 1.0);
    }
}
