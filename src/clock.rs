//! Wall-clock time, read in this one place. Intervals use tokio's clock, which tests can turn by hand.

use std::time::SystemTime;

use crate::simulation;

/// The time of day; a simulated world's in one.
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn now() -> SystemTime {
    simulation::now().unwrap_or_else(SystemTime::now)
}
