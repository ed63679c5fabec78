//! Room on the disk that is the journal's alone, and a limit to its log.
//!
//! Closing, deleting, renaming and the record of a finished upload are commits, and a commit must work on a disk that is
//! full to the last block: the uploads that would make room are recorded by one. So blocks are allocated beyond the end of
//! the log and of the database (`fallocate`, the lengths stay) while there is room, and nobody else can take them. A log
//! within its reserve takes no room from the disk; it is started anew before it outgrows the limit. Where a commit finds
//! the disk full all the same, the log is brought to the database and the commit tried once more.
//!
//! What still fails is one transaction larger than the reserve: as a whole, and the caller is told.
//!
//! Must not: close a descriptor of the database while SQLite has it open (POSIX drops the process' locks with it).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// The log may take this part of a small disk …
const DISK_PART: u64 = 64;
/// … between these: a commit takes some ten KiB, and starting a log anew costs a stall of one fsync.
const LOG_LEAST_BYTES: u64 = 1 << 20;
const LOG_MOST_BYTES: u64 = 64 << 20;
/// Of each of the two files so much is allocated at most: some hundred commits between two checkpoints, and room for
/// thousands of new rows.
const RESERVE_MOST_BYTES: u64 = 4 << 20;

/// SQLite's pages, also those of its log.
pub const PAGE_BYTES: u64 = 4096;

pub struct Reserve {
    database: File,
    log: Option<File>,
    reserve_bytes: u64,
    /// In pages.
    pub log_limit: u64,
    refused: AtomicBool,
}

impl Reserve {
    /// `database` is open, and has a log.
    pub fn open(database: &Path, log: &Path) -> io::Result<Reserve> {
        let database = OpenOptions::new().read(true).write(true).open(database)?;
        let log = OpenOptions::new().read(true).write(true).open(log).ok();
        let log_bytes = (disk_bytes(&database)? / DISK_PART).clamp(LOG_LEAST_BYTES, LOG_MOST_BYTES);
        let reserve_bytes = log_bytes.min(RESERVE_MOST_BYTES);
        let reserve = Reserve { database, log, reserve_bytes, log_limit: log_bytes / PAGE_BYTES, refused: AtomicBool::new(false) };
        reserve.refill();
        Ok(reserve)
    }

    /// Takes what is missing, if the disk has it.
    pub fn refill(&self) {
        let taken = self.log.as_ref().map_or(Ok(()), |log| allocate(log, self.reserve_bytes)).and_then(|()| {
            let length = self.database.metadata()?.len();
            allocate(&self.database, length + self.reserve_bytes)
        });
        let refused = taken.is_err();
        if let (Err(error), false) = (taken, self.refused.swap(refused, Ordering::Relaxed)) {
            tracing::debug!(%error, "the journal has no room of its own");
        }
    }
}

/// Blocks for the first `bytes` of the file, whose length stays.
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    // SAFETY: plain integers on a descriptor that is open as long as the borrow.
    let result = unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, 0, bytes as libc::off_t) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn disk_bytes(file: &File) -> io::Result<u64> {
    let mut facts = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the descriptor is open as long as the borrow, and the pointer is to memory of the right size.
    let result = unsafe { libc::fstatvfs(file.as_raw_fd(), facts.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fstatvfs succeeded, so it filled the structure.
    let facts = unsafe { facts.assume_init() };
    Ok(facts.f_blocks * facts.f_frsize)
}
