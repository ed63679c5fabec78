//! The log to the disk, and no more: what has to outlive a power cut now rather than at the next sync.
//!
//! Whoever is about to overwrite or delete something in the bucket flushes first: a journal that a power cut throws back
//! behind that would have it done again, over the only copy of what came after. Many wait for one fsync.

use std::sync::atomic::Ordering;

use super::Journal;
use crate::error::Result;

impl Journal {
    /// What was committed before the call outlives a power cut after it. Checkpoints nothing. Blocking pool only.
    pub fn flush(&self) -> Result<()> {
        self.flush_through(self.commits())
    }

    /// How many commits there were: what was applied before the call is among them.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Acquire)
    }

    /// The same for the first so many commits. Blocking pool only.
    pub fn flush_through(&self, wanted: u64) -> Result<()> {
        let mut flushed = self.flushed.lock();
        if (*flushed).max(self.synced.load(Ordering::Acquire)) >= wanted {
            return Ok(());
        }
        // For all that wait behind this one too.
        let reaches = self.commits.load(Ordering::Acquire);
        self.fsync_log()?;
        *flushed = reaches;
        Ok(())
    }
}
