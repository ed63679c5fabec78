//! Sets the SDK up: endpoint, region, credentials, TLS, timeouts. Makes no request to the bucket.
//!
//! The SDK does one attempt and no more; its retries share a budget that runs out, and miss R2's 429. Checksums are
//! sent only where S3 requires one, because R2 refuses the SDK's trailers; bodies are guarded by Content-MD5 instead.
//! The behaviour version is pinned, so that an update of the SDK changes nothing by itself.

use std::env;
use std::sync::Arc;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::identity::IdentityCache;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig, imds};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient};
use tokio::sync::Semaphore;

use super::bounds::Bounds;
use super::clock::{Answered, Skew};
use super::config::{S3Config, StaticCredentials};
use super::errors::Context;
use super::patience::Patience;
use super::{S3Store, tls};
use crate::store::{ErrorKind, Result, StoreError};
use crate::types::Live;

/// Where nothing names a region. S3-compatible servers take it, and AWS answers with the right one.
const DEFAULT_REGION: &str = "us-east-1";
/// A machine without the instance's metadata service must not wait for it.
const IMDS_TIMEOUT: Duration = Duration::from_millis(1200);
const IMDS_CONNECT_TIMEOUT: Duration = Duration::from_millis(700);
/// All sources of credentials together; below the five seconds in which a newcomer gets an answer.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_millis(2500);
/// Servers drop idle connections after 5 to 60 s; one dropped under a request costs an attempt.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Prepares a client for one bucket. Fails only where the configuration itself is wrong; whether the bucket answers is
/// for [`check_bucket`](crate::store::check_bucket) to say.
pub async fn connect(config: S3Config) -> Result<S3Store> {
    let credentials = known(&config).map(|(keys, _)| keys);
    let endpoint = endpoint_url(&config)?;
    // A plain endpoint and known keys need no TLS at all: no roots are read, and a machine without any still works.
    let plain = credentials.is_some() && endpoint.as_deref().is_some_and(|url| url.starts_with("http://"));
    let http = tls::http_client(config.ca_file.as_deref(), !plain, IDLE_TIMEOUT, config.max_connections)?;
    let shared = load(&config, http.clone(), endpoint, credentials).await;
    let endpoint = shared.endpoint_url().map(str::to_owned);
    let answered = Answered::default();
    let client = |bounds| {
        let s3 = aws_sdk_s3::config::Builder::from(&shared).force_path_style(endpoint.is_some());
        Client::from_conf(s3.interceptor(bounds).interceptor(answered.clone()).build())
    };
    let region = shared.region().map_or(DEFAULT_REGION, Region::as_ref).to_owned();
    let shown = endpoint.clone().unwrap_or_else(|| format!("AWS in {region}"));
    Ok(S3Store {
        client: Live::new(client(Bounds::EveryAnswer)),
        streaming: Live::new(client(Bounds::Errors)),
        context: Context { bucket: config.bucket.clone(), endpoint: shown, region, skew: Skew::default() },
        answered,
        r2: config.r2,
        connections: Arc::new(Semaphore::new(config.max_connections.max(1))),
        connect_timeout: config.connect_timeout,
        attempt_timeout: config.attempt_timeout,
        copy_timeout: config.copy_timeout,
        patience: Patience::new(config.attempt_timeout),
        counts: config.counts.clone(),
        config,
        http,
    })
}

impl S3Store {
    /// Reads the credentials again from where they came, for all requests from now on; what they came from. Err: there are
    /// none, and nothing has changed.
    pub async fn renew_credentials(&self) -> Result<String> {
        let origin = super::credentials_origin(&self.config).await?;
        let given = known(&self.config).map(|(keys, _)| keys);
        let provider = provider(&self.config, given, &self.http, &Region::new(self.context.region.clone())).await;
        let cache = IdentityCache::lazy().load_timeout(CREDENTIALS_TIMEOUT).build();
        for client in [&self.client, &self.streaming] {
            let config = client.config().to_builder().credentials_provider(provider.clone());
            client.replace(Client::from_conf(config.identity_cache(cache.clone()).build()));
        }
        Ok(origin.source)
    }
}

async fn load(config: &S3Config, http: SharedHttpClient, endpoint: Option<String>, credentials: Option<StaticCredentials>) -> SdkConfig {
    let region = region(config, &http, endpoint.is_some()).await;
    let timeouts =
        TimeoutConfig::builder().connect_timeout(config.connect_timeout).operation_attempt_timeout(config.attempt_timeout).build();
    let provider = provider(config, credentials, &http, &region).await;
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http)
        .region(region)
        .credentials_provider(provider)
        .identity_cache(IdentityCache::lazy().load_timeout(CREDENTIALS_TIMEOUT).build())
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        .stalled_stream_protection(StalledStreamProtectionConfig::enabled().grace_period(config.attempt_timeout).build())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Some(url) = endpoint {
        loader = loader.endpoint_url(url);
    }
    loader.load().await
}

/// Keys that need nobody to be asked, and where they are from.
fn known(config: &S3Config) -> Option<(StaticCredentials, &'static str)> {
    let chosen = config.credentials_file.is_some() || config.profile.is_some();
    let of_r2 = || r2_credentials().map(|keys| (keys, "the environment (R2_ACCESS_KEY_ID)"));
    let given = config.credentials.clone().map(|keys| (keys, "the program"));
    given.or_else(|| if config.r2 && !chosen { of_r2() } else { None })
}

async fn provider(
    config: &S3Config,
    credentials: Option<StaticCredentials>,
    http: &SharedHttpClient,
    region: &Region,
) -> SharedCredentialsProvider {
    match credentials {
        Some(StaticCredentials { access_key_id, secret_access_key, session_token }) => {
            SharedCredentialsProvider::new(Credentials::new(access_key_id, secret_access_key, session_token, None, "mediafs"))
        }
        None if config.credentials_file.is_some() || config.profile.is_some() => chosen_profile(config, http, region),
        None => aws_chain(http, region).await,
    }
}

/// The provider that [`connect`] would use, and what it is called where that is known beforehand.
pub(super) async fn credentials_provider(config: &S3Config) -> Result<(SharedCredentialsProvider, Option<String>)> {
    let known = known(config);
    let file = config.credentials_file.as_ref().map(|path| format!("{}, profile {:?}", path.display(), profile_name(config)));
    let source = known.as_ref().map(|(_, source)| (*source).to_owned()).or(file);
    let credentials = known.map(|(keys, _)| keys);
    let http = tls::http_client(config.ca_file.as_deref(), credentials.is_none(), IDLE_TIMEOUT, config.max_connections)?;
    let region = region(config, &http, endpoint_url(config)?.is_some()).await;
    Ok((provider(config, credentials, &http, &region).await, source))
}

/// For messages.
pub(super) fn endpoint_of(config: &S3Config) -> String {
    endpoint_url(config).ok().flatten().unwrap_or_else(|| "AWS".to_owned())
}

/// The endpoint that is asked for by option, environment or R2 account, checked; None leaves it to profile and SDK.
fn endpoint_url(config: &S3Config) -> Result<Option<String>> {
    let wrong = |message: String| Err(StoreError::new(ErrorKind::Other, "configuration", "", message));
    let account = || variable("R2_ACCOUNT_ID").filter(|_| config.r2).map(|id| format!("https://{id}.r2.cloudflarestorage.com"));
    let environment = || variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"));
    let url = config.endpoint_url.clone().or_else(account).or_else(environment);
    match url {
        Some(url) if !url.starts_with("http://") && !url.starts_with("https://") => {
            wrong(format!("the endpoint {url:?} must begin with http:// or https://"))
        }
        None if config.r2 => wrong("no R2 account: set R2_ACCOUNT_ID, or give --endpoint-url".to_owned()),
        url => Ok(url.map(|url| url.trim_end_matches('/').to_owned())),
    }
}

fn r2_credentials() -> Option<StaticCredentials> {
    Some(StaticCredentials::new(variable("R2_ACCESS_KEY_ID")?, variable("R2_SECRET_ACCESS_KEY")?))
}

/// An environment variable that says something.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

async fn region(config: &S3Config, http: &SharedHttpClient, has_endpoint: bool) -> Region {
    if let Some(region) = &config.region {
        return Region::new(region.clone());
    }
    if config.r2 {
        return Region::from_static("auto");
    }
    let provider = ProviderConfig::without_region().with_http_client(http.clone());
    let mut profile = ProfileFileRegionProvider::builder().configure(&provider);
    if let Some(name) = &config.profile {
        profile = profile.profile_name(name);
    }
    let profile = profile.build();
    let mut chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new()).or_else(profile);
    if !has_endpoint {
        let instance = imds::region::ImdsRegionProvider::builder().configure(&provider).imds_client(imds_client(&provider)).build();
        chain = chain.or_else(instance);
    }
    chain.region().await.unwrap_or(Region::from_static(DEFAULT_REGION))
}

fn profile_name(config: &S3Config) -> &str {
    config.profile.as_deref().unwrap_or("default")
}

/// The one file, or the one profile of AWS' own files: what was named is not replaced by what happens to be in the environment.
fn chosen_profile(config: &S3Config, http: &SharedHttpClient, region: &Region) -> SharedCredentialsProvider {
    let files = match &config.credentials_file {
        Some(path) => EnvConfigFiles::builder().with_file(EnvConfigFileKind::Credentials, path).build(),
        None => EnvConfigFiles::default(),
    };
    let around = ProviderConfig::without_region().with_http_client(http.clone()).with_region(Some(region.clone()));
    let builder = ProfileFileCredentialsProvider::builder().configure(&around).profile_files(files);
    SharedCredentialsProvider::new(builder.profile_name(profile_name(config)).build())
}

/// Environment, profile, web identity, container, instance.
async fn aws_chain(http: &SharedHttpClient, region: &Region) -> SharedCredentialsProvider {
    let provider = ProviderConfig::without_region().with_http_client(http.clone());
    let mut chain = aws_config::default_provider::credentials::Builder::default().imds_client(imds_client(&provider)).configure(provider);
    chain.set_region(Some(region.clone()));
    SharedCredentialsProvider::new(chain.build().await)
}

fn imds_client(provider: &ProviderConfig) -> imds::Client {
    imds::Client::builder()
        .configure(provider)
        .connect_timeout(IMDS_CONNECT_TIMEOUT)
        .operation_timeout(IMDS_TIMEOUT)
        .max_attempts(2)
        .build()
}
