//! Parts that an upload holds, and bytes that the base has too, give up their room.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::journal::{Change, FreedPart, KeptUpload};
use crate::store::{Part, UploadId};
use crate::types::FileId;

const KIB: u64 = 1 << 10;
const SIZE: u64 = 64 * KIB;

fn content() -> Vec<u8> {
    (0..SIZE).map(|at| (at / 251) as u8 | 1).collect()
}

fn rows(file: FileId, span: Span) -> Vec<Change> {
    let kept = KeptUpload { file, part_bytes: span.end - span.start, headers: Default::default() };
    let number = (span.start / (span.end - span.start)) as u32 + 1;
    let part = Part { number, etag: ETag::new("part"), size: span.end - span.start };
    vec![
        Change::KeepUpload(UploadId("u".into()), kept),
        Change::FreePart(UploadId("u".into()), file, FreedPart { part, span, md5: [7; 16] }),
    ]
}

pub fn free(file: &Arc<LocalFile>, span: Span) -> bool {
    let watch = file.watch(span.clone());
    file.free(&watch, &rows(file.id(), span)).unwrap()
}

/// A dirty file of [`SIZE`] without a base, in a cache that counts the disk's blocks; its second quarter is freed.
fn freed() -> (World, Arc<LocalFile>) {
    let (world, file) = unfreed();
    assert!(free(&file, 16 * KIB..32 * KIB));
    (world, file)
}

/// All of it is here.
pub fn unfreed() -> (World, Arc<LocalFile>) {
    let mut world = World::new();
    world.block_bytes = 4 * KIB;
    world.kill(true);
    let file = world.dirty(&content());
    (world, file)
}

fn check(world: &World, file: &Arc<LocalFile>) {
    let quarter = 16 * KIB..32 * KIB;
    assert_eq!((file.freed(), file.is_complete(), file.size()), (vec![quarter.clone()], false, SIZE));
    assert_eq!((read(file, quarter.clone()), file.missing(0..SIZE)), (None, vec![]), "nobody fetches it from a base");
    assert_eq!(read(file, 0..16 * KIB).unwrap(), content()[..16 << 10]);
    assert_eq!(read(file, 32 * KIB..SIZE).unwrap(), content()[32 << 10..]);
    assert_eq!(world.cache().usage().bytes, 48 * KIB);
    let on_disk: u64 = world.cache().shared.disk.scan().unwrap().iter().map(|(_, file)| file.allocated).sum();
    assert_eq!(on_disk, 48 * KIB);
}

#[test]
fn a_freed_part_is_nowhere_here_and_the_rest_stays() {
    let (mut world, file) = freed();
    let id = file.id();
    check(&world, &file);
    drop(file);
    for trusted in [true, false, true] {
        world.kill(trusted);
        check(&world, &world.cache().get(id).unwrap());
    }
}

#[test]
fn killed_before_the_hole_was_made_it_is_made_at_the_start() {
    let (mut world, file) = freed();
    let (id, path) = (file.id(), world.cache().shared.disk.path(file.id()));
    drop(file);
    world.stop();
    let data = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&data, &[1; 16 << 10], 16 << 10).unwrap();
    world.start(true).unwrap();
    check(&world, &world.cache().get(id).unwrap());
}

#[test]
fn a_freed_part_is_written_over_whole_or_not_at_all() {
    let (mut world, file) = freed();
    let id = file.id();
    for (at, length) in [(16 * KIB, 1), (10 * KIB, 10 * KIB), (20 * KIB, 20 * KIB)] {
        assert!(matches!(file.write_at(at, &vec![2; length as usize]), Err(WriteRefused::Freed)), "{at} {length}");
    }
    assert!(matches!(file.truncate(20 * KIB), Err(WriteRefused::Freed)));
    assert!(matches!(file.zero(20 * KIB..21 * KIB, true), Err(WriteRefused::Freed)));
    file.write_at(16 * KIB, &[2; 16 << 10]).unwrap();
    assert!(file.freed().is_empty() && file.is_complete() && world.journal().freed().unwrap().is_empty());
    assert!(free(&file, 32 * KIB..48 * KIB));
    file.truncate(32 * KIB).unwrap();
    assert!(file.freed().is_empty() && world.journal().freed().unwrap().is_empty());
    file.write_at(SIZE, b"end").unwrap();
    let expected: Vec<u8> =
        [&content()[..16 << 10], &[2; 16 << 10][..], &[0; 32 << 10][..], b"end"].into_iter().flatten().copied().collect();
    assert_eq!(all(&file), expected);
    drop(file);
    world.kill(true);
    assert_eq!(all(&world.cache().get(id).unwrap()), expected);
}

#[test]
fn what_changed_while_it_was_sent_is_not_freed() {
    let world = World::new();
    let file = world.dirty(&content());
    let watch = file.watch(0..16 * KIB);
    file.write_at(20 * KIB, b"beside it").unwrap();
    assert!(file.free(&watch, &rows(file.id(), 0..16 * KIB)).unwrap());
    let watch = file.watch(16 * KIB..32 * KIB);
    file.write_at(20 * KIB, b"in it").unwrap();
    assert!(!file.free(&watch, &rows(file.id(), 16 * KIB..32 * KIB)).unwrap());
    assert_eq!(file.freed(), [0..16 * KIB]);
}

#[test]
fn a_refused_record_frees_nothing() {
    let world = World::new();
    let file = world.dirty(&content());
    let watch = file.watch(0..16 * KIB);
    world.journal().refuse_commits(true);
    assert!(file.free(&watch, &rows(file.id(), 0..16 * KIB)).is_err());
    world.journal().refuse_commits(false);
    assert_eq!((all(&file), file.freed(), world.cache().usage().bytes), (content(), vec![], SIZE));
}

#[test]
fn the_version_that_the_upload_becomes_is_the_base_of_what_was_freed() {
    let (mut world, file) = freed();
    let (id, stamp) = (file.id(), file.stamp().unwrap());
    let base = version("a", SIZE);
    assert!(file.settle_with(&stamp, &base, &[Change::EndUpload(UploadId("u".into()))], &[]).unwrap());
    assert_eq!((file.missing(0..SIZE), file.freed()), (vec![16 * KIB..32 * KIB], vec![]));
    assert!(world.journal().freed().unwrap().is_empty() && world.journal().kept_uploads().unwrap().is_empty());
    drop(file);
    world.kill(true);
    let file = world.cache().get(id).unwrap();
    assert!(!file.is_dirty() && file.fill(&base, 16 * KIB, &content()[16 << 10..32 << 10]).unwrap());
    assert_eq!(all(&file), content());
}

#[test]
fn a_small_file_takes_a_block() {
    let mut world = World::with_limit(10 * 4 * KIB);
    world.block_bytes = 4 * KIB;
    world.kill(true);
    let files: Vec<_> = (0..10).map(|_| world.dirty(b"x")).collect();
    assert_eq!(world.cache().usage().bytes, 40 * KIB);
    assert!(matches!(world.cache().create().map(|file| (file.mark_dirty(), file.write_at(0, b"x")).1), Ok(Err(WriteRefused::Full))));
    files[0].write_at(1, b"in the same block").unwrap();
}

/// One thread takes a clean file's bytes away and fills them in again, while others read: what they get is right.
#[test]
fn who_reads_while_bytes_go_reads_no_hole() {
    let world = World::new();
    let (file, base, content) = (world.clean("a", &content()), version("a", SIZE), content());
    let _pin = file.pin();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut hits = 0;
                    while !done.load(Ordering::Acquire) {
                        if let Some(bytes) = read(&file, 0..SIZE) {
                            assert!(bytes == content, "a hole was read");
                            hits += 1;
                        }
                    }
                    hits
                })
            })
            .collect();
        for _ in 0..300 {
            assert_eq!(world.cache().squeeze(0).unwrap(), SIZE);
            assert_eq!(world.cache().usage().bytes, 0);
            assert!(file.fill(&base, 0, &content).unwrap());
        }
        done.store(true, Ordering::Release);
        let hits: usize = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert!(hits > 0);
    });
}

#[test]
fn only_what_the_base_has_too_is_squeezed_out() {
    let mut world = World::new();
    world.block_bytes = 4 * KIB;
    world.kill(true);
    let file = world.clean("a", &content());
    file.mark_dirty();
    file.write_at(20 * KIB, b"changed").unwrap();
    file.write_at(SIZE, b"new").unwrap();
    assert_eq!(world.cache().squeeze(SIZE).unwrap(), 0, "one that goes up whole keeps all it has");
    assert!(world.cache().squeeze(SIZE - 1).unwrap() > 0);
    // The changed block of sums, and the new bytes.
    assert_eq!(world.cache().usage().bytes, 20 * KIB);
    assert_eq!(
        (read(&file, 20 * KIB..20 * KIB + 7).unwrap(), read(&file, SIZE..SIZE + 3).unwrap()),
        (b"changed".to_vec(), b"new".to_vec())
    );
    assert!(file.fill(&version("a", SIZE), 0, &content()).unwrap());
    let id = file.id();
    let mut expected = content();
    expected[20 << 10..(20 << 10) + 7].copy_from_slice(b"changed");
    expected.extend(b"new");
    assert_eq!(all(&file), expected);
    drop(file);
    world.kill(true);
    let file = world.cache().get(id).unwrap();
    assert!(file.is_dirty() && all(&file) == expected);
}
