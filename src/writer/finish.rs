//! Records what an operation did: journal first, then memory, then (no lock held) the file system and those who wait.
//!
//! An entry is cleared only if nothing newer is wanted and its file has not changed since it was read. Otherwise it
//! stays, now building on the version that the bucket has.

use std::sync::Arc;

use tokio::time::Instant;

use super::Shared;
use super::backoff::{self, Next};
use super::copy::copied;
use super::entry::{Entry, Failure, Waiter};
use super::flight::{Job, Stored};
use super::order::Facts;
use super::queue::Queue;
use crate::cache::LocalFile;
use crate::clock;
use crate::error::{Error, Result};
use crate::journal::{Change, Content, Desired};
use crate::media::gzip;
use crate::store::{Condition, ErrorKind};
use crate::types::{ETag, Key, Version};

/// What is left to want after something was stored; None: nothing.
type Left = Option<(Desired, Option<Arc<LocalFile>>)>;

pub fn stored(shared: &Shared, job: &Job, stored: Stored) {
    let now = Instant::now();
    let mut queue = shared.queue.lock();
    answered(&mut queue, &job.key, now);
    queue.remember_own(&job.key, stored.version.etag.clone());
    relearn(shared, job, &stored);
    let mut changes: Vec<Change> = stored.upload.clone().map(Change::EndUpload).into_iter().collect();
    let outcome = left(queue.get(&job.key), job, &stored, &mut changes).and_then(|left| {
        let renamed = follow(&queue, job, &stored, &mut changes);
        shared.journal.apply(&changes).map(|()| (left, renamed))
    });
    let (mut waiters, mut followers) = (Vec::new(), Vec::new());
    let mut clean = false;
    match outcome {
        Ok((left, renamed)) => {
            queue.forget_copies(&job.key);
            for (key, desired) in renamed {
                replace_desired(&mut queue, &key, desired, now);
                followers.push(key);
            }
            clean = left.is_none();
            waiters = settle_entry(&mut queue, job, left, now);
        }
        Err(error) => retry_later(&mut queue, job, error, now),
    }
    drop(queue);
    tracing::debug!(key = %job.key, size = stored.version.size, etag = %stored.version.etag.text(), clean, "stored");
    if let Some(events) = shared.events.get() {
        events.stored(&stored.content, &stored.version, stored.headers.as_ref(), stored.last_modified, clean);
        if let Some(old) = copied_onto_itself(job, &stored) {
            followers.iter().for_each(|key| events.renewed(key, old, &stored.version));
        }
    }
    waiters.into_iter().for_each(|waiter| waiter.done(Ok(())));
}

/// Of bytes that were there before under other headers, seconds ago perhaps: the older ones must not be believed after a kill.
fn relearn(shared: &Shared, job: &Job, stored: &Stored) {
    let learned = |key: &Key, etag: &ETag| shared.journal.last_headers(key, etag).map(|(_, headers)| headers);
    let Some(known) = learned(&job.key, &stored.version.etag).filter(|_| job.desired.was_there) else { return };
    // A copy that says nothing has those of its source.
    let of_source = || copied(&job.desired.content).and_then(|from| learned(&from.key, &from.etag));
    let headers = stored.headers.clone().or_else(of_source);
    if headers.as_ref() != Some(&known)
        && let Err(error) = shared.journal.relearn(&stored.version, stored.last_modified, headers.as_ref())
    {
        tracing::warn!(key = %job.key, %error, "can't keep learned attributes");
    }
}

/// Settles the file with what went up, decides what is left to want, and adds the rows that say so.
fn left(entry: Option<&Entry>, job: &Job, stored: &Stored, changes: &mut Vec<Change>) -> Result<Left> {
    let same_content = entry.is_some_and(|entry| entry.desired.content == job.desired.content);
    if let Some(file) = job.file.as_ref().filter(|_| !same_content) {
        file.forfeit();
    }
    let Some(entry) = entry else { return Ok(None) };
    let unchanged = entry.generation == job.generation;
    let same_file = matches!(stored.content, Content::Staged(_)) && stored.content == entry.desired.content;
    // Of an unchanged entry the file system may have told newer headers than the upload was begun with.
    let wanted = if unchanged { stored.wanted.clone() } else { entry.desired.headers() };
    let agrees = |wanted| stored.headers.as_ref().is_some_and(|stored| gzip::agree(stored, wanted));
    let may_clear = wanted.as_ref().is_none_or(agrees) && (unchanged || same_file);
    let clear: Vec<Change> = may_clear.then(|| Change::ClearDesired(job.key.clone())).into_iter().collect();
    let mut settled = true;
    if let (true, Some(file), Some(stamp)) = (same_file, &entry.file, &stored.stamp) {
        // One commit says that the file is clean, that its upload is over and that nothing is wanted.
        settled = file.settle_with(stamp, &stored.version, changes, &clear)?;
        changes.clear();
        if settled && may_clear {
            return Ok(None);
        }
    }
    if settled && may_clear {
        changes.extend(clear);
        return Ok(None);
    }
    let mut file = entry.file.clone();
    let mut desired = Desired { was_there: true, ..entry.desired.clone() };
    if desired.condition != Condition::Any {
        desired.condition = Condition::IfMatch(stored.version.etag.clone());
    }
    if same_file && settled {
        // Only the headers moved on: the store has the bytes.
        (desired.content, file) = (Content::CopyOf(stored.version.clone()), None);
        desired.headers = wanted.map(Into::into);
    } else if let Some(old) = copied_onto_itself(job, stored) {
        renew(&mut desired, file.as_deref(), old, &stored.version)?;
    }
    changes.push(Change::SetDesired(job.key.clone(), desired.clone()));
    Ok(Some((desired, file)))
}

/// The version that was replaced by the same bytes under other headers.
fn copied_onto_itself<'a>(job: &Job, stored: &'a Stored) -> Option<&'a Version> {
    match &stored.content {
        Content::CopyOf(old) if old.key == job.key => Some(old),
        _ => None,
    }
}

/// What refers to `old` refers to `new` from now on: the same bytes under another ETag.
fn renew(desired: &mut Desired, file: Option<&LocalFile>, old: &Version, new: &Version) -> Result<bool> {
    match (&mut desired.content, file) {
        (Content::CopyOf(version) | Content::Restored(version), _) if version == old => {
            *version = new.clone();
            Ok(true)
        }
        (Content::Staged(_), Some(file)) if file.base().as_ref() == Some(old) => file.rebase(new).map(|()| true),
        _ => Ok(false),
    }
}

/// Other entries that take bytes from the version that this one has just replaced by equal bytes.
fn follow(queue: &Queue, job: &Job, stored: &Stored, changes: &mut Vec<Change>) -> Vec<(Key, Desired)> {
    let Some(old) = copied_onto_itself(job, stored) else { return Vec::new() };
    let mut renamed = Vec::new();
    for key in queue.readers(&job.key) {
        let Some(entry) = queue.get(&key) else { continue };
        let mut desired = entry.desired.clone();
        match renew(&mut desired, entry.file.as_deref(), old, &stored.version) {
            Ok(true) => {
                changes.push(Change::SetDesired(key.clone(), desired.clone()));
                renamed.push((key, desired));
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%key, %error, "the file keeps its old version as base"),
        }
    }
    renamed
}

fn replace_desired(queue: &mut Queue, key: &Key, desired: Desired, now: Instant) {
    if let Some(entry) = queue.get_mut(key) {
        entry.desired = desired;
        // Which commit this is in doesn't matter to anybody: all of them are waited for.
        entry.commits = u64::MAX;
        queue.index(key);
        queue.schedule_at(key, now);
    }
}

/// Takes over what is left to want; returns who was waiting for what is now in the bucket.
fn settle_entry(queue: &mut Queue, job: &Job, left: Left, now: Instant) -> Vec<Waiter> {
    match left {
        None => {
            // An older failure is made good.
            queue.take_error(&job.key);
            queue.notes.arrive(&job.key);
            queue.remove(&job.key, now).map(|entry| entry.waiters).unwrap_or_default()
        }
        Some((desired, file)) => {
            let Some(entry) = queue.get_mut(&job.key) else { return Vec::new() };
            let (satisfied, waiting) =
                std::mem::take(&mut entry.waiters).into_iter().partition::<Vec<_>, _>(|waiter| waiter.from_flight <= job.number);
            (entry.desired, entry.file, entry.waiters) = (desired, file, waiting);
            entry.urgent = !entry.waiters.is_empty();
            (entry.first_dirty, entry.settled, entry.unsure, entry.local_only) = (now, false, false, false);
            (entry.attempts, entry.not_before) = (0, None);
            queue.index(&job.key);
            queue.schedule_at(&job.key, now);
            satisfied
        }
    }
}

/// The bucket has answered: an outage is over.
pub fn answered(queue: &mut Queue, key: &Key, now: Instant) {
    queue.pace.wrote(key, now);
    for victim in queue.outage.over() {
        if let Some(entry) = queue.get_mut(&victim).filter(|entry| entry.failed.is_none()) {
            entry.not_before = None;
            queue.schedule_at(&victim, now);
        }
    }
}

/// Nothing had to be done for this state.
pub fn nothing(shared: &Shared, job: &Job) {
    clear(shared, std::slice::from_ref(job), |_| Ok(()));
}

pub fn deleted(shared: &Shared, jobs: &[Job]) {
    {
        let mut queue = shared.queue.lock();
        for job in jobs {
            queue.forget_own(&job.key);
            name_is_new(shared, &mut queue, &job.key);
        }
    }
    jobs.iter().for_each(|job| shared.cache.forget_key(&job.key));
    clear(shared, jobs, |_| Ok(()));
    if let Some(events) = shared.events.get() {
        for job in jobs {
            tracing::debug!(key = %job.key, "deleted");
            events.deleted(&job.key);
        }
    }
}

/// The name was taken again while it was deleted. From now on another host may have it, and would have been first.
fn name_is_new(shared: &Shared, queue: &mut Queue, key: &Key) {
    let Some(entry) = queue.get_mut(key).filter(|entry| entry.new_once_deleted) else { return };
    entry.new_once_deleted = false;
    let desired = Desired { condition: Condition::IfAbsent, ..entry.desired.clone() };
    match shared.journal.apply(&[Change::SetDesired(key.clone(), desired.clone())]) {
        Ok(()) => entry.desired = desired,
        Err(error) => tracing::error!(%key, %error, "can't journal a condition"),
    }
}

/// The source of a copy is nowhere any more: there is nothing to want.
pub fn gone(shared: &Shared, job: &Job) {
    let ours = matches!(job.desired.content, Content::Restored(_));
    match ours {
        true => tracing::error!(key = %job.key, "the version before the machine went down was replaced or removed too: the change is lost"),
        false => tracing::warn!(key = %job.key, "the object that this one was to be made from was removed by another writer: given up"),
    }
    if clear(shared, std::slice::from_ref(job), |_| Err(Error::Stale)) {
        shared.queue.lock().conflicts += u64::from(!ours);
        if let Some(events) = shared.events.get() {
            events.deleted(&job.key);
        }
    }
}

/// Clears those entries that are still what they were; True if one was.
fn clear(shared: &Shared, jobs: &[Job], tell: impl Fn(&Key) -> Result<()>) -> bool {
    let now = Instant::now();
    let mut queue = shared.queue.lock();
    for job in jobs {
        answered(&mut queue, &job.key, now);
    }
    let current: Vec<&Job> = jobs.iter().filter(|job| is_current(&queue, job)).collect();
    let changes: Vec<Change> = current.iter().map(|job| Change::ClearDesired(job.key.clone())).collect();
    let mut waiters = Vec::new();
    if !changes.is_empty() {
        match shared.journal.apply(&changes) {
            Ok(()) => {
                for job in &current {
                    if job.desired.content != Content::Absent {
                        queue.notes.arrive(&job.key);
                    }
                    let left = queue.remove(&job.key, now).map(|entry| entry.waiters).unwrap_or_default();
                    waiters.extend(left.into_iter().map(|waiter| (job.key.clone(), waiter)));
                }
            }
            Err(error) => current.iter().for_each(|job| retry_later(&mut queue, job, backoff::copy(&error), now)),
        }
    }
    drop(queue);
    waiters.into_iter().for_each(|(key, waiter)| waiter.done(tell(&key)));
    !current.is_empty()
}

pub fn is_current(queue: &Queue, job: &Job) -> bool {
    queue.get(&job.key).is_some_and(|entry| entry.generation == job.generation)
}

/// The condition did not hold, and it was not a conflict: the same again under another one.
pub fn again(shared: &Shared, job: &Job, condition: Condition) {
    let now = Instant::now();
    let mut queue = shared.queue.lock();
    answered(&mut queue, &job.key, now);
    let Some(entry) = queue.get_mut(&job.key).filter(|entry| entry.generation == job.generation) else { return };
    entry.attempts += 1;
    // Two hosts that keep replacing each other's version must not keep a core busy.
    entry.not_before = (entry.attempts > 2).then(|| now + backoff::delay(entry.attempts));
    let desired = Desired { condition, ..entry.desired.clone() };
    if let Err(error) = shared.journal.apply(&[Change::SetDesired(job.key.clone(), desired.clone())]) {
        tracing::error!(key = %job.key, %error, "can't journal a condition");
    }
    replace_desired(&mut queue, &job.key, desired, now);
}

/// The store put together something else than what was sent: it has to be replaced, on the condition that it is still that.
pub fn wrong(shared: &Shared, job: &Job, etag: ETag, error: Error) {
    shared.queue.lock().remember_own(&job.key, etag);
    failed(shared, job, error);
}

fn retry_later(queue: &mut Queue, job: &Job, error: Error, now: Instant) {
    tracing::error!(key = %job.key, %error, "stored, but the journal can't be written; trying again");
    if let Some(entry) = queue.get_mut(&job.key) {
        entry.attempts += 1;
        let at = now + backoff::delay(entry.attempts);
        entry.not_before = Some(at);
        queue.schedule_at(&job.key, at);
    }
}

pub fn panicked(shared: &Shared, job: &Job) {
    let now = Instant::now();
    let mut queue = shared.queue.lock();
    if let Some(entry) = queue.get_mut(&job.key) {
        tracing::error!(key = %job.key, "a bug stopped the upload; trying again");
        entry.attempts += 1;
        entry.unsure = true;
        let at = now + backoff::delay(entry.attempts);
        entry.not_before = Some(at);
        queue.schedule_at(&job.key, at);
    }
}

pub fn failed(shared: &Shared, job: &Job, error: Error) {
    let now = Instant::now();
    let mut queue = shared.queue.lock();
    let mut attempts = 1;
    if let Some(entry) = queue.get_mut(&job.key).filter(|entry| entry.generation == job.generation) {
        entry.attempts += 1;
        attempts = entry.attempts;
        entry.unsure |= backoff::may_have_worked(&error);
    }
    let wait = backoff::delay(attempts).max(asked_wait(&error));
    note_failure(&mut queue, job, &error, now);
    if !is_current(&queue, job) {
        return;
    }
    let retry_at = match backoff::next(&error, attempts) {
        Next::Retry => {
            tracing::warn!(key = %job.key, %error, attempts, wait_ms = wait.as_millis() as u64, "not in the bucket yet; trying again");
            if let Some(entry) = queue.get_mut(&job.key) {
                entry.not_before = Some(now + wait);
            }
            queue.schedule_at(&job.key, now + wait);
            return;
        }
        Next::FailSlowly(after) => Some(now + after),
        Next::Fail => None,
    };
    let waiters = fail_for_good(&mut queue, &job.key, &error, retry_at, now);
    drop(queue);
    let next = match retry_at {
        Some(at) => format!("in {} s, when it changes, or when somebody syncs it", at.saturating_duration_since(now).as_secs()),
        None => "when it changes, or when somebody syncs it".to_owned(),
    };
    tracing::error!(key = %job.key, %error, next, "can't be uploaded: kept here, and tried again later");
    waiters.into_iter().for_each(|waiter| waiter.done(Err(backoff::copy(&error))));
}

/// Marks the entry failed; returns those to tell.
pub fn fail_for_good(queue: &mut Queue, key: &Key, error: &Error, retry_at: Option<Instant>, now: Instant) -> Vec<Waiter> {
    let Some(entry) = queue.get_mut(key) else { return Vec::new() };
    let waiters = std::mem::take(&mut entry.waiters);
    let since = entry.failed.as_ref().map_or_else(clock::now, |failed| failed.since);
    let told = waiters.iter().any(|waiter| !waiter.tell.is_closed());
    entry.failed = Some(Box::new(Failure { error: backoff::copy(error), since, retry_at, told }));
    entry.urgent = false;
    entry.not_before = retry_at;
    match retry_at {
        Some(at) => queue.schedule_at(key, at),
        None => queue.take(key),
    }
    // Who is parked on it looks again, and finds that it goes no further.
    queue.unpark_line(key, now);
    waiters
}

fn note_failure(queue: &mut Queue, job: &Job, error: &Error, now: Instant) {
    if backoff::is_outage(error) {
        queue.outage.failure(&job.key, error.to_string(), clock::now(), now, backoff::delay);
    } else if matches!(error, Error::Store(_)) && !error.is_store(ErrorKind::Truncated) {
        answered(queue, &job.key, now);
    }
    if error.is_store(ErrorKind::Throttled) {
        queue.pace.throttled(&job.key, now);
    }
}

fn asked_wait(error: &Error) -> std::time::Duration {
    match error {
        Error::Store(error) => error.retry_after.unwrap_or_default().min(std::time::Duration::from_secs(60)),
        _ => std::time::Duration::ZERO,
    }
}
