//! A whole tree by one flat listing, for a rename.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::Fs;
use super::question::Watching;
use crate::clock;
use crate::error::{Error, Result};
use crate::journal::Content;
use crate::namespace::{Ino, Inode, Namespace, Seen, keys};
use crate::store::{ListRequest, Pages};
use crate::types::{Key, ListedObject};

/// Listings in a row that uploads of this host overtake; after the first, all that waits is known.
const TURNS: usize = 4;

impl Fs {
    /// Takes in everything below a directory by one flat listing. Returns the objects that no path can show.
    pub(super) async fn load_below(&self, ino: Ino) -> Result<Vec<ListedObject>> {
        let key = self.directory_key(&self.names.lock(), ino)?;
        self.uncover(&key).await?;
        let mut hidden = Vec::new();
        for _ in 0..TURNS {
            let watch = self.watch_all(&key);
            let begun = Instant::now();
            let objects = self.answer_of(false, self.list_below(&key)).await?;
            let listed: HashSet<Key> = objects.iter().map(|object| object.key.clone()).collect();
            hidden = self.take_in_below(ino, &key, objects, begun, &watch)?;
            if self.knows_arrived(&listed, &watch) {
                break;
            }
        }
        Ok(hidden)
    }

    async fn list_below(&self, key: &Key) -> Result<Vec<ListedObject>> {
        let mut objects = Vec::new();
        let request = ListRequest { prefix: key.as_str().into(), ..ListRequest::default() };
        let mut pages = Pages::kept(request, self.config.listing_bytes);
        while let Some(page) = pages.next(&self.store).await? {
            objects.extend(page.objects.into_iter().filter(|object| object.key == *key || object.key.is_below(key)));
        }
        Ok(objects)
    }

    /// False: something came into the bucket while it was listed, and neither the listing nor the tree has it.
    fn knows_arrived(&self, listed: &HashSet<Key>, watch: &Watching<'_>) -> bool {
        let names = self.names.lock();
        watch.arrived().iter().all(|key| listed.contains(key) || names.find(key).is_some())
    }

    fn take_in_below(
        &self,
        ino: Ino,
        key: &Key,
        objects: Vec<ListedObject>,
        begun: Instant,
        watch: &Watching<'_>,
    ) -> Result<Vec<ListedObject>> {
        let mut names = self.names.lock();
        if names.key(ino).as_ref() != Some(key) {
            return Err(Error::NotFound);
        }
        let (mut hidden, mut there) = (Vec::new(), HashSet::new());
        let stays = |object: &ListedObject| self.writer.pending(&object.key).is_none_or(|desired| desired.content != Content::Absent);
        let objects: Vec<ListedObject> = objects.into_iter().filter(stays).collect();
        let shadowed = keys::shadowed(objects.iter().map(|object| &object.key));
        for object in objects {
            if let Some(marked) = keys::marked_by_hadoop(&object.key) {
                self.hadoop_markers.store(true, Ordering::Release);
                // It goes, and a marker of our own comes: no bytes of it are to be copied from there.
                let marker = ListedObject { key: marked, size: 0, ..object.clone() };
                self.take_in_object(&mut names, ino, key, &marker, begun, watch, &mut there);
            } else if keys::shown_key(&object.key).is_err() || shadowed.contains(&object.key) {
                hidden.push(object);
            } else if object.key == *key {
                if let Some(node) = names.directory_mut(ino) {
                    node.see_marker(Some(&object.version()));
                }
            } else {
                self.take_in_object(&mut names, ino, key, &object, begun, watch, &mut there);
            }
        }
        self.drop_stale(&mut names, ino, there, watch);
        self.adopt_all_wanted(&mut names, key)?;
        Ok(hidden)
    }

    /// Takes off the tree what a flat listing lacks, but for what is wanted, and what changed while it was on its way.
    fn drop_stale(&self, names: &mut Namespace, ino: Ino, mut there: HashSet<Ino>, watch: &Watching<'_>) {
        let below = names.below(ino);
        for (child_key, child) in &below {
            let Some((parent, name)) = names.get(*child).and_then(|inode| inode.place.clone()) else { continue };
            let newer = self.is_wanted(child_key) || self.writer.is_landing(child_key) || names.is_touched(watch.id, parent, &name);
            if newer || there.contains(child) {
                let mut at = Some(*child);
                while let Some(kept) = at.filter(|kept| there.insert(*kept) || kept == child) {
                    at = names.get(kept).and_then(|inode| inode.place.as_ref()).map(|(parent, _)| *parent);
                }
            }
        }
        for (_, child) in below.into_iter().filter(|(_, child)| !there.contains(child)) {
            if let Some((parent, name)) = names.get(child).and_then(|inode| inode.place.clone()) {
                names.unlink(parent, &name);
                names.remove_if_unused(child);
                self.invalidate_entry(parent, &name);
            }
        }
    }

    /// One object of a flat listing, with the directories on the way to it.
    #[allow(clippy::too_many_arguments, reason = "a listing's object and where it goes; a struct of these would have one user")]
    fn take_in_object(
        &self,
        names: &mut Namespace,
        top: Ino,
        key: &Key,
        object: &ListedObject,
        begun: Instant,
        watch: &Watching<'_>,
        there: &mut HashSet<Ino>,
    ) {
        let rest = &object.key.as_str()[key.as_str().len()..];
        let parts: Vec<&str> = rest.split('/').collect();
        let (last, directories) = parts.split_last().map_or(("", &[][..]), |(last, directories)| (*last, directories));
        let mut at = top;
        for name in directories {
            at = names.absorb(at, &self.spelled(name), Seen::Directory, begun, clock::now()).ino;
            there.insert(at);
        }
        if last.is_empty() {
            if let Some(node) = names.directory_mut(at) {
                node.see_marker(Some(&object.version()));
            }
            return;
        }
        let last = &self.spelled(last);
        let is_directory = names.child(at, last).and_then(|ino| names.get(ino)).is_some_and(Inode::is_directory);
        let overtaken = self.writer.is_landing(&object.key) || names.is_touched(watch.id, at, last);
        if self.writer.pending(&object.key).is_some() || is_directory || overtaken {
            return;
        }
        let seen = Seen::Object { version: object.version(), modified: object.last_modified, headers: self.learned(object).map(Box::new) };
        let absorbed = names.absorb(at, last, seen, begun, clock::now());
        if let Some(inode) = names.get_mut(absorbed.ino).filter(|inode| !inode.known)
            && inode.headers().storage_class != object.storage_class
        {
            inode.change_headers(|headers| headers.storage_class.clone_from(&object.storage_class));
        }
        there.insert(absorbed.ino);
        self.tell_kernel(at, last, absorbed);
    }

    /// Gives what is wanted below `key` its inodes, where a restart left none in memory.
    fn adopt_all_wanted(&self, names: &mut Namespace, key: &Key) -> Result<()> {
        for (wanted, desired) in self.writer.pending_below(key) {
            if desired.content == Content::Absent || wanted == *key {
                continue;
            }
            let mut at = names.find(key).ok_or(Error::NotFound)?;
            let mut path = key.clone();
            let rest = wanted.as_str()[key.as_str().len()..].to_owned();
            let mut parts = rest.split('/').peekable();
            while let Some(name) = parts.next().filter(|name| !name.is_empty()) {
                let name: Arc<str> = name.into();
                path = path.child(&name);
                if parts.peek().is_none() {
                    self.local_inode(names, at, &name, &desired)?;
                } else {
                    path = path.as_directory();
                    at = self.local_directory(names, at, &name, &path)?;
                }
            }
        }
        Ok(())
    }
}
