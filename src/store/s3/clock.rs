//! A clock of this machine that disagrees with the store's. Requests are signed with the time, and refused a quarter of an
//! hour off.
//!
//! The SDK learns the store's time from each answer's Date and signs the next request with that, so that a refused one only
//! has to be repeated. Here it is told to people, once, and kept for presigned URLs, which the SDK does not correct.
//!
//! Smaller differences matter, too: an upload's answer doesn't say when the store dated the object, but its Date comes close.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use parking_lot::Mutex;
use tokio::time::Instant;

/// S3 refuses from 15 minutes on. A refusal with less of a difference has another reason.
const OFF_SECONDS: u64 = 5 * 60;

/// Longer than a refusal takes to come back.
const ON_THE_WAY: Duration = Duration::from_secs(5);

/// Seconds that the store's clock is ahead of ours, as far as it mattered. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Skew {
    seconds: Arc<AtomicI64>,
    /// What it was before the last change, and when that was.
    before: Arc<Mutex<Option<(Instant, i64)>>>,
}

impl Skew {
    /// A request was refused for its time.
    pub fn note(&self, seconds: i64) {
        let before = self.seconds.swap(seconds, Ordering::Relaxed);
        if before.abs_diff(seconds) > OFF_SECONDS {
            *self.before.lock() = Some((Instant::now(), before));
            if !is_off(seconds) {
                return tracing::info!("this machine's clock and the store's agree again");
            }
            let difference = difference(seconds);
            tracing::warn!(
                "{difference}; requests are signed with the store's time from now on, and this machine's clock should be set (NTP)"
            );
        }
    }

    pub fn seconds(&self) -> i64 {
        self.seconds.load(Ordering::Relaxed)
    }

    /// What a request may have been signed with whose answer has come just now: some were on their way when the difference was
    /// learned, and the clock may be set again meanwhile.
    pub fn signed_with(&self) -> [i64; 2] {
        let now = self.seconds();
        match *self.before.lock() {
            Some((changed, before)) if changed.elapsed() < ON_THE_WAY => [before, now],
            _ => [now; 2],
        }
    }

    /// The time by the store's clock.
    pub fn now(&self, ours: SystemTime) -> SystemTime {
        moved(ours, self.seconds() * 1000)
    }
}

/// The store's time as its answers have it. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Answered {
    ahead_ms: Arc<AtomicI64>,
}

impl Answered {
    /// The time by the store's clock, right to half a second and what the last answer took on its way; `ours` before the first.
    pub fn now(&self, ours: SystemTime) -> SystemTime {
        moved(ours, self.ahead_ms.load(Ordering::Relaxed))
    }

    fn note(&self, date: &str, now: SystemTime) {
        let Some(theirs) = DateTime::from_str(date, DateTimeFormat::HttpDate).ok().and_then(|date| date.to_millis().ok()) else { return };
        // A Date has whole seconds: the middle of its one is never off by more than half of it.
        self.ahead_ms.store(theirs + 500 - milliseconds(now), Ordering::Relaxed);
    }
}

impl Intercept for Answered {
    fn name(&self) -> &'static str {
        "answered"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let headers = context.response().headers();
        // A cache between has the Date of when it asked, and says how old its answer is.
        if let Some(date) = headers.get("date").filter(|_| headers.get("age").is_none()) {
            self.note(date, crate::clock::now());
        }
        Ok(())
    }
}

/// Seconds that an HTTP date is ahead of `now`.
pub(super) fn ahead(date: &str, now: SystemTime) -> Option<i64> {
    let theirs = DateTime::from_str(date, DateTimeFormat::HttpDate).ok()?.secs();
    Some(theirs - milliseconds(now).div_euclid(1000))
}

/// Since 1970.
fn milliseconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn moved(time: SystemTime, ahead_ms: i64) -> SystemTime {
    let apart = Duration::from_millis(ahead_ms.unsigned_abs());
    if ahead_ms < 0 { time.checked_sub(apart) } else { time.checked_add(apart) }.unwrap_or(time)
}

pub(super) fn is_off(seconds: i64) -> bool {
    seconds.unsigned_abs() > OFF_SECONDS
}

/// The refusal, with what it comes from.
pub(super) fn told(seconds: i64, said: &str) -> String {
    if is_off(seconds) { format!("{}: {said}", difference(seconds)) } else { said.to_owned() }
}

fn difference(seconds: i64) -> String {
    let apart = humantime::format_duration(Duration::from_secs(seconds.unsigned_abs()));
    let word = if seconds < 0 { "ahead of" } else { "behind" };
    format!("this machine's clock is {apart} {word} the store's")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_on_their_way_were_signed_with_what_was_known_before() {
        let skew = Skew::default();
        skew.note(2_400);
        assert_eq!((skew.seconds(), skew.signed_with()), (2_400, [0, 2_400]));
        tokio::time::advance(ON_THE_WAY).await;
        assert_eq!(skew.signed_with(), [2_400; 2]);
    }

    #[test]
    fn an_answer_s_date_tells_the_store_s_time() {
        let at = |milliseconds| SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
        let answered = Answered::default();
        assert_eq!(answered.now(at(10_000_000)), at(10_000_000));
        for ours in [9_999_100, 10_000_400, 10_900_000] {
            answered.note("Thu, 01 Jan 1970 02:46:40 GMT", at(ours));
            assert_eq!(answered.now(at(ours + 3_000)), at(10_003_500));
            answered.note("yesterday", at(ours));
            assert_eq!(answered.now(at(ours)), at(10_000_500));
        }
    }

    #[test]
    fn the_difference_is_read_told_and_applied() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000);
        let seconds = ahead("Thu, 01 Jan 1970 03:26:40 GMT", now).unwrap();
        assert_eq!(seconds, 2_400);
        assert_eq!(ahead("yesterday", now), None);
        assert!(is_off(seconds) && is_off(-seconds) && !is_off(200));
        assert_eq!(told(seconds, "no"), "this machine's clock is 40m behind the store's: no");
        assert_eq!(told(-seconds, "no"), "this machine's clock is 40m ahead of the store's: no");
        let skew = Skew::default();
        assert_eq!(skew.now(now), now);
        skew.note(seconds);
        assert_eq!(skew.now(now), now + Duration::from_secs(2_400));
    }
}
