//! How far the journal reaches: a small file beside it, `journal.tail`, written after each commit.
//!
//! SQLite takes a log that ends early for one that ends there: a frame with a wrong checksum, a cut or a missing log
//! silently take the commits behind them away, and so does an older copy of the database. This file says how many
//! commits there were, and a start that finds fewer refuses.
//!
//! Under the boot that it was written in, every acknowledged commit has to be there: a killed process loses none. Under
//! another boot the machine may have gone down, which may take what was not synced; what was, has to be there. More
//! commits than it says are no wonder: the last one may have been killed between the log and this file.
//!
//! It is one `pwrite` of 64 bytes into the page cache, within one sector, so that it is never half written. It may be
//! lost: then nothing is known of how far the journal reached, which is said and accepted.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::seal::checksum;

pub const FILE: &str = "journal.tail";

const MAGIC: &[u8; 8] = b"mfstail1";
/// Magic, three numbers, checksum; the rest is room.
const BYTES: usize = 64;
const CHECKED: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Commits that callers were told of.
    pub acknowledged: u64,
    /// Commits that an fsync covered.
    pub synced: u64,
    /// The boot that this was written under; 0: not known.
    pub boot: u64,
}

/// What lies there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    /// Too short, or a wrong checksum.
    Unreadable,
    Record(Record),
}

impl Record {
    /// The fewest commits that the journal must have, seen from `boot`.
    pub fn required(&self, boot: u64) -> u64 {
        if boot != 0 && boot == self.boot { self.acknowledged } else { self.synced }
    }

    fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        for (at, number) in [self.acknowledged, self.synced, self.boot].into_iter().enumerate() {
            bytes[8 + at * 8..16 + at * 8].copy_from_slice(&number.to_le_bytes());
        }
        let sum = checksum(&bytes[..CHECKED]);
        bytes[CHECKED..CHECKED + 8].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Record> {
        let number = |at: usize| bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok()).map(u64::from_le_bytes);
        let right = bytes.starts_with(MAGIC) && number(CHECKED)? == checksum(&bytes[..CHECKED]);
        right.then_some(Record { acknowledged: number(8)?, synced: number(16)?, boot: number(24)? })
    }
}

/// A boot's id as a number that is compared; 0 where there is none.
pub fn boot_number(id: Option<&str>) -> u64 {
    id.map_or(0, |id| checksum(id.as_bytes()).max(1))
}

pub fn read(directory: &Path) -> io::Result<Found> {
    match std::fs::read(directory.join(FILE)) {
        Ok(bytes) if bytes.is_empty() => Ok(Found::Nothing),
        Ok(bytes) => Ok(Record::decode(&bytes).map_or(Found::Unreadable, Found::Record)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
        Err(error) => Err(error),
    }
}

/// The file while the journal is open.
pub struct Tail {
    file: File,
    record: Record,
    /// The last write failed, and that was said.
    failing: bool,
}

impl Tail {
    /// Of a journal with so many commits, beside which this was found. A start doesn't fail for want of it: a full disk must
    /// not keep what is here from being sent.
    pub fn begin(directory: &Path, found: &Found, commits: u64, boot: u64) -> Option<Tail> {
        let synced = if let Found::Record(record) = found { record.synced } else { 0 };
        let opened = Tail::open(directory, Record { acknowledged: commits, synced: synced.min(commits), boot });
        opened.inspect_err(|error| tracing::warn!(%error, "{FILE} can't be written: a damaged journal may not be noticed")).ok()
    }

    fn open(directory: &Path, record: Record) -> io::Result<Tail> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(directory.join(FILE))?;
        let tail = Tail { file, record, failing: false };
        tail.file.write_all_at(&record.encode(), 0)?;
        Ok(tail)
    }

    /// The commit of this number is in the log.
    pub fn acknowledge(&mut self, commits: u64) {
        self.record.acknowledged = commits;
        self.write();
    }

    /// All commits to this number are on the disk.
    pub fn synced(&mut self, commits: u64) {
        self.record.synced = self.record.synced.max(commits);
        self.write();
    }

    /// For an fsync without the journal's lock.
    pub fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// A record that lags behind asks for less than there is: no reason to fail a commit.
    fn write(&mut self) {
        let result = self.file.write_all_at(&self.record.encode(), 0);
        if let (Err(error), false) = (&result, self.failing) {
            tracing::warn!(%error, "{FILE} can't be written: a damaged journal may not be noticed");
        }
        self.failing = result.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: Record = Record { acknowledged: 9, synced: 4, boot: 7 };

    #[test]
    fn another_boot_asks_for_what_was_synced() {
        for (boot, expected) in [(7, 9), (8, 4), (0, 4)] {
            assert_eq!(RECORD.required(boot), expected, "{boot}");
        }
        assert_eq!(Record { boot: 0, ..RECORD }.required(0), 4, "two unknown boots are not the same");
    }

    #[test]
    fn every_damage_of_the_record_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()).unwrap(), Found::Nothing);
        drop(Tail::open(directory.path(), RECORD).unwrap());
        assert_eq!(read(directory.path()).unwrap(), Found::Record(RECORD));
        let good = RECORD.encode();
        for at in 0..CHECKED + 8 {
            let mut bad = good;
            bad[at] ^= 0x10;
            std::fs::write(directory.path().join(FILE), bad).unwrap();
            assert_eq!(read(directory.path()).unwrap(), Found::Unreadable, "byte {at}");
        }
        for length in 1..CHECKED + 8 {
            std::fs::write(directory.path().join(FILE), &good[..length]).unwrap();
            assert_eq!(read(directory.path()).unwrap(), Found::Unreadable, "length {length}");
        }
    }
}
