//! What can go wrong above the store, by what a caller can do about it. `fuse/` turns each into one errno.

use std::io;

use thiserror::Error;

use crate::store::{ErrorKind, StoreError};
use crate::types::Span;

pub type Result<T> = std::result::Result<T, Error>;

/// A failed file system operation.
#[derive(Debug, Error)]
pub enum Error {
    #[error("no such file or directory")]
    NotFound,
    #[error("file exists")]
    Exists,
    #[error("not a directory")]
    NotDirectory,
    #[error("is a directory")]
    IsDirectory,
    #[error("directory not empty")]
    NotEmpty,
    #[error("name longer than 255 bytes, or key longer than 1,024")]
    NameTooLong,
    #[error("the name is not UTF-8, so it can't be a key")]
    NotUtf8,
    #[error("invalid argument")]
    Invalid,
    #[error("operation not permitted")]
    NotPermitted,
    #[error("permission denied")]
    Denied,
    #[error("the version that was opened is gone from the bucket")]
    Stale,
    #[error("file too large")]
    TooLarge,
    #[error("no space left in the cache directory")]
    NoSpace,
    #[error("read-only mount")]
    ReadOnly,
    #[error("not supported")]
    Unsupported,
    #[error("no such attribute")]
    NoAttribute,
    #[error("its extended attributes are more than the store keeps with an object (S3: 2 KiB, R2: 8 KiB, all together)")]
    TooManyAttributes,
    #[error("bad file handle")]
    BadHandle,
    #[error("no data or hole past that offset")]
    NoSuchOffset,
    #[error("the bucket did not answer within the deadline")]
    Timeout,
    #[error("too many symbolic links")]
    Loop,
    #[error("the cache or the journal is damaged: {0}")]
    Corrupt(String),
    /// Bytes that the bucket doesn't have are not what they were.
    #[error(
        "its data on the cache disk is damaged at bytes {}-{}: write the file anew, or remove it to have what the bucket has",
        .0.start,
        .0.end
    )]
    Damaged(Span),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("cache directory: {0}")]
    Disk(#[source] io::Error),
    #[error("journal: {0}")]
    Journal(String),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::NoSpace,
            Some(libc::EFBIG) => Self::TooLarge,
            _ => Self::Disk(error),
        }
    }
}

impl Error {
    /// True where the store said so, in whatever layer it was asked.
    pub fn is_store(&self, kind: ErrorKind) -> bool {
        matches!(self, Self::Store(error) if error.kind == kind)
    }
}
