//! What the bucket got from here while a question about it was on its way.
//!
//! From the instant at which an entry goes, the writer knows nothing of its key; what the bucket was seen to hold before is
//! then the only word of it, and wrong. So whoever asks has the keys noted that go meanwhile, in the same instant.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::{Shared, Writer};
use crate::types::Key;

/// The questions under way.
#[derive(Default)]
pub struct Notes {
    next: u64,
    open: HashMap<u64, Note>,
}

struct Note {
    about: Key,
    arrived: BTreeSet<Key>,
}

impl Notes {
    /// The bucket has what was wanted under `key`, which is about to be forgotten.
    pub fn arrive(&mut self, key: &Key) {
        for note in self.open.values_mut().filter(|note| *key == note.about || key.is_below(&note.about.as_directory())) {
            note.arrived.insert(key.clone());
        }
    }

    fn begin(&mut self, about: Key) -> u64 {
        self.next += 1;
        self.open.insert(self.next, Note { about, arrived: BTreeSet::new() });
        self.next
    }
}

/// Notes what arrives until it is dropped.
pub struct Arrivals {
    shared: Arc<Shared>,
    id: u64,
}

impl Writer {
    /// Begun before the bucket is asked about `key` and what is below it.
    pub fn note_arrivals(&self, key: &Key) -> Arrivals {
        let id = self.shared.queue.lock().notes.begin(key.clone());
        Arrivals { shared: self.shared.clone(), id }
    }
}

impl Arrivals {
    /// What was wanted and came into the bucket since, but for what is wanted gone again.
    pub fn keys(&self) -> BTreeSet<Key> {
        let queue = self.shared.queue.lock();
        let Some(note) = queue.notes.open.get(&self.id) else { return BTreeSet::new() };
        note.arrived.iter().filter(|key| queue.get(key).is_none_or(|entry| !entry.is_absent())).cloned().collect()
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.shared.queue.lock().notes.open.remove(&self.id);
    }
}
