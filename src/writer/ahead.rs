//! Parts of a file that isn't all written yet go up before the rest of it.
//!
//! Two reasons. In through mode `close()` waits for the upload: parts that were finished meanwhile are sent while the
//! file is being written, and compared with what it holds at the end. And where a writer waits for room in the cache,
//! finished parts make it: once the bucket has a part and the journal knows, the file gives it up (it is *freed*).
//!
//! What follows from freeing:
//! - The upload is not complete before the file is closed, synced or at rest: no truncated object under the final name.
//! - Its key is fixed. A file with freed parts is renamed once the upload is complete ([`Writer::hold_whole`]).
//! - Who reads or changes a freed part has the upload completed first, as fsync would; then it is a byte of the base.
//! - The first part is freed last: formats with a header go back to it.
//! - A restart goes on with the upload. Unlinked, the parts are given up with the file.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt, stream};
use tokio::time::Instant;

use super::entry::Entry;
use super::flight::{Effect, Job};
use super::queue::Queue;
use super::session::{self, Holds, Sent, Session};
use super::source::{self, blocking};
use super::{Hold, Shared, Writer, grid, parts};
use crate::cache::LocalFile;
use crate::error::{Error, Result};
use crate::types::{FileId, Key, Span};

/// Sends, and under pressure frees, what is finished of the job's file. Each part is tried once.
pub async fn send(shared: &Arc<Shared>, job: &Job) -> Result<Effect> {
    let Some(file) = job.file.clone() else { return Ok(Effect::Ahead) };
    let _pin = file.pin();
    let part_bytes = part_bytes(shared, &file);
    let mut session = session::session(shared, job, &file, file.size(), part_bytes).await?;
    let mut tried = BTreeSet::new();
    let mut outcome = Ok(());
    while outcome.is_ok() && parts::is_wanted(shared, job) {
        let round = round(&session, &file, shared, &mut tried);
        if round.is_empty() {
            break;
        }
        outcome = send_all(shared, job, &file, &mut session, round).await;
    }
    if near_the_end(shared, &session, &file) {
        file.recall();
    }
    match outcome {
        Ok(()) => {
            session::put_back(shared, job, &file, session);
            Ok(Effect::Ahead)
        }
        Err(error) if session::has_freed(&file) => {
            // Whether the store has really lost it is for the upload to find out.
            session::put_back(shared, job, &file, session);
            Err(error)
        }
        Err(error) => {
            session::keep(shared, job, &file, session, &error);
            Err(error)
        }
    }
}

/// Under pressure, parts that fit the cache many times; else those of any upload.
fn part_bytes(shared: &Shared, file: &LocalFile) -> u64 {
    let capacity = if shared.cache.is_pressed() { shared.cache.capacity() } else { u64::MAX };
    grid::ahead_part_bytes(file.size(), capacity, &shared.tuning)
}

/// The upload runs out of part numbers: what is there becomes a version, and the next upload has larger parts.
fn near_the_end(shared: &Shared, session: &Session, file: &LocalFile) -> bool {
    let most = shared.tuning.max_parts - shared.tuning.max_parts / 10;
    session::has_freed(file) && file.size().div_ceil(session.part_bytes) > most
}

/// Finished parts, the first one only where there is no other.
fn round(session: &Session, file: &LocalFile, shared: &Shared, tried: &mut BTreeSet<u32>) -> Vec<(u32, Span)> {
    let pressed = shared.cache.is_pressed();
    let full_parts = (file.size() / session.part_bytes).min(shared.tuning.max_parts) as u32;
    let is_due = |number: &u32| {
        let wanted = pressed || !session.sent.contains_key(number);
        wanted && !tried.contains(number) && file.is_finished(span_of(*number, session.part_bytes))
    };
    let mut due: Vec<u32> = (2..=full_parts).filter(is_due).collect();
    if due.is_empty() {
        due.extend((1..=full_parts.min(1)).filter(is_due));
    }
    tried.extend(due.iter().copied());
    due.into_iter().map(|number| (number, span_of(number, session.part_bytes))).collect()
}

fn span_of(number: u32, part_bytes: u64) -> Span {
    let start = u64::from(number - 1) * part_bytes;
    start..start + part_bytes
}

async fn send_all(shared: &Arc<Shared>, job: &Job, file: &Arc<LocalFile>, session: &mut Session, round: Vec<(u32, Span)>) -> Result<()> {
    let begun = &*session;
    let sending = stream::iter(round).map(|(number, span)| send_part(shared, job, file, begun, number, span));
    let sent: Vec<Result<Option<Sent>>> = sending.buffer_unordered(shared.config.parallel_parts.max(1)).collect().await;
    let mut outcome = Ok(());
    for sent in sent {
        match sent {
            Ok(Some(sent)) => drop(session.sent.insert(sent.part.number, sent)),
            Ok(None) => {}
            Err(error) => outcome = outcome.and(Err(error)),
        }
    }
    outcome
}

/// None: it changed meanwhile, or nobody wants it.
async fn send_part(
    shared: &Arc<Shared>,
    job: &Job,
    file: &Arc<LocalFile>,
    session: &Session,
    number: u32,
    span: Span,
) -> Result<Option<Sent>> {
    let _slot = shared.parts.acquire().await.map_err(|_| Error::Timeout)?;
    if !parts::is_wanted(shared, job) {
        return Ok(None);
    }
    let watch = file.watch(span.clone());
    let room = shared.memory(span.end - span.start).await?;
    let Some(body) = source::body(shared, file, span.clone()).await? else { return Ok(None) };
    let holds = Holds::Data(body.md5);
    let held = session.sent.get(&number).filter(|held| held.holds == holds && held.span == span).cloned();
    let sent = match held {
        Some(held) => held,
        None => Sent { part: shared.store.upload_part(&job.key, &session.id, number, body).await?, span, holds },
    };
    drop(room);
    if shared.cache.is_pressed() && parts::is_wanted(shared, job) {
        let (file, rows) = (file.clone(), session.rows(&sent));
        blocking(move || file.free(&watch, &rows)).await?;
    }
    shared.progress.send_modify(|count| *count += 1);
    Ok(Some(sent))
}

/// In through mode: a file that is being written has a part that could go up now.
pub fn is_due(queue: &Queue, key: &Key, entry: &Entry, shared: &Shared) -> bool {
    let Some(file) = entry.file.as_ref().filter(|file| shared.config.through && file.writers() > 0) else { return false };
    let size = file.size();
    let session = queue.sessions.get(key).filter(|session| session.file == file.id());
    let part_bytes = session.map_or_else(|| grid::ahead_part_bytes(size, u64::MAX, &shared.tuning), |session| session.part_bytes);
    let is_unsent = |number: &u32| session.is_none_or(|session| !session.sent.contains_key(number));
    let full_parts = (size / part_bytes).min(shared.tuning.max_parts) as u32;
    size > shared.tuning.single_bytes && (1..=full_parts).filter(is_unsent).any(|number| file.is_finished(span_of(number, part_bytes)))
}

/// Does what those who wait for room, or for freed parts, need: until the daemon ends.
pub async fn run(shared: Arc<Shared>) {
    loop {
        for id in shared.cache.take_recalled() {
            recall(&shared, id);
        }
        if shared.cache.is_pressed() {
            relieve(&shared).await;
        }
        shared.cache.called().await;
    }
}

/// Somebody needs what was freed: the upload is completed now.
fn recall(shared: &Shared, id: FileId) {
    let mut queue = shared.queue.lock();
    let key = queue.entries().iter().find(|(_, entry)| entry.file.as_ref().is_some_and(|file| file.id() == id)).map(|(key, _)| key.clone());
    match key {
        Some(key) => {
            super::sync::hurry(&mut queue, &key, Instant::now());
            drop(queue);
            shared.wake.notify_one();
        }
        None => {
            drop(queue);
            if let Some(file) = shared.cache.get(id) {
                file.forfeit();
            }
        }
    }
}

async fn relieve(shared: &Arc<Shared>) {
    let (cache, from) = (shared.cache.clone(), shared.tuning.single_bytes);
    if let Err(error) = blocking(move || cache.squeeze(from)).await {
        tracing::warn!(%error, "can't make room in files that are open");
    }
    let capacity = shared.cache.capacity();
    let now = Instant::now();
    let mut queue = shared.queue.lock();
    let large: Vec<Key> =
        queue.entries().iter().filter(|(_, entry)| makes_room(entry, capacity, shared)).map(|(key, _)| key.clone()).collect();
    for key in large {
        if let Some(entry) = queue.get_mut(&key) {
            entry.ahead = true;
        }
        if queue.flight(&key).is_none() {
            queue.schedule_at(&key, now);
        }
    }
    drop(queue);
    shared.wake.notify_one();
}

/// A file that is being written, or that takes most of the cache, and has more than one part.
fn makes_room(entry: &Entry, capacity: u64, shared: &Shared) -> bool {
    let Some(file) = entry.file.as_ref().filter(|_| entry.failed.is_none()) else { return false };
    let size = file.size();
    size >= grid::ahead_part_bytes(size, capacity, &shared.tuning) && (file.writers() > 0 || size > capacity / 2)
}

/// Nothing more is finished; the file goes on as any other.
pub fn landed(shared: &Shared, job: &Job) {
    let now = Instant::now();
    let mut queue = shared.queue.lock();
    super::finish::answered(&mut queue, &job.key, now);
    if let Some(entry) = queue.get_mut(&job.key).filter(|entry| entry.generation == job.generation) {
        (entry.attempts, entry.not_before) = (0, None);
    }
    queue.schedule_at(&job.key, now);
}

impl Writer {
    /// Returns when no upload holds parts of `file`, which is wanted under `key`; until the hold is dropped none will. Now it
    /// may get another name: an upload can't.
    pub async fn hold_whole(self: &Arc<Self>, key: &Key, file: &LocalFile) -> Hold {
        let mut progress = self.shared.progress.subscribe();
        loop {
            progress.borrow_and_update();
            let hold = self.hold(key);
            let sending = self.shared.queue.lock().flight(key).is_some_and(|flight| flight.ahead);
            if !sending && (file.is_forfeited() || !session::has_freed(file)) {
                return hold;
            }
            drop(hold);
            file.recall();
            // The writer lives as long as `self` does.
            let _ = progress.changed().await;
        }
    }
}
