//! More files than may wait.

use super::*;
use crate::store::ErrorKind;
use crate::store::fault::{Fault, Rule};

/// Seconds, rounded, that each of `count` who come one after the other at the same time has to wait.
async fn waits(world: &World, count: usize) -> Vec<u64> {
    let begun = Instant::now();
    let waits = (0..count).map(|_| async move {
        world.writer.room().await;
        begun.elapsed().as_secs()
    });
    futures::future::join_all(waits).await
}

fn full(saved: u8, fault: Fault) -> World {
    let world = World::with(|config| (config.waiting_limit, config.parallel_files) = (5, 1));
    world.faults.add(Rule::on(Operation::PutObject).fault(fault));
    for index in 0..saved {
        world.save(&format!("{index}"), &[index]);
    }
    world
}

#[tokio::test(start_paused = true)]
async fn who_adds_more_goes_at_the_pace_of_the_uploads() {
    let second = || Fault::Latency(Duration::from_secs(1));
    assert_eq!(waits(&full(5, second()), 2).await, [0, 0], "the limit is not passed");
    // One for each that lands, and nobody more once there is room again.
    let world = full(9, second());
    assert_eq!(waits(&world, 6).await, [1, 2, 3, 4, 4, 4]);
    world.settled().await;
    assert_eq!(waits(&world, 2).await, [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_where_nothing_lands() {
    let stuck = full(9, Fault::Hang);
    assert_eq!(waits(&stuck, 2).await, [5, 5]);
    let outage = full(9, Fault::Error(ErrorKind::Unavailable));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(waits(&outage, 2).await, [0, 0]);
}
