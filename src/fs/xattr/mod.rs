//! Extended attributes.
//!
//! ```text
//! name    what a name means
//! own     user.mediafs.…: what mediafs tells of a file
//! values  user.s3.…: headers and metadata of the object; user.…: anything else, kept in its metadata
//! ```
//!
//! A change never waits for the bucket: it is one of the object's headers, and goes up with the bytes or as one copy of the
//! object onto itself, as a change of mode does. What mediafs tells, and what a rule or a name gave, is answered but not
//! listed: programs copy what is listed, and would make a choice of it for the copy.

mod name;
mod own;
mod values;

use std::ffi::{OsStr, OsString};

use self::name::Name;
pub use self::name::is_settable_metadata;
use super::Fs;
use crate::clock;
use crate::error::{Error, Result};
use crate::media::gzip;
use crate::namespace::{Ino, Node, ROOT};
use crate::types::{Key, ObjectHeaders};

/// How setxattr(2) takes an attribute that is there already, or isn't.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mode {
    create: bool,
    replace: bool,
}

impl Mode {
    fn of(flags: i32) -> Result<Self> {
        if flags & !(libc::XATTR_CREATE | libc::XATTR_REPLACE) != 0 {
            return Err(Error::Invalid);
        }
        Ok(Self { create: flags & libc::XATTR_CREATE != 0, replace: flags & libc::XATTR_REPLACE != 0 })
    }

    fn check(self, is_there: bool) -> Result<()> {
        match is_there {
            true if self.create => Err(Error::Exists),
            false if self.replace => Err(Error::NoAttribute),
            _ => Ok(()),
        }
    }
}

/// The object behind an inode, as far as attributes go.
struct Place {
    key: Key,
    headers: ObjectHeaders,
    is_directory: bool,
}

impl Fs {
    pub async fn getxattr(&self, ino: Ino, name: &OsStr) -> Result<Vec<u8>> {
        let name = Name::parse(name)?;
        match &name {
            Name::Own(own) => self.own_attribute(ino, own).await,
            Name::Reserved | Name::Privileged => Err(Error::NoAttribute),
            _ => {
                self.know_headers(ino).await?;
                let place = self.place(ino)?.ok_or(Error::NoAttribute)?;
                values::get(&place, &name).ok_or(Error::NoAttribute)
            }
        }
    }

    pub async fn listxattr(&self, ino: Ino) -> Result<Vec<OsString>> {
        self.know_headers(ino).await?;
        let listed = self.place(ino)?.map(|place| values::list(&place, &self.config.rules)).unwrap_or_default();
        Ok(listed.into_iter().map(OsString::from).collect())
    }

    pub async fn setxattr(&self, ino: Ino, name: &OsStr, value: &[u8], flags: i32) -> Result<()> {
        self.writable()?;
        let mode = Mode::of(flags)?;
        let name = Name::parse(name)?;
        match &name {
            Name::Own(own) if own == "resolve" => return self.resolve_held(ino, value),
            Name::Own(_) | Name::Reserved => return Err(Error::NotPermitted),
            Name::Privileged => return Err(Error::Unsupported),
            _ => {}
        }
        self.change_headers(ino, &|place| {
            mode.check(values::get(place, &name).is_some())?;
            values::set(place, &name, value, self.config.r2)
        })
        .await
    }

    pub async fn removexattr(&self, ino: Ino, name: &OsStr) -> Result<()> {
        self.writable()?;
        let name = Name::parse(name)?;
        match &name {
            Name::Own(_) => return Err(Error::NotPermitted),
            Name::Reserved | Name::Privileged => return Err(Error::NoAttribute),
            _ => {}
        }
        self.change_headers(ino, &|place| values::remove(place, &name, &self.config.rules)).await
    }

    /// None: a symlink, which has none of its own, or an unlinked file's name is gone.
    fn place(&self, ino: Ino) -> Result<Option<Place>> {
        let names = self.names.lock();
        let inode = names.get(ino).ok_or(Error::NotFound)?;
        if matches!(inode.node, Node::Symlink(_)) {
            return Ok(None);
        }
        let key = names.key(ino).unwrap_or_else(Key::root);
        let headers = self.headers_of(inode, &key);
        Ok(Some(Place { key, headers, is_directory: inode.is_directory() }))
    }

    async fn change_headers(&self, ino: Ino, change: &(dyn Fn(&mut Place) -> Result<()> + Sync)) -> Result<()> {
        // The root has no object of its own.
        if ino == ROOT {
            return Err(Error::Unsupported);
        }
        self.require_headers(ino).await?;
        let mut names = self.names.lock();
        let key = names.key(ino).unwrap_or_else(Key::root);
        let inode = names.get_mut(ino).ok_or(Error::NotFound)?;
        if matches!(inode.node, Node::Symlink(_)) {
            return Err(Error::NotPermitted);
        }
        let before = inode.headers();
        let mut place = Place { key, headers: before.clone(), is_directory: inode.is_directory() };
        change(&mut place)?;
        if place.headers == before {
            return Ok(());
        }
        if !self.has_room(&place.headers) {
            return Err(Error::TooManyAttributes);
        }
        let is_compressed = gzip::mentions(&before);
        let goes_up_anew = is_compressed && !gzip::mentions(&place.headers);
        inode.set_headers(place.headers);
        inode.ctime = clock::now();
        inode.known = true;
        // No copy takes the compression away.
        if goes_up_anew { self.send_anew(&mut names, ino) } else { self.store_attributes(&mut names, ino) }
    }
}
