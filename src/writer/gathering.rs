//! Deletes that are due and wait for others, so that a thousand go in one request.
//!
//! Pure: the caller brings the time.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::delete::BATCH;
use crate::types::Key;

/// While copies are under way (a renamed directory), deletes wait so many times longer for those that follow.
const COPIES_PATIENCE: u32 = 10;

#[derive(Debug, Default)]
pub struct Gathering {
    keys: BTreeSet<Key>,
    /// When the first of them came.
    since: Option<Instant>,
    /// Somebody waits for one of them.
    hurry: bool,
}

impl Gathering {
    pub fn insert(&mut self, key: Key, urgent: bool, now: Instant) {
        self.since.get_or_insert(now);
        self.hurry |= urgent;
        self.keys.insert(key);
    }

    pub fn remove(&mut self, key: &Key) {
        self.keys.remove(key);
        self.reset_if_empty();
    }

    pub fn contains(&self, key: &Key) -> bool {
        self.keys.contains(key)
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Don't wait for others.
    pub fn hurry(&mut self) {
        self.hurry = !self.keys.is_empty();
    }

    /// When the batch goes: when no more are `to_come`, or the oldest has waited as long as any change may, or longer while
    /// `copying`. None: there is nothing.
    pub fn due(&self, to_come: usize, copying: bool, limit: Duration, now: Instant) -> Option<Instant> {
        let since = self.since?;
        if self.hurry || to_come == 0 || self.keys.len() >= BATCH {
            return Some(now);
        }
        Some(since + if copying { limit * COPIES_PATIENCE } else { limit })
    }

    /// The next batch, in order of keys.
    pub fn take(&mut self) -> Vec<Key> {
        let mut keys = Vec::with_capacity(self.keys.len().min(BATCH));
        while keys.len() < BATCH {
            let Some(key) = self.keys.pop_first() else { break };
            keys.push(key);
        }
        self.reset_if_empty();
        keys
    }

    fn reset_if_empty(&mut self) {
        if self.keys.is_empty() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_batch_waits_for_others_but_not_for_ever() {
        let (now, limit) = (Instant::now(), Duration::from_secs(1));
        let mut gathering = Gathering::default();
        assert_eq!(gathering.due(0, false, limit, now), None);
        gathering.insert("a".into(), false, now);
        assert_eq!(gathering.due(0, false, limit, now), Some(now));
        assert_eq!(gathering.due(5, false, limit, now), Some(now + limit));
        assert_eq!(gathering.due(5, true, limit, now), Some(now + limit * COPIES_PATIENCE));
        gathering.insert("b".into(), true, now);
        assert_eq!(gathering.due(5, true, limit, now), Some(now), "somebody waits");
        assert_eq!(gathering.take(), ["a", "b"].map(Key::from));
        assert_eq!(gathering.due(0, false, limit, now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_batch_goes_and_the_rest_waits() {
        let (now, limit) = (Instant::now(), Duration::from_secs(1));
        let mut gathering = Gathering::default();
        for index in 0..=BATCH {
            gathering.insert(Key::new(format!("{index}")), false, now);
        }
        assert_eq!(gathering.due(5, false, limit, now), Some(now));
        assert_eq!(gathering.take().len(), BATCH);
        assert_eq!((gathering.len(), gathering.due(5, false, limit, now)), (1, Some(now + limit)));
    }
}
