//! Bytes that only the bucket has, into a file.

use std::fs::File;
use std::os::unix::fs::FileExt;

use futures::StreamExt;

use crate::error::{Error, Result};
use crate::store::Store;
use crate::types::{Span, Version};

/// Writes `span` of exactly this version at its place. Errors: the version is gone, or the bucket doesn't answer.
pub async fn fetch(store: &Store, version: &Version, span: &Span, into: &File) -> Result<()> {
    let mut body = store.get(&version.key, Some(span.clone()), Some(&version.etag)).await?;
    if body.info.etag != version.etag {
        // The store has no conditions on GET.
        return Err(Error::Stale);
    }
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
