//! Fetches what a reader wants into its data file, once, ahead of need.
//!
//! ```text
//! plan      pure: how far ahead, in which GETs          spans     arithmetic under it
//! flight    the GETs under way, shared by their readers  gate      how many at once, who first
//! fetch     one GET, checked and written into the file  uncached  reads when the cache is full
//! hedge     a second GET for a slow one
//! ```
//!
//! It knows data files and their versions, never inodes or paths. A fetch is an owned task: it goes on when its reader
//! is gone, and a dropped read loses nothing. Bytes are fetched under the file's base version with If-Match and checked
//! before they are stored, so that two versions never mix. Every wait of a read is within one deadline.
//!
//! A future made here may first be polled on a thread outside the runtime (the FUSE edge does so to answer from memory
//! at once): timers are made and tasks are spawned through the runtime's handle.

mod failure;
mod fetch;
mod flight;
mod gate;
mod hedge;
mod plan;
mod spans;
mod uncached;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::Instrument;

use crate::cache::LocalFile;
use crate::error::{Error, Result};
use crate::store::Store;
use crate::types::{Span, Version};

use failure::Failure;
use flight::{Awaited, Flights};
use gate::Gate;
use plan::{GET_LIMIT_BYTES, Pace, WINDOW_LIMIT_BYTES};

/// After the cache had no room, reads go past it for so long before they try it again: each try that fails has cost a
/// request.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// Memory of reads past the cache, all handles together: beyond it a handle fetches what it is asked for and no more.
const MEMORY_BYTES: u64 = 32 << 20;

/// How often a read that finds nothing to wait for looks again: what it misses may have come in between.
const IDLE_ROUNDS: usize = 4;

#[derive(Clone, Copy, Debug)]
pub struct ReaderConfig {
    /// Longest time a read waits for the bucket.
    pub timeout: Duration,
    /// GETs under way at once, all files together.
    pub parallel: usize,
}

/// How one open handle reads: decides how far ahead to fetch. One per handle.
#[derive(Debug, Default)]
pub struct ReadPattern {
    pace: Pace,
    uncached: uncached::SharedBuffer,
}

pub struct Reader {
    shared: Arc<Shared>,
}

/// What the fetch tasks share with the reader.
struct Shared {
    store: Store,
    config: ReaderConfig,
    runtime: Handle,
    gate: Gate,
    flights: Arc<Flights>,
    full_until: Mutex<Option<Instant>>,
    /// Bytes in the buffers of reads past the cache, and the most of them.
    buffered: Arc<AtomicU64>,
    memory_bytes: u64,
    answers: hedge::Answers,
}

impl Reader {
    /// To be called on the tokio runtime that shall run the fetches.
    pub fn new(store: Store, config: ReaderConfig) -> Arc<Reader> {
        Self::within(store, config, MEMORY_BYTES)
    }

    /// The same with another bound on the memory of reads past the cache.
    pub fn within(store: Store, config: ReaderConfig, memory_bytes: u64) -> Arc<Reader> {
        let (gate, runtime) = (Gate::new(config.parallel), Handle::current());
        let shared = Shared {
            store,
            config,
            runtime,
            gate,
            flights: Arc::default(),
            full_until: Mutex::default(),
            buffered: Arc::default(),
            memory_bytes,
            answers: hedge::Answers::default(),
        };
        Arc::new(Reader { shared: Arc::new(shared) })
    }

    /// Bytes `offset..offset+len` of the file, clamped to its end. Present bytes cost no request and no await; absent
    /// ones are fetched under `file.base()` with If-Match; a version that is gone is `Error::Stale`; the deadline is
    /// `Error::Timeout`. Where the cache has no room the bytes are served uncached.
    pub async fn read(&self, file: &Arc<LocalFile>, pattern: &Mutex<ReadPattern>, offset: u64, len: usize) -> Result<Bytes> {
        let range = clamp(file, offset, len);
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        if let Some(bytes) = present(file, &range)? {
            self.look_ahead(file, pattern, &range);
            return Ok(bytes);
        }
        pattern.lock().pace.note(&range);
        let deadline = {
            let _runtime = self.shared.runtime.enter();
            tokio::time::sleep(self.shared.config.timeout)
        };
        tokio::select! {
            biased;
            result = self.bring_in(file, pattern, range) => result,
            () = deadline => Err(Error::Timeout),
        }
    }

    /// The fast path alone: present bytes into `buffer`, to the end of the file. None where a byte is absent: then
    /// `read` fetches it.
    pub fn read_now(&self, file: &Arc<LocalFile>, pattern: &Mutex<ReadPattern>, offset: u64, buffer: &mut [u8]) -> Option<Result<usize>> {
        match file.read_at(offset, buffer) {
            Ok(None) => None,
            Ok(Some(length)) => {
                self.look_ahead(file, pattern, &(offset..offset + length as u64));
                Some(Ok(length))
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// Makes the file complete (for a copy cycle, an unlinked open file, `warm`). No deadline of its own, but a bucket
    /// that sends nothing for as long as a read would wait is `Error::Timeout`. `Error::NoSpace` where it doesn't fit.
    pub async fn fetch_all(&self, file: &Arc<LocalFile>) -> Result<()> {
        let _pin = file.pin();
        let (mut idle_rounds, asked) = (0, Instant::now());
        while let Some(first) = file.missing(0..file.size()).first() {
            let base = file.base().ok_or_else(without_source)?;
            let reach = first.start..base.size.min(first.start + WINDOW_LIMIT_BYTES);
            let want = first.start..reach.end.min(first.start + GET_LIMIT_BYTES);
            let awaited = self.shared.start(file, &base, &want, &reach, false);
            idle_rounds = if awaited.is_empty() { idle_rounds + 1 } else { 0 };
            if idle_rounds > IDLE_ROUNDS {
                return Err(without_source());
            }
            match awaited.arrive(file, &want, asked).await {
                Ok(()) | Err(Failure::Rebased) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(())
    }

    async fn bring_in(&self, file: &Arc<LocalFile>, pattern: &Mutex<ReadPattern>, range: Span) -> Result<Bytes> {
        let (mut idle_rounds, asked) = (0, Instant::now());
        loop {
            // Again in each round: the file may have been truncated.
            let range = clamp(file, range.start, (range.end - range.start) as usize);
            let filled = file.filled();
            if let Some(bytes) = present(file, &range)? {
                return Ok(bytes);
            }
            if file.is_freed(range.clone()) {
                // An unfinished upload has it: a version that can be read comes of that.
                if file.is_forfeited() {
                    return Err(Error::Stale);
                }
                file.recall();
                filled.await;
                continue;
            }
            if self.shared.is_full() {
                pattern.lock().pace.narrow();
                match uncached::read(&self.shared, file, pattern, &range).await {
                    Err(Error::Stale) if file.is_freed(range.clone()) => continue,
                    read => return read,
                }
            }
            let base = file.base().ok_or_else(without_source)?;
            let reach = pattern.lock().pace.reach(&range, base.size);
            let awaited = self.shared.start(file, &base, &range, &reach, true);
            idle_rounds = if awaited.is_empty() { idle_rounds + 1 } else { 0 };
            if idle_rounds > IDLE_ROUNDS {
                return Err(without_source());
            }
            match awaited.arrive(file, &range, asked).await {
                // A GET that timed out was older than this read, or the read's own deadline is here too.
                Ok(()) | Err(Failure::Rebased | Failure::Full | Failure::Timeout) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    /// Keeps the window filled behind reads that found their bytes. Cheap where there is nothing to do.
    fn look_ahead(&self, file: &Arc<LocalFile>, pattern: &Mutex<ReadPattern>, range: &Span) {
        if range.is_empty() || file.is_complete() {
            return;
        }
        let Some(base) = file.base() else { return };
        let ahead = {
            let mut pattern = pattern.lock();
            if !pattern.pace.note(range) {
                return;
            }
            pattern.pace.ahead(range, base.size)
        };
        if !ahead.is_empty() && !self.shared.is_full() {
            self.shared.start(file, &base, &(ahead.start..ahead.start), &ahead, false);
        }
    }
}

impl Shared {
    /// Starts the GETs that bring `reach` in; what carries `want` can be awaited.
    fn start(self: &Arc<Self>, file: &Arc<LocalFile>, base: &Version, want: &Span, reach: &Span, urgent: bool) -> Awaited {
        let (landings, awaited) = self.flights.join(file, want, reach, urgent);
        for landing in landings {
            let fetching = fetch::fly(Arc::clone(self), Arc::clone(file), base.clone(), landing);
            self.runtime.spawn(fetching.in_current_span());
        }
        awaited
    }

    fn note_full(&self) {
        tracing::debug!("no room in the cache: reading past it");
        *self.full_until.lock() = Some(Instant::now() + FULL_PAUSE);
    }

    fn is_full(&self) -> bool {
        self.full_until.lock().is_some_and(|until| Instant::now() < until)
    }
}

fn clamp(file: &LocalFile, offset: u64, len: usize) -> Span {
    let size = file.size();
    offset.min(size)..offset.saturating_add(len as u64).min(size)
}

fn present(file: &LocalFile, range: &Span) -> Result<Option<Bytes>> {
    // Asked first: a buffer is cleared in vain otherwise.
    if !file.is_complete() && !file.missing(range.clone()).is_empty() {
        return Ok(None);
    }
    let mut buffer = BytesMut::zeroed((range.end - range.start) as usize);
    Ok(file.read_at(range.start, &mut buffer)?.map(|length| {
        buffer.truncate(length);
        buffer.freeze()
    }))
}

fn without_source() -> Error {
    Error::Corrupt("absent bytes that no version in the bucket stands for".into())
}

#[cfg(test)]
mod tests;
