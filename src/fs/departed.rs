//! Bytes of files that have lost their name, for as long as the kernel knows their inode.
//!
//! A program that looked a name up opens what it found, though the file was replaced or removed in between, as on a disk.
//! The kernel's FORGET comes when nobody can do that any more. Until then the bytes take room that nobody else can have,
//! so a writer that is refused for want of room takes it: who opens such a file after that gets ESTALE.
//!
//! Lock order: after the names, before the state of a data file.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Fs;
use crate::cache::{LocalFile, Pin};
use crate::namespace::{Ino, Namespace};

#[derive(Default)]
pub(super) struct Departed(Mutex<HashMap<Ino, Pin>>);

impl Fs {
    /// An inode without a name was closed for the last time, or lost its name while it was closed: its bytes go, at once
    /// or when the kernel forgets it. What isn't here whole can't be kept: the bucket forgets it.
    pub(super) fn part_with(&self, names: &mut Namespace, ino: Ino) {
        let Some(inode) = names.get(ino) else { return };
        let cached = || self.cache.find_version(inode.version()?);
        if let Some(local) = inode.file().and_then(|file| file.local.clone().or_else(cached)) {
            let pin = local.pin();
            if inode.lookups > 0 && local.is_complete() {
                self.departed.0.lock().insert(ino, pin);
            }
            self.cache.discard(local.id());
        }
        if names.remove_if_unused(ino) {
            self.departed.0.lock().remove(&ino);
        }
    }

    /// The bytes of an inode without a name that nobody has open; None: they are gone.
    pub(super) fn departed(&self, ino: Ino) -> Option<(Arc<LocalFile>, Pin)> {
        self.departed.0.lock().get(&ino).map(|kept| (Arc::clone(kept.file()), kept.file().pin()))
    }

    /// The kernel has forgotten the inode, if it is gone now.
    pub(super) fn forget_departed(&self, names: &Namespace, ino: Ino) {
        if names.get(ino).is_none() {
            self.departed.0.lock().remove(&ino);
        }
    }

    /// Gives up what nobody has open, for want of room. False: there was nothing.
    pub(super) fn give_up_departed(&self) -> bool {
        let departed = std::mem::take(&mut *self.departed.0.lock());
        !departed.is_empty()
    }
}
