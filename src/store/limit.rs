//! A bound on requests under way: reads and changes each have their own, so that neither starves the other.
//!
//! A GET holds its place until its body has been read or dropped, since the connection is in use so long. Whoever asks
//! for more waits in line, first come first served. Placed inside the retrying layer, a request that waits for its
//! next attempt holds no place.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Body, Condition, ErrorKind, ListPage, ListRequest, ObjectBody, ObjectStore, Operation, Part, PendingUpload, Receipt, Result, Store,
    StoreError, UploadId,
};
use crate::types::{ETag, Key, ObjectHeaders, ObjectInfo, Span, Version};

pub struct LimitStore {
    inner: Store,
    reads: Arc<Semaphore>,
    changes: Arc<Semaphore>,
}

impl LimitStore {
    /// At most `reads` HEADs, GETs and LISTs, and `changes` other requests, under way at once; at least one of each.
    pub fn new(inner: Store, reads: usize, changes: usize) -> Self {
        Self { inner, reads: Arc::new(Semaphore::new(reads.max(1))), changes: Arc::new(Semaphore::new(changes.max(1))) }
    }

    async fn place(&self, operation: Operation) -> Result<OwnedSemaphorePermit> {
        let line = if operation.changes_bucket() { &self.changes } else { &self.reads };
        let closed = |_| StoreError::new(ErrorKind::Other, operation.name(), "", "the store is shut");
        Arc::clone(line).acquire_owned().await.map_err(closed)
    }
}

#[async_trait]
impl ObjectStore for LimitStore {
    fn now(&self) -> SystemTime {
        self.inner.now()
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo> {
        let _place = self.place(Operation::HeadObject).await?;
        self.inner.head(key).await
    }

    async fn get(&self, key: &Key, span: Option<Span>, if_match: Option<&ETag>) -> Result<ObjectBody> {
        let place = self.place(Operation::GetObject).await?;
        let ObjectBody { info, span, md5, stream } = self.inner.get(key, span, if_match).await?;
        let stream = stream.inspect(move |_| _ = &place).boxed();
        Ok(ObjectBody { info, span, md5, stream })
    }

    async fn put(&self, key: &Key, body: Body, headers: &ObjectHeaders, condition: &Condition) -> Result<Receipt> {
        let _place = self.place(Operation::PutObject).await?;
        self.inner.put(key, body, headers, condition).await
    }

    async fn copy(&self, from: &Version, to: &Key, headers: Option<&ObjectHeaders>) -> Result<Receipt> {
        let _place = self.place(Operation::CopyObject).await?;
        self.inner.copy(from, to, headers).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let _place = self.place(Operation::DeleteObject).await?;
        self.inner.delete(key).await
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<Vec<Result<()>>> {
        let _place = self.place(Operation::DeleteObjects).await?;
        self.inner.delete_many(keys).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        let _place = self.place(Operation::ListObjectsV2).await?;
        self.inner.list(request).await
    }

    async fn create_upload(&self, key: &Key, headers: &ObjectHeaders) -> Result<UploadId> {
        let _place = self.place(Operation::CreateMultipartUpload).await?;
        self.inner.create_upload(key, headers).await
    }

    async fn upload_part(&self, key: &Key, upload: &UploadId, number: u32, body: Body) -> Result<Part> {
        let _place = self.place(Operation::UploadPart).await?;
        self.inner.upload_part(key, upload, number, body).await
    }

    async fn copy_part(&self, key: &Key, upload: &UploadId, number: u32, from: &Key, if_match: Option<&ETag>, span: Span) -> Result<Part> {
        let _place = self.place(Operation::UploadPartCopy).await?;
        self.inner.copy_part(key, upload, number, from, if_match, span).await
    }

    async fn complete_upload(&self, key: &Key, upload: &UploadId, parts: &[Part], condition: &Condition) -> Result<Receipt> {
        let _place = self.place(Operation::CompleteMultipartUpload).await?;
        self.inner.complete_upload(key, upload, parts, condition).await
    }

    async fn abort_upload(&self, key: &Key, upload: &UploadId) -> Result<()> {
        let _place = self.place(Operation::AbortMultipartUpload).await?;
        self.inner.abort_upload(key, upload).await
    }

    async fn list_uploads(&self) -> Result<Vec<PendingUpload>> {
        let _place = self.place(Operation::ListMultipartUploads).await?;
        self.inner.list_uploads().await
    }

    /// Makes no request, so it never waits.
    async fn presign_get(&self, key: &Key, expires: Duration) -> Result<String> {
        self.inner.presign_get(key, expires).await
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn a_get_holds_its_place_until_the_body_is_dropped() {
        let key = Key::from("a");
        let store = LimitStore::new(Arc::new(MemoryStore::new()), 1, 1);
        let _ = store.put(&key, Body::new("abc"), &ObjectHeaders::default(), &Condition::Any).await.unwrap();
        let body = store.get(&key, None, None).await.unwrap();
        assert!(store.head(&key).now_or_never().is_none(), "the only place for reads is taken");
        assert!(store.delete(&Key::from("b")).now_or_never().is_some(), "changes have their own");
        drop(body);
        assert!(store.head(&key).now_or_never().is_some());
    }
}
