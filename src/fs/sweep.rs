//! What is known of a name before its metadata is: enough to remove it.

use std::ffi::OsStr;
use std::time::Duration;

use super::{Entry, Fs};
use crate::namespace::Ino;

/// In a directory with the sticky bit the kernel compares owners before it removes.
const STICKY: u32 = 0o1000;

impl Fs {
    /// A file of which nothing but a fresh listing is known, for who removes it: to be believed for no time, and owned by
    /// root alone with no permissions, so that what the kernel decides from it is no more than it should allow. None: there
    /// is more to know, or less. Not counted as a lookup.
    pub fn listed_entry(&self, parent: Ino, name: &OsStr) -> Option<Entry> {
        let name = self.name(name).ok()?;
        let names = self.names.lock();
        let ino = names.child(parent, &name)?;
        let inode = names.get(ino)?;
        if inode.known || inode.file().is_none() || inode.opens > 0 || !self.asks_headers(&names, ino) {
            return None;
        }
        if names.get(parent)?.mode & STICKY != 0 {
            return None;
        }
        let is_fresh = inode.checked.is_some_and(|checked| self.fresh_since().is_none_or(|since| checked >= since));
        let key = names.key(ino)?;
        if !is_fresh || self.writer.pending(&key).is_some() || self.writer.is_landing(&key) {
            return None;
        }
        let mut attr = self.attr(&names, ino).ok()?;
        (attr.mode, attr.uid, attr.gid) = (0, 0, 0);
        Some(Entry { attr, ttl: Duration::ZERO })
    }
}
