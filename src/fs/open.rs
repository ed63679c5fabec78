//! open(2) of what exists: the version that the handle stays on, and its data file.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;

use super::handles::FileHandle;
use super::{Fs, Opened, SetAttr};
use crate::cache::{LocalFile, Pin};
use crate::clock;
use crate::error::{Error, Result};
use crate::journal::{Content, Desired};
use crate::namespace::{Ino, Inode, Namespace, Node};
use crate::reader::ReadPattern;
use crate::types::FileId;

/// What open(2)'s flags ask of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    pub read: bool,
    pub write: bool,
    pub truncate: bool,
    pub exclusive: bool,
}

impl Access {
    pub fn of(flags: i32) -> Self {
        let mode = flags & libc::O_ACCMODE;
        Self {
            read: mode != libc::O_WRONLY,
            write: mode != libc::O_RDONLY,
            truncate: flags & libc::O_TRUNC != 0,
            exclusive: flags & libc::O_EXCL != 0,
        }
    }
}

impl Fs {
    /// `flags` are open(2)'s, O_TRUNC included.
    /// Not for an open that the kernel makes with the directory locked (create(2)): word of a name in there would wait for it.
    pub async fn open(&self, ino: Ino, flags: i32) -> Result<Opened> {
        let access = Access::of(flags);
        self.prepare_open(ino, access).await?;
        if !access.truncate {
            self.kernel_knows(ino).await;
        }
        self.open_prepared(ino, access).await
    }

    pub(super) async fn open_in_create(&self, ino: Ino, access: Access) -> Result<Opened> {
        self.prepare_open(ino, access).await?;
        self.open_prepared(ino, access).await
    }

    /// Asks the bucket what has to be asked.
    async fn prepare_open(&self, ino: Ino, access: Access) -> Result<()> {
        if access.write || access.truncate {
            self.writable()?;
        }
        match self.getattr(ino).await {
            Ok(_) => {}
            // The kernel looks the name up anew on ESTALE, and opens what it finds.
            Err(Error::NotFound) if self.names.lock().get(ino).is_some() => return Err(Error::Stale),
            Err(error) => return Err(error),
        }
        if self.names.lock().get(ino).is_some_and(|inode| inode.is_directory()) {
            return Err(Error::IsDirectory);
        }
        // An upload replaces all headers. What is stored compressed under a name that no rule is about shows its size here
        // at the latest, for the reader.
        if access.write || access.truncate || self.config.rules.has_gzip() {
            self.know_headers(ino).await?;
        }
        Ok(())
    }

    async fn open_prepared(&self, ino: Ino, access: Access) -> Result<Opened> {
        let opened = self.open_inode(ino, access)?;
        if access.truncate
            && let Err(error) = self.setattr(ino, SetAttr { size: Some(0), ..SetAttr::default() }).await
        {
            self.release(opened.handle);
            return Err(error);
        }
        Ok(opened)
    }

    pub(super) fn open_inode(&self, ino: Ino, access: Access) -> Result<Opened> {
        let mut names = self.names.lock();
        let (file, pin) = self.pinned_file(&mut names, ino)?;
        let inode = names.get_mut(ino).ok_or(Error::NotFound)?;
        inode.opens += 1;
        let access_note = inode.share_access_note();
        let Node::File(node) = &mut inode.node else { return Err(Error::Loop) };
        let keep_cache = !std::mem::take(&mut node.pages_stale);
        // What the kernel reads from its own pages never gets here. Who opens to read alone reads.
        let unseen = keep_cache && node.pages && access.read && !access.write && self.notes_access();
        if unseen && inode.access(clock::now()) {
            self.invalidate_attributes(ino);
        }
        drop(names);
        if access.write {
            file.add_writer();
        }
        let handle = self.handles.add_file(FileHandle {
            ino,
            file,
            readable: access.read,
            writable: access.write,
            pattern: Mutex::new(ReadPattern::default()),
            wrote: AtomicBool::new(access.truncate),
            loose: AtomicBool::new(false),
            access_note,
            _pin: pin,
        });
        Ok(Opened { handle, keep_cache, no_flush: !access.write })
    }

    /// The data file, safe from eviction from here on.
    pub(super) fn pinned_file(&self, names: &mut Namespace, ino: Ino) -> Result<(Arc<LocalFile>, Pin)> {
        // Replaced or removed since the caller looked the name up.
        if names.key(ino).is_none() && names.get(ino).is_some_and(|inode| inode.opens == 0) {
            return self.departed(ino).ok_or(Error::Stale);
        }
        for _ in 0..super::RACES {
            let file = self.local_file(names, ino)?;
            let pin = file.pin();
            let held = names.get(ino).is_some_and(|inode| inode.opens > 0);
            if held || self.cache.get(file.id()).is_some() {
                return Ok((file, pin));
            }
        }
        Err(Error::NoSpace)
    }

    /// Where the writer took the bytes of a file that it could not copy, they are in a data file of its own: the inode gets that,
    /// so that it is read there, and goes when the inode goes.
    pub(super) fn take_staged(&self, names: &mut Namespace, ino: Ino) {
        let is_without = names.get(ino).and_then(Inode::file).is_some_and(|file| file.local.is_none());
        let pending = names.key(ino).filter(|_| is_without).and_then(|key| self.writer.pending(&key));
        let Some(Desired { content: Content::Staged(id), .. }) = pending else { return };
        if let (Some(Node::File(file)), Some(staged)) = (names.get_mut(ino).map(|inode| &mut inode.node), self.cache.get(id)) {
            file.local = Some(staged);
        }
    }

    /// The same of a symlink. Nobody opens one: it is to be discarded when the name is given up.
    pub(super) fn staged_link(&self, names: &Namespace, ino: Ino) -> Option<FileId> {
        let is_link = names.get(ino).is_some_and(|inode| matches!(inode.node, Node::Symlink(_)));
        match self.writer.pending(&names.key(ino).filter(|_| is_link)?)?.content {
            Content::Staged(id) => Some(id),
            _ => None,
        }
    }

    /// The data file behind a file's inode, made where the version was never touched here.
    fn local_file(&self, names: &mut Namespace, ino: Ino) -> Result<Arc<LocalFile>> {
        self.take_staged(names, ino);
        let inode = names.get_mut(ino).ok_or(Error::NotFound)?;
        let held = inode.held();
        let Node::File(node) = &mut inode.node else {
            return Err(if inode.is_directory() { Error::IsDirectory } else { Error::Loop });
        };
        if let Some(local) = &node.local {
            // Evicted since it was last open: the same version anew.
            let evicted = !local.is_dirty() && inode.opens == 0 && self.cache.get(local.id()).is_none();
            if !evicted {
                return Ok(Arc::clone(local));
            }
        }
        let local = match &held {
            Some(version) => self.cache.of_version(version)?,
            None => self.cache.create()?,
        };
        node.local = Some(Arc::clone(&local));
        Ok(local)
    }

    /// The last close of an unlinked file frees its bytes; of any other it may let an upload go.
    pub fn release(&self, number: u64) {
        let Some(handle) = self.handles.remove_file(number) else { return };
        self.end_passthrough(&handle);
        if handle.writable {
            handle.file.remove_writer();
        }
        let ino = handle.ino;
        let mut names = self.names.lock();
        let Some(inode) = names.get_mut(ino) else { return };
        let last = inode.close();
        match names.key(ino) {
            Some(key) if handle.writable => self.writer.closed(&key),
            None if last => {
                self.part_with(&mut names, ino);
                // Another version than the inode shows by now.
                self.cache.discard(handle.file.id());
            }
            _ => {}
        }
        drop(names);
        // Its pin goes with it.
        drop(handle);
        if last {
            self.names.lock().let_go(ino);
        }
    }
}
