//! Waiting for the bucket: one key, a directory, everything. Dropping a wait loses nothing but the wait.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::Shared;
use super::backoff;
use super::entry::Waiter;
use super::queue::Queue;
use super::source;
use crate::error::{Error, Result};
use crate::types::Key;

type Answer = oneshot::Receiver<Result<()>>;

impl Shared {
    pub async fn sync(&self, key: &Key) -> Result<()> {
        let answer = self.wait_for(&mut self.queue.lock(), key);
        self.wake.notify_one();
        if let Some(answer) = answer {
            hear(answer).await?;
        }
        self.remember().await
    }

    /// What was promised to be in the bucket is not sent again from an older state after a power cut.
    async fn remember(&self) -> Result<()> {
        let journal = self.journal.clone();
        source::blocking(move || journal.flush()).await
    }

    pub async fn sync_below(&self, directory: &Key) -> Result<()> {
        let answers: Vec<Answer> = {
            let mut queue = self.queue.lock();
            let keys: Vec<Key> = queue.below(directory).map(|(key, _)| key.clone()).collect();
            keys.iter().filter_map(|key| self.wait_for(&mut queue, key)).collect()
        };
        self.wake.notify_one();
        let mut first = Ok(());
        for answer in answers {
            first = first.and(hear(answer).await);
        }
        first.and(self.remember().await)
    }

    /// Makes `key` urgent. None: the bucket has what is wanted.
    fn wait_for(&self, queue: &mut Queue, key: &Key) -> Option<Answer> {
        let now = Instant::now();
        let from_flight = queue.next_flight();
        let entry = queue.get_mut(key)?;
        let (tell, answer) = oneshot::channel();
        entry.waiters.retain(|waiter| !waiter.tell.is_closed());
        entry.waiters.push(Waiter { from_flight, tell });
        hurry(queue, key, now);
        queue.outage.probe_now(now);
        Some(answer)
    }

    pub fn take_error(&self, key: &Key) -> Option<Error> {
        let mut queue = self.queue.lock();
        if let Some(failed) = queue.get_mut(key).and_then(|entry| entry.failed.as_mut()).filter(|failed| !failed.told) {
            failed.told = true;
            return Some(backoff::copy(&failed.error));
        }
        queue.take_error(key)
    }

    pub async fn drain(&self, timeout: Duration) -> usize {
        let until = Instant::now() + timeout;
        let _draining = Draining::new(self);
        let mut progress = self.progress.subscribe();
        loop {
            progress.borrow_and_update();
            let (left, hopeful) = self.left();
            if !hopeful || timeout_at(until, progress.changed()).await.is_err() {
                return left.min(self.left().0);
            }
        }
    }

    /// How many keys wait, and whether waiting for them makes sense.
    fn left(&self) -> (usize, bool) {
        let queue = self.queue.lock();
        let now = Instant::now();
        let stopped = |at: Option<Instant>| at.is_none_or(|at| at > now);
        let hopeful = queue.entries().values().any(|entry| entry.failed.as_ref().is_none_or(|failed| !stopped(failed.retry_at)));
        (queue.entries().len(), hopeful || queue.in_flight() > 0 || !queue.aborts.is_empty())
    }
}

async fn hear(answer: Answer) -> Result<()> {
    // The writer is gone: the journal has it, and the next mount sends it.
    answer.await.unwrap_or(Err(Error::Timeout))
}

/// Has `key` looked at now; an entry that failed gets one more try.
pub fn hurry(queue: &mut Queue, key: &Key, now: Instant) {
    let Some(entry) = queue.get_mut(key) else { return };
    entry.urgent = true;
    entry.not_before = None;
    if let Some(failed) = &mut entry.failed {
        failed.retry_at = Some(now);
    }
    if queue.gathering.contains(key) {
        queue.gathering.hurry();
        return;
    }
    queue.schedule_at(key, now);
}

/// While one lives, everything is urgent.
struct Draining<'a>(&'a Shared);

impl<'a> Draining<'a> {
    fn new(shared: &'a Shared) -> Self {
        let now = Instant::now();
        let mut queue = shared.queue.lock();
        queue.draining += 1;
        let keys: Vec<Key> = queue.entries().keys().cloned().collect();
        for key in &keys {
            let Some(entry) = queue.get_mut(key) else { continue };
            entry.not_before = None;
            if let Some(failed) = &mut entry.failed {
                failed.retry_at = Some(now);
            }
            if !queue.gathering.contains(key) {
                queue.schedule_at(key, now);
            }
        }
        queue.outage.probe_now(now);
        drop(queue);
        shared.wake.notify_one();
        Self(shared)
    }
}

impl Drop for Draining<'_> {
    fn drop(&mut self) {
        self.0.queue.lock().draining -= 1;
    }
}
