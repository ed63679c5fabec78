//! A program that saves one file after the other is let finish before its first ones go up: on a machine of few cores the
//! uploads would take the time from it, and gain nothing, since the last one is in the bucket no earlier for it. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::WriterConfig;

/// Changes that follow each other this closely are one burst; a server's ordinary uploads don't.
const GAP: Duration = Duration::from_millis(10);
/// So many of them are one.
const LEAST: u32 = 8;

#[derive(Clone, Copy, Debug, Default)]
pub struct Burst(Option<Run>);

#[derive(Clone, Copy, Debug)]
struct Run {
    since: Instant,
    last: Instant,
    count: u32,
}

impl Burst {
    /// A file was changed.
    pub fn note(&mut self, now: Instant) {
        self.0 = match self.0 {
            Some(run) if now < run.last + GAP => Some(Run { last: now, count: run.count.saturating_add(1), ..run }),
            _ => Some(Run { since: now, last: now, count: 1 }),
        };
    }

    /// Until then nothing is begun that nobody waits for; None: go on. What became dirty in the burst goes up within
    /// `settle_limit` all the same.
    pub fn holds_until(&self, config: &WriterConfig, now: Instant) -> Option<Instant> {
        let run = self.0.filter(|run| run.count >= LEAST)?;
        let until = (run.last + GAP).min(run.since + config.settle_limit.saturating_sub(2 * config.settle));
        (now < until).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Changes at these milliseconds; what is held at `now`, and until when.
    fn held(changes: impl IntoIterator<Item = u64>, now: u64) -> Option<u64> {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let mut burst = Burst::default();
        changes.into_iter().for_each(|ms| burst.note(at(ms)));
        let until = burst.holds_until(&WriterConfig::default(), at(now))?;
        Some((until - zero).as_millis() as u64)
    }

    #[test]
    fn a_burst_is_let_finish() {
        assert_eq!(held([], 0), None);
        assert_eq!(held(0..7, 6), None, "a handful is none");
        assert_eq!(held(0..8, 7), Some(17));
        assert_eq!(held(0..8, 17), None, "it is over");
        assert_eq!(held((0..8).map(|n| n * 10), 70), None, "these have nothing to do with each other");
        assert_eq!(held((0..8).map(|n| n * 9), 63), Some(73));
        assert_eq!(held((0..20).chain(40..44), 43), None, "another one begins");
    }

    #[test]
    fn nothing_is_late_for_it() {
        assert_eq!(held(0..795, 794), Some(800));
        assert_eq!(held(0..801, 800), None);
        assert_eq!(held(0..5_000, 4_999), None);
    }
}
