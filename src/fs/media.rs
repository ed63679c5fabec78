//! Media headers and metadata of a file through its life: given when it is made or changed, and anew when it moves.

use futures::{StreamExt, TryStreamExt, stream};

use super::Fs;
use super::question::{Ask, Question};
use crate::cache::LocalFile;
use crate::error::{Error, Result};
use crate::media::{self, Header, gzip};
use crate::namespace::{Ino, Inode, Namespace, Node, attributes};
use crate::store::metadata_bytes;
use crate::types::{Archive, Key, ObjectHeaders};

/// The stores' limits on the user metadata of an object, all together.
const S3_METADATA_BYTES: usize = 2048;
const R2_METADATA_BYTES: usize = 8192;

/// HEADs at once, where a rename has to know the headers of what moves.
pub(super) const QUESTIONS_AT_ONCE: usize = 16;

impl Fs {
    /// Makes sure that the inode's headers are those of its object. Costs nothing where they are known; in an outage what
    /// is remembered will do, or the defaults.
    pub(super) async fn know_headers(&self, ino: Ino) -> Result<()> {
        for _ in 0..super::RACES {
            let question = {
                let names = self.names.lock();
                let Some(inode) = names.get(ino).filter(|inode| !inode.known) else { return Ok(()) };
                let (Some((parent, name)), Some(key)) = (inode.place.clone(), names.key(ino)) else { return Ok(()) };
                Question { parent, name, key: key.without_slash(), ask: Ask::Headers { ino } }
            };
            if self.ask_or_remember(question).await?.is_some() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The same for a change of them, which would replace what isn't known. Errors: `Timeout` in an outage that leaves the defaults.
    pub(super) async fn require_headers(&self, ino: Ino) -> Result<()> {
        self.know_headers(ino).await?;
        if self.outage.is_on() && self.needs_headers(ino)? { Err(Error::Timeout) } else { Ok(()) }
    }

    /// Whether the metadata of this object has to be known before its attributes can be told: they are in there, or its
    /// size is, where it may be stored compressed.
    pub(super) fn asks_headers(&self, names: &Namespace, ino: Ino) -> bool {
        let by_rule = || self.config.rules.has_gzip() && names.key(ino).is_some_and(|key| self.config.rules.gzip_from(&key).is_some());
        self.config.posix_metadata || by_rule()
    }

    /// Whether the store takes so much metadata, with the attributes that a file may get beside it.
    pub(super) fn has_room(&self, headers: &ObjectHeaders) -> bool {
        let mut metadata = headers.metadata.clone();
        metadata.retain(|name, _| !attributes::is_metadata(name));
        let limit = if self.config.r2 { R2_METADATA_BYTES } else { S3_METADATA_BYTES };
        let mark = if self.config.rules.has_gzip() && !gzip::mentions(headers) { gzip::ROOM_BYTES } else { 0 };
        metadata_bytes(&metadata) + attributes::ROOM_BYTES + mark <= limit
    }

    /// The headers of a new file.
    pub(super) fn fill_new(&self, names: &mut Namespace, ino: Ino, key: &Key) {
        if let Some(Node::File(node)) = names.get_mut(ino).map(|inode| &mut inode.node) {
            let guess = key.split().and_then(|(_, name)| media::by_name(name));
            node.headers.change(|headers| self.fill(headers, key, guess));
        }
    }

    /// The headers of a file whose bytes have changed.
    pub(super) fn fill_changed(&self, names: &mut Namespace, ino: Ino, key: &Key, file: &LocalFile) {
        let Some(Node::File(node)) = names.get_mut(ino).map(|inode| &mut inode.node) else { return };
        let head = || {
            let mut head = vec![0; media::SNIFF_BYTES];
            let read = file.read_at(0, &mut head).ok().flatten().unwrap_or(0);
            head.truncate(read);
            head
        };
        let name = key.split().map_or("", |(_, name)| name);
        node.headers.change(|headers| {
            let guess = media::guess(name, head, headers.content_type.as_deref());
            // A lifecycle rule archived the old bytes. The new ones are wanted.
            let archived = Archive::of(headers.storage_class.as_deref(), None) != Archive::Readable;
            if archived && !media::is_chosen(headers, Header::StorageClass) {
                headers.storage_class = None;
            }
            self.fill(headers, key, guess);
        });
    }

    fn fill(&self, headers: &mut ObjectHeaders, key: &Key, guess: Option<&str>) {
        let before = headers.metadata.clone();
        self.config.rules.fill(headers, key, guess);
        self.keep_fitting(headers, before, key);
    }

    /// Metadata of a rule that the store would refuse is left out: the file counts for more.
    fn keep_fitting(&self, headers: &mut ObjectHeaders, before: std::collections::BTreeMap<String, String>, key: &Key) {
        if headers.metadata != before && !self.has_room(headers) {
            tracing::warn!(%key, "no room for the metadata that a rule gives it");
            headers.metadata = before;
        }
    }

    /// Headers that are wanted of a file which goes from `from` to `to`; `old`: those that were wanted so far. None: it
    /// keeps those that it has.
    pub(super) fn moved_headers(&self, inode: &Inode, old: Option<ObjectHeaders>, from: &Key, to: &Key) -> Option<ObjectHeaders> {
        if !inode.known || inode.file().is_none() {
            return old;
        }
        let so_far = old.clone().unwrap_or_else(|| self.headers_of(inode, from));
        let mut headers = so_far.clone();
        self.config.rules.moved(&mut headers, from, to);
        self.keep_fitting(&mut headers, so_far.metadata.clone(), to);
        if headers.content_type.is_none() {
            headers.content_type = Some(media::content_type(to, &[]).to_owned());
        }
        // A copy keeps all headers but the storage class.
        if headers == so_far && (old.is_some() || headers.storage_class.is_none()) { old } else { Some(headers) }
    }

    /// In memory: `ino`, or all below it, went from `from` to `to` a moment ago. Directories' keys end in a slash.
    pub(super) fn move_headers(&self, names: &mut Namespace, ino: Ino, from: &Key, to: &Key) {
        let moved: Vec<(Key, Key, Ino)> = match from.is_marker() {
            false => vec![(from.clone(), to.clone(), ino)],
            true => names.below(ino).into_iter().filter_map(|(now, ino)| Some((now.moved(to, from)?, now, ino))).collect(),
        };
        for (from, to, ino) in moved.into_iter().filter(|(from, to, _)| self.config.rules.differ(from, to)) {
            if let Some(Node::File(node)) = names.get_mut(ino).map(|inode| &mut inode.node) {
                node.headers.change(|headers| {
                    let before = headers.metadata.clone();
                    self.config.rules.moved(headers, &from, &to);
                    self.keep_fitting(headers, before, &to);
                });
            }
        }
    }

    /// Learns the headers of those files that get others when `ino` goes from `from` to `to` (without slashes), since a copy
    /// keeps all headers or replaces all; of those in a storage class, which a copy doesn't keep; and of directories' markers,
    /// which are made anew.
    pub(super) async fn know_moving(&self, ino: Ino, from: &Key, to: &Key) -> Result<()> {
        let unknown: Vec<Ino> = {
            let names = self.names.lock();
            let is_directory = names.get(ino).is_some_and(Inode::is_directory);
            let (from, to) = if is_directory { (from.as_directory(), to.as_directory()) } else { (from.clone(), to.clone()) };
            let all = names.below(ino).into_iter().chain([(from.clone(), ino)]);
            let gets_others = |key: &Key| match is_directory {
                true => key.moved(&from, &to).is_some_and(|moved| self.config.rules.differ(key, &moved)),
                // Its storage class has to be known.
                false => true,
            };
            let is_asked = |key: &Key, inode: &Inode| match inode.directory() {
                Some(directory) => directory.marker == Some(true),
                None => inode.file().is_some_and(|file| file.headers.get().storage_class.is_some() || gets_others(key)),
            };
            let is_asked = |key: &Key, ino: Ino| names.get(ino).is_some_and(|inode| !inode.known && is_asked(key, inode));
            all.filter(|(key, ino)| is_asked(key, *ino)).map(|(_, ino)| ino).collect()
        };
        stream::iter(unknown).map(|ino| self.know_headers(ino)).buffer_unordered(QUESTIONS_AT_ONCE).try_collect().await
    }
}
