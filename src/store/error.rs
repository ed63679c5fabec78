//! Store errors by what a caller can do about them.

use std::fmt;
use std::time::Duration;

/// Why an operation failed, as far as a caller acts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    NotFound,
    NoSuchBucket,
    NoSuchUpload,
    /// A condition did not hold: the name is taken, or the version is gone.
    PreconditionFailed,
    InvalidRange,
    /// Slow down: 429, 503 SlowDown, and 403 in bursts on R2.
    Throttled,
    /// 5xx, or a conflict of two requests that may be repeated.
    Unavailable,
    /// No connection: name not found, refused, reset, TLS.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// The body ended early or broke.
    Truncated,
    /// Checksum or size differ from what was sent or announced.
    Corrupt,
    /// The credentials are valid, the right is missing.
    Denied,
    /// No credentials, an unknown key, a wrong secret or an expired token.
    Credentials,
    WrongRegion,
    ClockSkew,
    TooLarge,
    InvalidName,
    /// The store does not have this operation or header.
    Unsupported,
    /// In cold storage; it has to be restored first.
    Archived,
    /// The answer is not S3.
    NotS3,
    Other,
}

impl ErrorKind {
    /// True where the same request may succeed later without anybody changing anything.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Throttled | Self::Unavailable | Self::Unreachable | Self::Timeout | Self::Truncated | Self::Corrupt)
    }
}

/// A failed operation. The text names the operation, the key, and what the store answered; never a secret.
#[derive(Clone, Debug)]
pub struct StoreError {
    pub kind: ErrorKind,
    /// The S3 operation's name, e.g. `PutObject`.
    pub operation: &'static str,
    /// Escaped for display; empty where the operation has no key.
    pub key: String,
    /// The store's code and message, or the transport's error.
    pub message: String,
    /// The work may have been done although no answer came.
    pub outcome_unknown: bool,
    /// The store asked to wait so long.
    pub retry_after: Option<Duration>,
}

impl StoreError {
    pub fn new(kind: ErrorKind, operation: &'static str, key: impl fmt::Display, message: impl Into<String>) -> Self {
        Self { kind, operation, key: key.to_string(), message: message.into(), outcome_unknown: false, retry_after: None }
    }

    /// Marks the work as possibly done although no answer came.
    pub fn with_unknown_outcome(mut self) -> Self {
        self.outcome_unknown = true;
        self
    }

    pub fn is(&self, kind: ErrorKind) -> bool {
        self.kind == kind
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.operation)?;
        if !self.key.is_empty() {
            write!(f, " {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for StoreError {}
