//! Keeps a directory whose last known child goes: it gets a marker, unless something else is left below it.

use std::collections::HashSet;

use super::flight::{Effect, Job};
use super::{Shared, inline};
use crate::error::Result;
use crate::journal::Content;
use crate::store::{Body, ListRequest, Pages};
use crate::types::{Key, ObjectHeaders};

/// S3's longest page.
const PAGE: usize = 1_000;
/// What s3fs, rclone and the S3 consoles take for a directory.
pub const MARKER_TYPE: &str = "application/x-directory";

pub async fn keep(shared: &Shared, job: &Job) -> Result<Effect> {
    if is_occupied(shared, &job.key).await? {
        return Ok(Effect::Nothing);
    }
    let headers = job.desired.headers().unwrap_or_else(|| ObjectHeaders { content_type: Some(MARKER_TYPE.into()), ..Default::default() });
    inline::put_body(shared, job, Body::new(Vec::new()), headers, 0).await
}

/// Something is below `directory` in the bucket that is not about to go, or will be; or it has a marker already.
async fn is_occupied(shared: &Shared, directory: &Key) -> Result<bool> {
    let Some(going) = going(shared, directory) else { return Ok(true) };
    let max_keys = Some((going.len() + 1).min(PAGE) as u32);
    let mut pages = Pages::new(ListRequest { prefix: directory.as_str().to_owned(), max_keys, ..Default::default() });
    while let Some(page) = pages.next(&shared.store).await? {
        let queue = shared.queue.lock();
        // The page can be older than the end of a removal.
        let stays = |key: &Key| queue.get(key).map_or(!going.contains(key), |entry| !entry.is_absent());
        if page.objects.iter().any(|object| stays(&object.key)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The keys below that are about to go. None: some are about to come, which keep the directory.
fn going(shared: &Shared, directory: &Key) -> Option<HashSet<Key>> {
    let queue = shared.queue.lock();
    let mut found = HashSet::new();
    for (key, entry) in queue.below(directory).filter(|(key, _)| *key != directory) {
        match entry.desired.content {
            Content::Absent => drop(found.insert(key.clone())),
            Content::KeptDirectory => {}
            _ => {
                tracing::debug!(%directory, %key, "kept by a file that is to come");
                return None;
            }
        }
    }
    Some(found)
}
