//! What the journal's checksums cost, measured: a commit against the same rows in plain SQLite within one run, and a start
//! with 100,000 rows. Run with `cargo test --release --test journal_cost -- --ignored --nocapture`.

use std::time::{Duration, UNIX_EPOCH};

use mediafs::journal::{Change, Content, Desired, FileRow, Journal};
use mediafs::store::Condition;
use mediafs::types::{FileId, Key};
use rusqlite::{Connection, params};
use tokio::time::Instant;

const ROUNDS: u64 = 20;
const COMMITS: u64 = 500;
const ROWS: u64 = 100_000;

fn row(id: u64) -> FileRow {
    FileRow { id: FileId(id), base: None, size: 100, dirty: true, present: vec![], complete: true, mtime_ns: 5, used: id }
}

fn desired(id: u64) -> (Key, Desired) {
    let content = Content::Staged(FileId(id));
    let desired = Desired { content, headers: None, condition: Condition::IfAbsent, was_there: false, since: UNIX_EPOCH };
    (Key::new(format!("media/2026/11/photo-{id:06}.jpg")), desired)
}

/// The tables and statements without checksums.
fn plain(path: &std::path::Path) -> Connection {
    let connection = Connection::open(path).expect("opened");
    let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0;
        CREATE TABLE desired (key TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID;
        CREATE TABLE file (id INTEGER PRIMARY KEY, size INTEGER, dirty INTEGER, complete INTEGER, present BLOB, mtime_ns INTEGER, used INTEGER);";
    connection.execute_batch(settings).expect("made");
    connection
}

fn commit_plain(connection: &Connection, id: u64) {
    let (key, desired) = desired(id);
    let run =
        |sql: &str, values: &[&dyn rusqlite::ToSql]| connection.prepare_cached(sql).and_then(|mut run| run.execute(values)).expect("runs");
    run("BEGIN IMMEDIATE", &[]);
    let state = serde_json::to_string(&desired).expect("JSON");
    let (id, empty) = (id as i64, Vec::<u8>::new());
    run("INSERT OR REPLACE INTO file VALUES (?1, 100, 1, 1, ?2, 5, ?1)", params![id, empty]);
    run("INSERT OR REPLACE INTO desired VALUES (?1, ?2)", params![key.as_str(), state]);
    run("COMMIT", &[]);
}

fn commit_sealed(journal: &Journal, id: u64) {
    let (key, desired) = desired(id);
    journal.apply(&[Change::PutFile(row(id)), Change::SetDesired(key, desired)]).expect("committed");
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
#[ignore = "a measurement"]
fn a_commit_costs_microseconds() {
    let directory = tempfile::tempdir().expect("directory");
    let connection = plain(&directory.path().join("plain.sqlite"));
    let journal = Journal::open(&directory.path().join("."), "b").expect("journal");
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let ids = round * COMMITS..(round + 1) * COMMITS;
        let begun = Instant::now();
        ids.clone().for_each(|id| commit_plain(&connection, id));
        without.push(begun.elapsed() / COMMITS as u32);
        let begun = Instant::now();
        ids.for_each(|id| commit_sealed(&journal, id));
        with.push(begun.elapsed() / COMMITS as u32);
    }
    let (without, with) = (median(without), median(with));
    println!("a commit: {without:?} without checksums, {with:?} with, {:.2} times", with.as_secs_f64() / without.as_secs_f64());
}

#[test]
#[ignore = "a measurement"]
fn a_start_with_many_rows() {
    let directory = tempfile::tempdir().expect("directory");
    let journal = Journal::open(directory.path(), "b").expect("journal");
    for batch in 0..ROWS / 2_000 {
        let changes = (batch * 1_000..(batch + 1) * 1_000).flat_map(|id| {
            let (key, desired) = desired(id);
            [Change::PutFile(row(id)), Change::SetDesired(key, desired)]
        });
        journal.apply(&changes.collect::<Vec<_>>()).expect("committed");
    }
    journal.sync().expect("synced");
    drop(journal);
    for _ in 0..3 {
        let begun = Instant::now();
        let journal = Journal::open(directory.path(), "b").expect("journal");
        let opened = begun.elapsed();
        let read = journal.desired().expect("rows").len() + journal.files().expect("rows").len();
        println!("{read} rows: looked over in {opened:?}, read in {:?}", begun.elapsed() - opened);
    }
}
