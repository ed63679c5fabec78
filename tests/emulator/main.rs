//! The emulator, asked over HTTP by the AWS SDK with its retries off: what it answers to one request is what is tested.

mod conditions;
mod copies;
mod faults;
mod listing;
mod multipart;
mod objects;
mod persistence;
mod r2;

use std::fmt::Debug;

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use mediafs::emulator::{Emulator, EmulatorConfig};

pub const BUCKET: &str = "media";

pub fn config() -> EmulatorConfig {
    EmulatorConfig { buckets: vec![BUCKET.to_owned()], ..EmulatorConfig::default() }
}

pub async fn start() -> (Emulator, Client) {
    start_with(config()).await
}

pub async fn start_r2() -> (Emulator, Client) {
    start_with(EmulatorConfig { r2: true, ..config() }).await
}

pub async fn start_with(config: EmulatorConfig) -> (Emulator, Client) {
    let emulator = Emulator::start(config.clone()).await.unwrap();
    let client = client(&emulator.endpoint(), &config.access_key, &config.secret_key, "auto");
    (emulator, client)
}

pub fn client(endpoint: &str, access_key: &str, secret_key: &str, region: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .credentials_provider(Credentials::new(access_key, secret_key, None, None, "test"))
        .region(Region::new(region.to_owned()))
        .endpoint_url(endpoint)
        .force_path_style(true)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    Client::from_conf(config)
}

/// Puts a small object and returns its ETag, in quotes.
pub async fn put(client: &Client, key: &str, body: &'static str) -> String {
    let put = client.put_object().bucket(BUCKET).key(key).body(body.as_bytes().to_vec().into()).send().await.unwrap();
    put.e_tag.unwrap()
}

/// The status and the S3 code of a refusal.
pub fn refusal<T: Debug, E: ProvideErrorMetadata + Debug>(result: Result<T, SdkError<E, HttpResponse>>) -> (u16, String) {
    match result {
        Err(SdkError::ServiceError(error)) => (error.raw().status().as_u16(), error.err().code().unwrap_or_default().to_owned()),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

pub fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}
