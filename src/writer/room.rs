//! Keeps the number of waiting keys near what may be in memory: who brings in files faster than they go up goes on at the pace
//! of the uploads from there on, one file for each that lands.
//!
//! A wait, not an error, and only while it leads to something: where nothing lands, as in an outage or where the bucket takes
//! nothing, what is saved is kept all the same.

use std::time::Duration;

use tokio::time::timeout;

use super::Writer;

/// Longest wait of one who saves.
const LONGEST: Duration = Duration::from_secs(5);

impl Writer {
    /// Ends when there is room for one more waiting key, or one has landed for each who waits for that.
    pub async fn room(&self) {
        let mut progress = self.shared.progress.subscribe();
        let landed = *progress.borrow_and_update();
        let Some(turn) = self.turn(landed) else { return };
        let room = async { while self.is_full() && *progress.borrow_and_update() < turn && progress.changed().await.is_ok() {} };
        let _ = timeout(LONGEST, room).await;
    }

    /// The landing that the caller waits for; None: there is room.
    fn turn(&self, landed: u64) -> Option<u64> {
        if !self.is_full() {
            return None;
        }
        let mut queue = self.shared.queue.lock();
        queue.turns = queue.turns.max(landed) + 1;
        Some(queue.turns)
    }

    fn is_full(&self) -> bool {
        let queue = self.shared.queue.lock();
        queue.entries().len() > self.shared.config.waiting_limit && queue.outage.next_probe().is_none()
    }
}
