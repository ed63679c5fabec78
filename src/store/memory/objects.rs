//! Whole objects: look-up under conditions, ranges, PUT and copy.

use std::time::SystemTime;

use futures::StreamExt;
use futures::stream;

use super::{Object, State, fail, normal_headers};
use crate::store::{Body, Condition, ErrorKind, ObjectBody, Operation, Receipt, Result, plain_etag};
use crate::types::{Archive, ETag, Key, ObjectHeaders, Span, Version};

/// A body arrives in pieces of this size, so that readers see more than one.
const CHUNK_BYTES: usize = 64 << 10;

impl Object {
    /// Nothing is ever restored here.
    fn check_readable(&self, operation: Operation, key: &Key) -> Result<()> {
        match self.info().archive {
            Archive::Readable => Ok(()),
            _ => fail(ErrorKind::Archived, operation, key, "InvalidObjectState: it is archived: restore it first"),
        }
    }
}

impl State {
    /// The object, or NotFound; with a version asked for, PreconditionFailed in both cases.
    pub(super) fn find(&self, operation: Operation, key: &Key, if_match: Option<&ETag>) -> Result<&Object> {
        match (self.objects.get(key), if_match) {
            (Some(object), None) => Ok(object),
            (Some(object), Some(etag)) if object.etag == *etag => Ok(object),
            (None, None) => fail(ErrorKind::NotFound, operation, key, "NoSuchKey: the key does not exist"),
            (_, Some(_)) => fail(ErrorKind::PreconditionFailed, operation, key, "PreconditionFailed: that version is gone"),
        }
    }

    pub(super) fn check(&self, operation: Operation, key: &Key, condition: &Condition) -> Result<()> {
        match condition {
            Condition::Any => Ok(()),
            Condition::IfMatch(etag) => self.find(operation, key, Some(etag)).map(|_| ()),
            Condition::IfAbsent if self.objects.contains_key(key) => {
                fail(ErrorKind::PreconditionFailed, operation, key, "PreconditionFailed: the name is taken")
            }
            Condition::IfAbsent => Ok(()),
        }
    }

    pub(super) fn get(&self, key: &Key, span: Option<Span>, if_match: Option<&ETag>) -> Result<ObjectBody> {
        let object = self.find(Operation::GetObject, key, if_match)?;
        object.check_readable(Operation::GetObject, key)?;
        let size = object.bytes.len() as u64;
        let span = match span {
            None => 0..size,
            Some(span) if span.start < size && span.start < span.end => span.start..span.end.min(size),
            Some(_) => return fail(ErrorKind::InvalidRange, Operation::GetObject, key, "InvalidRange: beyond the object's end"),
        };
        let mut rest = object.bytes.slice(span.start as usize..span.end as usize);
        let chunks = std::iter::from_fn(move || (!rest.is_empty()).then(|| rest.split_to(rest.len().min(CHUNK_BYTES))));
        Ok(ObjectBody {
            info: object.info(),
            span,
            md5: crate::store::plain_md5(&object.etag),
            stream: stream::iter(chunks).map(Ok).boxed(),
        })
    }

    pub(super) fn put(
        &mut self,
        key: &Key,
        body: Body,
        headers: &ObjectHeaders,
        condition: &Condition,
        now: SystemTime,
    ) -> Result<Receipt> {
        self.check(Operation::PutObject, key, condition)?;
        let (etag, headers) = (plain_etag(&body.md5), normal_headers(headers));
        Ok(self.insert(key, Object { bytes: body.bytes, etag, last_modified: now, headers }))
    }

    pub(super) fn copy(&mut self, from: &Version, to: &Key, headers: Option<&ObjectHeaders>, now: SystemTime) -> Result<Receipt> {
        if from.key == *to && headers.is_none() {
            return fail(ErrorKind::Other, Operation::CopyObject, to, "InvalidRequest: a copy onto itself must change something");
        }
        let mut object = self.find(Operation::CopyObject, &from.key, Some(&from.etag))?.clone();
        object.check_readable(Operation::CopyObject, &from.key)?;
        match headers {
            Some(headers) => object.headers = normal_headers(headers),
            // A copy keeps all headers but this one.
            None => object.headers.storage_class = None,
        }
        // The bytes are written anew in one piece: a multipart ETag does not survive a copy.
        object.etag = plain_etag(&crate::store::md5(&object.bytes));
        object.last_modified = now;
        Ok(self.insert(to, object))
    }

    pub(super) fn insert(&mut self, key: &Key, object: Object) -> Receipt {
        let receipt = object.receipt();
        self.objects.insert(key.clone(), object);
        receipt
    }
}
