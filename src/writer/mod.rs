//! Brings the bucket to the desired state: settling, upload, copies, deletes, conflicts.
//!
//! The map, from data to I/O:
//! - `grid` (parts), `order` (what waits for what), `entry` (due times), `pace`, `burst`, `outage`, `backoff`: pure decisions.
//! - `queue`: the waiting keys in memory; `apply`: how new desired states get there and into the journal.
//! - `pick`: one pass over the queue; `reconcile`: the loop around it, `alarm`: when that wakes; `flight`: one operation from start to record.
//! - `upload`, `multipart`, `session`, `parts`, `inline`, `source`, `compress`: data to the bucket; `ahead`: while it is written.
//! - `copy` (`mark`: how one is told afterwards), `delete`, `directory`, `cycle`: the rest.
//! - `finish`, `conflict`, `aside`: what became of it. `left_overs`: what a killed daemon left. `salvage`: what a crash of the
//!   machine left to want.
//! - `sync`, `room`, `backlog`, `orphans`: waiting, status, unfinished uploads. `view`, `arrivals`: for the file system's questions.
//!
//! Invariants:
//! - The journal knows before anybody else does: a desired state is written before `apply` returns, cleared after the
//!   bucket has confirmed it. A crash at any point repeats work, and repeating it changes nothing.
//! - One operation for a key at a time, and no key changes while something still takes bytes from it.
//! - What is dirty is never dropped: it reaches the bucket, is kept beside another host's, or stays here and says why.
//!
//! Must not: know inodes or handles, or call back with a lock held.

mod ahead;
mod alarm;
mod apply;
mod arrivals;
mod aside;
mod backlog;
mod backoff;
mod burst;
mod compress;
mod conflict;
mod copy;
mod cycle;
mod delete;
mod directory;
mod entry;
mod finish;
mod flight;
mod gathering;
mod grid;
mod inline;
mod left_overs;
mod mark;
mod multipart;
mod order;
mod orphans;
mod outage;
mod pace;
mod parts;
mod pick;
mod queue;
mod reconcile;
mod room;
mod salvage;
mod session;
mod source;
mod sync;
#[cfg(test)]
mod tests;
mod upload;
mod view;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::cache::{Cache, LocalFile};
use crate::clock;
use crate::error::{Error, Result};
use crate::journal::{Change, Content, Desired, Journal};
use crate::media::Rules;
use crate::store::Store;
use crate::types::{FileId, Key, Live, ObjectHeaders, Version};

pub use arrivals::Arrivals;
pub use conflict::conflict_key;
pub use copy::copied;
use entry::{Entry, Failure};
#[doc(hidden)]
pub use grid::Tuning;
use mark::Mark;
use queue::Queue;

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnConflict {
    KeepBoth,
    Overwrite,
    Hold,
}

#[derive(Clone, Debug)]
pub struct WriterConfig {
    /// A change goes up after this long without another (100 ms) …
    pub settle: Duration,
    /// … but no later than this after the first (1 s).
    pub settle_limit: Duration,
    /// A file still open for writing goes up after resting this long (5 s).
    pub rest: Duration,
    pub on_conflict: OnConflict,
    /// In through mode a lost reservation is the caller's error (`Error::Exists` from `sync`), never a conflict copy.
    pub through: bool,
    /// R2's rules: one write a second a key.
    pub r2: bool,
    /// Files uploaded at once, and parts under way at once over all files.
    pub parallel_files: usize,
    pub parallel_parts: usize,
    /// Keys in memory that wait: past it, who adds others goes at the pace of the uploads.
    pub waiting_limit: usize,
    /// For names of conflict copies.
    pub host: String,
    /// What is stored compressed.
    pub rules: Arc<Rules>,
}

/// What the writer tells the file system. Called with no lock of the writer held, from its own tasks, for one key in the
/// order in which it happened. `pending` may forget a key before `stored` is called; until that call returns the key
/// counts as stored, so that an `apply` in between, under a lock that `stored` takes, loses nothing.
pub trait Events: Send + Sync + 'static {
    /// The headers of a staged file as they are now (times move while it is open); None: the journalled ones hold.
    fn headers(&self, key: &Key, file: FileId) -> Option<ObjectHeaders>;
    /// The bucket holds `version` under its key. `clean`: nothing else is wanted there.
    fn stored(&self, content: &Content, version: &Version, headers: Option<&ObjectHeaders>, last_modified: SystemTime, clean: bool);
    /// What is wanted under `key` builds on `new` from now on, the same bytes as `old` under another ETag.
    fn renewed(&self, key: &Key, old: &Version, new: &Version);
    /// The bucket holds nothing under `key` any more.
    fn deleted(&self, key: &Key);
    /// Ours lost `key` to another writer and is now wanted under `kept_as`; None: our bytes were given up (through mode).
    fn conflict(&self, key: &Key, kept_as: Option<&Key>);
}

/// What is waiting, for `status`.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Backlog {
    /// Keys whose desired state the bucket doesn't have yet.
    pub dirty_files: u64,
    pub dirty_bytes: u64,
    pub uploading: u64,
    pub conflicts: u64,
    pub failed: Vec<Failed>,
    /// Age of the oldest unsent change, in seconds.
    pub oldest_seconds: Option<f64>,
    /// When the bucket stopped answering, and why.
    pub degraded: Option<(SystemTime, String)>,
}

#[derive(Clone, Debug, serde::Serialize)]
pub struct Failed {
    pub path: String,
    pub error: String,
    pub since: SystemTime,
}

/// What all parts of the writer work on.
struct Shared {
    store: Store,
    journal: Arc<Journal>,
    cache: Arc<Cache>,
    config: Live<WriterConfig>,
    tuning: Tuning,
    /// Lock order: this, then a data file's state, then the journal.
    queue: Mutex<Queue>,
    /// The queue changed.
    wake: Notify,
    /// There are uploads to abort.
    aborts: Notify,
    /// Counts landings.
    progress: watch::Sender<u64>,
    events: OnceLock<Arc<dyn Events>>,
    /// Bytes of parts in memory, and parts under way, over all files.
    memory: Semaphore,
    parts: Semaphore,
    /// The store has no conditions on UploadPartCopy (R2).
    plain_copy_parts: AtomicBool,
}

/// Keeps one key from being changed in the bucket until it is dropped.
pub struct Hold {
    shared: Arc<Shared>,
    key: Key,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.queue.lock().release(&self.key, Instant::now());
        self.shared.wake.notify_one();
    }
}

pub struct Writer {
    shared: Arc<Shared>,
    loop_task: Mutex<Option<JoinHandle<()>>>,
}

/// Dropping the writer stops it as a crash would: the journal has what the bucket doesn't.
impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(task) = self.loop_task.lock().take() {
            task.abort();
        }
    }
}

impl Writer {
    /// Loads the desired state. Nothing is sent before `start`.
    pub fn open(store: Store, journal: Arc<Journal>, cache: Arc<Cache>, config: WriterConfig) -> Result<Arc<Writer>> {
        Self::open_tuned(store, journal, cache, config, Tuning::default())
    }

    /// The same with other sizes of parts and buffers; for tests.
    #[doc(hidden)]
    pub fn open_tuned(store: Store, journal: Arc<Journal>, cache: Arc<Cache>, config: WriterConfig, tuning: Tuning) -> Result<Arc<Writer>> {
        let mut queue = Queue::new(config.r2);
        queue.aborts = journal.uploads()?;
        for (key, text) in journal.attempts()? {
            match Mark::read(&text) {
                Some((mark, of)) => queue.remember_copy(&key, mark, of),
                None => queue.remember_own(&key, text),
            }
        }
        let desired = salvage::desired(&journal, &cache)?;
        session::restore(&mut queue, &journal, &cache, &desired)?;
        load(&mut queue, desired, &cache);
        let shared = Shared {
            store,
            journal,
            cache,
            queue: Mutex::new(queue),
            wake: Notify::new(),
            aborts: Notify::new(),
            progress: watch::Sender::new(0),
            events: OnceLock::new(),
            memory: Semaphore::new(upload::memory_units(tuning.memory_bytes) as usize),
            parts: Semaphore::new(config.parallel_parts.max(1)),
            plain_copy_parts: AtomicBool::new(false),
            config: Live::new(config),
            tuning,
        };
        Ok(Arc::new(Writer { shared: Arc::new(shared), loop_task: Mutex::new(None) }))
    }

    /// Starts the reconcile loop on the current tokio runtime; aborts orphaned uploads first.
    pub fn start(self: &Arc<Self>, events: Arc<dyn Events>) {
        let mut task = self.loop_task.lock();
        if task.is_none() && self.shared.events.set(events).is_ok() {
            *task = Some(tokio::spawn(reconcile::run(self.shared.clone())));
        }
    }

    /// Journals new desired states (None: nothing is wanted beyond what the bucket has) in one transaction, marks
    /// staged files dirty, and schedules. `also` goes into the same transaction. Each key at most once.
    pub fn apply(&self, changes: Vec<(Key, Option<Desired>)>, also: &[Change]) -> Result<()> {
        self.shared.apply(changes, also)
    }

    /// The same of one key whose staged file comes to rest: its seal (`LocalFile::prepare_seal` was called, and said so) goes
    /// into the same transaction.
    pub fn apply_at_rest(&self, key: Key, desired: Desired, file: &LocalFile) -> Result<()> {
        self.shared.apply_at_rest(key, desired, file)
    }

    /// A program closed a file that it could write to: it needs no rest any more. Cheap where nothing waits.
    pub fn closed(&self, key: &Key) {
        self.shared.closed(key);
    }

    pub fn pending(&self, key: &Key) -> Option<Desired> {
        self.shared.queue.lock().get(key).map(|entry| entry.desired.clone())
    }

    /// An operation on `key` is under way, or over and not yet told to the file system: what the bucket was seen to hold
    /// meanwhile may be the state before it.
    pub fn is_landing(&self, key: &Key) -> bool {
        self.shared.queue.lock().flight(key).is_some()
    }

    /// Every pending key below `directory` (root or trailing slash; its own marker included), in order.
    pub fn pending_below(&self, directory: &Key) -> Vec<(Key, Desired)> {
        self.shared.queue.lock().below(directory).map(|(key, entry)| (key.clone(), entry.desired.clone())).collect()
    }

    /// What is under way for `key` goes on; nothing new is begun.
    pub fn hold(self: &Arc<Self>, key: &Key) -> Hold {
        self.shared.queue.lock().hold(key);
        Hold { shared: self.shared.clone(), key: key.clone() }
    }

    /// Sends `key` now and returns when the bucket holds its state of this moment, or with the error that stops it.
    /// An entry that had failed for good is tried once more.
    pub async fn sync(&self, key: &Key) -> Result<()> {
        self.shared.sync(key).await
    }

    /// The same for everything below a directory.
    pub async fn sync_below(&self, directory: &Key) -> Result<()> {
        self.shared.sync_below(directory).await
    }

    /// The error that stopped `key` for good, once: an fsync or close of that file returns it.
    pub fn take_error(&self, key: &Key) -> Option<Error> {
        self.shared.take_error(key)
    }

    /// Sends everything; returns how many keys still wait when the time is over (0: all is in the bucket), or as soon as
    /// those that are left have failed for good.
    pub async fn drain(&self, timeout: Duration) -> usize {
        self.shared.drain(timeout).await
    }

    /// Rules and what becomes of conflicts, from now on.
    pub fn reconfigure(&self, config: WriterConfig) {
        self.shared.config.replace(config);
    }

    pub fn backlog(&self) -> Backlog {
        self.shared.backlog()
    }
}

/// The journal's rows become entries. They have settled, and what they want may have been done already.
fn load(queue: &mut Queue, rows: Vec<(Key, Desired)>, cache: &Cache) {
    let now = Instant::now();
    for (key, desired) in rows {
        let (file, lost) = match desired.content {
            Content::Staged(id) => {
                let file = cache.get(id);
                (file.clone(), file.is_none().then_some(id))
            }
            _ => (None, None),
        };
        let generation = queue.count();
        let mut entry = Entry { settled: true, unsure: true, ..Entry::new(desired, file, generation, now) };
        if let Some(id) = lost {
            tracing::error!(%key, file = %id, "the data file of an unsent change is not in the cache directory");
            let error = Error::Corrupt(format!("its data file {id} is not in the cache directory"));
            entry.failed = Some(Box::new(Failure { error, since: clock::now(), retry_at: None, told: false }));
        }
        queue.put(&key, entry, now);
    }
}

/// What the daemon runs with, but for what its user decides.
impl Default for WriterConfig {
    fn default() -> Self {
        Self {
            settle: Duration::from_millis(100),
            settle_limit: Duration::from_secs(1),
            rest: Duration::from_secs(5),
            on_conflict: OnConflict::KeepBoth,
            through: false,
            r2: false,
            parallel_files: 16,
            // Each holds one part (16 MiB and more) in memory.
            parallel_parts: 6,
            waiting_limit: 131_072,
            host: "localhost".into(),
            rules: Arc::default(),
        }
    }
}
