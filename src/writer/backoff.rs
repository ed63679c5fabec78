//! What an error means for the entry that met it, and how long it waits. The only randomness of the writer is here.

use std::time::Duration;

use crate::error::Error;
use crate::simulation;
use crate::store::{ErrorKind, StoreError};

/// First wait after a transient failure (the store has already retried for a moment by then) …
const FIRST: Duration = Duration::from_millis(500);
/// … doubled up to this: an outage of an hour costs sixty requests, and ends at most a minute late.
const LONGEST: Duration = Duration::from_secs(60);
/// Rights and credentials are mended by people, who expect the mount to notice by itself. At first soon, since a 403 may
/// also be R2's "slow down", then seldom.
const SOON: Duration = Duration::from_secs(10);
const SLOW: Duration = Duration::from_secs(300);
/// Credentials are replaced while we look, and R2's new tokens take up to a minute: so many tries before it is an error.
const CREDENTIAL_TRIES: u32 = 6;
/// Errors of unknown meaning get so many tries.
const UNKNOWN_TRIES: u32 = 8;

/// What to do with an entry after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Transient: again after the backoff.
    Retry,
    /// Failed, and tried again now and then.
    FailSlowly(Duration),
    /// Failed until the key changes or somebody asks.
    Fail,
}

/// `attempts`: failures so far, this one included.
pub fn next(error: &Error, attempts: u32) -> Next {
    match error {
        Error::Store(error) => next_for(error.kind, attempts),
        Error::NoSpace | Error::Timeout | Error::Journal(_) => Next::Retry,
        Error::Disk(_) if attempts < UNKNOWN_TRIES => Next::Retry,
        Error::Disk(_) => Next::FailSlowly(SLOW),
        _ => Next::Fail,
    }
}

fn next_for(kind: ErrorKind, attempts: u32) -> Next {
    use ErrorKind::*;
    match kind {
        // An upload or a source that vanished is looked up afresh by the next attempt; an answer that isn't S3 is a
        // captive portal or a broken proxy, since this bucket was reached when it was mounted.
        Throttled | Unavailable | Unreachable | Timeout | Truncated | Corrupt | NoSuchUpload | NotS3 => Next::Retry,
        NotFound | PreconditionFailed | InvalidRange | Other if attempts < UNKNOWN_TRIES => Next::Retry,
        Credentials | ClockSkew if attempts < CREDENTIAL_TRIES => Next::Retry,
        NotFound | PreconditionFailed | InvalidRange | Other | Credentials | ClockSkew | Denied | NoSuchBucket | WrongRegion => {
            Next::FailSlowly(slowly(attempts))
        }
        TooLarge | InvalidName | Unsupported | Archived => Next::Fail,
    }
}

fn slowly(attempts: u32) -> Duration {
    SOON.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(SLOW)
}

/// True where the bucket itself doesn't answer, as opposed to refusing one request.
pub fn is_outage(error: &Error) -> bool {
    use ErrorKind::*;
    matches!(error, Error::Store(error) if matches!(error.kind, Unavailable | Unreachable | Timeout | NotS3))
}

/// The request may have taken effect although it failed.
pub fn may_have_worked(error: &Error) -> bool {
    matches!(error, Error::Store(error) if attempt_may_have_worked(error))
}

pub fn attempt_may_have_worked(error: &StoreError) -> bool {
    use ErrorKind::*;
    error.outcome_unknown || matches!(error.kind, Timeout | Unreachable | Truncated | Unavailable | Corrupt)
}

/// The longest wait after so many failures in a row.
fn ceiling(attempts: u32) -> Duration {
    FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(LONGEST)
}

/// Between half of the ceiling and all of it, so that what failed together doesn't come back together.
pub fn delay(attempts: u32) -> Duration {
    ceiling(attempts).mul_f64(0.5 + simulation::chance() / 2.0)
}

/// An error for one more listener: errors of the disk aren't `Clone`.
pub fn copy(error: &Error) -> Error {
    match error {
        Error::NotFound => Error::NotFound,
        Error::Exists => Error::Exists,
        Error::NotDirectory => Error::NotDirectory,
        Error::IsDirectory => Error::IsDirectory,
        Error::NotEmpty => Error::NotEmpty,
        Error::NameTooLong => Error::NameTooLong,
        Error::NotUtf8 => Error::NotUtf8,
        Error::Invalid => Error::Invalid,
        Error::NotPermitted => Error::NotPermitted,
        Error::Denied => Error::Denied,
        Error::Stale => Error::Stale,
        Error::TooLarge => Error::TooLarge,
        Error::NoSpace => Error::NoSpace,
        Error::ReadOnly => Error::ReadOnly,
        Error::Unsupported => Error::Unsupported,
        Error::NoAttribute => Error::NoAttribute,
        Error::TooManyAttributes => Error::TooManyAttributes,
        Error::BadHandle => Error::BadHandle,
        Error::NoSuchOffset => Error::NoSuchOffset,
        Error::Timeout => Error::Timeout,
        Error::Loop => Error::Loop,
        Error::Corrupt(text) => Error::Corrupt(text.clone()),
        Error::Damaged(span) => Error::Damaged(span.clone()),
        Error::Store(error) => Error::Store(error.clone()),
        Error::Disk(error) => Error::Disk(match error.raw_os_error() {
            Some(code) => std::io::Error::from_raw_os_error(code),
            None => std::io::Error::new(error.kind(), error.to_string()),
        }),
        Error::Journal(text) => Error::Journal(text.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(kind: ErrorKind) -> Error {
        Error::Store(StoreError::new(kind, "PutObject", "a", "x"))
    }

    #[test]
    fn transient_errors_are_retried_for_ever_and_final_ones_are_not() {
        for kind in [ErrorKind::Throttled, ErrorKind::Unreachable, ErrorKind::Timeout, ErrorKind::Corrupt] {
            assert_eq!(next(&store(kind), 1_000_000), Next::Retry, "{kind:?}");
        }
        assert_eq!(next(&store(ErrorKind::Denied), 1), Next::FailSlowly(SOON));
        assert_eq!(next(&store(ErrorKind::Denied), 100), Next::FailSlowly(SLOW));
        assert_eq!(next(&store(ErrorKind::TooLarge), 1), Next::Fail);
        assert_eq!(next(&Error::Stale, 1), Next::Fail);
        assert_eq!(next(&store(ErrorKind::Credentials), 1), Next::Retry);
        assert_eq!(next(&store(ErrorKind::Credentials), CREDENTIAL_TRIES), Next::FailSlowly(SLOW));
        assert_eq!(next(&store(ErrorKind::Other), UNKNOWN_TRIES), Next::FailSlowly(SLOW));
    }

    #[test]
    fn the_wait_doubles_to_a_minute_and_is_spread() {
        for (attempts, longest) in [(1, 500), (2, 1_000), (7, 32_000), (8, 60_000), (5_000, 60_000)] {
            assert_eq!(ceiling(attempts), Duration::from_millis(longest), "{attempts}");
            let wait = delay(attempts);
            assert!(wait <= ceiling(attempts) && wait >= ceiling(attempts) / 2);
        }
    }
}
