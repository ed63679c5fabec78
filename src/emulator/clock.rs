//! A store whose clock differs from this machine's: its Date in the answers, its refusal of requests signed too far off.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::body::Incoming;
use hyper::header::{DATE, HeaderValue};
use hyper::{HeaderMap, Request, Response};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::dto::{Timestamp, TimestampFormat};
use s3s::{Body, S3Result, s3_error};

use super::operation::Target;
use super::server::{Server, respond_at};
use crate::clock;

/// What S3 allows a request's time to be off.
const LATITUDE: Duration = Duration::from_secs(15 * 60);

/// The S3 crate's settings without its own look at the clock, which knows only one clock.
pub fn left_to_us() -> Arc<StaticConfigProvider> {
    let mut config = S3Config::default();
    config.presigned_url_max_skew_time_secs = u32::MAX;
    Arc::new(StaticConfigProvider::new(Arc::new(config)))
}

/// Refuses a request that is signed too far off `theirs`.
pub fn check(headers: &HeaderMap, theirs: SystemTime) -> S3Result<()> {
    match is_near(signed_at(headers), theirs) {
        true => Ok(()),
        false => Err(s3_error!(RequestTimeTooSkewed, "The difference between the request time and the current time is too large.")),
    }
}

/// The answer of a store that is `ahead_seconds` ahead.
pub async fn answer(server: &Server, target: &Target, request: Request<Incoming>, ahead_seconds: i64) -> Response<Body> {
    let (now, apart) = (clock::now(), Duration::from_secs(ahead_seconds.unsigned_abs()));
    let theirs = if ahead_seconds < 0 { now - apart } else { now + apart };
    let mut response = respond_at(server, target, request, theirs).await;
    let mut text = Vec::new();
    if Timestamp::from(theirs).format(TimestampFormat::HttpDate, &mut text).is_ok()
        && let Ok(value) = HeaderValue::from_bytes(&text)
    {
        response.headers_mut().insert(DATE, value);
    }
    response
}

/// The time in `x-amz-date`, `20261121T160000Z`.
fn signed_at(headers: &HeaderMap) -> Option<SystemTime> {
    let text = headers.get("x-amz-date")?.to_str().ok()?;
    let [date, time] = [text.get(..8)?, text.get(9..15)?];
    let iso =
        format!("{}-{}-{}T{}:{}:{}Z", date.get(..4)?, date.get(4..6)?, date.get(6..)?, time.get(..2)?, time.get(2..4)?, time.get(4..)?);
    humantime::parse_rfc3339(&iso).ok()
}

/// A request that says no time (a presigned one) passes.
fn is_near(signed: Option<SystemTime>, theirs: SystemTime) -> bool {
    signed.is_none_or(|signed| signed.duration_since(theirs).or_else(|_| theirs.duration_since(signed)).is_ok_and(|off| off < LATITUDE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_an_hour_is_allowed() {
        let headers = HeaderMap::from_iter([("x-amz-date".parse().unwrap(), "19700101T010000Z".parse().unwrap())]);
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(signed_at(&headers), Some(at(3600)));
        assert!(is_near(Some(at(3600)), at(3600 + 899)) && is_near(Some(at(3600)), at(3600 - 899)));
        assert!(!is_near(Some(at(3600)), at(3600 + 901)) && !is_near(Some(at(3600)), at(3600 - 901)));
        assert!(is_near(signed_at(&HeaderMap::new()), at(0)));
    }
}
