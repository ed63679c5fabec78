//! Breaks a cycle of entries that take bytes from each other's keys (an exchange): one side's bytes are fetched here.

use std::sync::Arc;

use tokio::time::Instant;

use super::finish::is_current;
use super::flight::{self, Job};
use super::source::is_gone;
use super::{Shared, copy, source, upload};
use crate::cache::{LocalFile, Pin};
use crate::error::{Error, Result};
use crate::journal::{Change, Content, Desired};
use crate::types::{ObjectHeaders, ObjectInfo, Version};

/// Makes `job`'s entry independent of any other key: staged, complete, and uploaded from here. On return all of it is on
/// the disk: as soon as this flight lands, the bucket's copy of the bytes is replaced, and a power cut must not find the
/// only other one in the page cache.
pub async fn localise(shared: &Arc<Shared>, job: &Job) -> Result<()> {
    let here = match (&job.desired.content, &job.file) {
        (Content::CopyOf(version), _) => match fetch_version(shared, job, version).await {
            Err(Error::Stale) => fetch_present(shared, job, version).await?,
            fetched => Some(fetched?),
        },
        (Content::Restored(version), _) => match fetch_version(shared, job, version).await {
            Err(Error::Stale) => None,
            fetched => Some(fetched?),
        },
        (Content::Staged(_), Some(file)) => {
            let pin = file.pin();
            fetch_all(shared, file).await?;
            // What they are asked of is about to be overwritten too.
            let headers = upload::with_headers(shared, job, file).await?.desired.headers();
            Some(Here { file: file.clone(), headers, _pin: pin })
        }
        _ => return Ok(()),
    };
    match here {
        Some(here) => {
            stage(shared, job, &here)?;
            let cache = shared.cache.clone();
            source::blocking(move || cache.persist()).await
        }
        None => {
            if let Some(version) = copy::copied(&job.desired.content) {
                flight::land(shared, job, copy::made_before(shared, job, version).await);
            }
            Ok(())
        }
    }
}

/// Bytes that are all here, and what goes with them.
struct Here {
    file: Arc<LocalFile>,
    headers: Option<ObjectHeaders>,
    _pin: Pin,
}

/// [`Error::Stale`]: that version is gone.
async fn fetch_version(shared: &Arc<Shared>, job: &Job, version: &Version) -> Result<Here> {
    // Of what was only listed, the version tells how much is stored.
    let info = present(shared, version).await?;
    let version = &Version { size: info.size, ..version.clone() };
    let headers = job.desired.headers().unwrap_or(info.headers);
    let file = shared.cache.of_version(version)?;
    let pin = file.pin();
    fetch_all(shared, &file).await?;
    Ok(Here { file, headers: Some(headers), _pin: pin })
}

/// Another writer replaced the source: what is there now. None: nothing is.
async fn fetch_present(shared: &Arc<Shared>, job: &Job, version: &Version) -> Result<Option<Here>> {
    match shared.store.head(&version.key).await {
        Ok(info) => {
            let present = Version { key: version.key.clone(), etag: info.etag, size: info.size };
            fetch_version(shared, job, &present).await.map(Some)
        }
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// From now on the entry wants the bytes that are here.
fn stage(shared: &Shared, job: &Job, here: &Here) -> Result<()> {
    let mut queue = shared.queue.lock();
    if !is_current(&queue, job) {
        return Ok(());
    }
    let content = Content::Staged(here.file.id());
    let desired = Desired { content, headers: here.headers.as_ref().map(Into::into), ..job.desired.clone() };
    shared.journal.apply(&[Change::PutFile(here.file.row(true)?), Change::SetDesired(job.key.clone(), desired.clone())])?;
    if let Some(entry) = queue.get_mut(&job.key) {
        (entry.desired, entry.file, entry.local_only) = (desired, Some(here.file.clone()), true);
    }
    here.file.mark_dirty();
    let now = Instant::now();
    queue.index(&job.key);
    queue.schedule_at(&job.key, now);
    queue.unpark(&job.key, now);
    Ok(())
}

async fn present(shared: &Shared, version: &Version) -> Result<ObjectInfo> {
    match shared.store.head(&version.key).await {
        Ok(info) if info.etag == version.etag => Ok(info),
        Ok(_) => Err(Error::Stale),
        Err(error) if is_gone(&error) => Err(Error::Stale),
        Err(error) => Err(error.into()),
    }
}

/// Fetches what is absent, a part at a time, so that memory stays bounded.
async fn fetch_all(shared: &Arc<Shared>, file: &Arc<LocalFile>) -> Result<()> {
    while !file.is_complete() {
        let Some(hole) = file.missing(0..file.size()).into_iter().next() else { break };
        let span = hole.start..hole.end.min(hole.start + shared.tuning.part_bytes);
        let _room = shared.memory(span.end - span.start).await?;
        source::body(shared, file, span.clone()).await?;
        if file.missing(span.clone()) == [span] {
            return Err(Error::NoSpace);
        }
    }
    Ok(())
}
