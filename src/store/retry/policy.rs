//! How long to wait before the next attempt, and when to give up. No clock and no randomness of its own.

use std::time::Duration;

use crate::store::{ErrorKind, StoreError};

/// A wrong checksum that comes back this often isn't a bad cable.
const MAX_CORRUPT: u32 = 3;

/// Once would do, but for requests that are signed while the clock is being set.
const SKEWED_RETRIES: u32 = 2;

/// When to repeat what failed. Durations are per operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Before the second attempt, doubling from there.
    pub first_backoff: Duration,
    /// The same after the store asked to slow down.
    pub first_throttled_backoff: Duration,
    pub max_backoff: Duration,
    /// No attempt begins later than this after the first one; a body, after its last byte.
    pub max_elapsed: Duration,
    /// How often a 403 is repeated: R2 also says so when it means "slow down".
    pub denied_retries: u32,
}

impl Default for RetryPolicy {
    /// 100 ms to 10 s, for a minute: what a program waits for a file at the most.
    fn default() -> Self {
        Self {
            first_backoff: Duration::from_millis(100),
            first_throttled_backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(10),
            max_elapsed: Duration::from_secs(60),
            denied_retries: 0,
        }
    }
}

impl RetryPolicy {
    /// R2 takes one write a second a key, and answers bursts with 403.
    pub fn r2() -> Self {
        Self { first_throttled_backoff: Duration::from_secs(1), denied_retries: 3, ..Self::default() }
    }

    pub fn with_max_elapsed(mut self, max_elapsed: Duration) -> Self {
        self.max_elapsed = max_elapsed;
        self
    }

    /// The wait after `error`, the `failures`th failure (from 1) and the `alike`th of its kind, after `elapsed`;
    /// None to give up. `chance`, from 0 to 1, spreads clients that failed together over half the wait.
    pub(super) fn wait(&self, error: &StoreError, failures: u32, alike: u32, elapsed: Duration, chance: f64) -> Option<Duration> {
        let repeat = match error.kind {
            ErrorKind::Denied => alike <= self.denied_retries,
            // The refusal tells the store's time, and the next request is signed with that.
            ErrorKind::ClockSkew => alike <= SKEWED_RETRIES,
            ErrorKind::Corrupt => alike < MAX_CORRUPT,
            kind => kind.is_transient(),
        };
        if !repeat {
            return None;
        }
        let slow = matches!(error.kind, ErrorKind::Throttled | ErrorKind::Denied);
        let first = if slow { self.first_throttled_backoff } else { self.first_backoff };
        let doubled = first.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1)));
        let jittered = doubled.min(self.max_backoff).mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
        let wait = jittered.max(error.retry_after.unwrap_or_default());
        (elapsed.saturating_add(wait) < self.max_elapsed).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        first_backoff: Duration::from_millis(100),
        first_throttled_backoff: Duration::from_millis(400),
        max_backoff: Duration::from_secs(1),
        max_elapsed: Duration::from_secs(10),
        denied_retries: 1,
    };

    fn error(kind: ErrorKind) -> StoreError {
        StoreError::new(kind, "GetObject", "k", "m")
    }

    #[test]
    fn waits_double_up_to_the_cap_and_end_with_the_deadline() {
        let cases = [
            (ErrorKind::Unavailable, 1, 0, 1.0, Some(100)),
            (ErrorKind::Unavailable, 1, 0, 0.0, Some(50)),
            (ErrorKind::Timeout, 3, 0, 1.0, Some(400)),
            (ErrorKind::Unreachable, 60, 0, 1.0, Some(1000)),
            (ErrorKind::Unreachable, 60, 9_500, 1.0, None),
            (ErrorKind::Throttled, 1, 0, 1.0, Some(400)),
            (ErrorKind::Denied, 1, 0, 1.0, Some(400)),
            (ErrorKind::Denied, 2, 0, 1.0, None),
            (ErrorKind::Corrupt, 2, 0, 1.0, Some(200)),
            (ErrorKind::Corrupt, 3, 0, 1.0, None),
            (ErrorKind::ClockSkew, 1, 0, 1.0, Some(100)),
            (ErrorKind::ClockSkew, 3, 0, 1.0, None),
            (ErrorKind::NotFound, 1, 0, 1.0, None),
            (ErrorKind::PreconditionFailed, 1, 0, 1.0, None),
        ];
        for (kind, failures, elapsed, chance, expected) in cases {
            let wait = POLICY.wait(&error(kind), failures, failures, Duration::from_millis(elapsed), chance);
            assert_eq!(wait, expected.map(Duration::from_millis), "{kind:?} {failures} {elapsed}");
        }
    }

    #[test]
    fn the_stores_own_wish_is_honoured() {
        let asked = |seconds| StoreError { retry_after: Some(Duration::from_secs(seconds)), ..error(ErrorKind::Throttled) };
        assert_eq!(POLICY.wait(&asked(3), 1, 1, Duration::ZERO, 1.0), Some(Duration::from_secs(3)));
        assert_eq!(POLICY.wait(&asked(30), 1, 1, Duration::ZERO, 1.0), None);
    }
}
