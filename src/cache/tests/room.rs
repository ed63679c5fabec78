//! Budget and eviction.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::error::Error;

fn there(world: &World, keys: &[(&str, u64)]) -> Vec<bool> {
    let index = world.cache().shared.index.lock();
    keys.iter().map(|(key, size)| index.has_version(&version(key, *size))).collect()
}

#[test]
fn what_was_used_longest_ago_goes_first() {
    let world = World::with_limit(100);
    for key in ["a", "b", "c"] {
        world.clean(key, &[1; 30]);
    }
    world.cache().find_version(&version("a", 30)).unwrap();
    world.clean("d", &[1; 30]);
    assert_eq!(there(&world, &[("a", 30), ("b", 30), ("c", 30), ("d", 30)]), [true, false, true, true]);
    assert_eq!((world.cache().usage().bytes, world.data_files()), (90, 3));
    world.cache().sync().unwrap();
    world.clean("e", &[1; 80]);
    assert_eq!(there(&world, &[("a", 30), ("c", 30), ("d", 30), ("e", 80)]), [false, false, false, true]);
    assert_eq!(world.journal().files().unwrap(), [], "rows go with their files");
}

#[test]
fn dirty_and_pinned_files_stay() {
    let world = World::with_limit(100);
    let pinned = world.clean("a", &[1; 30]);
    let pin = pinned.pin();
    let dirty = world.dirty(&[2; 30]);
    let victim = world.clean("b", &[1; 30]);
    let more = world.cache().of_version(&version("c", 50)).unwrap();
    assert!(matches!(more.fill(&version("c", 50), 0, &[1; 50]), Err(Error::NoSpace)));
    assert!(victim.missing(0..30) == [0..30] && all(&pinned) == [1; 30] && all(&dirty) == [2; 30]);
    assert!(matches!(dirty.write_at(30, &[2; 41]), Err(WriteRefused::Full)));
    drop(pin);
    dirty.write_at(30, &[2; 41]).unwrap();
    assert_eq!(world.cache().usage(), Usage { bytes: 71, dirty_bytes: 71, limit_bytes: 100, files: world.cache().usage().files });
    assert!(matches!(dirty.write_at(71, &[2; 30]), Err(WriteRefused::Full)));
    assert_eq!(dirty.size(), 71);
}

#[test]
fn writing_again_where_something_is_takes_no_room() {
    let world = World::with_limit(10);
    let file = world.dirty(&[1; 10]);
    file.write_at(0, &[2; 10]).unwrap();
    assert!(matches!(file.write_at(5, &[2; 6]), Err(WriteRefused::Full)));
    file.truncate(4).unwrap();
    assert_eq!(world.cache().usage().bytes, 4);
    file.write_at(4, &[3; 6]).unwrap();
    assert_eq!(all(&file), [2, 2, 2, 2, 3, 3, 3, 3, 3, 3]);
}

#[test]
fn holes_take_no_room_until_they_are_written() {
    let mut world = World::with_limit(1 << 20);
    let file = world.dirty(b"");
    let id = file.id();
    file.truncate(1 << 40).unwrap();
    file.write_at(1 << 30, &[1; 8192]).unwrap();
    assert_eq!(world.cache().usage().bytes, 8192);
    file.zero((1 << 30)..(1 << 30) + 4096, true).unwrap();
    assert_eq!(world.cache().usage().bytes, 4096);
    file.write_at((1 << 30) + 10, &[1]).unwrap();
    assert_eq!(world.cache().usage().bytes, 4097);
    file.truncate(100).unwrap();
    assert_eq!(world.cache().usage().bytes, 0);
    file.write_at(1 << 20, &[1; 65536]).unwrap();
    drop(file);
    world.kill(true);
    assert_eq!(all(&world.cache().get(id).unwrap()).len(), (1 << 20) + 65536);
    assert_eq!(world.cache().usage().bytes, 65536, "holes are found again");
}

#[test]
fn an_evicted_file_that_somebody_still_knows_is_an_empty_one() {
    let world = World::with_limit(30);
    let file = world.clean("a", &[1; 30]);
    world.clean("b", &[1; 30]);
    assert_eq!((read(&file, 0..30), file.is_complete(), file.missing(0..99)), (None, false, vec![0..30]));
    assert!(matches!(file.fill(&version("a", 30), 0, &[1; 30]), Err(Error::NoSpace)));
    let pin = file.pin();
    assert!(file.fill(&version("a", 30), 0, &[1; 30]).unwrap());
    assert_eq!(world.cache().find_version(&version("a", 30)).unwrap().id(), file.id());
    assert_eq!((all(pin.file()), world.cache().usage().bytes), (vec![1; 30], 30));
}

#[test]
fn the_floor_of_the_disk_holds() {
    let mut world = World::new();
    let free = world.cache().shared.disk.available().unwrap();
    world.limits.free_floor_bytes = free * 2;
    world.kill(true);
    let base = version("a", 30);
    assert!(matches!(world.cache().of_version(&base).unwrap().fill(&base, 0, &[1; 30]), Err(Error::NoSpace)));
    let file = world.dirty(b"");
    assert!(matches!(file.write_at(0, b"x"), Err(WriteRefused::Full)));
}

/// Threads fill, write, upload and delete in a cache that is far too small, while another one looks.
#[test]
fn the_limit_is_never_passed() {
    const LIMIT: u64 = 200_000;
    let world = World::with_limit(LIMIT);
    let cache = world.cache();
    let done = AtomicBool::new(false);
    let look = || {
        while !done.load(Ordering::Acquire) {
            let usage = cache.usage();
            assert!(usage.bytes <= LIMIT && usage.dirty_bytes <= usage.bytes, "{usage:?}");
            std::thread::yield_now();
        }
    };
    let work = |thread: u64| {
        for n in 0..150 {
            let size = 1 + (thread * 7919 + n * 104_729) % 60_000;
            let data = vec![thread as u8; size as usize];
            let base = version(&format!("{thread}-{}", n % 20), size);
            let file = cache.of_version(&base).unwrap();
            let _pin = (n % 3 == 0).then(|| file.pin());
            match file.fill(&base, 0, &data) {
                Ok(true) | Err(Error::NoSpace) => {}
                other => panic!("{other:?}"),
            }
            let file = cache.create().unwrap();
            file.mark_dirty();
            if file.write_at(0, &data).is_ok() {
                let stamp = file.stamp().unwrap();
                assert!(file.settle(&stamp, &version(&format!("new-{thread}-{n}"), size)).unwrap());
            } else {
                cache.discard(file.id());
            }
        }
    };
    std::thread::scope(|scope| {
        let looking = scope.spawn(look);
        let syncing = scope.spawn(|| (0..20).for_each(|_| cache.sync().unwrap()));
        let working: Vec<_> = (0..4).map(|thread| scope.spawn(move || work(thread))).collect();
        working.into_iter().for_each(|thread| thread.join().unwrap());
        syncing.join().unwrap();
        done.store(true, Ordering::Release);
        looking.join().unwrap();
    });
    let on_disk: u64 = cache.shared.disk.scan().unwrap().iter().map(|(_, file)| file.size).sum();
    assert_eq!((cache.usage().dirty_bytes, cache.usage().bytes), (0, on_disk));
}
