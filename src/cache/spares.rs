//! Empty data files that are made before anybody asks for them: making one on the disk is the slowest part of a create(2), most
//! of all where many files were deleted lately, since ext4 doesn't give their inodes away for a while.
//!
//! No row names them: a daemon that is killed leaves them to the next start, which deletes what no row names.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::types::FileId;

use super::shared::Shared;

/// As many as a program saves while some more are made.
const MOST: usize = 256;

#[derive(Default)]
pub struct Spares {
    /// Some are to be kept at all.
    wanted: AtomicBool,
    ready: Mutex<VecDeque<FileId>>,
    filling: AtomicBool,
}

impl Spares {
    pub fn keep(&self) {
        self.wanted.store(true, Ordering::Release);
    }
}

impl Shared {
    /// One that is there, which is the caller's from now on. Has more made where few are left; on a runtime's thread.
    pub fn take_spare(self: &Arc<Self>) -> Option<FileId> {
        if !self.spares.wanted.load(Ordering::Acquire) {
            return None;
        }
        let mut ready = self.spares.ready.lock();
        let spare = ready.pop_front();
        let are_few = ready.len() < MOST / 2;
        drop(ready);
        if are_few && !self.spares.filling.swap(true, Ordering::AcqRel) {
            let me = Arc::downgrade(self);
            tokio::task::spawn_blocking(move || {
                if let Some(shared) = me.upgrade() {
                    shared.make_spares();
                }
            });
        }
        spare
    }

    pub(super) fn make_spares(&self) {
        while self.spares.wanted.load(Ordering::Acquire) && self.spares.ready.lock().len() < MOST {
            let made = self.new_id().and_then(|id| Ok(self.disk.open_file(id, true).map(|_| id)?));
            match made {
                Ok(id) => self.spares.ready.lock().push_back(id),
                Err(error) => {
                    // Whoever needs a file hears of it.
                    tracing::debug!(%error, "no data files can be made ahead");
                    break;
                }
            }
        }
        self.spares.filling.store(false, Ordering::Release);
    }

    /// Deletes those that are left, at the end.
    pub fn drop_spares(&self) {
        self.spares.wanted.store(false, Ordering::Release);
        for id in self.spares.ready.lock().drain(..) {
            if let Err(error) = self.disk.remove(id) {
                tracing::debug!(file = %id, %error, "an empty data file stays until the next start");
            }
        }
    }
}
