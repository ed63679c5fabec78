//! One unsigned request to any URL, with the TLS set-up that a mount has: for `doctor`, which asks what answers there.
//!
//! Whatever answers in HTTP is a success here, whatever its status; an error is a failure below HTTP. It is made of the
//! SDK's own client, so that what is trusted, and how failures are told, is the same as for a mount's requests.

use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::{BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextMut};
use aws_sdk_s3::config::{ConfigBag, Intercept, RequestChecksumCalculation, ResponseChecksumValidation, RuntimeComponents};
use aws_sdk_s3::error::SdkError;
use bytes::Bytes;
use parking_lot::Mutex;

use super::config::S3Config;
use super::{clock, tls, transport};
use crate::store::{Operation, Result, StoreError};

/// More of a page than this is of no interest.
const LONGEST_BODY: usize = 64 << 10;
const IDLE: Duration = Duration::from_secs(1);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BareAnswer {
    pub status: u16,
    /// Seconds that its clock is ahead of ours, where it tells the time.
    pub ahead_seconds: Option<i64>,
    pub server: Option<String>,
    pub content_type: Option<String>,
    /// Where the bucket is, as AWS tells everybody.
    pub region: Option<String>,
    /// Where it sends us instead.
    pub location: Option<String>,
    /// Whose pages may read it, as the answer says to the origin that was named.
    pub allowed_origin: Option<String>,
    /// Of a successful GET, as far as it is looked at.
    pub body: Bytes,
}

/// Asks `url`, by HEAD if `head`, else by GET, as a page of `origin` where one is named. Of `config` the certificates and the
/// timeouts count.
pub async fn fetch(config: &S3Config, url: &str, head: bool, origin: Option<&str>) -> Result<BareAnswer> {
    let bent = Bent { url: url.to_owned(), head, origin: origin.map(str::to_owned), seen: Arc::default() };
    // What follows may be a signature: nobody is told of it.
    let place = url.split('?').next().unwrap_or_default();
    let native_roots = url.starts_with("https://");
    let http = tls::http_client(config.ca_file.as_deref(), native_roots, IDLE, 1)?;
    let timeouts = TimeoutConfig::builder().connect_timeout(config.connect_timeout).operation_attempt_timeout(config.attempt_timeout);
    let sdk = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .region(Region::from_static("auto"))
        .endpoint_url(place)
        .force_path_style(true)
        .allow_no_auth()
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts.build())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .interceptor(bent.clone())
        .build();
    let sent = Client::from_conf(sdk).get_object().bucket("bucket").key("key").send().await;
    let seen = bent.seen.lock().take();
    match (seen, sent) {
        (Some(answer), Ok(output)) if !head => {
            let body = output.body.collect().await.map(|body| body.into_bytes()).unwrap_or_default();
            Ok(BareAnswer { body: body.slice(..body.len().min(LONGEST_BODY)), ..answer })
        }
        (Some(answer), _) => Ok(answer),
        (None, Err(error)) => {
            let timed_out = matches!(&error, SdkError::TimeoutError(_));
            let failure = transport::classify(&error, timed_out, place);
            Err(StoreError::new(failure.kind, Operation::GetObject.name(), "", failure.message))
        }
        (None, Ok(_)) => Ok(BareAnswer::default()),
    }
}

/// Turns the SDK's request into a plain one for `url`, and keeps the answer's head.
#[derive(Clone, Debug)]
struct Bent {
    url: String,
    head: bool,
    origin: Option<String>,
    seen: Arc<Mutex<Option<BareAnswer>>>,
}

impl Intercept for Bent {
    fn name(&self) -> &'static str {
        "bare request"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> std::result::Result<(), BoxError> {
        let request = context.request_mut();
        request.set_uri(self.url.as_str())?;
        if self.head {
            request.set_method("HEAD")?;
        }
        if let Some(origin) = &self.origin {
            request.headers_mut().try_insert("origin", origin.clone())?;
        }
        Ok(())
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> std::result::Result<(), BoxError> {
        let response = context.response();
        let header = |name| response.headers().get(name).map(transport::one_line);
        *self.seen.lock() = Some(BareAnswer {
            status: response.status().as_u16(),
            ahead_seconds: response.headers().get("date").and_then(|date| clock::ahead(date, crate::clock::now())),
            server: header("server"),
            content_type: header("content-type"),
            region: header("x-amz-bucket-region"),
            location: header("location"),
            allowed_origin: header("access-control-allow-origin"),
            body: Bytes::new(),
        });
        Ok(())
    }
}
