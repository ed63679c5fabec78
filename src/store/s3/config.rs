//! What is needed to reach a bucket.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::store::trace::RequestCounts;

/// The SDK's own value; a host that takes longer is as good as down.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3100);
/// From the request to the head of its answer, without the time that its bytes need.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);
/// A server-side copy of 5 GiB is silent for minutes.
const COPY_TIMEOUT: Duration = Duration::from_secs(300);
/// As many as the layers above have under way at the most; far below what a process may open.
const MAX_CONNECTIONS: usize = 128;

#[derive(Clone, Debug)]
pub struct S3Config {
    pub bucket: String,
    /// None: `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, the profile's, or AWS; for R2 from `R2_ACCOUNT_ID`.
    pub endpoint_url: Option<String>,
    /// None: from environment, profile or instance, else `us-east-1`.
    pub region: Option<String>,
    /// R2's rules: region `auto`, no header that R2 doesn't know.
    pub r2: bool,
    /// PEM certificates that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// A file as ~/.aws/credentials: no other source is asked then.
    pub credentials_file: Option<PathBuf>,
    /// The profile of that file, or of AWS' own files. None: `default`.
    pub profile: Option<String>,
    /// None: those two, else the AWS chain, for R2 `R2_ACCESS_KEY_ID` and `R2_SECRET_ACCESS_KEY` before it.
    pub credentials: Option<StaticCredentials>,
    /// Requests under way at once, bodies being read included.
    pub max_connections: usize,
    pub connect_timeout: Duration,
    /// For one attempt up to the head of its answer, and the longest time without progress in a body, up or down.
    pub attempt_timeout: Duration,
    /// The most for one attempt of a server-side copy or of completing an upload; small ones get less.
    pub copy_timeout: Duration,
    /// Counts the requests that one call makes beyond its first: further pages, the size of a copy.
    /// Shared with the [`TraceStore`](crate::store::trace::TraceStore) around it, every request is counted once.
    pub counts: RequestCounts,
}

impl S3Config {
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            endpoint_url: None,
            region: None,
            r2: false,
            ca_file: None,
            credentials_file: None,
            profile: None,
            credentials: None,
            max_connections: MAX_CONNECTIONS,
            connect_timeout: CONNECT_TIMEOUT,
            attempt_timeout: ATTEMPT_TIMEOUT,
            copy_timeout: COPY_TIMEOUT,
            counts: RequestCounts::new(),
        }
    }
}

/// A key pair that is known beforehand. Never shown.
#[derive(Clone)]
pub struct StaticCredentials {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: Option<String>,
}

impl StaticCredentials {
    pub fn new(access_key_id: impl Into<String>, secret_access_key: impl Into<String>) -> Self {
        Self { access_key_id: access_key_id.into(), secret_access_key: secret_access_key.into(), session_token: None }
    }
}

impl fmt::Debug for StaticCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StaticCredentials(…)")
    }
}
