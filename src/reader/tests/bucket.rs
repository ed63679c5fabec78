//! A bucket that answers GETs as a test tells it to, and remembers them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::store::*;
use crate::types::*;

/// What the next GETs do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    #[default]
    Answer,
    Fail(ErrorKind),
    FailAfter(Duration, ErrorKind),
    /// Never answers.
    Hang,
    /// Sends so many bytes, then nothing more.
    StallAfter(usize),
    /// Waits for `release` before it looks at the object.
    Hold,
    BodyShort,
    BodyLong,
    OtherSize,
    /// Ignores If-Match.
    Unconditional,
}

#[derive(Default)]
pub struct Bucket {
    objects: Mutex<HashMap<Key, (ETag, Bytes)>>,
    pub behaviour: Mutex<Behaviour>,
    gets: Mutex<Vec<Span>>,
    under_way: Arc<AtomicUsize>,
    most_under_way: AtomicUsize,
    pub asked: Notify,
    pub release: Notify,
}

/// In small chunks, as they come from a socket.
const CHUNK_BYTES: usize = 16 * 1024;

impl Bucket {
    pub fn put(&self, key: &str, etag: &str, bytes: impl Into<Bytes>) -> Version {
        let (key, etag, bytes) = (Key::from(key), ETag::new(etag), bytes.into());
        let size = bytes.len() as u64;
        self.objects.lock().insert(key.clone(), (etag.clone(), bytes));
        Version { key, etag, size }
    }

    pub fn remove(&self, key: &str) {
        self.objects.lock().remove(&Key::from(key));
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock() = behaviour;
    }

    /// The GETs since the last call.
    pub fn gets(&self) -> Vec<Span> {
        std::mem::take(&mut self.gets.lock())
    }

    pub fn most_under_way(&self) -> usize {
        self.most_under_way.load(Ordering::SeqCst)
    }

    async fn misbehave(&self, behaviour: Behaviour, key: &Key) -> Result<()> {
        match behaviour {
            Behaviour::Fail(kind) => return Err(StoreError::new(kind, "GetObject", key, "as told")),
            Behaviour::FailAfter(time, kind) => {
                tokio::time::sleep(time).await;
                return Err(StoreError::new(kind, "GetObject", key, "as told"));
            }
            Behaviour::Hang => futures::future::pending().await,
            Behaviour::Hold => self.release.notified().await,
            _ => {}
        }
        Ok(())
    }
}

struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn chunks(body: Bytes, stall_after: Option<usize>) -> impl futures::Stream<Item = Result<Bytes>> + Send + 'static {
    let end = stall_after.unwrap_or(usize::MAX).min(body.len());
    let parts: Vec<_> = (0..end).step_by(CHUNK_BYTES).map(|at| Ok(body.slice(at..(at + CHUNK_BYTES).min(end)))).collect();
    let rest = if end < body.len() { futures::stream::pending().left_stream() } else { futures::stream::empty().right_stream() };
    futures::stream::iter(parts).chain(rest)
}

#[async_trait]
impl ObjectStore for Bucket {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    async fn get(&self, key: &Key, span: Option<Span>, if_match: Option<&ETag>) -> Result<ObjectBody> {
        let under_way = UnderWay(Arc::clone(&self.under_way));
        self.most_under_way.fetch_max(self.under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let behaviour = *self.behaviour.lock();
        self.gets.lock().push(span.clone().unwrap_or(0..u64::MAX));
        self.asked.notify_one();
        self.misbehave(behaviour, key).await?;
        // Other tasks get a turn between request and answer, as on a network.
        tokio::task::yield_now().await;
        let found = self.objects.lock().get(key).cloned();
        let (etag, bytes) = found.ok_or_else(|| StoreError::new(ErrorKind::NotFound, "GetObject", key, "gone"))?;
        if behaviour != Behaviour::Unconditional && if_match.is_some_and(|wanted| *wanted != etag) {
            return Err(StoreError::new(ErrorKind::PreconditionFailed, "GetObject", key, "another version"));
        }
        let whole = 0..bytes.len() as u64;
        let span = span.map_or(whole.clone(), |span| span.start..span.end.min(whole.end));
        let mut body = bytes.slice(span.start as usize..span.end as usize);
        let mut size = whole.end;
        match behaviour {
            Behaviour::BodyShort => body.truncate(body.len() - 1),
            Behaviour::BodyLong => body = [&body[..], b"x"].concat().into(),
            Behaviour::OtherSize => size += 1,
            _ => {}
        }
        let stall = if let Behaviour::StallAfter(bytes) = behaviour { Some(bytes) } else { None };
        let stream = chunks(body, stall).map(move |chunk| {
            let _ = &under_way;
            chunk
        });
        let info = ObjectInfo {
            size,
            etag,
            last_modified: SystemTime::UNIX_EPOCH,
            headers: ObjectHeaders::default(),
            archive: Default::default(),
        };
        Ok(ObjectBody { info, span, md5: None, stream: stream.boxed() })
    }

    async fn head(&self, _: &Key) -> Result<ObjectInfo> {
        unreachable!("a reader only GETs")
    }
    async fn put(&self, _: &Key, _: Body, _: &ObjectHeaders, _: &Condition) -> Result<Receipt> {
        unreachable!("a reader only GETs")
    }
    async fn copy(&self, _: &Version, _: &Key, _: Option<&ObjectHeaders>) -> Result<Receipt> {
        unreachable!("a reader only GETs")
    }
    async fn delete(&self, _: &Key) -> Result<()> {
        unreachable!("a reader only GETs")
    }
    async fn delete_many(&self, _: &[Key]) -> Result<Vec<Result<()>>> {
        unreachable!("a reader only GETs")
    }
    async fn list(&self, _: &ListRequest) -> Result<ListPage> {
        unreachable!("a reader only GETs")
    }
    async fn create_upload(&self, _: &Key, _: &ObjectHeaders) -> Result<UploadId> {
        unreachable!("a reader only GETs")
    }
    async fn upload_part(&self, _: &Key, _: &UploadId, _: u32, _: Body) -> Result<Part> {
        unreachable!("a reader only GETs")
    }
    async fn copy_part(&self, _: &Key, _: &UploadId, _: u32, _: &Key, _: Option<&ETag>, _: Span) -> Result<Part> {
        unreachable!("a reader only GETs")
    }
    async fn complete_upload(&self, _: &Key, _: &UploadId, _: &[Part], _: &Condition) -> Result<Receipt> {
        unreachable!("a reader only GETs")
    }
    async fn abort_upload(&self, _: &Key, _: &UploadId) -> Result<()> {
        unreachable!("a reader only GETs")
    }
    async fn list_uploads(&self) -> Result<Vec<PendingUpload>> {
        unreachable!("a reader only GETs")
    }
    async fn presign_get(&self, _: &Key, _: Duration) -> Result<String> {
        unreachable!("a reader only GETs")
    }
}
