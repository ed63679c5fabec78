//! New names: create(2), mkdir(2).

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::open::Access;
use super::{Caller, Entry, Fs, Opened};
use crate::clock;
use crate::error::{Error, Result};
use crate::journal::{Content, Desired};
use crate::namespace::{Child, Directory, File, Ino, Namespace, Node, keys};
use crate::store::{Condition, ErrorKind};
use crate::types::Key;

/// O_EXCL asks the bucket again unless the name was found missing this short a time ago: long enough for the lookup that
/// led here, too short for anything to be decided on it. What slips in between is caught by `If-None-Match: *`.
const JUST_LOOKED: Duration = Duration::from_millis(4);

impl Fs {
    /// `mode` is already masked.
    pub async fn create(&self, parent: Ino, name: &OsStr, mode: u32, flags: i32, caller: Caller) -> Result<(Entry, Opened)> {
        self.writable()?;
        let access = Access::of(flags);
        let name = self.name(name)?;
        for _ in 0..super::RACES {
            if let Some(ino) = self.resolve_for_create(parent, &name, access.exclusive).await? {
                if access.exclusive {
                    return Err(Error::Exists);
                }
                // Until the kernel knows of it, it may leave memory any time.
                if !self.remember(ino) {
                    continue;
                }
                let opened = self.open_in_create(ino, access).await.inspect_err(|_| self.forget(ino, 1))?;
                return Ok((self.entry(&self.names.lock(), ino)?, opened));
            }
            self.check_storable(parent, &name).await?;
            if let Some(ino) = self.create_new(parent, &name, mode, access, caller)? {
                let opened = self.open_inode(ino, access)?;
                return Ok((self.entry(&self.names.lock(), ino)?, opened));
            }
        }
        Err(Error::Exists)
    }

    async fn resolve_for_create(&self, parent: Ino, name: &Arc<str>, exclusive: bool) -> Result<Option<Ino>> {
        let found = self.resolve(parent, name, self.fresh_since()).await?;
        if found.is_some() || !exclusive || self.config.exclusive || !self.is_old_absence(parent, name) {
            return Ok(found);
        }
        let since = Some(Instant::now());
        self.resolve_object(parent, name, since).await
    }

    /// The name was found missing too long ago for a reservation, counted from when the answer came.
    fn is_old_absence(&self, parent: Ino, name: &Arc<str>) -> bool {
        let names = self.names.lock();
        let Some(node) = names.directory(parent) else { return false };
        if node.is_filling(Instant::now()) {
            let is_listed = node.complete_at().is_some_and(|known| self.is_believed(node, known));
            let key = || self.directory_key(&names, parent);
            let is_behind = || node.peeks.tail.is_some() && key().is_ok_and(|key| self.is_behind_tail(node, &key, name, Instant::now()));
            if is_listed || is_behind() {
                return false;
            }
        }
        let just_asked = node.last_missing.as_ref().filter(|(missing, _)| missing == name).map(|(_, answered)| *answered);
        let removed_here = match node.children.get(name) {
            Some(Child::Missing(checked)) => Some(*checked),
            _ => node.listed,
        };
        just_asked.max(removed_here).is_none_or(|known| known.elapsed() > JUST_LOOKED)
    }

    /// None: somebody took the name since it was looked up.
    fn create_new(&self, parent: Ino, name: &Arc<str>, mode: u32, access: Access, caller: Caller) -> Result<Option<Ino>> {
        let mut names = self.names.lock();
        let key = self.directory_key(&names, parent)?.child(name);
        self.check_key(&key)?;
        if names.child(parent, name).is_some() || self.is_wanted(&key) {
            return Ok(None);
        }
        let local = self.cache.create()?;
        let id = local.id();
        let ino = names.insert(Node::File(File { local: Some(local), ..File::default() }), clock::now());
        self.own(&mut names, ino, parent, mode, caller);
        self.fill_new(&mut names, ino, &key);
        let headers = names.get(ino).map(|inode| self.headers_of(inode, &key));
        let was_there = self.writer.pending(&key).is_some();
        // The name was free a moment ago. Who asked for it alone gets it so, or learns that another host was first.
        // So does who makes a name that nobody could be asked about.
        let alone = access.exclusive || self.outage.is_on();
        let condition = if alone && !was_there { Condition::IfAbsent } else { Condition::Any };
        let desired = Desired { content: Content::Staged(id), headers: headers.map(Into::into), condition, was_there, since: clock::now() };
        if let Err(error) = self.writer.apply(vec![(key, Some(desired))], &[]) {
            self.cache.discard(id);
            names.remove_if_unused(ino);
            return Err(error);
        }
        if let Some(inode) = names.get_mut(ino) {
            inode.lookups += 1;
        }
        self.hang(&mut names, parent, name, ino);
        if let Some(node) = names.directory_mut(parent) {
            self.count_made(node, name);
        }
        Ok(Some(ino))
    }

    pub async fn mkdir(&self, parent: Ino, name: &OsStr, mode: u32, caller: Caller) -> Result<Entry> {
        self.writable()?;
        let name = self.name(name)?;
        if self.resolve(parent, &name, self.fresh_since()).await?.is_some() {
            return Err(Error::Exists);
        }
        self.check_storable(parent, &name).await?;
        let mut names = self.names.lock();
        let key = self.directory_key(&names, parent)?.child(&name);
        let marker = key.as_directory();
        self.check_key(&marker)?;
        if names.child(parent, &name).is_some() || self.is_wanted(&key) || self.is_wanted(&marker) {
            return Err(Error::Exists);
        }
        let listed = self.nothing_below(&marker);
        let made = listed.map(|_| Instant::now());
        let node = Directory { marker: Some(false), listed, made, complete: listed.is_some(), ..Directory::default() };
        let ino = names.insert(Node::Directory(Box::new(node)), clock::now());
        let inherited = self.own(&mut names, ino, parent, mode, caller);
        if let Some(inode) = names.get_mut(ino) {
            inode.mode |= inherited;
            inode.lookups += 1;
        }
        let headers = names.get(ino).map(|inode| self.headers_of(inode, &marker));
        let was_there = self.writer.pending(&marker).is_some();
        let desired = Desired {
            content: Content::Inline(Vec::new()),
            headers: headers.map(Into::into),
            condition: Condition::Any,
            was_there,
            since: clock::now(),
        };
        self.writer.apply(vec![(marker, Some(desired))], &[])?;
        self.hang(&mut names, parent, &name, ino);
        self.entry(&names, ino)
    }

    /// A directory whose name was just found missing is empty, and known so for as long as an absence is believed; unless
    /// deletions below it are under way.
    fn nothing_below(&self, marker: &Key) -> Option<Instant> {
        let longer = self.config.ttl.saturating_sub(self.config.negative_ttl);
        let listed = Instant::now().checked_sub(longer)?;
        self.writer.pending_below(marker).is_empty().then_some(listed)
    }

    /// Owner, group and mode of a new inode. Returns the bits that a directory inherits from its parent.
    pub(super) fn own(&self, names: &mut Namespace, ino: Ino, parent: Ino, mode: u32, caller: Caller) -> u32 {
        let group = names.get(parent).filter(|parent| parent.mode & libc::S_ISGID != 0).map(|parent| parent.gid);
        let Some(inode) = names.get_mut(ino) else { return 0 };
        inode.mode = mode & 0o7777;
        inode.uid = caller.uid;
        inode.gid = group.unwrap_or(caller.gid);
        inode.known = true;
        if group.is_some() { libc::S_ISGID } else { 0 }
    }

    /// Hangs a new inode under its name, which is free but for a remembered absence; the parent's times move.
    pub(super) fn hang(&self, names: &mut Namespace, parent: Ino, name: &Arc<str>, ino: Ino) {
        names.touch(parent, name);
        names.link(parent, name, ino);
        if let Some(inode) = names.get_mut(ino) {
            inode.checked = Some(Instant::now());
        }
        self.directory_changed(names, parent);
    }

    pub(super) fn directory_changed(&self, names: &mut Namespace, directory: Ino) {
        if let Some(inode) = names.get_mut(directory) {
            inode.changed(clock::now());
        }
    }

    /// Remembers that a name is free, because it was freed here.
    pub(super) fn free_name(&self, names: &mut Namespace, parent: Ino, name: &Arc<str>) -> Option<Ino> {
        names.touch(parent, name);
        let old = match names.directory(parent).and_then(|node| node.children.get(name)) {
            Some(Child::Inode(ino)) => Some(*ino),
            _ => None,
        };
        names.set_missing(parent, name, Instant::now());
        self.directory_changed(names, parent);
        old
    }

    /// A name of a form that not every store takes is refused when it is made, and not when it is sent. In an outage it is
    /// taken: `status` says then what became of it.
    pub(super) async fn check_storable(&self, parent: Ino, name: &str) -> Result<()> {
        if !Key::new(name).walks_in_windows() {
            return Ok(());
        }
        let key = self.directory_key(&self.names.lock(), parent)?.child(name);
        match self.store.head(&key).await {
            Err(error) if error.is(ErrorKind::InvalidName) => Err(Error::Invalid),
            _ => Ok(()),
        }
    }

    pub(super) fn check_key(&self, key: &Key) -> Result<()> {
        keys::check_key(key, self.config.prefix_bytes)
    }
}
