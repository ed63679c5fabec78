//! What still holds while the bucket doesn't answer.
//!
//! A name that was known goes on being shown as it was, with the files of the cache and what is wanted locally; a name
//! that a complete listing lacked goes on being missing, so that new files can be saved (they go up as new names only,
//! and a name taken meanwhile is a conflict that keeps both). What was never known fails: it is neither there nor missing.
//!
//! The first question that fails, or takes longer than a person waits, begins the outage. From then on memory answers at
//! once, and one probe at a time finds out when it is over.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Fs;
use super::question::Question;
use crate::clock;
use crate::error::{Error, Result};
use crate::namespace::{Child, Ino, Inode, Namespace, Seen};
use crate::store::StoreError;
use crate::types::{Key, Version};

/// How long a question about a known name may take before what is known is the better answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct Outage {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    since: Option<Instant>,
    probing: bool,
    /// What the cache holds, by key; taken at the first need.
    cached: Option<Arc<BTreeMap<Key, Version>>>,
}

/// What memory says of a name.
pub(super) enum Remembered {
    Inode(Ino),
    Missing,
}

impl Outage {
    pub(super) fn is_on(&self) -> bool {
        self.state.lock().since.is_some()
    }

    pub(super) fn begin(&self) {
        self.state.lock().since.get_or_insert_with(Instant::now);
    }

    fn end(&self) {
        let mut state = self.state.lock();
        if state.since.take().is_some() {
            state.cached = None;
            tracing::info!("the bucket answers again");
        }
    }
}

/// A failure that says nothing about the object: what was known of it still holds.
pub(super) fn is_outage(error: &Error) -> bool {
    match error {
        Error::Timeout => true,
        Error::Store(StoreError { kind, .. }) => kind.is_transient(),
        _ => false,
    }
}

impl Fs {
    /// The daemon could not reach the bucket before it mounted.
    pub fn assume_outage(&self) {
        self.outage.begin();
    }

    /// Asks the bucket; Some: it doesn't answer, and this was known of the name.
    pub(super) async fn ask_or_remember(&self, question: Question) -> Result<Option<Remembered>> {
        let (parent, name, key) = (question.parent, Arc::clone(&question.name), question.key.clone());
        if self.outage.is_on() {
            self.probe(&key);
            if let Some(known) = self.remembered(parent, &name, &key) {
                return Ok(Some(known));
            }
        }
        let known_before = self.remembered(parent, &name, &key).is_some();
        let asking = self.ask(question);
        let answer = if known_before || self.outage.is_on() {
            tokio::time::timeout(PATIENCE, asking).await.unwrap_or(Err(Error::Timeout))
        } else {
            asking.await
        };
        match answer {
            Ok(()) => {
                self.outage.end();
                Ok(None)
            }
            Err(error) if is_outage(&error) => {
                if !self.outage.is_on() {
                    tracing::warn!(%error, "the bucket doesn't answer: what is known is shown as it was");
                    self.outage.begin();
                }
                self.remembered(parent, &name, &key).map_or(Err(error), |known| Ok(Some(known)))
            }
            Err(error) => Err(error),
        }
    }

    fn remembered(&self, parent: Ino, name: &Arc<str>, key: &Key) -> Option<Remembered> {
        let mut names = self.names.lock();
        let node = names.directory(parent)?;
        let was_listed = node.complete;
        match node.children.get(name) {
            Some(Child::Missing(_)) => return Some(Remembered::Missing),
            Some(Child::Inode(ino)) => {
                let ino = *ino;
                let usable = |inode: &&Inode| inode.known || inode.is_directory() || !self.config.posix_metadata;
                if names.get(ino).is_some_and(|inode| usable(&inode)) {
                    return Some(Remembered::Inode(ino));
                }
            }
            None if was_listed => return Some(Remembered::Missing),
            None => {}
        }
        if !self.outage.is_on() {
            return None;
        }
        self.adopt_cached(&mut names, parent, name, key).map(Remembered::Inode)
    }

    fn cached(&self) -> Arc<BTreeMap<Key, Version>> {
        let mut state = self.outage.state.lock();
        let map = || Arc::new(self.cache.versions().into_iter().map(|version| (version.key.clone(), version)).collect());
        Arc::clone(state.cached.get_or_insert_with(map))
    }

    /// An inode for what only the cache knows: a file of it, or a directory that one of its files lies in.
    fn adopt_cached(&self, names: &mut Namespace, parent: Ino, name: &Arc<str>, key: &Key) -> Option<Ino> {
        let cached = self.cached();
        let marker = key.as_directory();
        let below = (Bound::Excluded(&marker), Bound::Unbounded);
        let now = Instant::now();
        let inode = if cached.range::<Key, _>(below).next().is_some_and(|(key, _)| key.is_below(&marker)) {
            names.absorb(parent, name, Seen::Directory, now, clock::now()).ino
        } else {
            let version = cached.get(key)?.clone();
            let (modified, headers) =
                self.journal.last_headers(&version.key, &version.etag).unwrap_or_else(|| (clock::now(), Default::default()));
            names.absorb(parent, name, Seen::Object { version, modified, headers: Some(Box::new(headers)) }, now, clock::now()).ino
        };
        if let Some(inode) = names.get_mut(inode) {
            inode.known = true;
            inode.checked = None;
        }
        Some(inode)
    }

    /// The children of a directory that the cache knows of, when it can't be listed.
    pub(super) fn adopt_cached_children(&self, ino: Ino) -> Result<()> {
        let mut names = self.names.lock();
        let directory = self.directory_key(&names, ino)?;
        let cached = self.cached();
        let below = (Bound::Excluded(&directory), Bound::Unbounded);
        let inside = cached.range::<Key, _>(below).take_while(|(key, _)| key.is_below(&directory));
        for (key, _) in inside {
            let rest = &key.as_str()[directory.as_str().len()..];
            let name: Arc<str> = rest.split('/').next().unwrap_or_default().into();
            let child_key = directory.child(&name);
            let gone = self.writer.pending(&child_key).is_some();
            if !name.is_empty() && !gone && names.child(ino, &name).is_none() {
                self.adopt_cached(&mut names, ino, &name, &child_key);
            }
        }
        Ok(())
    }

    /// A listing that can't be had is what is known. Err: nothing is.
    pub(super) async fn load_listing_or_remember(&self, ino: Ino) -> Result<()> {
        let known = |fs: &Fs| fs.names.lock().directory(ino).is_some_and(|node| node.complete) || fs.outage.is_on();
        let answer = if known(self) {
            tokio::time::timeout(PATIENCE, self.load_listing(ino)).await.unwrap_or(Err(Error::Timeout))
        } else {
            self.load_listing(ino).await
        };
        match answer {
            Err(error) if is_outage(&error) => {
                self.outage.begin();
                self.adopt_cached_children(ino)?;
                let names = self.names.lock();
                let node = names.directory(ino).ok_or(Error::NotFound)?;
                if node.complete || !node.children.is_empty() { Ok(()) } else { Err(error) }
            }
            answer => answer,
        }
    }

    /// Finds out in the background whether the bucket answers again.
    fn probe(&self, key: &Key) {
        let Some(fs) = self.shared() else { return };
        if std::mem::replace(&mut self.outage.state.lock().probing, true) {
            return;
        }
        let key = key.clone();
        tokio::spawn(async move {
            tokio::time::sleep(PROBE_INTERVAL).await;
            let answer = fs.head(&key).await;
            fs.outage.state.lock().probing = false;
            if answer.is_ok() {
                fs.outage.end();
            }
        });
    }
}
