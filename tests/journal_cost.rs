//! What a commit of the journal costs the disk, in bytes of its log: exact, where times are noise. Its checksums ride on
//! pages that are written anyhow, but for the one of the sum over all rows.

use std::time::UNIX_EPOCH;

use mediafs::journal::{Change, Content, Desired, FileRow, Journal};
use mediafs::store::Condition;
use mediafs::types::{FileId, Key};

const COMMITS: u64 = 200;
/// A frame of SQLite's log: a page and its header.
const FRAME_BYTES: u64 = 4096 + 24;

/// A file that was saved: its row, and what is wanted under its name.
fn saved(id: u64) -> [Change; 2] {
    let row = FileRow { id: FileId(id), base: None, size: 100, dirty: true, present: vec![], complete: true, mtime_ns: 5, used: id };
    let content = Content::Staged(row.id);
    let desired = Desired { content, headers: None, condition: Condition::IfAbsent, was_there: false, since: UNIX_EPOCH };
    [Change::PutFile(row), Change::SetDesired(Key::new(format!("media/2026/11/photo-{id:06}.jpg")), desired)]
}

#[test]
fn a_saved_file_is_a_handful_of_pages() {
    let directory = tempfile::tempdir().expect("directory");
    let journal = Journal::open(directory.path(), "bucket").expect("journal");
    let log = || std::fs::metadata(directory.path().join("journal.sqlite-wal")).map_or(0, |log| log.len());
    let before = log();
    (0..COMMITS).for_each(|id| journal.apply(&saved(id)).expect("committed"));
    let frames = (log() - before).div_ceil(FRAME_BYTES);
    // A page each for the row, the desired state and the sum over all rows, and those that are split: one more table, or an
    // index, would be a fourth in each commit.
    assert!(frames < COMMITS * 4, "{frames} pages in {COMMITS} commits");
}
