//! Repeats what may succeed the next time, so that the layers above see outcomes and not the network's moods.
//!
//! Transient failures are repeated with growing, jittered waits until a deadline. A GET's body that breaks is resumed
//! under the same version, unseen by the reader. After an attempt whose answer was lost, a condition that no longer
//! holds may be our own doing: a HEAD settles whether the bucket holds what was sent. Without such doubt, a failed
//! condition is final. What is given up in doubt says so in `outcome_unknown`. A multipart upload that was begun and whose
//! id was lost is found and aborted. A small object whose MD5 is known is compared with it before a byte of it is used.
//!
//! Attempts that hang are cut by the store below, which knows how long each may take.

mod attempts;
mod body;
mod create;
mod policy;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tracing::warn;

use self::attempts::Attempts;
pub use self::body::CHECKED_BYTES;
pub use self::policy::RetryPolicy;
use super::{
    Body, Condition, ErrorKind, ListPage, ListRequest, ObjectBody, ObjectStore, Part, PendingUpload, Receipt, Result, Store, StoreError,
    UploadId, multipart_etag, plain_etag,
};
use crate::types::{ETag, Key, ObjectHeaders, ObjectInfo, Span, Version};

pub struct RetryStore {
    inner: Store,
    policy: RetryPolicy,
    doubts: create::Doubts,
}

/// What was sent is stored so; of what was not, stores have defaults.
fn carries(stored: &ObjectHeaders, sent: &ObjectHeaders) -> bool {
    let kept = |stored: &Option<String>, sent: &Option<String>| sent.is_none() || stored == sent;
    stored.metadata == sent.metadata
        && kept(&stored.content_type, &sent.content_type)
        && kept(&stored.cache_control, &sent.cache_control)
        && kept(&stored.content_disposition, &sent.content_disposition)
        && kept(&stored.content_encoding, &sent.content_encoding)
        && kept(&stored.content_language, &sent.content_language)
}

impl RetryStore {
    pub fn new(inner: Store, policy: RetryPolicy) -> Self {
        Self { inner, policy, doubts: create::Doubts::default() }
    }

    fn attempts(&self) -> Attempts {
        Attempts::new(self.policy)
    }

    /// Whether an earlier attempt, whose answer was lost, made `refused` true: then the bucket holds what was sent. The same
    /// bytes under other `headers` (None: they can't be told) may be from before a crash: that is for the caller to find out.
    async fn settle(
        &self,
        key: &Key,
        sent: Option<ETag>,
        size: u64,
        headers: Option<&ObjectHeaders>,
        refused: StoreError,
    ) -> Result<Receipt> {
        let Some(sent) = sent else { return Err(refused.with_unknown_outcome()) };
        match self.head(key).await {
            Ok(info) if info.etag == sent && info.size == size => match headers {
                Some(headers) if !carries(&info.headers, headers) => Err(refused.with_unknown_outcome()),
                _ => Ok(Receipt::new(info.etag, info.size)),
            },
            Ok(_) => Err(refused),
            Err(error) if error.is(ErrorKind::NotFound) => Err(refused),
            Err(error) => Err(error.with_unknown_outcome()),
        }
    }

    /// What was found may be the work of an earlier upload of the same bytes, before a crash: then this one is still open,
    /// and would be paid for for ever. An error: whether it is could not be told, and the caller completes it once more.
    async fn end(&self, key: &Key, upload: &UploadId) -> Result<()> {
        match self.abort_upload(key, upload).await {
            Err(error) if error.kind.is_transient() => Err(error.with_unknown_outcome()),
            Err(error) if !error.is(ErrorKind::NoSuchUpload) => {
                warn!(%key, %error, "an unfinished multipart upload of ours may be left behind");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl ObjectStore for RetryStore {
    fn now(&self) -> SystemTime {
        self.inner.now()
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo> {
        self.attempts().run(|| self.inner.head(key)).await
    }

    async fn get(&self, key: &Key, span: Option<Span>, if_match: Option<&ETag>) -> Result<ObjectBody> {
        let mut attempts = self.attempts();
        loop {
            let body = attempts.run(|| self.inner.get(key, span.clone(), if_match)).await?;
            let body = body::resumable(self.inner.clone(), key.clone(), body, self.policy);
            match body::checked(key, body).await {
                Err(error) if error.is(ErrorKind::Corrupt) => attempts.failed(error).await?,
                outcome => return outcome,
            }
        }
    }

    async fn put(&self, key: &Key, body: Body, headers: &ObjectHeaders, condition: &Condition) -> Result<Receipt> {
        let mut attempts = self.attempts();
        loop {
            match self.inner.put(key, body.clone(), headers, condition).await {
                Ok(receipt) => return Ok(receipt),
                Err(error) if attempts.outcome_unknown && error.is(ErrorKind::PreconditionFailed) => {
                    return self.settle(key, Some(plain_etag(&body.md5)), body.bytes.len() as u64, Some(headers), error).await;
                }
                Err(error) => attempts.failed(error).await?,
            }
        }
    }

    async fn copy(&self, from: &Version, to: &Key, headers: Option<&ObjectHeaders>) -> Result<Receipt> {
        self.attempts().run(|| self.inner.copy(from, to, headers)).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.attempts().run(|| self.inner.delete(key)).await
    }

    /// Only the keys that failed are asked for again.
    async fn delete_many(&self, keys: &[Key]) -> Result<Vec<Result<()>>> {
        let mut attempts = self.attempts();
        let mut answers = attempts.run(|| self.inner.delete_many(keys)).await?;
        loop {
            let transient = |answer: &Result<()>| answer.as_ref().is_err_and(|error| error.kind.is_transient());
            let again: Vec<usize> = (0..answers.len()).filter(|&at| transient(&answers[at])).collect();
            let Some(Err(error)) = again.first().map(|&at| answers[at].clone()) else { return Ok(answers) };
            if attempts.failed(error).await.is_err() {
                return Ok(answers);
            }
            let keys: Vec<Key> = again.iter().map(|&at| keys[at].clone()).collect();
            match self.inner.delete_many(&keys).await {
                Ok(new) => again.into_iter().zip(new).for_each(|(at, answer)| answers[at] = answer),
                Err(error) => again.into_iter().for_each(|at| answers[at] = Err(error.clone())),
            }
        }
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.attempts().run(|| self.inner.list(request)).await
    }

    async fn create_upload(&self, key: &Key, headers: &ObjectHeaders) -> Result<UploadId> {
        create::create(self, key, headers).await
    }

    async fn upload_part(&self, key: &Key, upload: &UploadId, number: u32, body: Body) -> Result<Part> {
        self.attempts().run(|| self.inner.upload_part(key, upload, number, body.clone())).await
    }

    async fn copy_part(&self, key: &Key, upload: &UploadId, number: u32, from: &Key, if_match: Option<&ETag>, span: Span) -> Result<Part> {
        self.attempts().run(|| self.inner.copy_part(key, upload, number, from, if_match, span.clone())).await
    }

    async fn complete_upload(&self, key: &Key, upload: &UploadId, parts: &[Part], condition: &Condition) -> Result<Receipt> {
        let mut attempts = self.attempts();
        loop {
            match self.inner.complete_upload(key, upload, parts, condition).await {
                Ok(receipt) => return Ok(receipt),
                Err(error) if attempts.outcome_unknown && may_be_our_doing(error.kind) => {
                    let may_be_open = !error.is(ErrorKind::NoSuchUpload);
                    let receipt = self.settle(key, multipart_etag(parts), parts.iter().map(|part| part.size).sum(), None, error).await?;
                    if may_be_open {
                        self.end(key, upload).await?;
                    }
                    return Ok(receipt);
                }
                Err(error) => attempts.failed(error).await?,
            }
        }
    }

    async fn abort_upload(&self, key: &Key, upload: &UploadId) -> Result<()> {
        self.attempts().run(|| self.inner.abort_upload(key, upload)).await
    }

    async fn list_uploads(&self) -> Result<Vec<PendingUpload>> {
        self.attempts().run(|| self.inner.list_uploads()).await
    }

    async fn presign_get(&self, key: &Key, expires: Duration) -> Result<String> {
        self.inner.presign_get(key, expires).await
    }
}

/// What a second Complete of an upload that is already completed is answered with.
fn may_be_our_doing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::PreconditionFailed | ErrorKind::NoSuchUpload | ErrorKind::NotFound)
}
