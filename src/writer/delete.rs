//! Deletes, up to a thousand in one request.

use futures::{StreamExt, stream};

use super::flight::Job;
use super::{Shared, finish};
use crate::error::Error;
use crate::store::{ErrorKind, Result, StoreError};
use crate::types::Key;

/// S3's and R2's limit for one DeleteObjects.
pub const BATCH: usize = 1_000;
/// Single deletes side by side, where a batch was refused.
const PARALLEL: usize = 8;

pub async fn delete(shared: &Shared, jobs: &[Job]) {
    let keys: Vec<Key> = jobs.iter().map(|job| job.key.clone()).collect();
    let answers = match &keys[..] {
        [key] => vec![gone_is_fine(shared.store.delete(key).await)],
        _ => match shared.store.delete_many(&keys).await {
            Ok(answers) => again(shared, &keys, answers).await,
            // A store that chokes on one key refuses the request as a whole (MinIO, on control characters).
            Err(error) if is_malformed(&error) => one_by_one(shared, keys.clone()).await,
            Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
        },
    };
    let (mut deleted, mut failed) = (Vec::new(), Vec::new());
    for (index, job) in jobs.iter().enumerate() {
        match answers.get(index) {
            Some(Ok(())) => deleted.push(job.clone()),
            Some(Err(error)) => failed.push((job, error.clone())),
            None => {
                let message = "the answer names fewer keys than were asked";
                failed.push((job, StoreError::new(ErrorKind::Unavailable, "DeleteObjects", &job.key, message)));
            }
        }
    }
    if !deleted.is_empty() {
        finish::deleted(shared, &deleted);
    }
    for (job, error) in failed {
        finish::failed(shared, job, Error::Store(error));
    }
}

/// Keys that failed within a batch get a request of their own.
async fn again(shared: &Shared, keys: &[Key], answers: Vec<Result<()>>) -> Vec<Result<()>> {
    let failed: Vec<Key> = keys.iter().zip(&answers).filter(|(_, answer)| answer.is_err()).map(|(key, _)| key.clone()).collect();
    let mut retried = one_by_one(shared, failed).await.into_iter();
    answers.into_iter().map(|answer| if answer.is_ok() { answer } else { retried.next().unwrap_or(answer) }).collect()
}

async fn one_by_one(shared: &Shared, keys: Vec<Key>) -> Vec<Result<()>> {
    let delete = |key: Key| async move { gone_is_fine(shared.store.delete(&key).await) };
    stream::iter(keys).map(delete).buffered(PARALLEL).collect().await
}

fn is_malformed(error: &StoreError) -> bool {
    matches!(error.kind, ErrorKind::InvalidName | ErrorKind::Unsupported | ErrorKind::Other)
}

fn gone_is_fine(answer: Result<()>) -> Result<()> {
    match answer {
        Err(error) if error.is(ErrorKind::NotFound) => Ok(()),
        answer => answer,
    }
}
