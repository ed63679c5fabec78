//! Which S3 operation a request is, seen from outside: what counts, faults and R2's rules go by.
//!
//! The S3 crate finds the operation by itself; this is asked before it, and about requests that never reach it.

use hyper::{HeaderMap, Method, Uri};
use percent_encoding::percent_decode_str;

/// The name of what is no operation of this emulator.
pub const UNKNOWN: &str = "Unknown";

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The S3 operation's name, e.g. `PutObject`.
    pub operation: &'static str,
    pub bucket: Option<String>,
    /// As the request spells it.
    pub key: Option<String>,
}

impl Target {
    pub fn of(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        let (bucket, key) = split_path(uri.path());
        let query = Query(uri.query().unwrap_or_default());
        let operation = match (&bucket, &key) {
            (Some(_), Some(_)) => object_operation(method, query, headers),
            (Some(_), None) => bucket_operation(method, query),
            (None, _) if method == Method::GET => "ListBuckets",
            (None, _) => UNKNOWN,
        };
        Self { operation, bucket, key }
    }
}

fn split_path(path: &str) -> (Option<String>, Option<String>) {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let path = decoded.strip_prefix('/').unwrap_or(&decoded);
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    (some(bucket), some(key))
}

#[derive(Clone, Copy)]
struct Query<'a>(&'a str);

impl Query<'_> {
    fn has(self, name: &str) -> bool {
        self.0.split('&').any(|pair| pair.split('=').next() == Some(name))
    }

    fn is(self, pair: &str) -> bool {
        self.0.split('&').any(|found| found == pair)
    }

    /// Sub-resources that the emulator doesn't have, on a bucket or an object.
    fn names_a_feature(self) -> bool {
        const FEATURES: [&str; 22] = [
            "acl",
            "attributes",
            "tagging",
            "legal-hold",
            "retention",
            "torrent",
            "restore",
            "select",
            "versioning",
            "versions",
            "policy",
            "cors",
            "lifecycle",
            "encryption",
            "website",
            "logging",
            "notification",
            "replication",
            "object-lock",
            "accelerate",
            "requestPayment",
            "publicAccessBlock",
        ];
        FEATURES.iter().any(|name| self.has(name))
    }
}

fn object_operation(method: &Method, query: Query<'_>, headers: &HeaderMap) -> &'static str {
    let is_copy = headers.contains_key("x-amz-copy-source");
    let in_upload = query.has("uploadId");
    if query.names_a_feature() {
        return UNKNOWN;
    }
    match method.as_str() {
        "HEAD" => "HeadObject",
        "GET" if in_upload => "ListParts",
        "GET" => "GetObject",
        "PUT" if query.has("partNumber") && is_copy => "UploadPartCopy",
        "PUT" if query.has("partNumber") => "UploadPart",
        "PUT" if is_copy => "CopyObject",
        "PUT" => "PutObject",
        "DELETE" if in_upload => "AbortMultipartUpload",
        "DELETE" => "DeleteObject",
        "POST" if query.has("uploads") => "CreateMultipartUpload",
        "POST" if in_upload => "CompleteMultipartUpload",
        _ => UNKNOWN,
    }
}

fn bucket_operation(method: &Method, query: Query<'_>) -> &'static str {
    if query.names_a_feature() {
        return UNKNOWN;
    }
    match method.as_str() {
        "HEAD" => "HeadBucket",
        "GET" if query.has("location") => "GetBucketLocation",
        "GET" if query.has("uploads") => "ListMultipartUploads",
        "GET" if query.is("list-type=2") => "ListObjectsV2",
        "GET" => "ListObjects",
        "PUT" => "CreateBucket",
        "DELETE" => "DeleteBucket",
        "POST" if query.has("delete") => "DeleteObjects",
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_has_its_name() {
        for (method, uri, copy, operation, key) in [
            ("GET", "/", false, "ListBuckets", None),
            ("GET", "/b?list-type=2&prefix=a", false, "ListObjectsV2", None),
            ("GET", "/b/?list-type=2", false, "ListObjectsV2", None),
            ("GET", "/b", false, "ListObjects", None),
            ("GET", "/b?uploads", false, "ListMultipartUploads", None),
            ("GET", "/b?location", false, "GetBucketLocation", None),
            ("HEAD", "/b", false, "HeadBucket", None),
            ("POST", "/b?delete", false, "DeleteObjects", None),
            ("GET", "/b/a%2Fc?x-id=GetObject", false, "GetObject", Some("a/c")),
            ("GET", "/b/a?uploadId=1", false, "ListParts", Some("a")),
            ("GET", "/b//", false, "GetObject", Some("/")),
            ("GET", "/b/../x", false, "GetObject", Some("../x")),
            ("HEAD", "/b/a%20b", false, "HeadObject", Some("a b")),
            ("PUT", "/b/a", false, "PutObject", Some("a")),
            ("PUT", "/b/a", true, "CopyObject", Some("a")),
            ("PUT", "/b/a?partNumber=1&uploadId=x", false, "UploadPart", Some("a")),
            ("PUT", "/b/a?partNumber=1&uploadId=x", true, "UploadPartCopy", Some("a")),
            ("POST", "/b/a?uploads", false, "CreateMultipartUpload", Some("a")),
            ("POST", "/b/a?uploadId=x", false, "CompleteMultipartUpload", Some("a")),
            ("DELETE", "/b/a?uploadId=x", false, "AbortMultipartUpload", Some("a")),
            ("DELETE", "/b/a", false, "DeleteObject", Some("a")),
            ("GET", "/b/a?acl", false, UNKNOWN, Some("a")),
        ] {
            let mut headers = HeaderMap::new();
            if copy {
                headers.insert("x-amz-copy-source", "b/x".parse().unwrap());
            }
            let target = Target::of(&method.parse().unwrap(), &uri.parse().unwrap(), &headers);
            assert_eq!((target.operation, target.key.as_deref()), (operation, key), "{method} {uri}");
        }
    }
}
