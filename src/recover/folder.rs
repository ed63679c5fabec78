//! A folder that files are written into and never out of: every step down is taken from the open folder above it, and
//! none follows a symbolic link.
//!
//! `std` has no `openat`; a path through `/proc/self/fd` is the same, with the kernel's own check at each step.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::types::Key;

/// The kernel's limit for one name.
const NAME_BYTES: usize = 255;

pub struct Folder {
    handle: File,
}

impl Folder {
    /// The folder that the user named: made where it is missing, and links on the way to it are the user's own.
    pub fn top(path: &Path) -> io::Result<Folder> {
        DirBuilder::new().recursive(true).create(path)?;
        Ok(Folder { handle: open_folder(path, 0)? })
    }

    /// The folder of this name in it, made where it is missing.
    pub fn enter(&self, name: &str) -> io::Result<Folder> {
        let path = self.path(name)?;
        match DirBuilder::new().create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        Ok(Folder { handle: open_folder(&path, libc::O_NOFOLLOW)? })
    }

    /// Makes all folders of `key`, a path of names, and gives the one that its last name lies in, and that name.
    pub fn enter_all<'a>(&self, key: &'a Key) -> io::Result<(Folder, &'a str)> {
        let mut names: Vec<&str> = key.as_str().trim_end_matches('/').split('/').collect();
        names.iter().try_for_each(|name| checked(name).map(|_| ()))?;
        let last = names.pop().unwrap_or_default();
        let mut folder = Folder { handle: self.handle.try_clone()? };
        for name in names {
            folder = folder.enter(name)?;
        }
        Ok((folder, last))
    }

    pub fn exists(&self, name: &str) -> io::Result<bool> {
        match std::fs::symlink_metadata(self.path(name)?) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A new file; an error where the name is taken.
    pub fn create(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(self.path(name)?)
    }

    pub fn link(&self, name: &str, target: &str) -> io::Result<()> {
        symlink(target, self.path(name)?)
    }

    /// Takes the name's place, whatever file or link has it.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(from)?, self.path(to)?)
    }

    pub fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(name)?)
    }

    fn path(&self, name: &str) -> io::Result<PathBuf> {
        checked(name).map(|name| PathBuf::from(format!("/proc/self/fd/{}/{name}", self.handle.as_raw_fd())))
    }
}

fn open_folder(path: &Path, flags: i32) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | flags).open(path)
}

/// One name of a path, and nothing that leads elsewhere.
fn checked(name: &str) -> io::Result<&str> {
    let odd = matches!(name, "" | "." | "..") || name.len() > NAME_BYTES || name.contains(['/', '\0']);
    if odd { Err(io::Error::new(io::ErrorKind::InvalidInput, "its key can't be a path")) } else { Ok(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_leads_out_of_the_folder() {
        let directory = tempfile::tempdir().expect("directory");
        let outside = directory.path().join("outside");
        std::fs::create_dir(&outside).expect("made");
        let top = Folder::top(&directory.path().join("top/below")).expect("made");
        top.link("away", outside.to_str().expect("UTF-8")).expect("a link");
        for key in ["../x", "a/../../x", "/x", "a//x", "", ".", "..", "a/./x", "a\0b", "away/x", "away/y/z"] {
            let entered = top.enter_all(&Key::from(key)).and_then(|(folder, name)| folder.create(name));
            assert!(entered.is_err(), "{key:?}");
        }
        let long = "n".repeat(256);
        assert!(top.enter_all(&Key::from(long.as_str())).and_then(|(folder, name)| folder.create(name)).is_err());
        assert_eq!(std::fs::read_dir(&outside).expect("read").count(), 0);
        let key = Key::from("a/b/c.jpg");
        let (folder, name) = top.enter_all(&key).expect("made");
        folder.create(name).expect("a file");
        assert!(folder.create(name).is_err(), "never over another");
        assert!(directory.path().join("top/below/a/b/c.jpg").is_file());
    }
}
