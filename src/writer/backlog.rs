//! What waits, for `status`.

use super::{Backlog, Failed, Shared};
use crate::clock;

impl Shared {
    pub fn backlog(&self) -> Backlog {
        let queue = self.queue.lock();
        let mut backlog = Backlog {
            uploading: queue.in_flight() as u64,
            conflicts: queue.conflicts,
            // With nothing to send nobody asks, so nothing is known of it here.
            degraded: queue.outage.shown().filter(|_| !queue.entries().is_empty()),
            ..Backlog::default()
        };
        let mut oldest = None;
        for (key, entry) in queue.entries() {
            backlog.dirty_files += 1;
            backlog.dirty_bytes += entry.dirty_bytes();
            oldest = Some(oldest.map_or(entry.desired.since, |oldest| entry.desired.since.min(oldest)));
            if let Some(failure) = &entry.failed {
                backlog.failed.push(Failed { path: key.to_string(), error: failure.error.to_string(), since: failure.since });
            }
        }
        backlog.oldest_seconds = oldest.map(|oldest| clock::now().duration_since(oldest).unwrap_or_default().as_secs_f64());
        backlog
    }
}
