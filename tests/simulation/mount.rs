//! One life's mount: the layers as the daemon builds them, over the watched bucket and with small sizes.

use std::sync::Arc;
use std::time::Duration;

use mediafs::cache::{Cache, Limits};
use mediafs::fs::{Fs, FsConfig, WriteMode};
use mediafs::journal::Journal;
use mediafs::media::{Rules, RulesBuilder};
use mediafs::reader::{Reader, ReaderConfig};
use mediafs::store::Store;
use mediafs::store::fault::{FaultStore, Faults};
use mediafs::store::gzip::decoded;
use mediafs::store::retry::{RetryPolicy, RetryStore};
use mediafs::store::trace::RequestCounts;
use mediafs::writer::{Tuning, Writer, WriterConfig};
use tempfile::TempDir;
use tokio::time::{MissedTickBehavior, interval};

use crate::machine::Machine;
use crate::watched::Watched;
use crate::world::{Kernel, ME, Told, World};

/// Above it files go up in parts; small, so that small data make many.
pub const SINGLE_BYTES: u64 = 8 << 10;
const PART_BYTES: u64 = 4 << 10;
/// As the daemon's.
const SYNC_EVERY: Duration = Duration::from_secs(3);
/// How long the mount believes what it was told.
pub const TTL: Duration = Duration::from_secs(10);
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// What a world's mounts have in common.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub write_mode: WriteMode,
    pub r2: bool,
    pub exclusive: bool,
    pub cache_bytes: u64,
    /// Many files are stored compressed.
    pub gzip: bool,
}

pub struct Mount {
    pub world: World,
    pub journal: Arc<Journal>,
    pub faults: Faults,
}

/// `seed`: of the faults.
pub fn mount(machine: &Machine, settings: Settings, seed: u64) -> mediafs::error::Result<Mount> {
    mount_in(&machine.folder, machine, settings, seed)
}

/// The same in a cache directory of its own.
pub fn mount_in(folder: &Arc<TempDir>, machine: &Machine, settings: Settings, seed: u64) -> mediafs::error::Result<Mount> {
    let faults = Faults::new(seed);
    let watched: Store = Arc::new(Watched(Arc::clone(&machine.bucket)));
    let faulty: Store = Arc::new(FaultStore::new(watched, faults.clone()));
    let policy = if settings.r2 { RetryPolicy::r2() } else { RetryPolicy::default() };
    let store = decoded(Arc::new(RetryStore::new(faulty, policy.with_max_elapsed(TIMEOUT))));
    let journal = Arc::new(Journal::open(folder.path(), "simulated")?);
    let trusted = journal.begin_session()?;
    let limits = Limits { size_bytes: settings.cache_bytes, free_floor_bytes: 0 };
    let cache = Cache::open(folder.path(), Arc::clone(&journal), limits, trusted)?;
    let reader = Reader::new(Arc::clone(&store), ReaderConfig { timeout: TIMEOUT, parallel: 4 });
    let writer_config = WriterConfig {
        through: settings.write_mode == WriteMode::Through,
        r2: settings.r2,
        parallel_files: 4,
        parallel_parts: 3,
        host: "here".into(),
        rules: rules(settings),
        ..WriterConfig::default()
    };
    let tuning =
        Tuning { single_bytes: SINGLE_BYTES, part_bytes: PART_BYTES, copy_bytes: 24 << 10, copy_part_bytes: 8 << 10, ..Tuning::default() };
    let writer = Writer::open_tuned(Arc::clone(&store), Arc::clone(&journal), Arc::clone(&cache), writer_config, tuning)?;
    journal.believe()?;
    let parts = (Arc::clone(&journal), Arc::clone(&cache), Arc::clone(&writer));
    let fs = Fs::new(store, parts.0, parts.1, reader, parts.2, fs_config(settings))?;
    let kernel = Kernel::default();
    fs.start(Arc::new(Told { kernel: kernel.clone(), fs: Arc::downgrade(&fs) }));
    tokio::spawn(keep(Arc::clone(&cache)));
    let world = World { fs, writer, cache, counts: RequestCounts::new(), folder: Arc::clone(folder), kernel };
    Ok(Mount { world, journal, faults })
}

/// About half of the names, so that files get out of the rule and into it.
fn rules(settings: Settings) -> Arc<Rules> {
    let mut rules = RulesBuilder::default();
    if settings.gzip {
        rules.gzip("*[aceg024]*", Some(0)).unwrap();
    }
    Arc::new(rules.build().unwrap())
}

fn fs_config(settings: Settings) -> FsConfig {
    FsConfig {
        write_mode: settings.write_mode,
        ttl: TTL,
        negative_ttl: Duration::from_secs(1),
        exclusive: settings.exclusive,
        read_only: false,
        no_access_times: false,
        folds_names: false,
        prefix_bytes: 0,
        uid: ME.uid,
        gid: ME.gid,
        umask: 0o022,
        posix_metadata: true,
        unsafe_symlinks: false,
        timeout: TIMEOUT,
        passthrough_room_bytes: 0,
        listing_bytes: 64 << 20,
        names_limit: 100_000,
        public_url_base: None,
        r2: false,
        rules: rules(settings),
    }
}

/// What the daemon does every few seconds.
async fn keep(cache: Arc<Cache>) {
    let mut ticks = interval(SYNC_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        sync(&cache).unwrap();
    }
}

/// Brings all that is acknowledged to the disk.
pub fn sync(cache: &Cache) -> mediafs::error::Result<()> {
    cache.persist()?;
    if let Some(machine) = Machine::current() {
        machine.synced();
    }
    Ok(())
}
