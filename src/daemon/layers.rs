//! Builds the layers of one mount, from the bucket up, in the order in which a mistake is cheapest to find.
//!
//! What needs no network is checked first. The bucket is asked once, within five seconds, before anything is mounted: a
//! wrong key must not become a mount on which everything fails. Only a cache directory that has reached this very bucket
//! before is mounted without an answer, since its files and its unsent writes are of use then.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::DaemonError;
use super::process;
use super::settings::Settings;
use crate::cache::{Cache, Limits};
use crate::clock;
use crate::error::{self, Error};
use crate::fs::{Fs, FsConfig, WriteMode};
use crate::journal::{DirectoryLock, Journal};
use crate::reader::{Reader, ReaderConfig};
use crate::store::gzip;
use crate::store::limit::LimitStore;
use crate::store::prefix::PrefixStore;
use crate::store::retry::{RetryPolicy, RetryStore};
use crate::store::s3::{self, S3Config, S3Store};
use crate::store::trace::{RequestCounts, TraceStore};
use crate::store::{self, ErrorKind, Operation, Store, StoreError, advice, check_bucket};
use crate::writer::{Tuning, Writer, WriterConfig};

/// Finding region and credentials may ask services that don't exist here, and the question itself may be swallowed: with
/// this for both, a newcomer has the answer within five seconds.
const REACH_TIME: Duration = Duration::from_secs(4);
/// Enough for 10 Gbit/s at 100 ms, and as much memory as that takes; far below what a store refuses.
const READS_AT_ONCE: usize = 64;
/// Copies above all: that many of one renamed directory are made in one round trip.
const CHANGES_AT_ONCE: usize = 64;
const FETCHES_AT_ONCE: usize = 16;
/// More than one file of nearly any program takes (dumps and archives are cut at 2 and 4 GiB, a dual-layer DVD has 7.9), and
/// than a fast disk takes in while the daemon isn't looking: who writes past the daemon can't be made to wait for room.
const PASSTHROUGH_ROOM_BYTES: u64 = 8 << 30;
/// Shortest and longest time of one attempt: a third of what an operation may take, so that one that hangs is followed by
/// another.
const ATTEMPT_TIME: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(20));
/// For a daemon to learn that it was unmounted: the kernel tells it at once, a busy machine later.
const UNMOUNTED_TIME: Duration = Duration::from_secs(2);
/// Nobody sees that he waited this long.
const LOCK_INTERVAL: Duration = Duration::from_millis(20);
/// The file in the cache directory that says which bucket has answered from here.
pub const REACHED: &str = "reached";

/// How the memory that the daemon may use is shared out.
struct Memory {
    /// Parts and small files on their way up.
    parts_bytes: u64,
    /// Reads that the cache has no room for.
    reads_bytes: u64,
    /// A listing on its way into the tree: about 300,000 names at 128 MiB. While one is as long as that, hardly anything else is under way.
    listing_bytes: u64,
    /// What is known of names, at about half a KiB each.
    names: usize,
    /// Files that wait for their upload, at about 2 KiB each.
    waiting: usize,
}

/// The program, its threads' buffers, the journal's pages, and the names of some ten thousand files.
const PROGRAM_BYTES: u64 = 32 << 20;

impl Memory {
    fn of(limit_bytes: u64) -> Self {
        let left = limit_bytes.saturating_sub(PROGRAM_BYTES);
        Self {
            parts_bytes: left / 2,
            reads_bytes: left / 4,
            listing_bytes: limit_bytes / 2,
            names: (limit_bytes >> 10) as usize,
            waiting: (limit_bytes >> 10) as usize,
        }
    }
}

pub struct Layers {
    /// Held as long as the daemon lives.
    pub lock: DirectoryLock,
    pub journal: Arc<Journal>,
    pub cache: Arc<Cache>,
    pub writer: Arc<Writer>,
    pub fs: Arc<Fs>,
    pub s3: Arc<S3Store>,
    pub counts: RequestCounts,
}

/// The bucket as one mount sees it.
pub struct Bucket {
    /// Every request is one attempt.
    pub plain: Store,
    /// Limited and repeated.
    pub steady: Store,
    s3: Arc<S3Store>,
    /// It was configured, but did not answer.
    lost: Option<StoreError>,
}

/// umount returns before the daemon has sent everything: the mount that follows at once waits for that. Nobody else does for
/// longer than a moment, in which the daemon learns that it was unmounted.
async fn lock(settings: &Settings) -> error::Result<DirectoryLock> {
    let begun = Instant::now();
    let mut told = false;
    loop {
        let busy = match DirectoryLock::acquire(&settings.cache_dir) {
            Err(Error::Disk(error)) if error.kind() == io::ErrorKind::ResourceBusy => error,
            answer => return answer,
        };
        let left = DirectoryLock::is_left(&settings.cache_dir);
        let patience = if left { settings.drain_timeout } else { UNMOUNTED_TIME };
        if begun.elapsed() >= patience {
            return Err(Error::Disk(busy));
        }
        if left && !told {
            info!("waiting for the daemon that was unmounted here, and is still uploading");
            told = true;
        }
        sleep(LOCK_INTERVAL).await;
    }
}

pub async fn build(settings: &Settings) -> Result<Layers, DaemonError> {
    let lock = lock(settings).await.map_err(DaemonError::Start)?;
    let counts = RequestCounts::new();
    let bucket = reach_bucket(settings, &counts).await?;
    // Only now: the journal binds the directory to this bucket, which a mistyped one must not do.
    let journal = Arc::new(Journal::open(&settings.cache_dir, &settings.identity).map_err(DaemonError::Start)?);
    note_reached(settings, &bucket).map_err(|error| DaemonError::Start(error.into()))?;
    let trusted = journal.begin_session().map_err(DaemonError::Start)?;
    if !trusted {
        warn!("the machine went down under the last mount: cached files are fetched anew, unsent ones are kept");
    }
    let floor = process::floor_bytes(settings.free_space_floor, &settings.cache_dir).map_err(|error| DaemonError::Start(error.into()))?;
    let limits = Limits { size_bytes: settings.cache_size_bytes, free_floor_bytes: floor };
    let cache = Cache::open(&settings.cache_dir, Arc::clone(&journal), limits, trusted).map_err(DaemonError::Start)?;
    cache.keep_spares();
    let memory = Memory::of(settings.memory_limit_bytes);
    let tuning = Tuning { memory_bytes: memory.parts_bytes, ..Tuning::default() };
    let writer = Writer::open_tuned(Arc::clone(&bucket.steady), Arc::clone(&journal), Arc::clone(&cache), writer_config(settings), tuning);
    let writer = writer.map_err(DaemonError::Start)?;
    journal.believe().map_err(DaemonError::Start)?;
    let reading = ReaderConfig { timeout: settings.timeout, parallel: FETCHES_AT_ONCE };
    let reader = Reader::within(Arc::clone(&bucket.steady), reading, memory.reads_bytes);
    let parts = (Arc::clone(&journal), Arc::clone(&cache), Arc::clone(&writer));
    let fs = Fs::new(bucket.steady, parts.0, parts.1, reader, parts.2, fs_config(settings)).map_err(DaemonError::Start)?;
    if let Some(error) = bucket.lost {
        fs.assume_outage(clock::now(), error.to_string());
    } else if let Err(error) = fs.preload().await {
        warn!(%error, "can't list the bucket's root yet");
    }
    Ok(Layers { lock, journal, cache, writer, fs, s3: bucket.s3, counts })
}

/// The bucket, if it answers: for who can do nothing without it.
pub async fn answering_bucket(settings: &Settings) -> Result<Bucket, DaemonError> {
    let (bucket, answer) = ask_bucket(settings, &RequestCounts::new()).await?;
    answer.map(|()| bucket).map_err(DaemonError::Bucket)
}

/// Makes the connection and asks whether the bucket can be used.
async fn ask_bucket(settings: &Settings, counts: &RequestCounts) -> Result<(Bucket, store::Result<()>), DaemonError> {
    let begun = Instant::now();
    let bucket = timeout(REACH_TIME, connect(settings, counts)).await.unwrap_or_else(|_| Err(DaemonError::Bucket(no_answer(settings))))?;
    let left = REACH_TIME.saturating_sub(begun.elapsed());
    let answer = timeout(left, check_bucket(&bucket.plain)).await.unwrap_or_else(|_| Err(no_answer(settings)));
    Ok((bucket, answer))
}

async fn reach_bucket(settings: &Settings, counts: &RequestCounts) -> Result<Bucket, DaemonError> {
    let (bucket, answer) = ask_bucket(settings, counts).await?;
    match answer {
        Ok(()) => Ok(bucket),
        Err(error) if error.kind.is_transient() && was_reached(settings) => {
            warn!(error = advice(&error), "the bucket doesn't answer: mounting with what is in the cache, and trying on");
            Ok(Bucket { lost: Some(error), ..bucket })
        }
        Err(error) => Err(DaemonError::Bucket(error)),
    }
}

fn was_reached(settings: &Settings) -> bool {
    fs::read_to_string(settings.cache_dir.join(REACHED)).is_ok_and(|identity| identity == settings.identity)
}

fn note_reached(settings: &Settings, bucket: &Bucket) -> io::Result<()> {
    if bucket.lost.is_some() || was_reached(settings) {
        return Ok(());
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options.open(settings.cache_dir.join(REACHED))?.write_all(settings.identity.as_bytes())
}

fn no_answer(settings: &Settings) -> StoreError {
    let endpoint = settings.endpoint_url.as_deref().unwrap_or("the bucket");
    let message = format!("no answer from {endpoint} within {} seconds", REACH_TIME.as_secs());
    StoreError::new(ErrorKind::Timeout, Operation::ListObjectsV2.name(), "", message)
}

/// How a mount of these settings speaks to its bucket.
pub fn store_config(settings: &Settings, counts: &RequestCounts) -> S3Config {
    S3Config {
        endpoint_url: settings.endpoint_url.clone(),
        region: settings.region.clone(),
        r2: settings.r2,
        ca_file: settings.ca_file.clone(),
        credentials_file: settings.credentials_file.clone(),
        profile: settings.profile.clone(),
        credentials: settings.credentials.clone(),
        counts: counts.clone(),
        attempt_timeout: (settings.timeout / 3).clamp(ATTEMPT_TIME.0, ATTEMPT_TIME.1),
        ..S3Config::new(settings.bucket.as_str())
    }
}

async fn connect(settings: &Settings, counts: &RequestCounts) -> Result<Bucket, DaemonError> {
    let s3 = Arc::new(s3::connect(store_config(settings, counts)).await.map_err(DaemonError::Bucket)?);
    let bare: Store = s3.clone();
    let traced: Store = Arc::new(TraceStore::new(bare, counts.clone()));
    let limited: Store = Arc::new(LimitStore::new(Arc::clone(&traced), READS_AT_ONCE, CHANGES_AT_ONCE));
    let policy = if settings.r2 { RetryPolicy::r2() } else { RetryPolicy::default() };
    let retried: Store = Arc::new(RetryStore::new(limited, policy.with_max_elapsed(settings.timeout)));
    let prefixed = |inner: store::Store| -> Store { Arc::new(PrefixStore::new(inner, &settings.prefix)) };
    let steady = prefixed(retried);
    // Without attributes from the bucket, and no rule that says whom to ask, nobody would know the originals' sizes.
    let reads_originals = settings.posix_metadata || settings.rules.has_gzip();
    let steady = if reads_originals { gzip::decoded(steady) } else { steady };
    Ok(Bucket { plain: prefixed(traced), steady, s3, lost: None })
}

pub fn writer_config(settings: &Settings) -> WriterConfig {
    WriterConfig {
        on_conflict: settings.on_conflict,
        through: settings.write_mode == WriteMode::Through,
        r2: settings.r2,
        waiting_limit: Memory::of(settings.memory_limit_bytes).waiting,
        host: process::host_name(),
        rules: Arc::clone(&settings.rules),
        ..WriterConfig::default()
    }
}

pub fn fs_config(settings: &Settings) -> FsConfig {
    FsConfig {
        write_mode: settings.write_mode,
        ttl: settings.ttl,
        negative_ttl: settings.negative_ttl,
        exclusive: settings.exclusive,
        read_only: settings.read_only,
        no_access_times: settings.no_access_times,
        uid: settings.uid,
        gid: settings.gid,
        umask: settings.umask,
        folds_names: settings.r2,
        prefix_bytes: settings.prefix.len(),
        posix_metadata: settings.posix_metadata,
        unsafe_symlinks: settings.unsafe_symlinks,
        timeout: settings.timeout,
        passthrough_room_bytes: PASSTHROUGH_ROOM_BYTES,
        listing_bytes: Memory::of(settings.memory_limit_bytes).listing_bytes,
        names_limit: Memory::of(settings.memory_limit_bytes).names,
        public_url_base: settings.public_url_base.clone(),
        r2: settings.r2,
        rules: Arc::clone(&settings.rules),
    }
}
