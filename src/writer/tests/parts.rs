//! Large files: parts, copies of parts, and what happens when the file changes on its way.

use super::*;
use crate::media::gzip;
use crate::store::fault::{Fault, Rule, When};
use crate::store::{ErrorKind, multipart_count};

/// A clean file of ten parts that the bucket has.
async fn large(world: &World, key: &str) -> (Arc<LocalFile>, Vec<u8>) {
    let content = bytes(10 * 16 * KIB, 3);
    let file = world.save(key, &content);
    world.settled().await;
    assert_eq!(world.object(key).unwrap(), content);
    (file, content)
}

fn change(world: &World, key: &str, file: &LocalFile, offset: u64, data: &[u8]) {
    world.staged(key, file, if_match(&world.version(key)), true);
    file.write_at(offset, data).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_large_file_goes_up_in_equal_parts() {
    let world = World::new();
    let content = bytes(10 * 16 * KIB + 5, 1);
    let file = world.save("big", &content);
    world.settled().await;
    assert_eq!(world.object("big").unwrap(), content);
    assert_eq!(world.requests(), [("CompleteMultipartUpload", 1), ("CreateMultipartUpload", 1), ("UploadPart", 11)]);
    assert_eq!(multipart_count(&world.version("big").etag), Some(11));
    assert!(!file.is_dirty());
    assert!(world.writer.shared.journal.uploads().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_changed_byte_uploads_one_part() {
    let world = World::new();
    let (file, mut content) = large(&world, "big").await;
    let before = world.counts.bytes_up();
    change(&world, "big", &file, 70_000, b"!");
    content[70_000] = b'!';
    world.settled().await;
    assert_eq!(world.object("big").unwrap(), content);
    assert_eq!(world.counts.of(Operation::UploadPartCopy), 9);
    assert_eq!(world.counts.bytes_up() - before, 16 * KIB as u64);
    assert_eq!(world.counts.bytes_down(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_change_in_a_file_that_is_not_here_fetches_one_part_at_most() {
    let world = World::new();
    let mut content = bytes(70 * 16 * KIB, 5);
    let version = world.put_elsewhere("big", &content).await;
    let file = world.cache.of_version(&version).unwrap();
    let _pin = file.pin();
    world.staged("big", &file, if_match(&version), true);
    file.write_at(100_000, b"!").unwrap();
    content[100_000] = b'!';
    world.settled().await;
    assert_eq!(world.object("big").unwrap(), content);
    assert_eq!(world.counts.of(Operation::UploadPartCopy), 69);
    assert!(world.counts.bytes_down() < 16 * KIB as u64);
}

#[tokio::test(start_paused = true)]
async fn a_small_file_that_is_not_here_is_completed() {
    let world = World::new();
    let version = world.put_elsewhere("small", b"hello world").await;
    let file = world.cache.of_version(&version).unwrap();
    let _pin = file.pin();
    world.staged("small", &file, if_match(&version), true);
    file.write_at(0, b"J").unwrap();
    world.settled().await;
    assert_eq!(world.object("small").unwrap(), b"Jello world");
}

#[tokio::test(start_paused = true)]
async fn appending_and_cutting_keep_to_the_grid() {
    let world = World::new();
    let (file, mut content) = large(&world, "big").await;
    change(&world, "big", &file, content.len() as u64, b"tail");
    content.extend(b"tail");
    world.settled().await;
    assert_eq!(world.object("big").unwrap(), content);
    assert_eq!(world.counts.of(Operation::UploadPartCopy), 10);

    world.staged("big", &file, if_match(&world.version("big")), true);
    file.truncate(40_000).unwrap();
    world.settled().await;
    assert_eq!(world.object("big").unwrap(), content[..40_000]);
    assert_eq!(world.counts.of(Operation::UploadPartCopy), 13);
}

#[tokio::test(start_paused = true)]
async fn a_store_without_conditions_on_copied_parts_is_asked_before_the_end() {
    let world = World::new();
    let (file, mut content) = large(&world, "big").await;
    world.faults.add(Rule::on(Operation::UploadPartCopy).when(When::Nth(1)).fault(Fault::Error(ErrorKind::Unsupported)));
    change(&world, "big", &file, 0, b"!");
    content[0] = b'!';
    world.settled().await;
    assert_eq!(world.object("big").unwrap(), content);
    assert_eq!(world.counts.of(Operation::HeadObject), 1);
    assert!(world.writer.shared.plain_copy_parts.load(std::sync::atomic::Ordering::Relaxed));
}

/// Under a name where anything may be replaced, so that no condition on the target saves it.
#[tokio::test(start_paused = true)]
async fn parts_are_never_taken_from_another_version() {
    for knows_conditions in [true, false] {
        // A whole part is written, so that no other request comes before the copies; or a byte.
        let cases = [(Operation::UploadPartCopy, 10 * 16 * KIB, 16 * KIB), (Operation::GetObject, 16 * KIB, 1)];
        for (operation, length, written) in cases {
            let world = World::new();
            world.writer.shared.plain_copy_parts.store(!knows_conditions, std::sync::atomic::Ordering::Relaxed);
            if !knows_conditions {
                world.faults.add(Rule::on(operation).fault(Fault::Unconditional));
            }
            let version = world.put_elsewhere("a", &bytes(length, 1)).await;
            let file = world.cache.of_version(&version).unwrap();
            let _pin = file.pin();
            world.staged("b", &file, Condition::Any, false);
            file.write_at(0, &vec![b'!'; written]).unwrap();
            world.put_elsewhere("a", &bytes(length, 2)).await;
            world.settled().await;
            assert!(world.counts.of(operation) > 0, "{operation:?}");
            assert_eq!((world.object("b"), world.unfinished_uploads().await), (None, 0), "{operation:?} {knows_conditions}");
            assert_eq!(world.writer.backlog().failed.len(), 1);
        }
    }
}

/// What it made in the place of ours is our own, and is replaced.
#[tokio::test(start_paused = true)]
async fn what_the_store_put_together_wrongly_is_sent_again() {
    // Under a condition, the next attempt is refused because of it, and the one after replaces it.
    for (condition, attempts) in [(Condition::IfAbsent, 3), (Condition::Any, 2)] {
        let world = World::new();
        world.faults.add(Rule::on(Operation::CompleteMultipartUpload).when(When::Nth(1)).fault(Fault::PartLost));
        let content = bytes(4 * 16 * KIB, 8);
        let file = world.cache.create().unwrap();
        file.add_writer();
        world.staged("big", &file, condition, false);
        file.write_at(0, &content).unwrap();
        file.remove_writer();
        world.settled().await;
        assert_eq!((world.keys(), world.object("big").unwrap() == content), (vec!["big".to_owned()], true));
        assert_eq!((world.counts.of(Operation::CompleteMultipartUpload), world.writer.backlog().conflicts), (attempts, 0));
        assert_eq!(world.unfinished_uploads().await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_changes_under_the_upload_is_sent_again() {
    let world = World::new();
    let mut content = bytes(4 * 16 * KIB, 7);
    world.faults.add(Rule::on(Operation::UploadPart).when(When::First(4)).fault(Fault::Latency(Duration::from_secs(1))));
    let file = world.save("big", &content);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(world.counts.of(Operation::UploadPart), 4);
    file.write_at(20_000, b"!").unwrap();
    content[20_000] = b'!';
    world.settled().await;
    assert_eq!(world.object("big").unwrap(), content);
    assert_eq!(world.counts.of(Operation::UploadPart), 5);
    assert_eq!(world.counts.of(Operation::CompleteMultipartUpload), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_part_does_not_cost_the_others() {
    let world = World::new();
    world.faults.add(Rule::on(Operation::UploadPart).when(When::Nth(6)).fault(Fault::Error(ErrorKind::Unavailable)));
    let content = bytes(8 * 16 * KIB, 9);
    world.save("big", &content);
    world.settled().await;
    assert_eq!(world.object("big").unwrap(), content);
    assert_eq!(world.counts.of(Operation::CreateMultipartUpload), 1);
    assert_eq!(world.counts.of(Operation::UploadPart), 9);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_wanted_any_more_is_aborted() {
    let world = World::new();
    world.faults.add(Rule::on(Operation::UploadPart).fault(Fault::Latency(Duration::from_secs(1))));
    world.save("big", &bytes(16 * 16 * KIB, 9));
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.remove("big", false);
    world.settled().await;
    assert_eq!(world.writer.drain(Duration::from_secs(60)).await, 0);
    assert_eq!(world.counts.of(Operation::UploadPart), 4, "no part is begun after that");
    assert_eq!(world.unfinished_uploads().await, 0);
    assert!(world.keys().is_empty());
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded_over_all_files() {
    let world = World::with(|config| config.parallel_parts = 64);
    world.faults.add(Rule::on(Operation::UploadPart).fault(Fault::Latency(Duration::from_secs(1))));
    for index in 0..4 {
        world.save(&format!("big{index}"), &bytes(8 * 16 * KIB, index));
    }
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(world.counts.of(Operation::UploadPart), 4, "64 KiB hold four parts");
    world.settled().await;
    assert_eq!(world.keys().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_copy_beyond_one_request_goes_in_parts() {
    let world = World::new();
    let content = bytes(300 * KIB, 2);
    let version = world.put_elsewhere("a", &content).await;
    world.apply("b", copy_of(&version), Condition::Any, false);
    world.settled().await;
    assert_eq!(world.object("b").unwrap(), content);
    assert_eq!(world.counts.of(Operation::UploadPartCopy), 5);
    assert_eq!(world.counts.bytes_up() + world.counts.bytes_down(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_copy_in_parts_is_not_marked_as_compressed() {
    let world = World::new();
    let content = bytes(300 * KIB, 2);
    let version = world.put_elsewhere("a", &content).await;
    // Left over from when the file was small, and stored compressed.
    let mut headers = ObjectHeaders::default();
    gzip::mark(&mut headers, 100);
    let desired = Desired { headers: Some(headers.into()), ..desired(copy_of(&version), Condition::Any, false) };
    world.writer.apply(vec![("b".into(), Some(desired))], &[]).unwrap();
    world.settled().await;
    let (stored, info) = world.memory.object(&"b".into()).unwrap();
    assert_eq!((&stored[..], gzip::original_size(&info.headers)), (&content[..], None));
    assert_eq!(info.headers.content_encoding, None);
}

#[tokio::test(start_paused = true)]
async fn an_answer_lost_after_complete_is_settled_by_a_look() {
    for condition in [Condition::Any, Condition::IfAbsent] {
        let world = World::new();
        world.faults.add(Rule::on(Operation::CompleteMultipartUpload).when(When::Nth(1)).fault(Fault::ReplyLost));
        let content = bytes(3 * 16 * KIB, 9);
        let file = world.cache.create().unwrap();
        world.staged("big", &file, condition, false);
        file.write_at(0, &content).unwrap();
        world.settled().await;
        assert_eq!(world.object("big").unwrap(), content);
        assert_eq!(world.writer.backlog().conflicts, 0);
        assert_eq!(world.counts.of(Operation::UploadPart), 3);
        assert!(!file.is_dirty());
        assert_eq!(world.writer.drain(Duration::from_secs(60)).await, 0);
        assert!(world.writer.shared.journal.uploads().unwrap().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_changes_after_an_upload_nobody_heard_of_builds_on_that() {
    for (parts, condition) in [(70, Condition::Any), (1, Condition::Any), (70, Condition::IfAbsent)] {
        let world = World::new();
        let mut content = bytes(parts * 16 * KIB, 5);
        let version = world.put_elsewhere("big", &content).await;
        let condition = if condition == Condition::Any { condition } else { if_match(&version) };
        let file = world.cache.of_version(&version).unwrap();
        let _pin = file.pin();
        world.staged("big", &file, condition.clone(), true);
        file.write_at(10_000, b"first").unwrap();
        content[10_000..10_005].copy_from_slice(b"first");
        // The last request of the upload takes effect; from its answer on, the bucket is away.
        let last = if parts == 1 { Operation::PutObject } else { Operation::CompleteMultipartUpload };
        world.faults.add(Rule::on(last).fault(Fault::ReplyLost));
        world.faults.add(Rule::on(Operation::HeadObject).fault(Fault::Error(ErrorKind::Unreachable)));
        while world.version("big") == version {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        world.faults.clear();
        world.faults.add(Rule::any().fault(Fault::Error(ErrorKind::Unreachable)));
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.staged("big", &file, condition, true);
        file.write_at(9_000, b"second").unwrap();
        content[9_000..9_006].copy_from_slice(b"second");
        tokio::time::sleep(Duration::from_secs(5)).await;
        world.faults.clear();
        world.settled().await;
        assert!(world.object("big").unwrap() == content, "{parts} parts");
        assert_eq!((world.keys(), world.writer.backlog().conflicts), (vec!["big".to_owned()], 0), "{parts} parts");
        assert_eq!(world.unfinished_uploads().await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_too_large_for_any_object_fails_for_good() {
    let world = World::new();
    let file = world.cache.create().unwrap();
    world.staged("huge", &file, Condition::Any, false);
    file.truncate(Tuning::default().max_object_bytes + 1).unwrap();
    let error = world.writer.sync(&"huge".into()).await.unwrap_err();
    assert!(error.is_store(ErrorKind::TooLarge), "{error}");
    assert_eq!(world.requests(), []);
}

#[tokio::test(start_paused = true)]
async fn times_that_move_during_the_upload_follow_by_copy() {
    let world = World::new();
    *world.log.headers.lock() = Some(headers("time/1"));
    world.faults.add(Rule::on(Operation::UploadPart).when(When::First(4)).fault(Fault::Latency(Duration::from_secs(1))));
    let mut content = bytes(4 * 16 * KIB, 7);
    let file = world.save("big", &content);
    tokio::time::sleep(Duration::from_millis(500)).await;
    file.write_at(20_000, b"!").unwrap();
    content[20_000] = b'!';
    *world.log.headers.lock() = Some(headers("time/2"));
    world.settled().await;
    let (stored, info) = world.memory.object(&"big".into()).unwrap();
    assert_eq!((stored.to_vec(), info.headers), (content, headers("time/2")));
    assert_eq!((world.counts.of(Operation::UploadPart), world.counts.of(Operation::CopyObject)), (5, 1));
}

#[tokio::test(start_paused = true)]
async fn a_late_part_over_a_newer_one_costs_an_upload_and_not_the_file() {
    let world = World::new();
    let content = bytes(10 * 16 * KIB, 9);
    let late = Rule::on(Operation::CompleteMultipartUpload).when(When::First(1)).fault(Fault::Latency(Duration::from_secs(9)));
    world.faults.add(late);
    world.save("big", &content);
    while world.counts.of(Operation::UploadPart) < 10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let upload = world.memory.list_uploads().await.unwrap().remove(0);
    world.memory.upload_part(&upload.key, &upload.id, 3, Body::new(vec![0; 16 * KIB])).await.unwrap();
    world.settled().await;
    assert_eq!(world.object("big"), Some(content));
    assert_eq!((world.unfinished_uploads().await, world.counts.of(Operation::CreateMultipartUpload)), (0, 2));
}
