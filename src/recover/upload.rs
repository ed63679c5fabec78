//! Sends what waits, as the next mount would: the same journal, cache and writer, and nothing of a file system above.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::inventory::look;
use super::repair::repair;
use crate::cache::{Cache, Limits};
use crate::daemon::{DaemonError, Settings, answering_bucket, writer_config};
use crate::error::Error;
use crate::journal::{Content, Journal};
use crate::types::{FileId, Key, ObjectHeaders, Version};
use crate::writer::{Backlog, Events, Writer};

/// Nobody waits longer for anything.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);
const LOOK: Duration = Duration::from_millis(200);

/// A cache directory that is being sent.
pub struct Uploading {
    journal: Arc<Journal>,
    cache: Arc<Cache>,
    writer: Arc<Writer>,
    /// Given up when the bucket has not answered for so long.
    patience: Duration,
    /// A damaged journal is there now.
    pub damaged: Option<PathBuf>,
}

impl Uploading {
    /// Asks the bucket, repairs what is damaged, and starts. `copied`: the directory comes from a machine that did not go
    /// down, so what was written last can be trusted under another boot too. The caller holds the directory's lock.
    pub async fn start(settings: &Settings, copied: bool) -> Result<Uploading, DaemonError> {
        let bucket = answering_bucket(settings).await?;
        let (journal, damaged) = open(settings).map_err(DaemonError::Start)?;
        let trusted = if copied { journal.begin_session_trusted() } else { journal.begin_session() }.map_err(DaemonError::Start)?;
        if !trusted {
            warn!("the machine went down, or the directory was copied: what was written last may be missing; --copied if it did not");
        }
        // Nothing is fetched here, so nothing has to give way.
        let limits = Limits { size_bytes: i64::MAX as u64, free_floor_bytes: 0 };
        let cache = Cache::open(&settings.cache_dir, Arc::clone(&journal), limits, trusted).map_err(DaemonError::Start)?;
        let writer = Writer::open(bucket.steady, Arc::clone(&journal), Arc::clone(&cache), writer_config(settings));
        let writer = writer.map_err(DaemonError::Start)?;
        journal.believe().map_err(DaemonError::Start)?;
        let uploading = Uploading { journal, cache, writer, patience: settings.timeout, damaged };
        uploading.writer.claim_left_overs();
        uploading.writer.start(Arc::new(Told));
        Ok(uploading)
    }

    pub fn backlog(&self) -> Backlog {
        self.writer.backlog()
    }

    /// Returns when everything is in the bucket, what is left has failed for good, or the bucket stays away.
    pub async fn wait(&self) -> Backlog {
        let stays_away = async {
            let mut answered = Instant::now();
            loop {
                sleep(LOOK).await;
                match self.backlog().degraded {
                    None => answered = Instant::now(),
                    Some(_) if answered.elapsed() > self.patience => return,
                    Some(_) => {}
                }
            }
        };
        tokio::select! {
            _ = self.writer.drain(FOR_EVER) => {}
            () = stays_away => {}
        }
        self.backlog()
    }

    /// Leaves the directory in good order.
    pub async fn end(self) -> Result<(), DaemonError> {
        let Uploading { journal, cache, writer, .. } = self;
        writer.stop();
        let ended = spawn_blocking(move || cache.sync().and_then(|()| journal.end_session())).await;
        ended.map_err(std::io::Error::other)?.map_err(DaemonError::Start)
    }
}

/// Opens the journal; a damaged one is replaced by what is left of it.
fn open(settings: &Settings) -> Result<(Arc<Journal>, Option<PathBuf>), Error> {
    match Journal::open(&settings.cache_dir, &settings.identity) {
        Err(Error::Corrupt(why)) => {
            warn!("{why}");
            let (inventory, salvage) = look(&settings.cache_dir)?;
            let (damaged, moved) = repair(&settings.cache_dir, &inventory, salvage, &settings.identity)?;
            if moved > 0 {
                warn!("{moved} data files that no row names were put aside in {}/unnamed", settings.cache_dir.display());
            }
            Ok((Arc::new(Journal::open(&settings.cache_dir, &settings.identity)?), Some(damaged)))
        }
        journal => Ok((Arc::new(journal?), None)),
    }
}

/// There is no file system to tell.
struct Told;

impl Events for Told {
    fn headers(&self, _: &Key, _: FileId) -> Option<ObjectHeaders> {
        None
    }

    fn stored(&self, _: &Content, version: &Version, _: Option<&ObjectHeaders>, _: SystemTime, _: bool) {
        info!(key = %version.key, size = version.size, "stored");
    }

    fn renewed(&self, _: &Key, _: &Version, _: &Version) {}

    fn deleted(&self, key: &Key) {
        info!(%key, "deleted");
    }

    fn conflict(&self, key: &Key, kept_as: Option<&Key>) {
        match kept_as {
            Some(kept_as) => warn!(%key, %kept_as, "another host changed it too: ours is kept beside it"),
            None => warn!(%key, "another host made it first: ours was given up"),
        }
    }
}
