//! Which data files there are: by id, by version, and in the order in which they may be evicted. No I/O.
//!
//! Invariants: `versions` names clean files only, so that nobody who asks for a version gets locally changed bytes;
//! `evictable` holds the clean files with a base that nobody has pinned, least recently used first.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use lru::LruCache;

use crate::types::{FileId, Key, Version};

use super::file::LocalFile;

pub struct Index {
    files: HashMap<FileId, Arc<LocalFile>>,
    /// By key; of several versions of one, the one that was named last comes last.
    versions: HashMap<Key, Vec<(Version, FileId)>>,
    evictable: LruCache<FileId, Arc<LocalFile>>,
    /// Pinned or dirty.
    held: BTreeMap<FileId, Arc<LocalFile>>,
    /// The last use of files since it was journalled.
    touched: BTreeMap<FileId, u64>,
    clock: u64,
}

impl Index {
    /// `clock` is past every use that was journalled.
    pub fn new(clock: u64) -> Self {
        let (files, versions, held, touched) = Default::default();
        Self { files, versions, evictable: LruCache::unbounded(), held, touched, clock }
    }

    pub fn len(&self) -> usize {
        self.files.len()
    }

    pub fn get(&self, id: FileId) -> Option<Arc<LocalFile>> {
        self.files.get(&id).cloned()
    }

    pub fn versions(&self) -> Vec<Version> {
        self.versions.values().flatten().map(|(version, _)| version.clone()).collect()
    }

    /// The file that holds `version`, which counts as used now.
    pub fn find(&mut self, version: &Version) -> Option<Arc<LocalFile>> {
        let file = self.files.get(&self.named(version)?)?.clone();
        self.touch(&file);
        Some(file)
    }

    pub fn insert(&mut self, file: Arc<LocalFile>) {
        self.touch(&file);
        self.files.insert(file.id(), file);
    }

    /// Everything about the file goes. `base` is the version that it may be known under.
    pub fn remove(&mut self, id: FileId, base: Option<&Version>) -> Option<Arc<LocalFile>> {
        self.evictable.pop(&id);
        self.held.remove(&id);
        self.touched.remove(&id);
        self.forget_version(id, base);
        self.files.remove(&id)
    }

    /// From now on the file is what holds `version`. Another one that did keeps its place in the order of use, and
    /// goes with that.
    pub fn name_version(&mut self, version: &Version, id: FileId) {
        let of_key = self.versions.entry(version.key.clone()).or_default();
        of_key.retain(|(other, _)| other != version);
        of_key.push((version.clone(), id));
    }

    pub fn has_version(&self, version: &Version) -> bool {
        self.named(version).is_some()
    }

    pub fn forget_version(&mut self, id: FileId, version: Option<&Version>) {
        if let Some(version) = version
            && let Some(of_key) = self.versions.get_mut(&version.key)
        {
            of_key.retain(|(other, named)| other != version || *named != id);
            if of_key.is_empty() {
                self.versions.remove(&version.key);
            }
        }
    }

    /// The clean files that hold versions of `key`.
    pub fn of_key(&self, key: &Key) -> Vec<FileId> {
        self.versions.get(key).into_iter().flatten().map(|(_, id)| *id).collect()
    }

    fn named(&self, version: &Version) -> Option<FileId> {
        self.versions.get(&version.key)?.iter().find(|(other, _)| other == version).map(|(_, id)| *id)
    }

    /// Nobody needs the file: it may be evicted, after all that were used before.
    pub fn let_go(&mut self, file: &Arc<LocalFile>) {
        if self.files.contains_key(&file.id()) {
            self.touch(file);
            self.held.remove(&file.id());
            self.evictable.put(file.id(), file.clone());
        }
    }

    pub fn hold(&mut self, id: FileId) {
        self.evictable.pop(&id);
        if let Some(file) = self.files.get(&id) {
            self.held.insert(id, file.clone());
        }
    }

    /// Files that can't be evicted.
    pub fn held(&self) -> Vec<Arc<LocalFile>> {
        self.held.values().cloned().collect()
    }

    /// Takes the file that was used longest ago out of `evictable`.
    pub fn oldest(&mut self) -> Option<Arc<LocalFile>> {
        self.evictable.pop_lru().map(|(_, file)| file)
    }

    pub fn evictable(&self) -> usize {
        self.evictable.len()
    }

    /// Which files were used when, since the last call.
    pub fn take_touched(&mut self) -> Vec<(FileId, u64)> {
        std::mem::take(&mut self.touched).into_iter().collect()
    }

    pub fn clear(&mut self) {
        *self = Self::new(self.clock);
    }

    fn touch(&mut self, file: &Arc<LocalFile>) {
        self.clock += 1;
        file.set_used(self.clock);
        self.touched.insert(file.id(), self.clock);
        self.evictable.promote(&file.id());
    }
}
