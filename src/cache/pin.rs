//! Openers of a data file: while there is one, the file is not evicted and its descriptor stays open.

use std::sync::Arc;

use super::file::LocalFile;
use super::state::State;

/// Keeps a data file open and out of eviction.
pub struct Pin {
    file: Arc<LocalFile>,
}

impl Pin {
    pub fn file(&self) -> &Arc<LocalFile> {
        &self.file
    }
}

impl LocalFile {
    /// Counts an opener. While pinned the file isn't evicted and its descriptor stays open.
    pub fn pin(self: &Arc<Self>) -> Pin {
        let mut state = self.state.lock();
        state.pins += 1;
        if state.pins == 1 {
            self.revive(&mut state);
            self.shared.index.lock().hold(self.id);
        }
        Pin { file: self.clone() }
    }

    /// Brings back a file that was evicted between being looked up and being used, as an empty one.
    pub(super) fn revive(self: &Arc<Self>, state: &mut State) {
        if !state.gone || state.discarded {
            return;
        }
        state.gone = false;
        state.complete = state.size == 0;
        let mut index = self.shared.index.lock();
        index.insert(self.clone());
        if let Some(base) = &state.base
            && !index.has_version(base)
        {
            index.name_version(base, self.id);
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let file = &self.file;
        let mut state = file.state.lock();
        state.pins -= 1;
        if state.pins > 0 {
            return;
        }
        if state.discarded {
            file.bury(&mut state);
            return;
        }
        state.unload_sums();
        if let Some(handle) = state.handle.take() {
            // What changes it from here on is not the daemon.
            if let Ok(metadata) = handle.metadata() {
                state.look(&metadata);
            }
            file.keep(&mut state, &handle);
        }
        if state.is_evictable() {
            file.shared.index.lock().let_go(file);
            file.shared.room.notify_waiters();
        }
    }
}
