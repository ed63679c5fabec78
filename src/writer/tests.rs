//! The writer on the in-memory bucket with a real journal and cache, on tokio's paused clock.

mod ahead;
mod conflicts;
mod crashes;
mod failures;
mod flushed;
mod ordering;
mod parts;
mod random;
mod room;
mod salvage;
mod settling;

use std::path::Path;

use tokio::time::timeout;

use super::*;
use crate::cache::{Limits, LocalFile};
use crate::store::fault::{FaultStore, Faults};
use crate::store::memory::MemoryStore;
use crate::store::trace::{RequestCounts, TraceStore};
use crate::store::{Body, Condition, ObjectStore, Operation};
use crate::types::ETag;

const KIB: usize = 1 << 10;

/// What the file system would have heard.
#[derive(Clone, Debug, PartialEq)]
enum Event {
    Stored(Key, u64, bool),
    Deleted(Key),
    Conflict(Key, Option<Key>),
}

#[derive(Default)]
struct Log {
    events: Mutex<Vec<Event>>,
    /// Of every staged file.
    headers: Mutex<Option<ObjectHeaders>>,
    /// A bug, once.
    panic: std::sync::atomic::AtomicBool,
}

impl Events for Log {
    fn headers(&self, _: &Key, _: FileId) -> Option<ObjectHeaders> {
        assert!(!self.panic.swap(false, std::sync::atomic::Ordering::Relaxed), "a bug");
        self.headers.lock().clone()
    }

    fn stored(&self, _: &Content, version: &Version, _: Option<&ObjectHeaders>, _: SystemTime, clean: bool) {
        self.events.lock().push(Event::Stored(version.key.clone(), version.size, clean));
    }

    fn renewed(&self, _: &Key, _: &Version, _: &Version) {}

    fn deleted(&self, key: &Key) {
        self.events.lock().push(Event::Deleted(key.clone()));
    }

    fn conflict(&self, key: &Key, kept_as: Option<&Key>) {
        self.events.lock().push(Event::Conflict(key.clone(), kept_as.cloned()));
    }
}

/// One bucket, one host.
struct World {
    directory: tempfile::TempDir,
    memory: Arc<MemoryStore>,
    faults: Faults,
    counts: RequestCounts,
    config: WriterConfig,
    /// Of the cache, in bytes.
    limit: u64,
    cache: Arc<Cache>,
    writer: Arc<Writer>,
    log: Arc<Log>,
}

/// All work of a writer is done on this thread while it lives, also what is the blocking pool's otherwise: each test is one
/// history, however slow the machine is.
struct OneThread {
    begun: Instant,
}

impl crate::simulation::World for OneThread {
    fn saw(&self, _: crate::simulation::Event) {}

    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + self.begun.elapsed()
    }

    fn boot(&self) -> String {
        "boot".into()
    }

    fn chance(&self) -> f64 {
        0.5
    }
}

fn on_one_thread() -> crate::simulation::Installed {
    crate::simulation::install(std::rc::Rc::new(OneThread { begun: Instant::now() }))
}

fn config() -> WriterConfig {
    WriterConfig { parallel_files: 8, parallel_parts: 4, host: "web".into(), ..WriterConfig::default() }
}

/// Everything a thousandth of the real size.
fn tuning() -> Tuning {
    let kib = KIB as u64;
    Tuning {
        single_bytes: 16 * kib,
        part_bytes: 16 * kib,
        least_part_bytes: 5 * kib,
        copy_bytes: 256 * kib,
        copy_part_bytes: 64 * kib,
        memory_bytes: 64 * kib,
        ..Tuning::default()
    }
}

fn open(directory: &Path, store: Store, config: &WriterConfig, tuning: Tuning, size_bytes: u64) -> (Arc<Cache>, Arc<Writer>) {
    let journal = Arc::new(Journal::open(directory, "s3://bucket").unwrap());
    let limits = Limits { size_bytes, free_floor_bytes: 0 };
    let cache = Cache::open(directory, journal.clone(), limits, true).unwrap();
    let writer = Writer::open_tuned(store, journal, cache.clone(), config.clone(), tuning).unwrap();
    (cache, writer)
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// A cache that holds no more than so many bytes.
    fn small(limit: u64, change: impl FnOnce(&mut WriterConfig)) -> Self {
        let mut config = config();
        change(&mut config);
        let memory = Arc::new(MemoryStore::new().with_min_part_bytes(1));
        let world = Self::on_limited(memory, Faults::new(1), config, tempfile::tempdir().unwrap(), limit);
        world.start();
        world
    }

    fn with(change: impl FnOnce(&mut WriterConfig)) -> Self {
        let mut config = config();
        change(&mut config);
        let memory = Arc::new(MemoryStore::new().with_min_part_bytes(1));
        let world = Self::on(memory, Faults::new(1), config, tempfile::tempdir().unwrap());
        world.start();
        world
    }

    fn on(memory: Arc<MemoryStore>, faults: Faults, config: WriterConfig, directory: tempfile::TempDir) -> Self {
        Self::on_limited(memory, faults, config, directory, 1 << 30)
    }

    fn on_limited(memory: Arc<MemoryStore>, faults: Faults, config: WriterConfig, directory: tempfile::TempDir, limit: u64) -> Self {
        let counts = RequestCounts::new();
        let store = Arc::new(TraceStore::new(Arc::new(FaultStore::new(memory.clone(), faults.clone())), counts.clone()));
        let (cache, writer) = open(directory.path(), store, &config, tuning(), limit);
        Self { directory, memory, faults, counts, config, limit, cache, writer, log: Arc::default() }
    }

    fn start(&self) {
        self.writer.start(self.log.clone());
    }

    /// A new process on what a kill at this moment leaves; not started yet. A kill is an instant, and a copy takes a while:
    /// nothing else may change the directory meanwhile.
    fn after_crash(&self) -> Self {
        assert!(crate::simulation::is_on(), "a test that copies a directory in use begins with `on_one_thread`");
        let directory = tempfile::tempdir().unwrap();
        copy_all(self.directory.path(), directory.path());
        Self::on_limited(self.memory.clone(), Faults::new(2), self.config.clone(), directory, self.limit)
    }

    /// Until the bucket has everything, or all that is left has failed; in its own time.
    async fn settled(&self) {
        let mut progress = self.writer.shared.progress.subscribe();
        let settled = async {
            loop {
                progress.borrow_and_update();
                let backlog = self.writer.backlog();
                if backlog.dirty_files == backlog.failed.len() as u64 && backlog.uploading == 0 {
                    return;
                }
                progress.changed().await.unwrap();
            }
        };
        timeout(Duration::from_secs(3_600), settled).await.expect("settled within an hour");
    }

    fn staged(&self, key: &str, file: &LocalFile, condition: Condition, was_there: bool) {
        self.apply(key, Content::Staged(file.id()), condition, was_there);
    }

    fn apply(&self, key: &str, content: Content, condition: Condition, was_there: bool) {
        self.writer.apply(vec![(key.into(), Some(desired(content, condition, was_there)))], &[]).unwrap();
    }

    /// A new file, as `create`, `write` and `close` make it.
    fn save(&self, key: &str, bytes: &[u8]) -> Arc<LocalFile> {
        let file = self.cache.create().unwrap();
        // While it is open it doesn't go up, however slow this thread is.
        file.add_writer();
        self.staged(key, &file, Condition::IfAbsent, false);
        file.write_at(0, bytes).unwrap();
        file.remove_writer();
        file
    }

    fn remove(&self, key: &str, was_there: bool) {
        self.apply(key, Content::Absent, Condition::Any, was_there);
    }

    /// As another host does it.
    async fn put_elsewhere(&self, key: &str, bytes: &[u8]) -> Version {
        let receipt = self.memory.put(&key.into(), Body::new(bytes.to_vec()), &ObjectHeaders::default(), &Condition::Any).await.unwrap();
        Version { key: key.into(), etag: receipt.etag().clone(), size: receipt.size() }
    }

    fn object(&self, key: &str) -> Option<Vec<u8>> {
        self.memory.object(&key.into()).map(|(bytes, _)| bytes.to_vec())
    }

    fn version(&self, key: &str) -> Version {
        let (_, info) = self.memory.object(&key.into()).unwrap();
        Version { key: key.into(), etag: info.etag, size: info.size }
    }

    fn keys(&self) -> Vec<String> {
        self.memory.keys().iter().map(|key| key.as_str().to_owned()).collect()
    }

    fn requests(&self) -> Vec<(&'static str, u64)> {
        self.counts.snapshot().into_iter().collect()
    }

    fn events(&self) -> Vec<Event> {
        std::mem::take(&mut *self.log.events.lock())
    }

    fn journalled(&self) -> Vec<Key> {
        self.writer.shared.journal.desired().unwrap().into_iter().map(|(key, _)| key).collect()
    }

    async fn unfinished_uploads(&self) -> usize {
        self.memory.list_uploads().await.unwrap().len()
    }
}

fn copy_all(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn desired(content: Content, condition: Condition, was_there: bool) -> Desired {
    // Of a file that somebody wrote they are known; a copy takes its source's.
    let headers = matches!(content, Content::Staged(_)).then(ObjectHeaders::default);
    Desired { content, headers: headers.map(Into::into), condition, was_there, since: clock::now() }
}

fn copy_of(version: &Version) -> Content {
    Content::CopyOf(version.clone())
}

fn if_match(version: &Version) -> Condition {
    Condition::IfMatch(version.etag.clone())
}

fn headers(name: &str) -> ObjectHeaders {
    ObjectHeaders { content_type: Some(name.into()), ..Default::default() }
}

/// Bytes that differ from part to part.
fn bytes(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|index| (index / 7) as u8 ^ (index >> 11) as u8 ^ seed).collect()
}
