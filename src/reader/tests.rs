mod bucket;
mod failing;
mod fetching;
mod stack;
mod uncached;

use tempfile::TempDir;

use super::*;
use crate::cache::{Cache, Limits, Pin};
use crate::journal::Journal;
use crate::store::ErrorKind;
use crate::types::Version;
use bucket::{Behaviour, Bucket};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const TIMEOUT: Duration = Duration::from_secs(60);
const PARALLEL: usize = 8;

struct World {
    bucket: Arc<Bucket>,
    cache: Arc<Cache>,
    reader: Arc<Reader>,
    pattern: Mutex<ReadPattern>,
    /// Files are open as long as the test runs.
    pins: Mutex<Vec<Pin>>,
    _directory: TempDir,
}

impl World {
    fn new() -> Self {
        Self::with_cache_of(1024 * MIB)
    }

    fn with_cache_of(size: usize) -> Self {
        let directory = TempDir::new().expect("a directory for the cache");
        let journal = Arc::new(Journal::open(directory.path(), "bucket").expect("a new journal"));
        let limits = Limits { size_bytes: size as u64, free_floor_bytes: 0 };
        let cache = Cache::open(directory.path(), journal, limits, true).expect("an empty cache");
        let bucket = Arc::new(Bucket::default());
        let reader = Reader::new(bucket.clone(), ReaderConfig { timeout: TIMEOUT, parallel: PARALLEL });
        Self { bucket, cache, reader, pattern: Mutex::default(), pins: Mutex::default(), _directory: directory }
    }

    /// An object of `size` bytes in the bucket, and its cold data file, opened.
    fn file(&self, size: usize) -> (Arc<LocalFile>, Bytes) {
        let bytes = noise(size);
        let version = self.bucket.put("a", "v1", bytes.clone());
        (self.open(&version), bytes)
    }

    fn open(&self, version: &Version) -> Arc<LocalFile> {
        let file = self.cache.of_version(version).expect("a data file");
        self.pins.lock().push(file.pin());
        file
    }

    async fn read(&self, file: &Arc<LocalFile>, offset: usize, len: usize) -> Result<Bytes> {
        self.reader.read(file, &self.pattern, offset as u64, len).await
    }

    /// Lets the fetch tasks do what they can.
    async fn settle(&self) {
        while self.reader.shared.flights.count() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Bytes that differ everywhere, the same for each size.
fn noise(size: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ size as u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes.into()
}

fn total(gets: &[Span]) -> u64 {
    gets.iter().map(|get| get.end - get.start).sum()
}
