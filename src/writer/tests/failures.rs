//! Errors that pass, errors that stay, stores that want to be spared.

use super::*;
use crate::store::ErrorKind;
use crate::store::fault::{Fault, Rule, When};

fn put_fails(world: &World, when: When, kind: ErrorKind) {
    world.faults.add(Rule::on(Operation::PutObject).when(when).fault(Fault::Error(kind)));
}

#[tokio::test(start_paused = true)]
async fn transient_failures_are_retried_until_they_pass() {
    for kind in [ErrorKind::Unavailable, ErrorKind::Throttled, ErrorKind::Timeout, ErrorKind::Corrupt, ErrorKind::Truncated] {
        let world = World::new();
        put_fails(&world, When::First(30), kind);
        world.save("a", b"x");
        world.writer.sync(&"a".into()).await.unwrap();
        assert_eq!(world.object("a").unwrap(), b"x", "{kind:?}");
        assert_eq!(world.counts.of(Operation::PutObject), 31);
        assert!(world.writer.backlog().failed.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_shown_probed_slowly_and_left_at_once() {
    let world = World::new();
    let outage = Rule::any().fault(Fault::Error(ErrorKind::Unreachable));
    world.faults.add(outage);
    for index in 0..200 {
        world.save(&format!("{index}"), b"x");
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    let asked = world.counts.of(Operation::PutObject);
    assert!((60..200).contains(&asked), "{asked} requests in ten minutes");
    let (_, why) = world.writer.backlog().degraded.unwrap();
    assert!(why.contains("PutObject"), "{why}");
    world.faults.clear();
    let begun = Instant::now();
    world.settled().await;
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    assert_eq!(world.keys().len(), 200);
    assert!(world.writer.backlog().degraded.is_none());
}

#[tokio::test(start_paused = true)]
async fn one_unlucky_key_does_not_hold_up_the_others() {
    let world = World::new();
    world.faults.add(Rule::on(Operation::PutObject).key("bad").fault(Fault::Error(ErrorKind::Unavailable)));
    world.save("bad", b"x");
    tokio::time::sleep(Duration::from_secs(60)).await;
    for index in 0..50 {
        world.save(&format!("good{index}"), b"x");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(world.keys().len(), 50);
    let asked = world.counts.of(Operation::PutObject) - 50;
    assert!(asked < 40, "{asked} requests for the bad one");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_shown_and_told_once_and_nothing_is_lost() {
    let world = World::new();
    put_fails(&world, When::Always, ErrorKind::Denied);
    let file = world.save("a", b"x");
    world.settled().await;
    let backlog = world.writer.backlog();
    assert_eq!((backlog.failed[0].path.as_str(), backlog.dirty_files, backlog.dirty_bytes), ("a", 1, 1));
    assert!(file.is_dirty());
    assert!(world.writer.take_error(&"a".into()).unwrap().is_store(ErrorKind::Denied));
    assert!(world.writer.take_error(&"a".into()).is_none());
    // fsync tries once more, and hears it.
    let asked = world.counts.of(Operation::PutObject);
    assert!(world.writer.sync(&"a".into()).await.unwrap_err().is_store(ErrorKind::Denied));
    assert_eq!(world.counts.of(Operation::PutObject), asked + 1);
    assert!(world.writer.take_error(&"a".into()).is_none(), "the waiter was told");
    assert_eq!(world.writer.drain(Duration::from_secs(3_600)).await, 1, "drain gives up on what has failed");

    world.faults.clear();
    tokio::time::sleep(Duration::from_secs(310)).await;
    assert_eq!(world.object("a").unwrap(), b"x", "rights are looked at now and then");
    assert!(world.writer.backlog().failed.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_failed_entry_goes_when_it_changes() {
    let world = World::new();
    put_fails(&world, When::First(1), ErrorKind::InvalidName);
    let file = world.save("a", b"x");
    world.settled().await;
    assert_eq!(world.writer.backlog().failed.len(), 1);
    world.staged("a", &file, Condition::IfAbsent, false);
    world.settled().await;
    assert_eq!(world.object("a").unwrap(), b"x");
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_failed_entry_stays() {
    let world = World::new();
    let version = world.put_elsewhere("a", b"x").await;
    world.faults.add(Rule::on(Operation::CopyObject).fault(Fault::Error(ErrorKind::Denied)));
    world.apply("b", copy_of(&version), Condition::Any, false);
    world.remove("a", true);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.keys(), ["a"]);
    assert_eq!(world.writer.drain(Duration::from_secs(5)).await, 2);
}

#[tokio::test(start_paused = true)]
async fn r2_takes_one_write_a_second_of_a_key() {
    let world = World::with(|config| config.r2 = true);
    let file = world.save("a", b"0");
    let begun = Instant::now();
    for round in 1..=5u8 {
        world.writer.sync(&"a".into()).await.unwrap();
        world.staged("a", &file, Condition::Any, true);
        file.write_at(0, &[round]).unwrap();
    }
    world.writer.sync(&"a".into()).await.unwrap();
    assert_eq!(world.object("a").unwrap(), [5]);
    assert!(begun.elapsed() >= Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(world.counts.of(Operation::PutObject), 6);
}

#[tokio::test(start_paused = true)]
async fn drain_sends_everything_at_once_or_says_what_is_left() {
    let world = World::with(|config| config.settle = Duration::from_secs(30));
    for index in 0..100 {
        world.save(&format!("{index}"), b"x").add_writer();
    }
    assert_eq!(world.writer.drain(Duration::from_secs(5)).await, 0);
    assert_eq!(world.keys().len(), 100);

    world.faults.add(Rule::any().fault(Fault::Hang));
    world.save("late", b"x");
    let begun = Instant::now();
    assert_eq!(world.writer.drain(Duration::from_secs(5)).await, 1);
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_wait_loses_nothing() {
    let world = World::new();
    world.faults.add(Rule::on(Operation::PutObject).fault(Fault::Latency(Duration::from_secs(2))));
    world.save("a", b"x");
    assert!(timeout(Duration::from_secs(1), world.writer.sync(&"a".into())).await.is_err());
    world.settled().await;
    assert_eq!(world.requests(), [("PutObject", 1)]);
}

#[tokio::test(start_paused = true)]
async fn one_bad_key_in_a_batch_is_deleted_alone_or_fails_alone() {
    let world = World::new();
    for key in ["a", "b\u{1}", "c"] {
        world.put_elsewhere(key, b"x").await;
        world.remove(key, true);
    }
    world.faults.add(Rule::on(Operation::DeleteObjects).fault(Fault::Error(ErrorKind::Other)));
    world.faults.add(Rule::on(Operation::DeleteObject).key("c").fault(Fault::Error(ErrorKind::Denied)));
    world.settled().await;
    assert_eq!(world.keys(), ["c"]);
    assert_eq!(world.writer.backlog().failed.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn bulk_does_not_hold_up_who_waits() {
    let world = World::with(|config| config.parallel_files = 2);
    world.faults.add(Rule::on(Operation::PutObject).key("bulk*").fault(Fault::Latency(Duration::from_secs(10))));
    for index in 0..50 {
        world.save(&format!("bulk{index}"), b"x");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.save("urgent", b"x");
    timeout(Duration::from_secs(1), world.writer.sync(&"urgent".into())).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_bug_is_one_failed_attempt() {
    let world = World::new();
    world.log.panic.store(true, std::sync::atomic::Ordering::Relaxed);
    world.save("a", b"x");
    world.writer.sync(&"a".into()).await.unwrap();
    assert_eq!(world.object("a").unwrap(), b"x");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_threads_save_rename_and_sync_side_by_side() {
    let world = Arc::new(World::with(|config| config.settle = Duration::from_millis(1)));
    let tasks: Vec<_> = (0..8u8)
        .map(|thread| {
            let world = world.clone();
            tokio::spawn(async move {
                for index in 0..25u8 {
                    let (tmp, name) = (format!("{thread}/{index}.tmp"), format!("{thread}/{index}"));
                    let file = world.save(&tmp, &[thread, index]);
                    let moved = desired(Content::Staged(file.id()), Condition::Any, false);
                    {
                        // As the file system does it: what it has heard of can't change before this is applied.
                        let heard = world.log.events.lock();
                        let was_there = heard.iter().any(|event| matches!(event, Event::Stored(key, ..) if key.as_str() == tmp));
                        let absent = desired(Content::Absent, Condition::Any, was_there);
                        let changes = vec![(name.as_str().into(), Some(moved)), (tmp.as_str().into(), Some(absent))];
                        world.writer.apply(changes, &[]).unwrap();
                    }
                    if index % 5 == 0 {
                        world.writer.sync(&name.as_str().into()).await.unwrap();
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(world.writer.drain(Duration::from_secs(60)).await, 0);
    assert_eq!(world.keys().len(), 200);
    assert!((0..8u8).all(|thread| (0..25u8).all(|index| world.object(&format!("{thread}/{index}")) == Some(vec![thread, index]))));
}
