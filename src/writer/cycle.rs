//! Breaks a cycle of entries that take bytes from each other's keys (an exchange): one side's bytes are fetched here.

use std::sync::Arc;

use tokio::time::Instant;

use super::finish::is_current;
use super::flight::Job;
use super::source::is_gone;
use super::{Shared, source};
use crate::cache::LocalFile;
use crate::error::{Error, Result};
use crate::journal::{Change, Content, Desired};
use crate::types::{ObjectHeaders, Version};

/// Makes `job`'s entry independent of any other key: staged, complete, and uploaded from here.
pub async fn localise(shared: &Arc<Shared>, job: &Job) -> Result<()> {
    let (file, headers) = match (&job.desired.content, &job.file) {
        (Content::CopyOf(version), _) => {
            let headers = match &job.desired.headers {
                Some(headers) => headers.clone(),
                None => source_headers(shared, version).await?,
            };
            (shared.cache.of_version(version)?, Some(headers))
        }
        (Content::Staged(_), Some(file)) => (file.clone(), job.desired.headers.clone()),
        _ => return Ok(()),
    };
    let _pin = file.pin();
    fetch_all(shared, &file).await?;
    let mut queue = shared.queue.lock();
    if !is_current(&queue, job) {
        return Ok(());
    }
    let content = Content::Staged(file.id());
    let desired = Desired { content, headers, ..job.desired.clone() };
    shared.journal.apply(&[Change::PutFile(file.row(true)?), Change::SetDesired(job.key.clone(), desired.clone())])?;
    if let Some(entry) = queue.get_mut(&job.key) {
        (entry.desired, entry.file, entry.local_only) = (desired, Some(file.clone()), true);
    }
    file.mark_dirty();
    let now = Instant::now();
    queue.index(&job.key);
    queue.schedule_at(&job.key, now);
    queue.unpark(&job.key, now);
    Ok(())
}

async fn source_headers(shared: &Shared, version: &Version) -> Result<ObjectHeaders> {
    match shared.store.head(&version.key).await {
        Ok(info) => Ok(info.headers),
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
