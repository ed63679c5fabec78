//! Which request suffers which fault.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::store::{ErrorKind, Operation};

/// What happens to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Fails before anything was done.
    Error(ErrorKind),
    /// Fails with the store's wish to be left alone so long.
    Throttled(Duration),
    /// Works, but later.
    Latency(Duration),
    /// Works at once, but the answer comes later: by then it may be old.
    LateReply(Duration),
    /// Never answers; nothing was done.
    Hang,
    /// The work is done, the answer never comes.
    ReplyLost,
    /// The request never arrives, and the answer that never comes leaves that open.
    RequestLost,
    /// The condition of a GET, or of a copied part on its source, is not looked at.
    Unconditional,
    /// A Complete leaves out the last part, and says that all is well.
    PartLost,
    /// A byte of a GET's body, counted from its begin, is turned over.
    BodyFlip(u64),
    /// A GET's body breaks with an error after so many bytes.
    BodyCut(u64),
    /// A GET's body ends after so many bytes as if that were all.
    BodyShort(u64),
}

/// Which of a rule's matching requests suffer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    Always,
    /// Only this one, from 1.
    Nth(u64),
    /// The first so many.
    First(u64),
    /// Each with this chance, from 0 to 1.
    Probability(f64),
}

/// One rule; made with [`Rule::any`] or [`Rule::on`].
#[derive(Clone, Debug)]
pub struct Rule {
    operation: Option<Operation>,
    key: Option<String>,
    when: When,
    fault: Fault,
    matched: u64,
}

impl Rule {
    /// Every request.
    pub fn any() -> Self {
        Self { operation: None, key: None, when: When::Always, fault: Fault::Error(ErrorKind::Unavailable), matched: 0 }
    }

    pub fn on(operation: Operation) -> Self {
        Self { operation: Some(operation), ..Self::any() }
    }

    /// Only keys like this, where `*` stands for any text. LISTs go by their prefix; requests without a key by "".
    pub fn key(mut self, pattern: &str) -> Self {
        self.key = Some(pattern.to_owned());
        self
    }

    pub fn when(mut self, when: When) -> Self {
        self.when = when;
        self
    }

    pub fn fault(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self
    }

    fn matches(&self, operation: Operation, key: &str) -> bool {
        self.operation.is_none_or(|wanted| wanted == operation) && self.key.as_ref().is_none_or(|pattern| like(pattern, key))
    }
}

/// The rules in force. Clones share them.
#[derive(Clone)]
pub struct Faults(Arc<Mutex<Inner>>);

struct Inner {
    rules: Vec<Rule>,
    random: StdRng,
}

impl Faults {
    /// No rules yet; `seed` decides what chance decides.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner { rules: Vec::new(), random: StdRng::seed_from_u64(seed) })))
    }

    pub fn add(&self, rule: Rule) {
        self.0.lock().rules.push(rule);
    }

    pub fn clear(&self) {
        self.0.lock().rules.clear();
    }

    /// The fault for the next request of this kind; the first rule that fires decides, the later ones don't count it.
    pub(super) fn next(&self, operation: Operation, key: &str) -> Option<Fault> {
        let Inner { rules, random } = &mut *self.0.lock();
        for rule in rules.iter_mut().filter(|rule| rule.matches(operation, key)) {
            rule.matched += 1;
            let fires = match rule.when {
                When::Always => true,
                When::Nth(n) => rule.matched == n,
                When::First(n) => rule.matched <= n,
                When::Probability(chance) => random.random::<f64>() < chance,
            };
            if fires {
                return Some(rule.fault.clone());
            }
        }
        None
    }
}

fn like(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => match text.strip_prefix(head) {
            None => false,
            Some(tail) => tail.char_indices().map(|(at, _)| at).chain([tail.len()]).any(|at| like(rest, &tail[at..])),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_keys() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*.jpg", "é/x.jpg", true),
            ("a/*/c", "a/b/c", true),
            ("a/*/c", "a/c", false),
            ("*", "", true),
        ] {
            assert_eq!(like(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn the_first_rule_that_fires_decides() {
        let faults = Faults::new(7);
        faults.add(Rule::on(Operation::PutObject).key("a*").when(When::Nth(2)).fault(Fault::Hang));
        faults.add(Rule::any().when(When::First(1)).fault(Fault::ReplyLost));
        let next = |operation| faults.next(operation, "ab");
        assert_eq!(next(Operation::PutObject), Some(Fault::ReplyLost));
        assert_eq!(next(Operation::PutObject), Some(Fault::Hang));
        assert_eq!(next(Operation::PutObject), None);
        assert_eq!(next(Operation::GetObject), None);
    }

    #[test]
    fn chance_repeats_with_its_seed() {
        let draw = |seed| {
            let faults = Faults::new(seed);
            faults.add(Rule::any().when(When::Probability(0.5)).fault(Fault::Hang));
            (0..64).map(|_| faults.next(Operation::GetObject, "").is_some()).collect::<Vec<_>>()
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
        assert!(draw(3).contains(&true) && draw(3).contains(&false));
    }
}
