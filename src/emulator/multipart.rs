//! Multipart uploads: begin, parts, complete, abort, and both listings.

use std::collections::BTreeMap;

use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CommonPrefix, CompleteMultipartUploadInput, CompleteMultipartUploadOutput,
    CreateMultipartUploadInput, CreateMultipartUploadOutput, ETag, ListMultipartUploadsInput, ListMultipartUploadsOutput, ListPartsInput,
    ListPartsOutput, MultipartUpload, Part as ListedPart, StorageClass, Timestamp, UploadPartInput, UploadPartOutput,
};
use s3s::{S3Request, S3Result, s3_error};

use super::answers::Spelling;
use super::blob;
use super::conditions::Conditions;
use super::listing::{self, After, Entry, PAGE_LIMIT, Query};
use super::state::{Change, NamedParts, Part, Upload};
use super::storage::{self, Storage};
use crate::types::ObjectHeaders;

/// Part numbers go from 1 to this.
const PARTS_LIMIT: i32 = 10_000;

pub fn check_part_number(number: i32) -> S3Result<()> {
    if (1..=PARTS_LIMIT).contains(&number) {
        return Ok(());
    }
    Err(s3_error!(InvalidArgument, "Part number must be an integer between 1 and {PARTS_LIMIT}, inclusive"))
}

pub async fn create(storage: &Storage, request: S3Request<CreateMultipartUploadInput>) -> S3Result<CreateMultipartUploadOutput> {
    let input = request.input;
    let headers = storage.admit_headers(ObjectHeaders {
        content_type: input.content_type,
        cache_control: input.cache_control,
        content_disposition: input.content_disposition,
        content_encoding: input.content_encoding,
        content_language: input.content_language,
        storage_class: storage::storage_class_in(input.storage_class),
        metadata: storage::metadata_in(input.metadata),
    })?;
    let id = format!("{:032x}", rand::random::<u128>());
    let upload = Upload {
        bucket: input.bucket.clone(),
        key: storage.key(&input.key),
        spelling: input.key.clone(),
        headers,
        initiated: storage.now(),
        parts: BTreeMap::new(),
    };
    storage.state.lock().create_upload(id.clone(), upload)?;
    Ok(CreateMultipartUploadOutput { bucket: Some(input.bucket), key: Some(input.key), upload_id: Some(id), ..Default::default() })
}

pub async fn upload_part(storage: &Storage, request: S3Request<UploadPartInput>) -> S3Result<UploadPartOutput> {
    let input = request.input;
    check_part_number(input.part_number)?;
    let key = storage.key(&input.key);
    storage.state.lock().upload(&input.bucket, &key, &input.upload_id)?;
    let written = storage.receive(input.body, input.content_length, input.content_md5.as_deref()).await?;
    let etag = ETag::Strong(blob::hex(&written.md5));
    let part = Part { md5: written.md5, size: written.size, modified: storage.now(), content: written.content };
    storage.state.lock().put_part(&input.bucket, &key, &input.upload_id, input.part_number, part)?;
    Ok(UploadPartOutput { e_tag: Some(etag), ..Default::default() })
}

pub async fn complete(storage: &Storage, request: S3Request<CompleteMultipartUploadInput>) -> S3Result<CompleteMultipartUploadOutput> {
    let conditions = Conditions::from_headers(&request.headers, "")?;
    let input = request.input;
    let key = storage.key(&input.key);
    let mut named = NamedParts::new();
    for part in input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default() {
        let (Some(number), Some(etag)) = (part.part_number, part.e_tag) else {
            return Err(s3_error!(MalformedXML, "A part needs PartNumber and ETag"));
        };
        named.push((number, etag.into_value()));
    }
    let change = Change { bucket: &input.bucket, key: &key, conditions: &conditions, pace: storage.pace() };
    let object = storage.state.lock().complete(&change, &input.upload_id, named, storage.now())?;
    Ok(CompleteMultipartUploadOutput {
        location: Some(format!("/{}/{}", input.bucket, listing::url_encode(&input.key))),
        bucket: Some(input.bucket),
        key: Some(input.key),
        e_tag: Some(storage::etag(&object)),
        ..Default::default()
    })
}

/// Succeeds also for an upload that nobody knows, as MinIO does: an abort may be repeated.
pub async fn abort(storage: &Storage, request: S3Request<AbortMultipartUploadInput>) -> S3Result<AbortMultipartUploadOutput> {
    let AbortMultipartUploadInput { bucket, key, upload_id, .. } = request.input;
    let mut state = storage.state.lock();
    state.bucket(&bucket)?;
    if state.upload(&bucket, &storage.key(&key), &upload_id).is_ok() {
        state.abort(&upload_id)?;
    }
    Ok(AbortMultipartUploadOutput::default())
}

pub async fn list_parts(storage: &Storage, request: S3Request<ListPartsInput>) -> S3Result<ListPartsOutput> {
    let input = request.input;
    let limit = page_limit(input.max_parts)?;
    let marker = input.part_number_marker.unwrap_or(0);
    let state = storage.state.lock();
    let upload = state.upload(&input.bucket, &storage.key(&input.key), &input.upload_id)?;
    let mut rest = upload.parts.range(marker.saturating_add(1)..).peekable();
    let mut parts = Vec::new();
    let mut last = marker;
    while parts.len() < limit
        && let Some((&number, part)) = rest.next()
    {
        last = number;
        parts.push(ListedPart {
            e_tag: Some(ETag::Strong(blob::hex(&part.md5))),
            last_modified: Some(Timestamp::from(part.modified)),
            part_number: Some(number),
            size: Some(part.size as i64),
            ..Default::default()
        });
    }
    let is_truncated = limit > 0 && rest.peek().is_some();
    Ok(ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        is_truncated: Some(is_truncated),
        max_parts: Some(limit as i32),
        part_number_marker: Some(marker),
        next_part_number_marker: is_truncated.then_some(last),
        parts: Some(parts),
        storage_class: upload.headers.storage_class.clone().map(StorageClass::from),
        ..Default::default()
    })
}

fn page_limit(asked: Option<i32>) -> S3Result<usize> {
    let limit = usize::try_from(asked.unwrap_or(PAGE_LIMIT as i32));
    limit.map(|limit| limit.min(PAGE_LIMIT)).map_err(|_| s3_error!(InvalidArgument, "A page's limit must not be negative"))
}

/// Between key and upload id in the sorted names of uploads: it sorts before all else, and no id holds it.
const BETWEEN: char = '\0';

pub async fn list_uploads(storage: &Storage, request: S3Request<ListMultipartUploadsInput>) -> S3Result<ListMultipartUploadsOutput> {
    let input = request.input;
    let spelling = Spelling::new(input.encoding_type.as_ref())?;
    let limit = page_limit(input.max_uploads)?;
    let prefix = storage.key(input.prefix.as_deref().unwrap_or_default());
    let delimiter = input.delimiter.as_deref().unwrap_or_default();
    let state = storage.state.lock();
    state.bucket(&input.bucket)?;
    let in_bucket = state.uploads.iter().filter(|(_, upload)| upload.bucket == input.bucket);
    let sorted: BTreeMap<String, (&String, &Upload)> =
        in_bucket.map(|(id, upload)| (format!("{}{BETWEEN}{id}", upload.key), (id, upload))).collect();
    let after = after_marker(input.key_marker.as_deref(), input.upload_id_marker.as_deref(), delimiter);
    let page = listing::page(&sorted, &Query { prefix: &prefix, delimiter, after, limit });
    let mut uploads = Vec::new();
    let mut prefixes = Vec::new();
    for entry in &page.entries {
        match entry {
            Entry::Prefix(prefix) => prefixes.push(CommonPrefix { prefix: Some(spelling.spell(prefix)) }),
            Entry::Key(_, (id, upload)) => uploads.push(MultipartUpload {
                initiated: Some(Timestamp::from(upload.initiated)),
                key: Some(spelling.spell(&upload.spelling)),
                upload_id: Some((*id).clone()),
                storage_class: upload.headers.storage_class.clone().map(StorageClass::from),
                ..Default::default()
            }),
        }
    }
    let (next_key, next_id) = page.next.as_ref().map_or((None, None), split_position);
    Ok(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        common_prefixes: Some(prefixes),
        delimiter: input.delimiter.map(|text| spelling.spell(&text)),
        encoding_type: input.encoding_type,
        is_truncated: Some(page.next.is_some()),
        key_marker: input.key_marker.map(|text| spelling.spell(&text)),
        max_uploads: Some(limit as i32),
        next_key_marker: next_key.map(|text| spelling.spell(&text)),
        next_upload_id_marker: next_id,
        prefix: input.prefix.map(|text| spelling.spell(&text)),
        upload_id_marker: input.upload_id_marker,
        uploads: Some(uploads),
        ..Default::default()
    })
}

/// A key marker alone skips all uploads of that key; with an upload id it goes on within the key.
fn after_marker(key: Option<&str>, id: Option<&str>, delimiter: &str) -> After {
    match (key.unwrap_or_default(), id.unwrap_or_default()) {
        ("", _) => After::Start,
        (key, "") => match After::name(key, delimiter) {
            // Upload ids are hexadecimal, so `g` is beyond them all.
            After::Key(key) => After::Key(format!("{key}{BETWEEN}g")),
            other => other,
        },
        (key, id) => After::Key(format!("{key}{BETWEEN}{id}")),
    }
}

fn split_position(after: &After) -> (Option<String>, Option<String>) {
    match after {
        After::Start => (None, None),
        After::Prefix(prefix) => (Some(prefix.clone()), None),
        After::Key(name) => match name.rsplit_once(BETWEEN) {
            Some((key, id)) => (Some(key.to_owned()), Some(id.to_owned())),
            None => (Some(name.clone()), None),
        },
    }
}
