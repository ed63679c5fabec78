//! What to change when the bucket can't be used: one line for a person at a terminal.

use super::{ErrorKind, StoreError};

/// What went wrong and what to do about it, in one line without the word "error".
pub fn advice(error: &StoreError) -> String {
    let what = error.message.trim_end_matches('.');
    match fix(error.kind, what) {
        Some(fix) => format!("{what}: {fix}"),
        None => error.to_string(),
    }
}

/// What to change, without what went wrong.
pub fn remedy(error: &StoreError) -> Option<&'static str> {
    fix(error.kind, &error.message)
}

fn fix(kind: ErrorKind, what: &str) -> Option<&'static str> {
    Some(match kind {
        // Also where a source exists and fails, which may pass: to the other kinds it is no fault of the bucket.
        _ if what.starts_with("no credentials") => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (for R2: R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY), or a profile"
        }
        ErrorKind::Denied if what.contains("text/html") => {
            "check the endpoint (--endpoint-url): a web server answers there, not the S3 API"
        }
        ErrorKind::Credentials if what.starts_with("wrong credentials set-up") => {
            "check --credentials-file, --profile or AWS_PROFILE, and the files in ~/.aws"
        }
        ErrorKind::Credentials => "check the access key, its secret and its expiry, and that they belong to this endpoint",
        ErrorKind::Denied => "let this key list, read and write the bucket (on R2: a token \"Object Read & Write\" for it)",
        ErrorKind::NoSuchBucket => "check the bucket's name and the endpoint (--endpoint-url)",
        ErrorKind::WrongRegion => "give the bucket's region with --region",
        ErrorKind::Unreachable if what.starts_with("TLS: ") => {
            "check the endpoint's scheme (http:// or https://) and name, or trust its certificate with --ca-file"
        }
        ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::Truncated => {
            "check the endpoint (--endpoint-url), its port, and the network"
        }
        ErrorKind::NotS3 => "check the endpoint (--endpoint-url): it must be the S3 API, not a console or a web site",
        ErrorKind::ClockSkew => "set this machine's clock (NTP); requests are signed with the time",
        ErrorKind::Throttled | ErrorKind::Unavailable => "the store is busy or failing; try again later",
        ErrorKind::Unsupported => "the store lacks this operation; check that the endpoint is an S3 API",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_newcomers_error_is_one_line_with_a_fix() {
        for (kind, message, expected) in [
            (ErrorKind::Credentials, "no credentials found", "AWS_ACCESS_KEY_ID"),
            (ErrorKind::Unavailable, "no credentials: their source failed (status 403)", "AWS_ACCESS_KEY_ID"),
            (ErrorKind::Credentials, "InvalidAccessKeyId: unknown", "check the access key"),
            (ErrorKind::Denied, "AccessDenied: no", "let this key"),
            (ErrorKind::Denied, "http://h answers with status 403 and \"text/html\"", "web server"),
            (ErrorKind::NoSuchBucket, "no bucket \"b\" at http://h", "check the bucket's name"),
            (ErrorKind::WrongRegion, "bucket \"b\" is in region \"x\"", "--region"),
            (ErrorKind::Unreachable, "http://h refuses the connection", "--endpoint-url"),
            (ErrorKind::Unreachable, "TLS: unknown issuer", "--ca-file"),
            (ErrorKind::NotS3, "http://h answers with status 200", "web site"),
            (ErrorKind::ClockSkew, "RequestTimeTooSkewed", "clock"),
        ] {
            let line = advice(&StoreError::new(kind, "ListObjectsV2", "", message));
            assert!(line.starts_with(message) && line.contains(expected) && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn a_sentence_does_not_end_twice() {
        let error = StoreError::new(ErrorKind::Credentials, "ListObjectsV2", "", "SignatureDoesNotMatch: they differ.");
        assert!(advice(&error).starts_with("SignatureDoesNotMatch: they differ: check"));
    }

    #[test]
    fn other_errors_speak_for_themselves() {
        let error = StoreError::new(ErrorKind::TooLarge, "PutObject", "k", "EntityTooLarge");
        assert_eq!(advice(&error), "PutObject k: EntityTooLarge");
    }
}
