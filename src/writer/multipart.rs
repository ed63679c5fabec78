//! Parallel multipart upload of one file, that survives failures of its parts and changes of the file.
//!
//! A session remembers what each part held (the MD5 of the data, or the version that it was copied from). A pass sends
//! what differs from that; after a pass in which the file did not change the upload is completed. So a file that is
//! written to while it goes up, and an upload that was interrupted, are the same case. Between attempts the session
//! waits in the queue; its id is in the journal before the first part, so that no crash leaves an orphan.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::{StreamExt, stream};

use super::flight::{Effect, Job, Refused, Stored};
use super::grid::{self, PartPlan, PartSource};
use super::upload::{breathe, headers};
use super::{Shared, inline, parts, source};
use crate::cache::{LocalFile, Stamp};
use crate::clock;
use crate::error::{Error, Result};
use crate::store::{Condition, ErrorKind, Part, Receipt, StoreError, UploadId, multipart_count, multipart_etag};
use crate::types::{ETag, FileId, ObjectHeaders, Span, Version};

/// One multipart upload that was begun.
#[derive(Debug)]
pub struct Session {
    pub id: UploadId,
    pub file: FileId,
    headers: ObjectHeaders,
    part_bytes: u64,
    sent: BTreeMap<u32, Sent>,
}

#[derive(Clone, Debug)]
struct Sent {
    part: Part,
    span: Span,
    holds: Holds,
}

/// What a part was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Holds {
    /// Data with this MD5.
    Data([u8; 16]),
    /// The same span of the base with this ETag.
    Base(ETag),
}

/// How a pass over the parts ended.
enum Pass {
    Done,
    /// The file changed, or nobody wants it any more.
    Again,
    /// The base is not in the bucket any more.
    BaseGone,
}

/// Uploads `file`. None: it has shrunk, and one PUT will do.
pub async fn upload(shared: &Arc<Shared>, job: &Job, file: &Arc<LocalFile>) -> Result<Option<Effect>> {
    let mut copies = !job.local_only;
    for round in 0.. {
        if !parts::is_wanted(shared, job) {
            shared.give_up_session(&job.key);
            return Ok(Some(Effect::Unwanted));
        }
        let stamp = file.stamp()?;
        let size = file.size();
        if size <= shared.tuning.single_bytes || size > shared.tuning.max_object_bytes {
            shared.give_up_session(&job.key);
            return Ok(None);
        }
        let base = file.base().filter(|base| copies && base.size > shared.tuning.single_bytes);
        let mut session = session(shared, job, file, size).await?;
        let changed = if base.is_some() { file.changed() } else { Vec::new() };
        let plan = grid::plan(size, session.part_bytes, base.as_ref().map(|base| base.size), &changed);
        let pass = pass(shared, job, file, &mut session, &plan, base.as_ref()).await;
        match pass {
            Ok(Pass::Done) if file.stamp()? == stamp && file.size() == size => {
                return complete(shared, job, file, session, plan.len(), size, stamp).await.map(Some);
            }
            Ok(Pass::Done | Pass::Again) => {}
            Ok(Pass::BaseGone) if is_lost(job, base.as_ref()) => {
                parts::give_up(shared, job, session.id);
                return Ok(Some(Effect::Refused(Refused { ours: None, unsure: false })));
            }
            Ok(Pass::BaseGone) if file.is_complete() => copies = false,
            Ok(Pass::BaseGone) => {
                parts::give_up(shared, job, session.id);
                return Err(Error::Stale);
            }
            Err(error) => {
                keep(shared, job, session, &error);
                return Err(error);
            }
        }
        shared.queue.lock().sessions.insert(job.key.clone(), session);
        breathe(round).await;
    }
    Ok(None)
}

/// The base was this key's, and we may only replace that one: another host was here.
fn is_lost(job: &Job, base: Option<&Version>) -> bool {
    match (&job.desired.condition, base) {
        (Condition::IfMatch(etag), Some(base)) => base.key == job.key && base.etag == *etag,
        _ => false,
    }
}

/// The session that was begun for this file, if it still fits, or a new one.
async fn session(shared: &Arc<Shared>, job: &Job, file: &LocalFile, size: u64) -> Result<Session> {
    let headers = headers(shared, job, file);
    let part_bytes = grid::part_bytes(size, shared.tuning.part_bytes, shared.tuning.max_parts);
    let begun = shared.queue.lock().sessions.remove(&job.key);
    if let Some(session) = begun {
        // Headers that moved on meanwhile (times do, while a file is written) cost a copy at the end, not all parts again.
        let fits = session.headers == headers || !session.sent.is_empty();
        if session.file == file.id() && fits && session.part_bytes == part_bytes {
            return Ok(session);
        }
        parts::give_up(shared, job, session.id);
    }
    let id = parts::begin(shared, job, &headers).await?;
    Ok(Session { id, file: file.id(), headers, part_bytes, sent: BTreeMap::new() })
}

/// Keeps the session for the next attempt, unless the store has lost it or nobody wants it.
fn keep(shared: &Shared, job: &Job, session: Session, error: &Error) {
    let lost = error.is_store(ErrorKind::NoSuchUpload);
    if lost || !parts::is_wanted(shared, job) {
        parts::give_up(shared, job, session.id);
    } else {
        shared.queue.lock().sessions.insert(job.key.clone(), session);
    }
}

/// Sends every part of `plan` that the session doesn't hold yet. After the first failure no other part is begun, and
/// those under way are waited for: a part that arrives after an abort would stay.
async fn pass(
    shared: &Arc<Shared>,
    job: &Job,
    file: &Arc<LocalFile>,
    session: &mut Session,
    plan: &[PartPlan],
    base: Option<&Version>,
) -> Result<Pass> {
    let before = session.sent.clone();
    let stop = AtomicBool::new(false);
    let id = session.id.clone();
    let sender = Sender { shared, job, file, id: &id, base, stop: &stop };
    let sending = stream::iter(plan.to_vec()).map(|part| {
        let held = before.get(&part.number).filter(|sent| sent.span == part.span).cloned();
        sender.send(part, held)
    });
    let mut sending = std::pin::pin!(sending.buffer_unordered(shared.config.parallel_parts.max(1)));
    let mut outcome = Ok(Pass::Done);
    while let Some(sent) = sending.next().await {
        match sent {
            Ok(Some(sent)) => {
                session.sent.insert(sent.part.number, sent);
                continue;
            }
            Ok(None) if matches!(outcome, Ok(Pass::Done)) => outcome = Ok(Pass::Again),
            Err(Error::Stale) if outcome.is_ok() => outcome = Ok(Pass::BaseGone),
            Err(error) if outcome.is_ok() => outcome = Err(error),
            _ => {}
        }
        stop.store(true, Ordering::Relaxed);
    }
    if let (Ok(Pass::Done), Some(base)) = (&outcome, base)
        && !parts::still_there(shared, plan, base).await?
    {
        return Ok(Pass::BaseGone);
    }
    outcome
}

/// What sending one part needs.
#[derive(Clone, Copy)]
struct Sender<'a> {
    shared: &'a Arc<Shared>,
    job: &'a Job,
    file: &'a Arc<LocalFile>,
    id: &'a UploadId,
    base: Option<&'a Version>,
    stop: &'a AtomicBool,
}

impl Sender<'_> {
    /// None: the file changed, or the pass is over.
    async fn send(self, plan: PartPlan, held: Option<Sent>) -> Result<Option<Sent>> {
        let Self { shared, job, id, .. } = self;
        let _slot = shared.parts.acquire().await.map_err(|_| Error::Timeout)?;
        if self.stop.load(Ordering::Relaxed) || !parts::is_wanted(shared, job) {
            return Ok(None);
        }
        let (holds, body) = match (plan.source, self.base) {
            (PartSource::Base, Some(base)) => (Holds::Base(base.etag.clone()), None),
            _ => {
                let room = shared.memory(plan.span.end - plan.span.start).await?;
                let Some(body) = source::body(shared, self.file, plan.span.clone()).await? else { return Ok(None) };
                (Holds::Data(body.md5), Some((body, room)))
            }
        };
        if let Some(held) = held.filter(|held| held.holds == holds) {
            return Ok(Some(held));
        }
        let part = match (body, self.base) {
            (Some((body, _room)), _) => shared.store.upload_part(&job.key, id, plan.number, body).await?,
            (None, Some(base)) => parts::copy_part(shared, job, id, plan.number, base, plan.span.clone()).await?,
            (None, None) => return Ok(None),
        };
        Ok(Some(Sent { part, span: plan.span, holds }))
    }
}

async fn complete(
    shared: &Arc<Shared>,
    job: &Job,
    file: &LocalFile,
    session: Session,
    count: usize,
    size: u64,
    stamp: Stamp,
) -> Result<Effect> {
    let parts: Vec<Part> = session.sent.values().take(count).map(|sent| sent.part.clone()).collect();
    let expected = multipart_etag(&parts);
    let mut stored = Stored {
        content: job.desired.content.clone(),
        version: Version { key: job.key.clone(), etag: ETag::new(""), size },
        headers: Some(session.headers.clone()),
        wanted: Some(headers(shared, job, file)),
        last_modified: clock::now(),
        stamp: Some(stamp),
        upload: Some(session.id.clone()),
    };
    if let Some(etag) = &expected {
        inline::begin_attempt(shared, job, etag)?;
    }
    match shared.store.complete_upload(&job.key, &session.id, &parts, &job.desired.condition).await {
        Ok(receipt) => {
            if let Err(error) = check(shared, job, &receipt, expected.as_ref(), size).await {
                parts::give_up(shared, job, session.id);
                return Ok(Effect::Wrong(receipt.etag().clone(), error));
            }
            stored.version.etag = receipt.etag().clone();
            Ok(Effect::Stored(stored))
        }
        Err(error) if inline::is_refusal(&error, &job.desired.condition) => {
            parts::give_up(shared, job, session.id);
            stored.upload = None;
            let ours = expected.map(|etag| Stored { version: Version { etag, ..stored.version.clone() }, ..stored });
            Ok(Effect::Refused(Refused { ours, unsure: error.outcome_unknown }))
        }
        // Lost, or completed by an attempt whose answer was lost.
        Err(error) if error.is(ErrorKind::NoSuchUpload) => {
            let info = shared.store.head(&job.key).await;
            parts::give_up(shared, job, session.id);
            match info {
                Ok(info) if Some(&info.etag) == expected.as_ref() && info.size == size => {
                    (stored.version.etag, stored.last_modified, stored.upload) = (info.etag, info.last_modified, None);
                    Ok(Effect::Stored(stored))
                }
                _ => Err(error.into()),
            }
        }
        Err(error) => {
            if let Some(expected) = &expected {
                inline::note_attempt(shared, job, &error, expected);
            }
            let error = error.into();
            keep(shared, job, session, &error);
            Err(error)
        }
    }
}

/// Compares what the store made with what was sent: by the ETag where it tells, else by the size.
async fn check(shared: &Shared, job: &Job, receipt: &Receipt, expected: Option<&ETag>, size: u64) -> Result<()> {
    let corrupt = |message: String| Error::from(StoreError::new(ErrorKind::Corrupt, "CompleteMultipartUpload", &job.key, message));
    if let (Some(expected), Some(_)) = (expected, multipart_count(receipt.etag())) {
        if expected != receipt.etag() {
            return Err(corrupt(format!("the store made {} of parts that make {}", receipt.etag().as_str(), expected.as_str())));
        }
        return Ok(());
    }
    let info = shared.store.head(&job.key).await?;
    if info.etag == *receipt.etag() && info.size != size {
        return Err(corrupt(format!("the store holds {} bytes of {size}", info.size)));
    }
    Ok(())
}
