//! One mount from its beginning to its end: builds the layers, serves, and drains.
//!
//! ```text
//! settings  what a mount needs to know
//! layers    bucket, journal, cache, writer, reader, fs
//! keeper    brings written data to the disk every few seconds
//! monitor   the status page, the numbers for Prometheus, health checks
//! exposition the numbers for Prometheus
//! history   the last hour, for plots and the cost of a month
//! cost      what requests cost
//! status    the report that `status` shows
//! reload    SIGHUP: what of the configuration can change
//! service   sd_notify, the watchdog
//! signals   SIGTERM and its like
//! process   umask, limits, core dumps, disk size
//! privileges from root to another user
//! ```
//!
//! The end is the same whoever asks for it: nothing new is taken, what is written goes up for as long as the drain may
//! last, and what is left waits in the cache directory for the next mount. Nothing is lost by ending early.

mod cost;
mod exposition;
mod history;
mod keeper;
mod layers;
mod monitor;
mod privileges;
mod process;
mod reload;
mod service;
mod settings;
mod signals;
mod status;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

pub use cost::{Billed, Cost, Prices};
pub use layers::{Bucket, REACHED, answering_bucket, store_config, writer_config};
pub use privileges::run_as;
pub use process::floor_bytes;
pub use reload::Reread;
pub use settings::{Account, FreeSpaceFloor, LogFormat, LogSettings, Settings};
pub use signals::{Asked, Signals};
pub use status::{Degraded, FailedFile, Report, STATUS_ATTRIBUTE, bytes_text};

use crate::fuse::{self, EdgeOptions, MountError, MountOptions, Mounted};
use crate::journal::{DirectoryLock, Journal};
use crate::store::{StoreError, advice};
use crate::types::Live;
use history::History;
use service::ServiceManager;
use status::Sources;

/// Why a mount did not come about. Each is one line that says what to change.
#[derive(Debug, Error)]
pub enum DaemonError {
    #[error("{0}")]
    Mount(#[from] MountError),
    #[error("{}", advice(.0))]
    Bucket(StoreError),
    #[error("{0}")]
    Start(crate::error::Error),
    #[error("--metrics {0}: {1}; give another address or port")]
    Metrics(SocketAddr, io::Error),
    #[error("{0}")]
    System(#[from] io::Error),
}

/// More workers than cores only take turns; fewer than two, and one busy task stops the others.
const WORKERS: std::ops::RangeInclusive<usize> = 2..=8;
/// fsync and hashing: a disk gains nothing from more.
const BLOCKING_THREADS: usize = 32;
/// After a lazy unmount, for the kernel to close what no program has open.
const CLOSING_TIME: Duration = Duration::from_secs(1);
/// How often the service manager hears that the drain goes on …
const DRAIN_REPORT: Duration = Duration::from_secs(5);
/// … and how much longer it shall wait each time.
const DRAIN_EXTENSION: Duration = Duration::from_secs(30);

/// Prepares the process and makes the runtime that everything runs on.
pub fn runtime() -> io::Result<Runtime> {
    process::prepare();
    let cores = std::thread::available_parallelism().map_or(*WORKERS.start(), usize::from);
    Builder::new_multi_thread()
        .worker_threads(cores.clamp(*WORKERS.start(), *WORKERS.end()))
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("mediafs")
        .enable_all()
        .build()
}

/// A mount that is up.
pub struct Daemon {
    sources: Arc<Sources>,
    journal: Arc<Journal>,
    mounted: Mounted,
    service: Arc<ServiceManager>,
    signals: Signals,
    /// What goes on beside: keeper, history, watchdog.
    tasks: Vec<JoinHandle<()>>,
    reread: Option<Reread>,
    /// Serves until the drain is over.
    monitor: Option<JoinHandle<()>>,
    lock: DirectoryLock,
}

impl Daemon {
    /// Mounts; on return the mount point answers.
    pub async fn mount(mut settings: Settings) -> Result<Self, DaemonError> {
        let signals = Signals::listen()?;
        let point = fuse::prepare(&settings.mountpoint)?;
        point.path().clone_into(&mut settings.mountpoint);
        let metrics = listen(settings.metrics).await?;
        let layers = layers::build(&settings).await?;
        let mount_options = MountOptions {
            source: settings.source.clone(),
            allow_other: settings.allow_other,
            read_only: settings.read_only,
            no_exec: settings.no_exec,
            no_access_times: settings.no_access_times,
        };
        let counts = layers.counts.clone();
        let edge_options = EdgeOptions {
            deadline: settings.timeout,
            progress: Arc::new(move || counts.answered()),
            keep_listings: settings.exclusive,
            passthrough: process::passthrough(&settings),
            stacked: process::is_overlay(&settings.cache_dir),
        };
        let sources = Arc::new(Sources {
            settings: Live::new(settings),
            fs: Arc::clone(&layers.fs),
            writer: layers.writer,
            cache: layers.cache,
            counts: layers.counts,
            s3: layers.s3,
            history: History::default(),
            started: Instant::now(),
        });
        let reported = Arc::downgrade(&sources);
        layers.fs.set_status(Arc::new(move || {
            let report = reported.upgrade().map(|sources| sources.report());
            // A report is made of texts and numbers, which always are JSON.
            report.and_then(|report| serde_json::to_string(&report).ok()).unwrap_or_default()
        }));
        let mounted = fuse::serve(&layers.fs, &point, &mount_options, edge_options)?;
        let service = Arc::new(ServiceManager::from_environment());
        let tasks = vec![
            tokio::spawn(keeper::keep(Arc::clone(&sources), Arc::clone(&layers.journal), Arc::clone(&service))),
            tokio::spawn(history::record(Arc::clone(&sources))),
            tokio::spawn(service::watch(Arc::clone(&service), Arc::clone(&sources))),
        ];
        let monitor = metrics.map(|listener| tokio::spawn(monitor::serve(listener, Arc::clone(&sources))));
        info!(source = mount_options.source, mountpoint = %point.path().display(), "mounted");
        service.ready();
        Ok(Self { sources, journal: layers.journal, mounted, service, signals, tasks, reread: None, monitor, lock: layers.lock })
    }

    /// With SIGHUP the configuration is read again this way.
    pub fn rereading(self, reread: Reread) -> Self {
        Self { reread: Some(reread), ..self }
    }

    /// Serves until somebody unmounts or a signal asks for the end, then drains. How many files still wait.
    pub async fn serve(mut self) -> usize {
        while self.goes_on().await {}
        self.service.stopping();
        self.lock.leaving();
        self.sources.fs.close_for_writes();
        let waiting = self.drain().await;
        self.end().await;
        let directory = self.sources.settings.cache_dir.display();
        match waiting {
            0 => info!("all is in the bucket"),
            files => warn!(files, "not everything is in the bucket: the rest waits in {directory} and goes up with the next mount"),
        }
        waiting
    }

    /// False: somebody unmounted, or a signal asked for the end.
    async fn goes_on(&mut self) -> bool {
        let asked = tokio::select! {
            ended = self.mounted.ended() => {
                match ended {
                    Ok(()) => info!("unmounted"),
                    Err(error) => warn!(%error, "the kernel ended the session"),
                }
                return false;
            }
            asked = self.signals.asked() => asked,
        };
        match asked {
            Asked::Reload => {
                self.service.reloading();
                reload::reload(&self.sources, self.reread.as_ref()).await;
                self.service.ready();
                true
            }
            Asked::End(signal) => {
                info!(signal, "ending");
                self.mounted.detach();
                // Longer where a program has something open: it keeps that until the process is gone.
                if timeout(CLOSING_TIME, self.mounted.ended()).await.is_err() {
                    info!("files are still open: no more changes are taken from them");
                }
                false
            }
        }
    }

    async fn drain(&mut self) -> usize {
        let line = self.sources.report().line();
        if self.sources.writer.backlog().dirty_files > 0 {
            info!("{line}: waiting for that, {} at the most", humantime::format_duration(self.sources.settings.drain_timeout));
        }
        let sources = Arc::clone(&self.sources);
        let draining = sources.writer.drain(sources.settings.drain_timeout);
        tokio::select! {
            waiting = draining => waiting,
            signal = self.signals.next() => {
                warn!(signal, "ending at once");
                sources.writer.backlog().dirty_files as usize
            }
            () = report_draining(&self.service, &sources) => 0,
        }
    }

    /// Leaves the cache directory in good order.
    async fn end(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        if let Some(monitor) = &self.monitor {
            monitor.abort();
        }
        let (sources, journal) = (Arc::clone(&self.sources), Arc::clone(&self.journal));
        let ended = spawn_blocking(move || {
            sources.cache.drop_spares();
            sources.cache.persist().and_then(|()| journal.end_session())
        })
        .await;
        let error = ended.map_or_else(|panic| Some(panic.to_string()), |result| result.err().map(|error| error.to_string()));
        if let Some(error) = error {
            warn!(error, "the cache directory was not closed in good order; the next mount looks it over");
        }
    }
}

/// Before anything is built: an address that is taken is a mistake to be told of at once.
async fn listen(address: Option<SocketAddr>) -> Result<Option<TcpListener>, DaemonError> {
    let Some(address) = address else { return Ok(None) };
    TcpListener::bind(address).await.map(Some).map_err(|error| DaemonError::Metrics(address, error))
}

/// Never ends by itself.
async fn report_draining(service: &ServiceManager, sources: &Sources) {
    loop {
        service.status(&sources.report().line());
        service.extend_timeout(DRAIN_EXTENSION);
        sleep(DRAIN_REPORT).await;
    }
}
