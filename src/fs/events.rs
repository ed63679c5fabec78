//! What the writer reports: versions that reached the bucket, removals, conflicts.

use std::sync::{Arc, Weak};
use std::time::SystemTime;

use tokio::time::Instant;

use super::{Fs, MARKER};
use crate::cache::LocalFile;
use crate::clock;
use crate::journal::Content;
use crate::namespace::{File, Ino, Inode, Modified, Namespace, Node, Seen};
use crate::types::{FileId, Key, ObjectHeaders, Version};
use crate::writer::Events;

/// The writer's way to the file system, which owns the writer: held any faster, neither could ever be dropped.
pub(super) struct Listener(pub Weak<Fs>);

impl Events for Listener {
    fn headers(&self, key: &Key, file: FileId) -> Option<ObjectHeaders> {
        self.0.upgrade()?.headers(key, file)
    }

    fn stored(&self, content: &Content, version: &Version, headers: Option<&ObjectHeaders>, last_modified: SystemTime, clean: bool) {
        if let Some(fs) = self.0.upgrade() {
            fs.stored(content, version, headers, last_modified, clean);
        }
    }

    fn renewed(&self, key: &Key, old: &Version, new: &Version) {
        if let Some(fs) = self.0.upgrade() {
            fs.renewed(key, old, new);
        }
    }

    fn deleted(&self, key: &Key) {
        if let Some(fs) = self.0.upgrade() {
            fs.deleted(key);
        }
    }

    fn conflict(&self, key: &Key, kept_as: Option<&Key>) {
        if let Some(fs) = self.0.upgrade() {
            fs.conflict(key, kept_as);
        }
    }
}

impl Events for Fs {
    fn headers(&self, key: &Key, file: FileId) -> Option<ObjectHeaders> {
        let names = self.names.lock();
        // Of one that was only found in the journal, the journal knows more.
        let inode = names.find(key).and_then(|ino| names.get(ino)).filter(|inode| inode.known)?;
        let local = inode.file()?.local.as_ref()?;
        (local.id() == file).then(|| self.headers_of(inode, key))
    }

    fn stored(&self, content: &Content, version: &Version, headers: Option<&ObjectHeaders>, last_modified: SystemTime, clean: bool) {
        let mut names = self.names.lock();
        let Some(ino) = names.find(&version.key) else {
            // Not in memory, since a restart: a listing under way may have missed it all the same.
            return self.adopt_stored(&mut names, version, headers, last_modified);
        };
        self.touch(&mut names, ino);
        names.touch(ino, &MARKER.into());
        // Word of what a file was stored as may have come when it had another name already, and found nobody. With nothing
        // else wanted here, what still counts as held under another key is what was copied.
        let is_settled = clean && self.writer.pending(&version.key).is_none();
        let held = names.get(ino).and_then(Inode::held);
        let cached = self.moved(&names, held.as_ref(), content, &version.key);
        let Some(inode) = names.get_mut(ino) else { return };
        let same_bytes = |a: &Version, b: &Version| a.etag == b.etag && a.key == b.key;
        // A copy of what was only listed has the size that is stored.
        let size = held.as_ref().filter(|held| inode.known && held.etag == version.etag).map_or(version.size, |held| held.size);
        let version = &Version { size, ..version.clone() };
        match (&mut inode.node, content) {
            (Node::Directory(node), _) => node.see_marker(Some(version)),
            (Node::File(node), Content::Staged(id)) if node.local.as_ref().is_some_and(|local| local.id() == *id) => {
                inode.set_version(version.clone(), Modified::About(last_modified));
            }
            // The writer had to take the bytes here, to break a cycle of copies, and nobody has opened the file since.
            (Node::File(node), Content::Staged(_))
                if node.local.is_none() && is_settled && held.as_ref().is_some_and(|held| held.key != version.key) =>
            {
                inode.set_version(version.clone(), Modified::About(last_modified));
            }
            (Node::File(node), Content::CopyOf(old))
                if held.as_ref().is_some_and(|held| same_bytes(held, old) || is_settled && held.key != version.key) =>
            {
                rebase(node, cached, held.as_ref(), version);
                inode.set_version(version.clone(), Modified::About(last_modified));
            }
            // Staged: taken here to break a cycle of copies.
            (Node::Symlink(_), content) if matches!(content, Content::Inline(_) | Content::CopyOf(_)) || is_settled => {
                inode.set_version(version.clone(), Modified::About(last_modified));
            }
            _ => return,
        }
        inode.checked = Some(Instant::now());
        // Changed since, they are newer here.
        let is_newer = self.writer.pending(&version.key).is_some();
        let headers = headers.filter(|_| clean && !is_newer).cloned();
        if let Some(headers) = &headers {
            inode.set_headers(headers.clone());
        }
        // A copy that says nothing has those of its source: as known here, if they are.
        let is_same = matches!(content, Content::CopyOf(_)) && clean && !is_newer && inode.known;
        let headers = headers.or_else(|| is_same.then(|| inode.headers()));
        names.let_go(ino);
        drop(names);
        if let Some(headers) = headers {
            self.learn_own(version, last_modified, &headers);
        }
    }

    fn renewed(&self, key: &Key, old: &Version, new: &Version) {
        let mut names = self.names.lock();
        let cached = self.moved(&names, Some(old), &Content::CopyOf(old.clone()), key);
        let Some(inode) = names.find(key).and_then(|ino| names.get_mut(ino)) else { return };
        match &mut inode.node {
            Node::File(node) if node.version.as_ref() == Some(old) => {
                rebase(node, cached, Some(old), new);
                node.version = Some(new.clone());
            }
            Node::Symlink(link) if link.version.as_ref() == Some(old) => link.version = Some(new.clone()),
            Node::Directory(node) if node.filled.as_ref() == Some(old) => node.filled = Some(new.clone()),
            _ => {}
        }
    }

    fn deleted(&self, key: &Key) {
        let mut names = self.names.lock();
        if let Some(directory) = names.find(&key.as_directory()).filter(|_| key.is_marker()) {
            names.touch(directory, &MARKER.into());
            if let Some(node) = names.directory_mut(directory) {
                node.see_marker(None);
            }
            return;
        }
        let Some((parent_key, name)) = key.split() else { return };
        if let Some(parent) = names.find(&parent_key) {
            names.touch(parent, &Arc::from(name));
        }
        // Another file took the name since, and its bytes are wanted here.
        if self.writer.pending(key).is_some() {
            return;
        }
        // Wanted as a copy of what is nowhere any more: what the bucket has under the name is something else.
        if let Some(inode) = names.find(key).and_then(|ino| names.get_mut(ino)).filter(|inode| inode.opens == 0)
            && inode.version().is_some_and(|version| version.key != *key)
            && let Node::File(node) = &mut inode.node
        {
            node.local = None;
            inode.checked = None;
        }
    }

    fn conflict(&self, key: &Key, kept_as: Option<&Key>) {
        let mut names = self.names.lock();
        let Some(ino) = names.find(key) else { return };
        let Some((parent, name)) = names.get(ino).and_then(|inode| inode.place.clone()) else { return };
        names.touch(parent, &name);
        names.unlink(parent, &name);
        if let Some((_, kept_name)) = kept_as.and_then(Key::split) {
            let kept_name: Arc<str> = kept_name.into();
            names.touch(parent, &kept_name);
            names.link(parent, &kept_name, ino);
            self.invalidate_entry(parent, &kept_name);
        } else {
            names.remove_if_unused(ino);
        }
        // The other side's object shows under the name from the next look-up on.
        if let Some(node) = names.directory_mut(parent) {
            node.listed = None;
        }
        drop(names);
        self.invalidate_entry(parent, &name);
    }
}

impl Fs {
    /// An object that nobody asked about yet, if its directory is in memory. What is known of the name is newer: it may have
    /// been removed while it was on its way.
    fn adopt_stored(&self, names: &mut Namespace, version: &Version, headers: Option<&ObjectHeaders>, last_modified: SystemTime) {
        let Some((parent_key, name)) = version.key.split() else { return };
        let Some(parent) = names.find(&parent_key) else { return };
        let name: Arc<str> = name.into();
        names.touch(parent, &name);
        let known = names.directory(parent).is_some_and(|node| node.children.contains_key(&name));
        if known || self.writer.pending(&version.key).is_some() {
            return;
        }
        let headers = headers.cloned().map(Box::new);
        let seen = match version.key.is_marker() {
            true => Seen::Directory,
            false => Seen::Object { version: version.clone(), modified: last_modified, headers },
        };
        let ino = names.absorb(parent, &name, seen, Instant::now(), clock::now()).ino;
        if let Some(inode) = names.get_mut(ino).filter(|inode| !inode.is_directory()) {
            inode.set_version(version.clone(), Modified::About(last_modified));
        }
    }

    /// The cached bytes of a version that was copied to `key`, where they move with it: its own name is that, or is gone.
    fn moved(&self, names: &Namespace, held: Option<&Version>, content: &Content, key: &Key) -> Option<Arc<LocalFile>> {
        let held = held.filter(|held| matches!(content, Content::CopyOf(_)) && (held.key == *key || names.find(&held.key).is_none()))?;
        self.cache.find_version(held)
    }

    /// What the bucket says of this name was asked before it changed.
    fn touch(&self, names: &mut Namespace, ino: Ino) {
        if let Some((parent, name)) = names.get(ino).and_then(|inode| inode.place.clone()) {
            names.touch(parent, &name);
        }
    }
}

/// What is here of `old` is of `new` too. `cached`: where the inode itself holds no bytes.
fn rebase(node: &mut File, cached: Option<Arc<LocalFile>>, old: Option<&Version>, new: &Version) {
    if let Some(local) = node.local.clone().or(cached).filter(|local| local.base().as_ref() == old)
        && let Err(error) = local.rebase(new)
    {
        tracing::warn!(key = %new.key, %error, "the cached bytes of a copied file can't be kept");
        node.local = None;
    }
}
