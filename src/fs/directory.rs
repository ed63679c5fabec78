//! Listing: opendir, readdir, and the LIST behind them.
//!
//! A listing costs ceil(n / 1,000) LISTs and no HEAD. It is taken in whole, then laid under what is wanted locally; a
//! handle shows the snapshot of its first readdir until it is read from the start again. A cookie is the number of the entry
//! before it, and means the same in all snapshots of a directory: see `namespace::positions`.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::outage::is_outage;
use super::question::Watching;
use super::{DirEntry, Fs, Kind, MARKER};
use crate::clock;
use crate::error::{Error, Result};
use crate::journal::Content;
use crate::namespace::keys::{ListedKind, Listing, Reason};
use crate::namespace::{Child, Ino, Namespace, Node, ROOT, Seen};
use crate::store::{ListRequest, Pages};
use crate::types::{Key, Version};

/// Entries handed over in one turn: more than one readdir of the kernel takes.
const BATCH: usize = 512;

/// Listings in a row that deletions of this host overtake; each turn some have landed.
const TURNS: usize = 4;

/// Hidden keys of one listing that the log names one by one: a bucket can hold any number of them.
const HIDDEN_TOLD: usize = 20;

/// What one handle shows.
pub(super) struct Snapshot {
    /// By their numbers.
    entries: Vec<Listed>,
    parent: Ino,
}

#[derive(Clone)]
struct Listed {
    number: u64,
    name: Arc<str>,
    ino: Ino,
    kind: Kind,
}

impl Fs {
    pub async fn opendir(&self, ino: Ino) -> Result<u64> {
        self.require_directory(ino)?;
        Ok(self.handles.add_directory(ino))
    }

    pub fn releasedir(&self, number: u64) {
        self.handles.remove_directory(number);
    }

    /// Entries from `cookie` on (0: from the start, `.` and `..` first); empty at the end. `plus` fills `entry` where the
    /// attributes are known; it asks for none, since the kernel asks so on every first readdir.
    pub async fn readdir(&self, number: u64, cookie: u64, plus: bool) -> Result<Vec<DirEntry>> {
        let handle = self.handles.directory(number)?;
        if cookie == 0 || handle.snapshot.lock().is_none() {
            // With nobody else in the midst of a listing, this one is in the order of the names.
            let begins = cookie == 0 && handle.snapshot.lock().is_none() && self.handles.of_directory(handle.ino) == 1;
            let snapshot = Arc::new(self.snapshot(handle.ino, begins).await?);
            *handle.snapshot.lock() = Some(snapshot);
        }
        let Some(snapshot) = handle.snapshot.lock().clone() else { return Ok(Vec::new()) };
        let mut names = self.names.lock();
        if let Some(inode) = names.get_mut(handle.ino).filter(|_| cookie == 0 && self.notes_access()) {
            inode.access(clock::now());
        }
        let dot = |number, name: &str, ino| Listed { number, name: name.into(), ino, kind: Kind::Directory };
        let dots = [dot(1, ".", handle.ino), dot(2, "..", snapshot.parent)];
        let from = snapshot.entries.partition_point(|listed| listed.number <= cookie);
        let listed = dots.iter().filter(|dot| dot.number > cookie).chain(&snapshot.entries[from..]);
        let entries = listed.take(BATCH).map(|Listed { number, name, ino, kind }| {
            let entry = if plus && *number > 2 { self.known_entry(&names, *ino) } else { None };
            DirEntry { name: OsString::from(&**name), ino: *ino, kind: *kind, next: *number, entry }
        });
        Ok(entries.collect())
    }

    fn known_entry(&self, names: &Namespace, ino: Ino) -> Option<super::Entry> {
        let inode = names.get(ino).filter(|inode| inode.place.is_some())?;
        if inode.known || !self.asks_headers(names, ino) { self.entry(names, ino).ok() } else { None }
    }

    /// What is known of an inode so far, to be believed for no time at all. None: it is gone.
    pub fn provisional_entry(&self, ino: Ino) -> Option<super::Entry> {
        let attr = self.attr(&self.names.lock(), ino).ok()?;
        Some(super::Entry { attr, ttl: std::time::Duration::ZERO })
    }

    async fn snapshot(&self, ino: Ino, anew: bool) -> Result<Snapshot> {
        // A directory that was removed while open has nothing in it.
        if self.names.lock().key(ino).is_none() {
            return Ok(Snapshot { entries: Vec::new(), parent: ino });
        }
        self.load_listing_or_remember(ino, self.fresh_since()).await?;
        let mut names = self.names.lock();
        names.use_directory(ino);
        self.adopt_wanted(&mut names, ino)?;
        let parent = names.get(ino).and_then(|inode| inode.place.as_ref()).map_or(ROOT, |(parent, _)| *parent);
        let node = names.directory(ino).ok_or(Error::NotDirectory)?;
        let entries = node.children.iter().filter_map(|(name, child)| match child {
            Child::Inode(ino) => {
                let kind = match names.get(*ino)?.node {
                    Node::File(_) => Kind::File,
                    Node::Directory(_) => Kind::Directory,
                    Node::Symlink(_) => Kind::Symlink,
                };
                Some(Listed { number: 0, name: Arc::clone(name), ino: *ino, kind })
            }
            Child::Missing(_) => None,
        });
        let mut entries: Vec<Listed> = entries.collect();
        if let Some(node) = names.directory_mut(ino) {
            if anew {
                node.positions.forget();
            }
            let numbers = node.positions.of(entries.iter().map(|listed| &listed.name));
            entries.iter_mut().zip(numbers).for_each(|(listed, number)| listed.number = number);
        }
        entries.sort_unstable_by_key(|listed| listed.number);
        Ok(Snapshot { entries, parent })
    }

    /// What is wanted in the directory and isn't in memory (after a restart) gets its inodes.
    fn adopt_wanted(&self, names: &mut Namespace, ino: Ino) -> Result<()> {
        let key = self.directory_key(names, ino)?;
        for (wanted, desired) in self.writer.pending_below(&key) {
            let (name, is_inside) = first_part(&wanted, &key);
            if name.is_empty() || desired.content == Content::Absent || names.child(ino, &name).is_some() {
                continue;
            }
            let adopted = if is_inside {
                self.local_directory(names, ino, &name, &key.child(&name).as_directory())
            } else {
                self.local_inode(names, ino, &name, &desired)
            };
            if let Err(error) = adopted {
                tracing::error!(key = %wanted, %error, "a file that waits to be uploaded can't be shown");
            }
        }
        Ok(())
    }

    /// Has the directory's listing as the bucket has it at `since` or later (None: at any time).
    pub(super) async fn load_listing(&self, ino: Ino, since: Option<Instant>) -> Result<()> {
        let key = {
            let names = self.names.lock();
            let key = self.directory_key(&names, ino)?;
            let listed = names.directory(ino).and_then(|node| node.listed);
            if listed.is_some_and(|listed| since.is_none_or(|since| listed >= since)) {
                return Ok(());
            }
            key
        };
        for _ in 0..TURNS {
            let watch = self.watch(ino, &key);
            let begun = Instant::now();
            let going = self.going_names(&key);
            let mut listing = self.list(&key).await?;
            self.drop_vanishing_directories(&key, &mut listing, &going).await?;
            if self.take_in_listing(ino, &key, listing, &watch, begun) {
                break;
            }
        }
        Ok(())
    }

    /// Learns all names of a directory in which a program looks for many that aren't there, if one LIST shows them: it tells
    /// what asking for each would, for less. An error is left to the question that would have been asked without it.
    pub(super) async fn peek(&self, ino: Ino) {
        let Ok(key) = self.begin_peek(ino) else { return };
        let (watch, begun) = (self.watch(ino, &key), Instant::now());
        let going = self.going_names(&key);
        let shown = async {
            let page = self.store.list(&ListRequest { prefix: key.as_str().into(), by_directory: true, ..ListRequest::default() }).await?;
            if page.next.is_some() {
                return Ok(None);
            }
            let mut listing = Listing::default();
            listing.add(&key, &page);
            self.drop_vanishing_directories(&key, &mut listing, &going).await?;
            Ok::<_, Error>(Some(listing))
        };
        let shown = shown.await;
        // Whoever doesn't answer now may show all names a second later.
        let says_nothing = shown.as_ref().is_err_and(is_outage);
        let told = shown.ok().flatten().map(|listing| self.take_in_listing(ino, &key, listing, &watch, begun));
        if let Some(node) = self.names.lock().directory_mut(ino) {
            match told {
                Some(true) => {}
                Some(false) => node.listed = None,
                None if says_nothing => {}
                None => node.peeks.too_wide = Some(begun),
            }
        }
    }

    /// Notes that all names are asked for: others who come meanwhile ask for themselves.
    pub(super) fn begin_peek(&self, ino: Ino) -> Result<Key> {
        let mut names = self.names.lock();
        let key = self.directory_key(&names, ino)?;
        names.directory_mut(ino).ok_or(Error::NotDirectory)?.peeks.last = Some(Instant::now());
        Ok(key)
    }

    /// Learns the names at the root, as far as one LIST shows them all, so that an outage that begins right after mounting
    /// finds something known. They are not taken for fresh.
    pub async fn preload(&self) -> Result<()> {
        let (watch, begun) = (self.watch(ROOT, &Key::root()), Instant::now());
        let page = self.store.list(&ListRequest { by_directory: true, ..ListRequest::default() }).await?;
        if page.next.is_some() {
            return Ok(());
        }
        let mut listing = Listing::default();
        listing.add(&Key::root(), &page);
        let complete = self.take_in_listing(ROOT, &Key::root(), listing, &watch, begun);
        let mut names = self.names.lock();
        for (_, ino) in names.below(ROOT) {
            if let Some(inode) = names.get_mut(ino) {
                inode.checked = None;
            }
        }
        if let Some(node) = names.directory_mut(ROOT) {
            node.listed = None;
            node.complete &= complete;
        }
        Ok(())
    }

    async fn list(&self, key: &Key) -> Result<Listing> {
        let mut listing = Listing::default();
        let request = ListRequest { prefix: key.as_str().into(), by_directory: true, ..ListRequest::default() };
        let mut pages = Pages::kept(request, self.config.listing_bytes);
        while let Some(page) = pages.next(&self.store).await? {
            listing.add(key, &page);
        }
        Ok(listing)
    }

    /// Sees to it that one flat listing shows all that is below a directory: files that are to give way to it, or to a
    /// directory in it, go now, because MinIO lists nothing below a name that is still a file.
    pub(super) async fn uncover(&self, key: &Key) -> Result<()> {
        let mut files = self.writer.going_below(key);
        files.extend(Some(key.without_slash()).filter(|file| self.writer.pending(file).is_some_and(|d| d.content == Content::Absent)));
        files.retain(|file| !file.is_marker() && self.names.lock().find(&file.as_directory()).is_some());
        let going = async {
            for file in &files {
                self.writer.sync(file).await?;
            }
            Ok(())
        };
        // For as long as the listing itself may take: what is waited for may be the end of an outage.
        tokio::select! {
            biased;
            gone = tokio::time::timeout(self.config.timeout, going) => gone.unwrap_or(Err(Error::Timeout)),
            () = self.outage_outlasts_patience() => Err(Error::Timeout),
        }
    }

    /// The names in a directory under which, at any depth, something is wanted gone.
    fn going_names(&self, key: &Key) -> HashSet<String> {
        let first = |below: &Key| below.as_str()[key.as_str().len()..].split('/').next().map(str::to_owned);
        self.writer.going_below(key).iter().filter_map(first).collect()
    }

    /// Listed directories below which deletions are under way, or whose name was a file, may have nothing left: those are
    /// looked at. A file that one of them hid shows in its place.
    async fn drop_vanishing_directories(&self, key: &Key, listing: &mut Listing, were_going: &HashSet<String>) -> Result<()> {
        let directories = listing.entries.iter().filter(|(_, kind)| **kind == ListedKind::Directory);
        let directories: Vec<String> = directories.map(|(name, _)| name.clone()).collect();
        for name in &directories {
            let marker = key.child(name).as_directory();
            let going = |key: &Key| self.writer.pending(key).is_some() || self.writer.is_landing(key);
            let removing = || {
                let by_hadoop = listing.hadoop_markers.get(name).is_some_and(going);
                !self.writer.pending_below(&marker).is_empty() || going(&key.child(name)) || by_hadoop || were_going.contains(name)
            };
            let deleting = !self.writer.wants_below(&marker) && removing();
            if !deleting {
                continue;
            }
            if self.first_below(&marker).await?.is_some() {
                listing.confirmed.insert(name.clone());
                continue;
            }
            listing.entries.remove(name);
            let file = key.child(name);
            if listing.hidden.remove(&file).is_some()
                && let Some(info) = self.head(&file).await?
            {
                let kind = ListedKind::File { size: info.size, etag: info.etag, last_modified: info.last_modified };
                listing.entries.insert(name.clone(), kind);
            }
        }
        Ok(())
    }

    /// False: it says of a name what does not hold any more, and nothing else is known of that name.
    fn take_in_listing(&self, ino: Ino, key: &Key, listing: Listing, watch: &Watching<'_>, begun: Instant) -> bool {
        let now = clock::now();
        let mut complete = true;
        if !listing.hadoop_markers.is_empty() {
            self.hadoop_markers.store(true, Ordering::Release);
        }
        let mut seen_names: HashSet<Arc<str>> = HashSet::with_capacity(listing.entries.len());
        let mut overruling = HashSet::new();
        let mut names = self.names.lock();
        if names.key(ino).as_ref() != Some(key) {
            return true;
        }
        for (name, kind) in listing.entries {
            let is_confirmed = listing.confirmed.contains(&name);
            let name = self.spelled(&name);
            let child_key = key.child(&name);
            let overruled = names.is_touched(watch.id, ino, &name) || !is_confirmed && self.writer.is_landing(&child_key);
            // An object that is just being stored or removed can be listed as a directory (MinIO), our own among them.
            let own_file = self.writer.pending(&child_key);
            let local = match kind {
                ListedKind::Directory => {
                    self.writer.wants_below(&child_key.as_directory()) || own_file.is_some_and(|own| own.content != Content::Absent)
                }
                ListedKind::File { .. } => own_file.is_some(),
            };
            if overruled || local {
                // Its marker was just deleted: now the name is a file that the directory hid, or nothing.
                complete &= local || names.directory(ino).is_some_and(|node| node.children.contains_key(&name));
                // An operation that was under way just now may have landed before the next question about it.
                overruling.extend(names.child(ino, &name));
                continue;
            }
            let seen = match kind {
                ListedKind::Directory => Seen::Directory,
                ListedKind::File { size, etag, last_modified } => {
                    let version = Version { key: child_key, etag, size };
                    Seen::Object { version, modified: last_modified, headers: None }
                }
            };
            let absorbed = names.absorb(ino, &name, seen, begun, now);
            self.tell_kernel(ino, &name, absorbed);
            seen_names.insert(name);
        }
        if !seen_names.is_empty() {
            names.prove(ino, begun);
        }
        let mut keep = self.wanted_children(&names, ino, &seen_names);
        keep.extend(overruling);
        let arrived = watch.arrived();
        keep.extend(
            arrived.iter().filter(|arrived| arrived.is_below(key)).filter_map(|arrived| names.child(ino, &first_part(arrived, key).0)),
        );
        // While an object of the directory's own name is still to go, MinIO lists nothing of what is below it.
        let file = key.without_slash();
        let covered = !key.is_root() && (self.writer.pending(&file).is_some() || self.writer.is_landing(&file));
        self.note_crowd(&names);
        let vanished = names.absorb_listing(ino, &seen_names, watch.id, begun, |inode| covered || keep.contains(&inode.ino));
        complete &= self.take_in_arrived(&mut names, ino, key, watch, begun);
        // A listing that was on its way while the marker arrived lacks it.
        let overtaken = names.is_touched(watch.id, ino, &MARKER.into()) || self.writer.is_landing(key);
        if !overtaken && let Some(node) = names.directory_mut(ino) {
            node.see_marker(listing.marker.map(|marker| marker.version()).as_ref());
        }
        drop(names);
        for (name, _) in vanished {
            self.invalidate_entry(ino, &name);
        }
        self.count_hidden(key, listing.hidden);
        complete
    }

    /// Children that the listing lacks because they are wanted and not there yet.
    fn wanted_children(&self, names: &Namespace, ino: Ino, seen: &HashSet<Arc<str>>) -> HashSet<Ino> {
        let children = names.directory(ino).into_iter().flat_map(|node| &node.children);
        children
            .filter_map(|(name, child)| match child {
                Child::Inode(child) if !seen.contains(name) => Some(*child),
                _ => None,
            })
            .filter(|child| names.key(*child).is_some_and(|key| self.is_wanted(&key) || self.writer.is_landing(&key)))
            .collect()
    }

    /// Gives their names to what arrived below the directory while it was listed, and to what waits now and may have arrived
    /// before anybody looks again. False: one is in the bucket, and its version is not known here yet.
    pub(super) fn take_in_arrived(&self, names: &mut Namespace, ino: Ino, key: &Key, watch: &Watching<'_>, begun: Instant) -> bool {
        if let Err(error) = self.adopt_wanted(names, ino) {
            tracing::debug!(%key, %error, "removed while it was listed");
        }
        let mut complete = true;
        for arrived in watch.arrived().iter().filter(|arrived| arrived.is_below(key)) {
            let (name, is_inside) = first_part(arrived, key);
            // What was touched was known meanwhile: it is there, or was removed.
            if names.child(ino, &name).is_some() || names.is_touched(watch.id, ino, &name) {
                continue;
            }
            match is_inside {
                true => drop(names.absorb(ino, &name, Seen::Directory, begun, clock::now())),
                false => complete = false,
            }
        }
        complete
    }

    /// Replaces what the directory's last listing hid. What is being removed is not hidden but going.
    fn count_hidden(&self, directory: &Key, mut found: BTreeMap<Key, Reason>) {
        found.retain(|key, _| self.writer.pending(key).is_none());
        let mut hidden = self.hidden.lock();
        let known = hidden.remove(directory).unwrap_or_default();
        let mut fresh = found.iter().filter(|(key, _)| !known.contains_key(*key));
        for (key, reason) in fresh.by_ref().take(HIDDEN_TOLD) {
            tracing::warn!(%key, reason = reason.text(), "this key can't be shown as a file");
        }
        let more = fresh.count();
        if more > 0 {
            tracing::warn!(%directory, more, "further keys there can't be shown as files");
        }
        if !found.is_empty() {
            hidden.insert(directory.clone(), found);
        }
    }

    /// Makes the listing fresh for a removal. Where it hid something, that is asked anew: an object that was just being
    /// stored or removed can be listed twice, as itself and as a directory.
    pub(super) async fn load_listing_for_removal(&self, ino: Ino) -> Result<()> {
        self.answer_of(false, self.load_listing(ino, self.fresh_since())).await?;
        let doubtful = {
            let mut names = self.names.lock();
            let hides = names.key(ino).is_some_and(|key| self.hidden.lock().contains_key(&key));
            if hides && let Some(node) = names.directory_mut(ino) {
                node.listed = None;
            }
            hides
        };
        if doubtful { self.answer_of(false, self.load_listing(ino, self.fresh_since())).await } else { Ok(()) }
    }

    /// Returns when everything below the directory is in the bucket.
    pub async fn fsyncdir(&self, ino: Ino) -> Result<()> {
        self.take_all_news()?;
        let key = self.names.lock().key(ino);
        match key {
            Some(key) => self.writer.sync_below(&key).await,
            None => Ok(()),
        }
    }
}

/// The name in `directory` of something below it, and whether it lies deeper (or is that directory's marker).
fn first_part(key: &Key, directory: &Key) -> (Arc<str>, bool) {
    let rest = &key.as_str()[directory.as_str().len()..];
    rest.split_once('/').map_or((rest.into(), false), |(name, _)| (name.into(), true))
}
