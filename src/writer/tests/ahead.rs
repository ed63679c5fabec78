//! Files larger than the cache, and parts that go up before the file is closed.

use super::*;
use crate::cache::WriteRefused;
use crate::store::ErrorKind;
use crate::store::fault::{Fault, Rule, When};

const KIB64: u64 = 64 << 10;
/// Of a cache of [`KIB64`].
const PART: usize = 8 * KIB;

/// As write(2) does: waits for room or for what was freed, within a minute.
async fn write(world: &World, file: &LocalFile, offset: u64, data: &[u8]) -> std::result::Result<(), Error> {
    let written = async {
        loop {
            let room = world.cache.room();
            match file.write_at(offset, data) {
                Ok(()) => return Ok(()),
                Err(WriteRefused::Full) => {}
                Err(WriteRefused::Freed) => file.recall(),
                Err(WriteRefused::Clean) => {
                    world.staged("big", file, if_match(&world.version("big")), true);
                    continue;
                }
                Err(WriteRefused::Failed(error)) => return Err(error),
            }
            room.await;
        }
    };
    timeout(Duration::from_secs(60), written).await.unwrap_or(Err(Error::NoSpace))
}

/// A new file that a program has open.
fn create(world: &World, condition: Condition) -> (Arc<LocalFile>, crate::cache::Pin) {
    let file = world.cache.create().unwrap();
    let pin = file.pin();
    file.add_writer();
    world.staged("big", &file, condition, false);
    (file, pin)
}

async fn append(world: &World, file: &LocalFile, content: &[u8]) {
    for (index, piece) in content.chunks(4 * KIB).enumerate() {
        write(world, file, (index * 4 * KIB) as u64, piece).await.unwrap();
        let usage = world.cache.usage();
        assert!(usage.bytes <= world.limit, "{usage:?}");
    }
}

fn close(world: &World, file: &LocalFile) {
    file.remove_writer();
    world.writer.closed(&"big".into());
}

/// What the file holds now, fetched where it is absent; as a reader gets it.
async fn read_back(world: &World, file: &Arc<LocalFile>) -> Vec<u8> {
    let reader = crate::reader::Reader::new(world.memory.clone(), READER);
    let pattern = Mutex::default();
    let mut all = Vec::new();
    while (all.len() as u64) < file.size() {
        all.extend(reader.read(file, &pattern, all.len() as u64, 10_000).await.unwrap());
    }
    all
}

const READER: crate::reader::ReaderConfig = crate::reader::ReaderConfig { timeout: Duration::from_secs(60), parallel: 4 };

#[tokio::test(start_paused = true)]
async fn a_file_sixteen_times_the_cache_goes_up_while_it_is_written() {
    let world = World::small(KIB64, |_| {});
    let content = bytes(1 << 20, 1);
    let (file, pin) = create(&world, Condition::IfAbsent);
    append(&world, &file, &content).await;
    assert!(world.keys().is_empty(), "nothing shows before it is all there");
    assert!(world.counts.of(Operation::UploadPart) > 100 && !file.freed().is_empty());
    close(&world, &file);
    drop(pin);
    world.settled().await;
    assert_eq!(world.object("big").unwrap(), content);
    assert_eq!(world.counts.of(Operation::UploadPart), (content.len() / PART) as u64, "each part once");
    assert_eq!((world.counts.of(Operation::CreateMultipartUpload), world.counts.bytes_down()), (1, 0));
    assert_eq!((world.unfinished_uploads().await, file.is_dirty()), (0, false));
    assert!(world.writer.shared.journal.kept_uploads().unwrap().is_empty() && world.writer.shared.journal.freed().unwrap().is_empty());
    assert_eq!(read_back(&world, &file).await, content);
}

#[tokio::test(start_paused = true)]
async fn without_pressure_nothing_goes_ahead() {
    let world = World::small(1 << 20, |_| {});
    let (file, _pin) = create(&world, Condition::IfAbsent);
    append(&world, &file, &bytes(500 * KIB, 1)).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(world.requests(), []);
    close(&world, &file);
    world.settled().await;
}

#[tokio::test(start_paused = true)]
async fn who_reads_what_was_freed_has_the_upload_completed_first() {
    let world = World::small(KIB64, |_| {});
    let content = bytes(300 * KIB, 2);
    let (file, _pin) = create(&world, Condition::IfAbsent);
    append(&world, &file, &content).await;
    assert_eq!(read_back(&world, &file).await, content);
    assert_eq!(world.object("big").unwrap(), content);
    let mut more = content.clone();
    more.extend(bytes(300 * KIB, 3));
    for at in (content.len()..more.len()).step_by(4 * KIB) {
        write(&world, &file, at as u64, &more[at..at + 4 * KIB]).await.unwrap();
    }
    close(&world, &file);
    world.settled().await;
    assert_eq!(world.object("big").unwrap(), more);
    assert_eq!(world.writer.backlog().conflicts, 0);
    assert_eq!(world.unfinished_uploads().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_header_written_at_the_end_and_a_change_in_a_freed_part_are_right() {
    let world = World::small(KIB64, |_| {});
    let mut content = bytes(300 * KIB, 4);
    let (file, _pin) = create(&world, Condition::Any);
    append(&world, &file, &content).await;
    for at in [3, 100_001] {
        write(&world, &file, at as u64, b"header").await.unwrap();
        content[at..at + 6].copy_from_slice(b"header");
    }
    close(&world, &file);
    world.settled().await;
    assert_eq!(world.object("big").unwrap(), content);
}

#[tokio::test(start_paused = true)]
async fn killed_at_any_time_the_file_is_what_it_was_then() {
    let _one_thread = on_one_thread();
    let world = World::small(KIB64, |_| {});
    let content = bytes(600 * KIB, 5);
    let (file, _pin) = create(&world, Condition::IfAbsent);
    let mut crashed = Vec::new();
    for (index, piece) in content.chunks(4 * KIB).enumerate() {
        write(&world, &file, (index * 4 * KIB) as u64, piece).await.unwrap();
        if index % 9 == 8 {
            crashed.push((file.size() as usize, world.after_crash()));
        }
    }
    let kept = crashed.iter().filter(|(_, next)| !next.writer.shared.queue.lock().sessions.is_empty()).count();
    assert!(kept > 5, "{kept} of {}", crashed.len());
    // Only one of them goes on with an upload that they all know: the last that was kept.
    let (size, next) = crashed.pop().unwrap();
    next.start();
    next.settled().await;
    assert_eq!(next.object("big").unwrap(), content[..size]);
    assert_eq!(next.unfinished_uploads().await, 0);
    assert!(next.writer.shared.journal.kept_uploads().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn killed_between_complete_and_its_record_it_is_found_again() {
    let _one_thread = on_one_thread();
    for condition in [Condition::IfAbsent, Condition::Any] {
        let world = World::small(KIB64, |_| {});
        let content = bytes(300 * KIB, 6);
        let (file, _pin) = create(&world, condition);
        append(&world, &file, &content).await;
        world.faults.add(Rule::on(Operation::CompleteMultipartUpload).fault(Fault::ReplyLost));
        close(&world, &file);
        while world.object("big").is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let next = world.after_crash();
        assert!(!next.writer.shared.queue.lock().sessions.is_empty());
        next.start();
        next.settled().await;
        assert_eq!((next.keys(), next.object("big").unwrap()), (vec!["big".to_owned()], content));
        assert_eq!((next.writer.backlog().conflicts, next.writer.backlog().failed.len()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_conflict_loses_neither_side() {
    let _one_thread = on_one_thread();
    for policy in [OnConflict::KeepBoth, OnConflict::Overwrite, OnConflict::Hold] {
        let world = World::small(KIB64, |config| config.on_conflict = policy);
        let content = bytes(300 * KIB, 7);
        let (file, _pin) = create(&world, Condition::IfAbsent);
        append(&world, &file, &content).await;
        world.put_elsewhere("big", b"theirs").await;
        close(&world, &file);
        world.settled().await;
        match policy {
            OnConflict::KeepBoth => {
                assert_eq!(world.object("big").unwrap(), content, "ours can't change its name any more");
                let kept = world.keys().into_iter().find(|key| key.contains(".conflict-web-")).unwrap();
                assert_eq!((world.object(&kept).unwrap(), world.writer.backlog().conflicts), (b"theirs".to_vec(), 1));
            }
            OnConflict::Overwrite => assert_eq!((world.object("big").unwrap(), world.keys().len()), (content, 1)),
            OnConflict::Hold => {
                assert_eq!((world.object("big").unwrap(), world.unfinished_uploads().await), (b"theirs".to_vec(), 1));
                let next = world.after_crash();
                world.memory.delete(&"big".into()).await.unwrap();
                next.start();
                next.settled().await;
                assert_eq!(next.object("big").unwrap(), content, "what was held goes up when the name is free");
                continue;
            }
        }
        assert_eq!(world.unfinished_uploads().await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn removed_it_leaves_nothing() {
    let world = World::small(KIB64, |_| {});
    let (file, pin) = create(&world, Condition::IfAbsent);
    append(&world, &file, &bytes(300 * KIB, 8)).await;
    world.remove("big", false);
    assert!(file.is_forfeited() && matches!(file.write_at(9_000, b"x"), Err(WriteRefused::Failed(Error::Stale))));
    world.cache.discard(file.id());
    drop(pin);
    assert_eq!(world.writer.drain(Duration::from_secs(60)).await, 0);
    assert_eq!((world.unfinished_uploads().await, world.keys(), world.cache.usage().bytes), (0, vec![], 0));
    assert!(world.writer.shared.journal.freed().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn truncated_to_nothing_it_begins_anew() {
    let world = World::small(KIB64, |_| {});
    let (file, _pin) = create(&world, Condition::IfAbsent);
    append(&world, &file, &bytes(300 * KIB, 9)).await;
    file.truncate(0).unwrap();
    assert!(file.freed().is_empty() && world.writer.shared.journal.freed().unwrap().is_empty());
    let content = bytes(200 * KIB, 10);
    append(&world, &file, &content).await;
    close(&world, &file);
    world.settled().await;
    assert_eq!(world.object("big").unwrap(), content);
    assert_eq!(world.unfinished_uploads().await, 0);
}

#[tokio::test(start_paused = true)]
async fn before_it_gets_another_name_the_upload_is_complete() {
    let world = World::small(KIB64, |_| {});
    let content = bytes(300 * KIB, 11);
    let (file, _pin) = create(&world, Condition::IfAbsent);
    append(&world, &file, &content).await;
    close(&world, &file);
    let hold = world.writer.hold_whole(&"big".into(), &file).await;
    assert!(file.freed().is_empty());
    assert_eq!(world.object("big").unwrap(), content);
    drop(hold);
    world.settled().await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_the_bucket_dropped_is_a_loss_that_is_told() {
    let world = World::small(KIB64, |_| {});
    let (file, _pin) = create(&world, Condition::IfAbsent);
    append(&world, &file, &bytes(300 * KIB, 12)).await;
    let upload = world.memory.list_uploads().await.unwrap().remove(0);
    world.memory.abort_upload(&upload.key, &upload.id).await.unwrap();
    close(&world, &file);
    world.settled().await;
    let backlog = world.writer.backlog();
    assert!(backlog.failed[0].error.contains("dropped the unfinished upload"), "{backlog:?}");
    assert!(world.keys().is_empty() && file.is_dirty(), "what is left is kept, and published by nobody");
}

#[tokio::test(start_paused = true)]
async fn a_part_that_fails_is_sent_again_and_the_writer_goes_on() {
    let world = World::small(KIB64, |_| {});
    world.faults.add(Rule::on(Operation::UploadPart).when(When::First(3)).fault(Fault::Error(ErrorKind::Unavailable)));
    let content = bytes(300 * KIB, 13);
    let (file, _pin) = create(&world, Condition::IfAbsent);
    append(&world, &file, &content).await;
    close(&world, &file);
    world.settled().await;
    assert_eq!(world.object("big").unwrap(), content);
    assert_eq!(world.counts.of(Operation::CreateMultipartUpload), 1);
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_waits_is_not_at_rest() {
    let world = World::small(KIB64, |_| {});
    // Each part takes longer than a file rests before it goes up.
    world.faults.add(Rule::on(Operation::UploadPart).fault(Fault::Latency(Duration::from_secs(8))));
    let content = bytes(300 * KIB, 14);
    let (file, _pin) = create(&world, Condition::IfAbsent);
    append(&world, &file, &content).await;
    assert!(world.keys().is_empty(), "no beginning of a file that is being written shows");
    close(&world, &file);
    world.settled().await;
    assert_eq!(world.object("big").unwrap(), content);
}

#[tokio::test(start_paused = true)]
async fn without_a_bucket_the_writer_gets_enospc_and_what_it_wrote_stays() {
    let world = World::small(KIB64, |_| {});
    world.faults.add(Rule::any().fault(Fault::Error(ErrorKind::Unreachable)));
    let content = bytes(100 * KIB, 15);
    let (file, _pin) = create(&world, Condition::IfAbsent);
    let mut written = 0;
    for piece in content.chunks(4 * KIB) {
        match write(&world, &file, written as u64, piece).await {
            Ok(()) => written += piece.len(),
            Err(error) => {
                assert!(matches!(error, Error::NoSpace));
                break;
            }
        }
    }
    assert_eq!(written, KIB64 as usize);
    world.faults.clear();
    close(&world, &file);
    world.settled().await;
    assert_eq!(world.object("big").unwrap(), content[..written]);
}

#[tokio::test(start_paused = true)]
async fn in_through_mode_parts_go_up_before_the_close_and_are_compared_at_it() {
    let world = World::with(|config| config.through = true);
    let mut content = bytes(20 * 16 * KIB, 16);
    let (file, _pin) = create(&world, Condition::IfAbsent);
    for (index, piece) in content.chunks(16 * KIB).enumerate() {
        file.write_at((index * 16 * KIB) as u64, piece).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let ahead = world.counts.of(Operation::UploadPart);
    assert!(ahead >= 10 && world.keys().is_empty(), "{ahead}");
    file.write_at(20_000, b"!").unwrap();
    content[20_000] = b'!';
    world.writer.sync(&"big".into()).await.unwrap();
    assert_eq!(world.object("big").unwrap(), content);
    assert_eq!(world.counts.of(Operation::UploadPart), 21, "the part that changed twice");
    assert!(file.is_complete() && file.freed().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_open_file_that_the_bucket_has_gives_way_to_a_writer() {
    let world = World::small(KIB64, |_| {});
    let read = world.save("read", &bytes(60 * KIB, 17));
    let _open = read.pin();
    world.settled().await;
    let content = bytes(100 * KIB, 18);
    let (file, _pin) = create(&world, Condition::IfAbsent);
    append(&world, &file, &content).await;
    assert!(!read.is_complete());
    close(&world, &file);
    world.settled().await;
    assert_eq!(read_back(&world, &read).await, bytes(60 * KIB, 17));
    assert_eq!(world.object("big").unwrap(), content);
}
