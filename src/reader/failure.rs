//! Why a GET brought nothing: cloneable, since several readers may wait for one.

use std::io;

use crate::error::Error;
use crate::store::{ErrorKind, StoreError};
use crate::types::Span;

/// What the system says of a disk that fails.
const EIO: i32 = 5;

#[derive(Clone, Debug)]
pub enum Failure {
    /// The version is gone from the bucket.
    Stale,
    /// The file got another base meanwhile: ask again under that.
    Rebased,
    /// The cache has no room for the bytes.
    Full,
    /// Nothing came for the whole deadline.
    Timeout,
    Store(StoreError),
    /// What has been kept of the file is damaged, and the bucket doesn't have it.
    Damaged(Span),
    /// The data file could not be written: the system's error number, or the text of another error.
    Disk(Option<i32>, String),
    /// The task ended without a result: the daemon is stopping.
    Ended,
}

impl Failure {
    pub fn of_disk(error: Error) -> Self {
        match error {
            Error::NoSpace => Self::Full,
            // A disk that can't take the bytes is no reason not to have them.
            Error::Disk(error) if error.raw_os_error() == Some(EIO) => Self::Full,
            Error::Disk(error) => Self::Disk(error.raw_os_error(), error.to_string()),
            Error::Damaged(span) => Self::Damaged(span),
            other => Self::Disk(None, other.to_string()),
        }
    }

    /// The bucket let all the time pass that the request had.
    pub fn is_no_answer(&self) -> bool {
        match self {
            Self::Timeout => true,
            Self::Store(error) => error.kind == ErrorKind::Timeout,
            _ => false,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Stale | Failure::Rebased => Self::Stale,
            Failure::Full => Self::NoSpace,
            Failure::Timeout => Self::Timeout,
            Failure::Store(error) => Self::Store(error),
            Failure::Damaged(span) => Self::Damaged(span),
            Failure::Disk(Some(number), _) => Self::Disk(io::Error::from_raw_os_error(number)),
            Failure::Disk(None, text) => Self::Disk(io::Error::other(text)),
            Failure::Ended => Self::Disk(io::Error::other("the fetch was ended")),
        }
    }
}
