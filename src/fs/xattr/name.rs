//! What the name of an extended attribute means.

use std::ffi::OsStr;

use crate::error::{Error, Result};
use crate::media::{self, Header};
use crate::namespace::{attributes, xattrs};

/// Longest name of metadata that can be set: with its prefix it has to be a header.
const METADATA_NAME_LIMIT_BYTES: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// `user.mediafs.…`
    Own(String),
    /// `user.s3.…`: a header of the object.
    Header(Header),
    /// `user.s3.meta.…`: metadata by its name, in lower case as stores keep it.
    Metadata(String),
    /// `user.s3.…` that mean nothing (yet).
    Reserved,
    /// Any other `user.…`, whole.
    User(String),
    /// `security.…` and `trusted.…`: whoever writes to the bucket must not have a say in these.
    Privileged,
}

impl Name {
    /// Errors: `Unsupported` for `system.…` and what is in no namespace, `Invalid`, `NotUtf8`.
    pub fn parse(name: &OsStr) -> Result<Self> {
        let bytes = name.as_encoded_bytes();
        if bytes.starts_with(b"security.") || bytes.starts_with(b"trusted.") {
            return Ok(Self::Privileged);
        }
        let Some(rest) = bytes.strip_prefix(b"user.") else { return Err(Error::Unsupported) };
        if rest.is_empty() {
            return Err(Error::Invalid);
        }
        let text = name.to_str().ok_or(Error::NotUtf8)?;
        if let Some(own) = text.strip_prefix("user.mediafs.") {
            return Ok(Self::Own(own.to_owned()));
        }
        Ok(match text.strip_prefix("user.s3.") {
            None => Self::User(text.to_owned()),
            Some(rest) => match (rest.strip_prefix("meta."), Header::of_name(rest)) {
                (Some(name), _) => metadata(name),
                (None, Some(header)) => Self::Header(header),
                (None, None) => Self::Reserved,
            },
        })
    }
}

fn metadata(name: &str) -> Name {
    let name = name.to_ascii_lowercase();
    if is_settable_metadata(&name) { Name::Metadata(name) } else { Name::Reserved }
}

/// Whether a user may give an object metadata of this name, in small letters. Mode, owner and times have calls of their own.
pub fn is_settable_metadata(name: &str) -> bool {
    let is_token = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_.".contains(&c);
    let right = (1..=METADATA_NAME_LIMIT_BYTES).contains(&name.len()) && name.bytes().all(is_token);
    right && is_shown_metadata(name)
}

/// Whether metadata of this name is a program's, and not what carries the attributes of the file.
pub(super) fn is_shown_metadata(name: &str) -> bool {
    !(attributes::is_metadata(name) || xattrs::is_metadata(name) || media::is_own_metadata(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_meaning() {
        for (text, expected) in [
            ("user.comment", Some(Name::User("user.comment".into()))),
            ("user.mediafs.etag", Some(Name::Own("etag".into()))),
            ("user.s3.cache-control", Some(Name::Header(Header::CacheControl))),
            ("user.s3.meta.Camera", Some(Name::Metadata("camera".into()))),
            ("user.s3.meta.mode", Some(Name::Reserved)),
            ("user.s3.meta.xattr", Some(Name::Reserved)),
            ("user.s3.meta.mediafs-set", Some(Name::Reserved)),
            ("user.s3.meta.a b", Some(Name::Reserved)),
            ("user.s3.meta.", Some(Name::Reserved)),
            ("user.s3.expires", Some(Name::Reserved)),
            ("security.capability", Some(Name::Privileged)),
            ("trusted.x", Some(Name::Privileged)),
            ("system.posix_acl_access", None),
            ("user.", None),
            ("comment", None),
        ] {
            assert_eq!(Name::parse(OsStr::new(text)).ok(), expected, "{text}");
        }
    }
}
