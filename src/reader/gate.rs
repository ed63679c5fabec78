//! Bounds the GETs under way, all files together, and lets those that a reader waits for go first.
//!
//! Two semaphores instead of a priority queue: what is fetched ahead may take three quarters of the places, so that a
//! reader always finds one of the rest soon, and never queues behind a window of its own making. Both are fair.

use std::sync::Arc;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

pub struct Gate {
    places: Arc<Semaphore>,
    /// Places open to what nobody waits for yet.
    ahead: Arc<Semaphore>,
}

/// One GET's place; given back when dropped.
pub struct Permit {
    _place: OwnedSemaphorePermit,
    _ahead: Option<OwnedSemaphorePermit>,
}

impl Gate {
    pub fn new(places: usize) -> Self {
        let places = places.max(1);
        let ahead = (places - places.div_ceil(4)).max(1);
        Self { places: Arc::new(Semaphore::new(places)), ahead: Arc::new(Semaphore::new(ahead)) }
    }

    /// Waits for a place. `urged` fires (once is kept) when a reader waits for this GET.
    pub async fn enter(&self, urged: &Notify) -> Option<Permit> {
        let ahead = tokio::select! {
            biased;
            () = urged.notified() => None,
            permit = Arc::clone(&self.ahead).acquire_owned() => Some(permit.ok()?),
        };
        let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
        Some(Permit { _place: place, _ahead: ahead })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn urged() -> Notify {
        let notify = Notify::new();
        notify.notify_one();
        notify
    }

    #[tokio::test]
    async fn fetching_ahead_leaves_a_place_for_who_waits() {
        let gate = Gate::new(4);
        let calm = Notify::new();
        let mut ahead = Vec::new();
        for _ in 0..3 {
            ahead.push(gate.enter(&calm).await);
        }
        assert!(gate.enter(&calm).now_or_never().is_none(), "three of four places are for fetching ahead");
        let waited_for = gate.enter(&urged()).await;
        assert!(gate.enter(&urged()).now_or_never().is_none(), "four places in all");
        drop(waited_for);
        assert!(gate.enter(&urged()).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_queued_get_overtakes_once_somebody_waits_for_it() {
        let gate = Gate::new(2);
        let calm = Notify::new();
        let _ahead = gate.enter(&calm).await;
        let later = Notify::new();
        let mut entering = Box::pin(gate.enter(&later));
        assert!(entering.as_mut().now_or_never().is_none());
        later.notify_one();
        assert!(entering.now_or_never().is_some());
    }

    #[tokio::test]
    async fn one_place_serves_both() {
        let gate = Gate::new(1);
        drop(gate.enter(&Notify::new()).await);
        assert!(gate.enter(&urged()).now_or_never().is_some());
    }
}
