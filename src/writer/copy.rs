//! Server-side copies: renames, and changes of headers, which copy an object onto itself.
//!
//! The source is named by its version. Where that is gone, the bytes come from the cache if it has them all, else from
//! the version that took its place; where there is nothing at all, there is nothing to want. A change that was given up
//! (`Content::Restored`) goes back to its own version alone: what took its place may be another file of ours.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use super::flight::{Effect, Job, Refused, Stored};
use super::grid::{self, PartPlan};
use super::source::is_gone;
use super::{Shared, compress, inline, mark, parts, source, upload};
use crate::cache::LocalFile;
use crate::error::{Error, Result};
use crate::journal::{Content, Desired};
use crate::store::{Condition, ErrorKind, Part, UploadId, multipart_etag};
use crate::types::{ETag, ObjectHeaders, Version};

/// The version that an object is to be a copy of.
pub fn copied(content: &Content) -> Option<&Version> {
    if let Content::CopyOf(version) | Content::Restored(version) = content { Some(version) } else { None }
}

pub async fn copy(shared: &Arc<Shared>, job: &Job, from: &Version) -> Result<Effect> {
    let onto_itself = from.key == job.key;
    if onto_itself && job.desired.headers.is_none() {
        return Ok(Effect::Nothing);
    }
    if !onto_itself && !may_replace(shared, job).await? {
        if let Some(made) = made_unheard(shared, job, from).await? {
            return Ok(Effect::Stored(made));
        }
        // Copies of single uploads keep their ETag: an earlier attempt of ours can be told by it.
        let ours = stored(shared, job, from, from.etag.clone(), job.desired.headers(), None);
        return Ok(Effect::Refused(Refused { ours: Some(ours), unsure: false }));
    }
    match copy_version(shared, job, from).await {
        Err(Error::Stale) => {}
        done => return done,
    }
    if onto_itself && let Some(made) = made_unheard(shared, job, from).await? {
        return Ok(Effect::Stored(made));
    }
    if !onto_itself && let Some(file) = shared.cache.find_version(from).filter(|file| file.is_complete() && !file.is_loose()) {
        tracing::info!(key = %job.key, from = %from.key, "the source was changed by another writer; uploading our copy of it");
        return upload::file_as(shared, job, &file).await;
    }
    match &job.desired.content {
        Content::Restored(_) if !onto_itself => made_before(shared, job, from).await,
        _ => copy_present(shared, job, from).await,
    }
}

/// A staged file of which every byte is the same as in a version under another key: the bucket copies it. None: it isn't,
/// or that version is gone and the bytes have to go up.
pub async fn unchanged(shared: &Arc<Shared>, job: &Job, file: &Arc<LocalFile>) -> Result<Option<Effect>> {
    let stamp = file.stamp()?;
    let is_whole = |base: &Version| base.key != job.key && base.size == file.size() && base.size > 0;
    let Some(base) = file.base().filter(is_whole) else { return Ok(None) };
    if job.local_only || !file.changed().is_empty() || !file.freed().is_empty() {
        return Ok(None);
    }
    let headers = upload::headers(shared, job, file);
    if compress::forbids_copy(shared, &base, &headers).await? {
        return Ok(None);
    }
    let job = Job { desired: Desired { headers: Some((&headers).into()), ..job.desired.clone() }, ..job.clone() };
    let as_staged = |stored: Stored| Stored { content: job.desired.content.clone(), stamp: Some(stamp), ..stored };
    if !may_replace(shared, &job).await? {
        if let Some(made) = made_unheard(shared, &job, &base).await? {
            return Ok(Some(Effect::Stored(as_staged(made))));
        }
        let ours = as_staged(stored(shared, &job, &base, base.etag.clone(), job.desired.headers(), None));
        return Ok(Some(Effect::Refused(Refused { ours: Some(ours), unsure: false })));
    }
    mark::note(shared, &job, &base, headers)?;
    match copy_version(shared, &job, &base).await {
        Ok(Effect::Stored(stored)) => Ok(Some(Effect::Stored(as_staged(stored)))),
        Ok(effect) => Ok(Some(effect)),
        Err(Error::Stale) => {
            tracing::info!(key = %job.key, from = %base.key, "what it was copied from has changed since: its bytes go up");
            source::from_twin(shared, file, &base).await?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// CopyObject has no condition on its target: it is looked at before.
async fn may_replace(shared: &Shared, job: &Job) -> Result<bool> {
    let present = match &job.desired.condition {
        Condition::Any => return Ok(true),
        _ => match shared.store.head(&job.key).await {
            Ok(info) => Some(info.etag),
            Err(error) if error.is(ErrorKind::NotFound) => None,
            Err(error) => return Err(error.into()),
        },
    };
    Ok(match (&job.desired.condition, present) {
        (Condition::IfMatch(wanted), present) => present.as_ref() == Some(wanted),
        (_, present) => present.is_none(),
    })
}

/// Copies whatever version the source has now.
async fn copy_present(shared: &Arc<Shared>, job: &Job, from: &Version) -> Result<Effect> {
    let info = match shared.store.head(&from.key).await {
        Ok(info) => info,
        Err(error) if is_gone(&error) => return made_before(shared, job, from).await,
        Err(error) => return Err(error.into()),
    };
    tracing::info!(key = %job.key, from = %from.key, "the source was changed by another writer; copying what is there now");
    let present = Version { key: from.key.clone(), etag: info.etag, size: info.size };
    match copy_version(shared, job, &present).await {
        // Changed once more: the next attempt looks afresh.
        Err(Error::Stale) => Err(crate::store::StoreError::new(
            ErrorKind::Unavailable,
            "CopyObject",
            &job.key,
            "the source keeps changing while it is copied",
        )
        .into()),
        done => done,
    }
}

/// An attempt of ours has made the copy, and its answer was lost or not recorded: what is there has the bytes of `from`, and
/// perhaps older headers than are wanted by now. A copy onto itself has replaced that version.
async fn made_unheard(shared: &Shared, job: &Job, from: &Version) -> Result<Option<Stored>> {
    let info = match shared.store.head(&job.key).await {
        Ok(info) => info,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if !shared.queue.lock().is_own_copy_of(&job.key, &info, &from.etag) {
        return Ok(None);
    }
    tracing::info!(key = %job.key, from = %from.key, "an earlier copy took effect after all");
    let made = stored(shared, job, from, info.etag, Some(info.headers), None);
    Ok(Some(Stored { wanted: job.desired.headers(), last_modified: info.last_modified, ..made }))
}

/// The version is nowhere. The copy may have been made by a mount that forgot it in a power cut, and then removed its source.
pub async fn made_before(shared: &Shared, job: &Job, from: &Version) -> Result<Effect> {
    match shared.store.head(&job.key).await {
        Ok(info) if info.etag == from.etag => {
            let mut stored = stored(shared, job, from, info.etag, Some(info.headers), None);
            (stored.version.size, stored.last_modified) = (info.size, info.last_modified);
            Ok(Effect::Stored(stored))
        }
        Ok(_) => Ok(Effect::Gone),
        Err(error) if is_gone(&error) => Ok(Effect::Gone),
        Err(error) => Err(error.into()),
    }
}

/// [`Error::Stale`]: that version is gone.
pub async fn copy_version(shared: &Arc<Shared>, job: &Job, from: &Version) -> Result<Effect> {
    if from.size > shared.tuning.copy_bytes {
        return copy_parts(shared, job, from).await;
    }
    let headers = match job.desired.headers() {
        Some(headers) => Some(compress::of_copy(shared, from, &headers).await?),
        None => None,
    };
    match shared.store.copy(from, &job.key, headers.as_ref()).await {
        Ok(receipt) => Ok(Effect::Stored(stored(shared, job, from, receipt.etag().clone(), headers, None))),
        Err(error) if is_gone(&error) => Err(Error::Stale),
        Err(error) => {
            inline::note_attempt(shared, job, &error, &from.etag);
            Err(error.into())
        }
    }
}

fn stored(shared: &Shared, job: &Job, from: &Version, etag: ETag, headers: Option<ObjectHeaders>, upload: Option<UploadId>) -> Stored {
    Stored {
        content: Content::CopyOf(from.clone()),
        version: Version { key: job.key.clone(), etag, size: from.size },
        headers,
        wanted: None,
        last_modified: shared.store.now(),
        stamp: None,
        upload,
    }
}

/// A copy of more than one CopyObject can do.
async fn copy_parts(shared: &Arc<Shared>, job: &Job, from: &Version) -> Result<Effect> {
    let headers = match job.desired.headers() {
        // Larger than what is ever compressed.
        Some(headers) => compress::plain(shared, &job.key, headers),
        None => match shared.store.head(&from.key).await {
            Ok(info) => info.headers,
            Err(error) if is_gone(&error) => return Err(Error::Stale),
            Err(error) => return Err(error.into()),
        },
    };
    let part_bytes = grid::part_bytes(from.size, shared.tuning.copy_part_bytes, shared.tuning.max_parts);
    let plan = grid::plan(from.size, part_bytes, Some(from.size), &[]);
    let id = parts::begin(shared, job, &headers).await?;
    let sent = match send_copies(shared, job, &id, &plan, from).await {
        Ok(sent) if parts::still_there(shared, &plan, from).await? => sent,
        failed => {
            parts::give_up(shared, job, id);
            return Err(failed.err().unwrap_or(Error::Stale));
        }
    };
    complete(shared, job, from, headers, id, &sent).await
}

/// As for uploads: what Complete is about to make is journalled, so that it doesn't pass for another host's if nobody hears
/// of it. It has another ETag than the source, and a copy onto itself has replaced that.
async fn complete(shared: &Arc<Shared>, job: &Job, from: &Version, headers: ObjectHeaders, id: UploadId, sent: &[Part]) -> Result<Effect> {
    let expected = multipart_etag(sent);
    if let Some(etag) = &expected {
        inline::begin_attempt(shared, job, etag)?;
    }
    match shared.store.complete_upload(&job.key, &id, sent, &job.desired.condition).await {
        Ok(receipt) => Ok(Effect::Stored(stored(shared, job, from, receipt.etag().clone(), Some(headers), Some(id)))),
        Err(error) => {
            parts::give_up(shared, job, id);
            if inline::is_refusal(&error, &job.desired.condition) {
                let ours = expected.map(|etag| stored(shared, job, from, etag, Some(headers), None));
                return Ok(Effect::Refused(Refused { ours, unsure: error.outcome_unknown }));
            }
            match expected {
                // Completed, perhaps, by an attempt whose answer was lost.
                Some(etag) if error.is(ErrorKind::NoSuchUpload) => shared.queue.lock().remember_own(&job.key, etag),
                Some(etag) => inline::note_attempt(shared, job, &error, &etag),
                None => {}
            }
            Err(error.into())
        }
    }
}

async fn send_copies(shared: &Arc<Shared>, job: &Job, id: &UploadId, plan: &[PartPlan], from: &Version) -> Result<Vec<Part>> {
    let send = |part: PartPlan| async move {
        let _slot = shared.parts.acquire().await.map_err(|_| Error::Timeout)?;
        parts::copy_part(shared, job, id, part.number, from, part.span).await
    };
    let mut sent: Vec<Part> =
        stream::iter(plan.to_vec()).map(send).buffer_unordered(shared.config.parallel_parts.max(1)).try_collect().await?;
    sent.sort_by_key(|part| part.number);
    Ok(sent)
}
