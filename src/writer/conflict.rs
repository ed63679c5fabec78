//! What happens when the bucket holds something else under a name than we built on.
//!
//! The decision is pure. Neither side's bytes are ever destroyed, with one exception that the caller is told of: in
//! through mode a new name is reserved by its conditional PUT, and whoever lost it gets `Exists` and makes another name.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::backoff;
use super::entry::Entry;
use super::finish::{fail_for_good, is_current};
use super::flight::{Effect, Job, Refused};
use super::queue::Queue;
use super::session::has_freed;
use super::{OnConflict, Shared, aside};
use crate::clock;
use crate::error::{Error, Result};
use crate::journal::{Change, Content, Desired};
use crate::store::{Condition, ErrorKind, StoreError};
use crate::types::{ETag, Key};

/// The longest name that Linux and S3's key rules leave room for.
const NAME_BYTES: usize = 255;

/// What becomes of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Through mode, a new name: the caller is told and makes another.
    GiveUp,
    KeepBoth,
    Hold,
}

/// What is known when a condition did not hold.
struct Facts<'a> {
    condition: &'a Condition,
    /// The object under the key, now.
    present: Option<(&'a ETag, u64)>,
    /// What ours would be.
    ours: Option<(&'a ETag, u64)>,
    /// This process stored it, or may have.
    own: bool,
    /// An attempt of ours may have worked.
    unsure: bool,
    marker: bool,
    through: bool,
    policy: OnConflict,
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// It is what we wanted to store.
    Ours,
    Again(Condition),
    /// The refusal makes no sense (any more).
    Later,
    Lost(Loss),
}

fn decide(facts: &Facts) -> Decision {
    // Removed elsewhere, changed here: ours stays.
    let Some((etag, size)) = facts.present else { return Decision::Again(Condition::IfAbsent) };
    // Same bytes: no conflict, unless the name itself is what is at stake.
    if facts.ours == Some((etag, size)) && (facts.unsure || !facts.through) {
        return Decision::Ours;
    }
    if facts.own {
        return Decision::Again(Condition::IfMatch(etag.clone()));
    }
    // Two hosts made the same directory.
    if facts.marker {
        return Decision::Ours;
    }
    match facts.condition {
        Condition::Any => Decision::Later,
        Condition::IfMatch(wanted) if wanted == etag => Decision::Later,
        Condition::IfAbsent if facts.through => Decision::Lost(Loss::GiveUp),
        _ => match facts.policy {
            OnConflict::KeepBoth => Decision::Lost(Loss::KeepBoth),
            OnConflict::Overwrite => Decision::Again(Condition::Any),
            OnConflict::Hold => Decision::Lost(Loss::Hold),
        },
    }
}

/// Looks at what is there and decides.
pub async fn resolve(shared: &Arc<Shared>, job: &Job, refused: Refused) -> Result<Effect> {
    let info = match shared.store.head(&job.key).await {
        Ok(info) => Some(info),
        Err(error) if error.is(ErrorKind::NotFound) => None,
        Err(error) => return Err(error.into()),
    };
    let own = info.as_ref().is_some_and(|info| {
        let mut queue = shared.queue.lock();
        queue.is_own(&job.key, &info.etag) || queue.is_own_copy(&job.key, info)
    });
    let decision = decide(&Facts {
        condition: &job.desired.condition,
        present: info.as_ref().map(|info| (&info.etag, info.size)),
        ours: refused.ours.as_ref().map(|ours| (&ours.version.etag, ours.version.size)),
        own,
        unsure: refused.unsure || job.unsure,
        marker: job.key.is_marker(),
        through: shared.config.through,
        policy: shared.config.on_conflict,
    });
    tracing::debug!(key = %job.key, condition = ?job.desired.condition, ?decision, "a condition did not hold");
    Ok(match (decision, info) {
        (Decision::Ours, Some(info)) => match refused.ours {
            Some(mut ours) => {
                (ours.version.etag, ours.version.size) = (info.etag, info.size);
                // An attempt before a crash may have stored the same bytes under headers that have changed since.
                ours.wanted = ours.wanted.or(ours.headers);
                (ours.last_modified, ours.headers) = (info.last_modified, Some(info.headers));
                Effect::Stored(ours)
            }
            None => Effect::Nothing,
        },
        (Decision::Again(condition), _) => Effect::Again(condition),
        (Decision::Lost(Loss::KeepBoth), Some(theirs)) if job.file.as_ref().is_some_and(|file| has_freed(file)) => {
            return aside::keep_theirs(shared, job, &theirs).await;
        }
        (Decision::Lost(loss), _) => Effect::Lost(loss),
        (Decision::Ours | Decision::Later, _) => {
            let message = "a condition was refused that holds";
            return Err(StoreError::new(ErrorKind::Unavailable, "PutObject", &job.key, message).into());
        }
    })
}

/// Records a lost name.
pub fn lost(shared: &Shared, job: &Job, loss: Loss) {
    let error = if job.desired.condition == Condition::IfAbsent { Error::Exists } else { Error::Stale };
    let now = Instant::now();
    let mut queue = shared.queue.lock();
    if !is_current(&queue, job) {
        return;
    }
    let done = match loss {
        Loss::GiveUp => give_up(shared, &mut queue, job, now),
        Loss::KeepBoth => keep_both(shared, &mut queue, job, now),
        Loss::Hold => hold(&mut queue, job, &error, now),
    };
    let Lost { waiters, event } = match done {
        Ok(lost) => lost,
        Err(failed) => {
            drop(queue);
            return super::finish::failed(shared, job, failed);
        }
    };
    // What is held keeps the parts that are in the bucket alone.
    if loss != Loss::Hold || !job.file.as_ref().is_some_and(|file| has_freed(file)) {
        queue.give_up_session(&job.key);
    }
    let told = waiters.iter().any(|waiter| !waiter.tell.is_closed());
    if shared.config.through && loss != Loss::Hold && !told {
        queue.keep_error(&job.key, backoff::copy(&error));
    }
    drop(queue);
    shared.aborts.notify_one();
    tell(shared, job, event);
    waiters.into_iter().for_each(|waiter| waiter.done(Err(backoff::copy(&error))));
}

/// For those who listen: nothing, or where ours is wanted now.
struct Lost {
    waiters: Vec<super::entry::Waiter>,
    event: Option<Option<Key>>,
}

fn tell(shared: &Shared, job: &Job, event: Option<Option<Key>>) {
    match &event {
        Some(Some(kept)) => tracing::warn!(key = %job.key, kept_as = %kept, "another host changed it; ours is kept beside it"),
        Some(None) => tracing::info!(key = %job.key, "another host made this name first"),
        None => tracing::warn!(key = %job.key, "another host changed it; ours is held here"),
    }
    if let (Some(kept), Some(events)) = (&event, shared.events.get()) {
        events.conflict(&job.key, kept.as_ref());
    }
    if let (Some(None), Some(file)) = (&event, &job.file) {
        shared.cache.discard(file.id());
    }
}

fn give_up(shared: &Shared, queue: &mut Queue, job: &Job, now: Instant) -> Result<Lost> {
    shared.journal.apply(&[Change::ClearDesired(job.key.clone())])?;
    queue.conflicts += 1;
    let waiters = queue.remove(&job.key, now).map(|entry| entry.waiters).unwrap_or_default();
    Ok(Lost { waiters, event: Some(None) })
}

fn keep_both(shared: &Shared, queue: &mut Queue, job: &Job, now: Instant) -> Result<Lost> {
    let time = clock::now();
    let kept = (1..)
        .map(|attempt| conflict_key(&job.key, &shared.config.host, time, attempt))
        .find(|key| queue.get(key).is_none() && queue.flight(key).is_none())
        .ok_or(Error::Exists)?;
    let desired = Desired { condition: Condition::IfAbsent, was_there: false, ..job.desired.clone() };
    let changes = [Change::ClearDesired(job.key.clone()), Change::SetDesired(kept.clone(), desired.clone())];
    shared.journal.apply(&changes)?;
    queue.conflicts += 1;
    let waiters = queue.remove(&job.key, now).map(|entry| entry.waiters).unwrap_or_default();
    let generation = queue.count();
    let file = matches!(desired.content, Content::Staged(_)).then(|| job.file.clone()).flatten();
    queue.put(&kept, Entry { settled: true, ..Entry::new(desired, file, generation, now) }, now);
    Ok(Lost { waiters, event: Some(Some(kept)) })
}

fn hold(queue: &mut Queue, job: &Job, error: &Error, now: Instant) -> Result<Lost> {
    if queue.get(&job.key).is_some_and(|entry| entry.failed.is_none()) {
        queue.conflicts += 1;
    }
    Ok(Lost { waiters: fail_for_good(queue, &job.key, error, None, now), event: None })
}

/// `NAME.conflict-HOST-YYYYMMDDTHHMMSS.EXT` beside `key` (UTC); later attempts add a number. Never over 255 bytes.
pub fn conflict_key(key: &Key, host: &str, time: SystemTime, attempt: u32) -> Key {
    let Some((directory, name)) = key.split() else { return key.clone() };
    let (stem, extension) = match name.rfind('.') {
        Some(dot) if dot > 0 => name.split_at(dot),
        _ => (name, ""),
    };
    let stamp: String = humantime::format_rfc3339_seconds(time).to_string().chars().filter(|c| !matches!(c, '-' | ':' | 'Z')).collect();
    let host: String = host.chars().take(63).map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).collect();
    let number = if attempt > 1 { format!("-{attempt}") } else { String::new() };
    let tail = format!(".conflict-{host}-{stamp}{number}{}", shortened(extension, NAME_BYTES / 4));
    let slash = if key.is_marker() { "/" } else { "" };
    directory.child(&format!("{}{tail}{slash}", shortened(stem, NAME_BYTES - tail.len())))
}

/// The longest beginning of `text` within `bytes`.
fn shortened(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn conflicts_are_decided_by_what_is_there() {
        use Decision::*;
        let (old, new, ours) = (ETag::new("old"), ETag::new("new"), ETag::new("ours"));
        let if_match = || Condition::IfMatch(old.clone());
        let present = |etag| Some((etag, 5));
        let base = Facts {
            condition: &Condition::IfAbsent,
            present: present(&new),
            ours: Some((&ours, 5)),
            own: false,
            unsure: false,
            marker: false,
            through: false,
            policy: OnConflict::KeepBoth,
        };
        let changed = if_match();
        for (facts, expected) in [
            (Facts { ..base }, Lost(Loss::KeepBoth)),
            (Facts { policy: OnConflict::Hold, ..base }, Lost(Loss::Hold)),
            (Facts { policy: OnConflict::Overwrite, ..base }, Again(Condition::Any)),
            (Facts { through: true, ..base }, Lost(Loss::GiveUp)),
            (Facts { through: true, condition: &changed, ..base }, Lost(Loss::KeepBoth)),
            (Facts { present: None, ..base }, Again(Condition::IfAbsent)),
            (Facts { present: None, condition: &changed, ..base }, Again(Condition::IfAbsent)),
            (Facts { present: present(&old), condition: &changed, ..base }, Later),
            (Facts { present: present(&ours), ..base }, Ours),
            (Facts { present: present(&ours), through: true, ..base }, Lost(Loss::GiveUp)),
            (Facts { present: present(&ours), through: true, unsure: true, ..base }, Ours),
            (Facts { present: Some((&ours, 6)), ..base }, Lost(Loss::KeepBoth)),
            (Facts { own: true, ..base }, Again(Condition::IfMatch(new.clone()))),
            (Facts { own: true, through: true, ..base }, Again(Condition::IfMatch(new.clone()))),
            (Facts { marker: true, through: true, ..base }, Ours),
        ] {
            assert_eq!(decide(&facts), expected);
        }
    }

    #[test]
    fn conflict_names_keep_extension_and_length() {
        let time = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let name = |key: &str, attempt| conflict_key(&key.into(), "web 1.local", time, attempt).as_str().to_owned();
        assert_eq!(name("a/b.jpg", 1), "a/b.conflict-web-1-local-20231114T221320.jpg");
        assert_eq!(name("b", 2), "b.conflict-web-1-local-20231114T221320-2");
        assert_eq!(name(".profile", 1), ".profile.conflict-web-1-local-20231114T221320");
        assert_eq!(name("d/", 1), "d.conflict-web-1-local-20231114T221320/");
        for long in [format!("x/{}.jpg", "ä".repeat(125)), format!("x/a.{}", "ö".repeat(126))] {
            let (_, shown) = Key::from(long.as_str()).split().map(|(d, n)| (d, n.len())).unwrap();
            assert!(shown > 250);
            let made = Key::new(name(&long, 1));
            assert!(made.split().unwrap().1.len() <= NAME_BYTES, "{made}");
        }
    }
}
