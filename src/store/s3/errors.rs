//! The SDK's errors as the store's: by what a caller can do about them. Pure.
//!
//! The table goes by S3's error code where there is one, else by the status: a HEAD's answer has no body, and proxies
//! and strangers don't speak S3. What was not an answer of S3 at all is told apart, so that a wrong endpoint is not
//! taken for a missing bucket.

use std::error::Error;
use std::time::Duration;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::clock::{self, Skew};
use super::transport::{self, one_line};
use crate::store::{ErrorKind, Operation, StoreError};
use crate::types::Key;

/// Where requests go, for messages.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub bucket: String,
    pub endpoint: String,
    pub region: String,
    pub skew: Skew,
}

impl Context {
    /// `conditional`: the request asked for a version, so that a missing object is that version gone.
    pub(super) fn error<E>(&self, operation: Operation, key: &Key, conditional: bool, error: SdkError<E, HttpResponse>) -> StoreError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let changes = operation.changes_bucket();
        let (kind, message, doubt, retry_after) = match error {
            SdkError::ServiceError(service) => {
                let (meta, raw) = (service.err(), service.raw());
                let mut answer = Answer::new(operation, raw);
                answer.names_another_region = answer.region.as_ref().is_some_and(|region| *region != self.region);
                answer.odd_key = key.walks_in_windows();
                answer.code = meta.code().map(str::to_owned).or(answer.code);
                answer.message = meta.message().map(str::to_owned).or(answer.message);
                answer.signed_with = self.skew.signed_with();
                let kind = answer.kind();
                if kind == ErrorKind::ClockSkew {
                    self.skew.note(answer.skew_seconds);
                }
                let failing = answer.status >= 500 && matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout);
                let doubt = failing || answer.status < 300;
                (kind, answer.text(kind, self), doubt, answer.retry_after)
            }
            SdkError::ResponseError(response) => {
                let answer = Answer::new(operation, response.raw());
                let kind = answer.unreadable();
                (kind, answer.text(kind, self), true, None)
            }
            error => {
                let timed_out = matches!(&error, SdkError::TimeoutError(_))
                    || matches!(&error, SdkError::DispatchFailure(failure) if failure.is_timeout());
                let built = !matches!(&error, SdkError::ConstructionFailure(_));
                let failure = transport::classify(&error, timed_out, &self.endpoint);
                // What can't even be said in S3 never can: it is no fault of the bucket's that waiting would cure.
                let kind = if !built && failure.kind.is_transient() { ErrorKind::InvalidName } else { failure.kind };
                (kind, failure.message, built && failure.sent, None)
            }
        };
        let gone = conditional && kind == ErrorKind::NotFound;
        let kind = if gone { ErrorKind::PreconditionFailed } else { kind };
        StoreError { outcome_unknown: changes && doubt, retry_after, ..StoreError::new(kind, operation.name(), key, message) }
    }
}

/// For one key of a bulk request, where there is a code but no answer of its own.
pub(super) fn kind_of_code(code: &str, message: Option<&str>) -> ErrorKind {
    let answer = Answer { code: Some(code.to_owned()), message: message.map(str::to_owned), ..Answer::default() };
    answer.kind()
}

/// An HTTP answer that is an error, or that can't be understood.
#[derive(Clone, Debug, Default)]
struct Answer {
    is_head: bool,
    /// The request named no key, so no key can be what was not found.
    about_bucket: bool,
    status: u16,
    code: Option<String>,
    message: Option<String>,
    /// The region where the bucket is, if the answer says so.
    region: Option<String>,
    /// One that requests are not signed for.
    names_another_region: bool,
    /// Of a form that not every store takes, see [`Key::walks_in_windows`].
    odd_key: bool,
    content_type: String,
    location: Option<String>,
    retry_after: Option<Duration>,
    /// Some where the body is there and isn't S3's XML.
    foreign_body: bool,
    /// The body broke off before all of it was there.
    cut: bool,
    /// How far the store's clock is ahead of ours.
    skew_seconds: i64,
    /// What of that the request may have been signed with.
    signed_with: [i64; 2],
}

impl Answer {
    fn new(operation: Operation, raw: &HttpResponse) -> Self {
        let header = |name| raw.headers().get(name).map(str::to_owned);
        let body = raw.body().bytes();
        let text = String::from_utf8_lossy(body.unwrap_or_default());
        Self {
            is_head: operation == Operation::HeadObject,
            about_bucket: matches!(operation, Operation::ListObjectsV2 | Operation::ListMultipartUploads | Operation::DeleteObjects),
            status: raw.status().as_u16(),
            // MinIO names the code in headers where an answer has no body.
            code: header("x-minio-error-code").or_else(|| element(&text, "Code")),
            message: header("x-minio-error-desc").or_else(|| element(&text, "Message")),
            region: header("x-amz-bucket-region").or_else(|| element(&text, "Region")),
            names_another_region: false,
            odd_key: false,
            content_type: header("content-type").unwrap_or_default(),
            location: header("location"),
            retry_after: retry_after(header("x-amz-retry-after"), header("retry-after")),
            foreign_body: !text.trim_start().is_empty() && !looks_like_s3(&text),
            cut: body.is_none(),
            signed_with: [0; 2],
            skew_seconds: header("date").and_then(|date| clock::ahead(&date, crate::clock::now())).unwrap_or_default(),
        }
    }

    fn kind(&self) -> ErrorKind {
        self.code.as_deref().and_then(|code| self.kind_of_code(code)).unwrap_or_else(|| self.kind_of_status())
    }

    fn kind_of_code(&self, code: &str) -> Option<ErrorKind> {
        let says = |word| self.message.as_deref().is_some_and(|text| text.to_ascii_lowercase().contains(word));
        Some(match code {
            "NoSuchKey" => ErrorKind::NotFound,
            "NoSuchBucket" | "InvalidBucketName" => ErrorKind::NoSuchBucket,
            "NoSuchUpload" => ErrorKind::NoSuchUpload,
            "PreconditionFailed" => ErrorKind::PreconditionFailed,
            "InvalidRange" => ErrorKind::InvalidRange,
            "SlowDown"
            | "SlowDownRead"
            | "SlowDownWrite"
            | "TooManyRequests"
            | "TooManyRequestsException"
            | "RequestLimitExceeded"
            | "Throttling"
            | "ThrottlingException"
            | "BandwidthLimitExceeded" => ErrorKind::Throttled,
            "InternalError" | "ServiceUnavailable" | "ConditionalRequestConflict" | "OperationAborted" => ErrorKind::Unavailable,
            "RequestTimeout" => ErrorKind::Timeout,
            "IncompleteBody" | "ClientDisconnect" => ErrorKind::Truncated,
            "BadDigest" | "XAmzContentChecksumMismatch" | "XAmzContentSHA256Mismatch" => ErrorKind::Corrupt,
            "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => ErrorKind::Denied,
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "ExpiredToken"
            | "InvalidToken"
            | "TokenRefreshRequired"
            | "Unauthorized"
            | "NotSignedUp" => ErrorKind::Credentials,
            "AuthorizationHeaderMalformed" if self.region.is_some() || says("region") => ErrorKind::WrongRegion,
            "AuthorizationHeaderMalformed" => ErrorKind::Credentials,
            "InvalidArgument" if says("access key") => ErrorKind::Credentials,
            "PermanentRedirect"
            | "TemporaryRedirect"
            | "Redirect"
            | "IllegalLocationConstraintException"
            | "InvalidRegionName"
            | "InvalidRegion" => ErrorKind::WrongRegion,
            "RequestTimeTooSkewed" | "RequestExpired" => ErrorKind::ClockSkew,
            "EntityTooLarge" | "MetadataTooLarge" => ErrorKind::TooLarge,
            "KeyTooLongError" | "InvalidObjectName" | "XMinioInvalidObjectName" | "XMinioInvalidResourceName" | "InvalidURI" => {
                ErrorKind::InvalidName
            }
            "NotImplemented" | "XNotImplemented" | "MethodNotAllowed" => ErrorKind::Unsupported,
            "InvalidObjectState" => ErrorKind::Archived,
            _ => return None,
        })
    }

    fn was_signed_with_another_time(&self) -> bool {
        self.signed_with.iter().any(|seconds| clock::is_off(self.skew_seconds - seconds))
    }

    fn kind_of_status(&self) -> ErrorKind {
        let stranger = self.code.is_none() && self.foreign_body;
        match self.status {
            200..=299 => ErrorKind::NotS3,
            300..=399 if self.region.is_some() => ErrorKind::WrongRegion,
            300..=399 => ErrorKind::NotS3,
            400..=401 | 404..=405 if stranger => ErrorKind::NotS3,
            400 if self.is_head && self.names_another_region => ErrorKind::WrongRegion,
            // MinIO's only answer to what it could never hold. For other keys such a 400 tells nothing: AWS refuses an expired
            // token so, and then nothing is known to be missing.
            400 if self.is_head && self.odd_key => ErrorKind::InvalidName,
            401 => ErrorKind::Credentials,
            // A HEAD's refusal names no code. The clock is the likelier reason where it is this far off.
            403 if self.is_head && self.was_signed_with_another_time() => ErrorKind::ClockSkew,
            403 => ErrorKind::Denied,
            404 if self.about_bucket => ErrorKind::NotS3,
            404 => ErrorKind::NotFound,
            405 | 501 => ErrorKind::Unsupported,
            408 => ErrorKind::Timeout,
            409 => ErrorKind::Unavailable,
            412 => ErrorKind::PreconditionFailed,
            413 => ErrorKind::TooLarge,
            414 => ErrorKind::InvalidName,
            416 => ErrorKind::InvalidRange,
            429 => ErrorKind::Throttled,
            500..=599 => ErrorKind::Unavailable,
            _ => ErrorKind::Other,
        }
    }

    /// For an answer in which the SDK could not read what it expected.
    fn unreadable(&self) -> ErrorKind {
        match self.status {
            // A TLS server's refusal of plain HTTP comes without headers, and its text often breaks off.
            400..=499 if self.cut && !self.content_type.contains("xml") => ErrorKind::NotS3,
            _ if self.cut => ErrorKind::Truncated,
            _ => self.kind(),
        }
    }

    fn text(&self, kind: ErrorKind, context: &Context) -> String {
        let Context { bucket, endpoint, region, .. } = context;
        let stranger = || match self.content_type.as_str() {
            "" => format!("{endpoint} answers with status {}", self.status),
            content_type => format!("{endpoint} answers with status {} and {content_type:?}", self.status),
        };
        let said = match (&self.code, &self.message) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.clone(),
            _ => stranger(),
        };
        one_line(match (kind, &self.region, &self.location) {
            (ErrorKind::WrongRegion, Some(right), _) if right != region => {
                format!("bucket {bucket:?} is in region {right:?}, not in {region:?}")
            }
            (ErrorKind::WrongRegion, ..) => format!("bucket {bucket:?} is not in region {region:?} ({said})"),
            (ErrorKind::NoSuchBucket, ..) => format!("no bucket {bucket:?} at {endpoint}"),
            (ErrorKind::NotS3, _, Some(location)) => format!("{endpoint} sends us away to {location}"),
            (ErrorKind::InvalidName, ..) if self.code.is_none() => "the store can't hold a key of this form".to_owned(),
            (ErrorKind::ClockSkew, ..) => clock::told(self.skew_seconds, &said),
            (ErrorKind::NotS3, ..) => stranger(),
            (ErrorKind::Archived, ..) => format!("{said}: it is archived, so restore it first (aws s3api restore-object)"),
            (ErrorKind::Truncated, ..) if self.cut => format!("the answer of {endpoint} broke off"),
            _ => said,
        })
    }
}

/// The text of the first such element. Error documents are flat and short; no parser is needed for them.
fn element(xml: &str, name: &str) -> Option<String> {
    let begin = xml.find(&format!("<{name}>"))? + name.len() + 2;
    let end = begin + xml[begin..].find(&format!("</{name}>"))?;
    Some(xml[begin..end].to_owned()).filter(|text| !text.is_empty())
}

fn looks_like_s3(text: &str) -> bool {
    let start = text.trim_start();
    start.starts_with("<?xml") || start.starts_with("<Error") || start.starts_with("<ListBucketResult")
}

/// AWS counts milliseconds; HTTP counts seconds, or gives a date, which would need trust in two clocks.
fn retry_after(millis: Option<String>, seconds: Option<String>) -> Option<Duration> {
    let number = |text: String| text.trim().parse::<u64>().ok();
    millis.and_then(number).map(Duration::from_millis).or_else(|| seconds.and_then(number).map(Duration::from_secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, code: &str, message: &str) -> Answer {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Answer { status, code: some(code), message: some(message), ..Answer::default() }
    }

    #[test]
    fn codes_come_before_statuses() {
        for (status, code, message, kind) in [
            (404, "NoSuchKey", "", ErrorKind::NotFound),
            (404, "NoSuchBucket", "", ErrorKind::NoSuchBucket),
            (404, "NoSuchUpload", "", ErrorKind::NoSuchUpload),
            (404, "", "", ErrorKind::NotFound),
            (412, "", "", ErrorKind::PreconditionFailed),
            (403, "InvalidAccessKeyId", "", ErrorKind::Credentials),
            (403, "SignatureDoesNotMatch", "", ErrorKind::Credentials),
            (401, "Unauthorized", "", ErrorKind::Credentials),
            (400, "InvalidArgument", "Credential access key has length 20, should be 32", ErrorKind::Credentials),
            (400, "InvalidArgument", "part number", ErrorKind::Other),
            (403, "RequestTimeTooSkewed", "", ErrorKind::ClockSkew),
            (403, "AccessDenied", "", ErrorKind::Denied),
            (403, "", "", ErrorKind::Denied),
            (429, "TooManyRequests", "", ErrorKind::Throttled),
            (503, "SlowDown", "", ErrorKind::Throttled),
            (503, "", "", ErrorKind::Unavailable),
            (409, "ConditionalRequestConflict", "", ErrorKind::Unavailable),
            (400, "AuthorizationHeaderMalformed", "the region 'x' is wrong; expecting 'y'", ErrorKind::WrongRegion),
            (400, "BadDigest", "", ErrorKind::Corrupt),
            (200, "InternalError", "", ErrorKind::Unavailable),
            (501, "NotImplemented", "", ErrorKind::Unsupported),
            (418, "Teapot", "", ErrorKind::Other),
        ] {
            assert_eq!(answer(status, code, message).kind(), kind, "{status} {code}");
        }
    }

    #[test]
    fn strangers_are_told_from_missing_objects() {
        let html = Answer { foreign_body: true, ..answer(404, "", "") };
        assert_eq!(html.kind(), ErrorKind::NotS3);
        assert_eq!(Answer { status: 502, ..html.clone() }.kind(), ErrorKind::Unavailable);
        assert_eq!(Answer { status: 301, ..html.clone() }.kind(), ErrorKind::NotS3);
        assert_eq!(Answer { status: 301, region: Some("eu-west-1".to_owned()), ..html }.kind(), ErrorKind::WrongRegion);
        let far = Answer { is_head: true, skew_seconds: 2_400, ..answer(403, "", "") };
        assert_eq!(far.kind(), ErrorKind::ClockSkew);
        assert_eq!(Answer { skew_seconds: 60, ..far.clone() }.kind(), ErrorKind::Denied);
        assert_eq!(Answer { signed_with: [2_390; 2], ..far.clone() }.kind(), ErrorKind::Denied, "it was signed with the right time");
        assert_eq!(Answer { skew_seconds: 0, signed_with: [2_400; 2], ..far.clone() }.kind(), ErrorKind::ClockSkew, "the clock was set");
        let twice = Answer { skew_seconds: 0, signed_with: [0, 2_400], ..far };
        assert_eq!(twice.kind(), ErrorKind::ClockSkew, "it was set twice within some seconds");
        let bucket = Answer { about_bucket: true, ..answer(404, "", "") };
        assert_eq!(bucket.kind(), ErrorKind::NotS3, "no key was asked for");
        assert!(!looks_like_s3("<!DOCTYPE html><html>") && looks_like_s3("\n<?xml version"));
    }

    #[test]
    fn a_head_s_bare_400_is_a_wrong_region_only_where_it_names_another() {
        let region = |region: &str| Some(region.to_owned());
        let same = Answer { is_head: true, region: region("us-east-1"), ..answer(400, "", "") };
        assert_eq!(same.kind(), ErrorKind::Other, "nothing is known to be missing");
        assert_eq!(Answer { odd_key: true, ..same.clone() }.kind(), ErrorKind::InvalidName);
        let other = Answer { region: region("eu-west-1"), names_another_region: true, odd_key: true, ..same.clone() };
        assert_eq!(other.kind(), ErrorKind::WrongRegion);
        let skew = Skew::default();
        let context = Context { bucket: "b".into(), endpoint: "http://e".into(), region: "us-east-1".into(), skew };
        assert_eq!(other.text(ErrorKind::WrongRegion, &context), "bucket \"b\" is in region \"eu-west-1\", not in \"us-east-1\"");
        for kind in [ErrorKind::Other, ErrorKind::InvalidName, ErrorKind::WrongRegion] {
            assert!(!same.text(kind, &context).contains("is in region"), "{kind:?}");
        }
    }

    #[test]
    fn waits_are_read_in_both_forms() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(retry_after(text("1500"), text("9")), Some(Duration::from_millis(1500)));
        assert_eq!(retry_after(None, text("9")), Some(Duration::from_secs(9)));
        assert_eq!(retry_after(None, text("Wed, 21 Oct 2026 07:28:00 GMT")), None);
        assert_eq!(element("<Error><Code>X</Code></Error>", "Code"), text("X"));
    }
}
