//! One pass of the reconcile loop over the queue: what may start now, and when to look again.
//!
//! No I/O. A pass looks at keys in the order in which they are due, those that somebody waits for first, and stops where
//! all slots are taken; keys that wait for another are parked on it, so that a pass costs what it starts.

use std::time::Duration;

use tokio::time::Instant;

use super::alarm::{Alarm, Until};
use super::copy::copied;
use super::flight::{Job, Step};
use super::order::{Facts, Order, order};
use super::queue::Queue;
use super::{Shared, WriterConfig, ahead};
use crate::types::Key;

/// Delete requests under way at once; while they are, others gather.
const DELETE_BATCHES: usize = 2;

#[derive(Default)]
pub struct Picked {
    pub steps: Vec<Step>,
    /// When to look again, if nothing happens before.
    pub wake_at: Option<Instant>,
}

/// Copies move nothing through this host, so that many more of them may be under way than uploads: a directory of hundreds
/// of files moves within a few round trips.
const COPIES_FOR_A_FILE: usize = 4;

/// What to do with one key.
enum Verdict {
    Run,
    Ahead,
    Localise,
    /// A delete: it gathers with others.
    Gather,
    Later(Instant),
    Park(Key),
    /// Failed; somebody has to do something.
    Stopped,
}

impl Shared {
    pub fn pick(&self, now: Instant) -> Picked {
        let mut queue = self.queue.lock();
        let mut picked = Picked::default();
        let probe = queue.outage.next_probe();
        let urgent = self.pick_class(&mut queue, true, now, &mut picked);
        let normal = self.pick_class(&mut queue, false, now, &mut picked);
        queue.alarm = Alarm { urgent, normal };
        gathered(&mut queue, &self.config, now, &mut picked);
        // During an outage the next look is at the next probe, or when the one under way lands.
        if let Some(probe) = probe.filter(|probe| *probe > now && !queue.entries().is_empty()) {
            picked.wake_at = Some(probe);
        }
        picked
    }

    fn pick_class(&self, queue: &mut Queue, urgent: bool, now: Instant, picked: &mut Picked) -> Until {
        let hurries = urgent || queue.draining > 0 || queue.outage.next_probe().is_some();
        if let Some(until) = queue.burst.holds_until(&self.config, now).filter(|_| !hurries) {
            picked.wake_at = earlier(picked.wake_at, until);
            return Until::Lull;
        }
        while let Some((at, key)) = queue.first(urgent) {
            if at > now {
                picked.wake_at = earlier(picked.wake_at, at);
                return Until::Due(at);
            }
            if !has_slot(queue, &self.config, &key, urgent, now) {
                return Until::Landing;
            }
            match self.examine(queue, &key, now) {
                Verdict::Run => {
                    let job = begin(queue, &key, false, false);
                    picked.steps.extend(job.map(Step::Run));
                }
                Verdict::Ahead => {
                    let job = begin(queue, &key, false, true);
                    picked.steps.extend(job.map(Step::Ahead));
                }
                Verdict::Localise => {
                    let job = begin(queue, &key, false, false);
                    picked.steps.extend(job.map(Step::Localise));
                }
                Verdict::Gather => {
                    queue.take(&key);
                    let urgent = queue.get(&key).is_some_and(|entry| entry.urgent);
                    queue.gathering.insert(key, urgent, now);
                }
                Verdict::Later(at) => queue.schedule_at(&key, at.max(now + Duration::from_millis(1))),
                Verdict::Park(on) => park(queue, &key, &on, now),
                Verdict::Stopped => queue.take(&key),
            }
        }
        Until::Change
    }
}

fn earlier(a: Option<Instant>, b: Instant) -> Option<Instant> {
    Some(a.map_or(b, |a| a.min(b)))
}

/// How many operations may be under way. What somebody waits for isn't stuck behind bulk; an outage gets one probe.
fn slots(queue: &Queue, config: &WriterConfig, urgent: bool, now: Instant) -> usize {
    let files = config.parallel_files.max(1);
    match queue.outage.next_probe() {
        Some(at) if at > now => 0,
        Some(_) => 1,
        None if urgent => files * 2,
        None => files,
    }
}

/// Whether an operation on `key` may be begun as far as those under way go.
fn has_slot(queue: &Queue, config: &WriterConfig, key: &Key, urgent: bool, now: Instant) -> bool {
    let slots = slots(queue, config, urgent, now);
    if queue.outage.next_probe().is_some() {
        return queue.running < slots;
    }
    match queue.get(key).is_some_and(|entry| copied(&entry.desired.content).is_some()) {
        true => queue.copying < slots * COPIES_FOR_A_FILE,
        false => queue.running - queue.copying < slots,
    }
}

fn begin(queue: &mut Queue, key: &Key, deletes: bool, ahead: bool) -> Option<Job> {
    let number = queue.begin(key, deletes, ahead);
    if let Some(entry) = queue.get_mut(key).filter(|_| ahead) {
        entry.ahead = false;
    }
    let job = queue.get(key).map(|entry| Job::new(key, number, entry));
    if !deletes {
        queue.running += 1;
        queue.copying += usize::from(job.as_ref().is_some_and(Job::is_copy));
    }
    job
}

impl Shared {
    fn examine(&self, queue: &Queue, key: &Key, now: Instant) -> Verdict {
        let Some(entry) = queue.get(key) else { return Verdict::Stopped };
        match entry.failed.as_ref().map(|failed| failed.retry_at) {
            Some(None) => return Verdict::Stopped,
            Some(Some(at)) if at > now => return Verdict::Later(at),
            _ => {}
        }
        if let Some(at) = entry.not_before.into_iter().chain(queue.pace.not_before(key, now)).max().filter(|at| *at > now) {
            return Verdict::Later(at);
        }
        let unhurried = !entry.urgent && queue.draining == 0;
        if unhurried && (entry.ahead || ahead::is_due(queue, key, entry, self)) && order(queue, key) == Order::Go {
            return Verdict::Ahead;
        }
        let due = entry.due(&self.config, now);
        if unhurried && due > now {
            return Verdict::Later(due);
        }
        match order(queue, key) {
            Order::Go if entry.is_absent() => Verdict::Gather,
            Order::Go => Verdict::Run,
            Order::After(other) => Verdict::Park(other),
            Order::Cycle(members) => break_cycle(queue, key, members),
        }
    }
}

/// The cheapest member takes its bytes here: what is staged already, else the smallest; the others wait for it.
fn break_cycle(queue: &Queue, key: &Key, members: Vec<Key>) -> Verdict {
    let cost = |key: &Key| match queue.get(key).map(|entry| (copied(&entry.desired.content), &entry.file)) {
        Some((Some(version), _)) => version.size,
        Some((_, Some(file))) if file.is_complete() => 0,
        Some((_, Some(file))) => file.size(),
        _ => u64::MAX,
    };
    match members.into_iter().min_by_key(|member| (cost(member), member.clone())) {
        Some(cheapest) if cheapest != *key => Verdict::Park(cheapest),
        _ => Verdict::Localise,
    }
}

/// Waits for `on`; if somebody waits for `key`, then for `on` as well.
fn park(queue: &mut Queue, key: &Key, on: &Key, now: Instant) {
    let urgent = queue.get(key).is_some_and(|entry| entry.urgent);
    queue.park(key, on);
    if urgent
        && key != on
        && !queue.is_in_flight(on)
        && let Some(other) = queue.get_mut(on).filter(|other| !other.urgent)
    {
        other.urgent = true;
        queue.schedule_at(on, now);
    }
}

/// Starts the deletes that have gathered, where they are due.
fn gathered(queue: &mut Queue, config: &WriterConfig, now: Instant, picked: &mut Picked) {
    let batches = slots(queue, config, false, now).min(DELETE_BATCHES);
    while queue.batches < batches {
        let (draining, copying) = (queue.draining > 0, queue.running > 0);
        // The end waits for the copies anyhow: until they are made, what they make room for still goes together.
        if draining && !copying {
            queue.gathering.hurry();
        }
        let Some(due) = queue.gathering.due(queue.absences_to_come(), copying && !draining, config.settle_limit, now) else { return };
        if due > now {
            picked.wake_at = earlier(picked.wake_at, due);
            return;
        }
        let keys = queue.gathering.take();
        let jobs: Vec<Job> = keys.iter().filter_map(|key| gathered_job(queue, key, now, picked)).collect();
        if !jobs.is_empty() {
            queue.batches += 1;
            picked.steps.push(Step::Delete(jobs));
        }
    }
}

/// It may have waited for a while: the rules are asked once more.
fn gathered_job(queue: &mut Queue, key: &Key, now: Instant, picked: &mut Picked) -> Option<Job> {
    match order(queue, key) {
        Order::Go if queue.is_absent(key) => begin(queue, key, true, false),
        _ => {
            queue.schedule_at(key, now);
            picked.wake_at = Some(now);
            None
        }
    }
}
