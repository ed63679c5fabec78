//! Wall-clock time, read in this one place. Intervals use tokio's clock, which tests can turn by hand.

use std::time::{Duration, SystemTime};

use crate::simulation;

/// The time of day; a simulated world's in one.
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn now() -> SystemTime {
    simulation::now().unwrap_or_else(SystemTime::now)
}

/// How long before its answer came the store may have dated a version of ours. Of what took longer the bucket is asked.
const DATED_BEFORE: Duration = Duration::from_secs(5);

/// How much later that may be by the store's clock, which is known to a second. Another host that changes the headers under
/// an ETag that stays has listed the version first, and where it is as fast as this, the change is not seen.
const DATED_AFTER: Duration = Duration::from_secs(2);

/// Whether a version that the store has dated `listed` can be the one that went up from here, and was answered for at `ours`
/// by its clock. An upload's answer doesn't say how it was dated.
pub fn can_be_ours(ours: SystemTime, listed: SystemTime) -> bool {
    match ours.duration_since(listed) {
        Ok(before) => before <= DATED_BEFORE,
        Err(after) => after.duration() <= DATED_AFTER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_of_ours_is_dated_shortly_before_its_answer() {
        let ours = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let table = [(994_999, false), (995_000, true), (1_000_000, true), (1_002_000, true), (1_002_001, false)];
        for (listed_ms, expected) in table {
            assert_eq!(can_be_ours(ours, SystemTime::UNIX_EPOCH + Duration::from_millis(listed_ms)), expected, "{listed_ms}");
        }
    }
}
