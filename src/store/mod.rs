//! The one seam to the bucket: a small trait over objects, and what its callers can do about an error.
//!
//! Nothing here knows files, inodes or paths. An implementation does one attempt of one operation; retrying, limiting,
//! counting and fault injection are decorators around it. Every change of the bucket returns a [`Receipt`], which only
//! this module can make: it is the evidence that lets the layers above mark data clean.

mod advice;
mod checksum;
mod error;
pub mod fault;
pub mod gzip;
pub mod limit;
pub mod memory;
mod metadata;
mod operation;
mod pages;
pub mod prefix;
mod probe;
pub mod retry;
pub mod s3;
pub mod timing;
pub mod trace;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub use advice::{advice, remedy};
pub use checksum::{md5, multipart_count, multipart_etag, plain_etag, plain_md5};
pub use error::{ErrorKind, StoreError};
pub use metadata::metadata_bytes;
pub use operation::{Bill, Operation};
pub use pages::Pages;
pub use probe::check_bucket;

use crate::types::{ETag, Key, ListedObject, ObjectHeaders, ObjectInfo, Span, Version};

pub type Result<T> = std::result::Result<T, StoreError>;

/// What must hold for a write to take effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Condition {
    /// Replace whatever is there.
    #[default]
    Any,
    /// `If-None-Match: *`: only a new name.
    IfAbsent,
    /// `If-Match`: only this version is replaced.
    IfMatch(ETag),
}

/// The bytes of one request. Cloning is cheap, so an attempt can be repeated.
#[derive(Clone, Debug)]
pub struct Body {
    pub bytes: Bytes,
    /// MD5 of `bytes`, sent as Content-MD5 and compared with the returned ETag.
    pub md5: [u8; 16],
}

/// Evidence that the bucket holds what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a receipt is the only evidence that data is in the bucket"]
pub struct Receipt {
    etag: ETag,
    size: u64,
}

impl Receipt {
    /// Only the store's own modules make one.
    pub(in crate::store) fn new(etag: ETag, size: u64) -> Self {
        Self { etag, size }
    }

    pub fn etag(&self) -> &ETag {
        &self.etag
    }

    /// In bytes, of the whole object.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// One uploaded part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// From 1.
    pub number: u32,
    pub etag: ETag,
    /// In bytes.
    pub size: u64,
}

/// The name of a multipart upload under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct UploadId(pub String);

/// One multipart upload that the bucket knows of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingUpload {
    pub key: Key,
    pub id: UploadId,
    /// By the store's clock.
    pub initiated: SystemTime,
}

/// The answer to a GET: the whole object's facts, and the asked bytes as they arrive.
pub struct ObjectBody {
    pub info: ObjectInfo,
    /// The bytes that `stream` carries, as offsets into the object.
    pub span: Span,
    /// MD5 of the whole object, where its ETag surely is that.
    pub md5: Option<[u8; 16]>,
    pub stream: BoxStream<'static, Result<Bytes>>,
}

/// What to list. Keys come in byte order, but callers must not depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListRequest {
    pub prefix: String,
    /// Fold everything below the next `/` into `prefixes`.
    pub by_directory: bool,
    /// Only keys after this one (exclusive).
    pub start_after: Option<String>,
    /// From the page before; wins over `start_after`.
    pub token: Option<String>,
    /// At most this many keys and prefixes together; 1,000 at the most.
    pub max_keys: Option<u32>,
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListPage {
    pub objects: Vec<ListedObject>,
    /// Directories, each with its trailing slash.
    pub prefixes: Vec<Key>,
    /// Some as long as the listing is truncated, however short this page is.
    pub next: Option<String>,
}

/// A bucket. All operations are one attempt unless a decorator says otherwise; all are safe to cancel.
#[async_trait]
pub trait ObjectStore: Send + Sync + 'static {
    /// The time by the store's clock, as well as its answers tell it: right to a second. Ours where none has come yet.
    fn now(&self) -> SystemTime;

    async fn head(&self, key: &Key) -> Result<ObjectInfo>;

    /// `span` None asks for the whole object; a span is clamped to the object's end and must not be empty.
    /// `if_match` pins the version: [`ErrorKind::PreconditionFailed`] where it is gone.
    async fn get(&self, key: &Key, span: Option<Span>, if_match: Option<&ETag>) -> Result<ObjectBody>;

    async fn put(&self, key: &Key, body: Body, headers: &ObjectHeaders, condition: &Condition) -> Result<Receipt>;

    /// Server-side copy of one version (to 5 GiB). `headers` None keeps the source's but for its storage class, Some replaces them
    /// all.
    /// Copying an object onto itself needs `headers`. The ETag is a condition on the source: PreconditionFailed where that
    /// version is gone; the size is believed.
    async fn copy(&self, from: &Version, to: &Key, headers: Option<&ObjectHeaders>) -> Result<Receipt>;

    /// Succeeds also where there was nothing.
    async fn delete(&self, key: &Key) -> Result<()>;

    /// Up to 1,000 keys; the answers are in the keys' order. Err is the request's own failure.
    async fn delete_many(&self, keys: &[Key]) -> Result<Vec<Result<()>>>;

    async fn list(&self, request: &ListRequest) -> Result<ListPage>;

    async fn create_upload(&self, key: &Key, headers: &ObjectHeaders) -> Result<UploadId>;

    async fn upload_part(&self, key: &Key, upload: &UploadId, number: u32, body: Body) -> Result<Part>;

    /// One part from `span` of another object's version.
    async fn copy_part(&self, key: &Key, upload: &UploadId, number: u32, from: &Key, if_match: Option<&ETag>, span: Span) -> Result<Part>;

    /// `parts` in the order of their numbers. The upload is gone after success, and may be after a failed condition.
    async fn complete_upload(&self, key: &Key, upload: &UploadId, parts: &[Part], condition: &Condition) -> Result<Receipt>;

    /// Succeeds also where the upload is unknown.
    async fn abort_upload(&self, key: &Key, upload: &UploadId) -> Result<()>;

    /// All unfinished uploads below the mount's prefix.
    async fn list_uploads(&self) -> Result<Vec<PendingUpload>>;

    /// A URL that lets anyone read the object until it expires (1 s to 7 days).
    async fn presign_get(&self, key: &Key, expires: Duration) -> Result<String>;
}

pub type Store = Arc<dyn ObjectStore>;
