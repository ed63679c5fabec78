//! What must hold for a request to be done: If-Match and its relatives, for reads, for writes and for copy sources.
//!
//! Pure: an object's ETag and time go in, a verdict comes out. Whoever asks holds the lock under which the verdict is
//! acted upon; that is what makes a conditional write atomic.

use std::time::SystemTime;

use hyper::HeaderMap;
use s3s::dto::{Timestamp, TimestampFormat};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

/// The four conditions, as the headers of one family gave them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    pub if_match: Option<Tags>,
    pub if_none_match: Option<Tags>,
    pub if_modified_since: Option<Timestamp>,
    pub if_unmodified_since: Option<Timestamp>,
}

/// A list of ETags without quotes, or any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tags {
    Any,
    OneOf(Vec<String>),
}

impl Tags {
    pub fn parse(text: &str) -> Self {
        if text.trim() == "*" {
            return Self::Any;
        }
        let tag = |part: &str| part.trim().trim_start_matches("W/").trim_matches('"').to_owned();
        Self::OneOf(text.split(',').map(tag).collect())
    }

    fn matches(&self, etag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(tags) => tags.iter().any(|tag| tag == etag),
        }
    }
}

/// What conditions look at.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    pub etag: &'a str,
    pub modified: SystemTime,
}

impl Conditions {
    /// Reads `PREFIXif-match` and the other three; the prefix is empty, `x-amz-copy-source-` or `cf-copy-destination-`.
    pub fn from_headers(headers: &HeaderMap, prefix: &str) -> S3Result<Self> {
        let text = |name: &str| -> S3Result<Option<&str>> {
            let Some(value) = headers.get(format!("{prefix}{name}")) else { return Ok(None) };
            value.to_str().map(Some).map_err(|_| s3_error!(InvalidArgument, "{prefix}{name} is not text"))
        };
        let time = |name: &str| -> S3Result<Option<Timestamp>> {
            let parse = |text| Timestamp::parse(TimestampFormat::HttpDate, text);
            text(name)?.map(parse).transpose().map_err(|_| s3_error!(InvalidArgument, "{prefix}{name} is not an HTTP date"))
        };
        Ok(Self {
            if_match: text("if-match")?.map(Tags::parse),
            if_none_match: text("if-none-match")?.map(Tags::parse),
            if_modified_since: time("if-modified-since")?,
            if_unmodified_since: time("if-unmodified-since")?,
        })
    }

    /// For GET and HEAD, by RFC 9110: the ETag conditions win over the dates.
    pub fn check_read(&self, object: Facts<'_>) -> S3Result<()> {
        let matched = self.if_match.as_ref().map(|tags| tags.matches(object.etag));
        if matched == Some(false) || (matched.is_none() && is_later(object, &self.if_unmodified_since)) {
            return Err(precondition_failed());
        }
        let none_matched = self.if_none_match.as_ref().map(|tags| !tags.matches(object.etag));
        let unmodified = self.if_modified_since.is_some() && !is_later(object, &self.if_modified_since);
        if none_matched == Some(false) || (none_matched.is_none() && unmodified) {
            return Err(S3Error::new(S3ErrorCode::NotModified));
        }
        Ok(())
    }

    /// For the source of a copy: as a read, and every refusal is 412.
    pub fn check_source(&self, object: Facts<'_>) -> S3Result<()> {
        self.check_read(object).map_err(|_| precondition_failed())
    }

    /// For a write over `current`. If-Match on a name that isn't there is 404, as AWS and MinIO answer.
    pub fn check_write(&self, current: Option<Facts<'_>>) -> S3Result<()> {
        let Some(object) = current else {
            return if self.if_match.is_some() { Err(s3_error!(NoSuchKey)) } else { Ok(()) };
        };
        let holds = self.if_match.as_ref().is_none_or(|tags| tags.matches(object.etag))
            && self.if_none_match.as_ref().is_none_or(|tags| !tags.matches(object.etag))
            && (self.if_modified_since.is_none() || is_later(object, &self.if_modified_since))
            && !is_later(object, &self.if_unmodified_since);
        if holds { Ok(()) } else { Err(precondition_failed()) }
    }
}

/// True where the object changed after `since`, in the whole seconds that the header can say.
fn is_later(object: Facts<'_>, since: &Option<Timestamp>) -> bool {
    since.as_ref().is_some_and(|since| whole_seconds(object.modified) > *since)
}

fn whole_seconds(time: SystemTime) -> Timestamp {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Timestamp::from(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
}

fn precondition_failed() -> S3Error {
    s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn conditions(pairs: &[(&'static str, &str)]) -> Conditions {
        let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Conditions::from_headers(&headers, "").unwrap()
    }

    /// Changed at 00:01:40.5.
    fn object() -> Facts<'static> {
        Facts { etag: "aa", modified: SystemTime::UNIX_EPOCH + Duration::from_millis(100_500) }
    }

    const BEFORE: &str = "Thu, 01 Jan 1970 00:01:39 GMT";
    const SAME: &str = "Thu, 01 Jan 1970 00:01:40 GMT";

    fn code(result: S3Result<()>) -> u16 {
        result.map_or_else(|error| error.status_code().unwrap().as_u16(), |()| 200)
    }

    #[test]
    fn reads() {
        for (given, expected) in [
            (&[][..], 200),
            (&[("if-match", "\"aa\"")], 200),
            (&[("if-match", "*")], 200),
            (&[("if-match", "\"bb\"")], 412),
            (&[("if-match", "\"bb\", \"aa\"")], 200),
            (&[("if-none-match", "\"aa\"")], 304),
            (&[("if-none-match", "W/\"aa\"")], 304),
            (&[("if-none-match", "\"bb\"")], 200),
            (&[("if-modified-since", BEFORE)], 200),
            (&[("if-modified-since", SAME)], 304),
            (&[("if-unmodified-since", BEFORE)], 412),
            (&[("if-unmodified-since", SAME)], 200),
            (&[("if-match", "\"aa\""), ("if-unmodified-since", BEFORE)], 200),
            (&[("if-none-match", "\"bb\""), ("if-modified-since", SAME)], 200),
        ] {
            assert_eq!(code(conditions(given).check_read(object())), expected, "{given:?}");
        }
        assert_eq!(code(conditions(&[("if-none-match", "\"aa\"")]).check_source(object())), 412);
    }

    #[test]
    fn writes() {
        for (given, there, absent) in [
            (&[][..], 200, 200),
            (&[("if-match", "aa")], 200, 404),
            (&[("if-match", "\"bb\"")], 412, 404),
            (&[("if-match", "*")], 200, 404),
            (&[("if-none-match", "*")], 412, 200),
            (&[("if-none-match", "\"aa\"")], 412, 200),
            (&[("if-none-match", "\"bb\"")], 200, 200),
            (&[("if-unmodified-since", BEFORE)], 412, 200),
            (&[("if-modified-since", SAME)], 412, 200),
        ] {
            assert_eq!(code(conditions(given).check_write(Some(object()))), there, "{given:?} on an object");
            assert_eq!(code(conditions(given).check_write(None)), absent, "{given:?} on nothing");
        }
    }
}
