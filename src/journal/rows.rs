//! The journal's rows as Rust values: encodings, nothing else. `changes` is the other direction.
//!
//! Sizes and offsets are stored as SQLite's signed integers (an object has at most 5 TiB). Present maps are pairs of
//! little-endian u64. Whatever doesn't decode is reported as damage, never skipped.

use std::collections::BTreeMap;

use rusqlite::Connection;
use rusqlite::types::Value;

use crate::store::UploadId;
use crate::types::{ETag, FileId, Key, Span, Version};

use super::tables::{ATTEMPT, DESIRED, FILE, PRESENT, Table, UPLOAD, damage};
use super::{Desired, FileRow};

type Result<T> = rusqlite::Result<T>;

/// Parts of an incomplete file that were added after its row was put, and its size then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    pub id: FileId,
    pub span: Span,
    pub size: u64,
}

pub fn desired(connection: &Connection) -> Result<Vec<(Key, Desired)>> {
    all(connection, &DESIRED, decode_desired)
}

pub fn uploads(connection: &Connection) -> Result<Vec<(Key, UploadId)>> {
    all(connection, &UPLOAD, decode_upload)
}

pub fn attempts(connection: &Connection) -> Result<Vec<(Key, ETag)>> {
    all(connection, &ATTEMPT, decode_attempt)
}

/// All data files in the order of their ids; with `added`, together with the spans of `AddPresent`.
pub fn files(connection: &Connection, added: bool) -> Result<Vec<FileRow>> {
    let mut files = all(connection, &FILE, decode_file)?;
    if added {
        add_spans(&mut files, all(connection, &PRESENT, decode_added)?);
    }
    Ok(files)
}

pub fn all<T>(connection: &Connection, table: &Table, decode: impl Fn(&[Value]) -> Option<T>) -> Result<Vec<T>> {
    let mut found = Vec::new();
    table.scan(connection, |values, _| {
        found.push(decode(&values).ok_or_else(|| damage(format!("a row of the table {} makes no sense", table.name)))?);
        Ok(())
    })?;
    Ok(found)
}

pub fn decode_desired(values: &[Value]) -> Option<(Key, Desired)> {
    let [key, state] = values else { return None };
    Some((Key::new(text(key)?), serde_json::from_str(text(state)?).ok()?))
}

pub fn decode_upload(values: &[Value]) -> Option<(Key, UploadId)> {
    let [id, key] = values else { return None };
    Some((Key::new(text(key)?), UploadId(text(id)?.to_owned())))
}

pub fn decode_attempt(values: &[Value]) -> Option<(Key, ETag)> {
    let [key, etag] = values else { return None };
    Some((Key::new(text(key)?), ETag::new(text(etag)?)))
}

/// A name and a value: a row of `meta` or of `symlink`.
pub fn decode_pair(values: &[Value]) -> Option<(String, String)> {
    let [name, value] = values else { return None };
    Some((text(name)?.to_owned(), text(value)?.to_owned()))
}

pub fn decode_file(values: &[Value]) -> Option<FileRow> {
    let [id, base_key, base_etag, base_size, size, dirty, complete, present, mtime_ns, used] = values else { return None };
    let base = match base_key {
        Value::Null => None,
        key => Some(Version { key: Key::new(text(key)?), etag: ETag::new(text(base_etag)?), size: bytes(base_size)? }),
    };
    let (Value::Blob(present), Value::Integer(mtime_ns)) = (present, mtime_ns) else { return None };
    Some(FileRow {
        id: FileId(bytes(id)?),
        base,
        size: bytes(size)?,
        dirty: bytes(dirty)? != 0,
        complete: bytes(complete)? != 0,
        present: decode_spans(present)?,
        mtime_ns: *mtime_ns,
        // Not sealed, and nothing depends on it.
        used: bytes(used).unwrap_or(0),
    })
}

pub fn decode_added(values: &[Value]) -> Option<Added> {
    let [id, start, end, size] = values else { return None };
    let span = bytes(start)?..bytes(end)?;
    (span.start <= span.end).then_some(Added { id: FileId(bytes(id)?), span, size: bytes(size)? })
}

/// Unites the rows, in the order of their ids, with the added spans.
pub fn add_spans(files: &mut [FileRow], added: Vec<Added>) {
    let mut by_file: BTreeMap<FileId, Vec<Added>> = BTreeMap::new();
    for added in added {
        by_file.entry(added.id).or_default().push(added);
    }
    for file in files {
        // A span without a row belongs to a file that was removed: nobody wants it.
        for added in by_file.remove(&file.id).unwrap_or_default() {
            file.size = file.size.max(added.size);
            if !file.complete {
                file.present.push(added.span);
            }
        }
        unite(&mut file.present);
    }
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

pub fn text(value: &Value) -> Option<&str> {
    if let Value::Text(text) = value { Some(text) } else { None }
}

pub fn bytes(value: &Value) -> Option<u64> {
    if let Value::Integer(number) = value { u64::try_from(*number).ok() } else { None }
}

pub fn encode_spans(spans: &[Span]) -> Vec<u8> {
    spans.iter().flat_map(|span| [span.start, span.end]).flat_map(u64::to_le_bytes).collect()
}

/// None where the bytes are not ordered, disjoint spans.
fn decode_spans(bytes: &[u8]) -> Option<Vec<Span>> {
    let (numbers, rest) = bytes.as_chunks::<8>();
    let numbers: Vec<u64> = numbers.iter().copied().map(u64::from_le_bytes).collect();
    let ordered = rest.is_empty() && numbers.len().is_multiple_of(2) && numbers.is_sorted();
    ordered.then(|| numbers.chunks(2).map(|pair| pair[0]..pair[1]).collect())
}
