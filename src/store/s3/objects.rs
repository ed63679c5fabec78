//! Operations on whole objects: HEAD, GET, PUT, copy, delete, presign. One attempt each.

use std::time::Duration;

use aws_sdk_s3::config::http::HttpRequest;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{Delete, MetadataDirective, ObjectIdentifier};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::OwnedSemaphorePermit;

use super::headers::{has_opaque_etag, headers_of, last_modified, with_headers};
use super::{S3Store, names};
use crate::clock;
use crate::store::{Body, Condition, ErrorKind, ObjectBody, Operation, Receipt, Result, StoreError, plain_md5};
use crate::types::{Archive, ETag, Key, ObjectHeaders, ObjectInfo, Span, Version};

/// Keys that can't be deleted in bulk go one by one, this many at once.
const PARALLEL_DELETES: usize = 8;
/// S3's longest and shortest life of a presigned URL.
const PRESIGN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(7 * 24 * 3600));

impl S3Store {
    pub(super) async fn head_object(&self, key: &Key) -> Result<ObjectInfo> {
        let operation = Operation::HeadObject;
        let _connection = self.connection(operation, key).await?;
        let request = self.client.head_object().bucket(self.bucket()).key(key.as_str());
        let failed = |error| self.context.error(operation, key, false, error);
        let mut output = request.clone().send().await.map_err(failed)?;
        if output.content_length().is_none() {
            self.counts.count(operation);
            output = request.customize().mutate_request(take_gzip).send().await.map_err(failed)?;
        }
        Ok(ObjectInfo {
            size: output.content_length().and_then(|size| u64::try_from(size).ok()).ok_or_else(|| no(operation, key, "size"))?,
            etag: output.e_tag().map(ETag::new).ok_or_else(|| no(operation, key, "ETag"))?,
            last_modified: last_modified(output.last_modified()),
            archive: Archive::of(output.storage_class().map(|class| class.as_str()), output.restore()),
            headers: headers_of!(output),
        })
    }

    pub(super) async fn get_object(&self, key: &Key, span: Option<Span>, if_match: Option<&ETag>) -> Result<ObjectBody> {
        let operation = Operation::GetObject;
        if span.as_ref().is_some_and(Span::is_empty) {
            return Err(StoreError::new(ErrorKind::InvalidRange, operation.name(), key, "an empty range"));
        }
        let connection = self.connection(operation, key).await?;
        let range = span.as_ref().map(range);
        let request = self.streaming.get_object().bucket(self.bucket()).key(key.as_str()).set_range(range);
        let request = request.set_if_match(if_match.map(ETag::quoted));
        let failed = |error| self.context.error(operation, key, if_match.is_some(), error);
        let mut output = request.clone().send().await.map_err(failed)?;
        if output.content_length().is_none() {
            self.counts.count(operation);
            output = request.customize().mutate_request(take_gzip).send().await.map_err(failed)?;
        }
        let (size, sent) = extent(&output, key)?;
        let asked = span.map_or(0..size, |span| span.start..span.end.min(size));
        if sent != asked {
            let message = format!("asked for bytes {asked:?} of {size}, the store sends {sent:?}");
            return Err(StoreError::new(ErrorKind::Corrupt, operation.name(), key, message));
        }
        let info = ObjectInfo {
            size,
            etag: output.e_tag().map(ETag::new).ok_or_else(|| no(operation, key, "ETag"))?,
            last_modified: last_modified(output.last_modified()),
            headers: headers_of!(output),
            archive: Archive::Readable,
        };
        let md5 = plain_md5(&info.etag).filter(|_| !has_opaque_etag!(output));
        let stream = body_stream(output.body, key.clone(), sent.end - sent.start, connection);
        Ok(ObjectBody { info, span: sent, md5, stream })
    }

    pub(super) async fn put_object(&self, key: &Key, body: Body, headers: &ObjectHeaders, condition: &Condition) -> Result<Receipt> {
        let operation = Operation::PutObject;
        let _connection = self.connection(operation, key).await?;
        let size = body.bytes.len() as u64;
        let request = self.client.put_object().bucket(self.bucket()).key(key.as_str()).content_md5(BASE64.encode(body.md5));
        let request = with_headers!(request, headers);
        let request = match condition {
            Condition::Any => request,
            Condition::IfAbsent => request.if_none_match("*"),
            Condition::IfMatch(etag) => request.if_match(etag.quoted()),
        };
        let on_version = matches!(condition, Condition::IfMatch(_));
        let send = |bytes| request.body(bytes).customize().config_override(self.for_upload()).disable_payload_signing().send();
        let output = self.upload(operation, key, on_version, body.bytes, send).await?;
        let etag = output.e_tag().map(ETag::new).ok_or_else(|| no(operation, key, "ETag").with_unknown_outcome())?;
        check_etag(operation, key, &etag, &body.md5, has_opaque_etag!(output))?;
        Ok(Receipt::new(etag, size))
    }

    pub(super) async fn copy_object(&self, from: &Version, to: &Key, headers: Option<&ObjectHeaders>) -> Result<Receipt> {
        let operation = Operation::CopyObject;
        let _connection = self.connection(operation, to).await?;
        let request = self.client.copy_object().bucket(self.bucket()).key(to.as_str());
        let source = names::copy_source(self.bucket(), &from.key);
        let request = request.copy_source(source).copy_source_if_match(from.etag.quoted());
        let request = match headers {
            None => request,
            Some(headers) => with_headers!(request.metadata_directive(MetadataDirective::Replace), headers),
        };
        let sent = request.customize().config_override(self.for_copy(from.size)).send().await;
        let output = sent.map_err(|error| self.context.error(operation, to, true, error))?;
        let etag = output.copy_object_result().and_then(|result| result.e_tag()).map(ETag::new);
        let etag = etag.ok_or_else(|| no(operation, to, "ETag").with_unknown_outcome())?;
        Ok(Receipt::new(etag, from.size))
    }

    pub(super) async fn extra_head(&self, key: &Key) -> Result<ObjectInfo> {
        self.counts.count(Operation::HeadObject);
        self.head_object(key).await
    }

    pub(super) async fn delete_object(&self, key: &Key) -> Result<()> {
        let operation = Operation::DeleteObject;
        let _connection = self.connection(operation, key).await?;
        match self.client.delete_object().bucket(self.bucket()).key(key.as_str()).send().await {
            Ok(_) => Ok(()),
            Err(error) => match self.context.error(operation, key, false, error) {
                error if error.is(ErrorKind::NotFound) => Ok(()),
                error => Err(error),
            },
        }
    }

    /// One DeleteObjects, and a DeleteObject for each key that XML can't carry.
    pub(super) async fn delete_objects(&self, keys: &[Key]) -> Result<Vec<Result<()>>> {
        let bulk: Vec<usize> = (0..keys.len()).filter(|&at| names::fits_xml(&keys[at])).collect();
        let single: Vec<usize> = (0..keys.len()).filter(|&at| !names::fits_xml(&keys[at])).collect();
        let mut answers: Vec<Result<()>> = vec![Ok(()); keys.len()];
        if !bulk.is_empty() {
            let failed = self.send_deletes(bulk.iter().map(|&at| &keys[at])).await?;
            for error in failed {
                bulk.iter().filter(|&&at| keys[at] == error.0).for_each(|&at| answers[at] = Err(error.1.clone()));
            }
        }
        let deletes = single.into_iter().map(|at| {
            let key = keys[at].clone();
            self.counts.count(Operation::DeleteObject);
            async move { (at, self.delete_object(&key).await) }
        });
        let done: Vec<_> = stream::iter(deletes).buffer_unordered(PARALLEL_DELETES).collect().await;
        done.into_iter().for_each(|(at, answer)| answers[at] = answer);
        Ok(answers)
    }

    /// The keys that could not be deleted, and why.
    async fn send_deletes<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Result<Vec<(Key, StoreError)>> {
        let operation = Operation::DeleteObjects;
        let root = Key::root();
        let wrong = |error| StoreError::new(ErrorKind::Other, operation.name(), &root, format!("{error}"));
        let mut delete = Delete::builder().quiet(true);
        for key in keys {
            delete = delete.objects(ObjectIdentifier::builder().key(key.as_str()).build().map_err(wrong)?);
        }
        let _connection = self.connections_free(operation).await?;
        let request = self.client.delete_objects().bucket(self.bucket()).delete(delete.build().map_err(wrong)?);
        let output = request.send().await.map_err(|error| self.context.error(operation, &root, false, error))?;
        let failed = output.errors().iter().filter(|error| error.code() != Some("NoSuchKey"));
        Ok(failed
            .map(|error| {
                let key = Key::new(error.key().unwrap_or_default());
                let kind = super::errors::kind_of_code(error.code().unwrap_or_default(), error.message());
                let message = format!("{}: {}", error.code().unwrap_or("?"), error.message().unwrap_or_default());
                let error = StoreError::new(kind, operation.name(), &key, message);
                (key, error)
            })
            .collect())
    }

    pub(super) async fn presign(&self, key: &Key, expires: Duration) -> Result<String> {
        let operation = Operation::GetObject;
        let wrong = |error| StoreError::new(ErrorKind::Other, operation.name(), key, format!("{error}"));
        let (begin, life) = (self.context.skew.now(clock::now()), expires.clamp(PRESIGN.0, PRESIGN.1));
        let config = PresigningConfig::builder().start_time(begin).expires_in(life).build().map_err(wrong)?;
        let request = self.client.get_object().bucket(self.bucket()).key(key.as_str());
        let signed = request.presigned(config).await.map_err(|error| self.context.error(operation, key, false, error))?;
        Ok(signed.uri().to_owned())
    }
}

/// Cloudflare decompresses what is stored with gzip for whoever doesn't say that it takes that, and such an answer has no
/// length. Who says so gets what is stored; said without need, other objects would be compressed, and have none.
fn take_gzip(request: &mut HttpRequest) {
    request.headers_mut().insert("accept-encoding", "gzip");
}

/// Beyond the object's end is allowed; beyond a signed number, in which many servers count, is not.
fn range(span: &Span) -> String {
    const LAST: u64 = i64::MAX.unsigned_abs();
    format!("bytes={}-{}", span.start.min(LAST), (span.end - 1).min(LAST))
}

/// The object's size, and which of its bytes the answer carries.
fn extent(output: &GetObjectOutput, key: &Key) -> Result<(u64, Span)> {
    let unclear = || no(Operation::GetObject, key, "size");
    let length = output.content_length().and_then(|length| u64::try_from(length).ok()).ok_or_else(unclear)?;
    let Some(range) = output.content_range() else { return Ok((length, 0..length)) };
    let (start, end, size) = content_range(range).ok_or_else(unclear)?;
    if end.checked_sub(start) != Some(length) {
        let message = format!("Content-Range {range:?} does not fit Content-Length {length}");
        return Err(StoreError::new(ErrorKind::Corrupt, Operation::GetObject.name(), key, message));
    }
    Ok((size, start..end))
}

/// `bytes 2-5/9` as start, end (exclusive) and size.
fn content_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse::<u64>().ok()?.checked_add(1)?, size.parse().ok()?))
}

/// The body as it arrives, holding the connection until it ends or is dropped, and checked to be `left` bytes long.
fn body_stream(body: ByteStream, key: Key, left: u64, connection: OwnedSemaphorePermit) -> BoxStream<'static, Result<Bytes>> {
    let next = |(mut body, key, left, connection): (ByteStream, Key, u64, OwnedSemaphorePermit)| async move {
        let fail = |kind, message: String| Err(StoreError::new(kind, Operation::GetObject.name(), &key, message));
        match body.next().await {
            None if left == 0 => Ok(None),
            None => fail(ErrorKind::Truncated, format!("the body ended {left} bytes early")),
            Some(Err(error)) => fail(ErrorKind::Truncated, format!("the body broke {left} bytes early: {error}")),
            Some(Ok(bytes)) if bytes.len() as u64 > left => fail(ErrorKind::Corrupt, "the body is longer than announced".to_owned()),
            Some(Ok(bytes)) => {
                let left = left - bytes.len() as u64;
                Ok(Some((bytes, (body, key, left, connection))))
            }
        }
    };
    stream::try_unfold((body, key, left, connection), next).boxed()
}

pub(super) fn no(operation: Operation, key: &Key, what: &str) -> StoreError {
    StoreError::new(ErrorKind::NotS3, operation.name(), key, format!("the answer has no {what}"))
}

/// Compares the store's ETag with what was sent, where it is an MD5 at all.
pub(super) fn check_etag(operation: Operation, key: &Key, etag: &ETag, md5: &[u8; 16], opaque: bool) -> Result<()> {
    match plain_md5(etag) {
        Some(stored) if !opaque && stored != *md5 => {
            let message = format!("the store has other bytes than were sent (ETag {})", etag.text());
            Err(StoreError::new(ErrorKind::Corrupt, operation.name(), key, message))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        assert_eq!(content_range("bytes 2-5/9"), Some((2, 6, 9)));
        for wrong in ["bytes */9", "bytes 2-5/*", "2-5/9", "bytes 5/9"] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_a_plain_etag_can_contradict() {
        let (key, md5) = (Key::from("k"), crate::store::md5(b"abc"));
        let check = |etag: &str, opaque| check_etag(Operation::PutObject, &key, &ETag::new(etag), &md5, opaque);
        assert!(check("900150983cd24fb0d6963f7d28e17f72", false).is_ok());
        assert!(check("000150983cd24fb0d6963f7d28e17f72", false).unwrap_err().is(ErrorKind::Corrupt));
        assert!(check("000150983cd24fb0d6963f7d28e17f72", true).is_ok());
        assert!(check("opaque", false).is_ok());
    }
}
