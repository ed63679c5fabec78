//! The size protocol of extended attributes: a request of size 0 asks how long the value is.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use fuser::{Errno, ReplyXattr};

/// Attributes that no file here ever has, answered without asking: the kernel wants `security.capability` before each
/// write, and `ls` the ACLs of each file. EOPNOTSUPP is how a disk without ACLs answers.
pub(super) fn never_there(name: &OsStr) -> Option<Errno> {
    let name = name.as_bytes();
    if name.starts_with(b"user.") {
        None
    } else if name.starts_with(b"security.") || name.starts_with(b"trusted.") {
        Some(Errno::ENODATA)
    } else {
        Some(Errno::EOPNOTSUPP)
    }
}

/// listxattr's form: each name with its NUL.
pub(super) fn joined(names: &[OsString]) -> Vec<u8> {
    let mut list = Vec::new();
    for name in names {
        list.extend_from_slice(name.as_bytes());
        list.push(0);
    }
    list
}

#[derive(Debug, PartialEq, Eq)]
enum Fit {
    Length(u32),
    Value,
    TooLong,
}

fn fit(size: u32, length: usize) -> Fit {
    match u32::try_from(length) {
        Ok(length) if size == 0 => Fit::Length(length),
        Ok(length) if length <= size => Fit::Value,
        _ => Fit::TooLong,
    }
}

pub(super) fn send(reply: ReplyXattr, size: u32, value: Result<Vec<u8>, Errno>) {
    match value {
        Ok(value) => match fit(size, value.len()) {
            Fit::Length(length) => reply.size(length),
            Fit::Value => reply.data(&value),
            Fit::TooLong => reply.error(Errno::ERANGE),
        },
        Err(errno) => reply.error(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_measured_sent_or_too_long() {
        for (size, length, expected) in
            [(0, 0, Fit::Length(0)), (0, 9, Fit::Length(9)), (9, 9, Fit::Value), (10, 9, Fit::Value), (8, 9, Fit::TooLong)]
        {
            assert_eq!(fit(size, length), expected, "{length} bytes into {size}");
        }
    }

    #[test]
    fn names_are_listed_with_their_nul() {
        assert_eq!(joined(&["user.a".into(), "user.b".into()]), b"user.a\0user.b\0");
        assert!(joined(&[]).is_empty());
    }

    #[test]
    fn only_our_own_names_are_asked_for() {
        assert_eq!(never_there(OsStr::new("security.capability")).map(Errno::code), Some(libc::ENODATA));
        assert_eq!(never_there(OsStr::new("system.posix_acl_access")).map(Errno::code), Some(libc::EOPNOTSUPP));
        assert_eq!(never_there(OsStr::new("trusted.overlay")).map(Errno::code), Some(libc::ENODATA));
        assert_eq!(never_there(OsStr::new("nonsense")).map(Errno::code), Some(libc::EOPNOTSUPP));
        assert_eq!(never_there(OsStr::new("user.mediafs.etag")).map(Errno::code), None);
    }
}
