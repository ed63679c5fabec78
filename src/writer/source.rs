//! A file's bytes for one request, in memory, hashed. Absent ones are fetched from the version that they belong to.
//!
//! Nothing here decides whether the bytes are consistent: the callers compare stamps. Bytes are offered to the cache on
//! their way, but a full cache directory doesn't stop an upload.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use tokio::task::spawn_blocking;

use super::Shared;
use crate::cache::LocalFile;
use crate::error::{Error, Result};
use crate::simulation;
use crate::store::retry::CHECKED_BYTES;
use crate::store::{Body, ErrorKind, StoreError};
use crate::types::{Span, Version};

/// `span` of the file. None: it changed while it was read.
pub async fn body(shared: &Shared, file: &Arc<LocalFile>, span: Span) -> Result<Option<Body>> {
    let reading = file.clone();
    let wanted = span.clone();
    let (buffer, missing) = match blocking(move || read(&reading, wanted)).await? {
        Some(Read::Whole(body)) => return Ok(Some(body)),
        Some(Read::Partly(buffer, missing)) => (buffer, missing),
        None => return Ok(None),
    };
    let Some(base) = file.base() else {
        return Err(Error::Corrupt(format!("bytes of data file {} are missing, and it has no base to fetch them from", file.id())));
    };
    // All of a small object, even if some of it is here, since only the whole can be checked.
    let whole = (base.size <= CHECKED_BYTES).then_some(0..base.size);
    let fetches = whole.map_or_else(|| missing.clone(), |whole| vec![whole]);
    let mut window = Window { bytes: buffer, span, missing };
    for wide in fetches {
        if !fetch(shared, file, &base, wide, &mut window).await? {
            return Ok(None);
        }
    }
    let buffer = window.bytes;
    hash(buffer).await.map(Some)
}

enum Read {
    Whole(Body),
    /// With holes where bytes are absent, and those.
    Partly(Vec<u8>, Vec<Span>),
}

/// Reads and hashes at one go: for a small file the way to another thread is what costs.
fn read(file: &LocalFile, span: Span) -> Result<Option<Read>> {
    let read = read_present(file, span)?;
    Ok(read.map(|(buffer, missing)| if missing.is_empty() { Read::Whole(Body::new(buffer)) } else { Read::Partly(buffer, missing) }))
}

/// The bytes of `span` with holes where they are absent. None: the file is shorter by now, or was changed under the read.
fn read_present(file: &LocalFile, span: Span) -> Result<Option<(Vec<u8>, Vec<Span>)>> {
    let missing = file.missing(span.clone());
    let mut buffer = vec![0; (span.end - span.start) as usize];
    let mut at = span.start;
    for hole in missing.iter().cloned().chain(std::iter::once(span.end..span.end)) {
        if !read_exact(file, at, &mut buffer[(at - span.start) as usize..(hole.start - span.start) as usize])? {
            return Ok(None);
        }
        at = hole.end;
    }
    Ok(Some((buffer, missing)))
}

fn read_exact(file: &LocalFile, offset: u64, buffer: &mut [u8]) -> Result<bool> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(offset + done as u64, &mut buffer[done..])? {
            None | Some(0) => return Ok(false),
            Some(count) => done += count,
        }
    }
    Ok(true)
}

/// What is to be sent, with holes where bytes are missing.
struct Window {
    bytes: Vec<u8>,
    /// Where in the file that is.
    span: Span,
    missing: Vec<Span>,
}

impl Window {
    /// Takes of `chunk`, which lies `at`, what is missing. What is here may be newer.
    fn take_in(&mut self, at: u64, chunk: &[u8]) {
        for hole in &self.missing {
            let (from, to) = (at.max(hole.start), (at + chunk.len() as u64).min(hole.end));
            if from < to {
                let place = (from - self.span.start) as usize..(to - self.span.start) as usize;
                self.bytes[place].copy_from_slice(&chunk[(from - at) as usize..(to - at) as usize]);
            }
        }
    }
}

/// Fetches `wide`, takes in what is missing, and offers it to the cache. False: another base by now.
async fn fetch(shared: &Shared, file: &LocalFile, base: &Version, wide: Span, window: &mut Window) -> Result<bool> {
    let answer = shared.store.get(&base.key, Some(wide.clone()), Some(&base.etag)).await;
    let mut stream = match answer {
        // The store has no conditions on GET; the answer says the same.
        Ok(body) if body.info.etag != base.etag => return Err(Error::Stale),
        Ok(body) if body.span == wide && body.info.size == base.size => body.stream,
        Ok(_) => return Err(StoreError::new(ErrorKind::Corrupt, "GetObject", &base.key, "another range than asked for").into()),
        Err(error) if is_gone(&error) => return Err(Error::Stale),
        Err(error) => return Err(error.into()),
    };
    let mut at = wide.start;
    while let Some(chunk) = stream.next().await {
        let chunk: Bytes = chunk?;
        let end = at + chunk.len() as u64;
        if end > wide.end {
            return Err(StoreError::new(ErrorKind::Corrupt, "GetObject", &base.key, "more bytes than asked for").into());
        }
        window.take_in(at, &chunk);
        match file.fill(base, at, &chunk) {
            Ok(true) | Err(Error::NoSpace) => {}
            Ok(false) => return Ok(false),
            Err(error) => return Err(error),
        }
        at = end;
    }
    if at < wide.end {
        return Err(StoreError::new(ErrorKind::Truncated, "GetObject", &base.key, "the body ended early").into());
    }
    Ok(true)
}

/// Takes what `file` lacks of its base from another file of the cache that holds that very version; nothing where there is none.
pub async fn from_twin(shared: &Shared, file: &Arc<LocalFile>, base: &Version) -> Result<()> {
    let twin = shared.cache.find_version(base).filter(|twin| twin.is_complete() && !twin.is_loose() && twin.id() != file.id());
    let (Some(twin), file, base) = (twin, file.clone(), base.clone()) else { return Ok(()) };
    blocking(move || file.fill_from(&twin, &base)).await
}

/// To be called between the stamp and the first byte that is read: whatever is stored into the file through mmap after it
/// was read then shows in the next stamp.
pub async fn settle_pages(file: &Arc<LocalFile>) -> Result<()> {
    if !file.is_loose() {
        return Ok(());
    }
    let file = file.clone();
    blocking(move || file.settle_pages()).await
}

/// To be called before a version is replaced that the file has taken bytes from.
pub async fn keep_fetched(shared: &Shared, file: &Arc<LocalFile>) -> Result<()> {
    if !file.keeps_fetched_back() {
        return Ok(());
    }
    let (file, journal) = (file.clone(), shared.journal.clone());
    blocking(move || file.keep_fetched().and_then(|()| journal.flush())).await
}

/// The version is not in the bucket any more.
pub fn is_gone(error: &StoreError) -> bool {
    matches!(error.kind, ErrorKind::NotFound | ErrorKind::PreconditionFailed)
}

async fn hash(buffer: Vec<u8>) -> Result<Body> {
    blocking(move || Ok(Body::new(buffer))).await
}

/// Disk and hashing belong to the blocking pool.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    if simulation::is_on() {
        return work();
    }
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Error::Timeout),
    }
}
