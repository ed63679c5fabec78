//! Objects that are stored compressed, read as their originals: [`crate::media::gzip`] says what marks them.
//!
//! Only reading is done here. A HEAD tells the original's size, a GET sends the original's bytes, ranges included, and all
//! else passes: whoever uploads compresses, because the ETag that it has to know is that of the compressed bytes, and a
//! listing can't tell what it lists.
//!
//! A compressed object is always fetched whole, and nothing of it is given out before all of it agrees with the length that
//! its mark says and the checksum in it. Of the last one that was read by ranges the original is kept, so that a reader
//! who goes through it range by range fetches it once. Outside the retrying layer, which asks again for ranges of what is
//! stored.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt};
use parking_lot::Mutex;

use super::{
    Body, Condition, ErrorKind, ListPage, ListRequest, ObjectBody, ObjectStore, Operation, Part, PendingUpload, Receipt, Result, Store,
    StoreError, UploadId,
};
use crate::media::gzip;
use crate::simulation;
use crate::types::{ETag, Key, ObjectHeaders, ObjectInfo, Span, Version};

pub struct GzipStore {
    inner: Store,
    /// The one last read by a range.
    recent: Mutex<Option<Original>>,
    /// Who fetches all of an object for the sake of a range has this, of the asynchronous kind that is made to be held while
    /// waiting: the many ranges of one reader would each fetch it. Taken before `recent`.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Original {
    key: Key,
    /// The size is the original's.
    info: ObjectInfo,
    bytes: Bytes,
}

impl GzipStore {
    pub fn new(inner: Store) -> Self {
        Self { inner, recent: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    fn recent(&self, key: &Key, etag: &ETag) -> Option<Original> {
        self.recent.lock().as_ref().filter(|recent| recent.key == *key && recent.info.etag == *etag).cloned()
    }

    /// A range of a compressed object, of which some answer gave the ETag.
    async fn range(&self, key: &Key, etag: &ETag, span: &Span) -> Result<ObjectBody> {
        let _turn = self.turn.lock().await;
        if let Some(original) = self.recent(key, etag) {
            return original.body(Some(span));
        }
        let original = decode(key, self.inner.get(key, None, Some(etag)).await?).await?;
        let body = original.body(Some(span));
        *self.recent.lock() = Some(original);
        body
    }

    /// Asked for what lies behind the end of what is stored: the original may reach there.
    async fn behind(&self, key: &Key, span: &Span, if_match: Option<&ETag>, error: StoreError) -> Result<ObjectBody> {
        let info = self.inner.head(key).await?;
        match gzip::original_size(&info.headers) {
            Some(_) => self.range(key, if_match.unwrap_or(&info.etag), span).await,
            None => Err(error),
        }
    }
}

impl Original {
    fn body(&self, span: Option<&Span>) -> Result<ObjectBody> {
        let size = self.bytes.len() as u64;
        let span = span.map_or(0..size, |span| span.start..span.end.min(size));
        if span.is_empty() && size > 0 {
            return Err(StoreError::new(ErrorKind::InvalidRange, Operation::GetObject.name(), &self.key, "a range behind the end"));
        }
        let bytes = self.bytes.slice(span.start as usize..span.end as usize);
        let stream = stream::once(std::future::ready(Ok(bytes))).boxed();
        Ok(ObjectBody { info: self.info.clone(), span, md5: None, stream })
    }
}

/// The original of a compressed object, from all that is stored.
async fn decode(key: &Key, mut body: ObjectBody) -> Result<Original> {
    let corrupt = |why: String| {
        tracing::error!(%key, why, "an object that is stored compressed can't be read");
        StoreError::new(ErrorKind::Corrupt, Operation::GetObject.name(), key, why)
    };
    let size = gzip::original_size(&body.info.headers).ok_or_else(|| corrupt("it isn't marked as compressed any more".to_owned()))?;
    // What we compressed got smaller.
    if body.info.size > size {
        return Err(corrupt(format!("{} bytes are stored of {size}", body.info.size)));
    }
    let mut stored = BytesMut::with_capacity(body.info.size as usize);
    while let Some(chunk) = body.stream.next().await {
        stored.extend_from_slice(&chunk?);
    }
    let bytes = inflate(stored.freeze(), size).await.map_err(corrupt)?;
    Ok(Original { key: key.clone(), info: ObjectInfo { size, ..body.info }, bytes: bytes.into() })
}

async fn inflate(stored: Bytes, size: u64) -> std::result::Result<Vec<u8>, String> {
    if simulation::is_on() {
        return gzip::inflate(&stored, size);
    }
    let inflated = tokio::task::spawn_blocking(move || gzip::inflate(&stored, size)).await;
    inflated.unwrap_or_else(|_| Err("decompressing it was given up".to_owned()))
}

#[async_trait]
impl ObjectStore for GzipStore {
    fn now(&self) -> SystemTime {
        self.inner.now()
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo> {
        let info = self.inner.head(key).await?;
        let size = gzip::original_size(&info.headers).unwrap_or(info.size);
        Ok(ObjectInfo { size, ..info })
    }

    async fn get(&self, key: &Key, span: Option<Span>, if_match: Option<&ETag>) -> Result<ObjectBody> {
        if let (Some(span), Some(etag)) = (&span, if_match)
            && let Some(original) = self.recent(key, etag)
        {
            return original.body(Some(span));
        }
        match (self.inner.get(key, span.clone(), if_match).await, span) {
            (Ok(body), _) if gzip::original_size(&body.info.headers).is_none() => Ok(body),
            // A range of the original can be all that is stored.
            (Ok(body), span) if body.span == (0..body.info.size) => decode(key, body).await?.body(span.as_ref()),
            (Ok(body), Some(span)) => {
                // Its connection goes first: it holds a place.
                let etag = body.info.etag.clone();
                drop(body);
                self.range(key, &etag, &span).await
            }
            (Err(error), Some(span)) if error.is(ErrorKind::InvalidRange) && !span.is_empty() => {
                self.behind(key, &span, if_match, error).await
            }
            (answer, _) => answer,
        }
    }

    async fn put(&self, key: &Key, body: Body, headers: &ObjectHeaders, condition: &Condition) -> Result<Receipt> {
        self.inner.put(key, body, headers, condition).await
    }

    async fn copy(&self, from: &Version, to: &Key, headers: Option<&ObjectHeaders>) -> Result<Receipt> {
        self.inner.copy(from, to, headers).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.inner.delete(key).await
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<Vec<Result<()>>> {
        self.inner.delete_many(keys).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.inner.list(request).await
    }

    async fn create_upload(&self, key: &Key, headers: &ObjectHeaders) -> Result<UploadId> {
        self.inner.create_upload(key, headers).await
    }

    async fn upload_part(&self, key: &Key, upload: &UploadId, number: u32, body: Body) -> Result<Part> {
        self.inner.upload_part(key, upload, number, body).await
    }

    async fn copy_part(&self, key: &Key, upload: &UploadId, number: u32, from: &Key, if_match: Option<&ETag>, span: Span) -> Result<Part> {
        self.inner.copy_part(key, upload, number, from, if_match, span).await
    }

    async fn complete_upload(&self, key: &Key, upload: &UploadId, parts: &[Part], condition: &Condition) -> Result<Receipt> {
        self.inner.complete_upload(key, upload, parts, condition).await
    }

    async fn abort_upload(&self, key: &Key, upload: &UploadId) -> Result<()> {
        self.inner.abort_upload(key, upload).await
    }

    async fn list_uploads(&self) -> Result<Vec<PendingUpload>> {
        self.inner.list_uploads().await
    }

    async fn presign_get(&self, key: &Key, expires: Duration) -> Result<String> {
        self.inner.presign_get(key, expires).await
    }
}

/// The bucket with compressed objects read as their originals.
pub fn decoded(inner: Store) -> Store {
    Arc::new(GzipStore::new(inner))
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;
    use crate::store::memory::MemoryStore;

    async fn read(store: &GzipStore, key: &Key, span: Option<Span>, etag: Option<&ETag>) -> Result<(u64, Span, Vec<u8>)> {
        let body = store.get(key, span, etag).await?;
        let chunks: Vec<Bytes> = body.stream.try_collect().await?;
        Ok((body.info.size, body.span, chunks.concat()))
    }

    #[tokio::test]
    async fn every_range_is_of_the_original() {
        let bucket = Arc::new(MemoryStore::new());
        let store = GzipStore::new(bucket.clone());
        let (key, plain) = (Key::from("a.css"), Key::from("plain"));
        let original = b"a { color: red }\n".repeat(100);
        let size = original.len() as u64;
        let compressed = gzip::compress(&original).unwrap();
        let stored = compressed.len() as u64;
        let mut headers = ObjectHeaders::default();
        gzip::mark(&mut headers, size);
        let receipt = store.put(&key, Body::new(compressed), &headers, &Condition::Any).await.unwrap();
        let etag = receipt.etag();
        let _receipt = store.put(&plain, Body::new("abc"), &ObjectHeaders::default(), &Condition::Any).await.unwrap();
        let info = store.head(&key).await.unwrap();
        assert_eq!((info.size, &info.etag), (size, etag));
        // Before, over and behind the end of what is stored; each also of a store that has nothing in memory.
        for span in [0..1, 0..stored, 0..size, 3..stored + 1, stored..stored + 1, size - 1..size, stored + 5..size * 2, 0..u64::MAX] {
            for store in [&store, &GzipStore::new(bucket.clone())] {
                for condition in [Some(etag), None] {
                    let clamped = span.start..span.end.min(size);
                    let expected = original[clamped.start as usize..clamped.end as usize].to_vec();
                    let got = read(store, &key, Some(span.clone()), condition).await.unwrap();
                    assert_eq!(got, (size, clamped, expected), "{span:?}");
                }
            }
        }
        assert_eq!(read(&store, &key, None, None).await.unwrap(), (size, 0..size, original));
        assert!(read(&store, &key, Some(size..size + 1), Some(etag)).await.is_err_and(|error| error.is(ErrorKind::InvalidRange)));
        assert!(
            read(&store, &key, Some(0..1), Some(&ETag::new("other"))).await.is_err_and(|error| error.is(ErrorKind::PreconditionFailed))
        );
        assert_eq!(read(&store, &plain, Some(1..9), None).await.unwrap(), (3, 1..3, b"bc".to_vec()));
        assert!(read(&store, &plain, Some(5..9), None).await.is_err_and(|error| error.is(ErrorKind::InvalidRange)));
    }
}
