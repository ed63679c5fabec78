//! Takes in what the bucket says: a HEAD's answer for one name, a complete listing for a directory.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::attributes;
use super::inode::{Child, File, Ino, Inode, Modified, Node, Symlink};
use super::tree::Namespace;
use super::watch::WatchId;
use crate::media::gzip;
use crate::types::{ETag, ObjectHeaders, Version};

/// What the bucket has under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Object { version: Version, modified: SystemTime, headers: Option<Box<ObjectHeaders>> },
    Directory,
}

/// What taking it in changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Absorbed {
    pub ino: Ino,
    /// The inode shows another version: the kernel's pages and attributes of it are old.
    pub changed: bool,
    /// Another inode hung here before; the kernel's entry is old.
    pub replaced: bool,
}

impl Namespace {
    /// The bucket has `seen` under `name`. An inode that is open stays on its version: it is unlinked, and a new one
    /// takes the name.
    pub fn absorb(&mut self, directory: Ino, name: &Arc<str>, mut seen: Seen, checked: Instant, now: SystemTime) -> Absorbed {
        let old = self.child(directory, name);
        // What a listing says is how much is stored.
        if let Seen::Object { version, headers, .. } = &mut seen {
            let same = |inode: &&Inode| inode.version().is_some_and(|known| known.etag == version.etag);
            let size = match headers {
                Some(headers) => gzip::original_size(headers),
                None => old.and_then(|ino| self.get(ino)).filter(same).and_then(|inode| gzip::original_size(&inode.headers())),
            };
            version.size = size.unwrap_or(version.size);
        }
        let old = old.filter(|ino| self.can_become(*ino, &seen));
        let Some(ino) = old else {
            return self.absorb_new(directory, name, seen, checked, now);
        };
        let mut changed = false;
        if let Some(inode) = self.get_mut(ino) {
            inode.checked = Some(checked);
            if let Seen::Object { version, modified, headers } = seen {
                changed = inode.see(version, modified);
                if let Some(headers) = headers {
                    inode.take_headers(*headers);
                }
            }
        }
        Absorbed { ino, changed, replaced: false }
    }

    /// The bucket showed something in `directory` at that time: so it is there, and what it is in.
    pub fn prove(&mut self, mut directory: Ino, at: Instant) {
        while let Some(inode) = self.get_mut(directory) {
            let above = inode.place.as_ref().map(|(parent, _)| *parent);
            let Node::Directory(node) = &mut inode.node else { return };
            if node.proven.is_some_and(|proven| proven >= at) {
                return;
            }
            node.proven = Some(at);
            let Some(above) = above else { return };
            directory = above;
        }
    }

    fn absorb_new(&mut self, directory: Ino, name: &Arc<str>, seen: Seen, checked: Instant, now: SystemTime) -> Absorbed {
        let node = match &seen {
            Seen::Directory => Node::Directory(Box::default()),
            Seen::Object { headers: Some(headers), .. } if attributes::is_symlink(headers) => Node::Symlink(Symlink::default()),
            Seen::Object { .. } => Node::File(File::default()),
        };
        let ino = self.insert_found(directory, name, node, now);
        let old = self.unlink(directory, name);
        self.link(directory, name, ino);
        if let Some(old) = old {
            self.remove_if_unused(old);
        }
        if let Some(inode) = self.get_mut(ino) {
            inode.checked = Some(checked);
            if let Seen::Object { version, modified, headers } = seen {
                inode.see(version, modified);
                if let Some(headers) = headers {
                    inode.take_headers(*headers);
                }
            }
        }
        Absorbed { ino, changed: false, replaced: old.is_some() }
    }

    /// Whether the inode can go on under what the bucket shows now.
    fn can_become(&self, ino: Ino, seen: &Seen) -> bool {
        let Some(inode) = self.get(ino) else { return false };
        match seen {
            Seen::Directory => inode.is_directory(),
            Seen::Object { version, headers, .. } => {
                let link = headers.as_deref().map(attributes::is_symlink);
                let same_kind = match &inode.node {
                    Node::Directory(_) => false,
                    Node::File(_) => link != Some(true),
                    Node::Symlink(_) => link != Some(false),
                };
                same_kind && (inode.opens == 0 || inode.version().is_none_or(|old| same_bytes(old, version)))
            }
        }
    }

    /// A complete listing of `directory`, begun at `checked`: names that it lacks are gone, unless they are `kept` (wanted
    /// locally) or changed since. Returns the names that went.
    pub fn absorb_listing(
        &mut self,
        directory: Ino,
        names: &HashSet<Arc<str>>,
        watch: WatchId,
        checked: Instant,
        kept: impl Fn(&Inode) -> bool,
    ) -> Vec<(Arc<str>, Ino)> {
        let Some(node) = self.directory(directory) else { return Vec::new() };
        let gone: Vec<(Arc<str>, Child)> = node
            .children
            .iter()
            .filter(|(name, child)| match child {
                Child::Missing(_) => true,
                Child::Inode(ino) => {
                    !names.contains(*name) && !self.is_touched(watch, directory, name) && self.get(*ino).is_none_or(|inode| !kept(inode))
                }
            })
            .map(|(name, child)| (Arc::clone(name), *child))
            .collect();
        let mut unlinked = Vec::new();
        for (name, child) in gone {
            self.unlink(directory, &name);
            if let Child::Inode(ino) = child {
                self.remove_if_unused(ino);
                unlinked.push((name, ino));
            }
        }
        if let Some(node) = self.directory_mut(directory) {
            node.listed = Some(checked);
            node.complete = true;
        }
        unlinked
    }
}

impl Inode {
    /// The bucket shows this version. True where it is another one than was shown so far.
    fn see(&mut self, version: Version, modified: SystemTime) -> bool {
        let same_bytes = self.version().is_some_and(|old| same_bytes(old, &version));
        if same_bytes {
            self.follow_key(&version);
        }
        if same_bytes && self.modified().is_some_and(|known| known.matches(modified)) {
            self.put_version(version, Modified::At(modified));
            return false;
        }
        let first = self.version().is_none();
        self.put_version(version, Modified::At(modified));
        self.known = false;
        if first || !same_bytes {
            self.changed(modified);
            self.atime = modified;
        }
        if !same_bytes {
            match &mut self.node {
                Node::File(file) => {
                    file.local = None;
                    file.pages_stale |= !first;
                }
                Node::Symlink(link) => {
                    link.target = None;
                    link.made_here = false;
                }
                Node::Directory(_) => {}
            }
        }
        !first
    }

    /// What is here of the same bytes under another key is of `version` from now on: that key may hold something else by now.
    fn follow_key(&mut self, version: &Version) {
        let Node::File(file) = &mut self.node else { return };
        let is_elsewhere = |base: &Version| base.key != version.key && same_bytes(base, version);
        if let Some(local) = file.local.as_ref().filter(|local| !local.is_dirty() && local.base().as_ref().is_some_and(is_elsewhere))
            && let Err(error) = local.rebase(version)
        {
            tracing::warn!(key = %version.key, %error, "the cached bytes of a moved file can't be kept");
            file.local = None;
        }
    }

    /// [`Inode::take_headers`] of the version with this ETag; of what is stored compressed they tell the size too.
    pub fn take_headers_of(&mut self, etag: &ETag, headers: ObjectHeaders) {
        if let (Some(version), Some(modified)) = (self.version().filter(|version| version.etag == *etag), self.modified())
            && let Some(size) = gzip::original_size(&headers)
        {
            let version = Version { size, ..version.clone() };
            self.set_version(version, modified);
        }
        self.take_headers(headers);
    }

    /// Attributes from the object's metadata; what it doesn't say stays at the defaults.
    pub fn take_headers(&mut self, headers: ObjectHeaders) {
        let posix = attributes::decode(&headers);
        if let Some(mode) = posix.mode
            && !matches!(self.node, Node::Symlink(_))
        {
            // Metadata can say of a file that it is a directory, and so have bits that no file may get from a bucket.
            self.mode = mode & if self.is_directory() { attributes::DIRECTORY_BITS } else { attributes::FILE_BITS };
        }
        self.uid = posix.uid.unwrap_or(self.uid);
        self.gid = posix.gid.unwrap_or(self.gid);
        if let Some(mtime) = posix.mtime {
            // As on a disk, what nobody has read since it was written isn't younger for that.
            if self.atime == self.mtime {
                self.atime = mtime;
            }
            self.mtime = mtime;
        }
        if let (Node::Symlink(link), Some(target)) = (&mut self.node, posix.symlink) {
            link.made_here &= link.target.as_ref() == Some(&target);
            link.target = Some(target);
        }
        self.set_headers(headers);
        self.known = true;
    }
}

fn same_bytes(a: &Version, b: &Version) -> bool {
    a.etag == b.etag && a.size == b.size
}
