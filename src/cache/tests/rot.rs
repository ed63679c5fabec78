//! Bytes that change behind the daemon's back, while it runs and while it doesn't.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::*;
use crate::cache::sums::BLOCK_BYTES;
use crate::error::Error;
use crate::journal::{Change, Content, Desired};
use crate::store::Condition;

const BLOCK: usize = BLOCK_BYTES as usize;

pub fn data_file(world: &World, id: FileId) -> std::path::PathBuf {
    world.directory.path().join(format!("data/{:02x}/{id}", id.0 & 0xff))
}

/// Flips one bit; with `quiet` the file keeps its times, as it does when a disk rots.
pub fn flip(world: &World, id: FileId, at: u64, quiet: bool) {
    let file = File::options().read(true).write(true).open(data_file(world, id)).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    if quiet {
        file.set_modified(modified).unwrap();
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 + 1).collect()
}

fn try_read(file: &LocalFile, span: Span) -> Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; (span.end - span.start) as usize];
    let read = file.read_at(span.start, &mut buffer)?;
    Ok(read.map(|length| buffer[..length].to_vec()))
}

fn is_damaged(file: &LocalFile, span: Span) -> bool {
    matches!(try_read(file, span), Err(Error::Damaged(_)))
}

fn wanted(world: &World, key: &str, file: &LocalFile) {
    let content = Content::Staged(file.id());
    let desired = Desired { content, headers: None, condition: Condition::Any, was_there: true, since: std::time::UNIX_EPOCH };
    world.journal().apply(&[Change::SetDesired(key.into(), desired)]).unwrap();
}

#[test]
fn a_flipped_byte_of_a_clean_file_is_a_miss() {
    for down in [false, true] {
        for quiet in [false, true] {
            let mut world = World::new();
            let content = pattern(5 * BLOCK + 77);
            let file = world.clean("a", &content);
            world.cache().sync().unwrap();
            let (id, at) = (file.id(), 2 * BLOCK as u64 + 5);
            if down {
                drop(file);
                world.stop();
            }
            flip(&world, id, at, quiet);
            if down {
                world.start(true).unwrap();
            }
            assert!(world.cache().changed_behind().is_empty(), "nobody had it open");
            let base = version("a", content.len() as u64);
            let file = world.cache().find_version(&base).unwrap();
            assert_eq!(read(&file, 0..100), Some(content[..100].to_vec()), "other blocks are right");
            assert_eq!(read(&file, at + 1..at + 3), None, "{down} {quiet}");
            let block = 2 * BLOCK_BYTES..3 * BLOCK_BYTES;
            assert_eq!((file.missing(0..base.size), file.is_complete()), (vec![block.clone()], false));
            assert_eq!(world.cache().usage().bytes, base.size - BLOCK_BYTES);
            assert_eq!(world.cache().damage(), Damage { refetched: 1, ..Damage::default() });
            assert!(file.fill(&base, block.start, &content[block.start as usize..block.end as usize]).unwrap());
            assert_eq!((all(&file), world.cache().usage().bytes), (content, base.size));
        }
    }
}

#[test]
fn a_clean_file_of_another_length_is_a_miss() {
    for length in [0, 10, 70_000] {
        let mut world = World::new();
        world.clean("a", &pattern(50_000));
        world.cache().sync().unwrap();
        let id = world.cache().find_version(&version("a", 50_000)).unwrap().id();
        world.stop();
        File::options().write(true).open(data_file(&world, id)).unwrap().set_len(length).unwrap();
        world.start(true).unwrap();
        assert!(world.cache().find_version(&version("a", 50_000)).is_none() && world.cache().changed_behind().is_empty());
        assert_eq!((world.data_files(), world.cache().damage().refetched), (0, 1));
    }
}

#[test]
fn a_flipped_byte_of_unsent_data_is_an_error_until_it_is_written_over() {
    for down in [false, true] {
        let mut world = World::new();
        let content = pattern(3 * BLOCK + 500);
        let file = world.dirty(&content);
        file.seal().unwrap();
        let (id, at) = (file.id(), BLOCK as u64 + 5000);
        if down {
            drop(file);
            world.stop();
        }
        flip(&world, id, at, false);
        if down {
            world.start(true).unwrap();
        }
        let file = world.cache().get(id).unwrap();
        assert!(is_damaged(&file, at..at + 1) && is_damaged(&file, 0..content.len() as u64));
        assert!(matches!(file.verify_all(), Err(Error::Damaged(_))));
        assert_eq!(read(&file, 0..BLOCK_BYTES).unwrap(), content[..BLOCK]);
        assert_eq!(world.cache().damage(), Damage { unsent_files: 1, ..Damage::default() });
        // Appending, and writing a part of the block, heal nothing; the damage outlives a restart then too.
        file.write_at(content.len() as u64, b"more").unwrap();
        file.write_at(BLOCK_BYTES + 100, &content[BLOCK + 100..BLOCK + 200]).unwrap();
        assert_eq!(read(&file, BLOCK_BYTES + 100..BLOCK_BYTES + 200).unwrap(), content[BLOCK + 100..BLOCK + 200]);
        file.seal().unwrap();
        drop(file);
        world.kill(true);
        let file = world.cache().get(id).unwrap();
        assert!(is_damaged(&file, at..at + 1) && is_damaged(&file, BLOCK_BYTES..BLOCK_BYTES + 1));
        for start in (0..BLOCK).step_by(4096) {
            file.write_at(BLOCK_BYTES + start as u64, &content[BLOCK + start..BLOCK + start + 4096]).unwrap();
        }
        assert_eq!(all(&file), [content.as_slice(), b"more"].concat());
        file.seal().unwrap();
        drop(file);
        world.kill(true);
        let file = world.cache().get(id).unwrap();
        assert_eq!(all(&file), [content.as_slice(), b"more"].concat());
        assert!(file.verify_all().unwrap());
    }
}

#[test]
fn truncation_heals_what_it_takes_and_no_more() {
    let world = World::new();
    let content = pattern(2 * BLOCK);
    let file = world.dirty(&content);
    flip(&world, file.id(), 5, true);
    flip(&world, file.id(), BLOCK as u64 + 9000, true);
    file.truncate(BLOCK as u64 + 8000).unwrap();
    assert!(is_damaged(&file, BLOCK_BYTES..BLOCK_BYTES + 10), "the rest of a damaged block can't be told from the damage");
    file.truncate(BLOCK_BYTES).unwrap();
    assert!(is_damaged(&file, 0..1));
    file.truncate(0).unwrap();
    file.truncate(100).unwrap();
    assert_eq!(all(&file), [0; 100]);
}

#[test]
fn a_flip_under_an_unsent_change_is_fetched_again_where_the_bucket_has_it() {
    let world = World::new();
    let content = pattern(4 * BLOCK);
    let file = world.clean("a", &content);
    let _pin = file.pin();
    world.journal().apply(&[Change::PutFile(file.row(true).unwrap())]).unwrap();
    file.mark_dirty();
    file.write_at(10, b"changed").unwrap();
    flip(&world, file.id(), 3 * BLOCK_BYTES, false);
    flip(&world, file.id(), 20, false);
    assert_eq!(read(&file, 3 * BLOCK_BYTES..4 * BLOCK_BYTES), None);
    assert!(is_damaged(&file, 0..100));
    let base = version("a", content.len() as u64);
    assert!(file.fill(&base, 3 * BLOCK_BYTES, &content[3 * BLOCK..]).unwrap());
    assert_eq!(read(&file, BLOCK_BYTES..base.size).unwrap(), content[BLOCK..]);
}

#[test]
fn a_file_that_is_cut_short_or_vanishes_before_it_is_sent_is_damaged() {
    for down in [false, true] {
        for length in [Some(0), Some(100), Some(60_000), None] {
            let mut world = World::new();
            let file = world.dirty(&pattern(50_000));
            file.seal().unwrap();
            let id = file.id();
            world.cache().shared.descriptors.lock().clear();
            drop(file);
            if down {
                world.stop();
            }
            match length {
                Some(length) => File::options().write(true).open(data_file(&world, id)).unwrap().set_len(length).unwrap(),
                None => std::fs::remove_file(data_file(&world, id)).unwrap(),
            }
            if down {
                world.start(true).unwrap();
            }
            let Some(file) = world.cache().get(id) else {
                assert!(down && length.is_none(), "its entry says that it is lost");
                continue;
            };
            assert_eq!(file.size(), 50_000);
            assert!(matches!(file.stamp(), Err(Error::Damaged(_)) | Err(Error::Disk(_))), "{down} {length:?}");
            if length != Some(60_000) {
                assert!(is_damaged(&file, 40_000..50_000), "{down} {length:?}");
            }
        }
    }
}

#[test]
fn a_disk_that_can_t_read_is_a_miss() {
    let world = World::new();
    let content = pattern(50_000);
    let file = world.clean("a", &content);
    let _pin = file.pin();
    let unreadable = File::options().write(true).open(data_file(&world, file.id())).unwrap();
    let good = file.handle().unwrap();
    file.state.lock().handle = Some(Arc::new(unreadable));
    assert_eq!(read(&file, 100..200), None);
    assert_eq!(file.missing(0..50_000), [100..200]);
    file.state.lock().handle = Some(good);
    assert!(file.fill(&version("a", 50_000), 100, &content[100..200]).unwrap());
    assert_eq!(all(&file), content);
}

#[test]
fn what_was_written_since_the_last_close_is_taken_as_it_is_after_a_kill() {
    let mut world = World::new();
    let content = pattern(3 * BLOCK);
    let file = world.dirty(&content);
    file.seal().unwrap();
    file.write_at(5, b"changed").unwrap();
    let id = file.id();
    drop(file);
    world.stop();
    flip(&world, id, 100, false);
    flip(&world, id, 2 * BLOCK_BYTES + 1, false);
    world.start(true).unwrap();
    let file = world.cache().get(id).unwrap();
    let mut expected = content[..BLOCK].to_vec();
    expected[5..12].copy_from_slice(b"changed");
    expected[100] ^= 0x10;
    // The sums of a region go together.
    assert_eq!(read(&file, 0..BLOCK_BYTES).unwrap(), expected);
    assert!(read(&file, 2 * BLOCK_BYTES..2 * BLOCK_BYTES + 2).is_some());
}

/// What a crash of the machine leaves of a file that was to be uploaded as `b`.
fn after_a_crash(prepare: impl Fn(&World, &Arc<LocalFile>), spoil: impl Fn(&std::path::Path)) -> (World, FileId) {
    let mut world = World::new();
    let file = world.dirty(&pattern(50_000));
    wanted(&world, "b", &file);
    prepare(&world, &file);
    let id = file.id();
    drop(file);
    world.stop();
    spoil(&data_file(&world, id));
    world.start(false).unwrap();
    (world, id)
}

fn folder(world: &World) -> Vec<String> {
    let names = std::fs::read_dir(world.directory.path().join("damaged")).into_iter().flatten();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_crash_of_the_machine_leaves_what_its_sums_prove() {
    let (world, id) = after_a_crash(|_, file| file.seal().unwrap(), |_| {});
    assert_eq!(all(&world.cache().get(id).unwrap()), pattern(50_000));
    assert_eq!((world.journal().desired().unwrap().len(), folder(&world).len()), (1, 0));
    // An empty file whose name was not synced is proven by its length.
    let mut world = World::new();
    let file = world.dirty(b"");
    wanted(&world, "b", &file);
    file.seal().unwrap();
    let id = file.id();
    drop(file);
    world.stop();
    std::fs::remove_file(data_file(&world, id)).unwrap();
    world.start(false).unwrap();
    assert_eq!(all(&world.cache().get(id).unwrap()), b"");
}

#[test]
fn what_was_added_after_the_last_sync_goes_and_the_rest_stays() {
    let synced = |world: &World, file: &Arc<LocalFile>| {
        world.cache().sync().unwrap();
        file.write_at(50_000, &[9; 5000]).unwrap();
    };
    let zeros = |path: &std::path::Path| File::options().write(true).open(path).unwrap().write_all_at(&[0; 5000], 50_000).unwrap();
    let (world, id) = after_a_crash(synced, zeros);
    let file = world.cache().get(id).unwrap();
    assert_eq!((all(&file), file.is_dirty()), (pattern(50_000), true));
}

#[test]
fn a_torn_file_is_given_up_and_kept_for_people() {
    type Prepare = fn(&World, &Arc<LocalFile>);
    let sealed: Prepare = |_, file| file.seal().unwrap();
    let never: Prepare = |_, _| {};
    let changed: Prepare = |world, file| {
        world.cache().sync().unwrap();
        file.write_at(100, b"x").unwrap();
    };
    for (what, prepare, zeros) in [("sealed, not synced", sealed, 4096), ("never closed", never, 0), ("changed since", changed, 0)] {
        let (mut world, id) = after_a_crash(prepare, |path| {
            File::options().write(true).open(path).unwrap().write_all_at(&vec![0; zeros], 8192).unwrap();
        });
        assert!(world.cache().get(id).is_none() && world.journal().desired().unwrap().is_empty(), "{what}");
        assert_eq!((folder(&world), world.cache().damage().kept_files), (vec![format!("{id}-b")], 1), "{what}");
        assert_eq!((world.data_files(), world.cache().usage().bytes), (0, 0));
        world.kill(true);
        assert_eq!((world.cache().damage().kept_files, world.journal().files().unwrap().len()), (1, 0), "still told");
    }
}

#[test]
fn a_torn_file_that_was_renamed_leaves_its_old_bytes_under_the_new_name() {
    let mut world = World::new();
    let file = world.clean("a", &pattern(50_000));
    world.journal().apply(&[Change::PutFile(file.row(true).unwrap())]).unwrap();
    file.mark_dirty();
    file.write_at(0, b"new").unwrap();
    wanted(&world, "b", &file);
    drop(file);
    world.kill(false);
    let desired = world.journal().desired().unwrap();
    assert_eq!(desired.len(), 1);
    assert_eq!((desired[0].0.as_str(), &desired[0].1.content), ("b", &Content::Restored(version("a", 50_000))));
}

#[test]
fn sums_leave_memory_with_the_last_pin_and_the_next_sync() {
    let world = World::new();
    let file = world.clean("a", &pattern(50_000));
    let pin = file.pin();
    world.cache().sync().unwrap();
    assert!(file.state.lock().sums.is_some());
    drop(pin);
    assert!(file.state.lock().sums.is_none());
    flip(&world, file.id(), 5, true);
    assert_eq!(read(&file, 0..10), None);
}

#[test]
fn a_file_that_was_checked_is_not_read_again_until_it_changes() {
    for quiet in [true, false] {
        let world = World::new();
        let file = world.clean("a", &pattern(50_000));
        let _pin = file.pin();
        assert!(file.verify_all().unwrap());
        let checked = file.state.lock().verified.clone();
        assert!(file.verify_all().unwrap());
        assert!(checked.is_some() && file.state.lock().verified == checked);
        // Whoever sets the time of the last change back changes the other one.
        flip(&world, file.id(), 5, quiet);
        assert!(!file.verify_all().unwrap());
    }
}

#[test]
fn an_open_file_outlives_the_key_of_its_version() {
    // Renamed, and the delete of its old name lands before anybody has told it of the new one.
    let mut world = World::new();
    let content = pattern(3 * BLOCK + 5);
    let file = world.clean("old", &content);
    let pin = file.pin();
    world.cache().sync().unwrap();
    world.cache().forget_key(&"old".into());
    assert_eq!(world.cache().versions(), []);
    assert_eq!(read(&file, 0..content.len() as u64).unwrap(), content);
    let row = file.row(true).unwrap();
    world.journal().apply(&[Change::PutFile(row)]).unwrap();
    file.mark_dirty();
    wanted(&world, "new", &file);
    file.write_at(BLOCK as u64, b"changed").unwrap();
    file.seal().unwrap();
    let mut expected = content;
    expected[BLOCK..BLOCK + 7].copy_from_slice(b"changed");
    assert_eq!(read(&file, 0..expected.len() as u64).unwrap(), expected);
    let id = file.id();
    drop((pin, file));
    assert_eq!(all(&world.cache().get(id).unwrap()), expected, "it is wanted: closing it is not its end");
    world.kill(true);
    assert_eq!(all(&world.cache().get(id).unwrap()), expected);
}

#[test]
fn a_closed_file_goes_with_the_key_of_its_version() {
    let world = World::new();
    let file = world.clean("old", b"bytes");
    world.cache().sync().unwrap();
    world.cache().forget_key(&"old".into());
    assert_eq!((world.data_files(), world.cache().usage().bytes), (0, 0));
    let _pin = file.pin();
    assert_eq!(read(&file, 0..5), None, "it is empty, and may be fetched again");
}

#[test]
fn zeros_that_share_a_block_with_data_come_to_rest_with_it() {
    // Grown by truncate(2), at rest, and then appended to: the end of the zeros lies in a block that is no hole.
    let mut world = World::new();
    world.block_bytes = 4 << 10;
    world.kill(true);
    let file = world.dirty(b"");
    wanted(&world, "a", &file);
    file.truncate(948).unwrap();
    file.seal().unwrap();
    world.cache().sync().unwrap();
    file.write_at(948, &pattern(BLOCK)).unwrap();
    world.cache().sync().unwrap();
    let (id, mut expected) = (file.id(), vec![0; 948]);
    expected.extend(pattern(BLOCK));
    drop(file);
    world.kill(false);
    assert!(all(&world.cache().get(id).unwrap()) == expected, "what was synced outlives a power cut");
}
