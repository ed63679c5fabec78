//! The keys that wait, in memory: what is wanted, when to look at it next, who waits for whom.
//!
//! No I/O. One lock guards all of it. Lock order: this one, then a file's state, then the journal; never held across an
//! await, and the file system's callbacks are never called under it. Each waiting key is in exactly one place: in the
//! schedule, parked on the key that it waits for, among the deletes that gather to a batch, in flight, or failed for good.
//! So a pass looks only at keys that may go, however many wait.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::ops::Bound;

use lru::LruCache;
use tokio::time::Instant;

use super::alarm::Alarm;
use super::arrivals::Notes;
use super::burst::Burst;
use super::entry::Entry;
use super::gathering::Gathering;
use super::mark::Mark;
use super::order::Facts;
use super::outage::Outage;
use super::pace::Pace;
use super::session::Session;
use crate::error::Error;
use crate::journal::Content;
use crate::store::UploadId;
use crate::types::{ETag, Key, ObjectInfo};

/// Own versions that are remembered, so that a condition that fails on one of them is not taken for another host's.
const RECENT: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();
/// Of one key; a lost answer is rarely followed by another.
const RECENT_OF_KEY: usize = 4;
/// Errors kept for programs that may never ask for them.
const UNTOLD: usize = 1_024;

/// Where an entry stands in the schedule: among the urgent ones or not, then in the order of time.
#[derive(Clone, Copy, Debug)]
struct Place {
    urgent: bool,
    at: (Instant, u64),
}

/// One operation under way.
#[derive(Debug)]
pub struct Flight {
    /// Counts up; a later one began later.
    pub number: u64,
    pub deletes: bool,
    /// Sends parts of a file that is still being written.
    pub ahead: bool,
    /// The key that it takes bytes from.
    pub source: Option<Key>,
}

pub struct Queue {
    /// Boxed: a part of the places in a tree is always empty, and files wait by the thousand.
    entries: BTreeMap<Key, Box<Entry>>,
    flights: HashMap<Key, Flight>,
    /// Those that somebody waits for, and the others.
    urgent: BTreeMap<(Instant, u64), Key>,
    normal: BTreeMap<(Instant, u64), Key>,
    places: HashMap<Key, Place>,
    /// By the key that they wait for.
    parked: HashMap<Key, BTreeSet<Key>>,
    /// By source: entries and flights that may take bytes from it.
    readers: HashMap<Key, BTreeSet<Key>>,
    reads: HashMap<Key, Key>,
    /// By source: operations under way that take bytes from it.
    reading: HashMap<Key, BTreeSet<Key>>,
    holds: HashMap<Key, usize>,
    counter: u64,
    /// Absences that are due.
    pub gathering: Gathering,
    /// Entries that want an absence.
    absences: usize,
    deleting: usize,
    /// Operations under way: single ones, and batches of deletes.
    pub running: usize,
    /// Those of the single ones that are server-side copies.
    pub copying: usize,
    pub batches: usize,
    /// Uploads begun and not finished, to go on with.
    pub sessions: HashMap<Key, Session>,
    /// Uploads to abort.
    pub aborts: Vec<(Key, UploadId)>,
    /// Errors of entries that were given up.
    untold: HashMap<Key, Error>,
    /// What this process stored under a key lately, or may have stored: attempts whose answer was lost.
    recent: LruCache<Key, VecDeque<Own>>,
    pub pace: Pace,
    pub burst: Burst,
    pub outage: Outage,
    /// Who asks the bucket, and what arrives meanwhile.
    pub notes: Notes,
    /// The landing that the last one waits for who found no room.
    pub turns: u64,
    /// Callers of `drain`: everything is urgent.
    pub draining: usize,
    pub conflicts: u64,
    /// What the loop sleeps until.
    pub alarm: Alarm,
}

/// Something of ours that the bucket holds or held, or may hold.
#[derive(PartialEq)]
struct Own {
    /// Its ETag, or of a copy whose ETag can't be foretold the mark by which it is told.
    sign: Sign,
    built_on: Option<ETag>,
}

#[derive(PartialEq)]
enum Sign {
    ETag(ETag),
    Mark(Mark),
}

impl Own {
    fn is(&self, etag: &ETag) -> bool {
        matches!(&self.sign, Sign::ETag(own) if own == etag)
    }

    /// Without a change of the ETag it is the version that was to be copied.
    fn is_copy(&self, info: &ObjectInfo) -> bool {
        matches!(&self.sign, Sign::Mark(mark) if mark.tells(info)) && self.built_on.as_ref() != Some(&info.etag)
    }
}

impl Queue {
    pub fn new(r2: bool) -> Self {
        Self {
            entries: BTreeMap::new(),
            flights: HashMap::new(),
            urgent: BTreeMap::new(),
            normal: BTreeMap::new(),
            places: HashMap::new(),
            parked: HashMap::new(),
            readers: HashMap::new(),
            reads: HashMap::new(),
            reading: HashMap::new(),
            holds: HashMap::new(),
            counter: 0,
            gathering: Gathering::default(),
            absences: 0,
            deleting: 0,
            running: 0,
            copying: 0,
            batches: 0,
            sessions: HashMap::new(),
            aborts: Vec::new(),
            untold: HashMap::new(),
            recent: LruCache::new(RECENT),
            pace: Pace::new(r2),
            burst: Burst::default(),
            outage: Outage::default(),
            notes: Notes::default(),
            turns: 0,
            draining: 0,
            conflicts: 0,
            alarm: Alarm::default(),
        }
    }

    pub fn count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// The number that the next flight will be at or above.
    pub fn next_flight(&self) -> u64 {
        self.counter + 1
    }

    pub fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key).map(Box::as_ref)
    }

    pub fn get_mut(&mut self, key: &Key) -> Option<&mut Entry> {
        self.entries.get_mut(key).map(Box::as_mut)
    }

    pub fn entries(&self) -> &BTreeMap<Key, Box<Entry>> {
        &self.entries
    }

    pub fn flight(&self, key: &Key) -> Option<&Flight> {
        self.flights.get(key)
    }

    /// `directory` (root, or with a trailing slash) itself, and what is below.
    pub fn below<'a>(&'a self, directory: &'a Key) -> impl Iterator<Item = (&'a Key, &'a Entry)> {
        self.entries
            .range::<Key, _>((Bound::Included(directory), Bound::Unbounded))
            .take_while(|(key, _)| key.as_str().starts_with(directory.as_str()))
            .map(|(key, entry)| (key, entry.as_ref()))
    }

    /// Enters or replaces `key` and has it looked at `at`; wakes what waited for the old one.
    pub fn put(&mut self, key: &Key, entry: Entry, at: Instant) {
        self.absences += usize::from(entry.is_absent());
        let old = self.entries.insert(key.clone(), Box::new(entry));
        self.absences -= usize::from(old.is_some_and(|old| old.is_absent()));
        self.gathering.remove(key);
        self.index(key);
        self.schedule_at(key, at);
        self.unpark(key, at);
    }

    pub fn remove(&mut self, key: &Key, now: Instant) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.absences -= usize::from(entry.is_absent());
        self.unschedule(key);
        self.gathering.remove(key);
        self.index(key);
        self.unpark(key, now);
        Some(*entry)
    }

    /// Looks up anew what `key` takes bytes from; after every change of its content.
    pub fn index(&mut self, key: &Key) {
        let source = self.entries.get(key).and_then(|entry| entry.source(key));
        let old = match &source {
            Some(source) => self.reads.insert(key.clone(), source.clone()),
            None => self.reads.remove(key),
        };
        if let Some(old) = old.filter(|old| Some(old) != source.as_ref()) {
            let empty = self.readers.get_mut(&old).is_some_and(|readers| readers.remove(key) && readers.is_empty());
            if empty {
                self.readers.remove(&old);
            }
        }
        if let Some(source) = source {
            self.readers.entry(source).or_default().insert(key.clone());
        }
    }

    pub fn schedule_at(&mut self, key: &Key, at: Instant) {
        self.unschedule(key);
        let Some(entry) = self.entries.get(key) else { return };
        let place = Place { urgent: entry.urgent || self.draining > 0, at: (at, self.count()) };
        self.places.insert(key.clone(), place);
        self.class(place.urgent).insert(place.at, key.clone());
    }

    fn unschedule(&mut self, key: &Key) {
        if let Some(place) = self.places.remove(key) {
            self.class(place.urgent).remove(&place.at);
        }
    }

    fn class(&mut self, urgent: bool) -> &mut BTreeMap<(Instant, u64), Key> {
        if urgent { &mut self.urgent } else { &mut self.normal }
    }

    /// The first key of this class in the schedule and when it is to be looked at.
    pub fn first(&mut self, urgent: bool) -> Option<(Instant, Key)> {
        self.class(urgent).first_key_value().map(|(at, key)| (at.0, key.clone()))
    }

    /// Whether the loop has to be woken for what changed: it would come too late by itself. Who is told so wakes it.
    pub fn rings(&mut self, now: Instant) -> bool {
        let first = |class: &BTreeMap<(Instant, u64), Key>| class.first_key_value().map(|((at, _), _)| *at);
        // Deletes that gather wait for what else is to come, which any change may decide.
        let rings = self.gathering.len() > 0 || self.alarm.is_late_for(first(&self.urgent), first(&self.normal));
        if rings {
            self.alarm.ring(now);
        }
        rings
    }

    /// Takes `key` out of the schedule until it is put back somewhere.
    pub fn take(&mut self, key: &Key) {
        self.unschedule(key);
    }

    pub fn park(&mut self, key: &Key, on: &Key) {
        self.unschedule(key);
        self.parked.entry(on.clone()).or_default().insert(key.clone());
    }

    /// Something happened to `on`: who waited for it is looked at again.
    pub fn unpark(&mut self, on: &Key, now: Instant) {
        for key in self.parked.remove(on).unwrap_or_default() {
            if self.places.get(&key).is_none_or(|place| place.at.0 > now) {
                self.schedule_at(&key, now);
            }
        }
    }

    /// `on` goes no further for now: so does what waits for it, and who waits for that is looked at again too.
    pub fn unpark_line(&mut self, on: &Key, now: Instant) {
        let mut left = vec![on.clone()];
        while let Some(on) = left.pop() {
            left.extend(self.parked.get(&on).into_iter().flatten().cloned());
            self.unpark(&on, now);
        }
    }

    pub fn begin(&mut self, key: &Key, deletes: bool, ahead: bool) -> u64 {
        let number = self.count();
        let source = if deletes { None } else { self.reads.get(key).cloned() };
        self.unschedule(key);
        if let Some(source) = &source {
            self.reading.entry(source.clone()).or_default().insert(key.clone());
        }
        self.deleting += usize::from(deletes);
        self.flights.insert(key.clone(), Flight { number, deletes, ahead, source });
        number
    }

    /// The operation on `key` is over, its outcome recorded and told.
    pub fn land(&mut self, key: &Key, number: u64, now: Instant) {
        if self.flights.get(key).is_none_or(|flight| flight.number != number) {
            return;
        }
        let Some(Flight { deletes, source, .. }) = self.flights.remove(key) else { return };
        self.deleting -= usize::from(deletes);
        if let Some(source) = source {
            let empty = self.reading.get_mut(&source).is_some_and(|readers| readers.remove(key) && readers.is_empty());
            if empty {
                self.reading.remove(&source);
            }
        }
        self.unpark(key, now);
    }

    pub fn hold(&mut self, key: &Key) {
        *self.holds.entry(key.clone()).or_default() += 1;
    }

    pub fn release(&mut self, key: &Key, now: Instant) {
        if let Some(count) = self.holds.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.holds.remove(key);
                self.unpark(key, now);
            }
        }
    }

    /// `etag` is our own: a condition that fails on it is no conflict.
    pub fn remember_own(&mut self, key: &Key, etag: ETag) {
        self.remember_attempt(key, etag, None);
    }

    /// The same of an attempt whose answer was lost: changes of the version `built_on`, if it was known.
    pub fn remember_attempt(&mut self, key: &Key, etag: ETag, built_on: Option<ETag>) {
        self.remember(key, Own { sign: Sign::ETag(etag), built_on });
    }

    /// A copy of the version `of` onto itself may be made from now on.
    pub fn remember_copy(&mut self, key: &Key, mark: Mark, of: ETag) {
        self.remember(key, Own { sign: Sign::Mark(mark), built_on: Some(of) });
    }

    fn remember(&mut self, key: &Key, new: Own) {
        let own = self.recent.get_or_insert_mut(key.clone(), VecDeque::new);
        own.retain(|known| *known != new);
        if own.len() == RECENT_OF_KEY {
            own.pop_front();
        }
        own.push_back(new);
    }

    /// What became of the copies of `key` is known: whatever looks like one from now on is another host's.
    pub fn forget_copies(&mut self, key: &Key) {
        if let Some(own) = self.recent.get_mut(key) {
            own.retain(|own| matches!(own.sign, Sign::ETag(_)));
        }
    }

    pub fn is_own(&mut self, key: &Key, etag: &ETag) -> bool {
        self.has_own(key, |own| own.is(etag))
    }

    /// Is this object, found under `key`, a copy that we made of an earlier version of itself?
    pub fn is_own_copy(&mut self, key: &Key, info: &ObjectInfo) -> bool {
        self.has_own(key, |own| own.is_copy(info))
    }

    /// The same of the version `base`, so that it holds the same bytes.
    pub fn is_own_copy_of(&mut self, key: &Key, info: &ObjectInfo, base: &ETag) -> bool {
        self.has_own(key, |own| own.built_on.as_ref() == Some(base) && own.is_copy(info))
    }

    /// Was it made by us of the version `base`, with changes or without?
    pub fn is_attempt_on(&mut self, key: &Key, info: &ObjectInfo, base: &ETag) -> bool {
        self.has_own(key, |own| own.built_on.as_ref() == Some(base) && (own.is(&info.etag) || own.is_copy(info)))
    }

    fn has_own(&mut self, key: &Key, is: impl Fn(&Own) -> bool) -> bool {
        self.recent.get(key).is_some_and(|own| own.iter().any(is))
    }

    /// The object is deleted: the same bytes under that name would be another host's.
    pub fn forget_own(&mut self, key: &Key) {
        self.recent.pop(key);
    }

    /// Keeps the error of an entry that is gone for the next fsync or close of that file.
    pub fn keep_error(&mut self, key: &Key, error: Error) {
        if self.untold.len() < UNTOLD {
            self.untold.insert(key.clone(), error);
        }
    }

    pub fn take_error(&mut self, key: &Key) -> Option<Error> {
        self.untold.remove(key)
    }

    /// Absences that are neither gathered nor under way.
    pub fn absences_to_come(&self) -> usize {
        self.absences.saturating_sub(self.gathering.len() + self.deleting)
    }

    /// Flights under way.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Gives up an upload that was begun for `key`, if there is one.
    pub fn give_up_session(&mut self, key: &Key) {
        if let Some(session) = self.sessions.remove(key) {
            if let Some(file) = self.entries.get(key).and_then(|entry| entry.file.as_ref()).filter(|file| file.id() == session.file) {
                file.forfeit();
            }
            self.aborts.push((key.clone(), session.id));
        }
    }
}

impl Facts for Queue {
    fn source(&self, key: &Key) -> Option<Key> {
        self.entries.get(key)?.source(key)
    }

    fn readers(&self, key: &Key) -> Vec<Key> {
        self.readers.get(key).map(|readers| readers.iter().cloned().collect()).unwrap_or_default()
    }

    fn is_absent(&self, key: &Key) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.is_absent())
    }

    fn is_going(&self, key: &Key) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.is_absent() && entry.failed.is_none())
    }

    fn is_kept_directory(&self, key: &Key) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.desired.content == Content::KeptDirectory)
    }

    fn has_failed(&self, key: &Key) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.failed.is_some())
    }

    fn is_in_flight(&self, key: &Key) -> bool {
        self.flights.contains_key(key)
    }

    fn is_read_in_flight(&self, key: &Key) -> Option<Key> {
        self.reading.get(key)?.first().cloned()
    }

    fn is_held(&self, key: &Key) -> bool {
        self.holds.contains_key(key)
    }
}
