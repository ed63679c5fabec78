//! Which data files there are: by id, by version, and in the order in which they may be evicted. No I/O.
//!
//! Invariants: `versions` names clean files only, so that nobody who asks for a version gets locally changed bytes;
//! `evictable` holds the clean files with a base that nobody has pinned, least recently used first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use lru::LruCache;
use smallvec::SmallVec;

use crate::types::{ETag, FileId, Key, Version};

use super::file::LocalFile;
use super::idle::Idle;
use super::shared::Shared;

/// Evictable files that stay as they are though nobody uses them: who opened one opens it again. In a build for tests nearly
/// none does.
const RECENT: usize = if cfg!(debug_assertions) { 2 } else { 4096 };

pub struct Index {
    files: HashMap<FileId, Slot>,
    /// By key; of several versions of one, the one that was named last comes last. Of nearly all keys there is one.
    versions: HashMap<Key, SmallVec<[Named; 1]>>,
    evictable: LruCache<FileId, ()>,
    /// The evictable ones that take their full size in memory, in the same order.
    awake: LruCache<FileId, ()>,
    /// Pinned or dirty.
    held: BTreeMap<FileId, Arc<LocalFile>>,
    /// The last use of files since it was journalled.
    touched: BTreeMap<FileId, u64>,
    clock: u64,
    /// What the files share; this index is in it.
    home: Weak<Shared>,
}

/// Which file holds a version of a key.
struct Named {
    etag: ETag,
    size: u64,
    id: FileId,
}

impl Named {
    fn is(&self, version: &Version) -> bool {
        self.etag == version.etag && self.size == version.size
    }
}

enum Slot {
    Awake(Arc<LocalFile>),
    Idle(Box<Idle>),
}

impl Index {
    /// `clock` is past every use that was journalled.
    pub fn new(clock: u64, home: Weak<Shared>) -> Self {
        let (files, versions, held, touched) = Default::default();
        Self { files, versions, evictable: LruCache::unbounded(), awake: LruCache::unbounded(), held, touched, clock, home }
    }

    pub fn len(&self) -> usize {
        self.files.len()
    }

    pub fn get(&mut self, id: FileId) -> Option<Arc<LocalFile>> {
        let slot = self.files.get_mut(&id)?;
        if let Slot::Awake(file) = slot {
            return Some(file.clone());
        }
        let home = self.home.upgrade()?;
        let Some(Slot::Idle(idle)) = self.files.remove(&id) else { return None };
        let file = idle.wake(id, home);
        self.files.insert(id, Slot::Awake(file.clone()));
        self.awake.put(id, ());
        Some(file)
    }

    /// Evictable files in full size beyond those that shall stay so.
    pub fn surplus(&self) -> usize {
        self.awake.len().saturating_sub(RECENT)
    }

    /// Forgets what need not be in memory of the surplus; looks at so many files.
    pub fn rest(&mut self, files: usize) {
        for _ in 0..files.min(self.surplus()) {
            let Some((id, ())) = self.awake.pop_lru() else { return };
            let Some(slot) = self.files.get_mut(&id) else { continue };
            let Slot::Awake(file) = slot else { continue };
            match file.idle() {
                Some(idle) => *slot = Slot::Idle(idle),
                // Its turn comes again after all others.
                None => {
                    self.awake.put(id, ());
                }
            }
        }
    }

    #[cfg(test)]
    pub fn is_idle(&self, id: FileId) -> bool {
        self.files.get(&id).is_some_and(|slot| matches!(slot, Slot::Idle(_)))
    }

    pub fn versions(&self) -> Vec<Version> {
        let of_key = |(key, named): (&Key, &SmallVec<[Named; 1]>)| {
            named.iter().map(|named| Version { key: key.clone(), etag: named.etag.clone(), size: named.size }).collect::<Vec<_>>()
        };
        self.versions.iter().flat_map(of_key).collect()
    }

    /// The file that holds `version`, which counts as used now.
    pub fn find(&mut self, version: &Version) -> Option<Arc<LocalFile>> {
        let file = self.get(self.named(version)?)?;
        self.touch(&file);
        Some(file)
    }

    pub fn insert(&mut self, file: Arc<LocalFile>) {
        self.touch(&file);
        self.files.insert(file.id(), Slot::Awake(file));
    }

    /// Everything about the file goes. `base` is the version that it may be known under.
    pub fn remove(&mut self, id: FileId, base: Option<&Version>) {
        self.evictable.pop(&id);
        self.awake.pop(&id);
        self.held.remove(&id);
        self.touched.remove(&id);
        self.forget_version(id, base);
        self.files.remove(&id);
    }

    /// From now on the file is what holds `version`. Another one that did keeps its place in the order of use, and
    /// goes with that.
    pub fn name_version(&mut self, version: &Version, id: FileId) {
        let of_key = self.versions.entry(version.key.clone()).or_default();
        of_key.retain(|named| !named.is(version));
        of_key.push(Named { etag: version.etag.clone(), size: version.size, id });
    }

    pub fn has_version(&self, version: &Version) -> bool {
        self.named(version).is_some()
    }

    pub fn forget_version(&mut self, id: FileId, version: Option<&Version>) {
        if let Some(version) = version
            && let Some(of_key) = self.versions.get_mut(&version.key)
        {
            of_key.retain(|named| !named.is(version) || named.id != id);
            if of_key.is_empty() {
                self.versions.remove(&version.key);
            }
        }
    }

    /// The clean files that hold versions of `key`.
    pub fn of_key(&self, key: &Key) -> Vec<FileId> {
        self.versions.get(key).into_iter().flatten().map(|named| named.id).collect()
    }

    fn named(&self, version: &Version) -> Option<FileId> {
        self.versions.get(&version.key)?.iter().find(|named| named.is(version)).map(|named| named.id)
    }

    /// Nobody needs the file: it may be evicted, after all that were used before.
    pub fn let_go(&mut self, file: &Arc<LocalFile>) {
        if self.files.contains_key(&file.id()) {
            self.touch(file);
            self.held.remove(&file.id());
            self.evictable.put(file.id(), ());
            self.awake.put(file.id(), ());
        }
    }

    pub fn hold(&mut self, id: FileId) {
        self.evictable.pop(&id);
        if let Some(file) = self.get(id) {
            self.awake.pop(&id);
            self.held.insert(id, file);
        }
    }

    /// Files that can't be evicted.
    pub fn held(&self) -> Vec<Arc<LocalFile>> {
        self.held.values().cloned().collect()
    }

    /// Takes the file that was used longest ago out of `evictable`.
    pub fn oldest(&mut self) -> Option<Arc<LocalFile>> {
        let (id, ()) = self.evictable.pop_lru()?;
        self.get(id)
    }

    pub fn evictable(&self) -> usize {
        self.evictable.len()
    }

    /// Which files were used when, since the last call.
    pub fn take_touched(&mut self) -> Vec<(FileId, u64)> {
        std::mem::take(&mut self.touched).into_iter().collect()
    }

    pub fn clear(&mut self) {
        *self = Self::new(self.clock, Weak::new());
    }

    fn touch(&mut self, file: &Arc<LocalFile>) {
        self.clock += 1;
        file.set_used(self.clock);
        self.touched.insert(file.id(), self.clock);
        self.evictable.promote(&file.id());
        self.awake.promote(&file.id());
    }
}
