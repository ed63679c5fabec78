//! Reading, writing and deleting single objects, and DeleteObjects.

use std::ops::Range;
use std::sync::Arc;

use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, GetObjectInput, GetObjectOutput,
    HeadObjectInput, HeadObjectOutput, PutObjectInput, PutObjectOutput, StorageClass, StreamingBlob, Timestamp,
};
use s3s::{Body, S3Error, S3Request, S3Result, s3_error};

use super::blob;
use super::conditions::Conditions;
use super::state::{Change, Object};
use super::storage::{self, Storage};
use crate::types::ObjectHeaders;

/// DeleteObjects takes no more keys than this.
const DELETE_LIMIT: usize = 1000;

pub async fn put(storage: &Storage, request: S3Request<PutObjectInput>) -> S3Result<PutObjectOutput> {
    let conditions = Conditions::from_headers(&request.headers, "")?;
    let mut input = request.input;
    let body = input.body.take();
    let headers = storage.admit_headers(put_headers(&mut input))?;
    storage.state.lock().bucket(&input.bucket)?;
    let written = storage.receive(body, input.content_length, input.content_md5.as_deref()).await?;
    let object = Object {
        size: written.size,
        etag: blob::hex(&written.md5),
        modified: storage.now(),
        headers,
        part_sizes: Vec::new(),
        content: written.content,
        spelling: input.key.clone(),
    };
    let key = storage.key(&input.key);
    let change = Change { bucket: &input.bucket, key: &key, conditions: &conditions, pace: storage.pace() };
    let object = storage.state.lock().put(&change, object)?;
    Ok(PutObjectOutput { e_tag: Some(storage::etag(&object)), ..Default::default() })
}

fn put_headers(input: &mut PutObjectInput) -> ObjectHeaders {
    ObjectHeaders {
        content_type: input.content_type.take(),
        cache_control: input.cache_control.take(),
        content_disposition: input.content_disposition.take(),
        content_encoding: input.content_encoding.take(),
        content_language: input.content_language.take(),
        storage_class: storage::storage_class_in(input.storage_class.take()),
        metadata: storage::metadata_in(input.metadata.take()),
    }
}

pub async fn get(storage: &Storage, request: S3Request<GetObjectInput>) -> S3Result<GetObjectOutput> {
    let conditions = Conditions::from_headers(&request.headers, "")?;
    let GetObjectInput { bucket, key, range, part_number, .. } = request.input;
    let object = storage.state.lock().object(&bucket, &storage.key(&key))?;
    conditions.check_read(object.facts())?;
    check_readable(&object)?;
    let part = Selection::of(&object, range, part_number)?;
    let head = describe(&object, &part);
    let stream = blob::stream(blob::slice(&object.content, part.span));
    // The length is announced by the header; the stream itself need not know it.
    let body = Body::http_body_unsync(http_body_util::StreamBody::new(futures::TryStreamExt::map_ok(stream, http_body::Frame::data)));
    Ok(GetObjectOutput {
        body: Some(StreamingBlob::from(body)),
        accept_ranges: head.accept_ranges,
        cache_control: head.cache_control,
        content_disposition: head.content_disposition,
        content_encoding: head.content_encoding,
        content_language: head.content_language,
        content_length: head.content_length,
        content_range: head.content_range,
        content_type: head.content_type,
        e_tag: head.e_tag,
        last_modified: head.last_modified,
        metadata: head.metadata,
        parts_count: head.parts_count,
        storage_class: head.storage_class,
        ..Default::default()
    })
}

pub async fn head(storage: &Storage, request: S3Request<HeadObjectInput>) -> S3Result<HeadObjectOutput> {
    let conditions = Conditions::from_headers(&request.headers, "")?;
    let HeadObjectInput { bucket, key, range, part_number, .. } = request.input;
    let object = storage.state.lock().object(&bucket, &storage.key(&key))?;
    conditions.check_read(object.facts())?;
    let part = Selection::of(&object, range, part_number)?;
    Ok(describe(&object, &part))
}

/// Nothing is ever restored here.
pub fn check_readable(object: &Object) -> S3Result<()> {
    match object.headers.storage_class.as_deref() {
        Some("GLACIER" | "DEEP_ARCHIVE") => Err(s3_error!(InvalidObjectState, "The operation is not valid for the object's storage class")),
        _ => Ok(()),
    }
}

/// Which bytes of an object were asked for.
struct Selection {
    span: Range<u64>,
    is_partial: bool,
    parts_count: Option<i32>,
}

impl Selection {
    fn of(object: &Object, range: Option<s3s::dto::Range>, part_number: Option<i32>) -> S3Result<Self> {
        match (range, part_number) {
            (Some(_), Some(_)) => Err(s3_error!(InvalidRequest, "Cannot specify both Range header and partNumber query parameter")),
            (Some(range), None) => {
                // Nothing of an empty object can be asked for, not even its last bytes.
                let span = if object.size == 0 { None } else { range.check(object.size).ok() };
                let span = span.ok_or_else(|| s3_error!(InvalidRange, "The requested range is not satisfiable"))?;
                Ok(Self { span, is_partial: true, parts_count: None })
            }
            (None, Some(number)) => Self::part(object, number),
            (None, None) => Ok(Self { span: 0..object.size, is_partial: false, parts_count: None }),
        }
    }

    fn part(object: &Object, number: i32) -> S3Result<Self> {
        let single = [object.size];
        let sizes: &[u64] = if object.part_sizes.is_empty() { &single } else { &object.part_sizes };
        let invalid = || s3_error!(InvalidRange, "The requested partnumber is not satisfiable");
        let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1)).ok_or_else(invalid)?;
        let size = *sizes.get(index).ok_or_else(invalid)?;
        let start: u64 = sizes[..index].iter().sum();
        let parts_count = (!object.part_sizes.is_empty()).then_some(sizes.len() as i32);
        Ok(Self { span: start..start + size, is_partial: size > 0, parts_count })
    }
}

fn describe(object: &Arc<Object>, part: &Selection) -> HeadObjectOutput {
    let headers = &object.headers;
    let Range { start, end } = part.span;
    HeadObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        cache_control: headers.cache_control.clone(),
        content_disposition: headers.content_disposition.clone(),
        content_encoding: headers.content_encoding.clone(),
        content_language: headers.content_language.clone(),
        content_length: Some((end - start) as i64),
        content_range: part.is_partial.then(|| format!("bytes {start}-{}/{}", end.saturating_sub(1), object.size)),
        content_type: headers.content_type.clone(),
        e_tag: Some(storage::etag(object)),
        last_modified: Some(Timestamp::from(object.modified)),
        metadata: storage::metadata_out(headers),
        parts_count: part.parts_count,
        storage_class: headers.storage_class.clone().map(StorageClass::from),
        ..Default::default()
    }
}

pub async fn delete(storage: &Storage, request: S3Request<DeleteObjectInput>) -> S3Result<DeleteObjectOutput> {
    // R2 has no conditions on deletes.
    let conditions = if storage.r2 { Conditions::default() } else { Conditions::from_headers(&request.headers, "")? };
    let DeleteObjectInput { bucket, key, .. } = request.input;
    storage.state.lock().delete(&bucket, &storage.key(&key), &conditions)?;
    Ok(DeleteObjectOutput::default())
}

pub async fn delete_many(storage: &Storage, request: S3Request<DeleteObjectsInput>) -> S3Result<DeleteObjectsOutput> {
    let DeleteObjectsInput { bucket, delete, .. } = request.input;
    let is_writable = delete.objects.iter().all(|object| !object.key.chars().any(is_not_xml));
    if delete.objects.is_empty() || delete.objects.len() > DELETE_LIMIT || !is_writable {
        return Err(s3_error!(MalformedXML, "The XML you provided was not well-formed or did not validate against our published schema"));
    }
    let keys: Vec<String> = delete.objects.iter().map(|object| storage.key(&object.key)).collect();
    storage.state.lock().delete_all(&bucket, &keys)?;
    let deleted = delete.objects.into_iter().map(|object| DeletedObject { key: Some(object.key), ..Default::default() }).collect();
    let deleted = if delete.quiet == Some(true) { None } else { Some(deleted) };
    Ok(DeleteObjectsOutput { deleted, ..Default::default() })
}

/// Characters that XML 1.0 can't say. As MinIO does, a request that holds one is refused as a whole: such keys are
/// deleted one by one.
fn is_not_xml(c: char) -> bool {
    matches!(c, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}')
}

/// An object as a test sees it, with its bytes.
pub fn read_whole(object: &Object) -> S3Result<bytes::Bytes> {
    blob::read_all(&object.content).map_err(S3Error::internal_error)
}
