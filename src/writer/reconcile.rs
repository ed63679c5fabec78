//! The loop that starts operations: one task, one timer, woken by changes, landings and time. Asleep it costs nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::Instrument;

use super::{Shared, ahead, flight, orphans};

/// Orphaned uploads are aborted before anything is sent; if the bucket doesn't answer, they don't hold up the rest.
const ORPHANS_FIRST: Duration = Duration::from_secs(5);

/// Dropped, it takes everything under way with it, as a crash would.
pub async fn run(shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    let _ = timeout(ORPHANS_FIRST, orphans::sweep(&shared)).await;
    tasks.spawn(orphans::run(shared.clone()));
    tasks.spawn(ahead::run(shared.clone()));
    loop {
        let picked = shared.pick(Instant::now());
        for step in picked.steps {
            let span = step.span();
            tasks.spawn(flight::fly(shared.clone(), step).instrument(span));
        }
        while tasks.try_join_next().is_some() {}
        tokio::select! {
            biased;
            () = shared.wake.notified() => {}
            () = at(picked.wake_at) => {}
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
