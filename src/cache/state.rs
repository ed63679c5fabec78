//! What is known of one data file. No I/O.
//!
//! Invariants, kept by the modules beside this one:
//! - A complete file is as long on the disk as it is to its readers. An incomplete one is no longer than that, and long
//!   enough for what is present.
//! - Absent bytes lie below the end of the base, or are freed: what a local change adds is present from the start.
//! - Freed bytes are absent, changed, and nowhere but in an upload that is not complete: nothing is fetched or written there.
//! - A dirty file's row is in the journal and says no more than the file holds: bytes first, then the row, then the
//!   caller is told. A dirty file that is complete has a row that says so, and its length is the disk's.
//! - What the journal has of sums is true of the bytes at every instant; what memory has may be more.
//! - Clean files' rows are written by `Cache::sync` and may lag behind: that costs a fetch.

use std::fs::File;
use std::sync::Arc;

use tokio::time::Instant;

use crate::journal::Seal;
use crate::types::{Span, Version};

use super::backing::Look;
use super::blocks::Blocks;
use super::changes::Changes;
use super::file::Stamp;
use super::parts::Parts;
use super::spans::SpanSet;
use super::sums::Sums;

pub struct State {
    pub base: Option<Version>,
    pub size: u64,
    pub dirty: bool,
    pub complete: bool,
    pub parts: Parts,
    /// What counts against the budget. Present parts that were never written read as zeros and take no room.
    pub blocks: Blocks,
    /// The open handles were told that what was freed is lost.
    pub forfeited: bool,
    /// Where the last write ended: what is being written now lies there.
    pub hot: u64,
    /// Counts what takes bytes away: a sync that was under way then can't call them durable.
    pub cuts: u64,
    pub changes: Changes,
    pub changed_at: Instant,
    pub pins: usize,
    /// Kept while pinned.
    pub handle: Option<Arc<File>>,
    /// The data file was made.
    pub on_disk: bool,
    /// Its bytes are wanted by nobody: it goes with the last pin.
    pub discarded: bool,
    /// Evicted or deleted.
    pub gone: bool,
    /// The journal may hold a row of it.
    pub in_journal: bool,
    /// It is clean, and what it holds is gone from the bucket: it is there for who has it open, and gets no row any more.
    pub departed: bool,
    /// That row says dirty, or is about to, and nothing that it says has changed since.
    pub row_dirty: bool,
    /// `Cache::sync` knows that it has work here.
    pub stale: bool,
    /// The name was not synced since the file was made.
    pub new_name: bool,
    /// None: as the journal has them.
    pub sums: Option<Box<Sums>>,
    /// As the journal has it.
    pub seal: Option<Seal>,
    /// Bytes under the seal lost their sums without being a hole.
    pub unsure: bool,
    /// Counts changes of bytes that were there before, as opposed to what is added at the end.
    pub overwrites: u64,
    /// Numbers the copies of the sums that are taken to be journalled later.
    pub copies: u64,
    /// The journal knows as much as this copy of the sums, or more.
    pub told: u64,
    /// What all of it was read and found right as.
    pub verified: Option<Box<Stamp>>,
    /// Damage of unsent data was logged and counted.
    pub damage_told: bool,
    /// What was written here, or found right, since the daemon started.
    pub seen: SpanSet,
    /// The data file when the daemon last looked; None: it has changed it since.
    pub looked: Option<Look>,
    /// Who gave its descriptor to the kernel: nothing of it may become a hole.
    pub backed: usize,
    /// Of those, who may write to it past the daemon: no sum of it is kept then.
    pub loose: usize,
    /// Somebody did, and the file system was not told yet.
    pub news: Option<Box<Look>>,
}

impl State {
    /// An empty, complete, clean file; the callers change what differs.
    /// `unit`: of the disk's blocks.
    pub fn empty(unit: u64) -> Self {
        Self {
            base: None,
            size: 0,
            dirty: false,
            complete: true,
            parts: Parts::default(),
            blocks: Blocks::new(unit),
            forfeited: false,
            hot: 0,
            cuts: 0,
            changes: Changes::default(),
            changed_at: Instant::now(),
            pins: 0,
            handle: None,
            on_disk: false,
            discarded: false,
            gone: false,
            in_journal: false,
            departed: false,
            row_dirty: false,
            stale: false,
            new_name: false,
            sums: None,
            seal: None,
            unsure: false,
            overwrites: 0,
            copies: 0,
            told: 0,
            verified: None,
            damage_told: false,
            seen: SpanSet::default(),
            looked: None,
            backed: 0,
            loose: 0,
            news: None,
        }
    }

    /// Bytes that count against the budget.
    pub fn charged(&self) -> u64 {
        self.blocks.bytes()
    }

    /// What of `span` has to come from the base.
    pub fn missing(&self, span: Span) -> Vec<Span> {
        // Nothing of an evicted file is present.
        if self.complete {
            return Vec::new();
        }
        let absent = self.parts.present.missing(span.start..span.end.min(self.size));
        if self.parts.freed.is_empty() {
            return absent;
        }
        let mut set: SpanSet = absent.into_iter().collect();
        self.freed_parts(&span).for_each(|part| set.remove(part));
        set.iter().collect()
    }

    /// The freed parts that `span` touches.
    pub fn freed_parts(&self, span: &Span) -> impl Iterator<Item = Span> + '_ {
        let span = span.clone();
        let first =
            self.parts.freed.range(..=span.start).next_back().filter(|(_, end)| **end > span.start).map_or(span.start, |(start, _)| *start);
        let reach = if span.is_empty() { first..first } else { first..span.end };
        self.parts.freed.range(reach).map(|(&start, &end)| start..end)
    }

    /// No byte of `span`, which ends within the file, is absent.
    pub fn has(&self, span: &Span) -> bool {
        self.complete || self.parts.present.contains(span)
    }

    /// Clean, and to be had again from the bucket.
    pub fn is_evictable(&self) -> bool {
        !self.dirty && self.base.is_some() && !self.discarded && !self.gone
    }

    /// The present map says that no byte is absent any more; `complete` may not say so yet.
    pub fn is_full(&self) -> bool {
        self.complete || self.parts.present.contains(&(0..self.size))
    }

    /// The journal knows all local changes and proves them. Of what is fetched beside them it hears once that is on the disk:
    /// a power cut that took bytes which the row calls present would take the proof of the whole file.
    pub fn keeps_fetched_back(&self) -> bool {
        self.dirty && !self.complete && self.is_sealed() && self.loose == 0
    }

    pub fn become_complete(&mut self) {
        // A row that is on its way with a clean file says otherwise.
        self.row_dirty &= self.dirty;
        self.complete = true;
        self.parts.become_complete();
    }
}
