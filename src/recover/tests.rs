mod whole;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::inventory::{inventory, missing};
use super::*;
use crate::cache::{Cache, Limits, OnDisk, data_path};
use crate::journal::{Change, Content, Desired, FileRow, Journal, Salvage, Seal};
use crate::store::fault::{Fault, FaultStore, Faults, Rule};
use crate::store::memory::MemoryStore;
use crate::store::{Body, Condition, Store};
use crate::types::{ETag, FileId, Key, ObjectHeaders, Version};

const FOUND: OnDisk = OnDisk { size: 10, mtime_ns: 5, allocated: 4096 };

fn version(key: &str, size: u64) -> Version {
    Version { key: key.into(), etag: ETag::new("e"), size }
}

fn desired(content: Content) -> Desired {
    Desired { content, headers: None, condition: Condition::Any, was_there: false, since: UNIX_EPOCH }
}

fn row(id: u64, dirty: bool, complete: bool) -> FileRow {
    let present = if complete { vec![] } else { Vec::from_iter([2..4, 6..8]) };
    FileRow { id: FileId(id), base: Some(version("base", 10)), size: 10, dirty, present, complete, mtime_ns: 5, used: 1 }
}

fn salvage(desired: Vec<(Key, Desired)>, files: Vec<FileRow>) -> Salvage {
    Salvage { desired, files, ..Salvage::default() }
}

#[test]
fn every_state_of_a_data_file() {
    let partial = State::NeedsBase { base: version("base", 10), missing: vec![0..2, 4..6, 8..10] };
    let never_written = FileRow { present: vec![], ..row(1, true, false) };
    let baseless = FileRow { base: None, ..row(1, true, false) };
    for (what, row, found, expected) in [
        ("whole", Some(row(1, true, true)), Some(FOUND), Some(State::Waiting)),
        ("in parts", Some(row(1, true, false)), Some(FOUND), Some(partial)),
        ("in parts, all there", Some(FileRow { present: vec![0..10], ..row(1, true, false) }), Some(FOUND), Some(State::Waiting)),
        ("in parts, of nothing", Some(baseless), Some(FOUND), None),
        ("gone", Some(row(1, true, true)), None, None),
        ("nothing of it here", Some(never_written), None, Some(State::NeedsBase { base: version("base", 10), missing: vec![0..10] })),
        ("its row is lost", None, Some(FOUND), None),
    ] {
        let salvage = salvage(vec![("a".into(), desired(Content::Staged(FileId(1))))], row.into_iter().collect());
        let on_disk: BTreeMap<FileId, OnDisk> = found.map(|found| (FileId(1), found)).into_iter().collect();
        let found = inventory(&salvage, &on_disk, Path::new("/c"));
        let state = &found.waiting[0].state;
        match expected {
            Some(expected) => assert_eq!(state, &expected, "{what}"),
            None => assert!(state.reason().is_some(), "{what}: {state:?}"),
        }
    }
}

#[test]
fn what_nobody_names_is_listed_only_where_rows_may_be_missing() {
    let on_disk = [(FileId(1), FOUND), (FileId(2), FOUND), (FileId(3), FOUND)].into();
    let rows = vec![row(1, false, true), row(2, true, true)];
    for (is_incomplete, expected) in [(false, vec![]), (true, vec![FileId(2), FileId(3)])] {
        let salvage = Salvage { is_incomplete, ..salvage(vec![], rows.clone()) };
        let found = inventory(&salvage, &on_disk, Path::new("/c"));
        assert_eq!(found.unnamed.iter().map(|unnamed| unnamed.id).collect::<Vec<_>>(), expected);
        assert!(found.waiting.is_empty());
    }
}

#[test]
fn what_was_written_after_the_end_is_found_or_put_aside() {
    let written_later: BTreeMap<FileId, OnDisk> = [(FileId(1), OnDisk { mtime_ns: 6, ..FOUND })].into();
    let open = Seal { size: 10, whole: false };
    for (what, seal, is_incomplete, expected) in [
        ("it was open", Some(open), false, (1, 0)),
        ("it was at rest: the next mount takes it from the bucket", Some(Seal { whole: true, ..open }), false, (0, 0)),
        ("nobody knows: the same", None, false, (0, 0)),
        ("it was open, as far as is known", Some(open), true, (1, 0)),
        ("that it was opened may be what is missing", Some(Seal { whole: true, ..open }), true, (0, 1)),
        ("nobody knows any more", None, true, (0, 1)),
    ] {
        let seals = seal.map(|seal| (FileId(1), seal)).into_iter().collect();
        let salvage = Salvage { seals, is_incomplete, ..salvage(vec![], vec![row(1, false, true)]) };
        let found = inventory(&salvage, &written_later, Path::new("/c"));
        assert_eq!((found.waiting.len(), found.unnamed.len()), expected, "{what}");
        assert!(found.waiting.iter().all(|waiting| waiting.key.as_str() == "base" && waiting.since.is_none()), "{what}");
    }
}

#[test]
fn missing_and_present_are_the_whole() {
    assert_eq!(missing(&row(1, true, false), None), [0..2, 4..6, 8..10]);
    assert_eq!(missing(&FileRow { present: vec![0..3, 3..20], ..row(1, true, false) }, None), []);
    assert_eq!(missing(&FileRow { size: 0, present: vec![], ..row(1, true, false) }, None), []);
}

/// A cache directory with these keys unsent; hostile ones too, which no mount would have let in.
fn left_behind(directory: &Path, keys: &[&str]) {
    let journal = Arc::new(Journal::open(directory, "s3://b/ at AWS").unwrap());
    let limits = Limits { size_bytes: 1 << 30, free_floor_bytes: 0 };
    let cache = Cache::open(directory, journal.clone(), limits, true).unwrap();
    for key in keys {
        let file = cache.create().unwrap();
        let rows = [Change::PutFile(file.row(true).unwrap()), Change::SetDesired((*key).into(), desired(Content::Staged(file.id())))];
        journal.apply(&rows).unwrap();
        file.mark_dirty();
        file.write_at(0, key.as_bytes()).unwrap();
    }
}

async fn exported(directory: &Path, target: &Path, options: &ExportOptions) -> BTreeMap<String, Outcome> {
    let (inventory, _) = look(directory).unwrap();
    let mut outcomes = BTreeMap::new();
    export(directory, &inventory, target, options, |exported| {
        outcomes.insert(exported.path, exported.outcome);
    })
    .await
    .unwrap();
    outcomes
}

#[tokio::test]
async fn hostile_keys_stay_in_the_folder() {
    let place = tempfile::tempdir().unwrap();
    let (directory, target) = (place.path().join("cache"), place.path().join("top/saved"));
    std::fs::create_dir(&directory).unwrap();
    left_behind(&directory, &["../evil", "/etc/evil", "a/../../evil", "link/evil", "fine/b"]);
    std::fs::create_dir_all(&target).unwrap();
    std::os::unix::fs::symlink(place.path(), target.join("link")).unwrap();
    let outcomes = exported(&directory, &target, &ExportOptions::default()).await;
    assert!(matches!(outcomes["fine/b"], Outcome::Written));
    for (key, outcome) in outcomes.iter().filter(|(key, _)| key.contains("evil")) {
        assert!(matches!(outcome, Outcome::Partial(lacks) if lacks.why.contains(".unnamed")), "{key}: {outcome:?}");
    }
    assert_eq!(std::fs::read(target.join("fine/b")).unwrap(), b"fine/b");
    assert_eq!(std::fs::read_dir(target.join(".unnamed")).unwrap().count(), 4, "their bytes are saved all the same");
    assert!(!place.path().join("evil").exists() && !place.path().join("top/evil").exists());
}

#[tokio::test]
async fn nothing_is_replaced_without_force() {
    let place = tempfile::tempdir().unwrap();
    let (directory, target) = (place.path().join("cache"), place.path().join("saved"));
    std::fs::create_dir(&directory).unwrap();
    left_behind(&directory, &["a", "b"]);
    std::fs::create_dir(&target).unwrap();
    std::fs::write(target.join("outside"), "mine").unwrap();
    std::os::unix::fs::symlink("outside", target.join("a")).unwrap();
    let outcomes = exported(&directory, &target, &ExportOptions::default()).await;
    assert!(matches!(outcomes["a"], Outcome::Failed(_)) && matches!(outcomes["b"], Outcome::Written), "{outcomes:?}");
    let outcomes = exported(&directory, &target, &ExportOptions { force: true, store: None }).await;
    assert!(outcomes.values().all(|outcome| matches!(outcome, Outcome::Written)), "{outcomes:?}");
    assert_eq!(std::fs::read(target.join("a")).unwrap(), b"a");
    assert_eq!(std::fs::read(target.join("outside")).unwrap(), b"mine", "a link is replaced, not followed");
}

#[tokio::test]
async fn what_the_bucket_has_is_fetched_or_left_as_holes() {
    let place = tempfile::tempdir().unwrap();
    let (directory, target) = (place.path().join("cache"), place.path().join("saved"));
    std::fs::create_dir(&directory).unwrap();
    let store: Store = Arc::new(MemoryStore::new());
    let put = async |byte| {
        let body = Body::new(vec![byte; 100_000]);
        store.put(&"big".into(), body, &ObjectHeaders::default(), &Condition::Any).await.unwrap()
    };
    let receipt = put(b'o').await;
    let base = Version { key: "big".into(), etag: receipt.etag().clone(), size: 100_000 };
    {
        let journal = Arc::new(Journal::open(&directory, "s3://b/ at AWS").unwrap());
        let cache = Cache::open(&directory, journal.clone(), Limits { size_bytes: 1 << 30, free_floor_bytes: 0 }, true).unwrap();
        let file = cache.of_version(&base).unwrap();
        let rows = [Change::PutFile(file.row(true).unwrap()), Change::SetDesired("big".into(), desired(Content::Staged(file.id())))];
        journal.apply(&rows).unwrap();
        file.mark_dirty();
        file.write_at(50_000, b"new").unwrap();
    }
    let outcomes = exported(&directory, &target, &ExportOptions::default()).await;
    assert!(matches!(&outcomes["big"], Outcome::Partial(lacks) if !lacks.missing.is_empty()), "{outcomes:?}");
    assert!(target.join("big.partial").exists() && !target.join("big").exists());
    // Bytes of another version are none of it, whether the store looks at conditions or not.
    let _ = put(b'x').await;
    let faults = Faults::new(1);
    let options = ExportOptions { force: true, store: Some(Arc::new(FaultStore::new(store.clone(), faults.clone()))) };
    for fault in [Fault::Latency(Duration::ZERO), Fault::Unconditional] {
        faults.clear();
        faults.add(Rule::any().fault(fault));
        let outcomes = exported(&directory, &target, &options).await;
        assert!(!matches!(outcomes["big"], Outcome::Written) && !target.join("big").exists(), "{outcomes:?}");
    }
    let _ = put(b'o').await;
    let outcomes = exported(&directory, &target, &options).await;
    assert!(matches!(outcomes["big"], Outcome::Written), "{outcomes:?}");
    let mut expected = vec![b'o'; 100_000];
    expected[50_000..50_003].copy_from_slice(b"new");
    assert_eq!(std::fs::read(target.join("big")).unwrap(), expected);
    assert!(!target.join("big.partial").exists());
}

#[test]
fn a_repair_puts_aside_what_nobody_names() {
    let place = tempfile::tempdir().unwrap();
    left_behind(place.path(), &["a", "b"]);
    let (whole, _) = look(place.path()).unwrap();
    let Action::Upload(second) = whole.waiting[1].action else { panic!("{whole:?}") };
    // The row of `b` is lost.
    let (_, mut found) = look(place.path()).unwrap();
    found.desired.retain(|(key, _)| key.as_str() == "a");
    found.is_incomplete = true;
    let on_disk = crate::cache::data_files(place.path()).unwrap().into_iter().collect();
    let inventory = inventory(&found, &on_disk, place.path());
    assert_eq!(inventory.unnamed.len(), 1);
    let (damaged, moved) = repair(place.path(), &inventory, found, "s3://b/ at AWS").unwrap();
    assert!(damaged.exists() && moved == 1 && !data_path(place.path(), second).exists());
    let (after, salvage) = look(place.path()).unwrap();
    assert_eq!((after.waiting.len(), after.unnamed.len(), salvage.damage.len()), (1, 1, 0), "{after:?}");
    assert_eq!(std::fs::read(&after.unnamed[0].path).unwrap(), b"b");
    let journal = Arc::new(Journal::open(place.path(), "s3://b/ at AWS").unwrap());
    let cache = Cache::open(place.path(), journal, Limits { size_bytes: 1 << 30, free_floor_bytes: 0 }, true).unwrap();
    assert_eq!(cache.usage().files, 1, "a mount goes on");
}

#[test]
fn a_directory_of_something_else_is_named() {
    let place = tempfile::tempdir().unwrap();
    let error = look(place.path()).unwrap_err().to_string();
    assert!(error.contains("--cache-dir"), "{error}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}
