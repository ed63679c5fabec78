//! rename(2): of files and directories, over what exists, exchanged, open or not, uploaded or not.
//!
//! In memory the tree moves at once. For the bucket it is a set of desired states in one transaction: what is staged is
//! wanted under its new key (so that a temporary file goes up once, under its final name), what is in the bucket becomes
//! a server-side copy of its version, and every old key an absence, which the writer holds back until the copies of it
//! are made.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use super::media::QUESTIONS_AT_ONCE;
use super::remove::absent;
use super::symlink::has_target;
use super::{Fs, RenameFlags};
use crate::cache::LocalFile;
use crate::clock;
use crate::error::{Error, Result};
use crate::journal::{Change, Content, Desired};
use crate::namespace::{Ino, Inode, Namespace, Node};
use crate::store::Condition;
use crate::types::{Key, ListedObject, ObjectHeaders, PackedHeaders, Version};
use crate::writer::{Hold, copied};

/// One name, and the inode found under it.
struct Place {
    parent: Ino,
    name: Arc<str>,
    ino: Option<Ino>,
}

/// An object below a directory that no path can show.
struct Hidden {
    version: Version,
    /// None: a copy keeps them all.
    headers: Option<ObjectHeaders>,
}

/// Desired states by key, and the keys that are left (with whether the bucket may hold them).
#[derive(Default)]
struct Plan {
    wanted: BTreeMap<Key, Desired>,
    left: BTreeMap<Key, bool>,
    also: Vec<Change>,
}

impl Plan {
    fn leave(&mut self, key: Key, was_there: bool) {
        *self.left.entry(key).or_default() |= was_there;
    }

    fn into_changes(mut self) -> (Vec<(Key, Option<Desired>)>, Vec<Change>) {
        for (key, was_there) in self.left {
            match self.wanted.get_mut(&key) {
                Some(desired) => desired.was_there |= was_there,
                None => drop(self.wanted.insert(key, absent(was_there))),
            }
        }
        (self.wanted.into_iter().map(|(key, desired)| (key, Some(desired))).collect(), self.also)
    }
}

impl Fs {
    pub async fn rename(&self, parent: Ino, name: &OsStr, to: Ino, to_name: &OsStr, flags: RenameFlags) -> Result<()> {
        self.writable()?;
        if flags.no_replace && flags.exchange {
            return Err(Error::Invalid);
        }
        let (name, to_name) = (self.name(name)?, self.name(to_name)?);
        self.check_storable(to, &to_name).await?;
        for _ in 0..super::RACES {
            let kept = self.keep_names();
            let from = self.resolve(parent, &name, self.fresh_since()).await?.ok_or(Error::NotFound)?;
            let target = self.resolve(to, &to_name, self.fresh_since()).await?;
            if target == Some(from) {
                return Ok(());
            }
            let _kept = Some(kept).filter(|_| self.is_directory(from) || target.is_some_and(|target| self.is_directory(target)));
            // Hidden keys move with their directory too, so they are planned from what the listing showed.
            let mut hidden = self.prepare(from, true).await?;
            if let Some(target) = target {
                hidden.extend(self.prepare(target, flags.exchange).await?);
            }
            let exchanged = target.filter(|_| flags.exchange);
            let old = Place { parent, name: Arc::clone(&name), ino: Some(from) };
            self.know_exchanged(&old, to, &to_name, exchanged).await?;
            // An upload can't change its key: what holds parts that aren't here has to be complete before.
            let _whole = self.hold_whole(from, exchanged).await;
            let new = Place { parent: to, name: Arc::clone(&to_name), ino: target };
            if self.rename_now(&old, &new, flags, &hidden)? {
                return Ok(());
            }
        }
        Err(Error::Timeout)
    }

    /// Keeps uploads from taking parts of what moves, until the holds are dropped.
    async fn hold_whole(&self, from: Ino, exchanged: Option<Ino>) -> Vec<Hold> {
        let moving: Vec<(Key, Arc<LocalFile>)> = {
            let names = self.names.lock();
            let local = |ino: Ino| names.get(ino)?.file()?.local.clone().filter(|local| local.is_dirty());
            moving(&names, from, exchanged).into_iter().filter_map(|ino| Some((names.key(ino)?, local(ino)?))).collect()
        };
        let mut holds = Vec::with_capacity(moving.len());
        for (key, file) in moving {
            holds.push(self.writer.hold_whole(&key, &file).await);
        }
        holds
    }

    /// Learns what a rename has to know of a directory: all below it where it moves, whether it is empty where it goes.
    async fn prepare(&self, ino: Ino, moves: bool) -> Result<Vec<Hidden>> {
        if !self.is_directory(ino) {
            return Ok(Vec::new());
        }
        if moves {
            let hidden = self.load_below(ino).await?;
            return stream::iter(hidden).map(|object| self.hidden(object)).buffer_unordered(QUESTIONS_AT_ONCE).try_collect().await;
        }
        self.load_listing_for_removal(ino).await?;
        Ok(Vec::new())
    }

    async fn hidden(&self, object: ListedObject) -> Result<Hidden> {
        let version = object.version();
        let info = if object.storage_class.is_some() { self.head(&object.key).await? } else { None };
        Ok(Hidden { version, headers: info.map(|info| info.headers) })
    }

    /// Learns the headers of what gets others under its new path.
    async fn know_exchanged(&self, old: &Place, to: Ino, to_name: &str, exchanged: Option<Ino>) -> Result<()> {
        let keys = {
            let names = self.names.lock();
            (self.directory_key(&names, old.parent)?.child(&old.name), self.directory_key(&names, to)?.child(to_name))
        };
        if let Some(from) = old.ino {
            self.know_moving(from, &keys.0, &keys.1).await?;
        }
        match exchanged {
            Some(target) => self.know_moving(target, &keys.1, &keys.0).await,
            None => Ok(()),
        }
    }

    /// False: another change came between the look-ups and now.
    fn rename_now(&self, old: &Place, new: &Place, flags: RenameFlags, hidden: &[Hidden]) -> Result<bool> {
        let mut names = self.names.lock();
        if names.child(old.parent, &old.name) != old.ino || names.child(new.parent, &new.name) != new.ino {
            return Ok(false);
        }
        let Some(from) = old.ino else { return Err(Error::NotFound) };
        self.check_rename(&names, from, new, flags)?;
        let old_key = self.directory_key(&names, old.parent)?.child(&old.name);
        let new_key = self.directory_key(&names, new.parent)?.child(&new.name);
        for ino in moving(&names, from, new.ino.filter(|_| flags.exchange)) {
            names.get_mut(ino).into_iter().for_each(|inode| inode.take_held(self.store.now()));
        }
        let plan = self.plan_rename(&names, from, old, new, flags, hidden)?;
        let (changes, also) = plan.into_changes();
        let victim = new.ino.filter(|_| !flags.exchange);
        if let Some(victim) = victim {
            self.take_staged(&mut names, victim);
            self.keep_for_handles(&names, victim);
        }
        let staged_link = victim.and_then(|victim| self.staged_link(&names, victim));
        self.writer.apply(changes, &also)?;
        staged_link.into_iter().for_each(|id| self.cache.discard(id));
        self.move_in_memory(&mut names, from, old, new, (&old_key, &new_key), flags);
        Ok(true)
    }

    fn check_rename(&self, names: &Namespace, from: Ino, new: &Place, flags: RenameFlags) -> Result<()> {
        let moves_directory = names.get(from).is_some_and(Inode::is_directory);
        if moves_directory && names.is_within(new.parent, from) {
            return Err(Error::Invalid);
        }
        let Some(target) = new.ino else {
            return if flags.exchange { Err(Error::NotFound) } else { Ok(()) };
        };
        if flags.no_replace {
            return Err(Error::Exists);
        }
        let onto_directory = names.get(target).is_some_and(Inode::is_directory);
        if flags.exchange {
            let own_parent = names.get(from).and_then(|inode| inode.place.as_ref()).map(|(parent, _)| *parent);
            let climbs = onto_directory && own_parent.is_some_and(|parent| names.is_within(parent, target));
            return if climbs { Err(Error::Invalid) } else { Ok(()) };
        }
        match (moves_directory, onto_directory) {
            (true, false) => Err(Error::NotDirectory),
            (false, true) => Err(Error::IsDirectory),
            (true, true) => self.require_empty(names, target),
            (false, false) => Ok(()),
        }
    }

    fn plan_rename(&self, names: &Namespace, from: Ino, old: &Place, new: &Place, flags: RenameFlags, hidden: &[Hidden]) -> Result<Plan> {
        let old_key = self.directory_key(names, old.parent)?.child(&old.name);
        let new_key = self.directory_key(names, new.parent)?.child(&new.name);
        let condition = if flags.no_replace { Condition::IfAbsent } else { Condition::Any };
        let mut plan = Plan::default();
        self.plan_move(names, from, &old_key, &new_key, hidden, &condition, &mut plan)?;
        match new.ino {
            Some(target) if flags.exchange => self.plan_move(names, target, &new_key, &old_key, hidden, &condition, &mut plan)?,
            Some(target) => {
                let inode = names.get(target).ok_or(Error::NotFound)?;
                let key = if inode.is_directory() { new_key.as_directory() } else { new_key };
                let was_there = inode.held().is_some() || self.may_have_marker(names, target);
                plan.leave(key, was_there);
            }
            None => {}
        }
        if !flags.exchange
            && old.parent != new.parent
            && let Some((key, Some(desired))) = self.keep_directory(names, old.parent, &old.name)
        {
            plan.wanted.entry(key).or_insert(desired);
        }
        Ok(plan)
    }

    #[allow(clippy::too_many_arguments, reason = "one move is one plan entry; a struct of these would have one user")]
    fn plan_move(
        &self,
        names: &Namespace,
        ino: Ino,
        from: &Key,
        to: &Key,
        hidden: &[Hidden],
        condition: &Condition,
        plan: &mut Plan,
    ) -> Result<()> {
        let inode = names.get(ino).ok_or(Error::NotFound)?;
        if !inode.is_directory() {
            return self.plan_object(inode, from, to, condition, plan);
        }
        let (from, to) = (from.as_directory(), to.as_directory());
        self.plan_marker(names, inode, &from, &to, plan)?;
        for (key, child) in names.below(ino) {
            let moved = key.moved(&from, &to).ok_or(Error::Invalid)?;
            match names.get(child) {
                Some(inode) if inode.is_directory() => self.plan_marker(names, inode, &key, &moved, plan)?,
                Some(inode) => self.plan_object(inode, &key, &moved, condition, plan)?,
                None => {}
            }
        }
        for Hidden { version, headers } in hidden.iter().filter(|hidden| hidden.version.key.is_below(&from)) {
            let moved = version.key.moved(&from, &to).ok_or(Error::Invalid)?;
            let desired = Desired {
                content: Content::CopyOf(version.clone()),
                headers: headers.clone().map(Into::into),
                condition: Condition::Any,
                was_there: false,
                since: clock::now(),
            };
            plan.wanted.insert(moved, desired);
            plan.leave(version.key.clone(), true);
        }
        Ok(())
    }

    /// A directory keeps its marker, and gets one where nothing else would hold its name.
    fn plan_marker(&self, names: &Namespace, inode: &Inode, from: &Key, to: &Key, plan: &mut Plan) -> Result<()> {
        self.check_key(to)?;
        let pending = self.writer.pending(from).filter(|desired| desired.content != Content::Absent);
        let node = inode.directory();
        let empty = node.is_none_or(|node| node.children.is_empty());
        let has_marker = pending.is_some() || node.is_some_and(|node| node.marker != Some(false));
        if has_marker || empty {
            let headers = Some(self.headers_of(inode, to));
            let filled = pending.map_or_else(|| node.and_then(|node| node.filled.clone()), |pending| copied(&pending.content).cloned());
            let content = filled.map_or(Content::Inline(Vec::new()), Content::CopyOf);
            let desired =
                Desired { content, headers: headers.map(Into::into), condition: Condition::Any, was_there: false, since: clock::now() };
            plan.wanted.insert(to.clone(), desired);
        }
        let was_there = self.may_have_marker(names, inode.ino);
        plan.leave(from.clone(), was_there);
        if let Some(marker) = self.hadoop_marker(from) {
            plan.leave(marker, true);
        }
        Ok(())
    }

    fn plan_object(&self, inode: &Inode, from: &Key, to: &Key, condition: &Condition, plan: &mut Plan) -> Result<()> {
        self.check_key(to)?;
        let headers = |old| self.moved_headers(inode, old, from, to).map(PackedHeaders::from);
        let pending = self.writer.pending(from).filter(|desired| desired.content != Content::Absent);
        let held = inode.held();
        // Where nothing waits, what is shown under the name is in the bucket, whatever it is known by.
        let was_there = pending.as_ref().is_none_or(|desired| desired.was_there) || held.as_ref().is_some_and(|held| held.key == *from);
        let desired = match (pending, held) {
            (Some(pending), _) => {
                Desired { headers: headers(pending.headers()), condition: condition.clone(), was_there: false, ..pending }
            }
            // Word of what it went up as under this name is yet to come: the version that is known may be gone.
            (None, Some(version)) if version.key != *from && has_target(inode) => self.sent_anew(inode, to, condition.clone())?,
            (None, Some(version)) => {
                let content = Content::CopyOf(version);
                Desired { content, headers: headers(None), condition: condition.clone(), was_there: false, since: clock::now() }
            }
            (None, None) => self.sent_anew(inode, to, condition.clone())?,
        };
        if let Node::Symlink(_) = inode.node
            && let Some(target) = self.journal.symlink(from)?
        {
            plan.also.push(Change::ForgetSymlink(from.clone()));
            plan.also.push(Change::RememberSymlink(to.clone(), target));
        }
        plan.wanted.insert(to.clone(), desired);
        plan.leave(from.clone(), was_there);
        Ok(())
    }

    fn move_in_memory(&self, names: &mut Namespace, from: Ino, old: &Place, new: &Place, keys: (&Key, &Key), flags: RenameFlags) {
        names.touch(old.parent, &old.name);
        names.touch(new.parent, &new.name);
        names.unlink(old.parent, &old.name);
        let target = names.unlink(new.parent, &new.name);
        names.link(new.parent, &new.name, from);
        let now = Instant::now();
        match target {
            Some(target) if flags.exchange => {
                names.link(old.parent, &old.name, target);
                settle(names, target, now);
            }
            Some(victim) => {
                names.set_missing(old.parent, &old.name, now);
                self.bury(names, victim);
            }
            None => drop(names.set_missing(old.parent, &old.name, now)),
        }
        settle(names, from, now);
        let (old_key, new_key) = keys;
        self.move_headers(names, from, &as_is(names, from, old_key), &as_is(names, from, new_key));
        if let Some(target) = target.filter(|_| flags.exchange) {
            self.move_headers(names, target, &as_is(names, target, new_key), &as_is(names, target, old_key));
        }
        self.directory_changed(names, old.parent);
        self.directory_changed(names, new.parent);
    }
}

/// What gets another key: the inodes themselves, and all below them.
fn moving(names: &Namespace, from: Ino, exchanged: Option<Ino>) -> Vec<Ino> {
    let with_below = |top: Ino| names.below(top).into_iter().map(|(_, ino)| ino).chain([top]);
    std::iter::once(from).chain(exchanged).flat_map(with_below).collect()
}

/// A key as that of `ino`: a directory's ends in a slash.
fn as_is(names: &Namespace, ino: Ino, key: &Key) -> Key {
    if names.get(ino).is_some_and(Inode::is_directory) { key.as_directory() } else { key.clone() }
}

/// Under its new name the inode is as fresh as a rename is.
fn settle(names: &mut Namespace, ino: Ino, now: Instant) {
    if let Some(inode) = names.get_mut(ino) {
        inode.checked = Some(now);
        inode.status_changed(clock::now());
    }
}
