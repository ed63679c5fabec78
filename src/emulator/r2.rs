//! What Cloudflare R2 does otherwise than S3, by its documentation: the strict mode.
//!
//! Only rules, no state: which requests are refused before anything is done, how keys fold, how parts must be cut, how
//! often a key may be written. A program that works in this mode works on both.

use std::time::Duration;

use hyper::{HeaderMap, StatusCode};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};
use unicode_normalization::UnicodeNormalization;

use super::operation::Target;

/// "1 write per second to the same key"; deletes are not counted.
pub const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// R2's limit on the user metadata of an object, four times S3's.
pub const METADATA_LIMIT_BYTES: usize = 8192;

/// The regions that name R2's one region; location hints are not accepted for signing here.
const REGIONS: [&str; 3] = ["auto", "us-east-1", ""];

/// What R2 knows of a bucket and a token for objects may do. All other bucket-level calls need an admin token.
const BUCKET_OPERATIONS: [&str; 4] = ["ListObjects", "ListObjectsV2", "ListMultipartUploads", "DeleteObjects"];

/// Headers that R2 answers with NotImplemented, beside those of [`is_refused_encryption`].
const REFUSED_HEADERS: [&str; 8] = [
    "x-amz-acl",
    "x-amz-tagging",
    "x-amz-tagging-directive",
    "x-amz-object-lock-mode",
    "x-amz-object-lock-legal-hold",
    "x-amz-request-payer",
    "x-amz-expected-bucket-owner",
    "x-amz-website-redirect-location",
];

/// A code that the S3 crate has no name for.
pub fn error(code: &str, status: StatusCode, message: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    let code = S3ErrorCode::from_bytes(code.as_bytes()).unwrap_or(S3ErrorCode::InternalError);
    let mut error = S3Error::with_message(code, message);
    error.set_status_code(status);
    error
}

pub fn too_many_requests() -> S3Error {
    error("TooManyRequests", StatusCode::TOO_MANY_REQUESTS, "Reduce your concurrent request rate for the same object.")
}

pub fn is_too_many_requests(error: &S3Error) -> bool {
    error.status_code() == Some(StatusCode::TOO_MANY_REQUESTS)
}

/// R2 takes the spellings of one name in NFC and NFD for the same key.
pub fn fold(key: &str) -> String {
    key.nfc().collect()
}

pub fn check_equal_parts(mut others: impl Iterator<Item = u64>, last: u64) -> S3Result<()> {
    let Some(size) = others.next() else { return Ok(()) };
    if others.all(|other| other == size) && last <= size {
        return Ok(());
    }
    Err(s3_error!(InvalidPart, "All non-trailing parts must have the same length."))
}

/// Refuses what R2 doesn't have, before the request is looked at any further.
pub fn check_request(target: &Target, headers: &HeaderMap) -> S3Result<()> {
    if target.key.is_none() && !BUCKET_OPERATIONS.contains(&target.operation) {
        return Err(s3_error!(AccessDenied, "Access Denied"));
    }
    if target.operation == super::operation::UNKNOWN {
        return Err(not_implemented("This operation"));
    }
    if let Some(name) = REFUSED_HEADERS.iter().find(|name| headers.contains_key(**name)) {
        return Err(not_implemented(name));
    }
    for name in headers.keys().map(|name| name.as_str()) {
        let is_refused_condition = target.operation == "UploadPartCopy" && name.starts_with("x-amz-copy-source-if-");
        if name.starts_with("x-amz-grant-") || is_refused_encryption(name) || is_refused_condition {
            return Err(not_implemented(name));
        }
    }
    if is_chunked(headers) {
        return Err(not_implemented("STREAMING-* payload (aws-chunked)"));
    }
    Ok(())
}

/// SSE-KMS and S3-managed keys; encryption with the customer's key is R2's one form.
fn is_refused_encryption(header: &str) -> bool {
    header.starts_with("x-amz-server-side-encryption") && !header.starts_with("x-amz-server-side-encryption-customer-")
}

fn is_chunked(headers: &HeaderMap) -> bool {
    let has = |name: &str, text: &str| headers.get_all(name).iter().any(|value| value.to_str().is_ok_and(|value| value.contains(text)));
    has("x-amz-content-sha256", "STREAMING-") || has("content-encoding", "aws-chunked") || headers.contains_key("x-amz-trailer")
}

fn not_implemented(what: &str) -> S3Error {
    s3_error!(NotImplemented, "{what} not implemented")
}

pub fn check_region(region: &str) -> S3Result<()> {
    if REGIONS.contains(&region) {
        return Ok(());
    }
    let message = format!("The region name '{region}' is not valid. Must be one of: wnam, enam, weur, eeur, apac, oc, auto");
    Err(error("InvalidRegionName", StatusCode::BAD_REQUEST, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_equal_and_the_last_is_not_larger() {
        for (others, last, allowed) in [
            (&[][..], 9, true),
            (&[5], 5, true),
            (&[5], 1, true),
            (&[5], 6, false),
            (&[5, 5], 3, true),
            (&[5, 6], 3, false),
            (&[6, 5], 3, false),
        ] {
            assert_eq!(check_equal_parts(others.iter().copied(), last).is_ok(), allowed, "{others:?} {last}");
        }
    }

    #[test]
    fn requests_that_r2_does_not_have() {
        let put = |name: &'static str, value: &'static str| {
            let headers = [(name.parse().unwrap(), value.parse().unwrap())].into_iter().collect();
            let target = Target { operation: "PutObject", bucket: Some("b".into()), key: Some("k".into()) };
            check_request(&target, &headers).map_err(|error| error.code().as_str().to_owned())
        };
        for (name, value, allowed) in [
            ("x-amz-acl", "private", false),
            ("x-amz-grant-read", "x", false),
            ("x-amz-tagging", "a=b", false),
            ("x-amz-server-side-encryption", "aws:kms", false),
            ("x-amz-server-side-encryption-aws-kms-key-id", "x", false),
            ("x-amz-server-side-encryption-customer-algorithm", "AES256", true),
            ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", false),
            ("x-amz-trailer", "x-amz-checksum-crc32", false),
            ("content-encoding", "aws-chunked,gzip", false),
            ("content-encoding", "gzip", true),
            ("x-amz-checksum-crc32", "AAAAAA==", true),
        ] {
            let expected = if allowed { Ok(()) } else { Err("NotImplemented".to_owned()) };
            assert_eq!(put(name, value), expected, "{name}: {value}");
        }
        let bucket = |operation| check_request(&Target { operation, bucket: Some("b".into()), key: None }, &HeaderMap::new());
        assert!(bucket("ListObjectsV2").is_ok());
        assert_eq!(*bucket("HeadBucket").unwrap_err().code(), S3ErrorCode::AccessDenied);
    }

    #[test]
    fn spellings_fold() {
        assert_eq!(fold("e\u{301}/x"), "\u{e9}/x");
        assert_eq!(fold("\u{e9}/x"), "\u{e9}/x");
    }
}
