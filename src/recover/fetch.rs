//! Bytes that only the bucket has, into a file.

use std::fs::File;
use std::os::unix::fs::FileExt;

use futures::StreamExt;

use crate::error::{Error, Result};
use crate::store::Store;
use crate::types::{Span, Version};

/// Writes `span` of exactly this version at its place, or all of it, however long that is: of what is stored compressed the
/// version may tell how much is stored. Errors: the version is gone, or the bucket doesn't answer.
pub async fn fetch(store: &Store, version: &Version, span: Option<&Span>, into: &File) -> Result<()> {
    let mut body = store.get(&version.key, span.cloned(), Some(&version.etag)).await?;
    if body.info.etag != version.etag {
        // The store has no conditions on GET.
        return Err(Error::Stale);
    }
    if span.is_some() && body.info.size != version.size {
        return Err(Error::Corrupt(format!("the bucket has {} bytes of {} under the same ETag", body.info.size, version.size)));
    }
    let span = span.cloned().unwrap_or(0..body.info.size);
    let mut at = span.start;
    while let Some(bytes) = body.stream.next().await {
        let bytes = bytes?;
        let length = (bytes.len() as u64).min(span.end - at) as usize;
        into.write_all_at(&bytes[..length], at)?;
        at += length as u64;
    }
    if at == span.end {
        Ok(())
    } else {
        Err(Error::Corrupt(format!("the bucket sent {} of {} bytes", at - span.start, span.end - span.start)))
    }
}
