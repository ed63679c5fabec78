//! Which bytes of a file changed locally, since its base and since each upload that is under way. Pure.
//!
//! Changes are counted, and gathered in epochs; [`Changes::mark`] ends one. What changed after a mark is then known
//! exactly, whatever came before it: an upload that finishes while the file is being written to makes only the later
//! changes dirty.

use std::collections::BTreeMap;

use crate::types::Span;

use super::spans::SpanSet;

/// Marks kept apart. One upload is under way at a time; what asks more often gets a mark that is a little too old,
/// which counts too much as changed and never too little.
const EPOCHS: usize = 8;

#[derive(Debug, Default)]
pub struct Changes {
    /// Changes so far.
    count: u64,
    epochs: Vec<Epoch>,
    /// Spans that somebody reads, by number: did they change since?
    watches: BTreeMap<u64, Watched>,
    watched: u64,
}

#[derive(Debug)]
struct Watched {
    span: Span,
    changed: bool,
}

#[derive(Debug)]
struct Epoch {
    /// The count when it began.
    from: u64,
    spans: SpanSet,
}

impl Changes {
    /// Changes so far: equal, nothing changed in between.
    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn record(&mut self, span: Span) {
        for watch in self.watches.values_mut() {
            watch.changed |= span.start < watch.span.end && watch.span.start < span.end;
        }
        self.epoch().spans.insert(span);
        self.count += 1;
    }

    /// The file was cut to `size`: what lay beyond is no part of it any more.
    pub fn cut(&mut self, size: u64) {
        self.watches.values_mut().for_each(|watch| watch.changed |= size < watch.span.end);
        self.epochs.iter_mut().for_each(|epoch| epoch.spans.cut(size));
        self.count += 1;
    }

    /// Begins an epoch here, and tells the count to ask for later.
    pub fn mark(&mut self) -> u64 {
        let count = self.count;
        if self.epochs.last().is_some_and(|epoch| epoch.from != count) {
            self.epochs.push(Epoch { from: count, spans: SpanSet::default() });
        }
        if self.epochs.len() > EPOCHS {
            let second = self.epochs.remove(1);
            self.epochs[0].spans.unite(&second.spans);
        }
        count
    }

    /// Looks at `span` from now on, until `unwatch`.
    pub fn watch(&mut self, span: Span) -> u64 {
        self.watched += 1;
        self.watches.insert(self.watched, Watched { span, changed: false });
        self.watched
    }

    /// Did something change in what was watched under this number?
    pub fn has_changed(&self, number: u64) -> bool {
        self.watches.get(&number).is_none_or(|watch| watch.changed)
    }

    pub fn unwatch(&mut self, number: u64) {
        self.watches.remove(&number);
    }

    /// Everything that changed.
    pub fn all(&self) -> SpanSet {
        let mut all = SpanSet::default();
        self.epochs.iter().for_each(|epoch| all.unite(&epoch.spans));
        all
    }

    /// Forgets what changed before the mark `count`; the count goes on.
    pub fn forget_before(&mut self, count: u64) {
        let first = self.epochs.iter().rposition(|epoch| epoch.from <= count).unwrap_or(0);
        if self.count == count {
            self.epochs = Vec::new();
        } else {
            self.epochs.drain(..first);
        }
    }

    fn epoch(&mut self) -> &mut Epoch {
        if self.epochs.is_empty() {
            // Of most files there never is another one: a vector that grew by itself would have room for four.
            self.epochs.reserve_exact(1);
            self.epochs.push(Epoch { from: self.count, spans: SpanSet::default() });
        }
        self.epochs.last_mut().expect("there is one by now")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_came_after_the_mark_stays() {
        let mut changes = Changes::default();
        changes.record(0..10);
        let mark = changes.mark();
        changes.record(5..8);
        changes.record(20..30);
        changes.cut(25);
        assert_eq!(changes.all().iter().collect::<Vec<_>>(), [0..10, 20..25]);
        changes.forget_before(mark);
        assert_eq!(changes.all().iter().collect::<Vec<_>>(), [5..8, 20..25]);
        assert_eq!(changes.count, 4);
        let mark = changes.mark();
        changes.forget_before(mark);
        assert!(changes.all().is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Record(Span),
        Cut(u64),
        Mark,
    }

    proptest! {
        #[test]
        fn never_less_than_what_changed(
            steps in prop::collection::vec(prop_oneof![
                4 => (0u64..20, 1u64..6).prop_map(|(at, n)| Step::Record(at..at + n)),
                1 => (0u64..20).prop_map(Step::Cut),
                2 => Just(Step::Mark),
            ], 0..60),
            which in any::<prop::sample::Index>(),
        ) {
            let mut changes = Changes::default();
            let mut marks = vec![(0, 0)];
            for (index, step) in steps.iter().enumerate() {
                match step {
                    Step::Record(span) => changes.record(span.clone()),
                    Step::Cut(size) => changes.cut(*size),
                    Step::Mark => marks.push((changes.mark(), index)),
                }
            }
            let (mark, index) = marks[which.index(marks.len())];
            let mut expected = SpanSet::default();
            for step in &steps[index..] {
                match step {
                    Step::Record(span) => expected.insert(span.clone()),
                    Step::Cut(size) => expected.cut(*size),
                    Step::Mark => {}
                }
            }
            let marks_after = marks.iter().filter(|(count, _)| *count >= mark).count();
            changes.forget_before(mark);
            let all = changes.all();
            for span in expected.iter() {
                prop_assert!(all.contains(&span), "{span:?} in {all:?}");
            }
            if marks_after < EPOCHS {
                prop_assert_eq!(all, expected);
            }
        }
    }
}
