//! What the buckets hold, and every change of it as one step under one lock.
//!
//! Conditions are checked and the change is made in the same step, so of eight writers with `If-None-Match: *` one
//! wins. A change goes to the ledger before it shows in memory: what was answered for survives a killed process. Bytes
//! are never touched here; they were stored before, and go away with the last reference.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use md5::{Digest, Md5};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};
use tokio::time::Instant;

use super::blob::{self, Content};
use super::conditions::{Conditions, Facts};
use super::ledger::Ledger;
use super::r2;
use crate::types::ObjectHeaders;

/// S3's least size of a part that is not the last.
pub const PART_MINIMUM_BYTES: u64 = 5 * 1024 * 1024;

pub struct Object {
    /// The key as its last upload spelled it; it differs from the index key where R2 folds.
    pub spelling: String,
    pub size: u64,
    /// Without quotes.
    pub etag: String,
    /// In whole milliseconds, as listings show it.
    pub modified: SystemTime,
    pub headers: ObjectHeaders,
    /// Of a multipart upload, the parts' sizes in order; else empty.
    pub part_sizes: Vec<u64>,
    pub content: Content,
}

impl Object {
    pub fn facts(&self) -> Facts<'_> {
        Facts { etag: &self.etag, modified: self.modified }
    }
}

#[derive(Clone)]
pub struct Part {
    pub md5: [u8; 16],
    pub size: u64,
    pub modified: SystemTime,
    pub content: Content,
}

pub struct Upload {
    pub bucket: String,
    /// The index key.
    pub key: String,
    pub spelling: String,
    pub headers: ObjectHeaders,
    pub initiated: SystemTime,
    pub parts: BTreeMap<i32, Part>,
}

pub struct Bucket {
    pub created: SystemTime,
    pub objects: BTreeMap<String, Arc<Object>>,
}

/// R2's limit on writes to one key, where it applies.
#[derive(Clone, Copy)]
pub struct Pace {
    pub now: Instant,
    /// How long after a write the next one to its key is taken.
    pub interval: Duration,
}

/// A new object on its way into the index.
pub struct Change<'a> {
    pub bucket: &'a str,
    pub key: &'a str,
    pub conditions: &'a Conditions,
    /// Some in R2 mode.
    pub pace: Option<Pace>,
}

/// What CompleteMultipartUpload names: part number and ETag, in the request's order.
pub type NamedParts = Vec<(i32, String)>;

#[derive(Default)]
pub struct State {
    pub buckets: BTreeMap<String, Bucket>,
    /// By upload id.
    pub uploads: BTreeMap<String, Upload>,
    last_writes: HashMap<(String, String), Instant>,
    pub ledger: Option<Ledger>,
}

impl State {
    pub fn bucket(&self, name: &str) -> S3Result<&Bucket> {
        self.buckets.get(name).ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))
    }

    pub fn object(&self, bucket: &str, key: &str) -> S3Result<Arc<Object>> {
        let object = self.bucket(bucket)?.objects.get(key).cloned();
        object.ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))
    }

    pub fn create_bucket(&mut self, name: &str, created: SystemTime) -> S3Result<()> {
        if self.buckets.contains_key(name) {
            return Err(s3_error!(BucketAlreadyOwnedByYou));
        }
        if let Some(ledger) = &mut self.ledger {
            ledger.put_bucket(name, created).map_err(S3Error::internal_error)?;
        }
        self.buckets.insert(name.to_owned(), Bucket { created, objects: BTreeMap::new() });
        Ok(())
    }

    pub fn delete_bucket(&mut self, name: &str) -> S3Result<()> {
        if !self.bucket(name)?.objects.is_empty() {
            return Err(s3_error!(BucketNotEmpty));
        }
        if let Some(ledger) = &mut self.ledger {
            ledger.delete_bucket(name).map_err(S3Error::internal_error)?;
        }
        self.buckets.remove(name);
        self.uploads.retain(|_, upload| upload.bucket != name);
        Ok(())
    }

    /// Puts a whole object in place if the conditions hold and R2's pace allows it.
    pub fn put(&mut self, change: &Change<'_>, object: Object) -> S3Result<Arc<Object>> {
        self.admit(change)?;
        if let Some(ledger) = &mut self.ledger {
            ledger.put_object(change.bucket, change.key, &object, None).map_err(S3Error::internal_error)?;
        }
        self.place(change, object)
    }

    fn admit(&self, change: &Change<'_>) -> S3Result<()> {
        let current = self.bucket(change.bucket)?.objects.get(change.key);
        change.conditions.check_write(current.map(|object| object.facts()))?;
        let last = self.last_writes.get(&(change.bucket.to_owned(), change.key.to_owned()));
        match (change.pace, last) {
            (Some(pace), Some(&last)) if pace.now < last + pace.interval => Err(r2::too_many_requests()),
            _ => Ok(()),
        }
    }

    fn place(&mut self, change: &Change<'_>, object: Object) -> S3Result<Arc<Object>> {
        if let Some(pace) = change.pace {
            self.last_writes.retain(|_, last| pace.now < *last + pace.interval);
            self.last_writes.insert((change.bucket.to_owned(), change.key.to_owned()), pace.now);
        }
        let object = Arc::new(object);
        let bucket = self.buckets.get_mut(change.bucket).ok_or(S3ErrorCode::NoSuchBucket)?;
        bucket.objects.insert(change.key.to_owned(), object.clone());
        Ok(object)
    }

    /// Removes what is there; nothing there is success, unless If-Match wants it.
    pub fn delete(&mut self, bucket: &str, key: &str, conditions: &Conditions) -> S3Result<()> {
        let current = self.bucket(bucket)?.objects.get(key).cloned();
        conditions.check_write(current.as_ref().map(|object| object.facts()))?;
        if current.is_none() {
            return Ok(());
        }
        self.delete_all(bucket, &[key])
    }

    /// Removes all of `keys` in one transaction.
    pub fn delete_all(&mut self, bucket: &str, keys: &[impl AsRef<str>]) -> S3Result<()> {
        self.bucket(bucket)?;
        if let Some(ledger) = &mut self.ledger {
            ledger.delete_objects(bucket, keys).map_err(S3Error::internal_error)?;
        }
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            for key in keys {
                bucket.objects.remove(key.as_ref());
            }
        }
        Ok(())
    }

    pub fn create_upload(&mut self, id: String, upload: Upload) -> S3Result<()> {
        self.bucket(&upload.bucket)?;
        if let Some(ledger) = &mut self.ledger {
            ledger.put_upload(&id, &upload).map_err(S3Error::internal_error)?;
        }
        self.uploads.insert(id, upload);
        Ok(())
    }

    pub fn upload(&self, bucket: &str, key: &str, id: &str) -> S3Result<&Upload> {
        self.bucket(bucket)?;
        let upload = self.uploads.get(id).filter(|upload| upload.bucket == bucket && upload.key == key);
        upload.ok_or_else(|| s3_error!(NoSuchUpload, "The specified multipart upload does not exist."))
    }

    pub fn put_part(&mut self, bucket: &str, key: &str, id: &str, number: i32, part: Part) -> S3Result<()> {
        self.upload(bucket, key, id)?;
        if let Some(ledger) = &mut self.ledger {
            ledger.put_part(id, number, &part).map_err(S3Error::internal_error)?;
        }
        if let Some(upload) = self.uploads.get_mut(id) {
            upload.parts.insert(number, part);
        }
        Ok(())
    }

    pub fn abort(&mut self, id: &str) -> S3Result<()> {
        if let Some(ledger) = &mut self.ledger {
            ledger.delete_upload(id).map_err(S3Error::internal_error)?;
        }
        self.uploads.remove(id);
        Ok(())
    }

    /// Makes an object of an upload's parts. On R2 a condition that fails takes the upload with it.
    pub fn complete(&mut self, change: &Change<'_>, id: &str, named: NamedParts, modified: SystemTime) -> S3Result<Arc<Object>> {
        let is_r2 = change.pace.is_some();
        let upload = self.upload(change.bucket, change.key, id)?;
        let parts = choose_parts(upload, named, is_r2)?;
        let object = join_parts(upload, &parts, modified);
        if let Err(error) = self.admit(change) {
            if is_r2 && !r2::is_too_many_requests(&error) {
                self.abort(id)?;
            }
            return Err(error);
        }
        if let Some(ledger) = &mut self.ledger {
            ledger.put_object(change.bucket, change.key, &object, Some(id)).map_err(S3Error::internal_error)?;
        }
        self.uploads.remove(id);
        self.place(change, object)
    }
}

/// The named parts, checked: known, of the right ETag, in order, and of sizes that the store takes.
fn choose_parts(upload: &Upload, mut named: NamedParts, is_r2: bool) -> S3Result<Vec<Part>> {
    if named.is_empty() {
        return Err(s3_error!(MalformedXML, "You must specify at least one part"));
    }
    if is_r2 {
        named.sort_by_key(|(number, _)| *number);
    }
    if !named.is_sorted_by(|(one, _), (other, _)| one < other) {
        return Err(s3_error!(InvalidPartOrder, "The list of parts was not in ascending order."));
    }
    let mut parts = Vec::with_capacity(named.len());
    for (number, etag) in &named {
        let part = upload.parts.get(number).filter(|part| blob::hex(&part.md5) == *etag);
        parts.push(part.ok_or_else(|| s3_error!(InvalidPart, "Part {number} was not uploaded, or has another ETag"))?.clone());
    }
    let (last, others) = parts.split_last().ok_or(S3ErrorCode::InvalidPart)?;
    if others.iter().any(|part| part.size < PART_MINIMUM_BYTES) {
        return Err(s3_error!(EntityTooSmall, "Your proposed upload is smaller than the minimum allowed object size."));
    }
    if is_r2 {
        r2::check_equal_parts(others.iter().map(|part| part.size), last.size)?;
    }
    Ok(parts)
}

fn join_parts(upload: &Upload, parts: &[Part], modified: SystemTime) -> Object {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(part.md5);
    }
    Object {
        spelling: upload.spelling.clone(),
        size: parts.iter().map(|part| part.size).sum(),
        etag: format!("{}-{}", blob::hex(&md5.finalize()), parts.len()),
        modified,
        headers: upload.headers.clone(),
        part_sizes: parts.iter().map(|part| part.size).collect(),
        content: parts.iter().flat_map(|part| part.content.iter().cloned()).collect(),
    }
}
