//! Which parts of an incomplete file are where. Of a complete one there is nothing to say, and that takes a pointer.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use super::spans::SpanSet;
use crate::types::Span;

/// Reads as [`Sets`] with nothing in them until one of them is changed.
#[derive(Clone, Debug, Default)]
pub struct Parts(Option<Box<Sets>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    /// Empty where the file is complete.
    pub present: SpanSet,
    /// Parts that went up ahead and were freed here, start to end. They don't join: each is a part of the upload.
    pub freed: BTreeMap<u64, u64>,
    /// Taken out of the map and the journal, and not yet off the disk.
    pub vacated: SpanSet,
    /// Of an incomplete dirty file (else empty), what the journal calls present. Fetched parts are not in it until they are synced or
    /// written over: a local change has to be in it, wherever it lies.
    pub journalled: SpanSet,
    /// Those of them that a power cut can't take.
    pub durable: SpanSet,
}

static NONE: Sets =
    Sets { present: SpanSet::NONE, freed: BTreeMap::new(), vacated: SpanSet::NONE, journalled: SpanSet::NONE, durable: SpanSet::NONE };

impl Parts {
    /// What the journal calls present, or may.
    pub fn told_or_durable(&self) -> SpanSet {
        self.journalled.iter().chain(self.durable.iter()).collect()
    }

    /// Nothing is absent any more.
    pub fn become_complete(&mut self) {
        self.change(|sets| (sets.present, sets.journalled, sets.durable) = Default::default());
    }

    /// These bytes are absent from here on.
    pub fn take_out(&mut self, span: &Span) {
        self.change(|sets| {
            for set in [&mut sets.present, &mut sets.journalled, &mut sets.durable] {
                set.remove(span.clone());
            }
        });
    }

    /// The file was cut to `size`: returns the freed parts that lay beyond.
    pub fn cut(&mut self, size: u64) -> BTreeMap<u64, u64> {
        self.change(|sets| {
            for set in [&mut sets.present, &mut sets.journalled, &mut sets.durable] {
                set.cut(size);
            }
            sets.freed.split_off(&size)
        })
    }

    pub fn clear(&mut self) {
        self.0 = None;
    }

    /// Does nothing where there is nothing, and keeps nothing if that is left.
    pub fn change<T: Default>(&mut self, change: impl FnOnce(&mut Sets) -> T) -> T {
        let done = self.0.as_deref_mut().map(change).unwrap_or_default();
        if self.0.as_deref() == Some(&NONE) {
            self.0 = None;
        }
        done
    }
}

impl Deref for Parts {
    type Target = Sets;

    fn deref(&self) -> &Sets {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl DerefMut for Parts {
    fn deref_mut(&mut self) -> &mut Sets {
        self.0.get_or_insert_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_take_room_only_while_there_is_something() {
        let mut parts = Parts::default();
        assert!(parts.present.is_empty() && parts.0.is_none());
        parts.change(|sets| sets.present.insert(0..5));
        assert!(parts.0.is_none(), "a change of nothing");
        parts.present.insert(0..10);
        parts.freed.insert(20, 30);
        parts.become_complete();
        assert_eq!((parts.present.is_empty(), parts.freed.len()), (true, 1));
        parts.change(|sets| sets.freed.clear());
        assert!(parts.0.is_none());
    }
}
