//! What has to hold before mounting. Each refusal is one line that says what to change.
//!
//! A mount whose daemon was killed stays in the tree and fails every access with `ENOTCONN`: it is taken away here. One
//! whose daemon lives, or can't be asked within a moment, is left alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use thiserror::Error;
use tracing::info;

use super::{mount, mountinfo};

/// How long a mount that is in the way may take to show that it lives.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// Stale mounts lying on top of each other that are taken away at most: a crash loop piles them up.
const STALE_LIMIT: usize = 64;

#[derive(Debug, Error)]
pub enum MountError {
    #[error("{point}: no such directory; make it: mkdir -p {point}", point = .0.display())]
    Missing(PathBuf),
    #[error("{point} is not a directory; give an empty directory as mount point", point = .0.display())]
    NotDirectory(PathBuf),
    #[error("{point} is not empty; give an empty directory as mount point, since the mount would hide what is in it", point = .0.display())]
    NotEmpty(PathBuf),
    #[error("{point} is already mounted (with {source_name}); unmount it first: umount {point}", point = .point.display())]
    AlreadyMounted { point: PathBuf, source_name: String },
    #[error("{point} is not a mount of mediafs", point = .0.display())]
    NotMounted(PathBuf),
    #[error("{point} can't become read-only: files on it are open for writing; close them first", point = .0.display())]
    OpenForWriting(PathBuf),
    #[error("can't read {path}: {error}", path = .path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("no /dev/fuse; load the kernel module (modprobe fuse), or give the container --device /dev/fuse --cap-add SYS_ADMIN")]
    NoDevice,
    #[error(
        "no right to open /dev/fuse; make it 0666 as most systems do, give the container --device /dev/fuse --cap-add SYS_ADMIN, or run as root"
    )]
    DeviceDenied,
    #[error("no right to mount; run as root with CAP_SYS_ADMIN (container: --cap-add SYS_ADMIN)")]
    NoRight,
    #[error("mounting without being root takes fusermount3, which is not here; install the package fuse3, or run as root")]
    NoFusermount,
    #[error("--allow-other without being root needs the line user_allow_other in /etc/fuse.conf")]
    AllowOtherDenied,
    #[error("fusermount3 mounts only for users with a name; add this uid to /etc/passwd, or run as root")]
    NoUserName,
    #[error(
        "fusermount3 has no right to mount; give it back its setuid bit (chmod u+s), and run without NoNewPrivileges (systemd) and \
         no-new-privileges (containers), or run as root"
    )]
    FusermountPowerless,
    #[error("fusermount3: {0}")]
    Fusermount(String),
    #[error("{what}: {error}")]
    System { what: &'static str, error: io::Error },
}

/// A directory that was found fit to be mounted on. Absolute, without symlinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint(PathBuf);

impl MountPoint {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// Checks `path` and clears it of stale mounts of ours.
pub fn prepare(path: &Path) -> Result<MountPoint, MountError> {
    let point = resolve(path)?;
    for _ in 0..STALE_LIMIT {
        let entry = mountinfo::at(&point).map_err(|error| MountError::Unreadable { path: "/proc/self/mountinfo".into(), error })?;
        let Some(entry) = entry.filter(mountinfo::MountEntry::is_ours) else { break };
        if !is_stale(&point) {
            return Err(MountError::AlreadyMounted { point, source_name: entry.source });
        }
        info!(mountpoint = %point.display(), "taking away the mount that a killed daemon left");
        mount::take_away(&point);
    }
    check_directory(&point)?;
    Ok(MountPoint(point))
}

fn resolve(path: &Path) -> Result<PathBuf, MountError> {
    let error = match fs::canonicalize(path) {
        Ok(point) => return Ok(point),
        Err(error) => error,
    };
    // A stale mount may fail the last step: the way to it can still be resolved.
    let beside = path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
    match (beside.and_then(|parent| fs::canonicalize(parent).ok()), path.file_name()) {
        (Some(parent), Some(name)) if error.raw_os_error() == Some(libc::ENOTCONN) => Ok(parent.join(name)),
        _ if error.kind() == io::ErrorKind::NotFound => Err(MountError::Missing(path.to_owned())),
        _ if error.kind() == io::ErrorKind::NotADirectory => Err(MountError::NotDirectory(path.to_owned())),
        _ => Err(MountError::Unreadable { path: path.to_owned(), error }),
    }
}

/// Asked from a thread of its own: a mount whose daemon hangs would keep the asker for ever.
fn is_stale(point: &Path) -> bool {
    let (send, receive) = mpsc::channel();
    let asked = point.to_owned();
    let asking = thread::Builder::new().name("mediafs-probe".into()).spawn(move || {
        let disconnected = fs::symlink_metadata(asked).is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN));
        // Too late is as good as never.
        send.send(disconnected).ok();
    });
    asking.is_ok() && receive.recv_timeout(ANSWER_TIME).unwrap_or(false)
}

fn check_directory(point: &Path) -> Result<(), MountError> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => MountError::Missing(point.to_owned()),
        io::ErrorKind::NotADirectory => MountError::NotDirectory(point.to_owned()),
        _ => MountError::Unreadable { path: point.to_owned(), error },
    };
    let mut entries = fs::read_dir(point).map_err(unreadable)?;
    if entries.next().is_some() {
        return Err(MountError::NotEmpty(point.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_directory_will_do() {
        let directory = tempfile::tempdir().expect("directory");
        let link = directory.path().join("link");
        let inside = directory.path().join("inside");
        fs::create_dir(&inside).expect("mkdir");
        std::os::unix::fs::symlink(&inside, &link).expect("symlink");
        let point = prepare(&link).expect("fit");
        assert_eq!(point.path(), fs::canonicalize(&inside).expect("path"), "symlinks are resolved");
    }

    #[test]
    fn each_refusal_says_what_to_change() {
        let directory = tempfile::tempdir().expect("directory");
        let file = directory.path().join("file");
        fs::write(&file, "x").expect("file");
        let missing = directory.path().join("missing");
        for (path, part) in [
            (&missing, "mkdir -p"),
            (&file, "is not a directory"),
            (&file.join("x"), "is not a directory"),
            (&directory.path().into(), "is not empty"),
        ] {
            let error = prepare(path).expect_err("refused").to_string();
            assert!(error.contains(part), "{error}");
            assert!(!error.contains('\n'));
        }
    }
}
