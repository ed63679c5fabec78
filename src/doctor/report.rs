//! What was found: the outcomes of the steps, and how they read as text and as JSON. Pure.

use std::fmt::Write;

use serde::Serialize;
use serde_json::{Value, json};

pub use super::step::Step;
use crate::types::Key;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Passed,
    Failed,
    /// A mount works, with a drawback that its operator should know.
    Warning,
    /// Not looked at; the text says why.
    Skipped,
}

impl Outcome {
    fn mark(self) -> &'static str {
        match self {
            Self::Passed => "✓",
            Self::Failed => "✗",
            Self::Warning => "!",
            Self::Skipped => "–",
        }
    }

    /// Of the terminal: green, red, yellow, grey.
    fn colour(self) -> &'static str {
        match self {
            Self::Passed => "32",
            Self::Failed => "31",
            Self::Warning => "33",
            Self::Skipped => "90",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub step: Step,
    pub outcome: Outcome,
    /// What was found, or the cause of the failure, in one line.
    pub text: String,
    /// What to change; empty where nothing is to be done.
    pub fix: String,
}

/// As wide as the longest name of a step.
const NAME_WIDTH: usize = 20;

impl Finding {
    /// One or two lines.
    pub fn shown(&self, colour: bool) -> String {
        let mark = match colour {
            true => format!("\u{1b}[{}m{}\u{1b}[0m", self.outcome.colour(), self.outcome.mark()),
            false => self.outcome.mark().to_owned(),
        };
        let mut text = format!("  {mark} {:NAME_WIDTH$} {}\n", self.step.names().1, self.text);
        if !self.fix.is_empty() {
            // Writing to a String can't fail.
            let _ = writeln!(text, "    {:NAME_WIDTH$} fix: {}", "", self.fix);
        }
        text
    }

    fn json(&self) -> Value {
        let (area, name) = self.step.names();
        let fix = (!self.fix.is_empty()).then_some(&self.fix);
        json!({ "area": area, "step": name, "outcome": self.outcome, "text": self.text, "fix": fix })
    }
}

/// Findings as they are made; each is also told at once.
pub struct Sheet<'a> {
    pub findings: Vec<Finding>,
    tell: &'a mut (dyn FnMut(&Finding) + Send),
}

impl<'a> Sheet<'a> {
    pub fn new(tell: &'a mut (dyn FnMut(&Finding) + Send)) -> Self {
        Self { findings: Vec::new(), tell }
    }

    pub fn pass(&mut self, step: Step, text: impl AsRef<str>) {
        self.add(step, Outcome::Passed, text.as_ref(), "");
    }

    pub fn fail(&mut self, step: Step, text: impl AsRef<str>, fix: impl AsRef<str>) {
        self.add(step, Outcome::Failed, text.as_ref(), fix.as_ref());
    }

    pub fn warn(&mut self, step: Step, text: impl AsRef<str>, fix: impl AsRef<str>) {
        self.add(step, Outcome::Warning, text.as_ref(), fix.as_ref());
    }

    pub fn skip(&mut self, step: Step, why: impl AsRef<str>) {
        self.add(step, Outcome::Skipped, why.as_ref(), "");
    }

    /// All of these that nothing was found about yet.
    pub fn skip_rest(&mut self, steps: &[Step], why: &str) {
        for step in steps {
            if self.outcome(*step).is_none() {
                self.skip(*step, why);
            }
        }
    }

    pub fn outcome(&self, step: Step) -> Option<Outcome> {
        self.findings.iter().find(|finding| finding.step == step).map(|finding| finding.outcome)
    }

    /// Stores and disks hold other people's words: nothing in them may steer a terminal.
    fn add(&mut self, step: Step, outcome: Outcome, text: &str, fix: &str) {
        let finding = Finding { step, outcome, text: Key::from(text).to_string(), fix: Key::from(fix).to_string() };
        (self.tell)(&finding);
        self.findings.push(finding);
    }
}

/// Everything that was found.
#[derive(Clone, Debug)]
pub struct Report {
    /// `s3://BUCKET/PREFIX`.
    pub source: String,
    pub endpoint: String,
    pub findings: Vec<Finding>,
    /// Keys (from the bucket's root) that could not be taken away again.
    pub left_behind: Vec<String>,
    pub grant: super::Grant,
}

impl Report {
    /// True where nothing failed; warnings and skipped steps are no failures.
    pub fn is_healthy(&self) -> bool {
        self.count(Outcome::Failed) == 0
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.findings.iter().filter(|finding| finding.outcome == outcome).count()
    }

    /// What comes after the findings.
    pub fn closing(&self) -> String {
        let mut text = String::new();
        if !self.left_behind.is_empty() {
            text.push_str("\nleft behind in the bucket, to be deleted by hand:\n");
            for key in &self.left_behind {
                let _ = writeln!(text, "  {}", Key::from(key.as_str()));
            }
        }
        let _ = write!(text, "\n{}\n\n", self.grant.shown());
        let (failed, warned) = (self.count(Outcome::Failed), self.count(Outcome::Warning));
        let verdict = match (failed, warned) {
            (0, 0) => "all is well".to_owned(),
            (0, warned) => format!("it works; {warned} of the above could be better"),
            (failed, _) => format!("{failed} of the above failed: begin with the first"),
        };
        text.push_str(&verdict);
        text.push('\n');
        text
    }

    pub fn json(&self) -> Value {
        let steps: Vec<Value> = self.findings.iter().map(Finding::json).collect();
        json!({
            "bucket": self.source, "endpoint": self.endpoint, "ok": self.is_healthy(), "steps": steps,
            "left_behind": self.left_behind, "grant": self.grant.json(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grant;

    #[test]
    fn steps_have_one_name_each_that_fits() {
        let mut names: Vec<_> = Step::ALL.iter().map(|step| step.names()).collect();
        assert!(Step::ALL.is_sorted() && names.iter().all(|(_, name)| name.chars().count() <= NAME_WIDTH));
        names.dedup();
        assert_eq!(names.len(), Step::ALL.len());
    }

    #[test]
    fn a_report_reads_as_text_and_as_json() {
        let mut told = String::new();
        let mut tell = |finding: &Finding| told.push_str(&finding.shown(false));
        let mut sheet = Sheet::new(&mut tell);
        sheet.pass(Step::Dns, "is here");
        sheet.fail(Step::Put, "AccessDenied\u{1b}[31m", "allow s3:PutObject");
        sheet.skip_rest(&[Step::Dns, Step::Copy], "put is refused");
        let findings = sheet.findings;
        assert_eq!(
            told,
            "  ✓ name                 is here\n  ✗ put                  AccessDenied\\u{1b}[31m\n                         fix: allow s3:PutObject\n  \
             – copy                 put is refused\n"
        );
        assert!(findings[0].shown(true).contains("\u{1b}[32m✓"));
        let grant = Grant::new("b", "", "us-east-1", false, false);
        let report = Report { source: "s3://b".into(), endpoint: "h".into(), findings, left_behind: vec!["p/k".into()], grant };
        let json = report.json();
        assert_eq!((&json["ok"], &json["steps"][1]["outcome"], &json["steps"][0]["fix"]), (&json!(false), &json!("failed"), &Value::Null));
        assert_eq!(json["steps"][2]["outcome"], "skipped");
        let closing = report.closing();
        assert!(closing.contains("  p/k\n") && closing.ends_with("1 of the above failed: begin with the first\n"), "{closing}");
    }
}
