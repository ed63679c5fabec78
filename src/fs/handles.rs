//! Open files and directories by their handle numbers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::Ino;
use super::directory::Snapshot;
use crate::cache::{LocalFile, Pin};
use crate::error::{Error, Result};
use crate::namespace::AccessNote;
use crate::reader::ReadPattern;

/// One open(2) of a file. It stays on its data file, whatever the name comes to mean.
pub(super) struct FileHandle {
    pub ino: Ino,
    pub file: Arc<LocalFile>,
    pub readable: bool,
    pub writable: bool,
    pub pattern: Mutex<ReadPattern>,
    /// Bytes changed through this handle since its last flush.
    pub wrote: AtomicBool,
    /// The kernel writes past the daemon.
    pub loose: AtomicBool,
    /// Whether a read moves the inode's access time.
    pub access_note: AccessNote,
    /// Out of eviction while open.
    pub _pin: Pin,
}

pub(super) struct DirectoryHandle {
    pub ino: Ino,
    /// What readdir shows: taken at its first call, and again at the start.
    pub snapshot: Mutex<Option<Arc<Snapshot>>>,
}

#[derive(Default)]
pub(super) struct Handles {
    next: AtomicU64,
    files: RwLock<HashMap<u64, Arc<FileHandle>>>,
    directories: RwLock<HashMap<u64, Arc<DirectoryHandle>>>,
}

impl Handles {
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn add_file(&self, handle: FileHandle) -> u64 {
        let number = self.number();
        self.files.write().insert(number, Arc::new(handle));
        number
    }

    pub fn file(&self, number: u64) -> Result<Arc<FileHandle>> {
        self.files.read().get(&number).cloned().ok_or(Error::BadHandle)
    }

    pub fn remove_file(&self, number: u64) -> Option<Arc<FileHandle>> {
        self.files.write().remove(&number)
    }

    /// Files that the kernel may be writing to.
    pub fn loose(&self) -> Vec<Arc<FileHandle>> {
        self.files.read().values().filter(|handle| handle.loose.load(Ordering::Acquire)).cloned().collect()
    }

    pub fn add_directory(&self, ino: Ino) -> u64 {
        let number = self.number();
        self.directories.write().insert(number, Arc::new(DirectoryHandle { ino, snapshot: Mutex::new(None) }));
        number
    }

    pub fn directory(&self, number: u64) -> Result<Arc<DirectoryHandle>> {
        self.directories.read().get(&number).cloned().ok_or(Error::BadHandle)
    }

    /// Open handles of the directory.
    pub fn of_directory(&self, ino: Ino) -> usize {
        self.directories.read().values().filter(|handle| handle.ino == ino).count()
    }

    pub fn remove_directory(&self, number: u64) {
        self.directories.write().remove(&number);
    }
}
