//! Parts of files that only an unfinished upload holds: the upload is gone on with after a crash, not aborted.
//!
//! Must not: outlive the upload or the file; both take their rows along.

use rusqlite::Connection;
use rusqlite::types::{Value, ValueRef};

use crate::store::{Part, UploadId};
use crate::types::{ETag, FileId, Span};

use super::changes::text;
use super::rows::{bytes, text as text_of};
use super::seal::Total;
use super::tables::{FREED, KEPT_UPLOAD, damage};
use super::{FreedPart, KeptUpload};

type Result<T> = rusqlite::Result<T>;

pub fn keep_upload(connection: &Connection, total: &mut Total, id: &UploadId, kept: &KeptUpload) -> Result<()> {
    let headers = serde_json::to_string(&kept.headers).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
    KEPT_UPLOAD.put(connection, total, &[text(&id.0), integer(kept.file.0), integer(kept.part_bytes), text(&headers)])
}

pub fn free(connection: &Connection, total: &mut Total, id: &UploadId, file: FileId, freed: &FreedPart) -> Result<()> {
    let etag = freed.part.etag.text();
    let values = [
        integer(file.0),
        integer(freed.span.start),
        integer(freed.span.end),
        text(&id.0),
        integer(freed.part.number.into()),
        text(&etag),
        ValueRef::Blob(&freed.md5),
    ];
    FREED.put(connection, total, &values)
}

fn integer(number: u64) -> ValueRef<'static> {
    ValueRef::Integer(number as i64)
}

/// Parts of the file that begin in `span`.
pub fn forget(connection: &Connection, total: &mut Total, file: FileId, span: &Span) -> Result<()> {
    let mut forget = connection.prepare_cached("DELETE FROM freed WHERE file_id = ?1 AND start >= ?2 AND start < ?3 RETURNING seal")?;
    let mut forgotten = forget.query([file.0 as i64, span.start as i64, span.end as i64])?;
    while let Some(row) = forgotten.next()? {
        total.remove(row.get(0)?);
    }
    Ok(())
}

pub fn spans(connection: &Connection) -> Result<Vec<(FileId, Span)>> {
    Ok(all(connection)?.into_iter().map(|(file, _, freed)| (file, freed.span)).collect())
}

pub fn kept_uploads(connection: &Connection) -> Result<Vec<(UploadId, KeptUpload, Vec<FreedPart>)>> {
    let mut kept = Vec::new();
    KEPT_UPLOAD.scan(connection, |values, _| {
        let (id, upload) = decode_kept(&values).ok_or_else(|| damage("a row of the table kept_upload can't be read".into()))?;
        kept.push((id, upload, Vec::new()));
        Ok(())
    })?;
    for (_, upload, part) in all(connection)? {
        if let Some((_, _, parts)) = kept.iter_mut().find(|(id, _, _)| *id == upload) {
            parts.push(part);
        }
    }
    Ok(kept)
}

fn all(connection: &Connection) -> Result<Vec<(FileId, UploadId, FreedPart)>> {
    let mut all = Vec::new();
    FREED.scan(connection, |values, _| {
        all.push(decode_freed(&values).ok_or_else(|| damage("a row of the table freed can't be read".into()))?);
        Ok(())
    })?;
    Ok(all)
}

pub fn decode_kept(values: &[Value]) -> Option<(UploadId, KeptUpload)> {
    let [id, file, part_bytes, headers] = values else { return None };
    let headers = serde_json::from_str(text_of(headers)?).ok()?;
    Some((UploadId(text_of(id)?.to_owned()), KeptUpload { file: FileId(bytes(file)?), part_bytes: bytes(part_bytes)?, headers }))
}

pub fn decode_freed(values: &[Value]) -> Option<(FileId, UploadId, FreedPart)> {
    let [file, start, end, upload, number, etag, Value::Blob(md5)] = values else { return None };
    let span = bytes(start)?..bytes(end)?;
    let number = u32::try_from(bytes(number)?).ok()?;
    let part = Part { number, etag: ETag::new(text_of(etag)?), size: span.end.checked_sub(span.start)? };
    let freed = FreedPart { part, span, md5: md5.as_slice().try_into().ok()? };
    Some((FileId(bytes(file)?), UploadId(text_of(upload)?.to_owned()), freed))
}
