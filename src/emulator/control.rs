//! Faults asked for by another process: commands and answers as lines of JSON.
//!
//! `{"add": RULE}` answers `{"id": 7}`, `{"remove": 7}` and `"clear"` answer `{}`, `{"hits": 7}` answers
//! `{"hits": 3}`, and what can't be understood `{"error": "…"}`. A RULE is flat: `fault` and the fault's own fields (see
//! [`Spec`]), and optionally `operation`, `key`, `probability`, `skip` and `times`.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::faults::{Fault, Faults, Rule, RuleId};
use super::lies::Lie;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Command {
    Add(Asked),
    Remove(RuleId),
    Clear,
    Hits(RuleId),
}

#[derive(Deserialize)]
struct Asked {
    #[serde(flatten)]
    fault: Spec,
    operation: Option<String>,
    key: Option<String>,
    probability: Option<f64>,
    skip: Option<u64>,
    times: Option<u64>,
}

/// A [`Fault`] as it is written down. Times are in milliseconds, `at` is an offset in bytes.
#[derive(Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
enum Spec {
    Latency {
        ms: u64,
    },
    Hold,
    Status {
        status: u16,
        code: String,
    },
    Reset,
    Hang,
    CutBody {
        at: u64,
        #[serde(default)]
        reset: bool,
    },
    StallBody {
        at: u64,
    },
    LoseReply {
        #[serde(default)]
        reset: bool,
    },
    FlipByte {
        at: u64,
    },
    Clock {
        ahead_seconds: i64,
    },
    Lie {
        lie: Lie,
    },
}

impl From<Spec> for Fault {
    fn from(spec: Spec) -> Self {
        match spec {
            Spec::Latency { ms } => Self::Latency(Duration::from_millis(ms)),
            Spec::Hold => Self::Hold,
            Spec::Status { status, code } => Self::status(status, code),
            Spec::Reset => Self::Reset,
            Spec::Hang => Self::Hang,
            Spec::CutBody { at, reset } => Self::CutBody { at, reset },
            Spec::StallBody { at } => Self::StallBody { at },
            Spec::LoseReply { reset } => Self::LoseReply { reset },
            Spec::FlipByte { at } => Self::FlipByte { at },
            Spec::Clock { ahead_seconds } => Self::Clock { ahead_seconds },
            Spec::Lie { lie } => Self::Lie(lie),
        }
    }
}

impl From<Asked> for Rule {
    fn from(asked: Asked) -> Self {
        let mut rule = Self::new(asked.fault.into());
        if let Some(name) = asked.operation {
            rule = rule.operation(&name);
        }
        if let Some(pattern) = asked.key {
            rule = rule.key(&pattern);
        }
        if let Some(probability) = asked.probability {
            rule = rule.probability(probability);
        }
        if let Some(count) = asked.skip {
            rule = rule.skip(count);
        }
        if let Some(count) = asked.times {
            rule = rule.times(count);
        }
        rule
    }
}

/// The far end of an emulator's faults.
#[derive(Clone)]
pub struct Control {
    faults: Arc<Faults>,
}

impl Control {
    pub(super) fn new(faults: Arc<Faults>) -> Self {
        Self { faults }
    }

    /// Carries out one line; the answer is one line too, without its end.
    pub fn obey(&self, line: &str) -> String {
        let answer: Value = match serde_json::from_str(line) {
            Ok(Command::Add(asked)) => json!({"id": self.faults.add(asked.into())}),
            Ok(Command::Remove(id)) => {
                self.faults.remove(id);
                json!({})
            }
            Ok(Command::Clear) => {
                self.faults.clear();
                json!({})
            }
            Ok(Command::Hits(id)) => json!({"hits": self.faults.hits(id)}),
            Err(error) => json!({"error": error.to_string()}),
        };
        answer.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::operation::Target;

    #[test]
    fn rules_come_and_go_by_lines() {
        let faults = Arc::new(Faults::default());
        let control = Control::new(faults.clone());
        let put = Target { operation: "PutObject", bucket: None, key: Some("a/b".to_owned()) };
        let added =
            control.obey(r#"{"add": {"fault": "status", "status": 503, "code": "SlowDown", "operation": "PutObject", "key": "a/*"}}"#);
        assert_eq!(added, r#"{"id":1}"#);
        assert_eq!(faults.judge(&put).fault.map(|(_, fault)| fault), Some(Fault::slow_down()));
        assert_eq!(control.obey(r#"{"hits": 1}"#), r#"{"hits":1}"#);
        assert_eq!(control.obey(r#"{"remove": 1}"#), "{}");
        assert!(faults.judge(&put).fault.is_none());
        control.obey(r#"{"add": {"fault": "cut_body", "at": 7, "times": 1}}"#);
        assert_eq!(faults.judge(&put).fault.map(|(_, fault)| fault), Some(Fault::CutBody { at: 7, reset: false }));
        assert_eq!(control.obey(r#""clear""#), "{}");
        assert!(control.obey("nonsense").starts_with(r#"{"error":"#));
        assert!(control.obey(r#"{"add": {"fault": "gremlins"}}"#).contains("gremlins"));
    }
}
