//! How long requests took, as a histogram: counts by upper bound, and the sum.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds in milliseconds: from a store in the same rack to one that hangs. What takes longer counts in a bucket of
/// its own behind them.
pub const BOUNDS_MS: [u64; 12] = [2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 10_000, 30_000];

/// Counted so far. Each bucket counts its own alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    pub counts: [u64; BOUNDS_MS.len() + 1],
    pub sum_micros: u64,
}

impl Times {
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(mine, theirs)| *mine += theirs);
        self.sum_micros += other.sum_micros;
    }

    /// What came since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = *self;
        since.counts.iter_mut().zip(earlier.counts).for_each(|(mine, theirs)| *mine = mine.saturating_sub(theirs));
        since.sum_micros = since.sum_micros.saturating_sub(earlier.sum_micros);
        since
    }

    /// In milliseconds: so large a part (0 to 1) took no longer, as far as the buckets tell. None: there were no requests.
    pub fn quantile_ms(&self, part: f64) -> Option<f64> {
        let total = self.total();
        if total == 0 {
            return None;
        }
        let wanted = part * total as f64;
        let (mut below, mut lower) = (0u64, 0u64);
        for (index, count) in self.counts.into_iter().enumerate() {
            let Some(&upper) = BOUNDS_MS.get(index) else { break };
            if count > 0 && (below + count) as f64 >= wanted {
                let within = (wanted - below as f64).max(0.0) / count as f64;
                return Some(lower as f64 + (upper - lower) as f64 * within);
            }
            (below, lower) = (below + count, upper);
        }
        // Beyond the last bound nothing is known but that.
        Some(lower as f64)
    }
}

/// The same, counted by many at once.
#[derive(Debug, Default)]
pub struct Timing {
    counts: [AtomicU64; BOUNDS_MS.len() + 1],
    sum_micros: AtomicU64,
}

impl Timing {
    pub fn count(&self, time: Duration) {
        let millis = time.as_micros().div_ceil(1_000);
        let bucket = BOUNDS_MS.iter().position(|&bound| millis <= u128::from(bound)).unwrap_or(BOUNDS_MS.len());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub fn times(&self) -> Times {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Times { counts: std::array::from_fn(|index| load(&self.counts[index])), sum_micros: load(&self.sum_micros) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_their_buckets() {
        let timing = Timing::default();
        for millis in [0, 2, 3, 30_000, 30_001] {
            timing.count(Duration::from_millis(millis));
        }
        let times = timing.times();
        assert_eq!((times.counts[0], times.counts[1], times.counts[11], times.counts[12]), (2, 1, 1, 1));
        assert_eq!((times.total(), times.sum_micros), (5, 60_006_000));
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let timing = Timing::default();
        assert_eq!(timing.times().quantile_ms(0.5), None);
        (0..90).for_each(|_| timing.count(Duration::from_millis(8)));
        let before = timing.times();
        (0..10).for_each(|_| timing.count(Duration::from_millis(400)));
        let all = timing.times();
        assert!(all.quantile_ms(0.5).is_some_and(|ms| (5.0..=10.0).contains(&ms)));
        assert!(all.quantile_ms(0.95).is_some_and(|ms| (250.0..=500.0).contains(&ms)));
        assert!(all.since(&before).quantile_ms(0.01).is_some_and(|ms| ms > 250.0));
        timing.count(Duration::from_secs(3600));
        assert_eq!(timing.times().quantile_ms(1.0), Some(30_000.0));
    }
}
