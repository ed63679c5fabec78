//! One suite for every implementation of the store: what the layers above rely on, tried on each.
//!
//! Here: the one in memory, and the S3 client on the emulator, with S3's rules and with R2's. A further implementation is
//! a constructor of its [`Subject`] and a line with `conformance!`. MinIO needs a server, so it has a test binary of its
//! own (`tests/minio_conformance.rs`, feature `minio-tests`) with the same suite.

#[macro_use]
mod suite;

use std::sync::Arc;
use std::time::Duration;

use mediafs::emulator::{Emulator, EmulatorConfig};
use mediafs::store::memory::MemoryStore;
use mediafs::store::s3::{S3Config, StaticCredentials, connect};
use suite::Subject;

const BUCKET: &str = "conformance";

/// Parts of 1 KiB are large enough here.
async fn memory() -> Subject {
    let store = MemoryStore::new().with_min_part_bytes(1024);
    Subject { min_part_bytes: 1024, serves_http: false, ..Subject::new(Arc::new(store)) }
}

async fn s3_on_emulator() -> Subject {
    on_emulator(EmulatorConfig::default()).await
}

/// The suite writes the same keys many times; R2's limit on that has tests of its own.
async fn s3_on_r2_emulator() -> Subject {
    let subject = on_emulator(EmulatorConfig { r2: true, r2_write_interval: Duration::ZERO, ..EmulatorConfig::default() }).await;
    Subject { folds_names: true, ..subject }
}

async fn on_emulator(config: EmulatorConfig) -> Subject {
    let config = EmulatorConfig { buckets: vec![BUCKET.to_owned()], ..config };
    let r2 = config.r2;
    let credentials = Some(StaticCredentials::new(&config.access_key, &config.secret_key));
    let emulator = Emulator::start(config).await.expect("an emulator");
    let config = S3Config { endpoint_url: Some(emulator.endpoint()), credentials, r2, ..S3Config::new(BUCKET) };
    let store = connect(config).await.expect("a valid configuration");
    Subject { _server: Some(Box::new(emulator)), ..Subject::new(Arc::new(store)) }
}

conformance!(memory);
conformance!(s3_on_emulator);
conformance!(s3_on_r2_emulator);
