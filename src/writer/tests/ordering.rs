//! Renames, exchanges, directories: what waits for what, on the bucket.

use super::*;
use crate::store::ErrorKind;
use crate::store::fault::{Fault, Rule, When};

fn rename(world: &World, from: &str, to: &str, version: &Version) {
    let changes = vec![
        (to.into(), Some(desired(copy_of(version), Condition::Any, false))),
        (from.into(), Some(desired(Content::Absent, Condition::Any, true))),
    ];
    world.writer.apply(changes, &[]).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_renamed_directory_is_copies_then_one_delete() {
    let world = World::new();
    for index in 0..20 {
        let version = world.put_elsewhere(&format!("d/{index}"), &[index]).await;
        rename(&world, &format!("d/{index}"), &format!("e/{index}"), &version);
    }
    world.faults.add(Rule::on(Operation::CopyObject).when(When::Nth(5)).fault(Fault::Error(ErrorKind::Unavailable)));
    world.settled().await;
    assert_eq!(world.counts.of(Operation::CopyObject), 21);
    assert!(world.counts.of(Operation::DeleteObjects) + world.counts.of(Operation::DeleteObject) <= 3);
    assert!(world.keys().iter().all(|key| key.starts_with("e/")) && world.keys().len() == 20);
}

#[tokio::test(start_paused = true)]
async fn a_source_stays_until_its_copy_is_there() {
    let world = World::new();
    let version = world.put_elsewhere("a", b"x").await;
    world.faults.add(Rule::on(Operation::CopyObject).when(When::First(10)).fault(Fault::Error(ErrorKind::Unavailable)));
    rename(&world, "a", "b", &version);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.keys(), ["a"]);
    world.settled().await;
    assert_eq!(world.keys(), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_renames_moves_every_file() {
    let world = World::new();
    let (a, b) = (world.put_elsewhere("a", b"A").await, world.put_elsewhere("b", b"B").await);
    // mv b c; mv a b
    rename(&world, "b", "c", &b);
    rename(&world, "a", "b", &a);
    world.settled().await;
    assert_eq!(world.keys(), ["b", "c"]);
    assert_eq!((world.object("b").unwrap(), world.object("c").unwrap()), (b"A".to_vec(), b"B".to_vec()));
    assert_eq!(world.requests(), [("CopyObject", 2), ("DeleteObject", 1)]);
}

#[tokio::test(start_paused = true)]
async fn overwriting_the_source_waits_and_sync_hurries_what_it_waits_for() {
    let world = World::with(|config| config.settle = Duration::from_secs(30));
    let version = world.put_elsewhere("a", b"old").await;
    let file = world.cache.create().unwrap();
    let changes = vec![
        ("b".into(), Some(desired(copy_of(&version), Condition::Any, false))),
        ("a".into(), Some(desired(Content::Staged(file.id()), Condition::Any, true))),
    ];
    world.writer.apply(changes, &[]).unwrap();
    file.write_at(0, b"new").unwrap();
    timeout(Duration::from_millis(500), world.writer.sync(&"a".into())).await.unwrap().unwrap();
    assert_eq!((world.object("a").unwrap(), world.object("b").unwrap()), (b"new".to_vec(), b"old".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn an_exchange_takes_one_side_through_here() {
    let world = World::new();
    let (a, b) = (world.put_elsewhere("a", b"AAAA").await, world.put_elsewhere("b", b"BB").await);
    let changes = vec![
        ("a".into(), Some(desired(copy_of(&b), Condition::Any, true))),
        ("b".into(), Some(desired(copy_of(&a), Condition::Any, true))),
    ];
    world.writer.apply(changes, &[]).unwrap();
    world.settled().await;
    assert_eq!((world.object("a").unwrap(), world.object("b").unwrap()), (b"BB".to_vec(), b"AAAA".to_vec()));
    assert_eq!(world.counts.bytes_down(), 2, "the smaller one");
    assert_eq!(world.counts.of(Operation::CopyObject), 1);
}

#[tokio::test(start_paused = true)]
async fn a_ring_of_large_files_turns() {
    let world = World::new();
    let names = ["a", "b", "c"];
    let mut versions = Vec::new();
    for (index, name) in names.iter().enumerate() {
        versions.push(world.put_elsewhere(name, &bytes(40 * KIB, index as u8)).await);
    }
    let changes = (0..3).map(|i| (names[i].into(), Some(desired(copy_of(&versions[(i + 1) % 3]), Condition::Any, true)))).collect();
    world.writer.apply(changes, &[]).unwrap();
    world.settled().await;
    for (index, name) in names.iter().enumerate() {
        assert_eq!(world.object(name).unwrap(), bytes(40 * KIB, ((index + 1) % 3) as u8), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_that_was_renamed_keeps_its_base_until_it_is_up() {
    let world = World::new();
    let mut content = bytes(160 * KIB, 1);
    let version = world.put_elsewhere("a", &content).await;
    let file = world.cache.of_version(&version).unwrap();
    let _pin = file.pin();
    world.staged("a", &file, if_match(&version), true);
    file.write_at(5, b"!").unwrap();
    content[5] = b'!';
    let changes = vec![
        ("b".into(), Some(desired(Content::Staged(file.id()), Condition::Any, false))),
        ("a".into(), Some(desired(Content::Absent, Condition::Any, true))),
    ];
    world.writer.apply(changes, &[]).unwrap();
    world.settled().await;
    assert_eq!(world.keys(), ["b"]);
    assert_eq!(world.object("b").unwrap(), content);
    assert_eq!(world.counts.of(Operation::UploadPartCopy), 9);
}

#[tokio::test(start_paused = true)]
async fn headers_and_a_rename_of_the_same_file_agree() {
    let world = World::new();
    let version = world.put_elsewhere("a", &bytes(10, 1)).await;
    world.faults.add(Rule::on(Operation::CopyObject).fault(Fault::Latency(Duration::from_millis(300))));
    let chmod = Desired { headers: Some(headers("text/x").into()), ..desired(copy_of(&version), Condition::Any, true) };
    world.writer.apply(vec![("a".into(), Some(chmod))], &[]).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    rename(&world, "a", "b", &version);
    world.settled().await;
    assert_eq!(world.keys(), ["b"]);
    assert_eq!(world.memory.object(&"b".into()).unwrap().1.headers, headers("text/x"));
}

#[tokio::test(start_paused = true)]
async fn the_last_child_leaves_a_marker() {
    let world = World::new();
    world.put_elsewhere("d/x", b"x").await;
    let changes = vec![
        ("d/x".into(), Some(desired(Content::Absent, Condition::Any, true))),
        ("d/".into(), Some(desired(Content::KeptDirectory, Condition::Any, false))),
    ];
    world.writer.apply(changes, &[]).unwrap();
    world.settled().await;
    assert_eq!(world.keys(), ["d/"]);
    let (_, info) = world.memory.object(&"d/".into()).unwrap();
    assert_eq!(info.headers.content_type.as_deref(), Some(directory::MARKER_TYPE));
    assert_eq!(world.requests(), [("DeleteObject", 1), ("ListObjectsV2", 1), ("PutObject", 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_directory_with_something_left_needs_no_marker() {
    for (other, puts) in [("d/y", 0), ("d/", 0), ("d/e/z", 0), ("e/y", 1)] {
        let world = World::new();
        for key in ["d/x", "d/w", other] {
            world.put_elsewhere(key, b"x").await;
        }
        let absent = || Some(desired(Content::Absent, Condition::Any, true));
        let kept = Some(desired(Content::KeptDirectory, Condition::Any, false));
        world.writer.apply(vec![("d/x".into(), absent()), ("d/w".into(), absent()), ("d/".into(), kept)], &[]).unwrap();
        world.settled().await;
        assert_eq!(world.counts.of(Operation::PutObject), puts, "{other}");
        assert!(world.keys().contains(&other.to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn removing_a_whole_directory_makes_no_marker() {
    let world = World::new();
    world.put_elsewhere("d/x", b"x").await;
    world.remove("d/x", true);
    world.apply("d/", Content::KeptDirectory, Condition::Any, false);
    world.remove("d/", false);
    world.settled().await;
    assert!(world.keys().is_empty());
    assert_eq!(world.requests(), [("DeleteObject", 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_held_key_is_not_touched() {
    let world = World::new();
    world.put_elsewhere("a", b"x").await;
    let (one, two) = (world.writer.hold(&"a".into()), world.writer.hold(&"a".into()));
    world.remove("a", true);
    tokio::time::sleep(Duration::from_secs(5)).await;
    drop(one);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.keys(), ["a"]);
    drop(two);
    world.settled().await;
    assert!(world.keys().is_empty());
}

#[tokio::test(start_paused = true)]
async fn below_a_file_that_goes_waits_what_it_does_not_wait_for_unless_that_fails() {
    for fails in [false, true] {
        let world = World::new();
        let version = world.put_elsewhere("a", b"moved").await;
        let fault = if fails { Fault::Error(ErrorKind::Denied) } else { Fault::Latency(Duration::from_millis(900)) };
        world.faults.add(Rule::on(Operation::CopyObject).fault(fault));
        rename(&world, "a", "a/a", &version);
        let file = world.cache.create().unwrap();
        world.staged("a/x", &file, Condition::Any, false);
        file.write_at(0, b"new").unwrap();
        if fails {
            timeout(Duration::from_secs(5), world.writer.sync(&"a/x".into())).await.unwrap().unwrap();
            assert_eq!(world.keys(), ["a", "a/x"]);
            continue;
        }
        tokio::time::sleep(Duration::from_millis(800)).await;
        assert_eq!(world.keys(), ["a"]);
        world.settled().await;
        assert_eq!(world.keys(), ["a/a", "a/x"]);
    }
}
