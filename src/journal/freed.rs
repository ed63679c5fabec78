//! Parts of files that only an unfinished upload holds: the upload is gone on with after a crash, not aborted.
//!
//! Must not: outlive the upload or the file; both take their rows along.

use rusqlite::types::Type;
use rusqlite::{Connection, params};

use crate::store::{Part, UploadId};
use crate::types::{ETag, FileId, Span};

use super::rows::bytes;
use super::{FreedPart, KeptUpload};

type Result<T> = rusqlite::Result<T>;

pub fn keep_upload(connection: &Connection, id: &UploadId, kept: &KeptUpload) -> Result<()> {
    let headers = serde_json::to_string(&kept.headers).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
    let mut keep =
        connection.prepare_cached("INSERT OR REPLACE INTO kept_upload (id, file_id, part_bytes, headers) VALUES (?1, ?2, ?3, ?4)")?;
    keep.execute(params![id.0, kept.file.0 as i64, kept.part_bytes as i64, headers]).map(|_| ())
}

pub fn free(connection: &Connection, id: &UploadId, file: FileId, freed: &FreedPart) -> Result<()> {
    let mut free = connection.prepare_cached(
        "INSERT OR REPLACE INTO freed (upload_id, file_id, start, end, number, etag, md5) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let (start, end) = (freed.span.start as i64, freed.span.end as i64);
    free.execute(params![id.0, file.0 as i64, start, end, freed.part.number, freed.part.etag.as_str(), freed.md5]).map(|_| ())
}

/// Parts of the file that begin in `span`.
pub fn forget(connection: &Connection, file: FileId, span: &Span) -> Result<()> {
    let mut forget = connection.prepare_cached("DELETE FROM freed WHERE file_id = ?1 AND start >= ?2 AND start < ?3")?;
    forget.execute([file.0 as i64, span.start as i64, span.end as i64]).map(|_| ())
}

pub fn end_upload(connection: &Connection, id: &UploadId) -> Result<()> {
    for table in ["DELETE FROM freed WHERE upload_id = ?1", "DELETE FROM kept_upload WHERE id = ?1"] {
        connection.prepare_cached(table)?.execute([&id.0])?;
    }
    Ok(())
}

pub fn spans(connection: &Connection) -> Result<Vec<(FileId, Span)>> {
    let mut query = connection.prepare("SELECT file_id, start, end FROM freed ORDER BY file_id, start")?;
    query.query_map([], |row| Ok((FileId(bytes(row, 0)?), bytes(row, 1)?..bytes(row, 2)?)))?.collect()
}

pub fn kept_uploads(connection: &Connection) -> Result<Vec<(UploadId, KeptUpload, Vec<FreedPart>)>> {
    let mut query = connection.prepare("SELECT id, file_id, part_bytes, headers FROM kept_upload ORDER BY id")?;
    let kept = query.query_map([], |row| {
        let headers = serde_json::from_str(row.get_ref(3)?.as_str()?);
        let headers = headers.map_err(|e| rusqlite::Error::FromSqlConversionFailure(3, Type::Text, Box::new(e)))?;
        Ok((UploadId(row.get(0)?), KeptUpload { file: FileId(bytes(row, 1)?), part_bytes: bytes(row, 2)?, headers }))
    })?;
    let kept = kept.collect::<Result<Vec<_>>>()?;
    kept.into_iter().map(|(id, kept)| parts(connection, &id).map(|parts| (id, kept, parts))).collect()
}

fn parts(connection: &Connection, id: &UploadId) -> Result<Vec<FreedPart>> {
    let mut query = connection.prepare_cached("SELECT start, end, number, etag, md5 FROM freed WHERE upload_id = ?1 ORDER BY start")?;
    let rows = query.query_map([&id.0], |row| {
        let span = bytes(row, 0)?..bytes(row, 1)?;
        let part = Part { number: row.get(2)?, etag: ETag::new(row.get_ref(3)?.as_str()?), size: span.end - span.start };
        Ok(FreedPart { part, span, md5: row.get(4)? })
    })?;
    rows.collect()
}
