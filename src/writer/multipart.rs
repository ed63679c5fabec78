//! Parallel multipart upload of one file, that survives failures of its parts and changes of the file.
//!
//! A session remembers what each part held. A pass sends what differs from that; after a pass in which the file did not
//! change the upload is completed. So a file that is written to while it goes up, an upload that was interrupted, and one
//! that was begun while the file was being written (`ahead`) are the same case.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::{StreamExt, stream};

use super::flight::{Effect, Job, Refused, Stored};
use super::grid::{self, PartPlan, PartSource};
use super::session::{self, Holds, Sent, Session};
use super::upload::{breathe, headers};
use super::{Shared, inline, parts, source};
use crate::cache::{LocalFile, Stamp};
use crate::error::{Error, Result};
use crate::journal::Change;
use crate::store::{Condition, ErrorKind, Part, Receipt, StoreError, UploadId, multipart_count, multipart_etag};
use crate::types::{ETag, Version};

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
            file.forfeit();
            return Ok(Some(Effect::Unwanted));
        }
        let stamp = file.stamp()?;
        source::settle_pages(file).await?;
        let size = file.size();
        let sizes = shared.tuning.single_bytes + 1..=shared.tuning.max_object_bytes;
        if !sizes.contains(&size) && !session::has_freed(file) {
            shared.give_up_session(&job.key);
            return Ok(None);
        }
        let base = file.base().filter(|base| copies && base.size > shared.tuning.single_bytes);
        let part_bytes = grid::part_bytes(size, shared.tuning.part_bytes, shared.tuning.max_parts);
        let mut session = session::session(shared, job, file, size, part_bytes).await?;
        let changed = if base.is_some() { file.changed() } else { Vec::new() };
        let plan = grid::plan(size, session.part_bytes, base.as_ref().map(|base| base.size), &changed);
        let pass = pass(shared, job, file, &mut session, &plan, base.as_ref()).await;
        match pass {
            Ok(Pass::Done) if file.stamp()? == stamp && file.size() == size => {
                return complete(shared, job, file, session, plan.len(), size, stamp).await.map(Some);
            }
            Ok(Pass::Done | Pass::Again) => {}
            Ok(Pass::BaseGone) if is_lost(job, base.as_ref()) => {
                session::abandon(shared, job, file, session);
                return Ok(Some(Effect::Refused(Refused { ours: None, unsure: false })));
            }
            Ok(Pass::BaseGone) if file.is_complete() => copies = false,
            Ok(Pass::BaseGone) => {
                session::abandon(shared, job, file, session);
                return Err(Error::Stale);
            }
            Err(error) if error.is_store(ErrorKind::NoSuchUpload) && session::has_freed(file) => {
                return dropped(shared, job, file, session, None, error).await.map(Some);
            }
            Err(error) => {
                session::keep(shared, job, file, session, &error);
                return Err(error);
            }
        }
        session::put_back(shared, job, file, session);
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
        if self.file.is_freed(plan.span.clone()) {
            return held.map(Some).ok_or_else(session::lost);
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
    file: &Arc<LocalFile>,
    mut session: Session,
    count: usize,
    size: u64,
    stamp: Stamp,
) -> Result<Effect> {
    let parts: Vec<Part> = session.sent.values().take(count).map(|sent| sent.part.clone()).collect();
    let expected = multipart_etag(&parts);
    source::keep_fetched(shared, file).await?;
    let mut stored = Stored {
        content: job.desired.content.clone(),
        version: Version { key: job.key.clone(), etag: ETag::new(""), size },
        headers: Some(session.headers.clone()),
        wanted: Some(headers(shared, job, file)),
        last_modified: shared.store.now(),
        stamp: Some(stamp),
        upload: Some(session.id.clone()),
    };
    if let Some(etag) = &expected {
        if session::has_freed(file) {
            // What this Complete makes may be all there is of the file: a crash after it must know its own work.
            shared.journal.apply(&[Change::Attempt(job.key.clone(), etag.clone())])?;
        }
        inline::begin_attempt(shared, job, etag)?;
    }
    match shared.store.complete_upload(&job.key, &session.id, &parts, &job.desired.condition).await {
        Ok(receipt) => {
            if let Err(error) = check(shared, job, &receipt, expected.as_ref(), size).await {
                parts::give_up(shared, job, session.id);
                return Ok(Effect::Wrong(receipt.etag().clone(), error));
            }
            (stored.version.etag, stored.last_modified) = (receipt.etag().clone(), shared.store.now());
            Ok(Effect::Stored(stored))
        }
        Err(error) if inline::is_refusal(&error, &job.desired.condition) => {
            session::abandon(shared, job, file, session);
            stored.upload = None;
            let ours = expected.map(|etag| Stored { version: Version { etag, ..stored.version.clone() }, ..stored });
            Ok(Effect::Refused(Refused { ours, unsure: error.outcome_unknown }))
        }
        // It holds other parts than it confirmed (InvalidPart): one whose answer was lost can arrive behind a newer one of its
        // number. What is still here is sent again, in an upload of its own where that is all of it.
        Err(error) if error.is(ErrorKind::Other) => {
            session.sent.retain(|_, sent| file.is_freed(sent.span.clone()));
            session::abandon(shared, job, file, session);
            Err(error.into())
        }
        Err(error) if error.is(ErrorKind::NoSuchUpload) => {
            let error = error.into();
            dropped(shared, job, file, session, Some((stored, expected)), error).await
        }
        Err(error) => {
            if let Some(expected) = &expected {
                inline::note_attempt(shared, job, &error, expected);
            }
            let error = error.into();
            session::keep(shared, job, file, session, &error);
            Err(error)
        }
    }
}

/// The store doesn't know the upload: lost, or completed by an attempt whose answer was lost. `sent`: what Complete would
/// have stored, and its ETag.
async fn dropped(
    shared: &Arc<Shared>,
    job: &Job,
    file: &Arc<LocalFile>,
    session: Session,
    sent: Option<(Stored, Option<ETag>)>,
    error: Error,
) -> Result<Effect> {
    let info = match shared.store.head(&job.key).await {
        Ok(info) => Some(info),
        Err(missing) if missing.is(ErrorKind::NotFound) => None,
        // Not to be told apart now.
        Err(unknown) if session::has_freed(file) => {
            session::put_back(shared, job, file, session);
            return Err(unknown.into());
        }
        Err(_) => None,
    };
    let (size, freed) = (file.size(), session::has_freed(file));
    let (headers, upload) = (session.headers.clone(), session.id.clone());
    parts::give_up(shared, job, session.id);
    match (info, sent) {
        (Some(info), Some((mut stored, expected))) if Some(&info.etag) == expected.as_ref() && info.size == size => {
            (stored.version.etag, stored.last_modified, stored.upload) = (info.etag, info.last_modified, None);
            Ok(Effect::Stored(stored))
        }
        // An earlier attempt of ours, perhaps before a restart: what was freed is in there, whatever else has changed since.
        (Some(info), _) if freed && shared.queue.lock().is_own(&job.key, &info.etag) => Ok(Effect::Stored(Stored {
            content: job.desired.content.clone(),
            version: Version { key: job.key.clone(), etag: info.etag, size: info.size },
            headers: Some(headers.clone()),
            wanted: Some(super::upload::headers(shared, job, file)),
            last_modified: info.last_modified,
            stamp: Some(Stamp { change: 0, ..file.stamp()? }),
            upload: Some(upload),
        })),
        _ if freed => Err(session::lost()),
        _ => Err(error),
    }
}

/// Compares what the store made with what was sent: by the ETag where it tells, else by the size.
async fn check(shared: &Shared, job: &Job, receipt: &Receipt, expected: Option<&ETag>, size: u64) -> Result<()> {
    let corrupt = |message: String| Error::from(StoreError::new(ErrorKind::Corrupt, "CompleteMultipartUpload", &job.key, message));
    if let (Some(expected), Some(_)) = (expected, multipart_count(receipt.etag())) {
        if expected != receipt.etag() {
            return Err(corrupt(format!("the store made {} of parts that make {}", receipt.etag().text(), expected.text())));
        }
        return Ok(());
    }
    let info = shared.store.head(&job.key).await?;
    if info.etag == *receipt.etag() && info.size != size {
        return Err(corrupt(format!("the store holds {} bytes of {size}", info.size)));
    }
    Ok(())
}
