//! Symbolic links: an object whose body is the target and whose mode says so, as s3fs writes and reads it.

use std::ffi::OsStr;

use futures::TryStreamExt;

use super::{Caller, Entry, Fs};
use crate::cache::LocalFile;
use crate::clock;
use crate::error::{Error, Result};
use crate::journal::{Change, Content, Desired};
use crate::namespace::{Ino, Inode, Node, Symlink};
use crate::store::Condition;
use crate::types::{Key, Version};

/// Linux's PATH_MAX without its NUL.
const TARGET_LIMIT_BYTES: u64 = 4095;

impl Fs {
    pub async fn symlink(&self, parent: Ino, name: &OsStr, target: &OsStr, caller: Caller) -> Result<Entry> {
        self.writable()?;
        let name = self.name(name)?;
        let target = target.to_str().ok_or(Error::NotUtf8)?;
        if target.is_empty() {
            return Err(Error::NotFound);
        }
        if target.len() as u64 > TARGET_LIMIT_BYTES {
            return Err(Error::NameTooLong);
        }
        if self.resolve(parent, &name, self.fresh_since()).await?.is_some() {
            return Err(Error::Exists);
        }
        self.check_storable(parent, &name).await?;
        let mut names = self.names.lock();
        let key = self.directory_key(&names, parent)?.child(&name);
        self.check_key(&key)?;
        if names.child(parent, &name).is_some() || self.is_wanted(&key) {
            return Err(Error::Exists);
        }
        let node = Node::Symlink(Symlink { target: Some(target.to_owned()), made_here: true, ..Symlink::default() });
        let ino = names.insert(node, clock::now());
        self.own(&mut names, ino, parent, 0o777, caller);
        let headers = names.get(ino).map(|inode| self.headers_of(inode, &key));
        let was_there = self.writer.pending(&key).is_some();
        let content = Content::Inline(target.as_bytes().to_vec());
        let desired = Desired { content, headers: headers.map(Into::into), condition: Condition::Any, was_there, since: clock::now() };
        // The journal keeps that it was made here: from the bucket alone a link out of the mount is not followed.
        let made_here = Change::RememberSymlink(key.clone(), target.to_owned());
        self.writer.apply(vec![(key, Some(desired))], &[made_here])?;
        if let Some(inode) = names.get_mut(ino) {
            inode.lookups += 1;
        }
        self.hang(&mut names, parent, &name, ino);
        self.entry(&names, ino)
    }

    pub async fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        let (target, version) = {
            let mut names = self.names.lock();
            let inode = names.get_mut(ino).ok_or(Error::NotFound)?;
            let Node::Symlink(link) = &inode.node else { return Err(Error::Invalid) };
            let (target, version) = (link.target.clone(), link.version.clone());
            if self.notes_access() {
                inode.access(clock::now());
            }
            (target, version)
        };
        let target = match (target, version) {
            (Some(target), _) => target,
            (None, Some(version)) => self.read_target(ino, &version).await?,
            (None, None) => return Err(Error::NotFound),
        };
        // Where it hangs by now: the kernel goes on from there.
        let (key, made_here) = {
            let names = self.names.lock();
            let made_here = matches!(names.get(ino).map(|inode| &inode.node), Some(Node::Symlink(link)) if link.made_here);
            (names.key(ino), made_here)
        };
        match key {
            _ if made_here || self.config.unsafe_symlinks => {}
            Some(key) if self.may_follow(&key, &target)? => {}
            Some(_) => return Err(Error::Denied),
            // Whoever put it into the bucket took it away again: from where it would lead, nobody can say.
            None => return Err(Error::Stale),
        }
        Ok(target.into_bytes())
    }

    /// What is wanted under `to` of a link that moves while nothing of it waits and no version of it is known: its upload has
    /// ended, and word of that is yet to come. Errors: `NotFound` for anything but a link.
    pub(super) fn sent_anew(&self, inode: &Inode, to: &Key, condition: Condition) -> Result<Desired> {
        let Node::Symlink(_) = inode.node else { return Err(Error::NotFound) };
        let headers = Some(self.headers_of(inode, to));
        Ok(Desired { content: inline_content(inode), headers: headers.map(Into::into), condition, was_there: false, since: clock::now() })
    }

    /// The target of a link that another program wrote: the object's body.
    async fn read_target(&self, ino: Ino, version: &Version) -> Result<String> {
        if version.size > TARGET_LIMIT_BYTES {
            return Err(Error::NameTooLong);
        }
        let body = self.store.get(&version.key, None, Some(&version.etag)).await?;
        if body.info.etag != version.etag {
            return Err(Error::Stale);
        }
        let chunks: Vec<_> = body.stream.try_collect().await?;
        let target = String::from_utf8(chunks.concat()).map_err(|_| Error::NotUtf8)?;
        if target.is_empty() || target.contains('\0') {
            return Err(Error::Invalid);
        }
        if let Some(Node::Symlink(link)) = self.names.lock().get_mut(ino).map(|inode| &mut inode.node) {
            link.target = Some(target.clone());
        }
        Ok(target)
    }

    /// A link that stays in the mount may be followed by anybody; one that leaves it only where this host made it, since
    /// whoever can write to the bucket could else make a web server read any file.
    fn may_follow(&self, key: &Key, target: &str) -> Result<bool> {
        Ok(stays_inside(key, target) || self.journal.symlink(key)?.is_some_and(|made_here| made_here == target))
    }
}

/// The bytes of something that has neither a version nor a data file. Of a link whose upload has just ended that is its
/// target; of a file nothing was ever wanted in the bucket.
pub(super) fn inline_content(inode: &Inode) -> Content {
    let target = if let Node::Symlink(link) = &inode.node { link.target.as_deref() } else { None };
    Content::Inline(target.unwrap_or_default().as_bytes().to_vec())
}

pub(super) fn has_target(inode: &Inode) -> bool {
    matches!(&inode.node, Node::Symlink(link) if link.target.is_some())
}

/// A link that the writer took here to break a cycle of copies.
pub(super) fn taken_here(file: &LocalFile) -> Result<Symlink> {
    let mut target = vec![0; file.size().min(TARGET_LIMIT_BYTES) as usize];
    let read = file.read_at(0, &mut target)?.unwrap_or_default();
    target.truncate(read);
    Ok(Symlink { version: file.base(), target: String::from_utf8(target).ok(), ..Symlink::default() })
}

/// Whether a relative target can't climb out of the mount.
///
/// Only `..` in front are counted: there the kernel stands in the directory that the link hangs in, as deep as its key says.
/// Behind a name it may stand anywhere, since that can be a link to the root. Each link on the way down is judged by itself
/// when it is read, so that no number of hops leads out.
fn stays_inside(key: &Key, target: &str) -> bool {
    let depth = key.as_str().matches('/').count();
    let mut parts = target.split('/').filter(|part| !matches!(*part, "" | ".")).skip_while(|part| *part == "..");
    let climbs = target.split('/').filter(|part| *part == "..").count();
    !target.starts_with('/') && climbs <= depth && parts.all(|part| part != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_targets_that_cannot_climb_out_stay_inside() {
        for (key, target, inside) in [
            ("a", "b", true),
            ("a", "../b", false),
            ("d/a", "../b", true),
            ("d/a", "../../b", false),
            ("d/a", "./.././b", true),
            ("d/a", ".././../b", false),
            ("d/a", "x/y", true),
            ("d/a", "/etc/passwd", false),
            ("d/a", "//etc/passwd", false),
            // `x` can be a link to the root.
            ("d/a", "x/../b", false),
            ("d/a", "../x/..", false),
            ("d/e/a", "..", true),
            ("d/e/a", "../..//", true),
            ("d/e/a", "../../..", false),
            ("d/a", "...", true),
            ("d/a", "..b/c", true),
            ("d/a", "./b//c", true),
        ] {
            assert_eq!(stays_inside(&Key::from(key), target), inside, "{key} -> {target}");
        }
    }
}
