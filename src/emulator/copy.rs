//! CopyObject and UploadPartCopy: bytes by reference, so a copy of any size moves none.

use std::sync::Arc;

use s3s::dto::{
    CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopyPartResult, CopySource, ETag, Timestamp, UploadPartCopyInput,
    UploadPartCopyOutput,
};
use s3s::{S3Error, S3Request, S3Result, s3_error};

use super::blob::{self, Content};
use super::conditions::Conditions;
use super::multipart::check_part_number;
use super::objects::check_readable;
use super::state::{Change, Object, Part};
use super::storage::{self, Storage};
use crate::types::ObjectHeaders;

pub async fn copy_object(storage: &Storage, request: S3Request<CopyObjectInput>) -> S3Result<CopyObjectOutput> {
    let source_conditions = Conditions::from_headers(&request.headers, "x-amz-copy-source-")?;
    // R2 has its own headers for the destination, and ignores the others.
    let conditions = Conditions::from_headers(&request.headers, if storage.r2 { "cf-copy-destination-" } else { "" })?;
    let mut input = request.input;
    let source = find_source(storage, &input.copy_source, &source_conditions)?;
    let key = storage.key(&input.key);
    let is_onto_itself = is_same(storage, &input.copy_source, &input.bucket, &key);
    let headers = storage.admit_headers(copied_headers(storage, &mut input, &source, is_onto_itself)?)?;
    // As in MinIO: a change of headers keeps the version, a copy elsewhere is a plain object with a plain MD5.
    let keeps_version = is_onto_itself || source.part_sizes.is_empty();
    let object = Object {
        spelling: input.key.clone(),
        size: source.size,
        etag: if keeps_version { source.etag.clone() } else { plain_md5(source.content.clone()).await?.1 },
        modified: storage.now(),
        headers,
        part_sizes: if keeps_version { source.part_sizes.clone() } else { Vec::new() },
        content: source.content.clone(),
    };
    let change = Change { bucket: &input.bucket, key: &key, conditions: &conditions, pace: storage.pace() };
    let object = storage.state.lock().put(&change, object)?;
    let result = CopyObjectResult {
        e_tag: Some(storage::etag(&object)),
        last_modified: Some(Timestamp::from(object.modified)),
        ..Default::default()
    };
    Ok(CopyObjectOutput { copy_object_result: Some(result), ..Default::default() })
}

fn find_source(storage: &Storage, source: &CopySource, conditions: &Conditions) -> S3Result<Arc<Object>> {
    let CopySource::Bucket { bucket, key, .. } = source else {
        return Err(s3_error!(NotImplemented, "Only BUCKET/KEY can be copied"));
    };
    let object = storage.state.lock().object(bucket, &storage.key(key))?;
    conditions.check_source(object.facts())?;
    check_readable(&object)?;
    Ok(object)
}

fn is_same(storage: &Storage, source: &CopySource, bucket: &str, key: &str) -> bool {
    matches!(source, CopySource::Bucket { bucket: from, key: from_key, .. } if **from == *bucket && storage.key(from_key) == key)
}

fn copied_headers(storage: &Storage, input: &mut CopyObjectInput, source: &Object, is_onto_itself: bool) -> S3Result<ObjectHeaders> {
    let directive = input.metadata_directive.take();
    let class = storage::storage_class_in(input.storage_class.take());
    let given = ObjectHeaders {
        content_type: input.content_type.take(),
        cache_control: input.cache_control.take(),
        content_disposition: input.content_disposition.take(),
        content_encoding: input.content_encoding.take(),
        content_language: input.content_language.take(),
        storage_class: class,
        metadata: storage::metadata_in(input.metadata.take()),
    };
    match directive.as_ref().map_or("COPY", |directive| directive.as_str()) {
        "REPLACE" => Ok(given),
        "MERGE" if storage.r2 => Ok(merged(given, &source.headers)),
        "COPY" if is_onto_itself && given.storage_class.is_none() => Err(s3_error!(
            InvalidRequest,
            "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, \
             storage class, website redirect location or encryption attributes."
        )),
        "COPY" => Ok(ObjectHeaders { storage_class: given.storage_class, ..source.headers.clone() }),
        other => Err(s3_error!(InvalidArgument, "Unknown metadata directive {other}")),
    }
}

/// R2's MERGE: what is given wins, the rest stays.
fn merged(given: ObjectHeaders, source: &ObjectHeaders) -> ObjectHeaders {
    let mut metadata = source.metadata.clone();
    metadata.extend(given.metadata);
    let source = source.clone();
    ObjectHeaders {
        content_type: given.content_type.or(source.content_type),
        cache_control: given.cache_control.or(source.cache_control),
        content_disposition: given.content_disposition.or(source.content_disposition),
        content_encoding: given.content_encoding.or(source.content_encoding),
        content_language: given.content_language.or(source.content_language),
        storage_class: given.storage_class.or(source.storage_class),
        metadata,
    }
}

async fn plain_md5(content: Content) -> S3Result<([u8; 16], String)> {
    let md5 = blob::md5(content).await.map_err(S3Error::internal_error)?;
    Ok((md5, blob::hex(&md5)))
}

pub async fn upload_part_copy(storage: &Storage, request: S3Request<UploadPartCopyInput>) -> S3Result<UploadPartCopyOutput> {
    let conditions = Conditions::from_headers(&request.headers, "x-amz-copy-source-")?;
    let input = request.input;
    check_part_number(input.part_number)?;
    let key = storage.key(&input.key);
    storage.state.lock().upload(&input.bucket, &key, &input.upload_id)?;
    let source = find_source(storage, &input.copy_source, &conditions)?;
    let span = match &input.copy_source_range {
        None => 0..source.size,
        Some(text) => parse_range(text, source.size)?,
    };
    let size = span.end - span.start;
    let content = blob::slice(&source.content, span);
    let (md5, etag) = plain_md5(content.clone()).await?;
    let part = Part { md5, size, modified: storage.now(), content };
    let modified = part.modified;
    storage.state.lock().put_part(&input.bucket, &key, &input.upload_id, input.part_number, part)?;
    let result = CopyPartResult { e_tag: Some(ETag::Strong(etag)), last_modified: Some(Timestamp::from(modified)), ..Default::default() };
    Ok(UploadPartCopyOutput { copy_part_result: Some(result), ..Default::default() })
}

/// `bytes=FIRST-LAST`, both given and within the object: stricter than a read's range.
fn parse_range(text: &str, size: u64) -> S3Result<std::ops::Range<u64>> {
    let bounds = text.strip_prefix("bytes=").and_then(|bounds| bounds.split_once('-'));
    let bounds = bounds.and_then(|(first, last)| Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?)));
    match bounds {
        Some((first, last)) if first <= last && last < size => Ok(first..last + 1),
        Some((first, last)) if first <= last => {
            Err(s3_error!(InvalidRange, "Range specified is not valid for source object of size: {size}"))
        }
        _ => Err(s3_error!(InvalidArgument, "The x-amz-copy-source-range value must be of the form bytes=first-last")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_ranges_are_strict() {
        for (text, expected) in [
            ("bytes=0-9", Ok(0..10)),
            ("bytes=3-3", Ok(3..4)),
            ("bytes=0-10", Err("InvalidRange")),
            ("bytes=5-", Err("InvalidArgument")),
            ("bytes=-5", Err("InvalidArgument")),
            ("bytes=5-2", Err("InvalidArgument")),
            ("0-5", Err("InvalidArgument")),
        ] {
            let found = parse_range(text, 10).map_err(|error| error.code().as_str().to_owned());
            assert_eq!(found, expected.map_err(str::to_owned), "{text}");
        }
    }
}
