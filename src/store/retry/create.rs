//! Beginning a multipart upload, when the answer with its id may be lost.
//!
//! Such an upload goes on for ever and is paid for, and nobody knows its id. Once one has been begun whose id is known, the
//! store is asked for the uploads of that key: those which began since the first attempt are ours, and are aborted. What
//! another host begins under the same key within those seconds is aborted with them; that host finds its upload gone and
//! begins anew, so that nothing is lost. Where the store can't be asked, the whole beginning has failed in doubt: who began
//! it knows of the doubt beyond the end of this process, and has all uploads of the key aborted.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::RetryStore;
use crate::store::{ErrorKind, Result, UploadId};
use crate::types::{Key, ObjectHeaders};

/// Stores tell the time of an upload's begin in whole seconds.
const ROUNDING: Duration = Duration::from_secs(2);

/// Since when beginnings under a key may have left something behind.
pub(super) type Doubts = Mutex<HashMap<Key, Instant>>;

pub(super) async fn create(store: &RetryStore, key: &Key, headers: &ObjectHeaders) -> Result<UploadId> {
    let begun = store.doubts.lock().get(key).copied().unwrap_or_else(Instant::now);
    let mut attempts = store.attempts();
    let created = attempts.run(|| store.inner.create_upload(key, headers)).await;
    if attempts.outcome_unknown {
        store.doubts.lock().entry(key.clone()).or_insert(begun);
    }
    let id = created?;
    if store.doubts.lock().contains_key(key) {
        match abort_lost(store, key, &id, begun).await {
            Ok(()) => drop(store.doubts.lock().remove(key)),
            // Who may not ask goes on all the same; the store's own rules end what is left.
            Err(error) if matches!(error.kind, ErrorKind::Denied | ErrorKind::Unsupported) => {
                warn!(%key, %error, "an unfinished multipart upload of ours may be left behind");
            }
            Err(error) => return Err(error.with_unknown_outcome()),
        }
    }
    Ok(id)
}

async fn abort_lost(store: &RetryStore, key: &Key, mine: &UploadId, begun: Instant) -> Result<()> {
    let uploads = store.attempts().run(|| store.inner.list_uploads()).await?;
    let Some(now) = uploads.iter().find(|upload| upload.id == *mine).map(|upload| upload.initiated) else { return Ok(()) };
    let since = now.checked_sub(begun.elapsed() + ROUNDING);
    for lost in uploads.iter().filter(|upload| upload.key == *key && upload.id != *mine) {
        if since.is_none_or(|since| lost.initiated >= since) && lost.initiated <= now + ROUNDING {
            debug!(%key, "aborting an upload whose beginning was never answered");
            store.attempts().run(|| store.inner.abort_upload(key, &lost.id)).await?;
        }
    }
    Ok(())
}
