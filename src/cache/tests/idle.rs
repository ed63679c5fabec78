//! Files that nobody uses, and what of them is in memory.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::rot::{data_file, flip};
use super::*;
use crate::journal::Change;

/// Over what an open reads to check a file.
const LARGE: usize = 2 << 20;

fn pattern(key: &str, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 ^ key.as_bytes()[0]).collect()
}

fn is_idle(world: &World, id: FileId) -> bool {
    world.cache().shared.index.lock().is_idle(id)
}

/// Clean files `a` to `f` of so many bytes at rest, and the ids of those that were used longest ago.
fn resting(world: &World, length: usize) -> Vec<FileId> {
    let fetched = |key: &&str| {
        let pin = world.cache().of_version(&version(key, length as u64)).unwrap().pin();
        world.clean(key, &pattern(key, length));
        pin.file().id()
    };
    let ids: Vec<FileId> = ["a", "b", "c", "d", "e", "f"].iter().map(fetched).collect();
    world.cache().sync().unwrap();
    ids[..4].to_vec()
}

fn find(world: &World, key: &str, length: usize) -> Option<Arc<LocalFile>> {
    world.cache().find_version(&version(key, length as u64))
}

#[test]
fn one_that_nobody_uses_is_what_it_was_when_it_is_used_again() {
    let mut world = World::in_memory();
    world.block_bytes = 4096;
    world.kill(true);
    let ids = resting(&world, LARGE + 5);
    assert!(ids.iter().all(|id| is_idle(&world, *id)));
    let before = world.cache().usage();
    let file = find(&world, "a", LARGE + 5).unwrap();
    assert_eq!((file.id(), file.size(), file.is_complete(), file.is_dirty()), (ids[0], LARGE as u64 + 5, true, false));
    let pin = file.pin();
    assert!(file.back().unwrap().is_some(), "it was written since the start, and need not be read for that");
    assert!(all(&file) == pattern("a", LARGE + 5) && !is_idle(&world, ids[0]));
    drop((file, pin));
    assert_eq!(world.cache().usage(), before);
    world.cache().sync().unwrap();
    let again: Vec<bool> = ids.iter().map(|id| is_idle(&world, *id)).collect();
    assert_eq!(again, [false, true, true, true], "it is one of those used last now");
    find(&world, "b", LARGE + 5).unwrap();
    find(&world, "c", LARGE + 5).unwrap();
    world.cache().sync().unwrap();
    assert!(is_idle(&world, ids[0]));
}

#[test]
fn one_that_somebody_uses_stays_and_so_does_what_the_journal_does_not_know() {
    let world = World::in_memory();
    let held = world.clean("held", b"1");
    let pin = world.clean("pinned", b"2").pin();
    let written_to = world.clean("written to", b"3");
    written_to.add_writer();
    let written_to = written_to.id();
    let part = version("part", 10);
    let partial = world.cache().of_version(&part).unwrap();
    assert!(partial.fill(&part, 0, b"12345").unwrap());
    let partial = partial.id();
    let dirty = world.dirty(b"4").id();
    let unsynced = world.clean("unsynced", b"5").id();
    let others = || ["x", "y", "z"].iter().for_each(|key| drop(world.clean(key, b"6")));
    others();
    world.cache().shared.rest();
    assert!(!is_idle(&world, unsynced));
    world.cache().sync().unwrap();
    others();
    world.cache().sync().unwrap();
    let ids = [held.id(), pin.file().id(), written_to, partial, dirty];
    assert_eq!(ids.map(|id| is_idle(&world, id)), [false; 5]);
    assert!(is_idle(&world, unsynced));
    drop((held, pin));
    others();
    world.cache().sync().unwrap();
    assert_eq!(ids.map(|id| is_idle(&world, id)), [true, true, false, false, false]);
}

#[test]
fn what_happens_to_the_data_file_meanwhile_is_noticed() {
    let world = World::in_memory();
    let ids = resting(&world, LARGE);
    flip(&world, ids[0], 100, true);
    flip(&world, ids[1], 100, false);
    File::options().write(true).open(data_file(&world, ids[2])).unwrap().set_len(10).unwrap();
    assert!(ids.iter().all(|id| is_idle(&world, *id)));
    for key in ["a", "b", "c"] {
        let file = find(&world, key, LARGE).unwrap();
        if key != "a" {
            assert!(file.back().map_or(true, |backing| backing.is_none()), "the kernel would read {key} unchecked");
        }
        assert!(read(&file, 0..200).is_none(), "{key} is fetched again");
    }
}

#[test]
fn they_are_evicted_as_others_are() {
    let world = World::with_limit(600);
    let ids = resting(&world, 100);
    assert!(ids.iter().all(|id| is_idle(&world, *id)));
    drop(world.clean("new", &[1; 250]));
    let there: Vec<bool> = ["a", "b", "c", "d", "e"].iter().map(|key| find(&world, key, 100).is_some()).collect();
    assert_eq!(there, [false, false, false, true, true]);
    assert_eq!((world.cache().usage().bytes, world.data_files()), (550, 4));
    world.cache().forget_key(&Key::from("d"));
    assert!(find(&world, "d", 100).is_none());
    assert_eq!((world.cache().usage().bytes, world.data_files()), (450, 3));
    assert!(world.journal().files().unwrap().iter().all(|row| !ids.contains(&row.id)));
}

#[test]
fn one_that_is_changed_is_unsent_data_before_its_first_byte_is() {
    let mut world = World::in_memory();
    let ids = resting(&world, 5_000);
    let file = find(&world, "b", 5_000).unwrap();
    world.journal().apply(&[Change::PutFile(file.row(true).unwrap())]).unwrap();
    file.mark_dirty();
    file.write_at(0, b"changed").unwrap();
    drop(file);
    world.cache().sync().unwrap();
    assert!(!is_idle(&world, ids[1]) && find(&world, "b", 5_000).is_none());
    world.kill(true);
    let file = world.cache().get(ids[1]).unwrap();
    assert!(file.is_dirty());
    assert_eq!(all(&file)[..10], *[b"changed", &pattern("b", 5_000)[7..10]].concat());
    world.cache().discard(ids[0]);
    assert!(find(&world, "a", 5_000).is_none());
}

#[test]
fn a_start_has_no_more_of_them_in_memory() {
    let mut world = World::in_memory();
    let ids = resting(&world, 3_000);
    for trusted in [true, false] {
        world.kill(trusted);
        assert_eq!(ids.iter().filter(|id| is_idle(&world, **id)).count(), if trusted { 4 } else { 0 }, "a power cut leaves nothing clean");
    }
    let world = World::in_memory();
    let ids = resting(&world, 3_000);
    // A program that had the file open for writing when the daemon died is told by the disk.
    let file = File::options().write(true).open(data_file(&world, ids[0])).unwrap();
    file.write_all_at(b"theirs", 0).unwrap();
    assert!(is_idle(&world, ids[0]) && read(&find(&world, "a", 3_000).unwrap(), 0..10).is_none());
}
