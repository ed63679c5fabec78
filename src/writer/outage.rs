//! Whether the bucket answers at all. While it doesn't, one request at a time asks again, instead of every dirty key.
//!
//! Pure: the caller brings the time and the wait.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::types::Key;

/// So many failures in a row, with no success of any key between them, and the rest of the queue waits for a probe. Fewer
/// may be one unlucky key.
const STRIKES: u32 = 3;
/// From here on `status` says so: the store's own retries have already covered a short break.
const SHOWN: u32 = 2;
/// Longest time between probes: a failed one costs nothing, and people wait for the end of an outage.
const PROBE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub struct Outage {
    strikes: u32,
    since: Option<SystemTime>,
    why: String,
    next_probe: Option<Instant>,
    /// Whom it hit, to be sent at once when it is over.
    victims: BTreeSet<Key>,
}

impl Outage {
    /// `wait` gives the time to the next probe after so many failures in a row.
    pub fn failure(&mut self, key: &Key, why: String, at: SystemTime, now: Instant, wait: impl FnOnce(u32) -> Duration) {
        self.strikes = self.strikes.saturating_add(1);
        self.since.get_or_insert(at);
        self.why = why;
        if self.strikes >= STRIKES {
            self.next_probe = Some(now + wait(self.strikes).min(PROBE));
        }
        self.victims.insert(key.clone());
    }

    /// The bucket answered. Returns whom to send at once.
    pub fn over(&mut self) -> BTreeSet<Key> {
        if self.strikes == 0 {
            return BTreeSet::new();
        }
        let ended = std::mem::take(self);
        if ended.strikes >= STRIKES { ended.victims } else { BTreeSet::new() }
    }

    /// Somebody waits for the bucket: ask it now.
    pub fn probe_now(&mut self, now: Instant) {
        if let Some(at) = &mut self.next_probe {
            *at = (*at).min(now);
        }
    }

    /// When the next request may be sent; None: nothing is wrong.
    pub fn next_probe(&self) -> Option<Instant> {
        self.next_probe
    }

    /// Since when the bucket hasn't answered, and why.
    pub fn shown(&self) -> Option<(SystemTime, String)> {
        self.since.filter(|_| self.strikes >= SHOWN).map(|since| (since, self.why.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_queue_stops_after_three_failures_and_goes_on_after_one_success() {
        let (now, at) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let mut outage = Outage::default();
        let fail = |outage: &mut Outage, key: &str| outage.failure(&Key::from(key), "refused".into(), at, now, |_| Duration::from_secs(60));
        fail(&mut outage, "a");
        assert_eq!((outage.shown(), outage.next_probe()), (None, None));
        fail(&mut outage, "b");
        assert_eq!(outage.shown(), Some((at, "refused".into())));
        fail(&mut outage, "c");
        assert_eq!(outage.next_probe(), Some(now + PROBE));
        outage.probe_now(now);
        assert_eq!(outage.next_probe(), Some(now));
        assert_eq!(outage.over(), BTreeSet::from(["a", "b", "c"].map(Key::from)));
        assert_eq!((outage.shown(), outage.next_probe()), (None, None));
        fail(&mut outage, "a");
        assert!(outage.over().is_empty(), "one unlucky key keeps its own backoff");
    }
}
