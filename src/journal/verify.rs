//! Is the journal whole? Asked at each start, before anything is read from it or written to it.
//!
//! Four questions, each for damage that the others don't see: is the file's structure sound (SQLite's `quick_check`), are
//! the tables those that were made, does every row carry its seal and is none missing or too much (`seal`), and are there
//! as many commits as were acknowledged (`tail`). A journal that fails one is refused as it lies there.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OptionalExtension};

use crate::error::{Error, Result};

use super::database::{self, damaged, explain};
use super::seal::{Total, seal};
use super::tables::TABLES;
use super::tail::{self, Found};

/// Of SQLite's own header: its first words, and that both versions say "write-ahead log".
const HEADER_BYTES: usize = 100;
const MAGIC: &[u8] = b"SQLite format 3\0";
const VERSIONS: std::ops::Range<usize> = 18..20;
const WITH_LOG: u8 = 2;

/// Refuses what SQLite would rewrite on opening it, or take for an empty database.
pub fn header(path: &Path) -> Result<()> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    File::open(path)?.take(HEADER_BYTES as u64).read_to_end(&mut bytes)?;
    let right = bytes.len() == HEADER_BYTES && bytes.starts_with(MAGIC) && bytes[VERSIONS].iter().all(|version| *version == WITH_LOG);
    if right { Ok(()) } else { Err(damaged(path, "its header is not that of a journal")) }
}

/// What the journal says of itself; None: it was written before rows had seals.
pub fn contents(connection: &Connection, path: &Path) -> Result<Option<Total>> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|e| refuse(path, e))?;
    if verdict != "ok" {
        return Err(damaged(path, &verdict));
    }
    let version = database::version(connection).map_err(|e| refuse(path, e))?;
    schema(connection, path, version)?;
    if version < database::sealed() { Ok(None) } else { rows(connection).map(Some).map_err(|e| refuse(path, e)) }
}

fn schema(connection: &Connection, path: &Path, version: i64) -> Result<()> {
    let found = database::schema(connection).map_err(|e| refuse(path, e))?;
    let made = database::schema_of(version).map_err(|e| explain(path, e))?;
    if made.as_ref() == Some(&found) {
        return Ok(());
    }
    if made.is_none() && database::schema_of(database::newest()).map_err(|e| explain(path, e))?.as_ref() != Some(&found) {
        return Err(Error::Journal(format!(
            "{} has schema version {version}, this mediafs knows {}: use the newer mediafs that wrote it, or another --cache-dir",
            path.display(),
            database::newest()
        )));
    }
    Err(damaged(path, "its tables are not those that were made"))
}

/// Every row verifies, and together they are what the total says.
fn rows(connection: &Connection) -> rusqlite::Result<Total> {
    let mut query = connection.prepare("SELECT id, commits, sum, seal FROM total")?;
    let numbers: Option<[i64; 4]> = query.query_row([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?])).optional()?;
    let total = numbers.and_then(|[id, commits, sum, seal]| total(&[id, commits, sum], seal));
    let total = total.ok_or_else(|| super::tables::damage("the row of totals is missing or has a wrong checksum".to_owned()))?;
    let mut found = Total { commits: total.commits, sum: 0 };
    for table in TABLES {
        // An older journal lacks some.
        if !connection.table_exists(None, table.name)? {
            continue;
        }
        table.scan(connection, |_, seal| {
            found.add(seal);
            Ok(())
        })?;
    }
    if found == total { Ok(total) } else { Err(super::tables::damage("rows are missing, or there are too many".to_owned())) }
}

/// The row of the table `total`, if its seal verifies.
pub fn total(numbers: &[i64; 3], stored: i64) -> Option<Total> {
    let right = stored == seal("total", numbers.map(ValueRef::Integer));
    right.then_some(Total { commits: numbers[1] as u64, sum: numbers[2] })
}

/// Refuses a journal with fewer commits than there were. `was_made`: just now.
pub fn reach(path: &Path, found: &Found, total: &Total, boot: u64, was_made: bool) -> Result<()> {
    if let Some(doubt) = doubt(found, total, was_made) {
        tracing::warn!("{} is {doubt}: whether the journal lacks its last commits can't be told", tail::FILE);
    }
    match found {
        Found::Record(record) if total.commits < record.required(boot) => {
            let missing = record.required(boot) - total.commits;
            Err(damaged(
                path,
                &format!("its last {missing} commits are missing: its log was damaged, cut or removed, or it is an older copy"),
            ))
        }
        Found::Nothing | Found::Unreadable | Found::Record(_) => Ok(()),
    }
}

/// What is wrong with the record, if the journal is of a time that wrote one.
fn doubt(found: &Found, total: &Total, was_made: bool) -> Option<&'static str> {
    match found {
        Found::Unreadable => Some("damaged"),
        Found::Nothing if total.commits > 0 && !was_made => Some("missing"),
        Found::Nothing | Found::Record(_) => None,
    }
}

/// An error while a journal is looked over is damage unless it is the system's.
pub fn refuse(path: &Path, error: rusqlite::Error) -> Error {
    use ErrorCode as Code;
    match error.sqlite_error_code() {
        Some(Code::DatabaseBusy | Code::DatabaseLocked | Code::PermissionDenied | Code::OutOfMemory | Code::SystemIoFailure)
        | Some(Code::DiskFull | Code::CannotOpen | Code::ReadOnly) => explain(path, error),
        _ => damaged(path, &error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tail::Record;
    use super::*;

    #[test]
    fn a_record_that_went_is_told() {
        let record = Found::Record(Record { acknowledged: 1, synced: 1, boot: 1 });
        for (what, found, commits, was_made, expected) in [
            ("gone", Found::Nothing, 3, false, Some("missing")),
            ("not yet there", Found::Nothing, 1, true, None),
            ("from before there were any", Found::Nothing, 0, false, None),
            ("damaged", Found::Unreadable, 3, false, Some("damaged")),
            ("there", record, 3, false, None),
        ] {
            assert_eq!(doubt(&found, &Total { commits, sum: 0 }, was_made), expected, "{what}");
        }
    }
}
