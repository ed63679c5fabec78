//! kill -9 at every stage, and the replay: nothing lost, nothing doubled.

use super::*;
use crate::store::fault::{Fault, Rule, When};
use crate::types::MTIME;

#[tokio::test(start_paused = true)]
async fn unsent_changes_are_sent_by_the_next_process_once() {
    let _one_thread = on_one_thread();
    let world = World::new();
    let version = world.put_elsewhere("old", b"o").await;
    world.put_elsewhere("gone", b"g").await;
    world.faults.add(Rule::any().fault(Fault::Hang));
    world.save("a", b"A");
    world.apply("link", Content::Inline(b"target".to_vec()), Condition::IfAbsent, false);
    world.apply("new", copy_of(&version), Condition::Any, false);
    world.remove("old", true);
    world.remove("gone", true);
    tokio::time::sleep(Duration::from_secs(2)).await;
    for _ in 0..2 {
        let next = world.after_crash();
        next.start();
        next.settled().await;
        assert_eq!(next.keys(), ["a", "link", "new"]);
        assert_eq!(next.object("a").unwrap(), b"A");
        assert!(next.journalled().is_empty());
        assert_eq!(next.writer.backlog().conflicts, 0, "the second replay finds its own work");
        // Replayed once more from the same state: the copy's source is gone by then, its target there.
        world.put_elsewhere("old", b"o").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_killed_in_a_multipart_upload_leaves_no_orphan() {
    let _one_thread = on_one_thread();
    let world = World::new();
    let content = bytes(100 * KIB, 4);
    world.faults.add(Rule::on(Operation::CompleteMultipartUpload).fault(Fault::Hang));
    world.save("big", &content);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.unfinished_uploads().await, 1);
    let next = world.after_crash();
    next.start();
    next.settled().await;
    assert_eq!(next.object("big").unwrap(), content);
    assert_eq!(next.unfinished_uploads().await, 0);
    assert!(next.writer.shared.journal.uploads().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_process_killed_before_it_heard_of_its_upload_leaves_no_orphan() {
    let _one_thread = on_one_thread();
    let world = World::new();
    let of = |key: &str| (Key::from(key), ObjectHeaders::default());
    for (key, headers) in [of("big"), of("another host's")] {
        world.memory.create_upload(&key, &headers).await.unwrap();
    }
    let intended = Change::BeginUpload("big".into(), super::super::orphans::intent(&"big".into(), 7));
    world.writer.shared.journal.apply(&[intended]).unwrap();
    let next = world.after_crash();
    next.start();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let left: Vec<Key> = next.memory.list_uploads().await.unwrap().into_iter().map(|upload| upload.key).collect();
    assert_eq!(left, ["another host's".into()]);
    assert!(next.writer.shared.journal.uploads().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn killed_after_complete_and_before_it_was_recorded_it_is_no_conflict() {
    let _one_thread = on_one_thread();
    let world = World::new();
    let content = bytes(100 * KIB, 4);
    world.save("big", &content);
    let before = world.after_crash();
    world.settled().await;
    before.start();
    before.settled().await;
    assert_eq!(before.keys(), ["big"]);
    assert_eq!(before.writer.backlog().conflicts, 0);
}

#[tokio::test(start_paused = true)]
async fn a_copy_in_parts_that_nobody_heard_of_is_no_conflict() {
    let _one_thread = on_one_thread();
    for (key, killed) in [("a", true), ("a", false), ("b", true), ("b", false)] {
        let world = World::new();
        let content = bytes(300 * KIB, 2);
        let version = world.put_elsewhere("a", &content).await;
        let condition = if key == "a" { if_match(&version) } else { Condition::IfAbsent };
        let wanted = Desired { headers: Some(headers("image/png").into()), ..desired(copy_of(&version), condition, key == "a") };
        world.writer.apply(vec![(key.into(), Some(wanted))], &[]).unwrap();
        let lost = Rule::on(Operation::CompleteMultipartUpload).fault(Fault::ReplyLost);
        world.faults.add(if killed { lost } else { lost.when(When::First(2)) });
        let next = if killed {
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_ne!(world.memory.object(&key.into()).map(|(_, info)| info.etag), Some(version.etag), "it is made");
            let next = world.after_crash();
            next.start();
            next
        } else {
            world
        };
        next.settled().await;
        let (held, info) = next.memory.object(&key.into()).unwrap();
        assert_eq!((&held[..], info.headers.content_type.as_deref()), (&content[..], Some("image/png")), "{key} {killed}");
        assert_eq!((next.writer.backlog().conflicts, next.keys().len()), (0, if key == "a" { 1 } else { 2 }), "{key} {killed}");
        assert_eq!(next.unfinished_uploads().await, 0);
    }
}

fn at(mtime: &str) -> ObjectHeaders {
    ObjectHeaders { metadata: [(MTIME.to_owned(), mtime.to_owned())].into(), ..headers("image/png") }
}

/// New headers of an object of so many bytes, which went up in parts, are in the bucket under another ETag, and nobody recorded
/// it; the next process, not started, has the row. With the version before, and its bytes.
async fn killed_after_an_unrecorded_copy(size: usize) -> (World, World, Version, Vec<u8>) {
    let world = World::new();
    let content = bytes(size, 6);
    world.save("a", &content);
    world.settled().await;
    let version = world.version("a");
    for operation in [Operation::CopyObject, Operation::CompleteMultipartUpload] {
        world.faults.add(Rule::on(operation).fault(Fault::ReplyLost));
    }
    let wanted = Desired { headers: Some(at("1700000000.000000001").into()), ..desired(copy_of(&version), Condition::Any, true) };
    world.writer.apply(vec![("a".into(), Some(wanted))], &[]).unwrap();
    while world.version("a") == version {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let next = world.after_crash();
    assert_eq!(next.journalled(), ["a".into()]);
    (world, next, version, content)
}

#[tokio::test(start_paused = true)]
async fn an_unrecorded_copy_of_an_object_onto_itself_is_found_and_not_made_again() {
    let _one_thread = on_one_thread();
    for size in [100 * KIB, 300 * KIB] {
        let (_killed, next, _, content) = killed_after_an_unrecorded_copy(size).await;
        let made = next.version("a");
        next.start();
        next.settled().await;
        assert!(next.counts.of(Operation::CopyObject) <= 1, "it is tried once, and the source is gone");
        assert_eq!(next.counts.of(Operation::CompleteMultipartUpload), 0);
        let (held, info) = next.memory.object(&"a".into()).unwrap();
        assert_eq!((&held[..], &info.etag, &info.headers.metadata), (&content[..], &made.etag, &at("1700000000.000000001").metadata));
        assert_eq!(next.events(), [Event::Stored("a".into(), size as u64, true)]);
        assert_eq!((next.keys(), next.unfinished_uploads().await), (vec!["a".to_owned()], 0), "{size}");
    }
}

/// What went up in parts is renamed, and nobody recorded the copy; the next process, not started, has the row.
async fn killed_after_an_unrecorded_rename(new: Option<ObjectHeaders>) -> (World, World, Version, Vec<u8>) {
    let world = World::new();
    let content = bytes(100 * KIB, 6);
    let file = world.cache.create().unwrap();
    file.add_writer();
    let saved =
        Desired { headers: Some(at("1700000000.000000001").into()), ..desired(Content::Staged(file.id()), Condition::IfAbsent, false) };
    world.writer.apply(vec![("a".into(), Some(saved))], &[]).unwrap();
    file.write_at(0, &content).unwrap();
    file.remove_writer();
    world.settled().await;
    let version = world.version("a");
    world.faults.add(Rule::on(Operation::CopyObject).fault(Fault::ReplyLost));
    let wanted = Desired { headers: new.map(Into::into), ..desired(copy_of(&version), Condition::IfAbsent, false) };
    world.writer.apply(vec![("b".into(), Some(wanted)), ("a".into(), Some(desired(Content::Absent, Condition::Any, true)))], &[]).unwrap();
    while world.object("b").is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_ne!(world.version("b").etag, version.etag, "such a copy has an ETag of its own");
    let next = world.after_crash();
    (world, next, version, content)
}

#[tokio::test(start_paused = true)]
async fn an_unrecorded_rename_of_what_went_up_in_parts_is_no_conflict() {
    let _one_thread = on_one_thread();
    for new in [None, Some(at("1700000000.000000001"))] {
        let (_killed, next, _, content) = killed_after_an_unrecorded_rename(new).await;
        next.start();
        next.settled().await;
        assert_eq!((next.keys(), next.writer.backlog().conflicts), (vec!["b".to_owned()], 0));
        assert!(next.object("b").unwrap() == content);
        assert_eq!(next.counts.of(Operation::CopyObject), 0, "what is there will do");
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_changes_after_an_unrecorded_rename_is_no_conflict_with_itself() {
    let _one_thread = on_one_thread();
    let (_killed, next, version, mut content) = killed_after_an_unrecorded_rename(None).await;
    let file = next.cache.of_version(&version).unwrap();
    next.staged("b", &file, Condition::IfAbsent, false);
    file.write_at(3, b"!").unwrap();
    content[3] = b'!';
    next.start();
    next.settled().await;
    assert_eq!((next.keys(), next.writer.backlog().conflicts), (vec!["b".to_owned()], 0));
    assert!(next.object("b").unwrap() == content);
}

#[tokio::test(start_paused = true)]
async fn another_hosts_object_is_not_taken_for_an_unrecorded_rename() {
    let _one_thread = on_one_thread();
    let (_killed, next, _, content) = killed_after_an_unrecorded_rename(None).await;
    let theirs = bytes(content.len(), 9);
    let _receipt = next.memory.put(&"b".into(), Body::new(theirs.clone()), &at("1700000000.000000002"), &Condition::Any).await.unwrap();
    next.start();
    next.settled().await;
    assert_eq!((next.writer.backlog().conflicts, next.keys().len()), (1, 2), "both sides are kept: {:?}", next.keys());
    assert_eq!(next.object("b").unwrap(), theirs);
}

#[tokio::test(start_paused = true)]
async fn an_unrecorded_copy_under_older_headers_gets_the_newer_ones() {
    let _one_thread = on_one_thread();
    let (_killed, next, version, content) = killed_after_an_unrecorded_copy(100 * KIB).await;
    let wanted = Desired { headers: Some(at("1800000000.0").into()), ..desired(copy_of(&version), Condition::Any, true) };
    next.writer.apply(vec![("a".into(), Some(wanted))], &[]).unwrap();
    next.start();
    next.settled().await;
    let (held, info) = next.memory.object(&"a".into()).unwrap();
    assert_eq!((&held[..], info.headers.metadata), (&content[..], at("1800000000.0").metadata));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_changes_after_an_unrecorded_copy_is_no_conflict_with_itself() {
    let _one_thread = on_one_thread();
    for complete in [true, false] {
        let (_killed, next, version, mut content) = killed_after_an_unrecorded_copy(100 * KIB).await;
        if !complete {
            next.cache.discard(next.cache.find_version(&version).unwrap().id());
        }
        let file = next.cache.of_version(&version).unwrap();
        assert_eq!(file.is_complete(), complete);
        next.staged("a", &file, if_match(&version), true);
        file.write_at(3, b"!").unwrap();
        content[3] = b'!';
        next.start();
        next.settled().await;
        assert_eq!((next.keys(), next.writer.backlog().failed.len()), (vec!["a".to_owned()], 0), "complete: {complete}");
        assert!(next.object("a").unwrap() == content, "complete: {complete}");
        assert_eq!(next.writer.backlog().conflicts, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn another_hosts_object_is_not_taken_for_an_unrecorded_copy() {
    let _one_thread = on_one_thread();
    let (_killed, next, version, content) = killed_after_an_unrecorded_copy(100 * KIB).await;
    let theirs = Body::new(bytes(content.len(), 9));
    let _receipt = next.memory.put(&"a".into(), theirs, &at("1700000000.000000002"), &Condition::Any).await.unwrap();
    let file = next.cache.of_version(&version).unwrap();
    next.staged("a", &file, if_match(&version), true);
    file.write_at(3, b"!").unwrap();
    next.start();
    next.settled().await;
    assert_eq!((next.writer.backlog().conflicts, next.keys().len()), (1, 2), "both sides are kept");
    assert_eq!(next.object("a").unwrap(), bytes(content.len(), 9));
}

#[tokio::test(start_paused = true)]
async fn a_lost_data_file_is_reported_and_not_dropped() {
    let _one_thread = on_one_thread();
    let world = World::new();
    let lost = Change::SetDesired("a".into(), desired(Content::Staged(FileId(999)), Condition::IfAbsent, false));
    world.writer.shared.journal.apply(&[lost]).unwrap();
    let next = world.after_crash();
    next.start();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let backlog = next.writer.backlog();
    assert_eq!((backlog.failed.len(), backlog.dirty_files), (1, 1), "{backlog:?}");
    assert_eq!(next.journalled(), ["a".into()]);
    assert!(next.writer.sync(&"a".into()).await.is_err());
    assert!(next.keys().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stopped_writer_sends_nothing_more() {
    let world = World::new();
    world.faults.add(Rule::on(Operation::PutObject).fault(Fault::Latency(Duration::from_secs(1))));
    world.save("a", b"A");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let World { writer, memory, directory, .. } = world;
    drop(writer);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(memory.keys().is_empty());
    drop(directory);
}

/// The bucket has the first state of `a`, and nobody recorded it; the next process has the row and the data file.
async fn killed_after_an_unrecorded_put() -> (World, World) {
    let world = World::new();
    world.faults.add(Rule::on(Operation::PutObject).fault(Fault::ReplyLost));
    world.save("a", b"first");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.object("a").unwrap(), b"first");
    let next = world.after_crash();
    (world, next)
}

#[tokio::test(start_paused = true)]
async fn a_file_that_changes_after_an_unrecorded_put_is_no_conflict_with_itself() {
    let _one_thread = on_one_thread();
    let (_killed, next) = killed_after_an_unrecorded_put().await;
    let Some(Desired { content: Content::Staged(id), .. }) = next.writer.pending(&"a".into()) else { panic!("it waits") };
    next.cache.get(id).unwrap().write_at(5, b" and second").unwrap();
    next.start();
    next.settled().await;
    assert_eq!((next.keys(), next.object("a").unwrap()), (vec!["a".to_owned()], b"first and second".to_vec()));
    assert_eq!(next.writer.backlog().conflicts, 0);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_removed_after_an_unrecorded_put_stays_removed() {
    let _one_thread = on_one_thread();
    let (_killed, next) = killed_after_an_unrecorded_put().await;
    next.remove("a", false);
    next.start();
    next.settled().await;
    assert!(next.keys().is_empty(), "{:?}", next.keys());
}

/// A part of `a` was changed and brought to the disk; the upload fetches the rest, and replaces the version that has it.
#[tokio::test(start_paused = true)]
async fn what_an_upload_fetched_outlives_a_kill_after_it_replaced_the_rest() {
    let _one_thread = on_one_thread();
    for (size, operation) in [(10_000, Operation::PutObject), (40 * KIB, Operation::CompleteMultipartUpload)] {
        let world = World::new();
        let base = world.put_elsewhere("a", &bytes(size, 1)).await;
        world.faults.add(Rule::on(operation).fault(Fault::ReplyLost));
        let file = world.cache.of_version(&base).unwrap();
        let pin = file.pin();
        world.staged("a", &file, if_match(&base), true);
        file.write_at(5_000, &[9; 100]).unwrap();
        world.cache.persist().unwrap();
        let mut content = bytes(size, 1);
        content[5_000..5_100].fill(9);
        while world.object("a").unwrap() != content {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(pin);
        let next = world.after_crash();
        let found = next.cache.get(file.id()).unwrap();
        assert!(found.is_dirty() && found.is_complete(), "{operation:?}: nobody else has what it was changed from");
        next.start();
        next.settled().await;
        assert_eq!((next.keys(), next.object("a").unwrap() == content), (vec!["a".to_owned()], true), "{operation:?}");
        assert_eq!((next.writer.backlog().conflicts, next.writer.backlog().failed.len()), (0, 0));
    }
}
