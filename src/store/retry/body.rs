//! A GET's body that outlives its connections.
//!
//! INVARIANT: all bytes of one body are of one version. The first answer's ETag is demanded of every later one, also
//! where the caller asked for no version, and exactly the announced bytes are delivered, each once.

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use super::{Attempts, RetryPolicy};
use crate::store::{self, ErrorKind, ObjectBody, Operation, Result, Store, StoreError};
use crate::types::{ETag, Key, Span};

/// Objects to this size are held back until their last byte is there, to be compared with their MD5; the reader takes
/// them in one GET. Of a larger one nobody waits for the end, and a range says nothing that could be compared.
pub const CHECKED_BYTES: u64 = 1 << 20;
/// Hashing more than this would be felt by what shares the thread.
const INLINE_HASH_BYTES: usize = 64 << 10;

/// The same body; where it can be, compared with the object's MD5. [`ErrorKind::Corrupt`]: it is something else.
pub(super) async fn checked(key: &Key, body: ObjectBody) -> Result<ObjectBody> {
    let whole = body.span == (0..body.info.size) && body.info.size <= CHECKED_BYTES;
    let Some(due) = body.md5.filter(|_| whole) else { return Ok(body) };
    let ObjectBody { info, span, md5, mut stream } = body;
    let mut bytes = BytesMut::with_capacity(info.size as usize);
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    let bytes = bytes.freeze();
    let hashed = bytes.clone();
    let found = match bytes.len() {
        0..=INLINE_HASH_BYTES => Ok(store::md5(&bytes)),
        _ => tokio::task::spawn_blocking(move || store::md5(&hashed)).await,
    };
    if found.is_ok_and(|found| found == due) {
        return Ok(ObjectBody { info, span, md5, stream: stream::once(std::future::ready(Ok(bytes))).boxed() });
    }
    let message = format!("{} bytes came that are not those of ETag {}", bytes.len(), info.etag.text());
    Err(StoreError::new(ErrorKind::Corrupt, Operation::GetObject.name(), key, message))
}

struct Resumable {
    store: Store,
    key: Key,
    etag: ETag,
    /// The bytes still to deliver.
    left: Span,
    /// None between two connections.
    stream: Option<BoxStream<'static, Result<Bytes>>>,
    attempts: Attempts,
    failed: bool,
}

/// The same body, resumed behind the reader's back where it breaks.
pub(super) fn resumable(store: Store, key: Key, body: ObjectBody, policy: RetryPolicy) -> ObjectBody {
    let ObjectBody { info, span, md5, stream } = body;
    let etag = info.etag.clone();
    let body = Resumable { store, key, etag, left: span.clone(), stream: Some(stream), attempts: Attempts::new(policy), failed: false };
    ObjectBody { info, span, md5, stream: stream::unfold(body, Resumable::next).boxed() }
}

impl Resumable {
    async fn next(mut self) -> Option<(Result<Bytes>, Self)> {
        if self.failed {
            return None;
        }
        match self.chunk().await {
            Ok(chunk) => chunk.map(|bytes| (Ok(bytes), self)),
            Err(error) => {
                self.failed = true;
                self.stream = None;
                Some((Err(error), self))
            }
        }
    }

    /// The next bytes; None when all have been delivered.
    async fn chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            let error = match self.poll().await {
                Ok(None) => return Ok(None),
                Ok(Some(bytes)) if bytes.is_empty() => continue,
                Ok(Some(bytes)) => {
                    self.left.start += bytes.len() as u64;
                    self.attempts.progressed();
                    return Ok(Some(bytes));
                }
                Err(error) if error.is(ErrorKind::Corrupt) => return Err(error),
                Err(error) => error,
            };
            // The connection goes first: the next attempt must not wait for the place that this one holds.
            self.stream = None;
            self.attempts.failed(error).await?;
        }
    }

    async fn poll(&mut self) -> Result<Option<Bytes>> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None if self.left.is_empty() => return Ok(None),
            None => self.reopen().await?,
        };
        let next = stream.next().await.transpose()?;
        let left = self.left.end - self.left.start;
        match next {
            None if left == 0 => Ok(None),
            None => Err(self.error(ErrorKind::Truncated, format!("the body ended {left} bytes early"))),
            Some(bytes) if bytes.len() as u64 > left => {
                // Whatever made it longer may have shifted what came before: not to be mended by asking for the rest.
                Err(self.error(ErrorKind::Corrupt, "the body is longer than announced".to_owned()))
            }
            Some(bytes) => {
                self.stream = Some(stream);
                Ok(Some(bytes))
            }
        }
    }

    async fn reopen(&mut self) -> Result<BoxStream<'static, Result<Bytes>>> {
        let body = self.store.get(&self.key, Some(self.left.clone()), Some(&self.etag)).await?;
        if body.info.etag != self.etag {
            return Err(self.error(ErrorKind::PreconditionFailed, "the store answered with another version".to_owned()));
        }
        if body.span != self.left {
            let (asked, got) = (&self.left, &body.span);
            return Err(self.error(ErrorKind::Corrupt, format!("asked for bytes {asked:?}, the store sent {got:?}")));
        }
        Ok(body.stream)
    }

    fn error(&self, kind: ErrorKind, message: String) -> StoreError {
        StoreError::new(kind, Operation::GetObject.name(), &self.key, message)
    }
}
