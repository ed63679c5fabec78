//! A lost name whose upload holds freed parts: theirs is kept beside ours, not ours beside theirs.
//!
//! Keeping both needs our bytes under another name, and an upload can't change its name, nor can its parts be read back.
//! So the version that is there is copied to the conflict's name, on the server; then ours is completed on the condition
//! that this very version is still there. Neither side is lost, whoever comes between: then it begins anew. Killed between
//! the two, theirs exists twice.

use std::sync::Arc;

use super::Shared;
use super::conflict::conflict_key;
use super::copy::copy_version;
use super::flight::{Effect, Job};
use crate::clock;
use crate::error::{Error, Result};
use crate::journal::{Change, Content, Desired};
use crate::store::{Condition, ErrorKind, StoreError};
use crate::types::{ObjectInfo, Version};

pub async fn keep_theirs(shared: &Arc<Shared>, job: &Job, theirs: &ObjectInfo) -> Result<Effect> {
    let version = Version { key: job.key.clone(), etag: theirs.etag.clone(), size: theirs.size };
    let time = clock::now();
    let kept = {
        let queue = shared.queue.lock();
        let is_free = |key: &_| queue.get(key).is_none() && queue.flight(key).is_none();
        (1..).map(|attempt| conflict_key(&job.key, &shared.config.host, time, attempt)).find(is_free).ok_or(Error::Exists)?
    };
    // A copy that names no headers keeps all but the storage class.
    let headers = theirs.headers.storage_class.is_some().then(|| theirs.headers.clone());
    let desired = Desired {
        content: Content::CopyOf(version.clone()),
        headers: headers.map(Into::into),
        condition: Condition::Any,
        ..job.desired.clone()
    };
    let copying = Job { key: kept.clone(), desired, file: None, ..job.clone() };
    let stored = match copy_version(shared, &copying, &version).await {
        Ok(Effect::Stored(stored)) => stored,
        Ok(_) | Err(Error::Stale) => {
            let message = "another host replaces it faster than it can be kept";
            return Err(StoreError::new(ErrorKind::Unavailable, "CopyObject", &job.key, message).into());
        }
        Err(error) => return Err(error),
    };
    if let Some(upload) = stored.upload.clone() {
        shared.journal.apply(&[Change::EndUpload(upload)])?;
    }
    shared.queue.lock().conflicts += 1;
    tracing::warn!(key = %job.key, kept_as = %kept, "another host changed it; theirs is kept beside ours, of which a part is in the bucket already");
    if let Some(events) = shared.events.get() {
        events.stored(&stored.content, &stored.version, None, stored.last_modified, false);
    }
    Ok(Effect::Again(Condition::IfMatch(version.etag)))
}
