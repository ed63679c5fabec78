//! Whether a disk's times tell of every write, which is all that the daemon learns of writes past it.
//!
//! Two things are needed. Two writes in a row must leave different times, however soon they follow each other, once somebody
//! has looked in between (Linux 6.13, on ext4, xfs, btrfs). And a store through mmap must move them again after the page went
//! to the disk, which it doesn't where pages never go there (tmpfs).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::disk;

/// Tried so often: a disk whose clock ticks now and then would pass once by luck.
const TRIES: usize = 16;

/// Each waits for the disk.
const STORES: usize = 4;

const PAGE: usize = 4096;

/// True where nothing that is written in this directory goes unnoticed.
pub fn tells_of_every_write(directory: &Path) -> bool {
    let path = directory.join("probe");
    let told = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).and_then(|file| tells(&file));
    if let Err(error) = std::fs::remove_file(&path) {
        tracing::debug!(%error, "a probe stays in the cache directory");
    }
    told.unwrap_or(false)
}

fn tells(file: &File) -> io::Result<bool> {
    let mut before = None;
    for _ in 0..TRIES {
        file.write_all_at(&[0; PAGE], 0)?;
        let now = modified(file)?;
        if before.replace(now) == Some(now) {
            return Ok(false);
        }
    }
    let page = Page::of(file)?;
    for round in 0..STORES {
        page.store(round as u8);
        let now = modified(file)?;
        if before.replace(now) == Some(now) {
            return Ok(false);
        }
        disk::write_pages(file)?;
    }
    Ok(true)
}

fn modified(file: &File) -> io::Result<(i64, i64)> {
    file.metadata().map(|metadata| (metadata.mtime(), metadata.mtime_nsec()))
}

/// A file's first page in memory.
struct Page(*mut libc::c_void);

impl Page {
    fn of(file: &File) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a mapping at an address of the kernel's choice, of a file that is open and has so many bytes.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self(at)) }
    }

    fn store(&self, byte: u8) {
        // SAFETY: the mapping is writable and lives as long as `self`; volatile, since the store itself is what counts.
        unsafe { self.0.cast::<u8>().write_volatile(byte) };
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: what mmap gave, once.
        unsafe { libc::munmap(self.0, PAGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_never_go_to_a_disk_are_not_trusted() {
        let Ok(directory) = tempfile::tempdir_in("/dev/shm") else { return };
        assert!(!tells_of_every_write(directory.path()));
        assert_eq!(std::fs::read_dir(directory.path()).expect("directory").count(), 0, "the probe is gone");
    }
}
