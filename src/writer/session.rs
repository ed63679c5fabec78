//! One multipart upload from its beginning to its end, over failures, changes of the file, and restarts of the daemon.
//!
//! A session remembers what each part held (the MD5 of the data, or the version that it was copied from). Between
//! attempts it waits in the queue; its id is in the journal before the first part, so that no crash leaves an orphan.
//!
//! Some parts may be freed: the data file doesn't hold them any more (see `ahead`). Such a session is never given up as
//! long as its file is wanted, and a restart goes on with it; [`abandon`] knows the difference.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::flight::Job;
use super::grid::Tuning;
use super::queue::Queue;
use super::upload::headers;
use super::{Shared, parts};
use crate::cache::{Cache, LocalFile};
use crate::error::{Error, Result};
use crate::journal::{Change, Content, Desired, FreedPart, Journal, KeptUpload};
use crate::store::{ErrorKind, Part, UploadId};
use crate::types::{ETag, FileId, Key, ObjectHeaders, Span};

/// One multipart upload that was begun.
#[derive(Debug)]
pub struct Session {
    pub id: UploadId,
    pub file: FileId,
    pub headers: ObjectHeaders,
    pub part_bytes: u64,
    pub sent: BTreeMap<u32, Sent>,
}

#[derive(Clone, Debug)]
pub struct Sent {
    pub part: Part,
    pub span: Span,
    pub holds: Holds,
}

/// What a part was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Data with this MD5.
    Data([u8; 16]),
    /// The same span of the base with this ETag.
    Base(ETag),
}

impl Session {
    /// Goes on with it for a file of `size` bytes that would be cut into parts of `part_bytes` today?
    fn fits(&self, file: &LocalFile, size: u64, part_bytes: u64, headers: &ObjectHeaders, tuning: &Tuning) -> bool {
        if self.file != file.id() {
            return false;
        }
        // Headers that moved on meanwhile (times do, while a file is written) cost a copy at the end, not all parts again.
        let begun = !self.sent.is_empty();
        let suits = self.part_bytes == part_bytes || (begun && size.div_ceil(self.part_bytes) <= tuning.max_parts);
        has_freed(file) || (suits && (begun || self.headers == *headers))
    }

    /// What the journal has to know before this part may be freed.
    pub fn rows(&self, sent: &Sent) -> Vec<Change> {
        let Holds::Data(md5) = sent.holds else { return Vec::new() };
        let kept = KeptUpload { file: self.file, part_bytes: self.part_bytes, headers: self.headers.clone() };
        let freed = FreedPart { part: sent.part.clone(), span: sent.span.clone(), md5 };
        vec![Change::KeepUpload(self.id.clone(), kept), Change::FreePart(self.id.clone(), self.file, freed)]
    }
}

/// Parts of the file are in an upload and nowhere else.
pub fn has_freed(file: &LocalFile) -> bool {
    !file.freed().is_empty()
}

/// The session that was begun for this file, if it still fits, or a new one.
pub async fn session(shared: &Arc<Shared>, job: &Job, file: &LocalFile, size: u64, part_bytes: u64) -> Result<Session> {
    let headers = headers(shared, job, file);
    let begun = shared.queue.lock().sessions.remove(&job.key);
    if let Some(session) = begun {
        if session.fits(file, size, part_bytes, &headers, &shared.tuning) {
            return Ok(session);
        }
        parts::give_up(shared, job, session.id);
    }
    if has_freed(file) {
        return Err(lost());
    }
    let id = parts::begin(shared, job, &headers).await?;
    Ok(Session { id, file: file.id(), headers, part_bytes, sent: BTreeMap::new() })
}

pub fn lost() -> Error {
    Error::Corrupt("the bucket dropped the unfinished upload that held a part of this file".into())
}

/// Keeps the session for the next attempt, unless the store has lost it or nobody wants it.
pub fn keep(shared: &Shared, job: &Job, file: &LocalFile, session: Session, error: &Error) {
    if error.is_store(ErrorKind::NoSuchUpload) {
        parts::give_up(shared, job, session.id);
    } else {
        put_back(shared, job, file, session);
    }
}

/// The session waits for the next attempt; if nobody wants its file under this name any more, it is given up.
pub fn put_back(shared: &Shared, job: &Job, file: &LocalFile, session: Session) {
    let mut queue = shared.queue.lock();
    let wanted = queue.get(&job.key).is_some_and(|entry| entry.desired.content == job.desired.content);
    if wanted {
        queue.sessions.insert(job.key.clone(), session);
        return;
    }
    queue.aborts.push((job.key.clone(), session.id));
    drop(queue);
    file.forfeit();
    shared.aborts.notify_one();
}

/// The upload is of no use, unless it holds what the file doesn't.
pub fn abandon(shared: &Shared, job: &Job, file: &LocalFile, session: Session) {
    if has_freed(file) {
        put_back(shared, job, file, session);
    } else {
        parts::give_up(shared, job, session.id);
    }
}

/// After a start: goes on with the uploads that hold freed parts; all others are to be aborted.
pub fn restore(queue: &mut Queue, journal: &Journal, cache: &Cache, desired: &[(Key, Desired)]) -> Result<()> {
    for (id, kept, parts) in journal.kept_uploads()? {
        let Some(at) = queue.aborts.iter().position(|(_, upload)| *upload == id) else { continue };
        let key = queue.aborts[at].0.clone();
        let wanted = desired.iter().any(|(wanted, desired)| *wanted == key && desired.content == Content::Staged(kept.file));
        let Some(file) = cache.get(kept.file).filter(|file| wanted && has_freed(file)) else { continue };
        let freed = file.freed();
        let sent = |freed: FreedPart| (freed.part.number, Sent { part: freed.part, span: freed.span, holds: Holds::Data(freed.md5) });
        let sent = parts.into_iter().filter(|part| freed.contains(&part.span)).map(sent).collect();
        let KeptUpload { file, part_bytes, headers } = kept;
        tracing::info!(%key, "going on with an unfinished upload that holds a part of the file");
        queue.sessions.insert(key, Session { id, file, headers, part_bytes, sent });
        queue.aborts.remove(at);
    }
    Ok(())
}
