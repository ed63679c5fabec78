//! Failures on purpose, for tests and simulation: the same seed and the same requests give the same faults.
//!
//! Rules are tried in the order in which they were added; the first that fires decides. Each rule counts the requests
//! that match it, so that "the third PUT of this key" can be said. Time passes only through tokio, which tests pause.

mod rules;

use std::future::Future;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, future};

pub use self::rules::{Fault, Faults, Rule, When};
use super::{
    Body, Condition, ErrorKind, ListPage, ListRequest, ObjectBody, ObjectStore, Operation, Part, PendingUpload, Receipt, Result, Store,
    StoreError, UploadId,
};
use crate::types::{ETag, Key, ObjectHeaders, ObjectInfo, Span, Version};

pub struct FaultStore {
    inner: Store,
    faults: Faults,
}

impl FaultStore {
    /// Clones of `faults` stay connected: rules can be added and cleared while requests are under way.
    pub fn new(inner: Store, faults: Faults) -> Self {
        Self { inner, faults }
    }

    async fn run<T>(&self, operation: Operation, key: &Key, request: impl Future<Output = Result<T>>) -> Result<T> {
        let fault = self.faults.next(operation, key.as_str());
        Self::suffer(fault, operation, key, request).await
    }

    async fn suffer<T>(fault: Option<Fault>, operation: Operation, key: &Key, request: impl Future<Output = Result<T>>) -> Result<T> {
        let injected = |kind| StoreError::new(kind, operation.name(), key, "injected fault");
        let lost = || StoreError { outcome_unknown: operation.changes_bucket(), ..injected(ErrorKind::Unreachable) };
        match fault {
            None | Some(Fault::Unconditional | Fault::PartLost | Fault::BodyCut(_) | Fault::BodyShort(_) | Fault::BodyFlip(_)) => {
                request.await
            }
            Some(Fault::Latency(delay)) => {
                tokio::time::sleep(delay).await;
                request.await
            }
            Some(Fault::LateReply(delay)) => {
                let answer = request.await;
                tokio::time::sleep(delay).await;
                answer
            }
            Some(Fault::Error(kind)) => Err(injected(kind)),
            Some(Fault::Throttled(retry_after)) => Err(StoreError { retry_after: Some(retry_after), ..injected(ErrorKind::Throttled) }),
            Some(Fault::Hang) => future::pending().await,
            Some(Fault::ReplyLost) => {
                request.await?;
                Err(lost())
            }
            Some(Fault::RequestLost) => Err(lost()),
        }
    }
}

/// The first `bytes` of `stream`, then an error, or the end as if that were all.
fn cut(stream: BoxStream<'static, Result<Bytes>>, bytes: u64, error: Option<StoreError>) -> BoxStream<'static, Result<Bytes>> {
    let mut left = bytes;
    let head = stream.map(move |chunk| {
        let mut chunk = chunk?;
        chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= chunk.len() as u64;
        Ok(chunk)
    });
    let kept = head.take_while(|chunk: &Result<Bytes>| future::ready(chunk.as_ref().is_ok_and(|bytes| !bytes.is_empty())));
    kept.chain(stream::iter(error.map(Err))).boxed()
}

fn flip(stream: BoxStream<'static, Result<Bytes>>, at: u64) -> BoxStream<'static, Result<Bytes>> {
    let mut before = 0;
    let flipped = stream.map(move |chunk| {
        let mut bytes = chunk?.to_vec();
        let index = at.checked_sub(before).and_then(|index| usize::try_from(index).ok());
        before += bytes.len() as u64;
        if let Some(byte) = index.and_then(|index| bytes.get_mut(index)) {
            *byte ^= 0xff;
        }
        Ok(bytes.into())
    });
    flipped.boxed()
}

#[async_trait]
impl ObjectStore for FaultStore {
    fn now(&self) -> SystemTime {
        self.inner.now()
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo> {
        self.run(Operation::HeadObject, key, self.inner.head(key)).await
    }

    async fn get(&self, key: &Key, span: Option<Span>, if_match: Option<&ETag>) -> Result<ObjectBody> {
        let fault = self.faults.next(Operation::GetObject, key.as_str());
        let if_match = if_match.filter(|_| fault != Some(Fault::Unconditional));
        let mut body = Self::suffer(fault.clone(), Operation::GetObject, key, self.inner.get(key, span, if_match)).await?;
        let error = || StoreError::new(ErrorKind::Truncated, Operation::GetObject.name(), key, "injected cut");
        body.stream = match fault {
            Some(Fault::BodyCut(bytes)) => cut(body.stream, bytes, Some(error())),
            Some(Fault::BodyShort(bytes)) => cut(body.stream, bytes, None),
            Some(Fault::BodyFlip(at)) => flip(body.stream, at),
            _ => body.stream,
        };
        Ok(body)
    }

    async fn put(&self, key: &Key, body: Body, headers: &ObjectHeaders, condition: &Condition) -> Result<Receipt> {
        self.run(Operation::PutObject, key, self.inner.put(key, body, headers, condition)).await
    }

    async fn copy(&self, from: &Version, to: &Key, headers: Option<&ObjectHeaders>) -> Result<Receipt> {
        self.run(Operation::CopyObject, to, self.inner.copy(from, to, headers)).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.run(Operation::DeleteObject, key, self.inner.delete(key)).await
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<Vec<Result<()>>> {
        self.run(Operation::DeleteObjects, &Key::root(), self.inner.delete_many(keys)).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.run(Operation::ListObjectsV2, &Key::new(request.prefix.as_str()), self.inner.list(request)).await
    }

    async fn create_upload(&self, key: &Key, headers: &ObjectHeaders) -> Result<UploadId> {
        self.run(Operation::CreateMultipartUpload, key, self.inner.create_upload(key, headers)).await
    }

    async fn upload_part(&self, key: &Key, upload: &UploadId, number: u32, body: Body) -> Result<Part> {
        self.run(Operation::UploadPart, key, self.inner.upload_part(key, upload, number, body)).await
    }

    async fn copy_part(&self, key: &Key, upload: &UploadId, number: u32, from: &Key, if_match: Option<&ETag>, span: Span) -> Result<Part> {
        let fault = self.faults.next(Operation::UploadPartCopy, key.as_str());
        let if_match = if_match.filter(|_| fault != Some(Fault::Unconditional));
        let copying = self.inner.copy_part(key, upload, number, from, if_match, span);
        Self::suffer(fault, Operation::UploadPartCopy, key, copying).await
    }

    async fn complete_upload(&self, key: &Key, upload: &UploadId, parts: &[Part], condition: &Condition) -> Result<Receipt> {
        let fault = self.faults.next(Operation::CompleteMultipartUpload, key.as_str());
        let lost = usize::from(fault == Some(Fault::PartLost));
        let completing = self.inner.complete_upload(key, upload, &parts[..parts.len() - lost], condition);
        Self::suffer(fault, Operation::CompleteMultipartUpload, key, completing).await
    }

    async fn abort_upload(&self, key: &Key, upload: &UploadId) -> Result<()> {
        self.run(Operation::AbortMultipartUpload, key, self.inner.abort_upload(key, upload)).await
    }

    async fn list_uploads(&self) -> Result<Vec<PendingUpload>> {
        self.run(Operation::ListMultipartUploads, &Key::root(), self.inner.list_uploads()).await
    }

    async fn presign_get(&self, key: &Key, expires: Duration) -> Result<String> {
        self.inner.presign_get(key, expires).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::memory::MemoryStore;

    async fn bucket(faults: &Faults) -> FaultStore {
        let store = FaultStore::new(Arc::new(MemoryStore::new()), faults.clone());
        let _ = store.put(&Key::from("a"), Body::new("hello"), &ObjectHeaders::default(), &Condition::Any).await.unwrap();
        store
    }

    async fn read(store: &FaultStore) -> (Vec<u8>, Option<ErrorKind>) {
        let mut stream = store.get(&Key::from("a"), None, None).await.unwrap().stream;
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(chunk) => bytes.extend(chunk),
                Err(error) => return (bytes, Some(error.kind)),
            }
        }
        (bytes, None)
    }

    #[tokio::test]
    async fn bodies_break_where_they_are_told() {
        let faults = Faults::new(1);
        let store = bucket(&faults).await;
        faults.add(Rule::on(Operation::GetObject).when(When::Nth(1)).fault(Fault::BodyCut(3)));
        faults.add(Rule::on(Operation::GetObject).when(When::Nth(1)).fault(Fault::BodyShort(2)));
        assert_eq!(read(&store).await, (b"hel".to_vec(), Some(ErrorKind::Truncated)));
        assert_eq!(read(&store).await, (b"he".to_vec(), None));
        assert_eq!(read(&store).await, (b"hello".to_vec(), None));
    }

    #[tokio::test]
    async fn a_lost_reply_leaves_the_work_done() {
        let faults = Faults::new(1);
        let store = bucket(&faults).await;
        faults.add(Rule::on(Operation::DeleteObject).fault(Fault::ReplyLost));
        let error = store.delete(&Key::from("a")).await.unwrap_err();
        assert!(error.outcome_unknown && error.is(ErrorKind::Unreachable));
        assert!(store.head(&Key::from("a")).await.unwrap_err().is(ErrorKind::NotFound));
    }
}
