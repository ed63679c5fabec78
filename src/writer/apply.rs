//! Takes new desired states: in one transaction to the journal, then into memory, then to the files.
//!
//! `merge` is the whole of the coalescing: what is wanted now, given what was wanted and what is under way. It is pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::MutexGuard;
use tokio::time::Instant;

use super::Shared;
use super::ahead;
use super::entry::{Entry, Waiter};
use super::queue::Queue;
use crate::cache::LocalFile;
use crate::error::{Error, Result};
use crate::journal::{Change, Content, Desired};
use crate::store::Condition;
use crate::types::{FileId, Key};

/// What is being done to a key at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    Nothing,
    /// An upload or a copy: the bucket may hold it already.
    Storing,
    Deleting,
}

/// What is wanted from now on; None: nothing that the bucket doesn't have.
pub fn merge(new: Option<Desired>, old: Option<&Desired>, doing: Doing) -> Option<Desired> {
    let mut new = new?;
    new.was_there |= doing == Doing::Storing;
    if let Some(old) = old {
        new.was_there |= old.was_there;
        new.since = old.since;
        // A marker that is still to go up keeps the directory, and knows its attributes.
        if new.content == Content::KeptDirectory && !matches!(old.content, Content::Absent | Content::KeptDirectory) {
            return Some(old.clone());
        }
        // The object that we were to delete is still there, or would be after a crash: to us the name is free.
        if is_freed(&new, old) {
            new.condition = Condition::Any;
        }
    }
    let nothing = new.content == Content::Absent && !new.was_there;
    (!nothing).then_some(new)
}

/// A new name where we have an object to delete.
fn is_freed(new: &Desired, old: &Desired) -> bool {
    old.content == Content::Absent && old.was_there && new.condition == Condition::IfAbsent
}

/// One key's step of a transaction.
struct Step {
    key: Key,
    desired: Option<Desired>,
    file: Option<Arc<LocalFile>>,
    /// The name is to be a new one as soon as the delete under way has worked.
    new_once_deleted: bool,
    /// The very state that is waiting already: only the time of the change moves.
    same: bool,
}

impl Shared {
    pub fn apply(&self, changes: Vec<(Key, Option<Desired>)>, also: &[Change]) -> Result<()> {
        self.apply_with(changes, also, |rows| self.journal.apply(rows))
    }

    pub fn apply_at_rest(&self, key: Key, desired: Desired, file: &LocalFile) -> Result<()> {
        self.apply_with(vec![(key, Some(desired))], &[], |rows| file.seal_with(rows))
    }

    /// Of a file that was written to after the last daemon died, which nobody wants yet.
    pub fn claim(&self, key: Key, desired: Desired, file: &LocalFile) -> Result<()> {
        self.apply_with(vec![(key, Some(desired))], &[], |rows| file.claim_with(rows))
    }

    fn apply_with(
        &self,
        changes: Vec<(Key, Option<Desired>)>,
        also: &[Change],
        commit: impl FnOnce(&[Change]) -> Result<()>,
    ) -> Result<()> {
        let now = Instant::now();
        let mut queue = self.queue.lock();
        let steps = self.steps(&queue, changes)?;
        let mut rows = also.to_vec();
        for step in &steps {
            rows.extend(step_rows(&queue, step)?);
        }
        commit(&rows)?;
        let mut moved = BTreeMap::new();
        for step in &steps {
            self.enter(&mut queue, step, now, &mut moved);
        }
        hand_over_waiters(&mut queue, &steps, moved);
        if steps.iter().any(|step| step.file.is_some()) {
            queue.burst.note(now);
        }
        self.ring(queue, now);
        Ok(())
    }

    /// A file that was open need not rest any more.
    pub fn closed(&self, key: &Key) {
        let mut queue = self.queue.lock();
        if queue.get(key).is_none() || queue.flight(key).is_some() || queue.gathering.contains(key) {
            return;
        }
        let now = Instant::now();
        let at = self.look_at(&queue, key, now);
        queue.schedule_at(key, at);
        self.ring(queue, now);
    }

    /// Wakes the loop, where it would come too late by itself.
    fn ring(&self, mut queue: MutexGuard<'_, Queue>, now: Instant) {
        let rings = queue.rings(now);
        drop(queue);
        if rings {
            self.wake.notify_one();
        }
    }

    /// When it is worth a look whether `key` may go.
    fn look_at(&self, queue: &Queue, key: &Key, now: Instant) -> Instant {
        let Some(entry) = queue.get(key) else { return now };
        let hurries = entry.urgent || queue.draining > 0 || entry.ahead || ahead::is_due(queue, key, entry, self);
        if hurries { now } else { entry.due(&self.config, now).max(now) }
    }

    fn steps(&self, queue: &Queue, changes: Vec<(Key, Option<Desired>)>) -> Result<Vec<Step>> {
        let mut steps: Vec<Step> = Vec::with_capacity(changes.len());
        for (key, new) in changes {
            let old = queue.get(&key);
            let doing = match queue.flight(&key) {
                Some(flight) if flight.deletes => Doing::Deleting,
                Some(_) => Doing::Storing,
                // What an attempt whose end nobody saw may have stored is to be deleted with the rest.
                None if old.is_some_and(|old| old.unsure && !old.is_absent()) => Doing::Storing,
                None => Doing::Nothing,
            };
            let freed = new.as_ref().zip(old).is_some_and(|(new, old)| is_freed(new, &old.desired));
            let desired = merge(new, old.map(|old| &old.desired), doing);
            let file = match desired.as_ref().map(|desired| &desired.content) {
                Some(Content::Staged(id)) => Some(self.staged(*id)?),
                _ => None,
            };
            let same = desired.is_some() && old.map(|old| &old.desired) == desired.as_ref();
            steps.push(Step { key, desired, file, new_once_deleted: freed && doing == Doing::Deleting, same });
        }
        Ok(steps)
    }

    fn staged(&self, id: FileId) -> Result<Arc<LocalFile>> {
        self.cache.get(id).ok_or_else(|| Error::Corrupt(format!("data file {id} is not in the cache")))
    }

    /// Brings memory to what the journal says now.
    fn enter(&self, queue: &mut Queue, step: &Step, now: Instant, moved: &mut BTreeMap<FileId, Vec<Waiter>>) {
        if let Some(file) = &step.file {
            file.mark_dirty();
        }
        let kept = queue.take_error(&step.key);
        if queue.sessions.get(&step.key).is_some_and(|session| Some(session.file) != step.file.as_ref().map(|file| file.id())) {
            queue.give_up_session(&step.key);
            self.aborts.notify_one();
        }
        // A file that only gets another name holds all its parts, see `Writer::hold_whole`.
        let old_file = queue.get(&step.key).and_then(|old| old.file.clone());
        if let Some(old) = old_file.filter(|old| step.file.as_ref().is_none_or(|file| file.id() != old.id())) {
            old.forfeit();
        }
        let Some(desired) = &step.desired else {
            if let Some(old) = queue.remove(&step.key, now) {
                part_with_waiters(old, moved);
            }
            return;
        };
        let generation = queue.count();
        let mut entry = Entry::new(desired.clone(), step.file.clone(), generation, now);
        entry.new_once_deleted = step.new_once_deleted;
        entry.commits = self.journal.commits();
        let mut old = queue.remove(&step.key, now);
        // Whoever goes on writing into a file that could not be sent shall hear of it all the same; but who replaces it
        // whole has settled a conflict.
        let same_file = old.as_mut().filter(|old| old.desired.content == desired.content);
        let untold = same_file
            .and_then(|old| old.failed.take().filter(|failed| !failed.told).map_or(kept, |failed| Some(failed.error)))
            .filter(|error| !(matches!(error, Error::Stale | Error::Exists) && desired.condition == Condition::Any));
        if let Some(old) = old {
            entry.first_dirty = old.first_dirty;
            entry.unsure = old.unsure;
            // Still the same new file, and that delete is still under way.
            entry.new_once_deleted |= old.new_once_deleted && desired.content == old.desired.content;
            if step.same {
                entry.generation = old.generation;
                (entry.waiters, entry.urgent) = (old.waiters, old.urgent);
                entry.local_only = old.local_only;
            } else if step.file.is_some() || !matches!(old.desired.content, Content::Staged(_)) {
                (entry.waiters, entry.urgent) = (old.waiters, old.urgent);
            } else {
                part_with_waiters(old, moved);
            }
        }
        queue.put(&step.key, entry, now);
        let at = self.look_at(queue, &step.key, now);
        queue.schedule_at(&step.key, at);
        if let Some(error) = untold {
            queue.keep_error(&step.key, error);
        }
    }
}

fn step_rows(queue: &Queue, step: &Step) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    if let Some(file) = step.file.as_ref().filter(|file| !file.is_dirty()) {
        changes.push(Change::PutFile(file.row(true)?));
    }
    match &step.desired {
        Some(_) if step.same => {}
        Some(desired) => changes.push(Change::SetDesired(step.key.clone(), desired.clone())),
        None if queue.get(&step.key).is_some() => changes.push(Change::ClearDesired(step.key.clone())),
        None => {}
    }
    Ok(changes)
}

/// The entry's file is wanted elsewhere or not at all: those who wait for it go with the file.
fn part_with_waiters(old: Entry, moved: &mut BTreeMap<FileId, Vec<Waiter>>) {
    match old.desired.content {
        Content::Staged(id) if !old.waiters.is_empty() => moved.entry(id).or_default().extend(old.waiters),
        _ => old.waiters.into_iter().for_each(|waiter| waiter.done(Ok(()))),
    }
}

fn hand_over_waiters(queue: &mut Queue, steps: &[Step], mut moved: BTreeMap<FileId, Vec<Waiter>>) {
    for step in steps {
        let Some(waiters) = step.file.as_ref().and_then(|file| moved.remove(&file.id())) else { continue };
        if let Some(entry) = queue.get_mut(&step.key) {
            entry.waiters.extend(waiters);
            entry.urgent = true;
            queue.schedule_at(&step.key, Instant::now());
        }
    }
    for waiter in moved.into_values().flatten() {
        waiter.done(Ok(()));
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::types::{ETag, Version};

    fn desired(content: Content, condition: Condition, was_there: bool, second: u64) -> Desired {
        Desired { content, headers: None, condition, was_there, since: UNIX_EPOCH + Duration::from_secs(second) }
    }

    fn staged(was_there: bool, second: u64) -> Desired {
        desired(Content::Staged(FileId(1)), Condition::IfAbsent, was_there, second)
    }

    fn absent(was_there: bool, second: u64) -> Desired {
        desired(Content::Absent, Condition::Any, was_there, second)
    }

    #[test]
    fn created_and_unlinked_is_nothing() {
        assert_eq!(merge(Some(absent(false, 2)), Some(&staged(false, 1)), Doing::Nothing), None);
        assert_eq!(merge(Some(absent(false, 2)), None, Doing::Nothing), None);
        assert_eq!(merge(None, Some(&staged(true, 1)), Doing::Storing), None);
    }

    #[test]
    fn what_may_be_in_the_bucket_is_deleted() {
        for (given, old, doing) in
            [(true, None, Doing::Nothing), (false, Some(staged(true, 1)), Doing::Nothing), (false, Some(staged(false, 1)), Doing::Storing)]
        {
            let merged = merge(Some(absent(given, 2)), old.as_ref(), doing).unwrap();
            assert!(merged.was_there);
            assert_eq!(merged.since, old.map_or(absent(true, 2).since, |old| old.since));
        }
    }

    #[test]
    fn a_name_that_we_freed_ourselves_is_free() {
        let version = Version { key: "x".into(), etag: ETag::new("e"), size: 1 };
        for (old, doing, condition) in [
            (absent(true, 1), Doing::Nothing, Condition::Any),
            (absent(true, 1), Doing::Storing, Condition::Any),
            (absent(true, 1), Doing::Deleting, Condition::Any),
            (absent(false, 1), Doing::Nothing, Condition::IfAbsent),
            (desired(Content::CopyOf(version), Condition::Any, true, 1), Doing::Nothing, Condition::IfAbsent),
        ] {
            assert_eq!(merge(Some(staged(false, 2)), Some(&old), doing).unwrap().condition, condition, "{old:?}");
        }
    }

    #[test]
    fn a_waiting_marker_keeps_its_directory() {
        let marker = desired(Content::Inline(Vec::new()), Condition::IfAbsent, false, 1);
        let kept = desired(Content::KeptDirectory, Condition::Any, false, 2);
        assert_eq!(merge(Some(kept.clone()), Some(&marker), Doing::Nothing), Some(marker.clone()));
        assert_eq!(merge(Some(kept.clone()), Some(&absent(true, 1)), Doing::Nothing).unwrap().content, Content::KeptDirectory);
        assert_eq!(merge(Some(kept.clone()), None, Doing::Nothing), Some(kept));
    }
}
