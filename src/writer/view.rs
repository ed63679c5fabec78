//! Questions about what waits, for the file system's look-ups; and the end without a drain.

use super::Writer;
use crate::journal::Content;
use crate::types::Key;

impl Writer {
    /// Something is wanted at or below `directory` (a marker key): it exists, whatever the bucket has.
    pub fn wants_below(&self, directory: &Key) -> bool {
        self.shared.queue.lock().below(directory).any(|(_, entry)| entry.desired.content != Content::Absent)
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

    /// Stops where it is, as a crash would: the journal has what the bucket doesn't.
    pub fn stop(&self) {
        if let Some(task) = self.loop_task.lock().take() {
            task.abort();
        }
    }
}
