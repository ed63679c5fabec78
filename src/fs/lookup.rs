//! From a name to an inode: local state first, then what is fresh in memory, then the bucket.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::filling::Filling;
use super::outage::Remembered;
use super::question::{Ask, Question};
use super::symlink::taken_here;
use super::{Entry, Fs, Lookup, WriteMode};
use crate::error::{Error, Result};
use crate::journal::{Content, Desired};
use crate::namespace::{Child, File, Ino, Inode, Modified, Namespace, Node, ROOT, Symlink, attributes, keys};
use crate::types::Key;
use crate::{clock, error};

/// An answer of the bucket can be overtaken by local changes; each overtaking is a change by this host, so a handful of
/// turns is enough for any real program.
const TURNS: usize = 16;

/// What memory and local state say of a name.
enum Answer {
    Is(Option<Ino>),
    Ask(Question),
    /// The same in a wide directory that is being filled.
    Wide(Question),
    /// All names of the directory, because one after the other is about to be asked.
    List,
    /// The same, if one LIST shows them.
    Peek,
    /// The names behind this one.
    Tail {
        after: Arc<str>,
    },
}

/// What has to be known of an inode that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Attributes,
    Name,
}

impl Fs {
    pub async fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Lookup> {
        let name = self.name(name)?;
        for _ in 0..super::RACES {
            let found = self.resolve(parent, &name, self.fresh_since()).await?;
            let mut names = self.names.lock();
            self.note_crowd(&names);
            let Some(ino) = found else { return Ok(Lookup::Missing(self.negative_ttl(&names, parent, &name))) };
            // Until the kernel knows of it, it may leave memory any time.
            if let Some(inode) = names.get_mut(ino) {
                inode.lookups += 1;
                return Ok(Lookup::Found(self.entry(&names, ino)?));
            }
        }
        Err(Error::Timeout)
    }

    pub fn forget(&self, ino: Ino, lookups: u64) {
        let mut names = self.names.lock();
        names.forget(ino, lookups);
        self.forget_departed(&names, ino);
        self.leave_if_idle(&mut names, ino);
    }

    /// Counts one lookup of an entry that was found before. False: it is not in memory any more.
    pub fn remember(&self, ino: Ino) -> bool {
        let mut names = self.names.lock();
        let inode = names.get_mut(ino);
        inode.map(|inode| inode.lookups += 1).is_some()
    }

    /// The inode under `name`, as the bucket or local state has it at `since` or later (None: at any time).
    pub(super) async fn resolve(&self, parent: Ino, name: &Arc<str>, since: Option<Instant>) -> Result<Option<Ino>> {
        self.resolve_to(Need::Attributes, parent, name, since).await
    }

    /// The same where it is enough to know that it is there.
    pub(super) async fn resolve_name(&self, parent: Ino, name: &Arc<str>, since: Option<Instant>) -> Result<Option<Ino>> {
        self.resolve_to(Need::Name, parent, name, since).await
    }

    async fn resolve_to(&self, need: Need, parent: Ino, name: &Arc<str>, since: Option<Instant>) -> Result<Option<Ino>> {
        let begun = Instant::now();
        for _ in 0..TURNS {
            let answer = self.look(need, parent, name, since, begun)?;
            let question = match answer {
                Answer::Is(found) => return Ok(found),
                Answer::Ask(Question { ask: Ask::Headers { ino }, .. }) if need == Need::Name => return Ok(Some(ino)),
                Answer::Ask(Question { ask: Ask::Headers { ino }, .. }) if self.asking.answered(ino).await => continue,
                Answer::Ask(question) => question,
                Answer::Wide(question) => {
                    self.list_behind(parent);
                    question
                }
                Answer::List => {
                    self.begin_peek(parent)?;
                    self.load_listing_or_remember(parent, Some(begun)).await?;
                    continue;
                }
                Answer::Peek => {
                    self.peek(parent).await;
                    continue;
                }
                Answer::Tail { after } => {
                    self.list_tail(parent, after).await?;
                    continue;
                }
            };
            match self.ask_or_remember(question).await? {
                Some(Remembered::Inode(ino)) => return Ok(Some(ino)),
                Some(Remembered::Missing) => return Ok(None),
                None => {}
            }
        }
        Err(Error::Timeout)
    }

    fn look(&self, need: Need, parent: Ino, name: &Arc<str>, since: Option<Instant>, begun: Instant) -> Result<Answer> {
        let mut names = self.names.lock();
        names.use_directory(parent);
        let answer = self.answer(&mut names, parent, name, since, begun)?;
        match &answer {
            Answer::Ask(Question { ask: Ask::Headers { .. }, .. }) if need == Need::Attributes => {
                self.look_ahead(&mut names, parent, name, true);
            }
            Answer::Is(Some(_)) => self.look_ahead(&mut names, parent, name, false),
            _ => {}
        }
        Ok(answer)
    }

    /// The same for a name that was missing a moment ago: one HEAD says whether another host has made it since.
    pub(super) async fn resolve_object(&self, parent: Ino, name: &Arc<str>, since: Option<Instant>) -> Result<Option<Ino>> {
        let key = self.directory_key(&self.names.lock(), parent)?.child(name);
        // What the bucket still holds under a name that was removed here is not another host's.
        if keys::is_blank(&key) || self.writer.pending(&key).is_some_and(|desired| desired.content == Content::Absent) {
            return self.resolve(parent, name, None).await;
        }
        self.check_key(&key)?;
        let question = Question { parent, name: Arc::clone(name), key, ask: Ask::ObjectOnly };
        match self.ask_or_remember(question).await? {
            Some(Remembered::Inode(ino)) => Ok(Some(ino)),
            Some(Remembered::Missing) => Ok(None),
            None => self.resolve(parent, name, since).await,
        }
    }

    /// `begun`: what was asked since then is new enough, however long the bucket took to answer.
    fn answer(&self, names: &mut Namespace, parent: Ino, name: &Arc<str>, since: Option<Instant>, begun: Instant) -> Result<Answer> {
        let directory_key = self.directory_key(names, parent)?;
        let key = directory_key.child(name);
        if keys::is_blank(&key) {
            return Ok(Answer::Is(None));
        }
        // Stores answer such a key with a plain 400, which tells nothing.
        self.check_key(&key)?;
        let marker = key.as_directory();
        if self.writer.wants_below(&marker) {
            let ino = self.local_directory(names, parent, name, &marker)?;
            return Ok(self.known_or_ask(names, parent, name, ino, key));
        }
        let pending = self.writer.pending(&key);
        if let Some(desired) = pending.as_ref().filter(|desired| desired.content != Content::Absent) {
            let ino = self.local_inode(names, parent, name, desired)?;
            return Ok(self.known_or_ask(names, parent, name, ino, key));
        }
        let is_fresh = |checked: Option<Instant>| checked.is_some_and(|checked| since.is_none_or(|since| checked >= since));
        let node = names.directory(parent).ok_or(Error::NotDirectory)?;
        let child = node.children.get(name).copied();
        // An absence is believed for a shorter time than a presence: a name that was just made elsewhere should show.
        let recent = |checked: Instant| self.config.exclusive || checked >= begun || checked.elapsed() < self.config.negative_ttl;
        let listed = is_fresh(node.listed) && node.listed.is_some_and(recent);
        let unlucky = node.luck < 0;
        let removed = pending.is_some();
        let mut wide = None;
        match child {
            Some(Child::Inode(ino)) => {
                let inode = names.get(ino).ok_or(Error::NotFound)?;
                // A removed object is behind a tombstone; only a directory of that name can be shown.
                if (!removed || inode.is_directory()) && is_fresh(inode.confirmed()) {
                    return Ok(self.known_or_ask(names, parent, name, ino, key));
                }
                if inode.is_directory() {
                    let marked = names.directory(ino).is_some_and(|node| node.marker == Some(true));
                    let ask = if marked && !removed { Ask::Marker { ino } } else { Ask::DirectoryFirst { removed } };
                    return Ok(Answer::Ask(Question { parent, name: Arc::clone(name), key, ask }));
                }
            }
            Some(Child::Missing(checked)) if is_fresh(Some(checked)) && recent(checked) => return Ok(Answer::Is(None)),
            Some(Child::Missing(_)) | None if listed => return Ok(self.not_listed(parent, name, key, removed)),
            Some(Child::Missing(_)) | None if node.is_filling(Instant::now()) => {
                let is_told = |known| is_fresh(Some(known)) && (known >= begun || self.is_believed(node, known));
                if node.complete_at().is_some_and(is_told) || self.is_behind_tail(node, &directory_key, name, begun) && !removed {
                    return Ok(self.not_listed(parent, name, key, removed));
                }
                // In an outage what was listed before is the answer, however old.
                match self.filling(node, name) {
                    Filling::List => return Ok(Answer::List),
                    Filling::Tail { after } if !removed => return Ok(Answer::Tail { after }),
                    Filling::Wide { object_only } => wide = Some(object_only),
                    Filling::Tail { .. } | Filling::Ask => {}
                }
            }
            Some(Child::Missing(_)) | None => {}
        }
        let is_unknown = !removed && wide.is_none() && !matches!(child, Some(Child::Inode(_)));
        if is_unknown && node.is_worth_a_peek(self.config.negative_ttl, Instant::now()) && !self.outage.is_on() {
            return Ok(Answer::Peek);
        }
        let ask = match wide {
            _ if removed => Ask::DirectoryFirst { removed },
            Some(true) => Ask::ObjectOnly,
            _ if unlucky || keys::looks_like_directory(name) => Ask::Both,
            _ => Ask::FileFirst,
        };
        let question = Question { parent, name: Arc::clone(name), key, ask };
        Ok(if wide.is_some() { Answer::Wide(question) } else { Answer::Ask(question) })
    }

    /// The directory's listing, which is fresh enough, lacks the name. In through mode a name that another host has saved
    /// since shows at once, because there a program is told that it is saved and may send people to any of the hosts: a HEAD,
    /// a twelfth of a LIST's price, asks for it.
    fn not_listed(&self, parent: Ino, name: &Arc<str>, key: Key, removed: bool) -> Answer {
        if self.config.write_mode == WriteMode::Back || self.config.exclusive || removed || self.outage.is_on() {
            return Answer::Is(None);
        }
        Answer::Ask(Question { parent, name: Arc::clone(name), key, ask: Ask::ObjectOnly })
    }

    /// The inode exists; whether its attributes are known too.
    fn known_or_ask(&self, names: &Namespace, parent: Ino, name: &Arc<str>, ino: Ino, key: Key) -> Answer {
        match names.get(ino) {
            Some(inode) if !inode.known && self.asks_headers(names, ino) => {
                Answer::Ask(Question { parent, name: Arc::clone(name), key, ask: Ask::Headers { ino } })
            }
            _ => Answer::Is(Some(ino)),
        }
    }

    /// The key of a directory that is still linked. Errors: `NotFound`, `NotDirectory`.
    pub(super) fn directory_key(&self, names: &Namespace, ino: Ino) -> Result<Key> {
        let inode = names.get(ino).ok_or(Error::NotFound)?;
        if !inode.is_directory() {
            return Err(Error::NotDirectory);
        }
        names.key(ino).ok_or(Error::NotFound)
    }

    /// The inode of a directory that is wanted locally, made where it is not in memory (after a restart).
    pub(super) fn local_directory(&self, names: &mut Namespace, parent: Ino, name: &Arc<str>, marker: &Key) -> Result<Ino> {
        if let Some(ino) = names.child(parent, name).filter(|ino| names.get(*ino).is_some_and(Inode::is_directory)) {
            return Ok(ino);
        }
        let ino = names.insert_found(parent, name, Node::Directory(Box::default()), clock::now());
        self.replace(names, parent, name, ino);
        let is_marker = |desired: &Desired| !matches!(desired.content, Content::Absent | Content::KeptDirectory);
        if let Some(Desired { headers: Some(headers), .. }) = self.writer.pending(marker).filter(is_marker)
            && let Some(inode) = names.get_mut(ino)
        {
            inode.take_headers(headers.get());
        }
        Ok(ino)
    }

    /// The inode of a file or symlink that is wanted locally, made from its desired state where it is not in memory.
    pub(super) fn local_inode(&self, names: &mut Namespace, parent: Ino, name: &Arc<str>, desired: &Desired) -> Result<Ino> {
        if let Some(ino) = names.child(parent, name).filter(|ino| names.get(*ino).is_some_and(|inode| !inode.is_directory())) {
            return Ok(ino);
        }
        self.make_local(names, parent, name, desired)
    }

    /// A new inode for what is wanted under that name, in the place of what hung there.
    pub(super) fn make_local(&self, names: &mut Namespace, parent: Ino, name: &Arc<str>, desired: &Desired) -> Result<Ino> {
        let modified = Some(Modified::About(desired.since));
        let headers = desired.headers();
        let is_link = headers.as_ref().is_some_and(attributes::is_symlink);
        let node = match &desired.content {
            Content::Inline(target) => Node::Symlink(Symlink { target: String::from_utf8(target.clone()).ok(), ..Symlink::default() }),
            Content::CopyOf(version) | Content::Restored(version) if is_link => {
                Node::Symlink(Symlink { version: Some(version.clone()), modified, ..Symlink::default() })
            }
            Content::CopyOf(version) | Content::Restored(version) => {
                Node::File(File { version: Some(version.clone()), modified, ..File::default() })
            }
            Content::Staged(id) => {
                let local = self.cache.get(*id).ok_or_else(|| error::Error::Corrupt(format!("data file {id} is missing")))?;
                if is_link {
                    Node::Symlink(taken_here(&local)?)
                } else {
                    Node::File(File { version: local.base(), modified, local: Some(local), ..File::default() })
                }
            }
            Content::Absent | Content::KeptDirectory => return Err(Error::NotFound),
        };
        let ino = names.insert_found(parent, name, node, desired.since);
        self.replace(names, parent, name, ino);
        if let (Some(inode), Some(headers)) = (names.get_mut(ino), headers) {
            inode.take_headers(headers);
        }
        Ok(ino)
    }

    /// Hangs `ino` under `name`; what hung there is gone from the tree.
    pub(super) fn replace(&self, names: &mut Namespace, parent: Ino, name: &Arc<str>, ino: Ino) {
        names.touch(parent, name);
        if let Some(old) = names.link(parent, name, ino) {
            names.remove_if_unused(old);
            self.invalidate_entry(parent, name);
        }
    }

    /// How long the kernel may believe in the inode: local state doesn't change behind it, a clean one until its TTL ends.
    pub(super) fn entry(&self, names: &Namespace, ino: Ino) -> Result<Entry> {
        let attr = self.attr(names, ino)?;
        let ttl = match names.get(ino).and_then(Inode::confirmed) {
            _ if self.config.exclusive => super::FOREVER,
            Some(checked) if ino != ROOT => self.config.ttl.saturating_sub(checked.elapsed()),
            _ => self.config.ttl,
        };
        Ok(Entry { attr, ttl })
    }

    fn negative_ttl(&self, names: &Namespace, parent: Ino, name: &str) -> Duration {
        if self.config.exclusive {
            return super::FOREVER;
        }
        let Some(node) = names.directory(parent) else { return Duration::ZERO };
        match node.children.get(name) {
            Some(Child::Missing(checked)) => self.config.negative_ttl.saturating_sub(checked.elapsed()),
            _ => node.complete_at().map_or(Duration::ZERO, |known| self.absence_ttl(node).saturating_sub(known.elapsed())),
        }
    }
}
