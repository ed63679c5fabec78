//! Damage of every kind, everywhere: a start refuses with what to do, or nothing is missing and nothing wrong.
//!
//! All bytes are too many for every run: each run takes every n-th, and `MEDIAFS_TEST_EVERY=1` all of them.

use super::*;
use crate::journal::make::log_of;

/// Everything that a journal answers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rows {
    desired: Vec<(Key, Desired)>,
    files: Vec<FileRow>,
    uploads: Vec<(Key, UploadId)>,
    attempts: Vec<(Key, ETag)>,
    link: Option<String>,
    name: Option<String>,
}

fn rows(journal: &Journal) -> Result<Rows> {
    Ok(Rows {
        desired: journal.desired()?,
        // The order of use is not protected, and costs nothing.
        files: journal.files()?.into_iter().map(|file| FileRow { used: 0, ..file }).collect(),
        uploads: journal.uploads()?,
        attempts: journal.attempts()?,
        link: journal.symlink(&"l".into())?,
        name: journal.meta("name")?,
    })
}

fn salvaged_rows(salvage: &Salvage) -> Rows {
    let mut salvage = salvage.clone();
    salvage.uploads.sort_by(|a, b| (&a.0, &a.1.0).cmp(&(&b.0, &b.1.0)));
    salvage.attempts.sort();
    Rows {
        desired: salvage.desired,
        files: salvage.files.into_iter().map(|file| FileRow { used: 0, ..file }).collect(),
        uploads: salvage.uploads,
        attempts: salvage.attempts,
        link: salvage.symlinks.into_iter().find(|(key, _)| key.as_str() == "l").map(|(_, target)| target),
        name: salvage.meta.get("name").cloned(),
    }
}

/// The files of a journal, to be damaged and looked at.
#[derive(Clone, Debug)]
struct Files {
    database: Vec<u8>,
    log: Vec<u8>,
    tail: Vec<u8>,
}

impl Files {
    fn of(directory: &Path) -> Files {
        let path = directory.join(JOURNAL_FILE);
        let read = |path: &Path| std::fs::read(path).unwrap_or_default();
        Files { database: read(&path), log: read(&log_of(&path)), tail: read(&directory.join(tail::FILE)) }
    }

    fn put(&self, directory: &Path) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            // Making learned attributes anew each time takes longer than all the rest.
            if !path.to_str().unwrap().contains("attributes") {
                std::fs::remove_file(path).unwrap();
            }
        }
        let path = directory.join(JOURNAL_FILE);
        for (path, bytes) in [(path.clone(), &self.database), (log_of(&path), &self.log), (directory.join(tail::FILE), &self.tail)] {
            if !bytes.is_empty() {
                std::fs::write(path, bytes).unwrap();
            }
        }
    }
}

fn some_changes(journal: &Journal, from: u64, to: u64) {
    for n in from..to {
        let key = Key::new(format!("directory/file-{n:03}.jpg"));
        let row = FileRow { base: (n % 3 == 0).then(|| version("a")), ..row(n) };
        journal.apply(&[Change::PutFile(row), Change::SetDesired(key.clone(), desired(Content::Staged(FileId(n))))]).unwrap();
        match n % 5 {
            0 => journal.apply(&[Change::ClearDesired(key), Change::RemoveFile(FileId(n))]).unwrap(),
            1 => journal.apply(&[Change::AddPresent(FileId(n), 40..50 + n, 50 + n)]).unwrap(),
            2 => {
                journal.apply(&[Change::BeginUpload(key.clone(), UploadId(format!("u{n}"))), Change::Attempt(key, ETag::new("e"))]).unwrap()
            }
            3 => journal.apply(&[Change::SetDesired(key, desired(Content::Inline(vec![n as u8; 200 * n as usize])))]).unwrap(),
            _ => journal.apply(&[Change::SetDesired(key, desired(Content::Absent))]).unwrap(),
        }
    }
    journal.apply(&[Change::RememberSymlink("l".into(), format!("../target-{to}"))]).unwrap();
    journal.set_meta("name", &format!("value {to}")).unwrap();
}

/// A killed journal, half of it checkpointed; and the same after an orderly end.
fn worlds() -> Vec<(&'static str, Files, Rows)> {
    let (directory, journal) = journal();
    some_changes(&journal, 0, 40);
    journal.sync().unwrap();
    some_changes(&journal, 30, 60);
    let expected = rows(&journal).unwrap();
    let killed = Files::of(directory.path());
    journal.end_session().unwrap();
    let ended = Files::of(directory.path());
    assert!(ended.log.is_empty() && !killed.log.is_empty());
    vec![("killed", killed, expected.clone()), ("ended", ended, expected)]
}

/// Opens what lies there. True: it was taken, and everything is right.
fn judge(what: &str, directory: &Path, files: &Files, expected: &Rows) -> bool {
    files.put(directory);
    let salvaged = salvage(directory).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(salvaged.is_incomplete || salvaged_rows(&salvaged) == *expected, "{what}: salvaged rows are wrong, and nothing says so");
    match Journal::open(directory, "s3://b") {
        Ok(journal) => {
            assert_eq!(&rows(&journal).unwrap_or_else(|error| panic!("{what}: {error}")), expected, "{what}");
            true
        }
        Err(error) => {
            assert!(matches!(error, Error::Corrupt(_)), "{what}: {error}");
            assert!(error.to_string().contains("mediafs recover"), "{what}: {error}");
            let after = Files::of(directory);
            assert!((after.database, after.log) == (files.database.clone(), files.log.clone()), "{what}: the evidence is kept");
            false
        }
    }
}

fn every(ordinary: usize) -> usize {
    std::env::var("MEDIAFS_TEST_EVERY").ok().and_then(|text| text.parse().ok()).unwrap_or(ordinary)
}

#[test]
fn undamaged_journals_are_taken_and_read_alike() {
    let directory = tempfile::tempdir().unwrap();
    for (what, files, expected) in worlds() {
        assert!(judge(what, directory.path(), &files, &expected));
        files.put(directory.path());
        let salvaged = salvage(directory.path()).unwrap();
        assert_eq!((salvaged.damage.as_slice(), salvaged.is_incomplete, salvaged.bucket()), (&[][..], false, Some("s3://b")), "{what}");
        assert_eq!(salvaged_rows(&salvaged), expected, "{what}");
    }
}

#[test]
fn a_flipped_byte_is_refused_or_harmless() {
    let directory = tempfile::tempdir().unwrap();
    let mut refused = 0;
    for (what, files, expected) in worlds() {
        // A step that is no divisor of anything, so that headers, cells and values are all met.
        for at in (0..files.database.len()).step_by(every(1_499)).chain(0..100) {
            let mut bad = files.clone();
            bad.database[at] ^= 1 << (at % 8);
            refused += usize::from(!judge(&format!("{what}, database byte {at}"), directory.path(), &bad, &expected));
        }
        for at in (0..files.log.len()).step_by(every(5_987)).chain(0..files.log.len().min(56)) {
            let mut bad = files.clone();
            bad.log[at] ^= 1 << (at % 8);
            refused += usize::from(!judge(&format!("{what}, log byte {at}"), directory.path(), &bad, &expected));
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn what_is_cut_is_refused_or_was_not_needed() {
    let directory = tempfile::tempdir().unwrap();
    let mut refused = 0;
    for (what, files, expected) in worlds() {
        for length in (0..files.log.len()).step_by(every(4_120 * 7 - 100)) {
            let bad = Files { log: files.log[..length].to_vec(), ..files.clone() };
            refused += usize::from(!judge(&format!("{what}, log cut to {length}"), directory.path(), &bad, &expected));
        }
        for length in (0..files.database.len()).step_by(every(4_096 * 3 - 100)) {
            let bad = Files { database: files.database[..length].to_vec(), ..files.clone() };
            refused += usize::from(!judge(&format!("{what}, database cut to {length}"), directory.path(), &bad, &expected));
        }
    }
    assert!(refused > 10, "{refused}");
}

#[test]
fn a_lost_page_is_refused_or_was_shadowed() {
    let directory = tempfile::tempdir().unwrap();
    let mut refused = 0;
    for (what, files, expected) in worlds() {
        for page in 0..files.database.len() / 4096 {
            for fill in [0, 0xff] {
                let mut bad = files.clone();
                bad.database[page * 4096..][..4096].fill(fill);
                judge(&format!("{what}, page {page} filled with {fill}"), directory.path(), &bad, &expected);
            }
            // Another page in its place, as a drive's misdirected write leaves it.
            let mut bad = files.clone();
            bad.database.copy_within(4096 * 2..4096 * 3, page * 4096);
            judge(&format!("{what}, page {page} overwritten"), directory.path(), &bad, &expected);
        }
        for frame in (0..files.log.len() / 4120).step_by(every(9)) {
            let mut bad = files.clone();
            bad.log[32 + frame * 4120..][..4120].fill(0);
            refused += usize::from(!judge(&format!("{what}, frame {frame}"), directory.path(), &bad, &expected));
        }
    }
    assert!(refused > 5, "{refused}");
}

#[test]
fn an_older_copy_is_refused() {
    let (directory, journal) = journal();
    some_changes(&journal, 0, 20);
    journal.end_session().unwrap();
    let old = Files::of(directory.path());
    some_changes(&journal, 20, 40);
    journal.sync().unwrap();
    some_changes(&journal, 40, 50);
    let expected = rows(&journal).unwrap();
    let now = Files::of(directory.path());
    let place = tempfile::tempdir().unwrap();
    for (what, bad) in [
        ("an older database", Files { database: old.database.clone(), ..now.clone() }),
        ("an older database, no log", Files { database: old.database.clone(), log: vec![], ..now.clone() }),
        ("no log", Files { log: vec![], ..now.clone() }),
        ("no database", Files { database: vec![], ..now.clone() }),
        ("no database, no record", Files { database: vec![], tail: vec![], ..now.clone() }),
        ("nothing but the record", Files { database: vec![], log: vec![], ..now.clone() }),
    ] {
        for attempt in 0..2 {
            assert!(!judge(&format!("{what}, start {attempt}"), place.path(), &bad, &expected), "{what}");
        }
    }
    assert!(judge("the record is lost", place.path(), &Files { tail: vec![], ..now.clone() }, &expected));
}

#[test]
fn a_crash_of_the_machine_may_take_what_was_not_synced_and_nothing_else() {
    let (directory, journal) = journal();
    some_changes(&journal, 0, 20);
    journal.sync().unwrap();
    let synced = rows(&journal).unwrap();
    let at_sync = Files::of(directory.path());
    some_changes(&journal, 20, 40);
    let now = Files::of(directory.path());
    let place = tempfile::tempdir().unwrap();
    let open = |files: &Files, boot: &str| {
        files.put(place.path());
        Journal::open_under_boot(place.path(), "s3://b", Some(boot))
    };
    // The disk has what was synced, and the newest record of how far it went.
    let cut = Files { tail: now.tail.clone(), ..at_sync.clone() };
    assert_eq!(rows(&open(&cut, "another").unwrap()).unwrap(), synced);
    let boot = session::boot_id().unwrap();
    assert!(matches!(open(&cut, &boot), Err(Error::Corrupt(_))), "the same boot: nothing may be missing");
    let before = Files { database: at_sync.database[..4096 * 2].to_vec(), log: vec![], ..now };
    assert!(matches!(open(&before, "another"), Err(Error::Corrupt(_))));
}

#[test]
fn a_commit_that_was_killed_half_way_is_no_damage() {
    let (directory, journal) = journal();
    some_changes(&journal, 0, 20);
    let (expected, before) = (rows(&journal).unwrap(), Files::of(directory.path()));
    journal.apply(&[Change::SetDesired("more".into(), desired(Content::Absent))]).unwrap();
    let after = Files::of(directory.path());
    let place = tempfile::tempdir().unwrap();
    // The whole commit at the end is there, only not acknowledged.
    for length in before.log.len()..after.log.len() {
        if (length - before.log.len()).is_multiple_of(every(517)) {
            let torn = Files { log: after.log[..length].to_vec(), ..before.clone() };
            assert!(judge(&format!("{length}"), place.path(), &torn, &expected), "{length}");
        }
    }
    Files { tail: before.tail, ..after }.put(place.path());
    assert_eq!(Journal::open(place.path(), "s3://b").unwrap().desired().unwrap().len(), expected.desired.len() + 1);
}

#[test]
fn a_journal_without_seals_gets_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(JOURNAL_FILE);
    let connection = database::open(&path).unwrap();
    database::first_version(&connection).unwrap();
    let state = serde_json::to_string(&desired(Content::Absent)).unwrap();
    connection.execute("INSERT INTO desired (key, state) VALUES ('a', ?1)", [state]).unwrap();
    connection.execute_batch("INSERT INTO meta (name, value) VALUES ('bucket', 's3://b')").unwrap();
    drop(connection);
    assert_eq!(salvage(directory.path()).unwrap().desired.len(), 1, "in a copy");
    for _ in 0..2 {
        let journal = Journal::open(directory.path(), "s3://b").unwrap();
        assert_eq!(journal.desired().unwrap(), [("a".into(), desired(Content::Absent))]);
    }
}

#[test]
fn a_salvaged_journal_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    for (what, mut bad, expected) in worlds() {
        // A row's value, on a leaf page.
        let needle = b"directory/file-041.jpg";
        let at = bad.database.windows(needle.len()).rposition(|window| window == needle).unwrap_or(0);
        bad.database[at] ^= 1;
        if let Some(byte) = bad.log.get_mut(4120 * 30) {
            *byte ^= 1;
        }
        assert!(!judge(what, directory.path(), &bad, &expected));
        let salvaged = salvage(directory.path()).unwrap();
        assert!(!salvaged.damage.is_empty());
        assert!(salvaged.desired.len() + 1 >= expected.desired.len(), "{what}: {} of {}", salvaged.desired.len(), expected.desired.len());
        assert!(salvaged.desired.iter().all(|row| expected.desired.contains(row)), "{what}");
        replace(directory.path(), &salvaged, "journal.sqlite.damaged-1").unwrap();
        let journal = Journal::open(directory.path(), "s3://b").unwrap();
        assert_eq!(rows(&journal).unwrap(), salvaged_rows(&salvaged), "{what}");
        assert_eq!(std::fs::read(directory.path().join("journal.sqlite.damaged-1")).unwrap(), bad.database, "{what}: kept aside");
    }
}
