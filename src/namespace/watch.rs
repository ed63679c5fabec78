//! Guards a question to the bucket against local changes while it is under way.
//!
//! An answer that was already on its way when a name was created, uploaded or removed here would undo that change. So
//! each question registers what it is about; a local change marks it; and what the answer says of marked names is dropped.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Ino;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WatchId(u64);

#[derive(Debug, Default)]
pub(super) struct Watches {
    next: u64,
    open: HashMap<WatchId, Watch>,
}

#[derive(Debug)]
struct Watch {
    /// None: all directories, for a question about a whole tree.
    directory: Option<Ino>,
    touched: HashSet<(Ino, Arc<str>)>,
}

impl Watches {
    pub(super) fn begin(&mut self, directory: Option<Ino>) -> WatchId {
        self.next += 1;
        let id = WatchId(self.next);
        self.open.insert(id, Watch { directory, touched: HashSet::new() });
        id
    }

    pub(super) fn touch(&mut self, directory: Ino, name: &Arc<str>) {
        for watch in self.open.values_mut().filter(|watch| watch.directory.is_none_or(|watched| watched == directory)) {
            watch.touched.insert((directory, Arc::clone(name)));
        }
    }

    pub(super) fn end(&mut self, id: WatchId) {
        self.open.remove(&id);
    }

    /// True where `name` in `directory` changed locally since `begin`.
    pub(super) fn touched(&self, id: WatchId, directory: Ino, name: &Arc<str>) -> bool {
        self.open.get(&id).is_some_and(|watch| watch.touched.contains(&(directory, Arc::clone(name))))
    }
}
