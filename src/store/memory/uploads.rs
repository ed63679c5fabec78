//! Multipart uploads: parts by number until Complete makes them one object.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};

use super::{Object, State, fail};
use crate::store::{
    Condition, ErrorKind, Operation, Part, PendingUpload, Receipt, Result, UploadId, md5, multipart_etag, plain_etag, plain_md5,
};
use crate::types::{ETag, Key, ObjectHeaders, Span};

/// S3's highest part number.
const MAX_PARTS: u32 = 10_000;

/// The unfinished uploads, by the order in which they began.
#[derive(Clone, Default)]
pub(super) struct Uploads {
    begun: u64,
    pending: BTreeMap<u64, Upload>,
}

#[derive(Clone)]
struct Upload {
    key: Key,
    headers: ObjectHeaders,
    initiated: SystemTime,
    parts: BTreeMap<u32, Bytes>,
}

impl Uploads {
    pub(super) fn create(&mut self, key: &Key, headers: ObjectHeaders, initiated: SystemTime) -> UploadId {
        self.begun += 1;
        self.pending.insert(self.begun, Upload { key: key.clone(), headers, initiated, parts: BTreeMap::new() });
        UploadId(self.begun.to_string())
    }

    pub(super) fn abort(&mut self, key: &Key, id: &UploadId) {
        if let Ok(number) = self.find(Operation::AbortMultipartUpload, key, id) {
            self.pending.remove(&number);
        }
    }

    pub(super) fn pending(&self) -> Vec<PendingUpload> {
        let shown = |(number, upload): (&u64, &Upload)| PendingUpload {
            key: upload.key.clone(),
            id: UploadId(number.to_string()),
            initiated: upload.initiated,
        };
        self.pending.iter().map(shown).collect()
    }

    pub(super) fn put_part(&mut self, operation: Operation, key: &Key, id: &UploadId, number: u32, bytes: Bytes) -> Result<Part> {
        let upload = self.find(operation, key, id)?;
        if !(1..=MAX_PARTS).contains(&number) {
            return fail(ErrorKind::Other, operation, key, "InvalidArgument: part numbers go from 1 to 10,000");
        }
        let part = Part { number, etag: plain_etag(&md5(&bytes)), size: bytes.len() as u64 };
        if let Some(upload) = self.pending.get_mut(&upload) {
            upload.parts.insert(number, bytes);
        }
        Ok(part)
    }

    fn find(&self, operation: Operation, key: &Key, id: &UploadId) -> Result<u64> {
        let known = |number: &u64| self.pending.get(number).is_some_and(|upload| upload.key == *key);
        match id.0.parse().ok().filter(known) {
            Some(number) => Ok(number),
            None => fail(ErrorKind::NoSuchUpload, operation, key, "NoSuchUpload: the upload does not exist"),
        }
    }
}

impl Upload {
    /// The bytes of the named parts in order, checked as S3 checks them.
    fn assemble(&self, parts: &[Part], min_part_bytes: u64) -> Result<Bytes> {
        let bad = |kind, message| fail(kind, Operation::CompleteMultipartUpload, &self.key, message);
        let mut all = BytesMut::new();
        for (index, part) in parts.iter().enumerate() {
            if index > 0 && parts[index - 1].number >= part.number {
                return bad(ErrorKind::Other, "InvalidPartOrder: the parts are not in ascending order");
            }
            match self.parts.get(&part.number) {
                Some(bytes) if plain_md5(&part.etag) == Some(md5(bytes)) => {
                    if index + 1 < parts.len() && (bytes.len() as u64) < min_part_bytes {
                        return bad(ErrorKind::Other, "EntityTooSmall: a part before the last is too small");
                    }
                    all.extend_from_slice(bytes);
                }
                _ => return bad(ErrorKind::Other, "InvalidPart: a part was not found or its ETag differs"),
            }
        }
        if parts.is_empty() { bad(ErrorKind::Other, "MalformedXML: no parts") } else { Ok(all.freeze()) }
    }
}

impl State {
    pub(super) fn copy_part(
        &mut self,
        key: &Key,
        id: &UploadId,
        number: u32,
        from: &Key,
        if_match: Option<&ETag>,
        span: Span,
    ) -> Result<Part> {
        let source = self.find(Operation::UploadPartCopy, from, if_match)?;
        if span.start >= span.end || span.end > source.bytes.len() as u64 {
            return fail(ErrorKind::InvalidRange, Operation::UploadPartCopy, key, "InvalidRange: beyond the source's end");
        }
        let bytes = source.bytes.slice(span.start as usize..span.end as usize);
        self.uploads.put_part(Operation::UploadPartCopy, key, id, number, bytes)
    }

    pub(super) fn complete(
        &mut self,
        key: &Key,
        id: &UploadId,
        parts: &[Part],
        condition: &Condition,
        min_part_bytes: u64,
        now: SystemTime,
    ) -> Result<Receipt> {
        let number = self.uploads.find(Operation::CompleteMultipartUpload, key, id)?;
        self.check(Operation::CompleteMultipartUpload, key, condition)?;
        let upload = &self.uploads.pending[&number];
        let bytes = upload.assemble(parts, min_part_bytes)?;
        let Some(etag) = multipart_etag(parts) else {
            return fail(ErrorKind::Other, Operation::CompleteMultipartUpload, key, "InvalidPart: unknown ETag");
        };
        let object = Object { bytes, etag, last_modified: now, headers: upload.headers.clone() };
        self.uploads.pending.remove(&number);
        Ok(self.insert(key, object))
    }
}
