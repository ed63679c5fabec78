//! S3 over HTTP in the process: what `mediafs demo` runs on, and the hermetic tests.
//!
//! The crate `s3s` speaks HTTP, XML and signatures; the storage behind it is ours: flat keys in byte order, so `a`
//! stands beside `a/b`, and conditional writes are atomic. It lives in memory or under a folder. R2 mode is strict: it
//! refuses what Cloudflare R2 refuses. Faults can be asked for while it runs.
//!
//! It must know nothing of this crate's own S3 client: a fault of the one must not hide in the other.
//!
//! - `server`, `connection`, `operation`, `faults`, `clock`: HTTP around the S3 service; `control`: faults from outside
//! - `service`: the operations; `objects`, `copy`, `multipart`, `answers` (listings, buckets) do them
//! - `storage`, `state`, `blob`, `ledger`: what is kept, in memory and on disk
//! - `conditions`, `listing`, `r2`: the rules, pure

mod answers;
mod blob;
mod clock;
mod conditions;
mod connection;
mod control;
mod copy;
mod faults;
mod ledger;
mod lies;
mod listing;
mod multipart;
mod objects;
mod operation;
mod r2;
mod server;
mod service;
mod state;
mod storage;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use s3s::service::S3ServiceBuilder;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use control::Control;
pub use faults::{Fault, Faults, Rule, RuleId};
pub use lies::Lie;

use conditions::Conditions;
use server::Server;
use state::{Change, Object};
use storage::Storage;

use crate::types::{ETag, ObjectHeaders};

/// Why an emulator can't start, or a test can't reach into it.
#[derive(Debug, Error)]
pub enum Error {
    #[error("can't listen on {address}: {source}; choose another address or port")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("can't keep data in {}: {message}; choose another folder, or stop who uses this one", folder.display())]
    Folder { folder: PathBuf, message: String },
    #[error("{0:?} is no bucket name: 3 to 63 lower-case letters, digits, dots and hyphens")]
    BucketName(String),
    #[error("emulator: {0}")]
    Operation(String),
}

pub type Result<T> = std::result::Result<T, Error>;

/// How to run an emulator. The default listens on a free port of the loopback address, keeps everything in memory and
/// has no bucket.
#[derive(Clone, Debug)]
pub struct EmulatorConfig {
    /// Port 0 takes a free one.
    pub address: SocketAddr,
    /// Where to keep the data; None keeps it in memory.
    pub folder: Option<PathBuf>,
    /// R2's rules instead of S3's.
    pub r2: bool,
    /// R2's rule of one write to a key in a second; zero leaves that one rule out.
    pub r2_write_interval: Duration,
    pub access_key: String,
    pub secret_key: String,
    /// Made at start where they don't exist.
    pub buckets: Vec<String>,
    /// The only region that requests may be signed for; None takes any. R2 mode has its own rule.
    pub region: Option<String>,
}

impl Default for EmulatorConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            folder: None,
            r2: false,
            r2_write_interval: r2::WRITE_INTERVAL,
            access_key: "mediafs".to_owned(),
            secret_key: "mediafs-secret".to_owned(),
            buckets: Vec::new(),
            region: None,
        }
    }
}

/// A running emulator. Dropped without [`stop`](Self::stop), it ends at once and cuts its connections.
pub struct Emulator {
    address: SocketAddr,
    storage: Arc<Storage>,
    server: Arc<Server>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

/// An object as it lies in the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    pub etag: ETag,
    pub last_modified: SystemTime,
    pub headers: ObjectHeaders,
    pub body: Bytes,
}

/// An upload that was neither completed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredUpload {
    pub key: String,
    pub id: String,
    /// Sizes in bytes by part number.
    pub parts: BTreeMap<i32, u64>,
}

impl Emulator {
    /// Opens the storage, makes the buckets and listens; on return requests are answered.
    pub async fn start(config: EmulatorConfig) -> Result<Self> {
        if let Some(name) = config.buckets.iter().find(|name| !s3s::path::check_bucket_name(name)) {
            return Err(Error::BucketName(name.clone()));
        }
        let listen = |source| Error::Listen { address: config.address, source };
        let listener = TcpListener::bind(config.address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let storage = Arc::new(Storage::open(config.folder.as_deref(), config.r2, config.r2_write_interval)?);
        for name in &config.buckets {
            let mut state = storage.state.lock();
            if state.bucket(name).is_err() {
                state.create_bucket(name, storage.now()).map_err(operation_failed)?;
            }
        }
        let mut service = S3ServiceBuilder::new(service::Service { storage: storage.clone() });
        let EmulatorConfig { access_key, secret_key, r2, region, .. } = config;
        service.set_config(clock::left_to_us());
        service.set_auth(service::Account { access_key, secret_key, r2 });
        let server = Server { service: service.build(), faults: Arc::default(), counts: Default::default(), r2, region };
        let server = Arc::new(server);
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(server::serve(server.clone(), listener, stopped));
        Ok(Self { address, storage, server, stop, serving })
    }

    /// The address as a URL, e.g. `http://127.0.0.1:40123`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn faults(&self) -> &Faults {
        &self.server.faults
    }

    /// For another thread, or another process on its other end: each line of text is a command, each answer one line.
    pub fn control(&self) -> Control {
        Control::new(Arc::clone(&self.server.faults))
    }

    /// Requests received since the start or the last reset, by S3 operation, failed ones included.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.server.counts.lock().clone()
    }

    pub fn reset_counts(&self) {
        self.server.counts.lock().clear();
    }

    /// Lets R2's limit on writes to one key see so much time go by.
    pub fn pass_time(&self, time: Duration) {
        self.storage.pass_time(time);
    }

    /// Takes no more requests, clears the faults, and waits for the requests under way.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        // Err is a panic in there; it was printed, and there is nothing left to stop.
        let _ = (&mut self.serving).await;
    }

    /// An object with its bytes. For tests: the whole body comes into memory.
    pub fn object(&self, bucket: &str, key: &str) -> Option<StoredObject> {
        let object = self.storage.state.lock().object(bucket, &self.storage.key(key)).ok()?;
        let body = objects::read_whole(&object).ok()?;
        let etag = ETag::new(&object.etag);
        Some(StoredObject { etag, last_modified: object.modified, headers: object.headers.clone(), body })
    }

    /// Puts an object in place past HTTP, conditions, counts, faults and R2's pace.
    pub fn put_raw(&self, bucket: &str, key: &str, body: impl Into<Bytes>, headers: ObjectHeaders) -> Result<ETag> {
        let written = self.storage.blobs.store(body.into()).map_err(|error| Error::Operation(error.to_string()))?;
        let object = Object {
            spelling: key.to_owned(),
            size: written.size,
            etag: blob::hex(&written.md5),
            modified: self.storage.now(),
            headers,
            part_sizes: Vec::new(),
            content: written.content,
        };
        let key = self.storage.key(key);
        let change = Change { bucket, key: &key, conditions: &Conditions::default(), pace: None };
        let object = self.storage.state.lock().put(&change, object).map_err(operation_failed)?;
        Ok(ETag::new(&object.etag))
    }

    /// Removes an object past HTTP; nothing there is success.
    pub fn delete_raw(&self, bucket: &str, key: &str) -> Result<()> {
        let key = self.storage.key(key);
        self.storage.state.lock().delete(bucket, &key, &Conditions::default()).map_err(operation_failed)
    }

    /// All keys in byte order, as they were spelled.
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        let state = self.storage.state.lock();
        state.bucket(bucket).map_or_else(|_| Vec::new(), |bucket| bucket.objects.values().map(|object| object.spelling.clone()).collect())
    }

    pub fn uploads(&self, bucket: &str) -> Vec<StoredUpload> {
        let state = self.storage.state.lock();
        let in_bucket = state.uploads.iter().filter(|(_, upload)| upload.bucket == bucket);
        let stored = in_bucket.map(|(id, upload)| StoredUpload {
            key: upload.spelling.clone(),
            id: id.clone(),
            parts: upload.parts.iter().map(|(number, part)| (*number, part.size)).collect(),
        });
        stored.collect()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn operation_failed(error: s3s::S3Error) -> Error {
    Error::Operation(error.to_string())
}

/// Runs an emulator until `until` is done, then stops it in order.
pub async fn run(config: EmulatorConfig, until: impl Future<Output = ()>) -> Result<()> {
    let emulator = Emulator::start(config).await?;
    tracing::info!("S3 emulator at {}", emulator.endpoint());
    until.await;
    emulator.stop().await;
    Ok(())
}

/// Runs an emulator for as long as the process lives; returns only where it can't start.
pub async fn serve_forever(config: EmulatorConfig) -> Result<()> {
    run(config, std::future::pending()).await
}
