//! Uploads of data files: one PUT for small ones, parts for the others. What goes up is a state that the file really had.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::SemaphorePermit;
use tokio::time::sleep;

use super::flight::{Effect, Job, Stored};
use super::{Shared, compress, copy, inline, multipart, source};
use crate::cache::{LocalFile, Stamp};
use crate::error::{Error, Result};
use crate::journal::{Content, Desired};
use crate::store::{Body, ErrorKind, StoreError};
use crate::types::{MTIME, ObjectHeaders, Version};

/// The memory budget is counted in these, so that a semaphore's 32 bits reach far enough.
const BUDGET_UNIT: u64 = 4 << 10;

/// The staged file of `job`.
pub async fn staged(shared: &Arc<Shared>, job: &Job) -> Result<Effect> {
    let Some(file) = job.file.clone() else {
        return Err(Error::Corrupt("the staged data file is missing from the cache directory".into()));
    };
    let _pin = file.pin();
    let job = &with_headers(shared, job, &file).await?;
    if let Some(effect) = copy::unchanged(shared, job, &file).await? {
        return Ok(effect);
    }
    match file_as(shared, job, &file).await {
        Err(Error::Stale) => onto_own_attempt(shared, job, &file).await,
        done => done,
    }
}

/// An upload replaces all headers. Of a file that a program wrote on in after a daemon died, or in an outage, nobody may have told
/// any: they are those of its base, but for the time of that.
pub async fn with_headers(shared: &Shared, job: &Job, file: &LocalFile) -> Result<Job> {
    let is_told = job.desired.headers.is_some() || current_headers(shared, job, file).is_some();
    let Some(base) = file.base().filter(|_| !is_told) else { return Ok(job.clone()) };
    let headers = match shared.store.head(&base.key).await {
        Ok(info) if info.etag == base.etag => {
            let mut headers = info.headers;
            headers.metadata.remove(MTIME);
            Some(headers)
        }
        Ok(_) => None,
        Err(error) if source::is_gone(&error) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(Job { desired: Desired { headers: headers.map(Into::into), ..job.desired.clone() }, ..job.clone() })
}

/// What the file builds on is gone. Where an attempt of ours that built on it too has replaced it, of which the answer was
/// lost in an outage and after which the file changed, the file builds on that one: what is absent here is the same in both.
/// Nothing else is known of that attempt, so that all changes count as unsent.
async fn onto_own_attempt(shared: &Shared, job: &Job, file: &LocalFile) -> Result<Effect> {
    let info = match shared.store.head(&job.key).await {
        Ok(info) => info,
        Err(error) if source::is_gone(&error) => return Err(Error::Stale),
        Err(error) => return Err(error.into()),
    };
    let Some(base) = file.base() else { return Err(Error::Stale) };
    let absent = file.missing(0..file.size()).last().map_or(0, |span| span.end);
    if !shared.queue.lock().is_attempt_on(&job.key, &info, &base.etag) || info.size < absent {
        return Err(Error::Stale);
    }
    tracing::info!(key = %job.key, "an earlier attempt took effect after all; going on from there");
    Ok(Effect::Stored(Stored {
        content: job.desired.content.clone(),
        version: Version { key: job.key.clone(), etag: info.etag, size: info.size },
        headers: Some(info.headers),
        wanted: Some(headers(shared, job, file)),
        last_modified: info.last_modified,
        stamp: Some(Stamp { change: 0, ..file.stamp()? }),
        upload: None,
    }))
}

/// Uploads `file` under the job's key; also where it is the clean copy of a version that was to be copied.
pub async fn file_as(shared: &Arc<Shared>, job: &Job, file: &Arc<LocalFile>) -> Result<Effect> {
    let _pin = file.pin();
    loop {
        let size = file.size();
        if size > shared.tuning.max_object_bytes {
            return Err(StoreError::new(ErrorKind::TooLarge, "CreateMultipartUpload", &job.key, too_large(size)).into());
        }
        let effect = match size <= shared.tuning.single_bytes && file.freed().is_empty() {
            true => single(shared, job, file).await?,
            false => multipart::upload(shared, job, file).await?,
        };
        if let Some(effect) = effect {
            return Ok(effect);
        }
    }
}

fn too_large(size: u64) -> String {
    format!("{size} bytes are more than an object can hold (4.995 TiB)")
}

/// None: it has grown too large for one PUT.
async fn single(shared: &Arc<Shared>, job: &Job, file: &Arc<LocalFile>) -> Result<Option<Effect>> {
    shared.give_up_session(&job.key);
    let _room = shared.memory(file.size().max(BUDGET_UNIT)).await?;
    let Some((body, headers, stamp)) = stable_body(shared, job, file).await? else { return Ok(None) };
    let size = body.bytes.len() as u64;
    let (body, headers) = compress::upload(shared, job, body, headers).await?;
    source::keep_fetched(shared, file).await?;
    let mut effect = inline::put_body(shared, job, body, headers, size).await?;
    match &mut effect {
        Effect::Stored(stored) => stored.stamp = Some(stamp),
        Effect::Refused(refused) => {
            if let Some(ours) = &mut refused.ours {
                ours.stamp = Some(stamp);
            }
        }
        _ => {}
    }
    Ok(Some(effect))
}

/// All bytes, as they were at one instant, and the headers of that state.
async fn stable_body(shared: &Arc<Shared>, job: &Job, file: &Arc<LocalFile>) -> Result<Option<(Body, ObjectHeaders, Stamp)>> {
    for round in 0.. {
        let stamp = file.stamp()?;
        let size = file.size();
        if size > shared.tuning.single_bytes {
            break;
        }
        source::settle_pages(file).await?;
        let headers = headers(shared, job, file);
        let body = source::body(shared, file, 0..size).await?;
        match body {
            Some(body) if file.stamp()? == stamp && file.size() == size => return Ok(Some((body, headers, stamp))),
            _ => breathe(round).await,
        }
    }
    Ok(None)
}

/// A program is writing: the longer it does, the longer the pause before the file is read again.
pub async fn breathe(round: u32) {
    sleep(Duration::from_millis(10 << round.min(7))).await;
}

/// Of the file as it is, stored as it is.
pub fn headers(shared: &Shared, job: &Job, file: &LocalFile) -> ObjectHeaders {
    let current = current_headers(shared, job, file);
    compress::plain(shared, &job.key, current.or_else(|| job.desired.headers()).unwrap_or_default())
}

fn current_headers(shared: &Shared, job: &Job, file: &LocalFile) -> Option<ObjectHeaders> {
    match (&job.desired.content, shared.events.get()) {
        (Content::Staged(_), Some(events)) => events.headers(&job.key, file.id()),
        _ => None,
    }
}

impl Shared {
    /// Waits until `bytes` fit into the memory budget; more than all of it waits for all of it.
    pub async fn memory(&self, bytes: u64) -> Result<SemaphorePermit<'_>> {
        let units = bytes.min(self.tuning.memory_bytes).div_ceil(BUDGET_UNIT);
        let units = u32::try_from(units).unwrap_or(u32::MAX).min(self.memory_units());
        self.memory.acquire_many(units).await.map_err(|_| Error::Timeout)
    }

    /// The whole memory budget, in the semaphore's units.
    pub fn memory_units(&self) -> u32 {
        memory_units(self.tuning.memory_bytes)
    }

    /// The multipart upload of `key` is of no use any more.
    pub fn give_up_session(&self, key: &crate::types::Key) {
        self.queue.lock().give_up_session(key);
        self.aborts.notify_one();
    }
}

pub fn memory_units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(BUDGET_UNIT).max(1)).unwrap_or(u32::MAX >> 4)
}
