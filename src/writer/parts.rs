//! What uploads and copies in parts share: beginning, copied parts, and giving up.

use std::sync::atomic::Ordering;

use super::flight::Job;
use super::grid::{PartPlan, PartSource};
use super::source::{blocking, is_gone};
use super::{Shared, orphans};
use crate::error::{Error, Result};
use crate::journal::Change;
use crate::store::{ErrorKind, Part, UploadId};
use crate::types::{ObjectHeaders, Span, Version};

/// Begins an upload. Its id is in the journal before this returns; before the store is asked, that it is about to be, and
/// that on the disk: parts that nobody remembers after a power cut would be paid for until somebody looks. One fsync is
/// nothing beside an upload of this size.
pub async fn begin(shared: &Shared, job: &Job, headers: &ObjectHeaders) -> Result<UploadId> {
    let intent = orphans::intent(&job.key, job.number);
    let journalled = shared.journal.apply(&[Change::BeginUpload(job.key.clone(), intent.clone())]);
    let journal = shared.journal.clone();
    blocking(move || journalled.and_then(|()| journal.sync())).await?;
    let id = match shared.store.create_upload(&job.key, headers).await {
        Ok(id) => id,
        Err(error) if error.outcome_unknown => {
            give_up(shared, job, intent);
            return Err(error.into());
        }
        Err(error) => {
            shared.journal.apply(&[Change::EndUpload(intent)])?;
            return Err(error.into());
        }
    };
    if let Err(error) = shared.journal.apply(&[Change::EndUpload(intent), Change::BeginUpload(job.key.clone(), id.clone())]) {
        give_up(shared, job, id);
        return Err(error);
    }
    Ok(id)
}

/// Has the upload aborted in the background; until then it stays in the journal.
pub fn give_up(shared: &Shared, job: &Job, id: UploadId) {
    shared.queue.lock().aborts.push((job.key.clone(), id));
    shared.aborts.notify_one();
}

/// The entry still wants this content under this key.
pub fn is_wanted(shared: &Shared, job: &Job) -> bool {
    shared.queue.lock().get(&job.key).is_some_and(|entry| entry.desired.content == job.desired.content)
}

/// One part from the same span of `base`. [`Error::Stale`]: that version is gone.
pub async fn copy_part(shared: &Shared, job: &Job, id: &UploadId, number: u32, base: &Version, span: Span) -> Result<Part> {
    let plain = shared.plain_copy_parts.load(Ordering::Relaxed);
    let condition = (!plain).then_some(&base.etag);
    let mut answer = shared.store.copy_part(&job.key, id, number, &base.key, condition, span.clone()).await;
    if !plain && answer.as_ref().is_err_and(|error| error.is(ErrorKind::Unsupported)) {
        // R2 has no condition on UploadPartCopy: the base is looked at before the upload is completed.
        answer = shared.store.copy_part(&job.key, id, number, &base.key, None, span).await;
        shared.plain_copy_parts.fetch_or(answer.is_ok(), Ordering::Relaxed);
    }
    answer.map_err(|error| if is_gone(&error) { Error::Stale } else { error.into() })
}

/// Where copied parts carry no condition: is the base still the version that they were copied from?
pub async fn still_there(shared: &Shared, plan: &[PartPlan], base: &Version) -> Result<bool> {
    let copied = plan.iter().any(|part| part.source == PartSource::Base);
    if !copied || !shared.plain_copy_parts.load(Ordering::Relaxed) {
        return Ok(true);
    }
    match shared.store.head(&base.key).await {
        Ok(info) => Ok(info.etag == base.etag),
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
