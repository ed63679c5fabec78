//! One operation on the bucket from start to record: what it is, how it is run, and that it lands in every case.
//!
//! A flight owns its key until its outcome is in the journal, in memory and told to the file system, in this order; so
//! what the file system hears of one key comes in the order in which it happened. A panic is one failed attempt.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;
use tracing::{Span, debug_span};

use super::entry::Entry;
use super::{Shared, ahead, backoff, conflict, copy, cycle, delete, directory, finish, inline, mark, source, upload};
use crate::cache::{LocalFile, Stamp};
use crate::error::{Error, Result};
use crate::journal::{Content, Desired};
use crate::store::{Condition, UploadId};
use crate::types::{ETag, Key, ObjectHeaders, Version};

/// One entry as it was when its flight began.
#[derive(Clone)]
pub struct Job {
    pub key: Key,
    /// The flight's.
    pub number: u64,
    pub generation: u64,
    pub desired: Desired,
    pub file: Option<Arc<LocalFile>>,
    pub local_only: bool,
    /// The journal had so many commits when it had the entry.
    pub commits: u64,
    /// An earlier attempt may have taken effect.
    pub unsure: bool,
}

impl Job {
    pub fn new(key: &Key, number: u64, entry: &Entry) -> Self {
        Self {
            key: key.clone(),
            number,
            generation: entry.generation,
            desired: entry.desired.clone(),
            file: entry.file.clone(),
            local_only: entry.local_only,
            commits: entry.commits,
            unsure: entry.unsure,
        }
    }

    /// The bucket copies one of its versions.
    pub fn is_copy(&self) -> bool {
        copy::copied(&self.desired.content).is_some()
    }
}

pub enum Step {
    Run(Job),
    /// Send what is finished of a file that is still being written.
    Ahead(Job),
    /// Take the bytes here, to break a cycle.
    Localise(Job),
    /// Up to 1,000.
    Delete(Vec<Job>),
}

impl Step {
    /// What is logged on the way is told with it at level debug.
    pub fn span(&self) -> Span {
        match self {
            Self::Run(job) => debug_span!("send", key = %job.key, flight = job.number),
            Self::Ahead(job) => debug_span!("send ahead", key = %job.key, flight = job.number),
            Self::Localise(job) => debug_span!("localise", key = %job.key, flight = job.number),
            Self::Delete(jobs) => debug_span!("delete", keys = jobs.len()),
        }
    }
}

/// What an operation did.
#[derive(Debug)]
pub enum Effect {
    Stored(Stored),
    /// The condition did not hold.
    Refused(Refused),
    /// There is nothing to do for this state.
    Nothing,
    /// The source of the copy is nowhere.
    Gone,
    /// Parts went up ahead; the file is still wanted.
    Ahead,
    /// Something else is wanted by now; nothing was changed.
    Unwanted,
    /// The same once more, under this condition.
    Again(Condition),
    /// Another host has the name.
    Lost(conflict::Loss),
    /// The bucket holds something under this ETag that is not what was sent.
    Wrong(ETag, Error),
}

/// What the bucket holds now.
#[derive(Clone, Debug)]
pub struct Stored {
    pub content: Content,
    pub version: Version,
    pub headers: Option<ObjectHeaders>,
    /// The headers that were wanted by the end, where they aren't those: a long upload begins with what is known then.
    pub wanted: Option<ObjectHeaders>,
    pub last_modified: SystemTime,
    /// The state of the staged file that went up.
    pub stamp: Option<Stamp>,
    /// The multipart upload that ended with it.
    pub upload: Option<UploadId>,
}

/// An attempt whose condition did not hold.
#[derive(Debug)]
pub struct Refused {
    /// What the bucket would hold, if the object there is our own; None where our ETag can't be foretold.
    pub ours: Option<Stored>,
    /// The answer may be to a repetition of a request that had worked.
    pub unsure: bool,
}

/// Runs one step. Dropped half-way (the daemon ends), it leaves what a crash leaves: the journal knows.
pub async fn fly(shared: Arc<Shared>, step: Step) {
    let aloft = Aloft::new(&shared, &step);
    match &step {
        Step::Run(job) => match begin(&shared, job).await {
            Ok(()) => land(&shared, job, run(&shared, job).await),
            Err(error) => finish::failed(&shared, job, error),
        },
        Step::Ahead(job) => land(&shared, job, ahead::send(&shared, job).await),
        Step::Localise(job) => cycle::localise(&shared, job).await.unwrap_or_else(|error| finish::failed(&shared, job, error)),
        Step::Delete(jobs) => match settled(&shared, jobs).await {
            Ok(()) => delete::delete(&shared, jobs).await,
            Err(error) => jobs.iter().for_each(|job| finish::failed(&shared, job, backoff::copy(&error))),
        },
    }
    drop(aloft);
}

/// The flush has what was journalled before it.
async fn begin(shared: &Shared, job: &Job) -> Result<()> {
    mark::begin(shared, job).await?;
    settled(shared, std::slice::from_ref(job)).await
}

/// Before something in the bucket is overwritten or deleted, the journal is on the disk: it has why, and that copies were
/// made of what goes. A new name destroys nothing, and costs no fsync. A copy to a name under which we know of nothing goes
/// over nothing that other copies were made of: that why it is made is on the disk will do, and the many copies of one renamed
/// directory wait for one fsync, not each for the records of those before it.
async fn settled(shared: &Shared, jobs: &[Job]) -> Result<()> {
    if jobs.iter().all(|job| job.desired.condition == Condition::IfAbsent && job.desired.content != Content::Absent) {
        return Ok(());
    }
    let adds = |job: &Job| copy::copied(&job.desired.content).is_some_and(|from| from.key != job.key && !job.desired.was_there);
    let wanted = match jobs.iter().all(adds) {
        true => jobs.iter().map(|job| job.commits).max().unwrap_or(u64::MAX),
        false => u64::MAX,
    };
    let journal = shared.journal.clone();
    source::blocking(move || journal.flush_through(wanted.min(journal.commits()))).await
}

async fn run(shared: &Arc<Shared>, job: &Job) -> Result<Effect> {
    let effect = match &job.desired.content {
        Content::Staged(_) => upload::staged(shared, job).await?,
        Content::Inline(bytes) => inline::put(shared, job, bytes).await?,
        Content::CopyOf(version) | Content::Restored(version) => copy::copy(shared, job, version).await?,
        Content::KeptDirectory => directory::keep(shared, job).await?,
        Content::Absent => Effect::Unwanted,
    };
    match effect {
        Effect::Refused(refused) => conflict::resolve(shared, job, refused).await,
        effect => Ok(effect),
    }
}

pub fn land(shared: &Shared, job: &Job, effect: Result<Effect>) {
    match effect {
        Ok(Effect::Stored(stored)) => finish::stored(shared, job, stored),
        Ok(Effect::Nothing) => finish::nothing(shared, job),
        Ok(Effect::Gone) => finish::gone(shared, job),
        Ok(Effect::Ahead) => ahead::landed(shared, job),
        Ok(Effect::Again(condition)) => finish::again(shared, job, condition),
        Ok(Effect::Lost(loss)) => conflict::lost(shared, job, loss),
        Ok(Effect::Wrong(etag, error)) => finish::wrong(shared, job, etag, error),
        Ok(Effect::Unwanted | Effect::Refused(_)) => {}
        Err(error) => finish::failed(shared, job, error),
    }
}

/// Frees the keys of a step when it is over, however it ends.
struct Aloft<'a> {
    shared: &'a Shared,
    jobs: Vec<Job>,
    deletes: bool,
}

impl<'a> Aloft<'a> {
    fn new(shared: &'a Shared, step: &Step) -> Self {
        let (jobs, deletes) = match step {
            Step::Run(job) | Step::Ahead(job) | Step::Localise(job) => (vec![job.clone()], false),
            Step::Delete(jobs) => (jobs.clone(), true),
        };
        Self { shared, jobs, deletes }
    }
}

impl Drop for Aloft<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for job in &self.jobs {
                finish::panicked(self.shared, job);
            }
        }
        let now = Instant::now();
        let mut queue = self.shared.queue.lock();
        for job in &self.jobs {
            queue.land(&job.key, job.number, now);
        }
        match self.deletes {
            true => queue.batches -= 1,
            false => {
                queue.running -= 1;
                queue.copying -= self.jobs.iter().filter(|job| job.is_copy()).count();
            }
        }
        drop(queue);
        self.shared.wake.notify_one();
        self.shared.progress.send_modify(|count| *count += 1);
    }
}
