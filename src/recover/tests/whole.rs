//! Is everything there, and is it what was written?

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use super::*;
use crate::error::Error;
use crate::journal::{FreedPart, KeptUpload};
use crate::store::{Part, UploadId};
use crate::types::Span;

const KIB: u64 = 1 << 10;
const SIZE: u64 = 160 * KIB;
/// One part of the file, which gave up its room.
const FREED: Span = 64 * KIB..128 * KIB;
const BUCKET: &str = "s3://b/ at AWS";

fn bytes(seed: u8) -> Vec<u8> {
    (0..SIZE).map(|at| (at % 251) as u8 ^ seed).collect()
}

fn open(directory: &Path) -> Arc<Cache> {
    let journal = Arc::new(Journal::open(directory, BUCKET).unwrap());
    Cache::open(directory, journal, Limits { size_bytes: 1 << 30, free_floor_bytes: 0 }, true).unwrap()
}

/// Unsent files at rest, of each its number.
fn at_rest(directory: &Path, keys: &[&str]) -> Vec<FileId> {
    let journal = Arc::new(Journal::open(directory, BUCKET).unwrap());
    let cache = Cache::open(directory, journal.clone(), Limits { size_bytes: 1 << 30, free_floor_bytes: 0 }, true).unwrap();
    let write = |(seed, key): (usize, &&str)| {
        let file = cache.create().unwrap();
        let rows = [Change::PutFile(file.row(true).unwrap()), Change::SetDesired((*key).into(), desired(Content::Staged(file.id())))];
        journal.apply(&rows).unwrap();
        file.mark_dirty();
        file.write_at(0, &bytes(seed as u8)).unwrap();
        file.seal().unwrap();
        file.id()
    };
    let ids = keys.iter().enumerate().map(write).collect();
    cache.sync().unwrap();
    journal.sync().unwrap();
    ids
}

/// The part that an upload holds of this file isn't here any more.
fn free(directory: &Path, id: FileId, key: &str) {
    let journal = Arc::new(Journal::open(directory, BUCKET).unwrap());
    let cache = Cache::open(directory, journal.clone(), Limits { size_bytes: 1 << 30, free_floor_bytes: 0 }, true).unwrap();
    let file = cache.get(id).unwrap();
    let upload = UploadId("u1".into());
    journal.apply(&[Change::BeginUpload(key.into(), upload.clone())]).unwrap();
    let kept = KeptUpload { file: id, part_bytes: 64 * KIB, headers: ObjectHeaders::default() };
    let part = Part { number: 2, etag: ETag::new("p2"), size: 64 * KIB };
    let freed = FreedPart { part, span: FREED, md5: [7; 16] };
    let rows = [Change::KeepUpload(upload.clone(), kept), Change::FreePart(upload, id, freed)];
    assert!(file.free(&file.watch(FREED), &rows).unwrap());
}

fn flip(directory: &Path, id: FileId, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(data_path(directory, id)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn checked(directory: &Path) -> Inventory {
    let (mut inventory, _) = look(directory).unwrap();
    check(directory, &mut inventory);
    inventory
}

#[test]
fn parts_in_an_upload_are_neither_here_nor_lost() {
    let upload = || UploadId("u".into());
    let held = |span: Span| {
        let part = Part { number: 2, etag: ETag::new("p"), size: span.end - span.start };
        (FileId(1), upload(), FreedPart { part, span, md5: [7; 16] })
    };
    let on_disk: BTreeMap<FileId, OnDisk> = [(FileId(1), FOUND)].into();
    let row = |base| FileRow { base, present: vec![0..4, 6..8], ..row(1, true, false) };
    let kept = (upload(), KeptUpload { file: FileId(1), part_bytes: 2, headers: ObjectHeaders::default() });
    for (what, base, spans, key, expected, bytes) in [
        ("all in the upload", None, vec![8..10, 4..6], "a", "waiting", 4),
        ("the rest is nowhere", None, vec![4..6], "a", "damaged", 2),
        ("the rest is in the bucket", Some(version("base", 10)), vec![4..6], "a", "waiting", 2),
        ("of another key", None, vec![4..6, 8..10], "b", "damaged", 4),
        ("written over, and past the end", Some(version("base", 10)), vec![2..5, 8..12], "a", "waiting", 0),
    ] {
        let salvage = Salvage {
            uploads: vec![(key.into(), upload())],
            kept_uploads: vec![kept.clone()],
            freed: spans.into_iter().map(held).collect(),
            ..salvage(vec![("a".into(), desired(Content::Staged(FileId(1))))], vec![row(base)])
        };
        let found = inventory(&salvage, &on_disk, Path::new("/c"));
        let waiting = &found.waiting[0];
        assert_eq!(waiting.state_name(), expected, "{what}: {waiting:?}");
        assert_eq!(waiting.in_upload.as_ref().map_or(0, InUpload::bytes), bytes, "{what}");
    }
}

#[tokio::test]
async fn a_damaged_file_is_not_exported_as_right() {
    let place = tempfile::tempdir().unwrap();
    let (directory, target) = (place.path().join("cache"), place.path().join("saved"));
    std::fs::create_dir(&directory).unwrap();
    let ids = at_rest(&directory, &["d/flipped", "d/cut", "right"]);
    let all = checked(&directory);
    assert!(all.waiting.iter().all(|waiting| waiting.state_name() == "waiting" && waiting.unchecked == 0), "{all:?}");
    flip(&directory, ids[0], 70_000);
    OpenOptions::new().write(true).open(data_path(&directory, ids[1])).unwrap().set_len(100_000).unwrap();
    let inventory = checked(&directory);
    let damaged: Vec<(&str, &[Span])> = inventory.waiting.iter().map(|waiting| (waiting.key.as_str(), &*waiting.damaged)).collect();
    let (block, end) = (64 * KIB..80 * KIB, 96 * KIB..SIZE);
    assert_eq!(damaged, [("d/cut", &[end][..]), ("d/flipped", std::slice::from_ref(&block)), ("right", &[])]);
    assert_eq!((inventory.counts().damaged, inventory.counts().files), (2, 3));
    let outcomes = exported(&directory, &target, &ExportOptions::default()).await;
    assert!(matches!(&outcomes["d/flipped"], Outcome::Damaged(lacks) if lacks.damaged == [block]), "{outcomes:?}");
    assert!(matches!(&outcomes["d/cut"], Outcome::Damaged(_)) && matches!(outcomes["right"], Outcome::Written), "{outcomes:?}");
    assert_eq!(std::fs::read(target.join("right")).unwrap(), bytes(2));
    assert!(!target.join("d/flipped").exists() && !target.join("d/flipped.partial").exists());
    let saved = std::fs::read(target.join("d/flipped.damaged")).unwrap();
    assert_eq!(saved.iter().zip(bytes(0)).filter(|(a, b)| **a != *b).count(), 1, "the rest of it is saved");
    assert_eq!(&std::fs::read(target.join("d/cut.damaged")).unwrap()[..100_000], &bytes(1)[..100_000]);
}

#[tokio::test]
async fn what_an_upload_holds_is_left_out_and_said() {
    let place = tempfile::tempdir().unwrap();
    let (directory, target) = (place.path().join("cache"), place.path().join("saved"));
    std::fs::create_dir(&directory).unwrap();
    let ids = at_rest(&directory, &["big"]);
    free(&directory, ids[0], "big");
    let inventory = checked(&directory);
    assert_eq!((inventory.waiting[0].state_name(), &*inventory.waiting[0].damaged), ("waiting", &[][..]), "{inventory:?}");
    assert_eq!(inventory.waiting[0].in_upload.as_ref().map(InUpload::bytes), Some(64 * KIB));
    let outcomes = exported(&directory, &target, &ExportOptions::default()).await;
    let Outcome::Partial(lacks) = &outcomes["big"] else { panic!("{outcomes:?}") };
    assert_eq!(lacks.in_upload.as_ref().map(|held| held.parts.clone()), Some(vec![FREED]));
    assert!(lacks.why.contains("u1") && lacks.why.contains("upload"), "{}", lacks.why);
    let mut expected = bytes(0);
    expected[FREED.start as usize..FREED.end as usize].fill(0);
    assert_eq!(std::fs::read(target.join("big.partial")).unwrap(), expected);
    assert!(!target.join("big").exists());
}

#[tokio::test]
async fn what_a_crash_has_torn_is_listed_and_saved() {
    let place = tempfile::tempdir().unwrap();
    let (directory, target) = (place.path().join("cache"), place.path().join("saved"));
    std::fs::create_dir_all(directory.join("damaged")).unwrap();
    at_rest(&directory, &["a"]);
    std::fs::write(directory.join("damaged/0000000000000007-d%2Fb%2Etxt"), "torn").unwrap();
    let inventory = checked(&directory);
    assert_eq!((inventory.torn[0].key.as_str(), inventory.torn[0].bytes, inventory.counts().torn), ("d/b.txt", 4, 1));
    let outcomes = exported(&directory, &target, &ExportOptions::default()).await;
    assert!(matches!(outcomes[".damaged/0000000000000007-d%2Fb%2Etxt"], Outcome::Torn), "{outcomes:?}");
    assert_eq!(std::fs::read(target.join(".damaged/0000000000000007-d%2Fb%2Etxt")).unwrap(), b"torn");
}

#[test]
fn a_repair_keeps_checksums_and_parts_in_uploads() {
    for is_incomplete in [false, true] {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path();
        let ids = at_rest(directory, &["big", "small"]);
        free(directory, ids[0], "big");
        flip(directory, ids[1], 5);
        let (inventory, before) = look(directory).unwrap();
        let damaged = Salvage { is_incomplete, ..before.clone() };
        assert_eq!(repair(directory, &inventory, damaged, BUCKET).unwrap().1, 0, "nothing is put aside");
        let (_, after) = look(directory).unwrap();
        assert_eq!((&after.files, &after.freed, &after.kept_uploads), (&before.files, &before.freed, &before.kept_uploads));
        assert_eq!((&after.sums, &after.uploads, after.damage.len()), (&before.sums, &before.uploads, 0));
        assert!(!before.sums.is_empty() && before.freed.len() == 1 && before.seals.len() == 2);
        assert_eq!(after.seals, if is_incomplete { vec![] } else { before.seals }, "where rows are missing none is proof");
        let checked = checked(directory);
        let states: Vec<&str> = checked.waiting.iter().map(Waiting::state_name).collect();
        assert_eq!(states, ["waiting", "damaged"]);
        let cache = open(directory);
        assert_eq!(cache.get(ids[0]).unwrap().freed(), [FREED]);
        assert!(matches!(cache.get(ids[1]).unwrap().read_at(0, &mut [0; 100]), Err(Error::Damaged(_))), "a mount reads no damaged byte");
    }
}
