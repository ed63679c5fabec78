//! Power cuts: what is left to want when the last seconds' bytes are gone.

use super::*;
use crate::store::fault::{Fault, Rule};

/// The next process after a machine that went down and took these data files with it; not started yet.
fn after_power_cut(world: &World, lost: &[&LocalFile]) -> World {
    let directory = tempfile::tempdir().unwrap();
    copy_all(world.directory.path(), directory.path());
    for file in lost {
        let path = directory.path().join(format!("data/{:02x}/{}", file.id().0 & 0xff, file.id()));
        let _ = std::fs::remove_file(path);
    }
    let journal = Arc::new(Journal::open(directory.path(), "s3://bucket").unwrap());
    let limits = Limits { size_bytes: 1 << 30, free_floor_bytes: 0 };
    let cache = Cache::open(directory.path(), journal.clone(), limits, false).unwrap();
    let store = world.memory.clone();
    let writer = Writer::open_tuned(store, journal, cache.clone(), world.config.clone(), tuning()).unwrap();
    let (memory, config) = (world.memory.clone(), world.config.clone());
    let (faults, counts, limit, log) = (Faults::new(2), RequestCounts::new(), 1 << 30, Arc::default());
    World { directory, memory, faults, counts, config, limit, cache, writer, log }
}

#[tokio::test(start_paused = true)]
async fn a_lost_change_leaves_the_version_that_it_was_made_from() {
    let world = World::new();
    let version = world.put_elsewhere("a", b"bytes that the bucket has").await;
    world.put_elsewhere("mine", b"old").await;
    world.faults.add(Rule::any().fault(Fault::Hang));
    let new = world.save("new", b"never synced");
    let mine = world.save("mine", b"never synced either");
    let moved = world.cache.of_version(&version).unwrap();
    moved.fill(&version, 0, b"bytes that the bucket has").unwrap();
    world.staged("b", &moved, Condition::Any, false);
    moved.write_at(0, b"B").unwrap();
    let next = after_power_cut(&world, &[&new, &mine, &moved]);
    assert_eq!(next.writer.pending(&"new".into()), None);
    assert_eq!(next.writer.pending(&"mine".into()), None, "what the bucket has shows again");
    assert_eq!(next.writer.pending(&"b".into()).unwrap().content, Content::Restored(version.clone()));
    next.start();
    next.settled().await;
    assert_eq!(next.keys(), ["a", "b", "mine"]);
    assert_eq!(next.object("b").unwrap(), b"bytes that the bucket has");
    assert!(next.writer.backlog().failed.is_empty());
    assert_eq!(next.cache.usage().dirty_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_without_a_local_byte_is_a_copy_of_its_version() {
    let world = World::new();
    let version = world.put_elsewhere("a", b"bytes that the bucket has").await;
    world.faults.add(Rule::any().fault(Fault::Hang));
    let file = world.cache.of_version(&version).unwrap();
    world.staged("a", &file, Condition::IfMatch(version.etag.clone()), true);
    let next = after_power_cut(&world, &[&file]);
    assert_eq!(next.writer.pending(&"a".into()).unwrap().content, copy_of(&version));
    // The upload that the power cut made us forget.
    world.put_elsewhere("a", b"newer").await;
    next.start();
    next.settled().await;
    assert_eq!((next.keys(), next.object("a").unwrap()), (vec!["a".to_owned()], b"newer".to_vec()));
    assert!(next.writer.backlog().failed.is_empty());
}

#[tokio::test(start_paused = true)]
async fn in_a_session_that_can_be_trusted_a_missing_file_stays_wanted() {
    let _one_thread = on_one_thread();
    let world = World::new();
    world.faults.add(Rule::any().fault(Fault::Hang));
    let file = world.save("a", b"unsent");
    std::fs::remove_file(world.directory.path().join(format!("data/{:02x}/{}", file.id().0 & 0xff, file.id()))).unwrap();
    let next = world.after_crash();
    assert_eq!(next.writer.backlog().failed.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_was_made_and_forgotten_is_found_again() {
    let world = World::new();
    let version = world.put_elsewhere("old", b"bytes").await;
    world.put_elsewhere("new", b"bytes").await;
    world.memory.delete(&"old".into()).await.unwrap();
    world.apply("new", copy_of(&version), Condition::Any, false);
    world.settled().await;
    assert_eq!((world.keys(), world.writer.backlog().conflicts), (vec!["new".to_owned()], 0));
}

/// A change that was given up, to be the copy of `a` under `b`; `a` is something else by now.
async fn given_up_after_a_replacement(replaced: bool) -> (World, Version) {
    let world = World::new();
    let version = world.put_elsewhere("a", b"the file's own").await;
    match replaced {
        true => drop(world.put_elsewhere("a", b"another file").await),
        false => world.memory.delete(&"a".into()).await.unwrap(),
    }
    (world, version)
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_goes_back_to_its_own_version_or_to_nothing() {
    let _one_thread = on_one_thread();
    for replaced in [true, false] {
        let (world, version) = given_up_after_a_replacement(replaced).await;
        world.apply("b", Content::Restored(version), Condition::Any, false);
        // A kill before it was done: the rule is in the journal.
        let next = world.after_crash();
        next.start();
        next.settled().await;
        assert_eq!((next.object("b"), next.writer.backlog().conflicts), (None, 0));
        assert_eq!(next.journalled(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_may_have_been_copied_before() {
    let (world, version) = given_up_after_a_replacement(true).await;
    world.put_elsewhere("b", b"the file's own").await;
    world.apply("b", Content::Restored(version), Condition::Any, false);
    world.settled().await;
    assert_eq!((world.object("b").unwrap(), world.writer.backlog().conflicts), (b"the file's own".to_vec(), 0));
}

#[tokio::test(start_paused = true)]
async fn in_an_exchange_too_what_was_given_up_goes_back_to_its_own_version_or_to_nothing() {
    let (world, version) = given_up_after_a_replacement(true).await;
    let other = world.put_elsewhere("b", b"b").await;
    let changes = vec![
        ("b".into(), Some(desired(Content::Restored(version), Condition::Any, true))),
        ("a".into(), Some(desired(copy_of(&other), Condition::Any, true))),
    ];
    world.writer.apply(changes, &[]).unwrap();
    world.settled().await;
    // `b` is given up, and shows what it held.
    assert_eq!((world.object("a").unwrap(), world.object("b").unwrap()), (b"b".to_vec(), b"b".to_vec()));
}
