//! The one place where a failed operation becomes an errno, and where it is logged.
//!
//! Programs steer by these numbers: Django takes `EEXIST` for "choose another name", and anything that isn't `ENOENT` for
//! "there is something". So a failure to ask the bucket is never `ENOENT` nor `EEXIST`; it is `EIO`, or `EACCES` where the
//! bucket refused. Both matches are exhaustive: a new kind of error does not compile until somebody decided its number.

use fuser::Errno;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::quiet::Quiet;
use crate::error::Error;
use crate::store::ErrorKind;

/// One for the process, which has one log.
static QUIET: Quiet = Quiet::new();

/// What was asked, for the log.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub operation: &'static str,
    pub ino: u64,
    /// The name in the directory `ino`, where the operation has one.
    pub name: Option<std::ffi::OsString>,
}

impl Asked {
    pub fn of(operation: &'static str, ino: u64) -> Self {
        Self { operation, ino, name: None }
    }

    pub fn named(operation: &'static str, ino: u64, name: &std::ffi::OsStr) -> Self {
        Self { operation, ino, name: Some(name.to_owned()) }
    }

    /// What is logged while it is answered, requests to the bucket above all, is told with it at level debug.
    pub fn span(&self) -> tracing::Span {
        tracing::debug_span!("call", operation = self.operation, ino = self.ino, name = self.name())
    }

    /// Names come from other programs: Debug escapes what a terminal would obey.
    fn name(&self) -> String {
        self.name.as_ref().map_or_else(String::new, |name| format!("{name:?}"))
    }
}

pub(super) fn of(error: &Error) -> Errno {
    match error {
        Error::NotFound => Errno::ENOENT,
        Error::Exists => Errno::EEXIST,
        Error::NotDirectory => Errno::ENOTDIR,
        Error::IsDirectory => Errno::EISDIR,
        Error::NotEmpty => Errno::ENOTEMPTY,
        Error::NameTooLong => Errno::ENAMETOOLONG,
        Error::NotUtf8 => Errno::EILSEQ,
        Error::Invalid => Errno::EINVAL,
        Error::NotPermitted => Errno::EPERM,
        Error::Denied => Errno::EACCES,
        Error::Stale => Errno::ESTALE,
        Error::TooLarge => Errno::EFBIG,
        Error::NoSpace | Error::TooManyAttributes => Errno::ENOSPC,
        Error::ReadOnly => Errno::EROFS,
        Error::Unsupported => Errno::EOPNOTSUPP,
        Error::NoAttribute => Errno::ENODATA,
        Error::BadHandle => Errno::EBADF,
        Error::NoSuchOffset => Errno::ENXIO,
        Error::Timeout => Errno::EIO,
        Error::Loop => Errno::ELOOP,
        Error::Corrupt(_) | Error::Damaged(_) => Errno::EIO,
        Error::Store(error) => of_store(error.kind),
        Error::Disk(_) => Errno::EIO,
        Error::Journal(_) => Errno::EIO,
    }
}

fn of_store(kind: ErrorKind) -> Errno {
    match kind {
        ErrorKind::NotFound => Errno::ENOENT,
        // Another writer replaced the version that the operation was about.
        ErrorKind::PreconditionFailed => Errno::ESTALE,
        // S3 answers 403 for an archived object too: it is there and whole, and can't be had now.
        ErrorKind::Denied | ErrorKind::Credentials | ErrorKind::Archived => Errno::EACCES,
        ErrorKind::TooLarge => Errno::EFBIG,
        ErrorKind::InvalidName => Errno::EINVAL,
        ErrorKind::Unsupported => Errno::EOPNOTSUPP,
        ErrorKind::NoSuchBucket
        | ErrorKind::NoSuchUpload
        | ErrorKind::InvalidRange
        | ErrorKind::Throttled
        | ErrorKind::Unavailable
        | ErrorKind::Unreachable
        | ErrorKind::Timeout
        | ErrorKind::Truncated
        | ErrorKind::Corrupt
        | ErrorKind::WrongRegion
        | ErrorKind::ClockSkew
        | ErrorKind::NotS3
        | ErrorKind::Other => Errno::EIO,
    }
}

/// The errno of a failed operation. Logs it: what an operator has to know of as a warning, the everyday answers
/// ("no such file", "file exists") only for debugging.
pub(super) fn log(asked: &Asked, error: &Error) -> Errno {
    let errno = of(error);
    let (operation, ino, name) = (asked.operation, asked.ino, asked.name());
    if is_alarming(errno) {
        let word = QUIET.ask(Instant::now());
        if word.withheld > 0 {
            warn!(operations = word.withheld, "failed too, and had no line of their own");
        }
        if word.tell {
            warn!(operation, ino, name, %error, "failed");
        }
    } else {
        debug!(operation, ino, name, %error, "refused");
    }
    errno
}

fn is_alarming(errno: Errno) -> bool {
    [Errno::EIO, Errno::ESTALE, Errno::ENOSPC, Errno::EACCES, Errno::EFBIG].iter().any(|alarm| alarm.code() == errno.code())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::store::StoreError;

    fn store(kind: ErrorKind) -> Error {
        Error::Store(StoreError::new(kind, "GetObject", "a", "no"))
    }

    #[test]
    fn programs_get_the_numbers_that_they_steer_by() {
        for (error, code) in [
            (Error::NotFound, libc::ENOENT),
            (Error::Exists, libc::EEXIST),
            (Error::NotEmpty, libc::ENOTEMPTY),
            (Error::NameTooLong, libc::ENAMETOOLONG),
            (Error::Stale, libc::ESTALE),
            (Error::NotPermitted, libc::EPERM),
            (Error::ReadOnly, libc::EROFS),
            (Error::NoAttribute, libc::ENODATA),
            (Error::TooManyAttributes, libc::ENOSPC),
            (store(ErrorKind::Archived), libc::EACCES),
            (Error::Timeout, libc::EIO),
            (Error::from(io::Error::from_raw_os_error(libc::ENOSPC)), libc::ENOSPC),
            (Error::from(io::Error::from_raw_os_error(libc::EDQUOT)), libc::ENOSPC),
            (Error::from(io::Error::from_raw_os_error(libc::EIO)), libc::EIO),
        ] {
            assert_eq!(of(&error).code(), code, "{error}");
        }
    }

    #[test]
    fn a_bucket_that_cant_be_asked_is_neither_missing_nor_existing() {
        for kind in [
            ErrorKind::NoSuchBucket,
            ErrorKind::Throttled,
            ErrorKind::Unavailable,
            ErrorKind::Unreachable,
            ErrorKind::Timeout,
            ErrorKind::Truncated,
            ErrorKind::Denied,
            ErrorKind::Credentials,
            ErrorKind::WrongRegion,
            ErrorKind::ClockSkew,
            ErrorKind::NotS3,
            ErrorKind::Other,
        ] {
            let code = of(&store(kind)).code();
            assert!(code == libc::EIO || code == libc::EACCES, "{kind:?} became {code}");
        }
    }

    #[test]
    fn a_logged_name_carries_no_terminal_escape() {
        let asked = Asked::named("lookup", 1, std::ffi::OsStr::new("a\x1b[31m"));
        assert_eq!(asked.name(), "\"a\\u{1b}[31m\"");
    }
}
