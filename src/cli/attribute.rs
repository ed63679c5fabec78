//! Reads the status of a mount, an extended attribute of its root; and other attributes.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Failure;
use crate::daemon::{Report, STATUS_ATTRIBUTE};
use crate::fuse;

/// The report grows with the files that failed; between asking for its length and for itself it may have grown more.
const SPARE_BYTES: usize = 4096;
const ATTEMPTS: usize = 4;

/// The root of the mediafs mount that `path` lies on.
pub fn mount_root(path: &Path) -> Result<PathBuf, Failure> {
    let absolute = match std::fs::canonicalize(path) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotConnected => std::path::absolute(path)?,
        Err(error) => return Err(Failure::Failed(format!("{}: {error}", path.display()))),
    };
    match fuse::mount_of(&absolute)? {
        Some(entry) if entry.is_ours() => Ok(entry.point),
        _ => Err(Failure::Failed(format!("{} is not on a mediafs mount; see what is mounted with: mount -t fuse.mediafs", path.display()))),
    }
}

/// The report as the daemon sent it, and as it is understood.
pub fn report(root: &Path) -> Result<(String, Report), Failure> {
    let shown = root.display();
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotConnected => format!("the daemon of {shown} is gone; mount again, which also clears the mount point"),
        io::ErrorKind::PermissionDenied => format!("{shown} belongs to another user; ask as that user, or mount with --allow-other"),
        _ => format!("{shown}: {error}"),
    };
    let text = read(root, STATUS_ATTRIBUTE).map_err(|error| Failure::Failed(failed(error)))?;
    let report = serde_json::from_str(&text)
        .map_err(|error| Failure::Failed(format!("the daemon of {} is another version: {error}", root.display())))?;
    Ok((text, report))
}

/// An attribute's text.
pub fn read(path: &Path, name: &str) -> io::Result<String> {
    let (path, name) = (CString::new(path.as_os_str().as_bytes())?, CString::new(name)?);
    let mut result = Err(io::Error::other("the status keeps growing"));
    for _ in 0..ATTEMPTS {
        let length = get(&path, &name, &mut [])?;
        let mut buffer = vec![0; length + SPARE_BYTES];
        result = get(&path, &name, &mut buffer);
        if let Ok(length) = result {
            buffer.truncate(length);
            return String::from_utf8(buffer).map_err(io::Error::other);
        }
    }
    result.map(|_| String::new())
}

/// Sets an attribute.
pub fn set(path: &Path, name: &str, value: &str) -> io::Result<()> {
    let (path, name) = (CString::new(path.as_os_str().as_bytes())?, CString::new(name)?);
    // SAFETY: two NUL-terminated strings, and bytes with their true length, that live during the call.
    let done = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// An empty buffer asks for the length.
fn get(path: &CString, name: &CString, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: two NUL-terminated strings, and a buffer with its true length, that live during the call.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    usize::try_from(length).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_directory_is_no_mount() {
        let directory = tempfile::tempdir().expect("directory");
        let error = mount_root(directory.path()).expect_err("no mount").to_string();
        assert!(error.contains("is not on a mediafs mount"), "{error}");
        let error = mount_root(&directory.path().join("missing")).expect_err("missing").to_string();
        assert!(error.contains("missing"), "{error}");
    }
}
