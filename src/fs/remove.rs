//! unlink(2), rmdir(2), and what becomes of what was removed.

use std::ffi::OsStr;
use std::sync::Arc;

use super::Fs;
use crate::cache::LocalFile;
use crate::clock;
use crate::error::{Error, Result};
use crate::journal::{Change, Content, Desired};
use crate::namespace::{Child, Ino, Inode, Namespace, Node, ROOT};
use crate::store::Condition;
use crate::types::Key;

/// No object under this key. `was_there`: the bucket may hold one.
pub(super) fn absent(was_there: bool) -> Desired {
    Desired { content: Content::Absent, headers: None, condition: Condition::Any, was_there, since: clock::now() }
}

impl Fs {
    pub async fn unlink(&self, parent: Ino, name: &OsStr) -> Result<()> {
        self.writable()?;
        let name = self.name(name)?;
        let ino = self.resolve_name(parent, &name, self.fresh_since()).await?.ok_or(Error::NotFound)?;
        let mut names = self.names.lock();
        if names.child(parent, &name) != Some(ino) {
            return Err(Error::NotFound);
        }
        let key = self.directory_key(&names, parent)?.child(&name);
        let inode = names.get(ino).ok_or(Error::NotFound)?;
        if inode.is_directory() {
            return Err(Error::IsDirectory);
        }
        let was_there = inode.held().is_some();
        let also = self.forget_symlink(inode, &key);
        let mut changes = vec![(key.clone(), Some(absent(was_there)))];
        self.take_staged(&mut names, ino);
        let staged_link = self.staged_link(&names, ino);
        self.keep_for_handles(&names, ino);
        changes.extend(self.keep_directory(&names, parent, &name));
        self.writer.apply(changes, &also)?;
        staged_link.into_iter().for_each(|id| self.cache.discard(id));
        self.free_name(&mut names, parent, &name);
        self.bury(&mut names, ino);
        Ok(())
    }

    fn forget_symlink(&self, inode: &Inode, key: &Key) -> Vec<Change> {
        match inode.node {
            // What was only listed may be one.
            Node::File(_) if !inode.known => vec![Change::ForgetSymlink(key.clone())],
            Node::Symlink(_) => vec![Change::ForgetSymlink(key.clone())],
            _ => Vec::new(),
        }
    }

    pub async fn rmdir(&self, parent: Ino, name: &OsStr) -> Result<()> {
        self.writable()?;
        let name = self.name(name)?;
        let _kept = self.keep_names();
        let ino = self.resolve(parent, &name, self.fresh_since()).await?.ok_or(Error::NotFound)?;
        self.require_directory(ino)?;
        self.load_listing_for_removal(ino).await?;
        let mut names = self.names.lock();
        if names.child(parent, &name) != Some(ino) {
            return Err(Error::NotFound);
        }
        self.require_empty(&names, ino)?;
        let marker = names.key(ino).ok_or(Error::NotFound)?;
        let by_hadoop = self.hadoop_marker(&marker).map(|key| (key, Some(absent(true))));
        let mut changes = vec![(marker, Some(absent(self.may_have_marker(&names, ino))))];
        changes.extend(by_hadoop);
        changes.extend(self.keep_directory(&names, parent, &name));
        self.writer.apply(changes, &[])?;
        self.free_name(&mut names, parent, &name);
        self.bury(&mut names, ino);
        Ok(())
    }

    pub(super) fn require_directory(&self, ino: Ino) -> Result<()> {
        if self.is_directory(ino) { Ok(()) } else { Err(Error::NotDirectory) }
    }

    pub(super) fn is_directory(&self, ino: Ino) -> bool {
        self.names.lock().get(ino).is_some_and(Inode::is_directory)
    }

    /// Nothing is left below: neither what is wanted nor what the bucket showed. Its listing must be fresh.
    pub(super) fn require_empty(&self, names: &Namespace, ino: Ino) -> Result<()> {
        let node = names.directory(ino).ok_or(Error::NotDirectory)?;
        let marker = names.key(ino).ok_or(Error::NotFound)?;
        let shown = node.children.values().any(|child| matches!(child, Child::Inode(_)));
        let wanted = self
            .writer
            .pending_below(&marker)
            .iter()
            .any(|(key, desired)| *key != marker && !matches!(desired.content, Content::Absent | Content::KeptDirectory));
        let hidden = self.hidden.lock().contains_key(&marker);
        if shown || wanted || hidden { Err(Error::NotEmpty) } else { Ok(()) }
    }

    pub(super) fn may_have_marker(&self, names: &Namespace, ino: Ino) -> bool {
        names.directory(ino).is_some_and(|node| node.marker != Some(false))
    }

    /// The bucket has no directories of its own: one without a marker vanishes with its last child, under programs that
    /// still use it. So the last child's going makes the marker, at once where the listing is known, after a look where not.
    pub(super) fn keep_directory(&self, names: &Namespace, directory: Ino, leaving: &str) -> Option<(Key, Option<Desired>)> {
        let node = names.directory(directory)?;
        if directory == ROOT || node.marker == Some(true) {
            return None;
        }
        let key = names.key(directory)?;
        if self.writer.pending(&key).is_some_and(|desired| desired.content != Content::Absent) {
            return None;
        }
        let others = node.children.iter().any(|(name, child)| &**name != leaving && matches!(child, Child::Inode(_)));
        if others {
            return None;
        }
        let since = self.fresh_since();
        let listed = node.listed.is_some_and(|listed| since.is_none_or(|since| listed >= since));
        let content = if listed { Content::Inline(Vec::new()) } else { Content::KeptDirectory };
        let headers = names.get(directory).map(|inode| self.headers_of(inode, &key));
        Some((
            key,
            Some(Desired {
                content,
                headers: headers.map(Into::into),
                condition: Condition::Any,
                was_there: node.marker != Some(false),
                since: clock::now(),
            }),
        ))
    }

    /// An inode lost its name. Open handles keep its bytes.
    pub(super) fn bury(&self, names: &mut Namespace, ino: Ino) {
        let Some(inode) = names.get_mut(ino) else { return };
        inode.status_changed(clock::now());
        if inode.opens == 0 {
            self.part_with(names, ino);
        } else if let Some(local) = inode.file().and_then(|file| file.local.as_ref()) {
            local.depart();
        }
    }

    /// Programs read on in a file whose name is gone. What of it isn't local yet is fetched before the bucket forgets it:
    /// the object's removal waits until that is done, failed, or took as long as any operation may.
    pub(super) fn keep_for_handles(&self, names: &Namespace, ino: Ino) -> Option<()> {
        let inode = names.get(ino)?;
        let file: Arc<LocalFile> = inode.file()?.local.clone().filter(|local| inode.opens > 0 && !local.is_complete())?;
        let base = file.base()?;
        let (fs, pin) = (self.shared()?, file.pin());
        let hold = self.writer.hold(&base.key);
        let limit = self.config.timeout;
        tokio::spawn(async move {
            if let Ok(Err(error)) | Err(error) = tokio::time::timeout(limit, fs.reader.fetch_all(&file)).await.map_err(|_| Error::Timeout) {
                tracing::warn!(key = %base.key, %error, "a removed file is still open, and can't be kept whole for its readers");
            }
            drop((hold, pin));
        });
        Some(())
    }
}
