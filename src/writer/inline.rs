//! Uploads of a few bytes that are in the journal itself: symlinks and directory markers.

use super::flight::{Effect, Job, Refused, Stored};
use super::{Shared, backoff};
use crate::error::Result;
use crate::journal::Change;
use crate::store::{Body, Condition, ErrorKind, StoreError, plain_etag};
use crate::types::{ETag, ObjectHeaders, Version};

pub async fn put(shared: &Shared, job: &Job, bytes: &[u8]) -> Result<Effect> {
    let headers = job.desired.headers().unwrap_or_default();
    put_body(shared, job, Body::new(bytes.to_vec()), headers, bytes.len() as u64).await
}

/// One PUT under the job's condition. `size`: of what `body` is read as.
pub async fn put_body(shared: &Shared, job: &Job, body: Body, headers: ObjectHeaders, size: u64) -> Result<Effect> {
    let etag = plain_etag(&body.md5);
    begin_attempt(shared, job, &etag)?;
    let answer = shared.store.put(&job.key, body, &headers, &job.desired.condition).await;
    let mut stored = Stored {
        content: job.desired.content.clone(),
        version: Version { key: job.key.clone(), etag, size },
        headers: Some(headers),
        wanted: None,
        last_modified: shared.store.now(),
        stamp: None,
        upload: None,
    };
    match answer {
        Ok(receipt) => {
            stored.version.etag = receipt.etag().clone();
            Ok(Effect::Stored(stored))
        }
        Err(error) if is_refusal(&error, &job.desired.condition) => {
            Ok(Effect::Refused(Refused { ours: Some(stored), unsure: error.outcome_unknown }))
        }
        Err(error) => {
            note_attempt(shared, job, &error, &stored.version.etag);
            Err(error.into())
        }
    }
}

/// Journals what a conditional write is about to store. If the daemon dies before the answer is recorded, and the file
/// changes before it is sent again, the condition fails on our own version: that must not pass for another host's.
pub fn begin_attempt(shared: &Shared, job: &Job, etag: &ETag) -> Result<()> {
    match job.desired.condition {
        Condition::Any => Ok(()),
        Condition::IfAbsent | Condition::IfMatch(_) => shared.journal.apply(&[Change::Attempt(job.key.clone(), etag.clone())]),
    }
}

/// A write that failed may have left `etag` behind: what is found there later is our own.
pub fn note_attempt(shared: &Shared, job: &Job, error: &StoreError, etag: &ETag) {
    if backoff::attempt_may_have_worked(error) {
        let built_on = job.file.as_ref().and_then(|file| file.base()).map(|base| base.etag);
        shared.queue.lock().remember_attempt(&job.key, etag.clone(), built_on);
    }
}

/// A condition did not hold; stores answer an If-Match on a missing key with "not found".
pub fn is_refusal(error: &StoreError, condition: &Condition) -> bool {
    match error.kind {
        ErrorKind::PreconditionFailed => true,
        ErrorKind::NotFound => matches!(condition, Condition::IfMatch(_)),
        _ => false,
    }
}
