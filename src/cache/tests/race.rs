//! Threads that write, fetch, upload and sync one file at once; then the daemon is killed.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::*;
use crate::journal::Change;

const SIZE: u64 = 40_000;

/// What the bucket holds under the file's base, as far as this test knows.
type Bucket = Mutex<Vec<(Version, Vec<u8>)>>;

/// Writes `rounds` pieces; hands the content to the uploader now and then. Returns what a program would read.
fn write(world: &World, file: &Arc<LocalFile>, upload: &Mutex<Option<(Stamp, Vec<u8>)>>, base: Vec<u8>, rounds: u64) -> Vec<u8> {
    let mut content = base;
    for round in 0..rounds {
        let (offset, length) = (round * 7919 % SIZE, 1 + round * 104_729 % 900);
        let data = vec![round as u8; length as usize];
        while let Err(refused) = file.write_at(offset, &data) {
            assert!(matches!(refused, WriteRefused::Clean), "{refused:?}");
            let row = file.row(true).unwrap();
            world.journal().apply(&[Change::PutFile(row)]).unwrap();
            file.mark_dirty();
        }
        let end = (offset + length) as usize;
        content.resize(content.len().max(end), 0);
        content[offset as usize..end].copy_from_slice(&data);
        if round % 10 == 0 {
            let mut waiting = upload.lock();
            if waiting.is_none() {
                *waiting = Some((file.stamp().unwrap(), content.clone()));
            }
        }
    }
    content
}

fn upload(world: &World, file: &Arc<LocalFile>, waiting: &Mutex<Option<(Stamp, Vec<u8>)>>, bucket: &Bucket) {
    let Some((stamp, sent)) = waiting.lock().take() else { return std::thread::yield_now() };
    let mut bucket = bucket.lock();
    let version = version(&format!("k{}", bucket.len()), sent.len() as u64);
    bucket.push((version.clone(), sent));
    let clean = file.settle(&stamp, &version).unwrap();
    drop(bucket);
    let row = file.row(!clean).unwrap();
    world.journal().apply(&[Change::PutFile(row)]).unwrap();
}

fn fetch(file: &LocalFile, bucket: &Bucket, round: u64) {
    let bucket = bucket.lock();
    let base = file.base().unwrap();
    let (_, bytes) = bucket.iter().rfind(|(version, _)| *version == base).unwrap();
    let start = (round * 1299 % bytes.len() as u64) as usize;
    let end = (start + 700).min(bytes.len());
    file.fill(&base, start as u64, &bytes[start..end]).unwrap();
}

#[test]
fn nothing_acknowledged_is_lost() {
    for round in 0..8 {
        let mut world = World::in_memory();
        let start: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8 + 1).collect();
        let first = version("k0", SIZE);
        let bucket: Bucket = Mutex::new(vec![(first.clone(), start.clone())]);
        let file = world.cache().of_version(&first).unwrap();
        let pin = file.pin();
        let (done, waiting) = (AtomicBool::new(false), Mutex::new(None));
        let until_done = |work: &dyn Fn(u64)| (0..).take_while(|_| !done.load(Ordering::Acquire)).for_each(work);
        let content = std::thread::scope(|scope| {
            scope.spawn(|| until_done(&|_| upload(&world, &file, &waiting, &bucket)));
            scope.spawn(|| until_done(&|round| fetch(&file, &bucket, round)));
            scope.spawn(|| until_done(&|_| world.cache().sync().unwrap()));
            let content = write(&world, &file, &waiting, start, 150 + 37 * round);
            done.store(true, Ordering::Release);
            content
        });
        let (id, base, dirty) = (file.id(), file.base().unwrap(), file.is_dirty());
        drop((pin, file));
        world.kill(true);
        let Some(file) = world.cache().get(id) else {
            assert!(!dirty);
            continue;
        };
        assert!(file.is_dirty() == dirty && file.base() == Some(base.clone()));
        let bytes = &bucket.lock().iter().rfind(|(version, _)| *version == base).unwrap().1.clone();
        file.fill(&base, 0, bytes).unwrap();
        assert!(all(&file) == content, "round {round}");
    }
}

/// Saves as programs make them, with syncs and uploads that begin and end anywhere in between.
#[test]
fn what_is_saved_while_it_is_synced_reads_right() {
    // Where an fsync takes its time.
    let mut world = World::new();
    let file = world.dirty(b"");
    let mut wrong = Vec::new();
    let (done, syncs) = (AtomicBool::new(false), AtomicUsize::new(0));
    let content = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    world.cache().sync().unwrap();
                    syncs.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        let mut content = Vec::new();
        for round in 0..300u64 {
            let pin = file.pin();
            if round % 3 != 2 {
                file.truncate(0).unwrap();
                content.clear();
            }
            for piece in 0..1 + round % 5 {
                let data = vec![(round + piece) as u8; 1 + (round * 7919 + piece * 104_729) as usize % 20_000];
                file.write_at(content.len() as u64, &data).unwrap();
                content.extend(data);
            }
            file.seal().unwrap();
            drop(pin);
            // What began before the close has ended.
            let ended = syncs.load(Ordering::Acquire) + 3;
            while syncs.load(Ordering::Acquire) < ended {
                std::thread::yield_now();
            }
            let mut buffer = vec![0; content.len()];
            if !matches!(file.read_at(0, &mut buffer), Ok(Some(length)) if length == content.len()) || buffer != content {
                wrong.push(round);
            }
        }
        done.store(true, Ordering::Release);
        content
    });
    assert!(wrong.is_empty(), "rounds {wrong:?}");
    let id = file.id();
    drop(file);
    world.kill(true);
    assert!(all(&world.cache().get(id).unwrap()) == content);
}
