//! A bucket in memory with S3's semantics: flat keys in byte order, MD5 ETags, atomic conditions, multipart uploads.
//!
//! It is the twin that tests and simulation run on: no sleep, no I/O, no randomness, and time only from the clock that
//! it is given. Every operation takes effect at one instant, under one lock. It passes the same conformance suite as
//! the real stores; where S3's implementations differ, it does what AWS documents.

mod listing;
mod objects;
mod uploads;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use self::uploads::Uploads;
use super::{
    Body, Condition, ErrorKind, ListPage, ListRequest, ObjectBody, ObjectStore, Operation, Part, PendingUpload, Receipt, Result,
    StoreError, UploadId,
};
use crate::clock;
use crate::types::{Archive, ETag, Key, ObjectHeaders, ObjectInfo, Span, Version};

/// S3's smallest part that isn't the last.
const MIN_PART_BYTES: u64 = 5 << 20;
/// S3's longest key.
const MAX_KEY_BYTES: usize = 1024;
/// S3's most keys in one DeleteObjects.
const MAX_DELETES: usize = 1000;

type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

pub struct MemoryStore {
    state: Mutex<State>,
    min_part_bytes: u64,
    clock: Clock,
    files_hide_directories: bool,
}

#[derive(Clone, Default)]
struct State {
    objects: BTreeMap<Key, Object>,
    uploads: Uploads,
}

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    etag: ETag,
    last_modified: SystemTime,
    headers: ObjectHeaders,
}

impl Object {
    fn info(&self) -> ObjectInfo {
        ObjectInfo {
            size: self.bytes.len() as u64,
            etag: self.etag.clone(),
            last_modified: self.last_modified,
            headers: self.headers.clone(),
            archive: Archive::of(self.headers.storage_class.as_deref(), None),
        }
    }

    fn receipt(&self) -> Receipt {
        Receipt::new(self.etag.clone(), self.bytes.len() as u64)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty bucket on the system's clock, with S3's smallest part of 5 MiB.
    pub fn new() -> Self {
        Self { state: Mutex::default(), min_part_bytes: MIN_PART_BYTES, clock: Arc::new(clock::now), files_hide_directories: false }
    }

    /// Accepts parts from this size on, so that tests of multipart uploads can be small.
    pub fn with_min_part_bytes(mut self, bytes: u64) -> Self {
        self.min_part_bytes = bytes;
        self
    }

    /// Takes every Last-Modified from `clock`.
    pub fn with_clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Lists below `a/` nothing but the marker while there is an object `a`, as MinIO does.
    pub fn with_files_that_hide_directories(mut self) -> Self {
        self.files_hide_directories = true;
        self
    }

    /// Another bucket that holds what this one holds now, uploads under way included; from here on they go their own ways.
    pub fn fork(&self) -> Self {
        let (clock, state) = (Arc::clone(&self.clock), Mutex::new(self.state.lock().clone()));
        Self { state, clock, min_part_bytes: self.min_part_bytes, files_hide_directories: self.files_hide_directories }
    }

    /// All keys in byte order.
    pub fn keys(&self) -> Vec<Key> {
        self.state.lock().objects.keys().cloned().collect()
    }

    /// The bytes and facts of an object as they are now.
    pub fn object(&self, key: &Key) -> Option<(Bytes, ObjectInfo)> {
        self.state.lock().objects.get(key).map(|object| (object.bytes.clone(), object.info()))
    }
}

fn fail<T>(kind: ErrorKind, operation: Operation, key: &Key, message: &str) -> Result<T> {
    Err(StoreError::new(kind, operation.name(), key, message))
}

fn check_key(operation: Operation, key: &Key) -> Result<()> {
    match key.as_str().len() {
        0 => fail(ErrorKind::InvalidName, operation, key, "the empty key names no object"),
        1..=MAX_KEY_BYTES => Ok(()),
        _ => fail(ErrorKind::InvalidName, operation, key, "KeyTooLongError: your key is longer than 1,024 bytes"),
    }
}

/// The headers as a store gives them back: never without a type, and the standard class is not named.
fn normal_headers(headers: &ObjectHeaders) -> ObjectHeaders {
    let mut headers = headers.clone();
    headers.content_type.get_or_insert_with(|| "application/octet-stream".to_owned());
    headers.storage_class = headers.storage_class.filter(|class| class != "STANDARD");
    headers.metadata = headers.metadata.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    headers
}

#[async_trait]
impl ObjectStore for MemoryStore {
    /// Last-Modified has whole seconds in S3's headers, so it has them here.
    fn now(&self) -> SystemTime {
        let since_epoch = (self.clock)().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        SystemTime::UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs())
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo> {
        self.state.lock().find(Operation::HeadObject, key, None).map(Object::info)
    }

    async fn get(&self, key: &Key, span: Option<Span>, if_match: Option<&ETag>) -> Result<ObjectBody> {
        self.state.lock().get(key, span, if_match)
    }

    async fn put(&self, key: &Key, body: Body, headers: &ObjectHeaders, condition: &Condition) -> Result<Receipt> {
        check_key(Operation::PutObject, key)?;
        let now = self.now();
        self.state.lock().put(key, body, headers, condition, now)
    }

    async fn copy(&self, from: &Version, to: &Key, headers: Option<&ObjectHeaders>) -> Result<Receipt> {
        check_key(Operation::CopyObject, to)?;
        let now = self.now();
        self.state.lock().copy(from, to, headers, now)
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        check_key(Operation::DeleteObject, key)?;
        self.state.lock().objects.remove(key);
        Ok(())
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<Vec<Result<()>>> {
        if keys.len() > MAX_DELETES {
            return fail(ErrorKind::Other, Operation::DeleteObjects, &Key::root(), "MalformedXML: more than 1,000 keys");
        }
        let mut state = self.state.lock();
        let delete = |key| {
            check_key(Operation::DeleteObjects, key)?;
            state.objects.remove(key);
            Ok(())
        };
        Ok(keys.iter().map(delete).collect())
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        let objects = &self.state.lock().objects;
        let directory = Key::new(&*request.prefix);
        if self.files_hide_directories && directory.is_marker() && objects.contains_key(&directory.without_slash()) {
            let marker = objects.get_key_value(&directory).map(|(key, object)| (key.clone(), object.clone()));
            return Ok(listing::page(&marker.into_iter().collect(), request));
        }
        Ok(listing::page(objects, request))
    }

    async fn create_upload(&self, key: &Key, headers: &ObjectHeaders) -> Result<UploadId> {
        check_key(Operation::CreateMultipartUpload, key)?;
        let now = (self.clock)();
        Ok(self.state.lock().uploads.create(key, normal_headers(headers), now))
    }

    async fn upload_part(&self, key: &Key, upload: &UploadId, number: u32, body: Body) -> Result<Part> {
        self.state.lock().uploads.put_part(Operation::UploadPart, key, upload, number, body.bytes)
    }

    async fn copy_part(&self, key: &Key, upload: &UploadId, number: u32, from: &Key, if_match: Option<&ETag>, span: Span) -> Result<Part> {
        self.state.lock().copy_part(key, upload, number, from, if_match, span)
    }

    async fn complete_upload(&self, key: &Key, upload: &UploadId, parts: &[Part], condition: &Condition) -> Result<Receipt> {
        let now = self.now();
        self.state.lock().complete(key, upload, parts, condition, self.min_part_bytes, now)
    }

    async fn abort_upload(&self, key: &Key, upload: &UploadId) -> Result<()> {
        self.state.lock().uploads.abort(key, upload);
        Ok(())
    }

    async fn list_uploads(&self) -> Result<Vec<PendingUpload>> {
        Ok(self.state.lock().uploads.pending())
    }

    /// Names the object and its expiry, for nobody to fetch: there is no server.
    async fn presign_get(&self, key: &Key, expires: Duration) -> Result<String> {
        Ok(format!("memory:///{key}?X-Amz-Expires={}", expires.as_secs()))
    }
}
