//! Counts of requests: what is coalesced, and when it goes.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_new_file_costs_one_put() {
    let world = World::new();
    let file = world.save("a.jpg", b"picture");
    world.settled().await;
    assert_eq!(world.object("a.jpg").unwrap(), b"picture");
    assert_eq!(world.requests(), [("PutObject", 1)]);
    assert_eq!(world.events(), [Event::Stored("a.jpg".into(), 7, true)]);
    assert!(!file.is_dirty() && world.journalled().is_empty());
    assert_eq!(file.base(), Some(world.version("a.jpg")));
}

#[tokio::test(start_paused = true)]
async fn ten_rewrites_within_the_settling_time_are_one_put() {
    let world = World::new();
    let file = world.save("a", b"0");
    for round in 1..10u8 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.staged("a", &file, Condition::IfAbsent, false);
        file.truncate(0).unwrap();
        file.write_at(0, &[round; 3]).unwrap();
    }
    world.settled().await;
    assert_eq!(world.object("a").unwrap(), [9; 3]);
    assert_eq!(world.requests(), [("PutObject", 1)]);
}

#[tokio::test(start_paused = true)]
async fn changes_without_end_go_up_every_second() {
    let world = World::new();
    let file = world.save("a", b"0");
    for round in 0..50u8 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        world.staged("a", &file, Condition::IfAbsent, false);
        file.write_at(0, &[round]).unwrap();
    }
    world.settled().await;
    assert_eq!(world.object("a").unwrap(), [49]);
    let puts = world.counts.of(Operation::PutObject);
    assert!((3..=5).contains(&puts), "{puts} PUTs in three seconds");
}

#[tokio::test(start_paused = true)]
async fn create_and_unlink_is_nothing() {
    let world = World::new();
    world.save("a", b"x");
    world.remove("a", false);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(world.requests(), []);
    assert!(world.journalled().is_empty() && world.events().is_empty());
}

#[tokio::test(start_paused = true)]
async fn temporary_file_and_rename_is_one_put_under_the_final_name() {
    let world = World::new();
    let file = world.save("a.tmp", b"x");
    let content = Content::Staged(file.id());
    let changes = vec![
        ("a.tmp".into(), Some(desired(Content::Absent, Condition::Any, false))),
        ("a".into(), Some(desired(content, Condition::Any, false))),
    ];
    world.writer.apply(changes, &[]).unwrap();
    world.settled().await;
    assert_eq!(world.requests(), [("PutObject", 1)]);
    assert_eq!(world.keys(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn renamed_while_it_goes_up_it_ends_under_the_new_name_alone() {
    let world = World::new();
    let file = world.save("a.tmp", b"x");
    world.faults.add(slow(Operation::PutObject));
    let waiting = tokio::spawn({
        let writer = world.writer.clone();
        async move { writer.sync(&"a.tmp".into()).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(world.counts.of(Operation::PutObject), 1);
    let changes = vec![
        ("a.tmp".into(), Some(desired(Content::Absent, Condition::Any, false))),
        ("a".into(), Some(desired(Content::Staged(file.id()), Condition::Any, false))),
    ];
    world.writer.apply(changes, &[]).unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(world.object("a").unwrap(), b"x", "whoever waited for the file waits for its new name");
    world.settled().await;
    assert_eq!(world.keys(), ["a"]);
    assert_eq!(world.requests(), [("DeleteObject", 1), ("PutObject", 2)]);
    assert!(!file.is_dirty());
}

fn slow(operation: Operation) -> crate::store::fault::Rule {
    crate::store::fault::Rule::on(operation).fault(crate::store::fault::Fault::Latency(Duration::from_millis(500)))
}

#[tokio::test(start_paused = true)]
async fn a_change_of_headers_folds_into_the_put_or_becomes_one_copy() {
    let world = World::new();
    let file = world.save("a", b"x");
    let with = |content, name| Desired { headers: Some(headers(name).into()), ..desired(content, Condition::IfAbsent, false) };
    world.writer.apply(vec![("a".into(), Some(with(Content::Staged(file.id()), "text/one")))], &[]).unwrap();
    world.settled().await;
    let (_, info) = world.memory.object(&"a".into()).unwrap();
    assert_eq!((world.requests(), info.headers), (vec![("PutObject", 1)], headers("text/one")));
    let version = world.version("a");
    for name in ["text/two", "text/three"] {
        world.writer.apply(vec![("a".into(), Some(with(copy_of(&version), name)))], &[]).unwrap();
    }
    world.settled().await;
    let (_, info) = world.memory.object(&"a".into()).unwrap();
    assert_eq!((world.requests(), info.headers), (vec![("CopyObject", 1), ("PutObject", 1)], headers("text/three")));
}

#[tokio::test(start_paused = true)]
async fn headers_changed_under_way_follow_by_copy() {
    let world = World::new();
    let file = world.save("a", b"x");
    world.faults.add(slow(Operation::PutObject));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let content = Content::Staged(file.id());
    let changed = Desired { headers: Some(headers("text/new").into()), ..desired(content, Condition::IfAbsent, false) };
    world.writer.apply(vec![("a".into(), Some(changed))], &[]).unwrap();
    world.settled().await;
    assert_eq!(world.requests(), [("CopyObject", 1), ("PutObject", 1)]);
    assert_eq!(world.memory.object(&"a".into()).unwrap().1.headers, headers("text/new"));
    assert_eq!(world.object("a").unwrap(), b"x");
}

#[tokio::test(start_paused = true)]
async fn an_open_file_goes_up_when_it_closes_rests_or_is_synced() {
    let world = World::new();
    let file = world.save("a", b"1");
    file.add_writer();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(world.requests(), []);
    file.write_at(1, b"2").unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(world.requests(), []);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.object("a").unwrap(), b"12", "it has rested");

    world.staged("a", &file, if_match(&world.version("a")), true);
    file.write_at(2, b"3").unwrap();
    world.writer.sync(&"a".into()).await.unwrap();
    assert_eq!(world.object("a").unwrap(), b"123", "it was synced");

    world.staged("a", &file, if_match(&world.version("a")), true);
    file.write_at(3, b"4").unwrap();
    let begun = Instant::now();
    file.remove_writer();
    world.writer.closed(&"a".into());
    world.settled().await;
    assert!(begun.elapsed() < Duration::from_millis(200), "it was closed {:?} ago", begun.elapsed());
    assert_eq!(world.object("a").unwrap(), b"1234");
}

#[tokio::test(start_paused = true)]
async fn a_closed_file_is_noticed_though_nobody_says_so() {
    let world = World::new();
    let file = world.save("a", b"1");
    file.add_writer();
    tokio::time::sleep(Duration::from_secs(1)).await;
    file.remove_writer();
    let begun = Instant::now();
    world.settled().await;
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_write_during_the_upload_goes_up_after_it() {
    let world = World::new();
    let file = world.save("a", b"one");
    world.faults.add(slow(Operation::PutObject));
    tokio::time::sleep(Duration::from_millis(200)).await;
    file.write_at(0, b"two").unwrap();
    world.writer.sync(&"a".into()).await.unwrap();
    assert_eq!(world.object("a").unwrap(), b"two", "sync waits for what was written before it");
    assert_eq!(world.events(), [Event::Stored("a".into(), 3, false), Event::Stored("a".into(), 3, true)]);
    assert_eq!(world.requests(), [("PutObject", 2)]);
}

#[tokio::test(start_paused = true)]
async fn deletes_gather_to_batches() {
    let world = World::new();
    for index in 0..2_500 {
        world.put_elsewhere(&format!("d/{index:04}"), b"x").await;
    }
    for index in 0..2_500 {
        world.remove(&format!("d/{index:04}"), true);
        if index % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    world.settled().await;
    assert_eq!(world.requests(), [("DeleteObjects", 3)]);
    assert!(world.keys().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_name_freed_and_taken_again_is_one_put() {
    let world = World::new();
    world.put_elsewhere("a", b"old").await;
    world.remove("a", true);
    world.save("a", b"new");
    world.settled().await;
    assert_eq!(world.requests(), [("PutObject", 1)]);
    assert_eq!(world.object("a").unwrap(), b"new");
}

#[tokio::test(start_paused = true)]
async fn a_name_taken_again_while_it_is_deleted_ends_with_the_new_file() {
    let world = World::new();
    world.put_elsewhere("a", b"old").await;
    world.faults.add(slow(Operation::DeleteObject));
    world.remove("a", true);
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(world.counts.of(Operation::DeleteObject), 1);
    world.save("a", b"new");
    world.faults.add(slow(Operation::PutObject));
    let condition = || world.writer.pending(&"a".into()).map(|desired| desired.condition);
    assert_eq!(condition(), Some(Condition::Any), "after a crash the old one may be there");
    tokio::time::sleep(Duration::from_millis(360)).await;
    assert_eq!(condition(), Some(Condition::IfAbsent), "now it is gone");
    world.settled().await;
    assert_eq!(world.object("a").unwrap(), b"new");
    assert_eq!(world.writer.backlog().conflicts, 0);
}

#[tokio::test(start_paused = true)]
async fn sync_of_what_is_not_waiting_returns_at_once() {
    let world = World::new();
    world.writer.sync(&"nothing".into()).await.unwrap();
    world.writer.sync_below(&Key::root()).await.unwrap();
    assert_eq!(world.writer.drain(Duration::ZERO).await, 0);
}

#[tokio::test(start_paused = true)]
async fn sync_below_sends_a_directory_and_nothing_else() {
    let world = World::new();
    for key in ["d/a", "d/e/b", "f"] {
        world.save(key, b"x");
    }
    world.apply("d/", Content::Inline(Vec::new()), Condition::IfAbsent, false);
    let begun = Instant::now();
    world.writer.sync_below(&"d/".into()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(50));
    assert_eq!(world.keys(), ["d/", "d/a", "d/e/b"]);
    let pending: Vec<Key> = world.writer.pending_below(&Key::root()).into_iter().map(|(key, _)| key).collect();
    assert_eq!(pending, ["f".into()]);
}

#[tokio::test(start_paused = true)]
async fn idle_the_loop_sleeps() {
    let world = World::new();
    world.save("a", b"x");
    world.settled().await;
    let picked = world.writer.shared.pick(Instant::now());
    assert!(picked.wake_at.is_none() && picked.steps.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_saves_is_let_finish_before_its_files_go_up() {
    let world = World::new();
    for number in 0..300 {
        world.save(&format!("{number}"), b"x");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(world.counts.of(Operation::PutObject), 0, "the first is three settling times old");
    world.save("waited-for", b"x");
    world.writer.sync(&"waited-for".into()).await.unwrap();
    assert_eq!(world.keys(), ["waited-for"], "whoever waits is not kept waiting");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.counts.of(Operation::PutObject), 301);
}

#[tokio::test(start_paused = true)]
async fn nothing_waits_longer_than_a_second_for_a_burst_to_end() {
    let world = World::new();
    let mut sent_at_most_late = 0;
    for number in 0..600u64 {
        world.save(&format!("{number:04}"), b"x");
        tokio::time::sleep(Duration::from_millis(5)).await;
        let sent = world.keys().len() as u64;
        // Made one after the other, they go up in that order.
        sent_at_most_late = sent_at_most_late.max((number + 1).saturating_sub(sent) * 5);
    }
    assert!((800..=1_000).contains(&sent_at_most_late), "{sent_at_most_late} ms");
}
