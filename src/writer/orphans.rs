//! Aborts multipart uploads that nobody goes on with: those of a process that died, and those given up in this one.
//!
//! An upload leaves the journal only when the bucket has confirmed that it is gone.

use std::sync::Arc;

use futures::{StreamExt, stream};
use tokio::time::sleep;

use super::Shared;
use super::backoff;
use crate::journal::Change;
use crate::store::UploadId;
use crate::types::Key;

/// Aborts side by side.
const PARALLEL: usize = 8;
/// An upload that the store refuses to abort stays in the journal for the next start; the store's own rules end it too.
const TRIES: u32 = 20;

pub async fn run(shared: Arc<Shared>) {
    let mut attempts = 0;
    loop {
        if sweep(&shared).await == 0 {
            attempts = 0;
            shared.aborts.notified().await;
            continue;
        }
        attempts += 1;
        if attempts >= TRIES {
            let left = std::mem::take(&mut shared.queue.lock().aborts);
            tracing::warn!(uploads = left.len(), "unfinished multipart uploads can't be aborted; the next start tries again");
            continue;
        }
        sleep(backoff::delay(attempts)).await;
    }
}

/// Aborts all that is listed now; returns how many of those are left.
pub async fn sweep(shared: &Arc<Shared>) -> usize {
    let all = shared.queue.lock().aborts.clone();
    let count = all.len();
    let aborted: Vec<UploadId> = stream::iter(all)
        .map(|(key, id)| async move { abort(shared, &key, &id).await.then_some(id) })
        .buffer_unordered(PARALLEL)
        .filter_map(|aborted| async move { aborted })
        .collect()
        .await;
    if count > 0 {
        shared.queue.lock().aborts.retain(|(_, id)| !aborted.contains(id));
        shared.progress.send_modify(|progress| *progress += 1);
    }
    count - aborted.len()
}

async fn abort(shared: &Shared, key: &Key, id: &UploadId) -> bool {
    if let Err(error) = shared.store.abort_upload(key, id).await
        && !error.is(crate::store::ErrorKind::NoSuchUpload)
    {
        tracing::debug!(%key, %error, "can't abort an upload yet");
        return false;
    }
    match shared.journal.apply(&[Change::EndUpload(id.clone())]) {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(%key, %error, "can't journal the end of an upload");
            false
        }
    }
}
