//! Wall-clock time, read in this one place. Intervals use tokio's clock, which tests can turn by hand.

use std::time::SystemTime;

/// The time of day.
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn now() -> SystemTime {
    SystemTime::now()
}
