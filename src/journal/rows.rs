//! The journal's tables from and to Rust values: statements and encodings, nothing else.
//!
//! Sizes and offsets are stored as SQLite's signed integers (an object has at most 5 TiB). Present maps are pairs of
//! little-endian u64. Whatever doesn't decode is reported as damage, never skipped.

use rusqlite::types::Type;
use rusqlite::{Connection, Row, params};

use crate::store::UploadId;
use crate::types::{ETag, FileId, Key, Span, Version};

use super::{Change, Desired, FileRow, sums};

type Result<T> = rusqlite::Result<T>;

pub fn apply(connection: &Connection, changes: &[Change]) -> Result<()> {
    changes.iter().try_for_each(|change| apply_one(connection, change))
}

fn apply_one(connection: &Connection, change: &Change) -> Result<()> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| connection.prepare_cached(sql)?.execute(values).map(|_| ());
    match change {
        Change::SetDesired(key, desired) => {
            let state = serde_json::to_string(desired).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
            run("INSERT OR REPLACE INTO desired (key, state) VALUES (?1, ?2)", &[&key.as_str(), &state])
        }
        Change::ClearDesired(key) => {
            run("DELETE FROM attempt WHERE key = ?1", &[&key.as_str()])?;
            run("DELETE FROM desired WHERE key = ?1", &[&key.as_str()])
        }
        Change::Attempt(key, etag) => run("INSERT OR IGNORE INTO attempt (key, etag) VALUES (?1, ?2)", &[&key.as_str(), &etag.as_str()]),
        Change::PutFile(row) => put_file(connection, row, "WHERE file.dirty = 0"),
        Change::ReplaceFile(row) => {
            drop_spans(connection, row.id)?;
            put_file(connection, row, "")
        }
        Change::RemoveFile(id) => {
            drop_spans(connection, *id)?;
            sums::forget(connection, *id)?;
            run("DELETE FROM file WHERE id = ?1", &[&(id.0 as i64)])
        }
        Change::AddPresent(id, span, size) => run(
            "INSERT OR IGNORE INTO present (file_id, start, end, size) VALUES (?1, ?2, ?3, ?4)",
            &[&(id.0 as i64), &(span.start as i64), &(span.end as i64), &(*size as i64)],
        ),
        Change::PutSums(id, region, encoded) => sums::put(connection, *id, *region, encoded),
        Change::DropSums(id, region) => sums::drop(connection, *id, *region),
        Change::Seal(id, seal) => sums::seal(connection, *id, *seal),
        Change::BreakSeal(id) => sums::break_seal(connection, *id),
        Change::Used(id, used) => run("UPDATE file SET used = ?2 WHERE id = ?1", &[&(id.0 as i64), &(*used as i64)]),
        Change::BeginUpload(key, id) => run("INSERT OR REPLACE INTO upload (id, key) VALUES (?1, ?2)", &[&id.0, &key.as_str()]),
        Change::EndUpload(id) => run("DELETE FROM upload WHERE id = ?1", &[&id.0]),
        Change::RememberSymlink(key, target) => {
            run("INSERT OR REPLACE INTO symlink (key, target) VALUES (?1, ?2)", &[&key.as_str(), target])
        }
        Change::ForgetSymlink(key) => run("DELETE FROM symlink WHERE key = ?1", &[&key.as_str()]),
    }
}

fn drop_spans(connection: &Connection, id: FileId) -> Result<()> {
    connection.prepare_cached("DELETE FROM present WHERE file_id = ?1")?.execute([id.0 as i64]).map(|_| ())
}

/// `only`: which row that is there already may be replaced.
fn put_file(connection: &Connection, row: &FileRow, only: &str) -> Result<()> {
    let mut put = connection.prepare_cached(&format!(
        "INSERT INTO file (id, base_key, base_etag, base_size, size, dirty, complete, present, mtime_ns, used)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (id) DO UPDATE SET base_key = ?2, base_etag = ?3, base_size = ?4, size = ?5, dirty = ?6, complete = ?7,
             present = ?8, mtime_ns = ?9, used = ?10 {only}"
    ))?;
    let base = row.base.as_ref();
    put.execute(params![
        row.id.0 as i64,
        base.map(|version| version.key.as_str()),
        base.map(|version| version.etag.as_str()),
        base.map(|version| version.size as i64),
        row.size as i64,
        row.dirty,
        row.complete,
        if row.complete { Vec::new() } else { encode_spans(&row.present) },
        row.mtime_ns,
        row.used as i64,
    ])?;
    Ok(())
}

pub fn set_meta(connection: &Connection, name: &str, value: &str) -> Result<()> {
    connection.prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)")?.execute([name, value]).map(|_| ())
}

pub fn desired(connection: &Connection) -> Result<Vec<(Key, Desired)>> {
    let mut query = connection.prepare("SELECT key, state FROM desired ORDER BY key")?;
    let rows = query.query_map([], |row| {
        let desired = serde_json::from_str(row.get_ref(1)?.as_str()?);
        Ok((key(row, 0)?, desired.map_err(|e| rusqlite::Error::FromSqlConversionFailure(1, Type::Text, Box::new(e)))?))
    })?;
    rows.collect()
}

pub fn uploads(connection: &Connection) -> Result<Vec<(Key, UploadId)>> {
    let mut query = connection.prepare("SELECT key, id FROM upload ORDER BY key, id")?;
    let rows = query.query_map([], |row| Ok((key(row, 0)?, UploadId(row.get(1)?))))?;
    rows.collect()
}

pub fn attempts(connection: &Connection) -> Result<Vec<(Key, ETag)>> {
    let mut query = connection.prepare("SELECT key, etag FROM attempt ORDER BY key, etag")?;
    let rows = query.query_map([], |row| Ok((key(row, 0)?, ETag::new(row.get_ref(1)?.as_str()?))))?;
    rows.collect()
}

/// All data files in the order of their ids; with `added`, together with the spans of `AddPresent`.
pub fn files(connection: &Connection, added: bool) -> Result<Vec<FileRow>> {
    let mut query = connection
        .prepare("SELECT id, base_key, base_etag, base_size, size, dirty, complete, present, mtime_ns, used FROM file ORDER BY id")?;
    let mut files = query.query_map([], file)?.collect::<Result<Vec<FileRow>>>()?;
    if added {
        add_spans(connection, &mut files)?;
    }
    Ok(files)
}

fn file(row: &Row<'_>) -> Result<FileRow> {
    let base = match row.get::<_, Option<String>>(1)? {
        Some(key) => Some(Version { key: Key::new(key), etag: ETag::new(row.get_ref(2)?.as_str()?), size: bytes(row, 3)? }),
        None => None,
    };
    Ok(FileRow {
        id: FileId(bytes(row, 0)?),
        base,
        size: bytes(row, 4)?,
        dirty: row.get(5)?,
        complete: row.get(6)?,
        present: decode_spans(row.get_ref(7)?.as_blob()?)
            .ok_or_else(|| rusqlite::Error::InvalidColumnType(7, "present".into(), Type::Blob))?,
        mtime_ns: row.get(8)?,
        used: bytes(row, 9)?,
    })
}

/// Unites the rows with the added spans; both come in the order of ids.
fn add_spans(connection: &Connection, files: &mut [FileRow]) -> Result<()> {
    let mut query = connection.prepare("SELECT file_id, start, end, size FROM present ORDER BY file_id, start")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let id = FileId(bytes(row, 0)?);
        // A span without a row belongs to a file that was removed: nobody wants it.
        let Ok(at) = files.binary_search_by_key(&id, |file| file.id) else { continue };
        let file = &mut files[at];
        file.size = file.size.max(bytes(row, 3)?);
        if !file.complete {
            file.present.push(bytes(row, 1)?..bytes(row, 2)?);
        }
    }
    for file in files {
        unite(&mut file.present);
    }
    Ok(())
}

/// Sorts spans and joins those that touch.
fn unite(spans: &mut Vec<Span>) {
    spans.sort_by_key(|span| span.start);
    let mut joined: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans.drain(..) {
        match joined.last_mut() {
            Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
            _ => joined.push(span),
        }
    }
    *spans = joined;
}

fn key(row: &Row<'_>, column: usize) -> Result<Key> {
    Ok(Key::new(row.get_ref(column)?.as_str()?))
}

pub(super) fn bytes(row: &Row<'_>, column: usize) -> Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

fn encode_spans(spans: &[Span]) -> Vec<u8> {
    spans.iter().flat_map(|span| [span.start, span.end]).flat_map(u64::to_le_bytes).collect()
}

/// None where the bytes are not ordered, disjoint spans.
fn decode_spans(bytes: &[u8]) -> Option<Vec<Span>> {
    let (numbers, rest) = bytes.as_chunks::<8>();
    let numbers: Vec<u64> = numbers.iter().copied().map(u64::from_le_bytes).collect();
    let ordered = rest.is_empty() && numbers.len().is_multiple_of(2) && numbers.is_sorted();
    ordered.then(|| numbers.chunks(2).map(|pair| pair[0]..pair[1]).collect())
}
