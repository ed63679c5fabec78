//! Counts requests by operation and how long they took, notes since when none was answered, and writes one debug line for each.
//!
//! Placed directly around the store, so that every attempt is counted: requests are what is billed. A presigned URL
//! is a secret and no request: it is neither counted nor logged.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::debug;

use super::timing::{Times, Timing};
use super::{
    Body, Condition, ErrorKind, ListPage, ListRequest, ObjectBody, ObjectStore, Operation, Part, PendingUpload, Receipt, Result, Store,
    StoreError, UploadId,
};
use crate::clock;
use crate::types::{ETag, Key, ObjectHeaders, ObjectInfo, Span, Version};

/// What has been asked of the bucket. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct RequestCounts(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    requests: [AtomicU64; Operation::ALL.len()],
    errors: [AtomicU64; Operation::ALL.len()],
    failures: [AtomicU64; Operation::ALL.len()],
    times: [Timing; Operation::ALL.len()],
    answered: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    silence: Mutex<Option<Silence>>,
}

/// Since its last answer, whatever that said, the bucket has answered nothing.
#[derive(Clone, Debug)]
pub struct Silence {
    /// Of the first request that was not answered.
    pub since: SystemTime,
    pub begun: Instant,
    /// The last failure.
    pub error: String,
}

impl RequestCounts {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn count(&self, operation: Operation) {
        self.0.requests[operation as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_error(&self, operation: Operation) {
        self.0.errors[operation as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// That a name isn't there, or is another version, is an answer like any other.
    fn count_failure(&self, operation: Operation, kind: ErrorKind) {
        if !matches!(kind, ErrorKind::NotFound | ErrorKind::PreconditionFailed | ErrorKind::NoSuchUpload | ErrorKind::InvalidRange) {
            self.0.failures[operation as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests of one operation, failed ones included.
    pub fn of(&self, operation: Operation) -> u64 {
        self.0.requests[operation as usize].load(Ordering::Relaxed)
    }

    /// Requests by operation, failed ones included; operations never asked are absent.
    pub fn snapshot(&self) -> BTreeMap<&'static str, u64> {
        Self::named(&self.0.requests)
    }

    /// Failed requests by operation. A missing object and a condition that doesn't hold count as failures.
    pub fn errors(&self) -> BTreeMap<&'static str, u64> {
        Self::named(&self.0.errors)
    }

    /// Failed requests by operation, without those that only say what the bucket holds.
    pub fn failures(&self) -> BTreeMap<&'static str, u64> {
        Self::named(&self.0.failures)
    }

    pub fn count_time(&self, operation: Operation, time: Duration) {
        self.0.times[operation as usize].count(time);
    }

    /// How long requests of one operation took, to the head of their answer.
    pub fn times(&self, operation: Operation) -> Times {
        self.0.times[operation as usize].times()
    }

    /// Requests that were answered well: what moves as long as anything gets done.
    pub fn answered(&self) -> u64 {
        self.0.answered.load(Ordering::Relaxed)
    }

    /// None: the last request that ended was answered.
    pub fn silence(&self) -> Option<Silence> {
        self.0.silence.lock().clone()
    }

    /// A refusal is an answer; "slow down" and a broken body say that somebody is there.
    fn heard(&self, error: Option<&StoreError>) {
        let unanswered = |kind| matches!(kind, ErrorKind::Unavailable | ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::NotS3);
        let mut silence = self.0.silence.lock();
        match error.filter(|error| unanswered(error.kind)) {
            None => *silence = None,
            Some(error) => {
                let first = silence.take().map(|silence| (silence.since, silence.begun));
                let (since, begun) = first.unwrap_or_else(|| (clock::now(), Instant::now()));
                *silence = Some(Silence { since, begun, error: error.to_string() });
            }
        }
    }

    /// Bytes of objects and parts sent, repeated attempts included.
    pub fn bytes_up(&self) -> u64 {
        self.0.bytes_up.load(Ordering::Relaxed)
    }

    /// Bytes of objects received.
    pub fn bytes_down(&self) -> u64 {
        self.0.bytes_down.load(Ordering::Relaxed)
    }

    fn named(counters: &[AtomicU64]) -> BTreeMap<&'static str, u64> {
        let load = |(operation, counter): (Operation, &AtomicU64)| (operation.name(), counter.load(Ordering::Relaxed));
        Operation::ALL.into_iter().zip(counters).map(load).filter(|(_, count)| *count > 0).collect()
    }
}

pub struct TraceStore {
    inner: Store,
    counts: RequestCounts,
}

impl TraceStore {
    pub fn new(inner: Store, counts: RequestCounts) -> Self {
        Self { inner, counts }
    }

    async fn traced<T>(&self, operation: Operation, name: impl std::fmt::Display, request: impl Future<Output = Result<T>>) -> Result<T> {
        self.counts.count(operation);
        let begun = Instant::now();
        let result = request.await;
        let took = begun.elapsed();
        self.counts.count_time(operation, took);
        let millis = took.as_millis();
        self.counts.heard(result.as_ref().err());
        match &result {
            Ok(_) => {
                self.counts.0.answered.fetch_add(1, Ordering::Relaxed);
                debug!(operation = operation.name(), key = %name, millis, "request");
            }
            Err(error) => {
                self.counts.count_error(operation);
                self.counts.count_failure(operation, error.kind);
                debug!(operation = operation.name(), key = %name, millis, kind = ?error.kind, error = %error.message, "request failed");
            }
        }
        result
    }

    fn sent(&self, body: &Body) {
        self.counts.0.bytes_up.fetch_add(body.bytes.len() as u64, Ordering::Relaxed);
    }
}

#[async_trait]
impl ObjectStore for TraceStore {
    fn now(&self) -> SystemTime {
        self.inner.now()
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo> {
        self.traced(Operation::HeadObject, key, self.inner.head(key)).await
    }

    async fn get(&self, key: &Key, span: Option<Span>, if_match: Option<&ETag>) -> Result<ObjectBody> {
        let ObjectBody { info, span, md5, stream } = self.traced(Operation::GetObject, key, self.inner.get(key, span, if_match)).await?;
        let counts = self.counts.clone();
        let count = move |chunk: &Result<bytes::Bytes>| match chunk {
            Ok(bytes) => _ = counts.0.bytes_down.fetch_add(bytes.len() as u64, Ordering::Relaxed),
            Err(error) => {
                counts.count_error(Operation::GetObject);
                counts.count_failure(Operation::GetObject, error.kind);
            }
        };
        Ok(ObjectBody { info, span, md5, stream: stream.inspect(count).boxed() })
    }

    async fn put(&self, key: &Key, body: Body, headers: &ObjectHeaders, condition: &Condition) -> Result<Receipt> {
        self.sent(&body);
        self.traced(Operation::PutObject, key, self.inner.put(key, body, headers, condition)).await
    }

    async fn copy(&self, from: &Version, to: &Key, headers: Option<&ObjectHeaders>) -> Result<Receipt> {
        self.traced(Operation::CopyObject, to, self.inner.copy(from, to, headers)).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.traced(Operation::DeleteObject, key, self.inner.delete(key)).await
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<Vec<Result<()>>> {
        self.traced(Operation::DeleteObjects, format!("{} keys", keys.len()), self.inner.delete_many(keys)).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        let prefix = Key::new(request.prefix.as_str());
        self.traced(Operation::ListObjectsV2, &prefix, self.inner.list(request)).await
    }

    async fn create_upload(&self, key: &Key, headers: &ObjectHeaders) -> Result<UploadId> {
        self.traced(Operation::CreateMultipartUpload, key, self.inner.create_upload(key, headers)).await
    }

    async fn upload_part(&self, key: &Key, upload: &UploadId, number: u32, body: Body) -> Result<Part> {
        self.sent(&body);
        self.traced(Operation::UploadPart, key, self.inner.upload_part(key, upload, number, body)).await
    }

    async fn copy_part(&self, key: &Key, upload: &UploadId, number: u32, from: &Key, if_match: Option<&ETag>, span: Span) -> Result<Part> {
        self.traced(Operation::UploadPartCopy, key, self.inner.copy_part(key, upload, number, from, if_match, span)).await
    }

    async fn complete_upload(&self, key: &Key, upload: &UploadId, parts: &[Part], condition: &Condition) -> Result<Receipt> {
        self.traced(Operation::CompleteMultipartUpload, key, self.inner.complete_upload(key, upload, parts, condition)).await
    }

    async fn abort_upload(&self, key: &Key, upload: &UploadId) -> Result<()> {
        self.traced(Operation::AbortMultipartUpload, key, self.inner.abort_upload(key, upload)).await
    }

    async fn list_uploads(&self) -> Result<Vec<PendingUpload>> {
        self.traced(Operation::ListMultipartUploads, "", self.inner.list_uploads()).await
    }

    async fn presign_get(&self, key: &Key, expires: Duration) -> Result<String> {
        self.inner.presign_get(key, expires).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn requests_errors_and_bytes_are_counted() {
        let counts = RequestCounts::new();
        let store = TraceStore::new(Arc::new(MemoryStore::new()), counts.clone());
        let key = Key::from("a");
        let _ = store.put(&key, Body::new("hello"), &ObjectHeaders::default(), &Condition::Any).await.unwrap();
        let _ = store.put(&key, Body::new("again"), &ObjectHeaders::default(), &Condition::IfAbsent).await.unwrap_err();
        let body = store.get(&key, Some(1..4), None).await.unwrap();
        assert_eq!(body.stream.count().await, 1);
        assert_eq!(counts.snapshot(), BTreeMap::from([("PutObject", 2), ("GetObject", 1)]));
        assert_eq!(counts.errors(), BTreeMap::from([("PutObject", 1)]));
        assert_eq!(counts.failures(), BTreeMap::new(), "a condition that doesn't hold is an answer");
        assert_eq!(counts.times(Operation::PutObject).total(), 2);
        assert_eq!((counts.bytes_up(), counts.bytes_down()), (10, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_begins_with_the_first_unanswered_request_and_ends_with_any_answer() {
        let counts = RequestCounts::new();
        let failed = |kind| StoreError::new(kind, "PutObject", "a", "x");
        counts.heard(Some(&failed(ErrorKind::Unreachable)));
        let begun = Instant::now();
        tokio::time::advance(Duration::from_secs(3)).await;
        counts.heard(Some(&failed(ErrorKind::Timeout)));
        assert_eq!(counts.silence().map(|silence| silence.begun), Some(begun));
        for answer in [None, Some(ErrorKind::NotFound), Some(ErrorKind::Denied), Some(ErrorKind::Throttled)] {
            counts.heard(Some(&failed(ErrorKind::Unavailable)));
            assert!(counts.silence().is_some());
            counts.heard(answer.map(failed).as_ref());
            assert!(counts.silence().is_none(), "{answer:?}");
        }
    }
}
