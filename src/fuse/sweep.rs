//! Recognises who removes one name after the other, as `rm -r` does. Pure: the caller brings the time.
//!
//! Before each UNLINK the kernel looks the name up, and a LOOKUP is answered with attributes: for a file that was only
//! listed that is a HEAD, which nobody who removes it needs. A LOOKUP doesn't say what it is for. But when a thread has
//! twice in a row looked up such a name and then removed just that one, its next look-up most likely is for the same.
//!
//! What it gets then is no false answer but one to be believed for no time: whoever wants attributes asks for them with
//! GETATTR. What the kernel decides without that is left to strictness: the pattern is one thread's own, ends with the first
//! look-up that no removal follows, and lasts no longer than a second.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use crate::fs::Ino;

/// Pairs in a row that make a habit.
const PAIRS: u32 = 2;
/// A thread that was busy with something else for so long has begun anew.
const PAUSE: Duration = Duration::from_secs(1);
/// Threads remembered; more than these don't remove at once.
const THREADS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

#[derive(Debug)]
struct Habit {
    pairs: u32,
    /// Looked up last, and not removed yet.
    looked_up: Option<(Ino, Arc<str>)>,
    at: Instant,
}

#[derive(Debug)]
pub struct Sweeps {
    threads: LruCache<u32, Habit>,
}

impl Default for Sweeps {
    fn default() -> Self {
        Self { threads: LruCache::new(THREADS) }
    }
}

impl Sweeps {
    /// A thread looks up a name of which only the listing is known. True: it is about to remove it.
    pub fn looks_up(&mut self, thread: u32, parent: Ino, name: &str, now: Instant) -> bool {
        let habit = self.threads.get_or_insert_mut(thread, || Habit { pairs: 0, looked_up: None, at: now });
        if habit.looked_up.is_some() || now.duration_since(habit.at) > PAUSE {
            habit.pairs = 0;
        }
        habit.looked_up = Some((parent, name.into()));
        habit.at = now;
        habit.pairs >= PAIRS
    }

    pub fn removes(&mut self, thread: u32, parent: Ino, name: &str, now: Instant) {
        let Some(habit) = self.threads.get_mut(&thread) else { return };
        let is_that = habit.looked_up.take().is_some_and(|(of, looked_up)| of == parent && *looked_up == *name);
        habit.pairs = if is_that { habit.pairs.saturating_add(1) } else { 0 };
        habit.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn two_pairs_make_a_habit_that_one_look_up_ends() {
        let (mut sweeps, now) = (Sweeps::default(), Instant::now());
        for (name, expected) in [("a", false), ("b", false), ("c", true), ("d", true)] {
            assert_eq!(sweeps.looks_up(7, 1, name, now), expected, "{name}");
            assert!(!sweeps.looks_up(8, 1, name, now), "another thread's habit");
            sweeps.removes(7, 1, name, now);
        }
        assert!(sweeps.looks_up(7, 2, "e", now), "the next directory");
        assert!(!sweeps.looks_up(7, 2, "f", now), "e was not removed");
        sweeps.removes(7, 2, "e", now);
        assert!(!sweeps.looks_up(7, 2, "g", now), "f was looked up last");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_ends_it() {
        let (mut sweeps, start) = (Sweeps::default(), Instant::now());
        for name in ["a", "b"] {
            sweeps.looks_up(7, 1, name, start);
            sweeps.removes(7, 1, name, start);
        }
        assert!(!sweeps.looks_up(7, 1, "c", start + PAUSE * 2));
    }
}
