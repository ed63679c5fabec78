//! Puts the file system into the tree and takes it out again.
//!
//! With the right to with mount(2) and umount2(2), without it through the setuid program fusermount3. The unmount is always lazy
//! (a program that has a file open goes on) and only ever takes our own mount: what was unmounted from outside may have
//! a successor at the same path already.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tracing::{debug, warn};

use super::mountinfo::{self, FS_TYPE};
use super::mountpoint::{MountError, MountPoint};
use super::{MAX_REQUEST_BYTES, fusermount};

/// Lets the kernel read ahead in requests of 1 MiB; its default, 128 KiB, costs eight times the round trips.
const READ_AHEAD_KIB: u32 = 1024;

/// How the mount shows in the tree.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// What `/proc/mounts` shows as the source: `s3://BUCKET/PREFIX`.
    pub source: String,
    pub allow_other: bool,
    pub read_only: bool,
    pub no_exec: bool,
    pub no_access_times: bool,
}

pub(super) struct Mount {
    point: PathBuf,
    /// None where the mount table didn't show it.
    device: Option<String>,
}

/// Mounts; the returned descriptor is the kernel's end.
pub(super) fn attach(point: &MountPoint, options: &MountOptions) -> Result<(Mount, OwnedFd), MountError> {
    let point = point.path();
    let descriptor = if may_mount() { mount_directly(point, options)? } else { fusermount::mount(point, options)? };
    let device = mountinfo::at(point).ok().flatten().filter(|entry| entry.is_ours()).map(|entry| entry.device);
    Ok((Mount { point: point.to_owned(), device }, descriptor))
}

/// As root, and as a service's user that keeps just this right (`AmbientCapabilities=CAP_SYS_ADMIN`).
fn may_mount() -> bool {
    // SAFETY: geteuid has no arguments and can't fail.
    let is_root = unsafe { libc::geteuid() == 0 };
    is_root || fs::read_to_string("/proc/self/status").is_ok_and(|status| holds_sys_admin(&status))
}

/// Whether the effective capabilities in `/proc/PID/status` have the one that mount(2) takes.
fn holds_sys_admin(status: &str) -> bool {
    const SYS_ADMIN: u64 = 1 << 21;
    let effective = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    effective.is_some_and(|effective| effective & SYS_ADMIN != 0)
}

fn mount_directly(point: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    let descriptor = opened.map(OwnedFd::from).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => MountError::NoDevice,
        Some(libc::EPERM | libc::EACCES) => MountError::DeviceDenied,
        _ => MountError::System { what: "opening /dev/fuse", error },
    })?;
    mount_system_call(point, options, &descriptor).map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => MountError::NoRight,
        Some(libc::ENODEV) => MountError::NoDevice,
        _ => MountError::System { what: "mounting", error },
    })?;
    Ok(descriptor)
}

fn mount_system_call(point: &Path, options: &MountOptions, device: &OwnedFd) -> io::Result<()> {
    let source = CString::new(options.source.as_str())?;
    let target = CString::new(point.as_os_str().as_bytes())?;
    let fs_type = CString::new(FS_TYPE)?;
    let data = CString::new(kernel_options(options, device.as_raw_fd()))?;
    let mut flags = libc::MS_NOSUID | libc::MS_NODEV;
    if options.read_only {
        flags |= libc::MS_RDONLY;
    }
    if options.no_exec {
        flags |= libc::MS_NOEXEC;
    }
    if options.no_access_times {
        flags |= libc::MS_NOATIME;
    }
    // SAFETY: all four are NUL-terminated strings that outlive the call.
    let done = unsafe { libc::mount(source.as_ptr(), target.as_ptr(), fs_type.as_ptr(), flags, data.as_ptr().cast()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn kernel_options(options: &MountOptions, device: i32) -> String {
    // SAFETY: neither call has arguments or can fail.
    let (uid, gid) = unsafe { (libc::getuid(), libc::getgid()) };
    let mut text = format!("fd={device},rootmode=40755,user_id={uid},group_id={gid},default_permissions,max_read={MAX_REQUEST_BYTES}");
    if options.allow_other {
        text.push_str(",allow_other");
    }
    text
}

/// Changes the flags of a mount of ours. The daemon isn't asked: the kernel keeps what it forbids from it.
pub fn remount(point: &Path, read_only: bool, no_exec: bool) -> Result<(), MountError> {
    let unreadable = |path: &Path, error| MountError::Unreadable { path: path.to_owned(), error };
    let point = fs::canonicalize(point).map_err(|error| unreadable(point, error))?;
    let entry = mountinfo::at(&point).map_err(|error| unreadable(Path::new("/proc/self/mountinfo"), error))?;
    if !entry.is_some_and(|entry| entry.is_ours()) {
        return Err(MountError::NotMounted(point));
    }
    let target = CString::new(point.as_os_str().as_bytes()).map_err(|error| unreadable(&point, error.into()))?;
    let mut flags = libc::MS_REMOUNT | libc::MS_NOSUID | libc::MS_NODEV;
    if read_only {
        flags |= libc::MS_RDONLY;
    }
    if no_exec {
        flags |= libc::MS_NOEXEC;
    }
    let nothing = std::ptr::null();
    // SAFETY: the target is a NUL-terminated string that outlives the call; a remount reads no other text.
    let done = unsafe { libc::mount(nothing, target.as_ptr(), nothing, flags, nothing.cast()) };
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        _ if done == 0 => Ok(()),
        Some(libc::EPERM | libc::EACCES) => Err(MountError::NoRight),
        Some(libc::EBUSY) => Err(MountError::OpenForWriting(point)),
        _ => Err(MountError::System { what: "remounting", error }),
    }
}

impl Mount {
    /// Best effort: slower sequential reads of what isn't cached are all that fails without it.
    pub fn widen_readahead(&self) {
        let Some(device) = &self.device else { return };
        let knob = format!("/sys/class/bdi/{device}/read_ahead_kb");
        if let Err(error) = fs::write(&knob, READ_AHEAD_KIB.to_string()) {
            debug!(knob, %error, "the kernel reads ahead by its default");
        }
    }

    /// Takes this very mount out of the tree, lazily. Does nothing where it is gone or covered.
    pub fn detach(&self) {
        let uppermost = match mountinfo::at(&self.point) {
            Ok(entry) => entry,
            Err(error) => return warn!(%error, "can't see what is mounted; leaving the mount point as it is"),
        };
        if uppermost.is_some_and(|entry| entry.is_ours() && self.device.as_ref().is_none_or(|device| *device == entry.device)) {
            take_away(&self.point);
        }
    }
}

/// Lazily unmounts what is uppermost at `point`. Failure is logged: there is nothing else to do about it.
pub(super) fn take_away(point: &Path) {
    let done = if may_mount() { unmount_directly(point) } else { fusermount::unmount(point) };
    if let Err(error) = done {
        warn!(mountpoint = %point.display(), %error, "unmounting failed");
    }
}

fn unmount_directly(point: &Path) -> io::Result<()> {
    let target = CString::new(point.as_os_str().as_bytes())?;
    // SAFETY: a NUL-terminated string that outlives the call.
    let done = unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(allow_other: bool) -> MountOptions {
        MountOptions { source: "s3://b".into(), allow_other, read_only: false, no_exec: false, no_access_times: false }
    }

    #[test]
    fn one_capability_is_enough() {
        for (status, holds) in [
            ("Name:\tx\nCapEff:\t000001ffffffffff\n", true),
            ("CapPrm:\t0000000000200000\nCapEff:\t0000000000200000\n", true),
            ("CapPrm:\t0000000000200000\nCapEff:\t0000000000000000\n", false),
            ("CapEff:\t00000000001fffff\n", false),
            ("", false),
        ] {
            assert_eq!(holds_sys_admin(status), holds, "{status}");
        }
    }

    #[test]
    fn the_kernel_always_checks_permissions() {
        let text = kernel_options(&options(false), 7);
        assert!(text.starts_with("fd=7,rootmode=40755,") && text.contains(",default_permissions,max_read=1048576"), "{text}");
        assert!(!text.contains("allow_other"));
        assert!(kernel_options(&options(true), 7).ends_with(",allow_other"));
    }
}
