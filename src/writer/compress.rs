//! What goes up compressed, and that it stays so as long as its bytes do.
//!
//! An upload decides anew each time, by the rules for its key; headers that are wanted of a file say nothing of it. A copy
//! on the server has the bytes of its source, so that it is marked as its source is, whatever headers are wanted: those
//! may be a former version's, or another file's. Only small files, in one PUT, are compressed: parts of larger ones are
//! copied and compared by their spans in the file, which compressed bytes don't have.

use super::Shared;
use super::flight::Job;
use super::source::{blocking, is_gone};
use crate::error::{Error, Result};
use crate::media::{Header, gzip, is_chosen};
use crate::store::Body;
use crate::types::{Key, ObjectHeaders, Version};

/// What is to be sent of a file, under which headers.
pub async fn upload(shared: &Shared, job: &Job, body: Body, headers: ObjectHeaders) -> Result<(Body, ObjectHeaders)> {
    let size = body.bytes.len() as u64;
    if !gzip::is_wanted(&shared.config.rules, &job.key, &headers, size) {
        return Ok((body, headers));
    }
    let original = body.bytes.clone();
    Ok(match blocking(move || Ok(gzip::compress(&original).map(Body::new))).await? {
        Some(compressed) => {
            let mut headers = headers;
            gzip::mark(&mut headers, size);
            (compressed, headers)
        }
        None => (body, headers),
    })
}

/// Without what is left over of a version that was compressed.
pub fn plain(shared: &Shared, key: &Key, mut headers: ObjectHeaders) -> ObjectHeaders {
    if gzip::mentions(&headers) {
        gzip::unmark(&mut headers);
        shared.config.rules.fill_encoding(&mut headers, key);
    }
    headers
}

/// Whether these headers can't be had by a copy of `from`: they name an encoding, and that is compressed.
pub async fn forbids_copy(shared: &Shared, from: &Version, headers: &ObjectHeaders) -> Result<bool> {
    let names_encoding = headers.content_encoding.is_some() || is_chosen(headers, Header::ContentEncoding);
    if !names_encoding || from.size > gzip::LIMIT_BYTES {
        return Ok(false);
    }
    match shared.store.head(&from.key).await {
        Ok(info) => Ok(gzip::original_size(&info.headers).is_some()),
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The headers for a copy of `from`. [`Error::Stale`]: that version is gone.
pub async fn of_copy(shared: &Shared, from: &Version, headers: &ObjectHeaders) -> Result<ObjectHeaders> {
    let mut headers = headers.clone();
    let may_be_compressed = from.size <= gzip::LIMIT_BYTES && (shared.config.rules.has_gzip() || gzip::mentions(&headers));
    if !may_be_compressed || from.key.is_marker() {
        gzip::unmark(&mut headers);
        return Ok(headers);
    }
    let info = match shared.store.head(&from.key).await {
        Ok(info) if info.etag == from.etag => info,
        Ok(_) => return Err(Error::Stale),
        Err(error) if is_gone(&error) => return Err(Error::Stale),
        Err(error) => return Err(error.into()),
    };
    gzip::unmark(&mut headers);
    if let Some(size) = gzip::original_size(&info.headers) {
        gzip::mark(&mut headers, size);
    }
    Ok(headers)
}
