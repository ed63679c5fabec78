//! Changes as rows: what a [`Change`] does to the tables and to the total.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};

use crate::types::FileId;

use super::rows::encode_spans;
use super::seal::{Total, seal};
use super::tables::{ATTEMPT, DESIRED, FILE, FREED, KEPT_UPLOAD, META, PRESENT, SYMLINK, UPLOAD};
use super::{Change, FileRow, freed, sums};

type Result<T> = rusqlite::Result<T>;

pub fn apply(connection: &Connection, total: &mut Total, changes: &[Change]) -> Result<()> {
    changes.iter().try_for_each(|change| apply_one(connection, total, change))
}

fn apply_one(connection: &Connection, total: &mut Total, change: &Change) -> Result<()> {
    match change {
        Change::SetDesired(key, desired) => {
            let state = serde_json::to_string(desired).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
            DESIRED.put(connection, total, &[text(key.as_str()), text(&state)])
        }
        Change::ClearDesired(key) => {
            ATTEMPT.drop_rows(connection, total, &key.as_str())?;
            DESIRED.drop_rows(connection, total, &key.as_str())
        }
        Change::Attempt(key, etag) => ATTEMPT.put(connection, total, &[text(key.as_str()), text(&etag.text())]),
        Change::PutFile(row) => {
            if is_dirty(connection, row.id)? {
                Ok(())
            } else {
                put_file(connection, total, row)
            }
        }
        Change::ReplaceFile(row) => {
            drop_spans(connection, total, row.id)?;
            put_file(connection, total, row)
        }
        Change::RemoveFile(id) => {
            drop_spans(connection, total, *id)?;
            freed::forget(connection, total, *id, &(0..i64::MAX as u64))?;
            sums::forget(connection, total, *id)?;
            FILE.drop_rows(connection, total, &(id.0 as i64))
        }
        Change::AddPresent(id, span, size) => {
            PRESENT.put(connection, total, &[id.0, span.start, span.end, *size].map(|number| ValueRef::Integer(number as i64)))
        }
        Change::PutSums(id, region, encoded) => sums::put(connection, total, *id, *region, encoded),
        Change::DropSums(id, region) => sums::put(connection, total, *id, *region, &[]),
        Change::Seal(id, seal) => sums::seal(connection, total, *id, *seal),
        Change::BreakSeal(id) => sums::break_seal(connection, total, *id),
        Change::Used(id, used) => {
            // No seal covers it.
            connection.prepare_cached("UPDATE file SET used = ?2 WHERE id = ?1")?.execute([id.0 as i64, *used as i64]).map(|_| ())
        }
        Change::BeginUpload(key, id) => UPLOAD.put(connection, total, &[text(&id.0), text(key.as_str())]),
        Change::EndUpload(id) => {
            FREED.drop_rows(connection, total, &id.0)?;
            KEPT_UPLOAD.drop_rows(connection, total, &id.0)?;
            UPLOAD.drop_rows(connection, total, &id.0)
        }
        Change::KeepUpload(id, kept) => freed::keep_upload(connection, total, id, kept),
        Change::FreePart(id, file, part) => freed::free(connection, total, id, *file, part),
        Change::ForgetFreed(id, span) => freed::forget(connection, total, *id, span),
        Change::RememberSymlink(key, target) => SYMLINK.put(connection, total, &[text(key.as_str()), text(target)]),
        Change::ForgetSymlink(key) => SYMLINK.drop_rows(connection, total, &key.as_str()),
    }
}

pub fn text(text: &str) -> ValueRef<'_> {
    ValueRef::Text(text.as_bytes())
}

fn drop_spans(connection: &Connection, total: &mut Total, id: FileId) -> Result<()> {
    PRESENT.drop_rows(connection, total, &(id.0 as i64))
}

fn is_dirty(connection: &Connection, id: FileId) -> Result<bool> {
    let mut query = connection.prepare_cached("SELECT dirty FROM file WHERE id = ?1")?;
    Ok(query.query_row([id.0 as i64], |row| row.get(0)).optional()?.unwrap_or(false))
}

fn put_file(connection: &Connection, total: &mut Total, row: &FileRow) -> Result<()> {
    let integer = |number: u64| ValueRef::Integer(number as i64);
    let base = row.base.as_ref();
    let etag = base.map(|version| version.etag.text());
    let present = if row.complete { Vec::new() } else { encode_spans(&row.present) };
    let values = [
        integer(row.id.0),
        base.map_or(ValueRef::Null, |version| text(version.key.as_str())),
        etag.as_deref().map_or(ValueRef::Null, text),
        base.map_or(ValueRef::Null, |version| integer(version.size)),
        integer(row.size),
        integer(row.dirty.into()),
        integer(row.complete.into()),
        ValueRef::Blob(&present),
        ValueRef::Integer(row.mtime_ns),
        integer(row.used),
    ];
    FILE.put(connection, total, &values)
}

pub fn set_meta(connection: &Connection, total: &mut Total, name: &str, value: &str) -> Result<()> {
    META.put(connection, total, &[text(name), text(value)])
}

/// Writes the one row of the table `total`, which has a seal of its own.
pub fn put_total(connection: &Connection, total: &Total) -> Result<()> {
    let numbers = [1, total.commits as i64, total.sum];
    let seal = seal("total", numbers.map(ValueRef::Integer));
    let mut put = connection.prepare_cached("INSERT OR REPLACE INTO total (id, commits, sum, seal) VALUES (?1, ?2, ?3, ?4)")?;
    put.execute([numbers[0], numbers[1], numbers[2], seal]).map(|_| ())
}
