use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;

mod damage;

fn journal() -> (tempfile::TempDir, Journal) {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path(), "s3://b").unwrap();
    (directory, journal)
}

fn version(key: &str) -> Version {
    Version { key: key.into(), etag: ETag::new("e-2"), size: 77 }
}

fn desired(content: Content) -> Desired {
    let headers = ObjectHeaders { metadata: [("mode".into(), "33188".into())].into(), ..Default::default() };
    Desired {
        content,
        headers: Some(headers.into()),
        condition: Condition::IfMatch(ETag::new("old")),
        was_there: true,
        since: UNIX_EPOCH + Duration::new(1_700_000_000, 123),
    }
}

fn row(id: u64) -> FileRow {
    FileRow {
        id: FileId(id),
        base: Some(version("a")),
        size: 100,
        dirty: true,
        present: vec![0..10, 20..30],
        complete: false,
        mtime_ns: -5,
        used: 9,
    }
}

/// The journal as a new process finds it; the old one never got to close it.
fn reopened(directory: &tempfile::TempDir, old: Journal) -> Journal {
    std::mem::forget(old);
    Journal::open(directory.path(), "s3://b").unwrap()
}

#[test]
fn everything_comes_back_after_a_kill() {
    let (directory, journal) = journal();
    let all = vec![
        (Key::from("a"), desired(Content::Staged(FileId(3)))),
        (Key::from("b/"), desired(Content::KeptDirectory)),
        (Key::from("c"), desired(Content::CopyOf(version("x")))),
        (Key::from("c2"), desired(Content::Restored(version("x")))),
        (Key::from("d"), desired(Content::Inline(vec![0, 255]))),
        (Key::from("\u{e9}"), desired(Content::Absent)),
    ];
    let mut changes: Vec<Change> = all.iter().cloned().map(|(key, desired)| Change::SetDesired(key, desired)).collect();
    changes.push(Change::SetDesired("gone".into(), desired(Content::Absent)));
    changes.push(Change::ClearDesired("gone".into()));
    changes.push(Change::PutFile(row(3)));
    changes.push(Change::PutFile(FileRow { base: None, complete: true, present: vec![], ..row(4) }));
    changes.push(Change::BeginUpload("a".into(), UploadId("u1".into())));
    changes.push(Change::BeginUpload("a".into(), UploadId("u2".into())));
    changes.push(Change::EndUpload(UploadId("u1".into())));
    changes.push(Change::RememberSymlink("l".into(), "../t".into()));
    changes.push(Change::RememberSymlink("m".into(), "t".into()));
    changes.push(Change::ForgetSymlink("m".into()));
    journal.apply(&changes).unwrap();
    journal.set_meta("name", "value").unwrap();

    let journal = reopened(&directory, journal);
    assert_eq!(journal.desired().unwrap(), all);
    assert_eq!(journal.files().unwrap(), [row(3), FileRow { base: None, complete: true, present: vec![], ..row(4) }]);
    assert_eq!(journal.uploads().unwrap(), [("a".into(), UploadId("u2".into()))]);
    assert_eq!(journal.symlink(&"l".into()).unwrap().as_deref(), Some("../t"));
    assert_eq!(journal.symlink(&"m".into()).unwrap(), None);
    assert_eq!(journal.meta("name").unwrap().as_deref(), Some("value"));
    assert!(!journal.was_made());
}

#[test]
fn added_spans_unite_with_the_row_until_it_is_replaced() {
    let (_directory, journal) = journal();
    journal.apply(&[Change::PutFile(row(3))]).unwrap();
    journal.apply(&[Change::AddPresent(FileId(3), 10..15, 100), Change::AddPresent(FileId(3), 90..140, 140)]).unwrap();
    let united = FileRow { size: 140, present: vec![0..15, 20..30, 90..140], ..row(3) };
    assert_eq!(journal.files().unwrap(), std::slice::from_ref(&united));
    assert_eq!(journal.files_as_synced().unwrap(), [row(3)]);
    journal.apply(&[Change::PutFile(row(3))]).unwrap();
    journal.apply(&[Change::PutFile(FileRow { dirty: false, complete: true, ..row(3) })]).unwrap();
    assert_eq!(journal.files().unwrap(), [united], "a row put again forgets no acknowledged write");
    journal.apply(&[Change::ReplaceFile(row(3))]).unwrap();
    assert_eq!(journal.files().unwrap(), [row(3)]);
    journal.apply(&[Change::AddPresent(FileId(3), 10..15, 100), Change::RemoveFile(FileId(3))]).unwrap();
    assert_eq!(journal.files().unwrap(), []);
    journal.apply(&[Change::PutFile(FileRow { dirty: false, ..row(3) })]).unwrap();
    journal.apply(&[Change::PutFile(row(3)), Change::Used(FileId(3), 44), Change::Used(FileId(5), 1)]).unwrap();
    assert_eq!(journal.files().unwrap(), [FileRow { used: 44, ..row(3) }]);
}

#[test]
fn another_bucket_is_refused_with_both_names() {
    let (directory, journal) = journal();
    drop(journal);
    let error = Journal::open(directory.path(), "s3://other").err().unwrap().to_string();
    assert!(error.contains("s3://b,") && error.contains("s3://other"), "{error}");
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let (directory, journal) = journal();
    journal.main.lock().connection.execute_batch("PRAGMA user_version = 99; CREATE TABLE newer (x)").unwrap();
    drop(journal);
    for _ in 0..2 {
        let error = Journal::open(directory.path(), "s3://b").err().unwrap().to_string();
        assert!(error.contains("99") && error.contains("newer"), "{error}");
    }
}

#[test]
fn damage_is_refused_with_what_to_do() {
    let (directory, journal) = journal();
    for n in 0..2_000 {
        journal.apply(&[Change::PutFile(row(n))]).unwrap();
    }
    journal.end_session().unwrap();
    drop(journal);
    let path = directory.path().join(JOURNAL_FILE);
    let good = std::fs::read(&path).unwrap();
    let pages = good.len() / 4096;
    assert!(pages > 20);
    for (what, at) in [("not a database", 0), ("a page", 4096 * (pages - 3)), ("another page", 4096 * 10)] {
        let mut bad = good.clone();
        bad[at..at + 100].fill(0xa5);
        std::fs::write(&path, &bad).unwrap();
        let error = Journal::open(directory.path(), "s3://b").err().expect(what);
        assert!(matches!(error, Error::Corrupt(_)), "{what}: {error}");
        assert!(error.to_string().contains("mediafs recover"), "{what}: {error}");
        assert_eq!(std::fs::read(&path).unwrap(), bad, "{what}: the evidence is kept");
    }
}

#[test]
fn a_row_that_does_not_decode_is_damage() {
    let (_directory, journal) = journal();
    journal.apply(&[Change::PutFile(row(1)), Change::SetDesired("a".into(), desired(Content::Absent))]).unwrap();
    journal.main.lock().connection.execute_batch("UPDATE file SET present = x'0102'; UPDATE desired SET state = '{'").unwrap();
    assert!(matches!(journal.files(), Err(Error::Corrupt(_))));
    assert!(matches!(journal.desired(), Err(Error::Corrupt(_))));
}

#[test]
fn nobody_else_can_read_the_files() {
    let (directory, journal) = journal();
    journal.apply(&[Change::PutFile(row(1))]).unwrap();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
    }
}

#[test]
fn sync_moves_the_log_and_starts_it_anew() {
    let (directory, journal) = journal();
    let log = || std::fs::metadata(directory.path().join(format!("{JOURNAL_FILE}-wal"))).unwrap().len();
    for _ in 0..5 {
        for n in 0..200 {
            journal.apply(&[Change::PutFile(row(n))]).unwrap();
        }
        journal.sync().unwrap();
    }
    let after_five = log();
    journal.apply(&[Change::PutFile(row(1))]).unwrap();
    assert_eq!(log(), after_five, "the log is written over, not grown");
    let database = std::fs::metadata(directory.path().join(JOURNAL_FILE)).unwrap().len();
    assert!(database > 4096 * 3, "{database}");
}

#[test]
fn commits_go_on_while_another_thread_syncs() {
    let (_directory, journal) = journal();
    std::thread::scope(|scope| {
        let syncing = scope.spawn(|| (0..20).try_for_each(|_| journal.sync()));
        for n in 0..500 {
            journal.apply(&[Change::PutFile(row(n))]).unwrap();
        }
        syncing.join().unwrap().unwrap();
    });
    assert_eq!(journal.files().unwrap().len(), 500);
}

proptest! {
    // Each case makes a journal, which fsyncs.
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn a_row_comes_back_as_it_was_put(
        id in 0..u64::MAX / 2, base in any::<bool>(), size in 0..u64::MAX / 2, dirty in any::<bool>(), complete in any::<bool>(),
        lengths in prop::collection::vec((1u64..1 << 40, 1u64..1 << 40), 0..8), mtime_ns in any::<i64>(), used in 0..u64::MAX / 2,
    ) {
        let (_directory, journal) = journal();
        let mut at = 0;
        let present = lengths.iter().map(|(gap, length)| { at += gap + length; at - length..at }).collect();
        let present = if complete { vec![] } else { present };
        let row = FileRow { id: FileId(id), base: base.then(|| version("k")), size, dirty, present, complete, mtime_ns, used };
        journal.apply(&[Change::PutFile(row.clone())]).unwrap();
        prop_assert_eq!(journal.files().unwrap(), vec![row]);
    }
}
