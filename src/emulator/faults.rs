//! Faults on request: which requests go wrong, and how. Rules may change while the emulator runs.
//!
//! This decides; the server carries it out around the S3 service, so a fault can also hit what the service never sees.
//! With one seed, one order of requests gives one order of faults.

use std::borrow::Cow;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;

use super::lies::Lie;
use super::operation::Target;

/// How a request goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request waits so long, then goes on (to further faults, too).
    Latency(Duration),
    /// The request waits until the rule is removed, then goes on.
    Hold,
    /// An error answer; nothing is done. `retry_after` goes out in whole seconds.
    Status { status: u16, code: Cow<'static, str>, retry_after: Option<Duration> },
    /// The connection is reset (RST) before anything is done.
    Reset,
    /// No answer, and nothing is done, for as long as the rule stands; then the connection is reset.
    Hang,
    /// The answer's body ends after `at` bytes, by an orderly close or by RST.
    CutBody { at: u64, reset: bool },
    /// The work is done, and the connection is closed or reset instead of answering.
    LoseReply { reset: bool },
    /// The answer's head and `at` bytes of its body, then nothing more for as long as the rule stands; then RST.
    StallBody { at: u64 },
    /// Byte `at` of the answer's body is turned over. Bodies that are shorter stay as they are.
    FlipByte { at: u64 },
    /// The store's clock is so many seconds ahead of this machine's (behind, if negative): answers carry its time, and
    /// requests that are signed more than a quarter of an hour off it are refused.
    Clock { ahead_seconds: i64 },
    /// The answer is well-formed and untrue.
    Lie(Lie),
}

impl Fault {
    /// An error answer with any status and S3 code.
    pub fn status(status: u16, code: impl Into<Cow<'static, str>>) -> Self {
        Self::Status { status, code: code.into(), retry_after: None }
    }

    pub fn internal_error() -> Self {
        Self::status(500, "InternalError")
    }

    pub fn slow_down() -> Self {
        Self::status(503, "SlowDown")
    }

    pub fn too_many_requests() -> Self {
        Self::status(429, "TooManyRequests")
    }

    pub fn access_denied() -> Self {
        Self::status(403, "AccessDenied")
    }
}

/// Which requests a fault hits: all, unless narrowed.
#[derive(Clone, Debug)]
pub struct Rule {
    fault: Fault,
    operation: Option<String>,
    key: Option<String>,
    probability: f64,
    skip: u64,
    times: u64,
}

impl Rule {
    pub fn new(fault: Fault) -> Self {
        Self { fault, operation: None, key: None, probability: 1.0, skip: 0, times: u64::MAX }
    }

    /// Only this S3 operation, e.g. `PutObject`.
    pub fn operation(mut self, name: &str) -> Self {
        self.operation = Some(name.to_owned());
        self
    }

    /// Only keys that match: `*` is any text, `/` included, `?` one character. Requests without a key don't match.
    pub fn key(mut self, pattern: &str) -> Self {
        self.key = Some(pattern.to_owned());
        self
    }

    /// Each matching request is hit with this probability, 0 to 1.
    pub fn probability(mut self, probability: f64) -> Self {
        self.probability = probability.clamp(0.0, 1.0);
        self
    }

    /// The first `count` matching requests are spared.
    pub fn skip(mut self, count: u64) -> Self {
        self.skip = count;
        self
    }

    /// At most `count` requests are hit.
    pub fn times(mut self, count: u64) -> Self {
        self.times = count;
        self
    }

    fn matches(&self, target: &Target) -> bool {
        let by_key = |pattern: &String| target.key.as_ref().is_some_and(|key| glob(pattern, key));
        self.operation.as_ref().is_none_or(|name| name == target.operation) && self.key.as_ref().is_none_or(by_key)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct RuleId(u64);

struct Standing {
    id: RuleId,
    rule: Rule,
    hits: u64,
}

struct Inner {
    rules: Vec<Standing>,
    next: u64,
    random: StdRng,
}

/// The rules of one emulator.
pub struct Faults {
    inner: Mutex<Inner>,
    /// Bumped whenever a rule is added, removed or hits.
    changes: watch::Sender<u64>,
}

/// What happens to one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub latency: Duration,
    /// The first other fault in the order of the rules, and the rule it came from.
    pub fault: Option<(RuleId, Fault)>,
}

impl Default for Faults {
    fn default() -> Self {
        let inner = Inner { rules: Vec::new(), next: 1, random: StdRng::seed_from_u64(0) };
        Self { inner: Mutex::new(inner), changes: watch::Sender::new(0) }
    }
}

impl Faults {
    pub fn add(&self, rule: Rule) -> RuleId {
        let mut inner = self.inner.lock();
        let id = RuleId(inner.next);
        inner.next += 1;
        inner.rules.push(Standing { id, rule, hits: 0 });
        drop(inner);
        self.changed();
        id
    }

    pub fn remove(&self, id: RuleId) {
        self.inner.lock().rules.retain(|standing| standing.id != id);
        self.changed();
    }

    pub fn clear(&self) {
        self.inner.lock().rules.clear();
        self.changed();
    }

    /// Starts the sequence that probabilities are drawn from again.
    pub fn seed(&self, seed: u64) {
        self.inner.lock().random = StdRng::seed_from_u64(seed);
    }

    /// How many requests the rule has hit; 0 once it is removed.
    pub fn hits(&self, id: RuleId) -> u64 {
        self.inner.lock().rules.iter().find(|standing| standing.id == id).map_or(0, |standing| standing.hits)
    }

    /// Waits until the rule has hit `count` requests.
    pub async fn reached(&self, id: RuleId, count: u64) {
        self.wait(|| self.hits(id) >= count).await;
    }

    /// Waits until the rule is gone.
    pub async fn removed(&self, id: RuleId) {
        self.wait(|| self.inner.lock().rules.iter().all(|standing| standing.id != id)).await;
    }

    async fn wait(&self, mut done: impl FnMut() -> bool) {
        let mut changes = self.changes.subscribe();
        // Only dropping `self.changes` ends the watch, and `self` is borrowed.
        let _ = changes.wait_for(|_| done()).await;
    }

    fn changed(&self) {
        self.changes.send_modify(|version| *version += 1);
    }

    /// Decides on a request, and counts it.
    pub fn judge(&self, target: &Target) -> Verdict {
        let mut verdict = Verdict::default();
        let mut inner = self.inner.lock();
        let Inner { rules, random, .. } = &mut *inner;
        for Standing { id, rule, hits } in rules.iter_mut() {
            let is_taken = verdict.fault.is_some() && !matches!(rule.fault, Fault::Latency(_));
            if is_taken || *hits >= rule.times || !rule.matches(target) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            if rule.probability < 1.0 && !random.random_bool(rule.probability) {
                continue;
            }
            *hits += 1;
            match &rule.fault {
                Fault::Latency(time) => verdict.latency += *time,
                fault => verdict.fault = Some((*id, fault.clone())),
            }
        }
        drop(inner);
        if verdict != Verdict::default() {
            self.changed();
        }
        verdict
    }
}

/// `*` is any text, `?` one character.
fn glob(pattern: &str, text: &str) -> bool {
    let mut rest = pattern.chars();
    match rest.next() {
        None => text.is_empty(),
        Some('*') => {
            let rest = rest.as_str();
            text.char_indices().map(|(at, _)| at).chain([text.len()]).any(|at| glob(rest, &text[at..]))
        }
        Some(wanted) => {
            let mut text = text.chars();
            text.next().is_some_and(|found| wanted == '?' || wanted == found) && glob(rest.as_str(), text.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(operation: &'static str, key: &str) -> Target {
        Target { operation, bucket: Some("b".to_owned()), key: Some(key.to_owned()) }
    }

    fn hit(faults: &Faults, operation: &'static str, key: &str) -> bool {
        faults.judge(&target(operation, key)).fault.is_some()
    }

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "a/b", true),
            ("a/*.jpg", "a/b/c.jpg", true),
            ("a/*.jpg", "a/b.png", false),
            ("?", "é", true),
            ("?", "", false),
            ("a*b*c", "aXbYbZc", true),
            ("a", "ab", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_rule_is_narrowed_by_operation_key_and_count() {
        let faults = Faults::default();
        let id = faults.add(Rule::new(Fault::Reset).operation("PutObject").key("a/*").skip(1).times(2));
        assert!(!hit(&faults, "GetObject", "a/b"));
        assert!(!hit(&faults, "PutObject", "b"));
        assert!(faults.judge(&Target { operation: "PutObject", bucket: None, key: None }).fault.is_none());
        let hits: Vec<bool> = (0..4).map(|_| hit(&faults, "PutObject", "a/b")).collect();
        assert_eq!(hits, [false, true, true, false]);
        assert_eq!(faults.hits(id), 2);
    }

    #[test]
    fn latency_adds_up_and_the_first_other_fault_wins() {
        let faults = Faults::default();
        faults.add(Rule::new(Fault::Latency(Duration::from_millis(5))));
        let reset = faults.add(Rule::new(Fault::Reset));
        let later = faults.add(Rule::new(Fault::Hang));
        faults.add(Rule::new(Fault::Latency(Duration::from_millis(7))));
        let verdict = faults.judge(&target("GetObject", "a"));
        assert_eq!(verdict, Verdict { latency: Duration::from_millis(12), fault: Some((reset, Fault::Reset)) });
        assert_eq!(faults.hits(later), 0);
        faults.clear();
        assert_eq!(faults.judge(&target("GetObject", "a")), Verdict::default());
    }

    #[test]
    fn one_seed_gives_one_sequence() {
        let sequence = |seed| {
            let faults = Faults::default();
            faults.seed(seed);
            faults.add(Rule::new(Fault::Reset).probability(0.5));
            (0..64).map(|_| hit(&faults, "GetObject", "a")).collect::<Vec<bool>>()
        };
        assert_eq!(sequence(1), sequence(1));
        assert_ne!(sequence(1), sequence(2));
        let hits = sequence(1).iter().filter(|hit| **hit).count();
        assert!((16..48).contains(&hits), "{hits}");
    }
}
