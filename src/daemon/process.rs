//! What the process asks of the kernel for itself, and of the disk for the cache. The system calls of the daemon.

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tracing::debug;

use super::settings::{FreeSpaceFloor, Settings};
use crate::cache::tells_of_every_write;
use crate::fuse::Passthrough;

/// The default floor: 5 % of a small disk, no more than this on a large one.
const FLOOR_LIMIT_BYTES: u64 = 1 << 30;
const FLOOR_PERCENT: u8 = 5;
/// Above a request of the kernel, below a part: what is mapped for itself costs page faults, which a part has time for.
#[cfg(target_env = "gnu")]
const LARGE_BUFFER_BYTES: i32 = 4 << 20;
/// As many threads contend for the allocator here.
#[cfg(target_env = "gnu")]
const HEAPS: i32 = 4;

/// Prepares the process: files of its own are nobody else's, no core dump carries a secret, and as many files may be
/// open as the system lets it. What the kernel refuses is left as it is.
pub fn prepare() {
    // SAFETY: umask takes a number and can't fail.
    unsafe { libc::umask(0o077) };
    // SAFETY: prctl with this operation takes one number.
    let undumpable = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
    if undumpable != 0 {
        debug!(error = %io::Error::last_os_error(), "core dumps stay as they are");
    }
    give_memory_back();
    set_limit(libc::RLIMIT_CORE, |limit| limit.rlim_cur = 0);
    set_limit(libc::RLIMIT_NOFILE, |limit| limit.rlim_cur = limit.rlim_max);
}

/// Buffers as large as the parts of an upload go back to the system when they are freed. The C library's own rule keeps the
/// largest that it has seen, in a heap for each thread that made one: several times what was ever in use at once.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in
        [(libc::M_MMAP_THRESHOLD, LARGE_BUFFER_BYTES), (libc::M_TRIM_THRESHOLD, LARGE_BUFFER_BYTES), (libc::M_ARENA_MAX, HEAPS)]
    {
        // SAFETY: mallopt takes two numbers; before any other thread is there.
        let done = unsafe { libc::mallopt(parameter, value) };
        if done == 0 {
            debug!(parameter, "the allocator stays as it is");
        }
    }
}

/// The C libraries have different types for it.
#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

fn set_limit(resource: Resource, change: impl Fn(&mut libc::rlimit)) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid resource and an out-pointer that lives during the call.
    let mut done = unsafe { libc::getrlimit(resource, &raw mut limit) };
    if done == 0 {
        change(&mut limit);
        // SAFETY: a valid resource and a filled-in limit.
        done = unsafe { libc::setrlimit(resource, &raw const limit) };
    }
    if done != 0 {
        debug!(error = %io::Error::last_os_error(), "a resource limit stays as it is");
    }
}

/// For the names of conflict copies.
pub fn host_name() -> String {
    let mut buffer = [0u8; 256];
    // SAFETY: a buffer with its true length, less one byte so that a cut name still ends in NUL.
    let done = unsafe { libc::gethostname(buffer.as_mut_ptr().cast(), buffer.len() - 1) };
    let name = buffer.split(|&byte| byte == 0).next().unwrap_or_default();
    match std::str::from_utf8(name) {
        Ok(name) if done == 0 && !name.is_empty() => name.to_owned(),
        _ => "localhost".to_owned(),
    }
}

/// The floor in bytes on the disk that `directory` lies on.
pub fn floor_bytes(floor: FreeSpaceFloor, directory: &Path) -> io::Result<u64> {
    Ok(match floor {
        FreeSpaceFloor::Bytes(bytes) => bytes,
        FreeSpaceFloor::Percent(percent) => percent_of(disk_size(directory)?, percent),
        FreeSpaceFloor::Default => percent_of(disk_size(directory)?, FLOOR_PERCENT).min(FLOOR_LIMIT_BYTES),
    })
}

fn percent_of(bytes: u64, percent: u8) -> u64 {
    bytes / 100 * u64::from(percent)
}

fn disk_size(directory: &Path) -> io::Result<u64> {
    let path = CString::new(directory.as_os_str().as_bytes())?;
    // SAFETY: an all-zero statvfs is valid (numbers only).
    let mut facts: libc::statvfs = unsafe { mem::zeroed() };
    // SAFETY: a NUL-terminated path and an out-pointer that live during the call.
    let done = unsafe { libc::statvfs(path.as_ptr(), &raw mut facts) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(facts.f_blocks.saturating_mul(facts.f_frsize))
}

/// The directory is on overlayfs, as those of containers are.
pub fn is_overlay(directory: &Path) -> bool {
    let Ok(path) = CString::new(directory.as_os_str().as_bytes()) else { return false };
    // SAFETY: an all-zero statfs is valid (numbers only).
    let mut facts: libc::statfs = unsafe { mem::zeroed() };
    // SAFETY: a NUL-terminated path and an out-pointer that live during the call.
    let done = unsafe { libc::statfs(path.as_ptr(), &raw mut facts) };
    // Of which the C libraries have different types.
    done == 0 && i128::from(facts.f_type) == i128::from(libc::OVERLAYFS_SUPER_MAGIC)
}

/// What was asked for, as far as the cache's disk allows it: it has to tell of every write.
pub fn passthrough(settings: &Settings) -> Passthrough {
    if settings.passthrough == Passthrough::All && !tells_of_every_write(&settings.cache_dir) {
        debug!("the cache's disk doesn't tell of every write: all writes go through the daemon");
        return Passthrough::Read;
    }
    settings.passthrough
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_floor_is_the_smaller_of_both() {
        let directory = tempfile::tempdir().expect("directory");
        let of = |floor| floor_bytes(floor, directory.path()).expect("statvfs");
        let size = disk_size(directory.path()).expect("statvfs");
        assert!(size > 0);
        assert_eq!(of(FreeSpaceFloor::Bytes(7)), 7);
        assert_eq!(of(FreeSpaceFloor::Percent(10)), size / 100 * 10);
        assert_eq!(of(FreeSpaceFloor::Default), (size / 100 * 5).min(1 << 30));
    }

    #[test]
    fn the_host_has_a_name() {
        assert!(!host_name().is_empty());
    }
}
