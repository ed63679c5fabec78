//! The GETs under way, by file: what makes two readers of one block share one GET.
//!
//! INVARIANT: under the lock, a byte is present in its file, or in exactly one flight, or absent. A flight's bytes are
//! filled in before it leaves the table, and what is missing is asked while the table is locked; so no byte is ever
//! fetched twice at once, nor forgotten.
//!
//! Lock order: the table, then the file's own lock. Neither is held across an await.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::failure::Failure;
use super::plan::plan;
use super::spans::overlaps;
use crate::cache::LocalFile;
use crate::types::{FileId, Span};

/// One GET that was planned, until its bytes are in or it failed.
pub struct Flight {
    pub span: Span,
    planned: Instant,
    /// Fires when a reader waits for it.
    pub urged: Notify,
    /// Fires for every file's flight when bytes came in or one ended.
    pub progress: Arc<Notify>,
    outcome: OnceLock<Result<(), Failure>>,
}

#[derive(Default)]
struct Lane {
    flights: Vec<Arc<Flight>>,
    progress: Arc<Notify>,
}

#[derive(Default)]
pub struct Flights {
    lanes: Mutex<HashMap<FileId, Lane>>,
}

/// Takes a flight out of the table when its task ends, however it ends.
pub struct Landing {
    flights: Arc<Flights>,
    file: FileId,
    pub flight: Arc<Flight>,
}

/// The flights that carry what one reader wants.
pub struct Awaited {
    flights: Vec<Arc<Flight>>,
    progress: Arc<Notify>,
}

impl Flights {
    /// Plans what of `reach` is neither present nor under way. Returns the new flights, to be started by the caller,
    /// and all that carry bytes of `want`, which are urged when `urgent`.
    pub fn join(self: &Arc<Self>, file: &LocalFile, want: &Span, reach: &Span, urgent: bool) -> (Vec<Landing>, Awaited) {
        let mut lanes = self.lanes.lock();
        let missing = file.missing(reach.clone());
        let under_way: Vec<Span> =
            lanes.get(&file.id()).map(|lane| lane.flights.iter().map(|flight| flight.span.clone()).collect()).unwrap_or_default();
        let gets = plan(want, reach, &missing, &under_way);
        if gets.is_empty() && under_way.is_empty() {
            return (Vec::new(), Awaited { flights: Vec::new(), progress: Arc::default() });
        }
        let lane = lanes.entry(file.id()).or_default();
        let (mut started, planned) = (Vec::new(), Instant::now());
        for get in gets {
            let (urged, progress) = (Notify::new(), Arc::clone(&lane.progress));
            let flight = Arc::new(Flight { span: get.span, planned, urged, progress, outcome: OnceLock::new() });
            lane.flights.push(Arc::clone(&flight));
            started.push(Landing { flights: Arc::clone(self), file: file.id(), flight });
        }
        let flights: Vec<_> = lane.flights.iter().filter(|flight| overlaps(&flight.span, want)).cloned().collect();
        if urgent {
            flights.iter().for_each(|flight| flight.urged.notify_one());
        }
        (started, Awaited { flights, progress: Arc::clone(&lane.progress) })
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.lanes.lock().values().map(|lane| lane.flights.len()).sum()
    }
}

impl Landing {
    pub fn land(self, outcome: Result<(), Failure>) {
        // Set once, here or in drop.
        let _ = self.flight.outcome.set(outcome);
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        // A task that was cancelled or panicked must not leave its readers waiting.
        let _ = self.flight.outcome.set(Err(Failure::Ended));
        let mut lanes = self.flights.lanes.lock();
        if let Some(lane) = lanes.get_mut(&self.file) {
            lane.flights.retain(|flight| !Arc::ptr_eq(flight, &self.flight));
            if lane.flights.is_empty() {
                lanes.remove(&self.file);
            }
        }
        drop(lanes);
        self.flight.progress.notify_waiters();
    }
}

impl Awaited {
    /// Nothing under way carries what is wanted.
    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// Returns when `want` is present, or when no flight carries the rest of it any more (ask again); or with the
    /// failure of a flight that carried some of the rest. That one which was planned before `asked` got no answer in time
    /// says nothing about a request that is sent now.
    pub async fn arrive(&self, file: &LocalFile, want: &Span, asked: Instant) -> Result<(), Failure> {
        loop {
            // Made before looking, so that no progress is missed in between.
            let progress = self.progress.notified();
            let missing = file.missing(want.clone());
            let mut waiting = false;
            for flight in self.flights.iter().filter(|flight| missing.iter().any(|span| overlaps(span, &flight.span))) {
                match flight.outcome.get() {
                    Some(Err(failure)) if flight.planned < asked && failure.is_no_answer() => {}
                    Some(Err(failure)) => return Err(failure.clone()),
                    Some(Ok(())) => {}
                    None => waiting = true,
                }
            }
            if !waiting {
                return Ok(());
            }
            progress.await;
        }
    }
}
