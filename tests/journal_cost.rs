//! What a commit of the journal costs the disk, in bytes of its log: exact, where times are noise. Its checksums ride on
//! pages that are written anyhow, but for the one of the sum over all rows.

use std::time::UNIX_EPOCH;

use mediafs::journal::{Change, Content, Desired, FileRow, Journal, Seal};
use mediafs::store::Condition;
use mediafs::types::{ETag, FileId, Key, Version};

const COMMITS: u64 = 200;
/// A frame of SQLite's log: a page and its header.
const FRAME_BYTES: u64 = 4096 + 24;

fn key(id: u64) -> Key {
    Key::new(format!("media/2026/11/photo-{id:06}.jpg"))
}

fn row(id: u64) -> FileRow {
    FileRow { id: FileId(id), base: None, size: 100, dirty: true, present: vec![], complete: true, mtime_ns: 5, used: id }
}

fn desired(id: u64) -> Change {
    let content = Content::Staged(FileId(id));
    Change::SetDesired(key(id), Desired { content, headers: None, condition: Condition::IfAbsent, was_there: false, since: UNIX_EPOCH })
}

/// A name that was made: the file's row, and what is wanted under it.
fn created(id: u64) -> Vec<Change> {
    vec![Change::PutFile(row(id)), desired(id)]
}

/// The close: what is wanted by then, the sums, and that the file is at rest.
fn closed(id: u64) -> Vec<Change> {
    vec![desired(id), Change::PutSums(FileId(id), 0, vec![7; 48]), Change::Seal(FileId(id), Seal { size: 100, whole: true })]
}

fn about_to_be_sent(id: u64) -> Vec<Change> {
    vec![Change::Attempt(key(id), ETag::new("0123456789abcdef0123456789abcdef"))]
}

/// The bucket has it: the file is clean, and nothing is wanted.
fn stored(id: u64) -> Vec<Change> {
    let base = Version { key: key(id), etag: ETag::new("0123456789abcdef0123456789abcdef"), size: 100 };
    vec![Change::ClearDesired(key(id)), Change::ReplaceFile(FileRow { base: Some(base), dirty: false, ..row(id) })]
}

#[test]
fn a_save_is_four_commits_of_a_few_pages() {
    let directory = tempfile::tempdir().expect("directory");
    let journal = Journal::open(directory.path(), "bucket").expect("journal");
    let log = || std::fs::metadata(directory.path().join("journal.sqlite-wal")).map_or(0, |log| log.len());
    // A page each for the tables and the sum over all rows, and those that are split: one more table, or an index, would be
    // another in each commit.
    type Step = fn(u64) -> Vec<Change>;
    let steps: [(&str, Step, u64); 4] =
        [("created", created, 4), ("closed", closed, 4), ("about to be sent", about_to_be_sent, 3), ("stored", stored, 5)];
    for (what, step, pages) in steps {
        let before = log();
        (0..COMMITS).for_each(|id| journal.apply(&step(id)).expect("committed"));
        let frames = (log() - before).div_ceil(FRAME_BYTES);
        assert!(frames < COMMITS * pages, "{what}: {frames} pages in {COMMITS} commits");
    }
}
