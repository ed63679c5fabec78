//! A bucket on AWS S3, Cloudflare R2, MinIO or anything that speaks S3. The only module that names the AWS SDK.
//!
//! Each call is one attempt under a timeout; retrying is for the layer above. What the SDK leaves to its users is done
//! here: copy sources are encoded, listings decoded, metadata made ASCII, returned ETags compared with what was sent,
//! and errors sorted by what a caller can do about them. Where a version was asked for and there is no object at all,
//! the answer is PreconditionFailed, whatever the store's own code.
//!
//! Bodies go unsigned with a Content-MD5, which every store checks: a SHA-256 for the signature would cost a second
//! pass over each upload, and TLS protects the way.

mod bare;
mod bounds;
mod client;
mod clock;
mod config;
mod ending;
mod errors;
mod headers;
mod listing;
mod names;
mod objects;
mod origin;
mod patience;
#[cfg(test)]
mod tests;
mod tls;
mod transport;
mod uploads;

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{Builder, SharedHttpClient, StalledStreamProtectionConfig};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::bare::{BareAnswer, fetch};
pub use self::client::connect;
use self::clock::Answered;
pub use self::config::{S3Config, StaticCredentials};
use self::errors::Context;
pub use self::origin::{CredentialsOrigin, credentials_origin};
use self::patience::Patience;
use super::trace::RequestCounts;
use super::{
    Body, Condition, ErrorKind, ListPage, ListRequest, ObjectBody, ObjectStore, Operation, Part, PendingUpload, Receipt, Result,
    StoreError, UploadId,
};
use crate::types::{ETag, Key, Live, ObjectHeaders, ObjectInfo, Span, Version};

/// The slowest server-side copy that is waited for.
const SLOWEST_COPY_BYTES_PER_SECOND: u64 = 4 << 20;

pub struct S3Store {
    client: Live<Client>,
    /// The same for GETs of objects.
    streaming: Live<Client>,
    /// For credentials that are read again.
    config: S3Config,
    http: SharedHttpClient,
    context: Context,
    answered: Answered,
    r2: bool,
    connections: Arc<Semaphore>,
    connect_timeout: Duration,
    attempt_timeout: Duration,
    copy_timeout: Duration,
    patience: Patience,
    counts: RequestCounts,
}

impl S3Store {
    /// Where requests go, for people: a URL, or AWS and its region.
    pub fn endpoint(&self) -> &str {
        &self.context.endpoint
    }

    pub fn region(&self) -> &str {
        &self.context.region
    }

    fn bucket(&self) -> &str {
        &self.context.bucket
    }

    /// Waits for a free connection. Refuses the empty key, which would be a request on the bucket itself.
    async fn connection(&self, operation: Operation, key: &Key) -> Result<OwnedSemaphorePermit> {
        if key.is_root() {
            return Err(StoreError::new(ErrorKind::InvalidName, operation.name(), key, "the empty key names no object"));
        }
        self.connections_free(operation).await
    }

    async fn connections_free(&self, operation: Operation) -> Result<OwnedSemaphorePermit> {
        let closed = |_| StoreError::new(ErrorKind::Other, operation.name(), "", "the store is shut");
        Arc::clone(&self.connections).acquire_owned().await.map_err(closed)
    }

    /// An upload's attempt has all the time that its bytes need; one that stalls is cut by [`Patience`].
    fn for_upload(&self) -> Builder {
        let timeouts = TimeoutConfig::builder().connect_timeout(self.connect_timeout).disable_operation_attempt_timeout().build();
        Builder::new().timeout_config(timeouts).stalled_stream_protection(StalledStreamProtectionConfig::disabled())
    }

    /// Sends `bytes` by the request that `send` makes of them.
    async fn upload<O, E, F>(
        &self,
        operation: Operation,
        key: &Key,
        on_version: bool,
        bytes: Bytes,
        send: impl FnOnce(ByteStream) -> F,
    ) -> Result<O>
    where
        F: Future<Output = std::result::Result<O, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        match self.patience.upload(bytes, send).await {
            Some(sent) => {
                if !matches!(sent, Err(SdkError::DispatchFailure(_) | SdkError::TimeoutError(_))) {
                    self.patience.answered();
                }
                sent.map_err(|error| self.context.error(operation, key, on_version, error))
            }
            None => {
                let message = format!("the upload to {} stalled", self.context.endpoint);
                Err(StoreError::new(ErrorKind::Timeout, operation.name(), key, message).with_unknown_outcome())
            }
        }
    }

    /// The store is silent while it copies: the guard against stalled streams would cut it, so only a deadline holds.
    fn for_copy(&self, size: u64) -> Builder {
        let enough = self.attempt_timeout + Duration::from_secs(size / SLOWEST_COPY_BYTES_PER_SECOND);
        Builder::new()
            .timeout_config(self.timeouts(enough.min(self.copy_timeout)))
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
    }

    fn timeouts(&self, attempt: Duration) -> TimeoutConfig {
        TimeoutConfig::builder().connect_timeout(self.connect_timeout).operation_attempt_timeout(attempt).build()
    }
}

#[async_trait]
impl ObjectStore for S3Store {
    fn now(&self) -> SystemTime {
        self.answered.now(crate::clock::now())
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo> {
        self.head_object(key).await
    }

    async fn get(&self, key: &Key, span: Option<Span>, if_match: Option<&ETag>) -> Result<ObjectBody> {
        self.get_object(key, span, if_match).await
    }

    async fn put(&self, key: &Key, body: Body, headers: &ObjectHeaders, condition: &Condition) -> Result<Receipt> {
        self.put_object(key, body, headers, condition).await
    }

    async fn copy(&self, from: &Version, to: &Key, headers: Option<&ObjectHeaders>) -> Result<Receipt> {
        self.copy_object(from, to, headers).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.delete_object(key).await
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<Vec<Result<()>>> {
        self.delete_objects(keys).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.list_page(request).await
    }

    async fn create_upload(&self, key: &Key, headers: &ObjectHeaders) -> Result<UploadId> {
        self.create(key, headers).await
    }

    async fn upload_part(&self, key: &Key, upload: &UploadId, number: u32, body: Body) -> Result<Part> {
        self.send_part(key, upload, number, body).await
    }

    async fn copy_part(&self, key: &Key, upload: &UploadId, number: u32, from: &Key, if_match: Option<&ETag>, span: Span) -> Result<Part> {
        self.send_part_copy(key, upload, number, from, if_match, span).await
    }

    async fn complete_upload(&self, key: &Key, upload: &UploadId, parts: &[Part], condition: &Condition) -> Result<Receipt> {
        self.complete(key, upload, parts, condition).await
    }

    async fn abort_upload(&self, key: &Key, upload: &UploadId) -> Result<()> {
        self.abort(key, upload).await
    }

    async fn list_uploads(&self) -> Result<Vec<PendingUpload>> {
        self.pending_uploads().await
    }

    async fn presign_get(&self, key: &Key, expires: Duration) -> Result<String> {
        self.presign(key, expires).await
    }
}
