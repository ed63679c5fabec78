//! Questions about what waits, for the file system's look-ups; and the end without a drain.

use std::collections::HashSet;

use tokio::time::Instant;

use super::Writer;
use crate::journal::Content;
use crate::types::Key;

impl Writer {
    /// Something is wanted at or below `directory` (a marker key): it exists, whatever the bucket has.
    pub fn wants_below(&self, directory: &Key) -> bool {
        self.shared.queue.lock().below(directory).any(|(_, entry)| entry.desired.content != Content::Absent)
    }

    /// Something waits at or below `directory` (a marker key), be it a removal.
    pub fn has_below(&self, directory: &Key) -> bool {
        self.shared.queue.lock().below(directory).next().is_some()
    }

    /// Keys below `directory` (its own marker included) that are wanted gone. Taken before the bucket is asked, it says of
    /// what the bucket shows what may have gone meanwhile.
    pub fn going_below(&self, directory: &Key) -> HashSet<Key> {
        let queue = self.shared.queue.lock();
        queue.below(directory).filter(|(_, entry)| entry.is_absent()).map(|(key, _)| key.clone()).collect()
    }

    /// `clean`, `dirty`, `uploading` or `failed`.
    pub fn state(&self, key: &Key) -> &'static str {
        let queue = self.shared.queue.lock();
        match queue.get(key) {
            None => "clean",
            Some(entry) if entry.failed.is_some() => "failed",
            Some(_) if queue.flight(key).is_some() => "uploading",
            Some(_) => "dirty",
        }
    }

    /// The bucket was heard of by somebody else: what waits for a probe is sent now.
    pub fn hurry(&self) {
        self.shared.queue.lock().outage.probe_now(Instant::now());
        self.shared.wake.notify_one();
    }

    /// Stops where it is, as a crash would: the journal has what the bucket doesn't.
    pub fn stop(&self) {
        if let Some(task) = self.loop_task.lock().take() {
            task.abort();
        }
    }
}
