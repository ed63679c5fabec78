//! Which names may leave memory, so that it stays bounded however many the bucket has.
//!
//! Directories stand in the order of their last use, and what nobody looked into for the longest time goes first: who walks
//! through a large tree leaves what others use alone. What the kernel knows of has to be forgotten there before; such an
//! inode is marked, and goes with the kernel's last word of it.

use std::ops::Bound;
use std::sync::Arc;

use tokio::time::Instant;

use super::inode::{Child, Ino, Inode, Node, ROOT};
use super::tree::Namespace;
use crate::types::Key;

/// What is known of a name.
pub enum Known<'a> {
    /// Under this key.
    Inode(&'a Inode, &'a Key),
    /// The bucket had nothing of that name then.
    Missing(Instant),
}

/// What became of a stretch of a directory's names.
#[derive(Default)]
pub struct Thinned {
    /// Nobody here needs them, but the kernel knows them: name and inode.
    pub known_to_kernel: Vec<(Arc<str>, Ino)>,
    /// How many those are, and those that are forgotten.
    pub done: usize,
    /// Where to go on; None: that was all.
    pub next: Option<Arc<str>>,
}

impl Namespace {
    /// Names in memory: of inodes, and of what is known to be missing.
    pub fn len(&self) -> usize {
        self.inodes.len() + self.missing
    }

    /// Somebody looks into the directory.
    pub fn use_directory(&mut self, directory: Ino) {
        self.by_use.promote(&directory);
    }

    /// All directories, those that were used longest ago first.
    pub fn directories_by_use(&self) -> Vec<Ino> {
        self.by_use.iter().rev().map(|(ino, ())| *ino).collect()
    }

    /// Forgets names of `directory` behind `after` (None: from the first) that nobody needs. Looks at most at so many, and ends
    /// with the one by which `excess` are forgotten or found to be the kernel's.
    pub fn thin_out(
        &mut self,
        directory: Ino,
        after: Option<&Arc<str>>,
        (most, excess): (usize, usize),
        is_needed: impl Fn(Known<'_>) -> bool,
    ) -> Thinned {
        let (Some(key), Some(node)) = (self.key(directory), self.directory(directory)) else { return Thinned::default() };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let names: Vec<(Arc<str>, Child)> =
            node.children.range::<Arc<str>, _>((from, Bound::Unbounded)).take(most).map(|(name, child)| (name.clone(), *child)).collect();
        let next = if names.len() == most { names.last().map(|(name, _)| Arc::clone(name)) } else { None };
        let mut thinned = Thinned { next, ..Thinned::default() };
        for (name, child) in names {
            if thinned.done == excess {
                break;
            }
            let ino = match child {
                Child::Inode(ino) => ino,
                Child::Missing(checked) if is_needed(Known::Missing(checked)) => continue,
                Child::Missing(_) => {
                    self.unlink(directory, &name);
                    thinned.done += 1;
                    continue;
                }
            };
            self.let_go(ino);
            let Some(inode) = self.get_mut(ino) else { continue };
            let own = if inode.is_directory() { key.child(&name).as_directory() } else { key.child(&name) };
            if !inode.is_idle_as(&own) || is_needed(Known::Inode(inode, &own)) {
                continue;
            }
            thinned.done += 1;
            if inode.lookups > 0 {
                inode.leaving = true;
                thinned.known_to_kernel.push((name, ino));
            } else {
                self.forget_idle(ino);
            }
        }
        thinned
    }

    /// The inode was to go, and the kernel has forgotten it by now.
    pub fn may_leave(&self, ino: Ino) -> bool {
        self.get(ino).is_some_and(|inode| inode.leaving && inode.lookups == 0)
    }

    /// Forgets an inode that nobody needs, if that is so still. What its directory was told to hold is not all known from here on.
    pub fn leave(&mut self, ino: Ino, is_needed: impl Fn(&Inode, &Key) -> bool) {
        self.let_go(ino);
        let (Some(key), Some(inode)) = (self.key(ino), self.get_mut(ino)) else { return };
        inode.leaving = false;
        if inode.is_idle_as(&key) && !is_needed(inode, &key) {
            self.forget_idle(ino);
        }
    }

    fn forget_idle(&mut self, ino: Ino) {
        let Some((parent, name)) = self.get(ino).and_then(|inode| inode.place.clone()) else { return };
        self.unlink(parent, &name);
        self.numbers.keep(parent, &name, ino);
        if let Some(directory) = self.directory_mut(parent) {
            directory.forget_names();
        }
        self.remove_if_unused(ino);
    }
}

impl Inode {
    /// Nobody has it open, and the bucket has all that is known of it, under `key`.
    fn is_idle_as(&self, key: &Key) -> bool {
        let is_held = match &self.node {
            Node::Directory(directory) => directory.children.values().all(|child| matches!(child, Child::Missing(_))),
            Node::File(file) => file.local.is_none() && file.version.as_ref().is_some_and(|version| version.key == *key),
            Node::Symlink(link) => link.version.as_ref().is_some_and(|version| version.key == *key),
        };
        is_held && self.opens == 0 && self.place.is_some() && self.ino != ROOT
    }
}
