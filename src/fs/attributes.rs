//! stat, chmod, chown, utimens, truncate; and the headers that carry them into the bucket.
//!
//! A change of attributes never waits for the bucket: it folds into the PUT that is still to come, or becomes one copy
//! of the object onto itself, coalesced by the writer. Set to what it already is, it costs nothing.

use std::time::SystemTime;

use super::symlink::{has_target, inline_content};
use super::{Attr, Entry, Fs, Kind, SetAttr, SetTime};
use crate::error::{Error, Result};
use crate::journal::{Content, Desired};
use crate::namespace::attributes::{self as codec, Defaults, FileType, Posix};
use crate::namespace::{Ino, Inode, Namespace, Node, ROOT};
use crate::store::Condition;
use crate::types::{Key, ObjectHeaders};
use crate::{clock, media};

/// Under this name the journal has the root's mode and owner, as metadata.
const ROOT_ATTRIBUTES: &str = "root";

impl Fs {
    pub async fn getattr(&self, ino: Ino) -> Result<Entry> {
        if self.needs_check(ino)? {
            match self.revalidate(ino).await {
                Ok(()) => {}
                // Gone or replaced in the bucket: an inode that is still open, or on its way out of the kernel's memory,
                // keeps the attributes of the version that it shows.
                Err(Error::Stale | Error::NotFound) if self.names.lock().get(ino).is_some_and(|inode| inode.opens > 0) => {}
                Err(error) => return Err(error),
            }
        }
        self.entry(&self.names.lock(), ino)
    }

    /// Whether the bucket has to confirm what is known of the inode.
    fn needs_check(&self, ino: Ino) -> Result<bool> {
        let names = self.names.lock();
        let inode = names.get(ino).ok_or(Error::NotFound)?;
        let Some(key) = names.key(ino).filter(|key| !key.is_root()) else { return Ok(false) };
        if !inode.known && self.asks_headers(&names, ino) {
            return Ok(true);
        }
        let stale = match (self.fresh_since(), inode.checked) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(since), Some(checked)) => checked < since,
        };
        Ok(stale && !self.is_wanted(&key))
    }

    /// Local state decides about this key, not the bucket.
    pub(super) fn is_wanted(&self, key: &Key) -> bool {
        if key.is_marker() || key.is_root() {
            self.writer.wants_below(key)
        } else {
            self.writer.pending(key).is_some_and(|desired| desired.content != Content::Absent)
        }
    }

    pub(super) fn attr(&self, names: &Namespace, ino: Ino) -> Result<Attr> {
        let inode = names.get(ino).ok_or(Error::NotFound)?;
        let kind = match inode.node {
            Node::File(_) => Kind::File,
            Node::Directory(_) => Kind::Directory,
            Node::Symlink(_) => Kind::Symlink,
        };
        let mut attr = Attr {
            ino,
            kind,
            mode: inode.mode,
            nlink: names.links(ino),
            uid: inode.uid,
            gid: inode.gid,
            size: inode.size(),
            atime: inode.atime,
            mtime: inode.mtime,
            ctime: inode.ctime,
        };
        if let Some(look) = inode.file().and_then(|file| file.local.as_ref()).and_then(|local| local.glimpse()) {
            super::passthrough::show(&mut attr, &look);
        }
        Ok(attr)
    }

    pub async fn setattr(&self, ino: Ino, set: SetAttr) -> Result<Entry> {
        self.writable()?;
        self.take_news_of(ino)?;
        if let Some(size) = set.size {
            self.know_headers(ino).await?;
            self.truncate(ino, size).await?;
        }
        // chown(2) to nobody else comes as a change of nothing, which moves the time of the last change too.
        let changes_attributes = set.size.is_none() || set.changes_attributes();
        if changes_attributes && self.config.posix_metadata {
            if self.needs_headers(ino)? {
                self.revalidate(ino).await?;
                self.require_headers(ino).await?;
            }
            self.change_attributes(ino, &set)?;
        }
        self.entry(&self.names.lock(), ino)
    }

    /// A copy onto itself replaces all headers, so they must be known first.
    pub(super) fn needs_headers(&self, ino: Ino) -> Result<bool> {
        let names = self.names.lock();
        let inode = names.get(ino).ok_or(Error::NotFound)?;
        Ok(!inode.known && inode.place.is_some())
    }

    fn change_attributes(&self, ino: Ino, set: &SetAttr) -> Result<()> {
        let mut names = self.names.lock();
        let now = clock::now();
        let inode = names.get_mut(ino).ok_or(Error::NotFound)?;
        let before = (inode.mode, inode.uid, inode.gid, inode.mtime);
        let mut mode = set.mode.map_or(inode.mode, |mode| mode & 0o7777);
        let owner_is_set = set.uid.is_some() || set.gid.is_some() || !set.changes_attributes();
        if owner_is_set && set.mode.is_none() && !inode.is_directory() {
            mode = without_set_id(mode);
        }
        inode.mode = mode;
        inode.uid = set.uid.unwrap_or(inode.uid);
        inode.gid = set.gid.unwrap_or(inode.gid);
        let time = |set: Option<SetTime>, old: SystemTime| match set {
            Some(SetTime::Now) => now,
            Some(SetTime::To(time)) => time,
            None => old,
        };
        inode.atime = time(set.atime, inode.atime);
        inode.mtime = time(set.mtime, inode.mtime);
        inode.status_changed(now);
        let changed = before != (inode.mode, inode.uid, inode.gid, inode.mtime);
        if changed && ino != ROOT {
            inode.known = true;
            self.store_attributes(&mut names, ino)?;
        } else if before.0 != inode.mode || before.1 != inode.uid || before.2 != inode.gid {
            self.keep_root(&names)?;
        }
        Ok(())
    }

    /// The root has no object of its own: its mode and its owner are kept here, for the mounts from this cache directory.
    fn keep_root(&self, names: &Namespace) -> Result<()> {
        let root = names.get(ROOT).ok_or(Error::NotFound)?;
        let metadata = self.headers_of(root, &Key::root()).metadata;
        let text = serde_json::to_string(&metadata).map_err(|error| Error::Journal(error.to_string()))?;
        self.journal.set_meta(ROOT_ATTRIBUTES, &text)
    }

    pub(super) fn restore_root(&self) -> Result<()> {
        let Some(text) = self.journal.meta(ROOT_ATTRIBUTES)?.filter(|_| self.config.posix_metadata) else { return Ok(()) };
        match serde_json::from_str(&text) {
            Ok(metadata) => {
                let headers = ObjectHeaders { metadata, ..ObjectHeaders::default() };
                self.names.lock().get_mut(ROOT).into_iter().for_each(|root| root.take_headers(headers.clone()));
            }
            Err(error) => tracing::warn!(%error, "the attributes of the mount's root can't be read; the defaults hold"),
        }
        Ok(())
    }

    /// A change of bytes that left them as they were: only its times move, and its set-id bits go.
    pub(super) fn touch_content(&self, ino: Ino) -> Result<()> {
        if !self.config.posix_metadata {
            return Ok(());
        }
        let mode = self.names.lock().get(ino).map(|inode| without_set_id(inode.mode));
        self.change_attributes(ino, &SetAttr { mode, mtime: Some(SetTime::Now), ..SetAttr::default() })?;
        self.invalidate_attributes(ino);
        Ok(())
    }

    /// Wants the inode's present attributes in the bucket.
    pub(super) fn store_attributes(&self, names: &mut Namespace, ino: Ino) -> Result<()> {
        let Some(key) = names.key(ino) else { return Ok(()) };
        // What a question under way will hear is older.
        if let Some((parent, name)) = names.get(ino).and_then(|inode| inode.place.clone()) {
            names.touch(parent, &name);
        }
        let inode = names.get(ino).ok_or(Error::NotFound)?;
        let headers = Some(self.headers_of(inode, &key));
        let desired = match self.writer.pending(&key) {
            Some(pending) if !matches!(pending.content, Content::Absent | Content::KeptDirectory) => {
                Desired { headers: headers.map(Into::into), ..pending }
            }
            pending => {
                let was_there = pending.is_some_and(|pending| pending.was_there);
                self.attributes_only(&key, inode, headers, was_there)
            }
        };
        self.writer.apply(vec![(key, Some(desired))], &[])
    }

    fn attributes_only(&self, key: &Key, inode: &Inode, headers: Option<ObjectHeaders>, was_there: bool) -> Desired {
        let held = inode.held();
        let was_there = was_there || held.is_some() || inode.directory().is_some_and(|d| d.marker != Some(false));
        let content = match (&inode.node, held) {
            (Node::Directory(node), _) => node.filled.clone().map_or(Content::Inline(Vec::new()), Content::CopyOf),
            // Word of what it went up as under this name is yet to come: the version that is known may be gone.
            (_, Some(version)) if version.key != *key && has_target(inode) => inline_content(inode),
            (_, Some(version)) => Content::CopyOf(version),
            (_, None) => inline_content(inode),
        };
        Desired { content, headers: headers.map(Into::into), condition: Condition::Any, was_there, since: clock::now() }
    }

    /// The headers under which the inode belongs into the bucket at `key`.
    pub(super) fn headers_of(&self, inode: &Inode, key: &Key) -> ObjectHeaders {
        let mut headers = inode.headers();
        let owner = self.defaults();
        let (kind, symlink) = match &inode.node {
            Node::File(_) => (FileType::File, None),
            Node::Directory(_) => (FileType::Directory, None),
            Node::Symlink(link) => (FileType::Symlink, link.target.clone()),
        };
        // Bytes in a marker have the type that they came with.
        let is_marker = inode.directory().is_some_and(|directory| directory.filled.is_none());
        if headers.content_type.is_none() || is_marker {
            headers.content_type = Some(media::content_type(key, &[]).into());
        }
        if self.config.posix_metadata {
            // A directory's time moves with its children, which would cost a request for each of them: the marker has the time
            // of when it was last written for another reason, such as that a program has set it.
            let mtime = Some(inode.mtime);
            let posix = Posix { kind: Some(kind), mode: Some(inode.mode), uid: Some(inode.uid), gid: Some(inode.gid), mtime, symlink };
            codec::update(&mut headers, &posix, &owner);
        }
        headers
    }

    fn defaults(&self) -> Defaults {
        let umask = self.config.umask;
        Defaults { uid: self.config.uid, gid: self.config.gid, file_mode: 0o666 & !umask, dir_mode: 0o777 & !umask }
    }
}

/// A file's mode once its bytes or its owner changed: it no longer gives its owner's rights away. The kernel leaves this
/// to us (`FUSE_HANDLE_KILLPRIV_V2`). Set-group-id without execution by the group is no right, and stays.
pub(super) fn without_set_id(mode: u32) -> u32 {
    let group = if mode & libc::S_IXGRP != 0 { libc::S_ISGID } else { 0 };
    mode & !(libc::S_ISUID | group)
}
