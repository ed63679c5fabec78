//! Multipart uploads. One attempt for each request.

use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, EncodingType};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::headers::{has_opaque_etag, last_modified, with_headers};
use super::objects::{check_etag, no};
use super::{S3Store, names};
use crate::store::pages::Circle;
use crate::store::{Body, Condition, ErrorKind, Operation, Part, PendingUpload, Receipt, Result, StoreError, UploadId, multipart_count};
use crate::types::{ETag, Key, ObjectHeaders, Span};

impl S3Store {
    pub(super) async fn create(&self, key: &Key, headers: &ObjectHeaders) -> Result<UploadId> {
        let operation = Operation::CreateMultipartUpload;
        let _connection = self.connection(operation, key).await?;
        let request = self.client.create_multipart_upload().bucket(self.bucket()).key(key.as_str());
        let output = with_headers!(request, headers).send().await;
        let output = output.map_err(|error| self.context.error(operation, key, false, error))?;
        output.upload_id().map(|id| UploadId(id.to_owned())).ok_or_else(|| no(operation, key, "upload id"))
    }

    pub(super) async fn send_part(&self, key: &Key, upload: &UploadId, number: u32, body: Body) -> Result<Part> {
        let operation = Operation::UploadPart;
        let _connection = self.connection(operation, key).await?;
        let size = body.bytes.len() as u64;
        let request = self.client.upload_part().bucket(self.bucket()).key(key.as_str()).upload_id(&upload.0);
        let request = request.part_number(number.cast_signed()).content_md5(BASE64.encode(body.md5));
        let send = |bytes| request.body(bytes).customize().config_override(self.for_upload()).disable_payload_signing().send();
        let output = self.upload(operation, key, false, body.bytes, send).await?;
        let etag = output.e_tag().map(ETag::new).ok_or_else(|| no(operation, key, "ETag"))?;
        check_etag(operation, key, &etag, &body.md5, has_opaque_etag!(output))?;
        Ok(Part { number, etag, size })
    }

    /// R2 knows no condition on the source of a part: there, the version is looked at when the bytes have been copied.
    pub(super) async fn send_part_copy(
        &self,
        key: &Key,
        upload: &UploadId,
        number: u32,
        from: &Key,
        if_match: Option<&ETag>,
        span: Span,
    ) -> Result<Part> {
        let operation = Operation::UploadPartCopy;
        if span.is_empty() {
            return Err(StoreError::new(ErrorKind::InvalidRange, operation.name(), key, "an empty range"));
        }
        let part = {
            let _connection = self.connection(operation, key).await?;
            let request = self.client.upload_part_copy().bucket(self.bucket()).key(key.as_str()).upload_id(&upload.0);
            let request = request.part_number(number.cast_signed()).copy_source(names::copy_source(self.bucket(), from));
            let request = request.copy_source_range(format!("bytes={}-{}", span.start, span.end - 1));
            let request = request.set_copy_source_if_match(if_match.filter(|_| !self.r2).map(ETag::quoted));
            let sent = request.customize().config_override(self.for_copy(span.end - span.start)).send().await;
            let output = sent.map_err(|error| self.context.error(operation, key, if_match.is_some(), error))?;
            let etag = output.copy_part_result().and_then(|result| result.e_tag());
            Part { number, etag: etag.map(ETag::new).ok_or_else(|| no(operation, key, "ETag"))?, size: span.end - span.start }
        };
        match if_match.filter(|_| self.r2) {
            Some(version) if self.extra_head(from).await?.etag != *version => {
                Err(StoreError::new(ErrorKind::PreconditionFailed, operation.name(), from, "the source changed while it was copied"))
            }
            _ => Ok(part),
        }
    }

    pub(super) async fn complete(&self, key: &Key, upload: &UploadId, parts: &[Part], condition: &Condition) -> Result<Receipt> {
        let operation = Operation::CompleteMultipartUpload;
        let _connection = self.connection(operation, key).await?;
        let part = |part: &Part| CompletedPart::builder().part_number(part.number.cast_signed()).e_tag(part.etag.quoted()).build();
        let upload_parts = CompletedMultipartUpload::builder().set_parts(Some(parts.iter().map(part).collect())).build();
        let request = self.client.complete_multipart_upload().bucket(self.bucket()).key(key.as_str());
        let request = request.upload_id(&upload.0).multipart_upload(upload_parts);
        let request = match condition {
            Condition::Any => request,
            Condition::IfAbsent => request.if_none_match("*"),
            Condition::IfMatch(etag) => request.if_match(etag.quoted()),
        };
        let on_version = matches!(condition, Condition::IfMatch(_));
        let size = parts.iter().map(|part| part.size).sum();
        let sent = request.customize().config_override(self.for_copy(size)).send().await;
        let output = sent.map_err(|error| self.context.error(operation, key, on_version, error))?;
        let etag = output.e_tag().map(ETag::new).ok_or_else(|| no(operation, key, "ETag").with_unknown_outcome())?;
        match multipart_count(&etag) {
            Some(count) if count != parts.len() => {
                let message = format!("the store put {count} parts together, {} were named", parts.len());
                Err(StoreError::new(ErrorKind::Corrupt, operation.name(), key, message))
            }
            _ => Ok(Receipt::new(etag, size)),
        }
    }

    pub(super) async fn abort(&self, key: &Key, upload: &UploadId) -> Result<()> {
        let operation = Operation::AbortMultipartUpload;
        let _connection = self.connection(operation, key).await?;
        let request = self.client.abort_multipart_upload().bucket(self.bucket()).key(key.as_str()).upload_id(&upload.0);
        match request.send().await.map_err(|error| self.context.error(operation, key, false, error)) {
            Err(error) if !error.is(ErrorKind::NoSuchUpload) && !error.is(ErrorKind::NotFound) => Err(error),
            _ => Ok(()),
        }
    }

    /// Page by page through the whole bucket, without a prefix: MinIO finds nothing for one that is a directory.
    pub(super) async fn pending_uploads(&self) -> Result<Vec<PendingUpload>> {
        let operation = Operation::ListMultipartUploads;
        let root = Key::root();
        let mut all = Vec::new();
        let mut marker: Option<(String, String)> = None;
        let mut circle = Circle::default();
        for page in 0.. {
            if page > 0 {
                self.counts.count(operation);
            }
            let _connection = self.connections_free(operation).await?;
            let request = self.client.list_multipart_uploads().bucket(self.bucket()).encoding_type(EncodingType::Url);
            let (key_marker, upload_marker) = marker.take().unzip();
            let request = request.set_key_marker(key_marker).set_upload_id_marker(upload_marker);
            let output = request.send().await.map_err(|error| self.context.error(operation, &root, false, error))?;
            let encoded = output.encoding_type() == Some(&EncodingType::Url);
            let decode = |text: &str| if encoded { names::form_decode(text) } else { Some(text.to_owned()) };
            for upload in output.uploads() {
                if let (Some(key), Some(id)) = (upload.key().and_then(decode), upload.upload_id()) {
                    let initiated = last_modified(upload.initiated());
                    all.push(PendingUpload { key: Key::new(key), id: UploadId(id.to_owned()), initiated });
                }
            }
            let next = output.next_key_marker().and_then(decode).zip(output.next_upload_id_marker().map(str::to_owned));
            match next.filter(|_| output.is_truncated() == Some(true)) {
                Some((key, id)) if circle.closes_at(&format!("{key}\0{id}")) || circle.is_too_long() => {
                    let message = "the store's list of uploads does not end";
                    return Err(StoreError::new(ErrorKind::NotS3, operation.name(), &root, message));
                }
                Some(next) => marker = Some(next),
                None => break,
            }
        }
        Ok(all)
    }
}
