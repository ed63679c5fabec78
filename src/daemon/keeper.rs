//! Every few seconds, brings to the disk what was written since: data files, then the journal. A power cut then costs
//! what it costs a local disk, while no write waits for an fsync. Also keeps the service manager's status line right, and
//! notices when the bucket answers nobody any more.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::service::ServiceManager;
use super::status::Sources;
use crate::journal::Journal;

/// Below ext4's own 5 s.
const INTERVAL: Duration = Duration::from_secs(3);

/// So long without any answer is an outage. What is repeated within the retries' first seconds is not.
const SILENCE: Duration = Duration::from_secs(4);

/// What moves whenever something was written. Equal before and after: nothing to sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    cache_bytes: u64,
    cache_files: u64,
    dirty_files: u64,
    requests: u64,
}

pub async fn keep(sources: Arc<Sources>, journal: Arc<Journal>, service: Arc<ServiceManager>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut last, mut failing) = (Mark::default(), false);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = journal.swollen() => ticks.reset(),
        }
        if let Some(silence) = sources.counts.silence().filter(|silence| silence.begun.elapsed() >= SILENCE) {
            sources.fs.assume_outage(silence.since, silence.error);
        }
        let mark = mark(&sources);
        // Bytes of a file that is dirty already move nothing that is counted.
        if mark == last && mark.dirty_files == 0 {
            continue;
        }
        last = mark;
        service.status(&sources.report().line());
        let theirs = Arc::clone(&sources);
        let synced = spawn_blocking(move || theirs.cache.persist()).await;
        let error = synced.map_or_else(|panic| Some(panic.to_string()), |result| result.err().map(|error| error.to_string()));
        match &error {
            Some(error) if !failing => warn!(error, "can't bring written data to the disk: a power cut would lose it"),
            None if failing => info!("written data reaches the disk again"),
            _ => {}
        }
        failing = error.is_some();
    }
}

fn mark(sources: &Sources) -> Mark {
    let (usage, backlog) = (sources.cache.usage(), sources.writer.backlog());
    Mark {
        cache_bytes: usage.bytes,
        cache_files: usage.files,
        dirty_files: backlog.dirty_files.max(u64::from(usage.dirty_bytes > 0)),
        requests: sources.counts.snapshot().values().sum(),
    }
}
