//! POSIX semantics over the namespace, the reader and the writer. Runs without FUSE.
//!
//! Every operation is an async fn that does not await when the answer is in memory: the edge polls it once on the
//! kernel's thread and spawns it with a deadline only where it is still pending.
//!
//! What is wanted and not yet in the bucket is owned by the writer; it is laid over what the namespace remembers of the
//! bucket each time a name is resolved, so that there is no second copy of it to keep in step.
//!
//! Lock order: `names` → the writer's entries → one data file → journal. No lock is held across an await.

mod ahead;
mod attributes;
mod below;
mod copy;
mod create;
mod crowd;
mod departed;
mod directory;
mod events;
mod file;
mod filling;
mod handles;
mod lookup;
mod media;
mod open;
mod outage;
mod passthrough;
mod question;
mod remove;
mod rename;
mod sweep;
mod symlink;
mod types;
mod xattr;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use types::*;
pub use xattr::is_settable_metadata;

use crate::cache::Cache;
use crate::clock;
use crate::error::{Error, Result};
use crate::journal::Journal;
use crate::namespace::keys::{self, Reason};
use crate::namespace::{Namespace, Owner};
use crate::reader::Reader;
use crate::store::Store;
use crate::types::{Key, Live};
use crate::writer::Writer;

/// The name under which a directory's own marker is touched in it.
const MARKER: &str = "";

/// Telling the kernel takes microseconds, unless it waits for an answer itself.
const TELLING: std::time::Duration = std::time::Duration::from_secs(1);

/// For the kernel: until told otherwise.
const FOREVER: std::time::Duration = std::time::Duration::from_secs(86_400);

/// Turns of an operation that another thread overtakes before it gives up.
const RACES: usize = 8;

pub struct Fs {
    store: Store,
    journal: Arc<Journal>,
    cache: Arc<Cache>,
    reader: Arc<Reader>,
    writer: Arc<Writer>,
    config: Live<FsConfig>,
    names: Mutex<Namespace>,
    handles: handles::Handles,
    departed: departed::Departed,
    invalidate: OnceLock<Arc<dyn Invalidate>>,
    status: OnceLock<StatusSource>,
    /// By directory, as its last listing showed them: keys that no path can show, with the reason.
    hidden: Mutex<BTreeMap<Key, BTreeMap<Key, Reason>>>,
    /// A listing has shown `dir_$folder$`: directories may be there by that alone.
    hadoop_markers: AtomicBool,
    outage: outage::Outage,
    asking: ahead::Asking,
    closed: AtomicBool,
    /// There are more names in memory than there should be.
    crowded: Arc<Notify>,
    /// Operations that rely on names staying there.
    kept: AtomicUsize,
    /// Somebody looks after files that the kernel writes to.
    watching: AtomicBool,
    me: Weak<Fs>,
}

impl Fs {
    pub fn new(
        store: Store,
        journal: Arc<Journal>,
        cache: Arc<Cache>,
        reader: Arc<Reader>,
        writer: Arc<Writer>,
        config: FsConfig,
    ) -> Result<Arc<Fs>> {
        let owner = Owner { uid: config.uid, gid: config.gid, file_mode: 0o666 & !config.umask, directory_mode: 0o777 & !config.umask };
        let fs = Arc::new_cyclic(|me| Fs {
            store,
            journal,
            cache,
            reader,
            writer,
            config: Live::new(config),
            names: Mutex::new(Namespace::new(owner, clock::now())),
            handles: handles::Handles::default(),
            departed: departed::Departed::default(),
            invalidate: OnceLock::new(),
            status: OnceLock::new(),
            hidden: Mutex::default(),
            hadoop_markers: AtomicBool::new(false),
            outage: outage::Outage::default(),
            asking: ahead::Asking::default(),
            closed: AtomicBool::new(false),
            crowded: Arc::default(),
            kept: AtomicUsize::new(0),
            watching: AtomicBool::new(false),
            me: me.clone(),
        });
        fs.restore_root()?;
        Ok(fs)
    }

    /// What to tell the kernel; set once, before the first request. Also starts the writer.
    pub fn start(self: &Arc<Self>, invalidate: Arc<dyn Invalidate>) {
        let _ = self.invalidate.set(invalidate);
        self.writer.claim_left_overs();
        self.writer.start(Arc::new(events::Listener(self.me.clone())));
        self.watch_crowd();
    }

    /// Times, rules and the like, for whatever is asked from now on.
    pub fn reconfigure(&self, config: FsConfig) {
        self.config.replace(config);
    }

    /// Where `user.mediafs.status` on the root gets its JSON.
    pub fn set_status(&self, source: StatusSource) {
        let _ = self.status.set(source);
    }

    /// Stops taking changes (they fail with `ReadOnly`), for an orderly end.
    pub fn close_for_writes(&self) {
        self.closed.store(true, Ordering::Release);
        if let Err(error) = self.take_all_news() {
            tracing::error!(%error, "what was written to open files can't all be journalled: the next mount will find it");
        }
    }

    /// How many keys no path can show.
    pub fn hidden_keys(&self) -> usize {
        self.hidden.lock().values().map(BTreeMap::len).sum()
    }

    /// Files and names are those of the bucket, which has no limit to tell; free is what it takes. No network.
    pub fn statfs(&self) -> StatFs {
        const BLOCK: u32 = 4096;
        /// 1 PiB: programs that check for room find it, and none overflows.
        const BLOCKS: u64 = (1 << 50) / BLOCK as u64;
        let used = self.cache.usage().bytes / u64::from(BLOCK);
        let free = BLOCKS.saturating_sub(used);
        StatFs {
            block_size: BLOCK,
            blocks: BLOCKS,
            blocks_free: free,
            blocks_available: free,
            files: u64::from(u32::MAX),
            files_free: u64::from(u32::MAX) - self.names.lock().len() as u64,
            name_max: 255,
        }
    }

    /// Refuses a change on a read-only or ending mount.
    fn writable(&self) -> Result<()> {
        if self.config.read_only || self.closed.load(Ordering::Acquire) { Err(Error::ReadOnly) } else { Ok(()) }
    }

    /// Whether reading moves access times.
    fn notes_access(&self) -> bool {
        !self.config.read_only && !self.config.no_access_times
    }

    /// A name as the kernel passed it, in the spelling that the store keeps. Errors: those of [`keys::component`].
    fn name(&self, name: &OsStr) -> Result<Arc<str>> {
        keys::component(name).map(|name| self.spelled(name))
    }

    /// R2 folds the spellings of a name into one key. Were they two names here, one would silently be the other.
    fn spelled(&self, name: &str) -> Arc<str> {
        if self.config.folds_names && !name.is_ascii() { keys::r2_spelling(name).into() } else { name.into() }
    }

    /// Names confirmed at or after this are fresh. None: everything ever seen is (this mount alone writes).
    fn fresh_since(&self) -> Option<Instant> {
        if self.config.exclusive { None } else { Some(Instant::now().checked_sub(self.config.ttl).unwrap_or_else(Instant::now)) }
    }

    /// The object `dir_$folder$` that may mark this directory. None: nothing in this bucket is marked so.
    fn hadoop_marker(&self, directory: &Key) -> Option<Key> {
        keys::hadoop_marker(directory).filter(|_| self.hadoop_markers.load(Ordering::Acquire))
    }

    fn invalidate_inode(&self, ino: Ino) {
        if let Some(kernel) = self.invalidate.get() {
            kernel.inode(ino);
        }
    }

    /// A reader who is let in while the kernel is being told that the file has another length gets the new bytes and zeros to the
    /// old one: the kernel doesn't believe a short answer while it hears of a change.
    async fn kernel_knows(&self, ino: Ino) {
        if let Some(told) = self.invalidate.get().and_then(|kernel| kernel.told(ino)) {
            let _ = tokio::time::timeout(TELLING, told).await;
        }
    }

    fn invalidate_attributes(&self, ino: Ino) {
        if let Some(kernel) = self.invalidate.get() {
            kernel.attributes(ino);
        }
    }

    fn invalidate_entry(&self, parent: Ino, name: &str) {
        if let Some(kernel) = self.invalidate.get() {
            kernel.entry(parent, name.as_ref());
        }
    }

    fn shared(&self) -> Option<Arc<Fs>> {
        self.me.upgrade()
    }
}
