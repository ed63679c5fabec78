//! The tree of inodes and the operations that keep it consistent.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use lru::LruCache;
use tokio::time::Instant;

use super::inode::{Child, Directory, Ino, Inode, Node, ROOT};
use super::numbers::Numbers;
use super::watch::{WatchId, Watches};
use crate::types::Key;

/// Owner and modes of what carries no metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
    /// Permission bits.
    pub file_mode: u32,
    pub directory_mode: u32,
}

pub struct Namespace {
    /// Boxed: a map that grows has its entries twice for a while, and a good part of it is always empty.
    pub(super) inodes: HashMap<Ino, Box<Inode>>,
    pub(super) numbers: Numbers,
    /// Directories, by their last use.
    pub(super) by_use: LruCache<Ino, ()>,
    /// Names that are known to be missing.
    pub(super) missing: usize,
    owner: Owner,
    watches: Watches,
}

impl Namespace {
    pub fn new(owner: Owner, now: SystemTime) -> Self {
        let (inodes, numbers, watches) = (HashMap::new(), Numbers::new(), Watches::default());
        let mut this = Self { inodes, numbers, by_use: LruCache::unbounded(), missing: 0, owner, watches };
        let root = this.insert(Node::Directory(Box::default()), now);
        let root = this.inodes.get_mut(&root).expect("just inserted");
        root.known = true;
        root.lookups = 1;
        this
    }

    pub fn is_empty(&self) -> bool {
        self.inodes.is_empty()
    }

    pub fn get(&self, ino: Ino) -> Option<&Inode> {
        self.inodes.get(&ino).map(Box::as_ref)
    }

    pub fn get_mut(&mut self, ino: Ino) -> Option<&mut Inode> {
        self.inodes.get_mut(&ino).map(Box::as_mut)
    }

    pub fn directory(&self, ino: Ino) -> Option<&Directory> {
        self.get(ino).and_then(Inode::directory)
    }

    pub fn directory_mut(&mut self, ino: Ino) -> Option<&mut Directory> {
        match self.get_mut(ino).map(|inode| &mut inode.node) {
            Some(Node::Directory(directory)) => Some(directory),
            _ => None,
        }
    }

    /// A new inode that hangs nowhere yet, with the mount's defaults.
    pub fn insert(&mut self, node: Node, now: SystemTime) -> Ino {
        let ino = self.numbers.fresh();
        self.insert_as(ino, node, now);
        ino
    }

    /// The same for what exists under a name of `directory`: where its inode was forgotten, it gets its old number.
    pub fn insert_found(&mut self, directory: Ino, name: &str, node: Node, now: SystemTime) -> Ino {
        let ino = self.numbers.give_back(directory, name).unwrap_or_else(|| self.numbers.fresh());
        self.insert_as(ino, node, now);
        ino
    }

    fn insert_as(&mut self, ino: Ino, node: Node, now: SystemTime) {
        let mode = match node {
            Node::File(_) => self.owner.file_mode,
            Node::Directory(_) => self.owner.directory_mode,
            Node::Symlink(_) => 0o777,
        };
        let inode = Inode {
            ino,
            place: None,
            lookups: 0,
            opens: 0,
            mode,
            uid: self.owner.uid,
            gid: self.owner.gid,
            atime: now,
            mtime: now,
            ctime: now,
            access_note: None,
            known: false,
            leaving: false,
            checked: None,
            node,
        };
        if inode.is_directory() {
            self.by_use.put(ino, ());
        }
        self.inodes.insert(ino, Box::new(inode));
    }

    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// The key of a linked inode: with a trailing slash for a directory, empty for the root. None: unlinked.
    pub fn key(&self, ino: Ino) -> Option<Key> {
        let mut names = Vec::new();
        let mut at = self.get(ino)?;
        let tail = if at.is_directory() && ino != ROOT { "/" } else { "" };
        while let Some((parent, name)) = &at.place {
            names.push(Arc::clone(name));
            at = self.get(*parent)?;
        }
        if at.ino != ROOT {
            return None;
        }
        let mut text = String::with_capacity(names.iter().map(|name| name.len() + 1).sum::<usize>() + 1);
        for (index, name) in names.iter().rev().enumerate() {
            if index > 0 {
                text.push('/');
            }
            text.push_str(name);
        }
        text.push_str(tail);
        Some(Key::new(text))
    }

    /// The inode at `key` (a directory's with its slash), as far as it is in memory.
    pub fn find(&self, key: &Key) -> Option<Ino> {
        let mut at = ROOT;
        for name in key.as_str().split('/').filter(|name| !name.is_empty()) {
            at = self.child(at, name)?;
        }
        (self.get(at)?.is_directory() == (key.is_marker() || key.is_root())).then_some(at)
    }

    pub fn child(&self, directory: Ino, name: &str) -> Option<Ino> {
        match self.directory(directory)?.children.get(name)? {
            Child::Inode(ino) => Some(*ino),
            Child::Missing(_) => None,
        }
    }

    /// Hangs `ino` under `name`; whatever hung there is unlinked and returned.
    pub fn link(&mut self, directory: Ino, name: &Arc<str>, ino: Ino) -> Option<Ino> {
        debug_assert!(self.get(ino).is_some_and(|inode| inode.place.is_none()));
        let old = self.unlink(directory, name);
        self.numbers.give_back(directory, name);
        let inside = u32::from(self.get(ino).is_some_and(Inode::is_directory));
        let node = self.directory_mut(directory)?;
        node.children.insert(Arc::clone(name), Child::Inode(ino));
        node.subdirectories += inside;
        if let Some(inode) = self.get_mut(ino) {
            inode.place = Some((directory, Arc::clone(name)));
        }
        old
    }

    /// Takes what hangs under `name` off the tree; it lives on while it is open or the kernel knows it.
    pub fn unlink(&mut self, directory: Ino, name: &Arc<str>) -> Option<Ino> {
        match self.directory_mut(directory)?.children.remove(name)? {
            Child::Inode(ino) => {
                let inode = self.get_mut(ino);
                let inside = u32::from(inode.as_ref().is_some_and(|inode| inode.is_directory()));
                if let Some(inode) = inode {
                    inode.place = None;
                }
                if let Some(node) = self.directory_mut(directory) {
                    node.subdirectories = node.subdirectories.saturating_sub(inside);
                }
                Some(ino)
            }
            Child::Missing(_) => {
                self.missing -= 1;
                None
            }
        }
    }

    /// Remembers that the bucket has no such name.
    pub fn set_missing(&mut self, directory: Ino, name: &Arc<str>, checked: Instant) -> Option<Ino> {
        let old = self.unlink(directory, name);
        self.numbers.give_back(directory, name);
        if let Some(directory) = self.directory_mut(directory) {
            directory.children.insert(Arc::clone(name), Child::Missing(checked));
            self.missing += 1;
        }
        old
    }

    /// The data file of an inode that nobody has open, and that the bucket has as it is, need not be in memory: it is found by
    /// its version. (Not where another name is in that version: then it would be looked for under a key that is to go.)
    pub fn let_go(&mut self, ino: Ino) {
        let Some(key) = self.key(ino) else { return };
        let Some(Inode { opens: 0, node: Node::File(file), .. }) = self.get_mut(ino) else { return };
        let version = file.version.as_ref().filter(|version| version.key == key);
        if let (Some(version), Some(local)) = (version, &file.local)
            && local.is_at_rest_as(version)
        {
            file.local = None;
        }
    }

    /// Removes an inode that nothing refers to any more. A directory goes with what is below it.
    pub fn remove_if_unused(&mut self, ino: Ino) -> bool {
        let unused = ino != ROOT && self.get(ino).is_some_and(|i| i.place.is_none() && i.lookups == 0 && i.opens == 0);
        if unused && let Some(Node::Directory(directory)) = self.inodes.remove(&ino).map(|inode| inode.node) {
            self.by_use.pop(&ino);
            for child in directory.children.into_values() {
                let Child::Inode(child) = child else {
                    self.missing -= 1;
                    continue;
                };
                if let Some(inode) = self.get_mut(child) {
                    inode.place = None;
                }
                self.remove_if_unused(child);
            }
        }
        unused
    }

    pub fn forget(&mut self, ino: Ino, lookups: u64) {
        if let Some(inode) = self.get_mut(ino) {
            inode.lookups = inode.lookups.saturating_sub(lookups);
        }
        self.remove_if_unused(ino);
    }

    /// Every inode below `ino`, each with its key; a directory comes before its children.
    pub fn below(&self, ino: Ino) -> Vec<(Key, Ino)> {
        let mut found = Vec::new();
        let mut stack: Vec<(Key, Ino)> = self.key(ino).map(|key| (key, ino)).into_iter().collect();
        while let Some((key, directory)) = stack.pop() {
            for (name, child) in self.directory(directory).into_iter().flat_map(|d| &d.children) {
                if let Child::Inode(child) = child {
                    let inside = self.get(*child).is_some_and(Inode::is_directory);
                    let child_key = if inside { key.child(&format!("{name}/")) } else { key.child(name) };
                    found.push((child_key.clone(), *child));
                    if inside {
                        stack.push((child_key, *child));
                    }
                }
            }
        }
        found
    }

    /// True where `ino` is `ancestor` or hangs below it.
    pub fn is_within(&self, mut ino: Ino, ancestor: Ino) -> bool {
        loop {
            if ino == ancestor {
                return true;
            }
            match self.get(ino).and_then(|inode| inode.place.as_ref()) {
                Some((parent, _)) => ino = *parent,
                None => return false,
            }
        }
    }

    /// Number of hard links as stat shows it: a directory's subdirectories count, an unlinked inode has none. A directory
    /// whose names are not all known has 1, which by custom says "not counted": 2 would promise that none is inside.
    pub fn links(&self, ino: Ino) -> u32 {
        let Some(inode) = self.get(ino) else { return 1 };
        match inode.directory() {
            _ if inode.place.is_none() && ino != ROOT => 0,
            Some(node) if node.complete => 2 + node.subdirectories,
            _ => 1,
        }
    }

    /// A question about names in `directory` begins.
    pub fn watch(&mut self, directory: Ino) -> WatchId {
        self.watches.begin(Some(directory))
    }

    /// The same about names in any directory.
    pub fn watch_all(&mut self) -> WatchId {
        self.watches.begin(None)
    }

    pub fn unwatch(&mut self, id: WatchId) {
        self.watches.end(id);
    }

    /// True where `name` in `directory` changed locally since the question began: what its answer says of it is old.
    pub fn is_touched(&self, id: WatchId, directory: Ino, name: &Arc<str>) -> bool {
        self.watches.touched(id, directory, name)
    }

    /// The name changed here or by our own upload: answers under way know nothing of it.
    pub fn touch(&mut self, directory: Ino, name: &Arc<str>) {
        self.watches.touch(directory, name);
    }
}
