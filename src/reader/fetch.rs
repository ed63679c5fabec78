//! One ranged GET of one version, checked before a byte of it is used.
//!
//! The store's decorators have retried and resumed whatever could be; an error here is the end of this GET. A GET that
//! brings nothing for the whole deadline is given up, so that a hanging connection can't hold its bytes for ever.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::time::timeout;

use super::Shared;
use super::failure::Failure;
use super::flight::Landing;
use crate::cache::LocalFile;
use crate::store::retry::CHECKED_BYTES;
use crate::store::{ErrorKind, ObjectBody, StoreError};
use crate::types::{Span, Version};

/// The body of a GET, whose length and version are what was asked for.
struct Body {
    stream: BoxStream<'static, Result<Bytes, StoreError>>,
    /// What is still to come.
    left: Span,
    version: Version,
    patience: Duration,
}

/// Brings a flight's bytes into the file. Runs as its own task: a reader that goes away doesn't end it.
pub async fn fly(shared: Arc<Shared>, file: Arc<LocalFile>, base: Version, landing: Landing) {
    // Evicted while they come in, the bytes would be fetched again at once.
    let _pin = file.pin();
    let outcome = match shared.gate.enter(&landing.flight.urged).await {
        // Others found no room while this one was queued.
        Some(_) if shared.is_full() => Err(Failure::Full),
        Some(_permit) => fill(&shared, &file, &base, &landing).await,
        None => Err(Failure::Ended),
    };
    match &outcome {
        Err(Failure::Full) if !shared.is_full() => shared.note_full(),
        Err(Failure::Full) => {}
        Err(failure) => tracing::debug!(key = %base.key, span = ?landing.flight.span, ?failure, "fetch failed"),
        Ok(()) => {}
    }
    landing.land(outcome);
}

async fn fill(shared: &Shared, file: &LocalFile, base: &Version, landing: &Landing) -> Result<(), Failure> {
    let (flight, span) = (&landing.flight, checkable(base, &landing.flight.span));
    let mut body = open(shared, file, base, &span).await?;
    let mut offset = span.start;
    while let Some(chunk) = body.next().await? {
        match file.fill(base, offset, &chunk) {
            Ok(true) => offset += chunk.len() as u64,
            Ok(false) => return Err(Failure::Rebased),
            Err(error) => return Err(Failure::of_disk(error)),
        }
        flight.progress.notify_waiters();
    }
    Ok(())
}

/// The bytes of `span` in memory, for what the cache has no room for. Waits for a place like any reader.
pub async fn collect(shared: Arc<Shared>, file: Arc<LocalFile>, base: Version, span: Span) -> Result<Bytes, Failure> {
    let urged = tokio::sync::Notify::new();
    urged.notify_one();
    let _permit = shared.gate.enter(&urged).await.ok_or(Failure::Ended)?;
    let wide = checkable(&base, &span);
    let mut body = open(&shared, &file, &base, &wide).await?;
    let mut bytes = BytesMut::with_capacity((wide.end - wide.start) as usize);
    while let Some(chunk) = body.next().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze().slice((span.start - wide.start) as usize..(span.end - wide.start) as usize))
}

/// What to ask for to get `span`: all of a small object, even if some of it is here, since only the whole can be checked.
fn checkable(base: &Version, span: &Span) -> Span {
    if base.size <= CHECKED_BYTES { 0..base.size } else { span.clone() }
}

async fn open(shared: &Shared, file: &LocalFile, base: &Version, span: &Span) -> Result<Body, Failure> {
    let patience = shared.config.timeout;
    // A plain GET for all of it: the cheapest for a store, and for a CDN before it.
    let range = (*span != (0..base.size)).then(|| span.clone());
    let ask = || shared.store.get(&base.key, range.clone(), Some(&base.etag));
    let answer = timeout(patience, shared.answers.first(ask)).await.map_err(|_| Failure::Timeout)?;
    match answer {
        Ok(body) => check(body, base, span, patience),
        Err(error) if matches!(error.kind, ErrorKind::PreconditionFailed | ErrorKind::NotFound) => {
            // A rename may have moved the version while the request was on its way.
            Err(if file.base().as_ref() == Some(base) { Failure::Stale } else { Failure::Rebased })
        }
        Err(error) => Err(Failure::Store(error)),
    }
}

fn check(body: ObjectBody, base: &Version, span: &Span, patience: Duration) -> Result<Body, Failure> {
    if body.info.etag != base.etag {
        // The store has no conditions on GET; the answer says the same.
        return Err(Failure::Stale);
    }
    if body.info.size != base.size || body.span != *span {
        let text = format!(
            "asked for bytes {}-{} of {}, got {}-{} of {} under the same ETag",
            span.start, span.end, base.size, body.span.start, body.span.end, body.info.size
        );
        return Err(corrupt(base, text));
    }
    Ok(Body { stream: body.stream, left: span.clone(), version: base.clone(), patience })
}

impl Body {
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let length = self.left.end - self.left.start;
        match timeout(self.patience, self.stream.next()).await.map_err(|_| Failure::Timeout)? {
            Some(Ok(chunk)) if chunk.len() as u64 <= length => {
                self.left.start += chunk.len() as u64;
                Ok(Some(chunk))
            }
            Some(Ok(_)) => Err(corrupt(&self.version, "the body is longer than announced")),
            Some(Err(error)) => Err(Failure::Store(error)),
            None if length == 0 => Ok(None),
            None => Err(corrupt(&self.version, format!("the body ended {length} bytes early"))),
        }
    }
}

fn corrupt(version: &Version, text: impl Into<String>) -> Failure {
    Failure::Store(StoreError::new(ErrorKind::Corrupt, "GetObject", &version.key, text))
}
