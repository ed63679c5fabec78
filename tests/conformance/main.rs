//! One suite for every implementation of the store: what the layers above rely on, tried on each.
//!
//! A further implementation is a constructor of its [`Subject`] and a line with `conformance!`. MinIO needs a server,
//! so it has a test binary of its own (`tests/minio_conformance.rs`, feature `minio-tests`) with the same suite.

#[macro_use]
mod suite;

use std::sync::Arc;

use mediafs::store::memory::MemoryStore;
use suite::Subject;

/// Parts of 1 KiB are large enough here.
async fn memory() -> Subject {
    let store = MemoryStore::new().with_min_part_bytes(1024);
    Subject { store: Arc::new(store), min_part_bytes: 1024, serves_http: false }
}

conformance!(memory);
