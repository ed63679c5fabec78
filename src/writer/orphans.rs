//! Aborts multipart uploads that nobody goes on with: those of a process that died, and those given up in this one.
//!
//! An upload leaves the journal only when the bucket has confirmed that it is gone. One that was being begun when the
//! process died has no id here: the journal says that it was about to be, and the bucket is asked for what there is of
//! its key. What another host begins under the same key in that moment goes with it, and is begun anew by that host.

use std::sync::Arc;

use futures::{StreamExt, stream};
use tokio::time::sleep;

use super::Shared;
use super::backoff;
use crate::journal::Change;
use crate::store::{self, ErrorKind, UploadId};
use crate::types::Key;

/// Aborts side by side.
const PARALLEL: usize = 8;
/// An upload that the store refuses to abort stays in the journal for the next start; the store's own rules end it too.
const TRIES: u32 = 20;

/// No store gives out such an id.
const INTENT: &str = "intent:";

/// Stands in the journal for an upload of `key` whose id isn't known yet. `number` tells those of one process apart.
pub fn intent(key: &Key, number: u64) -> UploadId {
    UploadId(format!("{INTENT}{number}:{}", key.as_str()))
}

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
    let aborted = match id.0.starts_with(INTENT) {
        true => abort_unknown(shared, key).await,
        false => shared.store.abort_upload(key, id).await,
    };
    if let Err(error) = aborted
        && !error.is(ErrorKind::NoSuchUpload)
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

/// Aborts the uploads of `key` whose ids the journal doesn't know.
async fn abort_unknown(shared: &Shared, key: &Key) -> store::Result<()> {
    let pending = match shared.store.list_uploads().await {
        // Who may not list can't know: the store's own rules end it.
        Err(error) if matches!(error.kind, ErrorKind::Denied | ErrorKind::Unsupported) => return Ok(()),
        pending => pending?,
    };
    let known = shared.journal.uploads().unwrap_or_default();
    for upload in pending.into_iter().filter(|upload| upload.key == *key && !known.iter().any(|(_, id)| *id == upload.id)) {
        tracing::debug!(%key, "aborting an upload that was being begun when the last daemon died");
        match shared.store.abort_upload(key, &upload.id).await {
            Err(error) if !error.is(ErrorKind::NoSuchUpload) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
