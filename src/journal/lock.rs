//! One daemon to one cache directory: makes the directory and holds a lock on it as long as the value lives.
//!
//! The lock is the kernel's (`flock`), so it goes with its process however that ends. The file's text (the holder's
//! pid, and that it is about to end) is only there to be told: to the user, and to who would follow it.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::error::{Error, Result};

use super::exposure::exposure;

const FILE: &str = "lock";
/// Comes after the pid.
const ENDING: &str = ", which is ending";

#[derive(Debug)]
#[must_use = "the directory is free again when this is dropped"]
pub struct DirectoryLock {
    file: File,
}

impl DirectoryLock {
    /// Makes `directory` (0700) where it is missing, and locks it. Errors name the directory, and the process that holds it.
    pub fn acquire(directory: &Path) -> Result<Self> {
        let failed = |what: &str, error: io::Error| {
            let text = format!("{what} {}: {error}; give a --cache-dir that this user may write to", directory.display());
            Error::Disk(io::Error::new(error.kind(), text))
        };
        make(directory).map_err(|error| failed("can't make", error))?;
        // SAFETY: geteuid has no arguments and can't fail.
        let me = unsafe { libc::geteuid() };
        match exposure(directory, me).map_err(|error| failed("can't look at", error))? {
            Some(found) if found.is_refused => {
                let text = format!("{}: {}", found.what, found.fix);
                return Err(Error::Disk(io::Error::new(io::ErrorKind::PermissionDenied, text)));
            }
            _ => {}
        }
        let path = directory.join(FILE);
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(|error| failed("can't write to", error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(directory, &mut file)),
            Err(TryLockError::Error(error)) => return Err(failed("can't lock", error)),
        }
        write_pid(&mut file).map_err(|error| failed("can't write to", error))?;
        Ok(Self { file })
    }

    /// Says that the holder takes nothing new and goes as soon as it can. Who doesn't learn it waits less long, that is all.
    pub fn leaving(&self) {
        let _ = (&self.file).seek(io::SeekFrom::End(0)).and_then(|_| (&self.file).write_all(ENDING.as_bytes()));
    }

    /// Whether the holder has said so. Means something only while there is one.
    pub fn is_left(directory: &Path) -> bool {
        std::fs::read_to_string(directory.join(FILE)).is_ok_and(|text| text.ends_with(ENDING))
    }
}

impl DirectoryLock {
    /// Locks a directory that a daemon used, and changes nothing in it. None: there is no lock to take, and so no daemon.
    pub fn acquire_unchanged(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(FILE);
        let failed = |error: io::Error| Error::Disk(io::Error::new(error.kind(), format!("{}: {error}", path.display())));
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed)?,
        };
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file })),
            Err(TryLockError::WouldBlock) => {
                let text = format!(
                    "{} is in use by {}: ask its mount (`mediafs status`, `mediafs flush`)",
                    directory.display(),
                    holder(&mut file)
                );
                Err(Error::Disk(io::Error::new(io::ErrorKind::ResourceBusy, text)))
            }
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

/// A directory that was there keeps its mode, unless it is empty: `--cache-dir /tmp` must not close /tmp to others.
/// What lies in it is closed to them by its own mode.
fn make(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        if std::fs::read_dir(directory)?.next().is_none() {
            // Somebody else's directory may still be writable to us.
            let _ = std::fs::set_permissions(directory, Permissions::from_mode(0o700));
        }
        return Ok(());
    }
    make_above(directory)?;
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// What is above a cache directory can be entered, for the mounts of other users, and not listed; whatever the process's umask.
pub fn make_above(directory: &Path) -> io::Result<()> {
    let Some(above) = directory.parent().filter(|above| !above.as_os_str().is_empty() && !above.is_dir()) else { return Ok(()) };
    make_above(above)?;
    match DirBuilder::new().mode(0o700).create(above) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| std::fs::set_permissions(above, Permissions::from_mode(0o711))),
    }
}

fn held(directory: &Path, file: &mut File) -> Error {
    let holder = holder(file);
    let text = format!("{} is in use by {holder}: unmount that one first, or give another --cache-dir", directory.display());
    Error::Disk(io::Error::new(io::ErrorKind::ResourceBusy, text))
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => format!("mediafs process {}", text.trim()),
        _ => "another mediafs process".to_owned(),
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn who_is_about_to_go_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::acquire(directory.path()).unwrap();
        assert!(!DirectoryLock::is_left(directory.path()));
        lock.leaving();
        assert!(DirectoryLock::is_left(directory.path()));
        let error = DirectoryLock::acquire(directory.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}, which is ending", std::process::id())), "{error}");
        drop(lock);
        let _lock = DirectoryLock::acquire(directory.path()).unwrap();
        assert!(!DirectoryLock::is_left(directory.path()));
    }

    #[test]
    fn a_second_holder_is_told_who_has_it() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("a/b");
        let lock = DirectoryLock::acquire(&directory).unwrap();
        let error = DirectoryLock::acquire(&directory).unwrap_err().to_string();
        assert!(error.contains(&format!("{}", directory.display())) && error.contains(&std::process::id().to_string()), "{error}");
        drop(lock);
        let _lock = DirectoryLock::acquire(&directory).unwrap();
        assert_eq!((mode(&directory), mode(&directory.join(FILE)), mode(&parent.path().join("a"))), (0o700, 0o600, 0o711));
    }

    #[test]
    fn an_empty_directory_is_closed_and_a_full_one_left_alone() {
        for (full, expected) in [(false, 0o700), (true, 0o755)] {
            let directory = tempfile::tempdir().unwrap();
            if full {
                std::fs::write(directory.path().join("other"), "").unwrap();
            }
            std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
            let _lock = DirectoryLock::acquire(directory.path()).unwrap();
            assert_eq!(mode(directory.path()), expected, "full: {full}");
        }
    }

    #[test]
    fn a_directory_that_others_reach_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let refused = |directory: &Path, part: &str| {
            let error = DirectoryLock::acquire(directory).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("--cache-dir") && !directory.join(FILE).exists(), "{error}");
        };
        let set = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let open = parent.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::write(open.join("other"), "").unwrap();
        for mode in [0o777, 0o770, 0o1777, 0o702] {
            set(&open, mode);
            refused(&open, &format!("(mode 0{mode:o})"));
        }
        let inner = open.join("inner");
        std::fs::create_dir(&inner).unwrap();
        set(&open, 0o777);
        refused(&inner, "everybody may replace");
        set(&open, 0o1777);
        let _lock = DirectoryLock::acquire(&inner).unwrap();
        // SAFETY: geteuid has no arguments and can't fail.
        if unsafe { libc::geteuid() } == 0 {
            let theirs = parent.path().join("theirs");
            std::fs::create_dir(&theirs).unwrap();
            std::os::unix::fs::chown(&theirs, Some(65534), None).unwrap();
            refused(&theirs, "belongs to user 65534");
            let link = parent.path().join("link");
            let target = parent.path().join("target");
            std::fs::create_dir(&target).unwrap();
            std::os::unix::fs::symlink(&target, &link).unwrap();
            std::os::unix::fs::lchown(&link, Some(65534), None).unwrap();
            refused(&link, "is a link that user 65534 made");
        }
    }

    #[test]
    fn nothing_is_followed_out_of_the_directory() {
        let parent = tempfile::tempdir().unwrap();
        let (directory, victim) = (parent.path().join("cache"), parent.path().join("victim"));
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, directory.join(FILE)).unwrap();
        assert!(DirectoryLock::acquire(&directory).is_err());
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    }

    #[test]
    fn a_place_that_cannot_be_a_directory_is_named() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::write(parent.path().join("file"), "").unwrap();
        let directory = parent.path().join("file/cache");
        let error = DirectoryLock::acquire(&directory).unwrap_err().to_string();
        assert!(error.contains("--cache-dir") && error.contains("file/cache"), "{error}");
    }
}
