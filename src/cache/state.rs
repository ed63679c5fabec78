//! What is known of one data file. No I/O.
//!
//! Invariants, kept by the modules beside this one:
//! - A complete file is as long on the disk as it is to its readers. An incomplete one is no longer than that, and long
//!   enough for what is present.
//! - Absent bytes lie below the end of the base: what a local change adds beyond it is present from the start.
//! - A dirty file's row is in the journal and says no more than the file holds: bytes first, then the row, then the
//!   caller is told. A dirty file that is complete has a row that says so, and its length is the disk's.
//! - What the journal has of sums is true of the bytes at every instant; what memory has may be more.
//! - Clean files' rows are written by `Cache::sync` and may lag behind: that costs a fetch.

use std::fs::File;
use std::sync::Arc;

use tokio::time::Instant;

use crate::journal::Seal;
use crate::types::{Span, Version};

use super::changes::Changes;
use super::file::Stamp;
use super::spans::SpanSet;
use super::sums::Sums;

pub struct State {
    pub base: Option<Version>,
    pub size: u64,
    pub dirty: bool,
    pub complete: bool,
    /// Empty where `complete`.
    pub present: SpanSet,
    /// Present parts that were never written: they read as zeros and take no room.
    pub holes: SpanSet,
    /// Of an incomplete dirty file (else empty), what the journal calls present. Fetched parts are not in it until they are synced or
    /// written over: a local change has to be in it, wherever it lies.
    pub journalled: SpanSet,
    /// Those of them that a power cut can't take.
    pub durable: SpanSet,
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
    /// That row says dirty, or is about to, and nothing that it says has changed since.
    pub row_dirty: bool,
    /// `Cache::sync` knows that it has work here.
    pub stale: bool,
    /// The name was not synced since the file was made.
    pub new_name: bool,
    /// None: as the journal has them.
    pub sums: Option<Sums>,
    /// As the journal has it.
    pub seal: Option<Seal>,
    /// Bytes under the seal lost their sums without being a hole.
    pub unsure: bool,
    /// Counts changes of bytes that were there before, as opposed to what is added at the end.
    pub overwrites: u64,
    /// What all of it was read and found right as.
    pub verified: Option<Stamp>,
    /// Damage of unsent data was logged and counted.
    pub damage_told: bool,
}

impl State {
    /// An empty, complete, clean file; the callers change what differs.
    pub fn empty() -> Self {
        Self {
            base: None,
            size: 0,
            dirty: false,
            complete: true,
            present: SpanSet::default(),
            holes: SpanSet::default(),
            journalled: SpanSet::default(),
            durable: SpanSet::default(),
            cuts: 0,
            changes: Changes::default(),
            changed_at: Instant::now(),
            pins: 0,
            handle: None,
            on_disk: false,
            discarded: false,
            gone: false,
            in_journal: false,
            row_dirty: false,
            stale: false,
            new_name: false,
            sums: None,
            seal: None,
            unsure: false,
            overwrites: 0,
            verified: None,
            damage_told: false,
        }
    }

    /// Bytes that count against the budget.
    pub fn charged(&self) -> u64 {
        if self.gone {
            return 0;
        }
        let present = if self.complete { self.size } else { self.present.bytes() };
        present - self.holes.bytes()
    }

    /// What writing `span` would add to `charged`.
    pub fn uncharged(&self, span: Span) -> u64 {
        let length = span.end - span.start;
        length - self.covered(span.clone()) + self.holes.covered(span)
    }

    fn covered(&self, span: Span) -> u64 {
        if self.complete { self.size.min(span.end).saturating_sub(span.start) } else { self.present.covered(span) }
    }

    pub fn missing(&self, span: Span) -> Vec<Span> {
        // Nothing of an evicted file is present.
        if self.complete { Vec::new() } else { self.present.missing(span.start..span.end.min(self.size)) }
    }

    /// No byte of `span`, which ends within the file, is absent.
    pub fn has(&self, span: &Span) -> bool {
        self.complete || self.present.contains(span)
    }

    /// Clean, and to be had again from the bucket.
    pub fn is_evictable(&self) -> bool {
        !self.dirty && self.base.is_some() && !self.discarded && !self.gone
    }

    /// The present map says that no byte is absent any more; `complete` may not say so yet.
    pub fn is_full(&self) -> bool {
        self.complete || self.present.contains(&(0..self.size))
    }

    pub fn become_complete(&mut self) {
        // A row that is on its way with a clean file says otherwise.
        self.row_dirty &= self.dirty;
        self.complete = true;
        self.present.clear();
        self.journalled.clear();
        self.durable.clear();
    }
}
