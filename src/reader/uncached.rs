//! Reads past a cache that has no room: from the bucket into the reader's hands, with a little read-ahead in memory.
//!
//! Nothing is stored. What the data file does hold (locally changed bytes above all) wins over the bucket's. One handle
//! fetches one range at a time, so that the parallel reads of the kernel's read-ahead use one another's buffer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tracing::Instrument;

use super::failure::Failure;
use super::fetch::collect;
use super::plan::RANDOM_BYTES;
use super::spans::subtract;
use super::{ReadPattern, Shared};
use crate::cache::LocalFile;
use crate::error::Error;
use crate::types::{Span, Version};

/// The most that one handle keeps in memory: at 4 MiB the request costs little beside the bytes.
const BUFFER_LIMIT_BYTES: u64 = 4 * 1024 * 1024;

/// How often a read is put together anew when bytes come and go under it; twice is already rare.
const ATTEMPTS: usize = 8;

/// The bytes last fetched past the cache.
#[derive(Debug, Default)]
pub struct Buffer {
    version: Option<Version>,
    start: u64,
    bytes: Bytes,
    /// How much the last fetch was to take.
    ahead: u64,
    _memory: Option<Memory>,
}

/// A part of what all handles may keep in memory together; given back when dropped.
#[derive(Debug)]
struct Memory {
    taken: Arc<AtomicU64>,
    bytes: u64,
}

impl Memory {
    fn take(taken: &Arc<AtomicU64>, bytes: u64, limit_bytes: u64) -> Option<Self> {
        let more = |now: u64| now.checked_add(bytes).filter(|sum| *sum <= limit_bytes);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self { taken: Arc::clone(taken), bytes })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A handle's buffer, and the turn to use it: this lock is the asynchronous kind, made to be held while waiting.
pub type SharedBuffer = Arc<tokio::sync::Mutex<Buffer>>;

/// `range` of the file, within its size.
pub async fn read(shared: &Arc<Shared>, file: &Arc<LocalFile>, pattern: &Mutex<ReadPattern>, range: &Span) -> Result<Bytes, Error> {
    let buffer = Arc::clone(&pattern.lock().uncached);
    let mut buffer = buffer.lock().await;
    for _ in 0..ATTEMPTS {
        let mut bytes = BytesMut::zeroed((range.end - range.start) as usize);
        match assemble(shared, file, &mut buffer, range, &mut bytes).await {
            Ok(true) => return Ok(bytes.freeze()),
            Ok(false) | Err(Failure::Rebased) => {}
            Err(failure) => return Err(failure.into()),
        }
    }
    Err(Error::Stale)
}

/// False where the file changed meanwhile.
async fn assemble(
    shared: &Arc<Shared>,
    file: &Arc<LocalFile>,
    buffer: &mut Buffer,
    range: &Span,
    bytes: &mut [u8],
) -> Result<bool, Failure> {
    let missing = file.missing(range.clone());
    let within = |span: &Span| (span.start - range.start) as usize..(span.end - range.start) as usize;
    if !missing.is_empty() {
        let Some(base) = file.base() else { return Ok(false) };
        if missing.iter().any(|span| span.end > base.size) {
            return Ok(false);
        }
        for span in &missing {
            buffer.copy(shared, file, &base, span, &mut bytes[within(span)]).await?;
        }
    }
    for span in subtract(std::slice::from_ref(range), &missing) {
        match file.read_at(span.start, &mut bytes[within(&span)]).map_err(Failure::of_disk)? {
            Some(length) if length as u64 == span.end - span.start => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

impl Buffer {
    /// Copies `span` of `version` to `out`, of the same length.
    async fn copy(
        &mut self,
        shared: &Arc<Shared>,
        file: &Arc<LocalFile>,
        version: &Version,
        span: &Span,
        out: &mut [u8],
    ) -> Result<(), Failure> {
        let mut at = span.start;
        while at < span.end {
            if !self.holds(version, at) {
                self.fetch(shared, file, version, at..span.end).await?;
            }
            let from = &self.bytes[(at - self.start) as usize..];
            let to = &mut out[(at - span.start) as usize..];
            let length = from.len().min(to.len());
            to[..length].copy_from_slice(&from[..length]);
            at += length as u64;
        }
        Ok(())
    }

    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn holds(&self, version: &Version, at: u64) -> bool {
        self.version.as_ref() == Some(version) && (self.start..self.end()).contains(&at)
    }

    /// Fills the buffer from `want.start` on: twice as much as the last time while reads follow one another.
    async fn fetch(&mut self, shared: &Arc<Shared>, file: &Arc<LocalFile>, version: &Version, want: Span) -> Result<(), Failure> {
        let follows = self.version.as_ref() == Some(version) && want.start == self.end();
        let ahead = if follows { (self.ahead * 2).min(BUFFER_LIMIT_BYTES) } else { RANDOM_BYTES };
        // Given back first: the old bytes are spent.
        *self = Self { ahead, ..Self::default() };
        let memory = Memory::take(&shared.buffered, ahead, shared.memory_bytes);
        let wanted = want.end - want.start;
        let length = if memory.is_some() { wanted.max(ahead) } else { wanted }.min(BUFFER_LIMIT_BYTES);
        let span = want.start..(want.start + length).min(version.size);
        let task = collect(Arc::clone(shared), Arc::clone(file), version.clone(), span.clone());
        let bytes = shared.runtime.spawn(task.in_current_span()).await.unwrap_or(Err(Failure::Ended))?;
        *self = Self { version: Some(version.clone()), start: span.start, bytes, ahead, _memory: memory };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_given_back() {
        let taken = Arc::new(AtomicU64::new(0));
        let most = Memory::take(&taken, 95, 100);
        assert!(most.is_some() && Memory::take(&taken, 6, 100).is_none() && Memory::take(&taken, 5, 100).is_some());
        drop(most);
        assert_eq!(taken.load(Ordering::Relaxed), 0);
    }
}
