//! At most one write a second to one key, where the store wants it: always on R2, elsewhere for keys that were throttled.
//!
//! Pure: the caller brings the time. What it remembers is bounded: the writes of the last second, and the keys that
//! were throttled lately.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::types::Key;

/// R2's limit for one key.
const INTERVAL: Duration = Duration::from_secs(1);
/// Above so many remembered writes, those that no longer matter are thrown out.
const SWEEP: usize = 1_024;

#[derive(Debug, Default)]
pub struct Pace {
    /// R2: every key.
    everywhere: bool,
    /// Keys that the store has throttled.
    learned: HashSet<Key>,
    last: HashMap<Key, Instant>,
    sweep_at: usize,
}

impl Pace {
    pub fn new(everywhere: bool) -> Self {
        Self { everywhere, sweep_at: SWEEP, ..Self::default() }
    }

    /// When `key` may be written again, if that is still to come.
    pub fn not_before(&self, key: &Key, now: Instant) -> Option<Instant> {
        self.last.get(key).map(|last| *last + INTERVAL).filter(|at| *at > now)
    }

    /// `key` was written, and the answer is in.
    pub fn wrote(&mut self, key: &Key, now: Instant) {
        if self.everywhere || self.learned.contains(key) {
            self.remember(key, now);
        }
    }

    /// The store said that writes to `key` come too fast.
    pub fn throttled(&mut self, key: &Key, now: Instant) {
        if self.learned.len() >= SWEEP {
            self.learned.clear();
        }
        self.learned.insert(key.clone());
        self.remember(key, now);
    }

    fn remember(&mut self, key: &Key, now: Instant) {
        if self.last.len() >= self.sweep_at {
            self.last.retain(|_, last| *last + INTERVAL > now);
            self.sweep_at = (self.last.len() * 2).max(SWEEP);
        }
        self.last.insert(key.clone(), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_write_a_second_where_it_is_wanted() {
        let (a, b) = (Key::from("a"), Key::from("b"));
        let start = Instant::now();
        let mut r2 = Pace::new(true);
        r2.wrote(&a, start);
        assert_eq!(r2.not_before(&a, start), Some(start + INTERVAL));
        assert_eq!(r2.not_before(&b, start), None);
        assert_eq!(r2.not_before(&a, start + INTERVAL), None);

        let mut s3 = Pace::new(false);
        s3.wrote(&a, start);
        assert_eq!(s3.not_before(&a, start), None);
        s3.throttled(&a, start);
        assert_eq!(s3.not_before(&a, start), Some(start + INTERVAL));
        s3.wrote(&a, start + INTERVAL);
        assert_eq!(s3.not_before(&a, start + INTERVAL), Some(start + INTERVAL * 2));
    }

    #[tokio::test(start_paused = true)]
    async fn old_writes_are_forgotten() {
        let mut pace = Pace::new(true);
        let start = Instant::now();
        for index in 0..10 * SWEEP {
            pace.wrote(&Key::new(format!("{index}")), start + INTERVAL * index as u32 / 100);
        }
        assert!(pace.last.len() <= 2 * SWEEP);
    }
}
