//! Asking the bucket about one name, and taking in what it says.
//!
//! Steady state: an existing file is one HEAD; a missing name is a HEAD and a LIST of one key, side by side where recent
//! lookups in that directory mostly missed or the name looks like a directory's, one after the other where they mostly
//! hit, because a LIST is billed twelve times a HEAD. The parent is never listed because of one name.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::{Fs, MARKER};
use crate::clock;
use crate::error::{Error, Result};
use crate::journal::{Content, Desired};
use crate::namespace::{Absorbed, Ino, Inode, Namespace, Node, Seen, WatchId, attributes, keys};
use crate::store::{ErrorKind, ListRequest, Pages, multipart_count};
use crate::types::{ETag, Key, ListedObject, ObjectHeaders, ObjectInfo, Version};
use crate::writer::Arrivals;

pub(super) struct Question {
    pub parent: Ino,
    pub name: Arc<str>,
    /// Without a slash.
    pub key: Key,
    pub ask: Ask,
}

pub(super) enum Ask {
    /// HEAD, then LIST where there is no such object.
    FileFirst,
    /// HEAD and LIST side by side.
    Both,
    /// LIST, then HEAD where nothing is below. `removed`: the object itself is wanted gone, so only a directory counts.
    DirectoryFirst { removed: bool },
    /// A directory that had a marker: HEAD of that, a twelfth of a LIST's price, and the attributes with it.
    Marker { ino: Ino },
    /// HEAD alone: nothing was below the name a moment ago.
    ObjectOnly,
    /// It exists; what does its metadata say?
    Headers { ino: Ino },
}

/// What the bucket has under a name: an object of it, or keys below it.
enum Found {
    Object(Box<ObjectInfo>),
    Directory(Below),
    Nothing,
}

/// The first key found below a directory.
pub(super) struct Below {
    /// The directory's own marker, where that is what was found.
    marker: Option<ListedObject>,
}

/// Notes what changes here and what arrives in the bucket, until the question is answered, or dropped half-way.
pub(super) struct Watching<'a> {
    fs: &'a Fs,
    pub id: WatchId,
    arrivals: Arrivals,
}

impl Watching<'_> {
    /// What was wanted here and came into the bucket since the question began: an answer that lacks it is older.
    pub fn arrived(&self) -> BTreeSet<Key> {
        self.arrivals.keys()
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.fs.names.lock().unwatch(self.id);
    }
}

impl Fs {
    /// For a question about `key` and what is below it: the directory itself, or a name in it.
    pub(super) fn watch(&self, directory: Ino, key: &Key) -> Watching<'_> {
        Watching { fs: self, id: self.names.lock().watch(directory), arrivals: self.writer.note_arrivals(key) }
    }

    /// For a question about a whole tree.
    pub(super) fn watch_all(&self, key: &Key) -> Watching<'_> {
        Watching { fs: self, id: self.names.lock().watch_all(), arrivals: self.writer.note_arrivals(key) }
    }

    pub(super) async fn ask(&self, question: Question) -> Result<()> {
        let Question { parent, name, key, ask } = question;
        let watch = self.watch(parent, &key);
        let asked = Instant::now();
        let found = match ask {
            Ask::Headers { ino } => return self.ask_headers(ino, &key, &watch, &name).await,
            Ask::FileFirst => match self.head(&key).await? {
                Some(info) => Found::Object(info),
                None => self.directory_or_nothing(&key).await?,
            },
            Ask::ObjectOnly => self.head(&key).await?.map_or(Found::Nothing, Found::Object),
            Ask::Both => {
                let marker = key.as_directory();
                let (object, below) = futures::join!(self.head(&key), self.first_below(&marker));
                match (below?, object) {
                    (Some(below), _) => Found::Directory(below),
                    (None, object) => object?.map_or(Found::Nothing, Found::Object),
                }
            }
            Ask::DirectoryFirst { removed } => self.directory_first(&key, removed).await?,
            Ask::Marker { ino } if self.ask_marker(ino, &key, asked).await? => return Ok(()),
            Ask::Marker { .. } => self.directory_first(&key, false).await?,
        };
        self.take_in(parent, &name, &key, found, asked, &watch);
        Ok(())
    }

    /// True where the marker of the directory is there still: then the directory is, and has the attributes that it says.
    /// False where it is gone or a change of ours is under way.
    async fn ask_marker(&self, ino: Ino, key: &Key, asked: Instant) -> Result<bool> {
        let marker = key.as_directory();
        let watch = self.watch(ino, &marker);
        let Some(info) = self.head(&marker).await? else { return Ok(false) };
        let version = Version { key: marker, etag: info.etag, size: info.size };
        self.learn(&version, info.last_modified, &info.headers);
        let mut names = self.names.lock();
        let overtaken = names.is_touched(watch.id, ino, &MARKER.into())
            || self.writer.pending(&version.key).is_some()
            || self.writer.is_landing(&version.key)
            || watch.arrived().contains(&version.key)
            || names.key(ino).as_ref() != Some(&version.key);
        if overtaken {
            return Ok(false);
        }
        names.prove(ino, asked);
        let Some(inode) = names.get_mut(ino) else { return Ok(true) };
        inode.checked = Some(asked);
        let changed = !inode.known || inode.headers().metadata != info.headers.metadata;
        if changed {
            inode.take_headers(info.headers);
        }
        if let Some(node) = names.directory_mut(ino) {
            node.see_marker(Some(&version));
        }
        drop(names);
        if changed {
            self.invalidate_inode(ino);
        }
        Ok(true)
    }

    async fn directory_first(&self, key: &Key, removed: bool) -> Result<Found> {
        Ok(match self.directory_or_nothing(key).await? {
            Found::Nothing if !removed => self.head(key).await?.map_or(Found::Nothing, Found::Object),
            found => found,
        })
    }

    async fn directory_or_nothing(&self, key: &Key) -> Result<Found> {
        Ok(self.first_below(&key.as_directory()).await?.map_or(Found::Nothing, Found::Directory))
    }

    /// HEAD; None where there is no such object.
    pub(super) async fn head(&self, key: &Key) -> Result<Option<Box<ObjectInfo>>> {
        match self.store.head(key).await {
            Ok(info) => Ok(Some(Box::new(info))),
            // A key that the store can't have is not there: MinIO answers 400 to what it could never hold.
            Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::InvalidName) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The first key at or below `directory` that isn't wanted gone.
    pub(super) async fn first_below(&self, directory: &Key) -> Result<Option<Below>> {
        // A name that fills a key leaves no room for the slash.
        if self.check_key(directory).is_err() {
            return Ok(None);
        }
        let going = self.writer.going_below(directory);
        let max_keys = u32::try_from(going.len() + 1).unwrap_or(1000).min(1000);
        let request = ListRequest { prefix: directory.as_str().into(), max_keys: Some(max_keys), ..ListRequest::default() };
        let mut pages = Pages::new(request);
        loop {
            let page = match pages.next(&self.store).await {
                Ok(Some(page)) => page,
                Ok(None) => return self.marked_by_hadoop(directory).await,
                Err(error) if error.is(ErrorKind::InvalidName) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            for object in page.objects {
                // The page can be older than the end of a removal.
                let wanted_gone = match self.writer.pending(&object.key) {
                    Some(desired) => desired.content == Content::Absent,
                    None => going.contains(&object.key),
                };
                if !wanted_gone && (object.key == *directory || object.key.is_below(directory)) {
                    let marker = (object.key == *directory).then_some(object);
                    return Ok(Some(Below { marker }));
                }
            }
        }
    }

    /// Nothing is below the directory; but an object beside it may mark it.
    async fn marked_by_hadoop(&self, directory: &Key) -> Result<Option<Below>> {
        let Some(marker) = self.hadoop_marker(directory) else { return Ok(None) };
        if self.writer.pending(&marker).is_some_and(|desired| desired.content == Content::Absent) {
            return Ok(None);
        }
        Ok(self.head(&marker).await?.map(|_| Below { marker: None }))
    }

    fn take_in(&self, parent: Ino, name: &Arc<str>, key: &Key, found: Found, asked: Instant, watch: &Watching<'_>) {
        let seen = match found {
            Found::Object(info) => {
                let version = Version { key: key.clone(), etag: info.etag, size: info.size };
                self.learn(&version, info.last_modified, &info.headers);
                Some((Seen::Object { version, modified: info.last_modified, headers: Some(Box::new(info.headers)) }, None))
            }
            Found::Directory(below) => Some((Seen::Directory, below.marker)),
            Found::Nothing => None,
        };
        let mut names = self.names.lock();
        if names.is_touched(watch.id, parent, name)
            || names.key(parent).is_none()
            || self.is_overtaken(key, seen.as_ref().map(|(seen, _)| seen), watch)
        {
            return;
        }
        if let Some(node) = names.directory_mut(parent) {
            node.luck = if seen.is_some() { (node.luck + 1).min(4) } else { (node.luck - 1).max(-4) };
        }
        let Some((seen, marker)) = seen else {
            if let Some(node) = names.directory_mut(parent) {
                node.last_missing = Some((Arc::clone(name), Instant::now()));
                node.peeks.missed.count(Instant::now());
            }
            if let Some(old) = names.set_missing(parent, name, asked) {
                names.remove_if_unused(old);
                self.invalidate_entry(parent, name);
            }
            return;
        };
        let is_directory = matches!(seen, Seen::Directory);
        names.prove(parent, asked);
        let absorbed = names.absorb(parent, name, seen, asked, clock::now());
        if is_directory {
            self.take_in_marker(&mut names, absorbed.ino, key, marker.as_ref(), watch);
        }
        drop(names);
        self.tell_kernel(parent, name, absorbed);
    }

    /// A directory's marker sorts before everything below it: where something else came first, there is none, and nothing
    /// more to ask for.
    fn take_in_marker(&self, names: &mut Namespace, ino: Ino, key: &Key, marker: Option<&ListedObject>, watch: &Watching<'_>) {
        let own = key.as_directory();
        if marker.is_none() && (self.writer.is_landing(&own) || watch.arrived().contains(&own)) {
            return;
        }
        let headers = marker.map_or_else(|| Some(ObjectHeaders::default()), |marker| self.learned(marker));
        if let Some(inode) = names.get_mut(ino)
            && let (Some(headers), false) = (headers, inode.known)
        {
            inode.take_headers(headers);
        }
        if let Some(node) = names.directory_mut(ino) {
            node.see_marker(marker.map(ListedObject::version).as_ref());
        }
    }

    /// What the bucket said of `key` is the state before a change of ours: an object that is wanted gone or is just being
    /// deleted, nothing where an upload has arrived. The touch that tells a question so comes a moment later; for what is
    /// below a directory of which nobody here knows yet (after a restart), not at all.
    fn is_overtaken(&self, key: &Key, seen: Option<&Seen>, watch: &Watching<'_>) -> bool {
        let pending = self.writer.pending(key);
        match seen {
            Some(Seen::Directory) => false,
            Some(Seen::Object { .. }) => match pending {
                Some(desired) => desired.content == Content::Absent,
                None => self.writer.is_landing(key),
            },
            None => pending.is_none() && self.writer.is_landing(key) || !watch.arrived().is_empty(),
        }
    }

    pub(super) fn tell_kernel(&self, parent: Ino, name: &str, absorbed: Absorbed) {
        if absorbed.changed {
            self.invalidate_inode(absorbed.ino);
        }
        if absorbed.replaced {
            self.invalidate_entry(parent, name);
        }
    }

    /// The attributes of something that is known to exist: from what was learned before, else by one HEAD of the version
    /// behind it (a rename that is still to be copied is asked under its old key), or of a directory's marker.
    async fn ask_headers(&self, ino: Ino, key: &Key, watch: &Watching<'_>, name: &Arc<str>) -> Result<()> {
        let asked = Instant::now();
        let (target, parent) = {
            let names = self.names.lock();
            let inode = names.get(ino).ok_or(Error::NotFound)?;
            let parent = inode.place.as_ref().map(|(parent, _)| *parent);
            let target = match (inode.is_directory(), inode.version(), inode.modified()) {
                (true, _, _) => key.as_directory(),
                (false, Some(version), Some(modified)) => {
                    if let Some(headers) = self.journal.headers(&version.key, &version.etag, modified.time())? {
                        let (version, modified) = (version.clone(), modified.time());
                        drop(names);
                        self.take_learned(ino, version, modified, headers);
                        return Ok(());
                    }
                    version.key.clone()
                }
                (false, _, _) => key.clone(),
            };
            (target, parent)
        };
        if let Some(parent) = parent.filter(|_| target.is_marker() && !keys::looks_like_directory(name)) {
            let below = self.first_below(&target).await?;
            // What is in it makes it a directory, in the bucket or waiting to go there.
            if below.as_ref().map_or_else(|| self.writer.wants_below(&target), |below| below.marker.is_none()) {
                self.set_headers(ino, ObjectHeaders::default());
                return Ok(());
            }
            // Listed as a directory while it was being stored or removed: it is an object, or nothing.
            if below.is_none() {
                let found = self.head(key).await?.map_or(Found::Nothing, Found::Object);
                self.take_in(parent, name, key, found, asked, watch);
                return Ok(());
            }
        }
        let mut info = self.head(&target).await?;
        let version = info.as_ref().map(|info| Version { key: target.clone(), etag: info.etag.clone(), size: info.size });
        if let (Some(info), Some(version)) = (&info, &version) {
            self.learn(version, info.last_modified, &info.headers);
        }
        let is_source = target != *key && !target.is_marker();
        if is_source && version.as_ref().is_some_and(|version| !self.shows(ino, version)) {
            // The copy was made, and what was copied has been overwritten since.
            info = None;
        }
        match (info, parent) {
            (Some(info), _) if target.is_marker() => {
                self.set_headers(ino, info.headers);
                self.see_marker(ino, version.as_ref());
            }
            (None, _) if target.is_marker() => {
                self.set_headers(ino, ObjectHeaders::default());
                let overtaken = parent.is_some_and(|parent| self.names.lock().is_touched(watch.id, parent, name));
                if !overtaken && !self.writer.is_landing(&target) {
                    self.see_marker(ino, None);
                }
            }
            (Some(info), Some(parent)) if target == *key => self.take_in(parent, name, key, Found::Object(info), asked, watch),
            (Some(info), _) => {
                let version = Version { key: target, etag: info.etag, size: info.size };
                self.take_learned(ino, version, info.last_modified, info.headers);
            }
            (None, Some(parent)) if target == *key => self.take_in(parent, name, key, Found::Nothing, asked, watch),
            (None, _) => self.ask_copy(ino, key).await?,
        }
        Ok(())
    }

    /// The source of a pending copy is gone. Of one that closes a circle of renames, the writer has kept what the source
    /// said. Else the daemon before this one may have made the copy, and died before it could say so; or the copy will say
    /// that, and until then what was known of the source last holds, or the defaults.
    async fn ask_copy(&self, ino: Ino, key: &Key) -> Result<()> {
        let copy = self.head(key).await?.filter(|copy| self.shows_bytes(ino, &copy.etag)).map(|copy| (copy.etag, copy.headers));
        if let Some(desired) = self.writer.pending(key)
            && let Some(headers) = desired.headers()
        {
            return self.take_wanted(ino, &desired, headers);
        }
        let shown = self.names.lock().get(ino).and_then(Inode::version).cloned();
        match (copy.or_else(|| self.last_learned(ino)), shown) {
            (Some((etag, headers)), Some(shown)) => self.take_learned(ino, Version { etag, ..shown }, clock::now(), headers),
            _ => self.set_headers(ino, ObjectHeaders::default()),
        }
        Ok(())
    }

    fn shows(&self, ino: Ino, version: &Version) -> bool {
        self.names.lock().get(ino).and_then(Inode::version).is_some_and(|shown| shown.key == version.key && shown.etag == version.etag)
    }

    /// An object with this ETag can be a copy of the version that the inode shows: in parts, a copy has another one.
    fn shows_bytes(&self, ino: Ino, etag: &ETag) -> bool {
        self.names.lock().get(ino).and_then(Inode::version).is_none_or(|shown| shown.etag == *etag || multipart_count(etag).is_some())
    }

    fn last_learned(&self, ino: Ino) -> Option<(ETag, ObjectHeaders)> {
        let shown = self.names.lock().get(ino).and_then(Inode::version).cloned()?;
        self.journal.last_headers(&shown.key, &shown.etag).map(|(_, headers)| (shown.etag, headers))
    }

    /// What is known of a version from elsewhere than its own name. Neither a listing nor a copy that is still to be made tells
    /// links from files: where the metadata does, another inode takes the name.
    fn take_learned(&self, ino: Ino, version: Version, modified: SystemTime, headers: ObjectHeaders) {
        let mut names = self.names.lock();
        let Some(inode) = names.get(ino) else { return };
        let (checked, place) = (inode.checked.unwrap_or_else(Instant::now), inode.place.clone());
        let other_kind = attributes::is_symlink(&headers) != matches!(inode.node, Node::Symlink(_));
        match place {
            Some((parent, name)) if other_kind && !inode.known => {
                let seen = Seen::Object { version, modified, headers: Some(Box::new(headers)) };
                let absorbed = names.absorb(parent, &name, seen, checked, clock::now());
                drop(names);
                self.tell_kernel(parent, &name, absorbed);
            }
            _ => {
                drop(names);
                self.set_headers_of(ino, &version.etag, headers);
            }
        }
    }

    /// What the writer has kept for something that waits: only that tells here that it is a link.
    fn take_wanted(&self, ino: Ino, desired: &Desired, headers: ObjectHeaders) -> Result<()> {
        let mut names = self.names.lock();
        let is_unknown = |inode: &&Inode| !inode.known && !matches!(inode.node, Node::Symlink(_));
        match names.get(ino).filter(is_unknown).and_then(|inode| inode.place.clone()) {
            Some((parent, name)) if attributes::is_symlink(&headers) => {
                self.make_local(&mut names, parent, &name, desired)?;
            }
            _ => {
                drop(names);
                self.set_headers(ino, headers);
            }
        }
        Ok(())
    }

    fn set_headers_of(&self, ino: Ino, etag: &ETag, headers: ObjectHeaders) {
        if let Some(inode) = self.names.lock().get_mut(ino)
            && !inode.known
        {
            inode.take_headers_of(etag, headers);
        }
    }

    fn set_headers(&self, ino: Ino, headers: ObjectHeaders) {
        if let Some(inode) = self.names.lock().get_mut(ino)
            && !inode.known
        {
            inode.take_headers(headers);
        }
    }

    fn see_marker(&self, ino: Ino, marker: Option<&Version>) {
        if let Some(node) = self.names.lock().directory_mut(ino) {
            node.see_marker(marker);
        }
    }

    /// Keeps what is known of a version's metadata, across restarts. Failing to is no reason to fail the lookup.
    pub(super) fn learn(&self, version: &Version, last_modified: SystemTime, headers: &ObjectHeaders) {
        if let Err(error) = self.journal.learn(&version.key, &version.etag, last_modified, headers) {
            tracing::warn!(%error, "can't keep learned attributes");
        }
    }

    /// The same of what went up from here, `stored` then by this host's clock.
    pub(super) fn learn_own(&self, version: &Version, stored: SystemTime, headers: &ObjectHeaders) {
        if let Err(error) = self.journal.learn_own(version, stored, headers) {
            tracing::warn!(%error, "can't keep learned attributes");
        }
    }

    pub(super) fn learned(&self, object: &ListedObject) -> Option<ObjectHeaders> {
        self.journal.headers(&object.key, &object.etag, object.last_modified).unwrap_or_else(|error| {
            tracing::warn!(%error, "can't read learned attributes");
            None
        })
    }

    /// Asks for the bucket's present state of one inode, whatever its age.
    pub(super) async fn revalidate(&self, ino: Ino) -> Result<()> {
        let place = self.names.lock().get(ino).and_then(|inode: &Inode| inode.place.clone());
        let Some((parent, name)) = place else { return Ok(()) };
        match self.resolve(parent, &name, self.fresh_since()).await? {
            Some(now) if now == ino => Ok(()),
            Some(_) => Err(Error::Stale),
            None => Err(Error::NotFound),
        }
    }
}
