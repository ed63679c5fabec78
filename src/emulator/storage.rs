//! The storage behind the emulator's operations: blobs, the index, the clock of R2's pace, and the checks that every
//! upload passes.
//!
//! Lock order: there is one lock, the index; it is never held across an await, nor while a body moves.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::StreamExt;
use parking_lot::Mutex;
use s3s::dto::{ETag, Metadata, StorageClass, StreamingBlob};
use s3s::{S3Error, S3Result, StdError, s3_error};
use tokio::time::Instant;

use super::blob::{Blobs, Written};
use super::ledger::Ledger;
use super::state::{Object, Pace, State};
use super::{Error, r2};
use crate::clock;
use crate::types::ObjectHeaders;

/// S3's limit on the user metadata of an object: names and values together.
const METADATA_LIMIT_BYTES: usize = 2048;

/// S3's limit on one PUT or part.
const BODY_LIMIT_BYTES: u64 = 5 << 30;

/// R2's is 5 MiB less.
const R2_BODY_LIMIT_BYTES: u64 = BODY_LIMIT_BYTES - (5 << 20);

pub struct Storage {
    pub r2: bool,
    pub blobs: Blobs,
    pub state: Mutex<State>,
    /// What tests have added to the clock of R2's pace, in milliseconds.
    passed_ms: AtomicU64,
    /// Between two writes to one key, in R2 mode.
    write_interval: Duration,
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.blobs.close();
    }
}

impl Storage {
    /// In `folder`, or in memory.
    pub fn open(folder: Option<&Path>, r2: bool, write_interval: Duration) -> Result<Self, Error> {
        let (blobs, state) = match folder {
            None => (Blobs::in_memory(), State::default()),
            Some(folder) => {
                let failed = |message: String| Error::Folder { folder: folder.to_owned(), message };
                std::fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
                let ledger = Ledger::open(&folder.join("index.sqlite")).map_err(|error| failed(error.to_string()))?;
                let blobs = Blobs::in_folder(&folder.join("blobs")).map_err(|error| failed(error.to_string()))?;
                let state = ledger.load(&blobs).map_err(|error| failed(error.to_string()))?;
                (blobs, state)
            }
        };
        Ok(Self { r2, blobs, state: Mutex::new(state), passed_ms: AtomicU64::new(0), write_interval })
    }

    /// The key under which `spelling` is indexed.
    pub fn key(&self, spelling: &str) -> String {
        if self.r2 { r2::fold(spelling) } else { spelling.to_owned() }
    }

    pub fn pace(&self) -> Option<Pace> {
        let passed = Duration::from_millis(self.passed_ms.load(Ordering::Relaxed));
        self.r2.then(|| Pace { now: Instant::now() + passed, interval: self.write_interval })
    }

    pub fn pass_time(&self, time: Duration) {
        self.passed_ms.fetch_add(time.as_millis() as u64, Ordering::Relaxed);
    }

    /// The wall clock in whole milliseconds, as it is stored and shown.
    pub fn now(&self) -> SystemTime {
        let since = clock::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        SystemTime::UNIX_EPOCH + Duration::from_millis(since.as_millis() as u64)
    }

    /// Takes a body to its end and checks it against what the request said of it.
    pub async fn receive(&self, body: Option<StreamingBlob>, length: Option<i64>, content_md5: Option<&str>) -> S3Result<Written> {
        let limit = if self.r2 { R2_BODY_LIMIT_BYTES } else { BODY_LIMIT_BYTES };
        if length.is_some_and(|length| length as u64 > limit) {
            return Err(s3_error!(EntityTooLarge, "Your proposed upload exceeds the maximum allowed object size."));
        }
        let expected_md5 = content_md5.map(parse_md5).transpose()?;
        let mut writer = self.blobs.writer();
        if let Some(mut body) = body {
            while let Some(chunk) = body.next().await {
                writer.push(chunk.map_err(broken_body)?).await.map_err(S3Error::internal_error)?;
            }
        }
        let written = writer.finish().await.map_err(S3Error::internal_error)?;
        if length.is_some_and(|length| length as u64 != written.size) {
            return Err(s3_error!(IncompleteBody, "The body is not as long as Content-Length says"));
        }
        if expected_md5.is_some_and(|md5| md5 != written.md5) {
            return Err(s3_error!(BadDigest, "The Content-MD5 you specified did not match what we received."));
        }
        Ok(written)
    }

    /// The headers to keep, checked against the limits of the mode.
    pub fn admit_headers(&self, mut headers: ObjectHeaders) -> S3Result<ObjectHeaders> {
        let limit = if self.r2 { r2::METADATA_LIMIT_BYTES } else { METADATA_LIMIT_BYTES };
        let size: usize = headers.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        if size > limit {
            return Err(s3_error!(MetadataTooLarge, "Your metadata headers exceed the maximum allowed metadata size: {size} of {limit}"));
        }
        if self.r2 && !matches!(headers.storage_class.as_deref(), None | Some("STANDARD" | "STANDARD_IA")) {
            return Err(s3_error!(InvalidStorageClass, "The storage class you specified is not valid"));
        }
        headers.storage_class = headers.storage_class.filter(|class| class != "STANDARD");
        headers.content_encoding = headers.content_encoding.and_then(|coding| without_transfer_coding(&coding));
        headers.content_type.get_or_insert_with(|| "application/octet-stream".to_owned());
        Ok(headers)
    }
}

/// `aws-chunked` says how the body travelled and is not kept.
fn without_transfer_coding(coding: &str) -> Option<String> {
    let kept: Vec<&str> = coding.split(',').map(str::trim).filter(|part| *part != "aws-chunked" && !part.is_empty()).collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

fn parse_md5(text: &str) -> S3Result<[u8; 16]> {
    let bytes = BASE64.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| s3_error!(InvalidDigest, "The Content-MD5 you specified is not valid."))
}

/// The S3 crate compares the payload's SHA-256 as it streams, and says so only in the text of the error.
fn broken_body(error: StdError) -> S3Error {
    let text = error.to_string();
    if text.contains("Sha256Mismatch") {
        return r2::error("XAmzContentSHA256Mismatch", hyper::StatusCode::BAD_REQUEST, "The body does not match x-amz-content-sha256");
    }
    s3_error!(IncompleteBody, "The body broke off: {text}")
}

pub fn metadata_in(metadata: Option<Metadata>) -> std::collections::BTreeMap<String, String> {
    metadata.unwrap_or_default().into_iter().collect()
}

pub fn metadata_out(headers: &ObjectHeaders) -> Option<Metadata> {
    let pairs = headers.metadata.iter().map(|(name, value)| (name.clone(), header_value(value)));
    (!headers.metadata.is_empty()).then(|| pairs.collect())
}

/// The S3 crate takes RFC 2047's words apart on the way in, and on the way out makes them for letters beyond ASCII only:
/// what else a header can't carry as it is goes as one here.
fn header_value(value: &str) -> String {
    let is_plain = value.bytes().all(|byte| !byte.is_ascii_control()) && value.trim() == value && !value.contains("=?");
    if is_plain { value.to_owned() } else { format!("=?UTF-8?B?{}?=", BASE64.encode(value)) }
}

pub fn etag(object: &Object) -> ETag {
    ETag::Strong(object.etag.clone())
}

pub fn storage_class_in(class: Option<StorageClass>) -> Option<String> {
    class.map(|class| class.as_str().to_owned())
}
