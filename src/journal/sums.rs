//! Checksums of data files, and which files are at rest: rows and nothing else.
//!
//! The cache encodes the sums and knows their meaning. A region's sums are dropped before a byte under them changes, so that
//! at no instant the journal holds a sum of bytes that are no more.

use rusqlite::Connection;
use rusqlite::types::{Value, ValueRef};

use super::Seal;
use super::rows::{all, bytes};
use super::seal::Total;
use super::tables::{AT_REST, CHECKSUM, damage};
use crate::types::FileId;

type Result<T> = rusqlite::Result<T>;

/// An empty row is as good as none.
pub fn put(connection: &Connection, total: &mut Total, id: FileId, region: u64, encoded: &[u8]) -> Result<()> {
    CHECKSUM.put(connection, total, &[integer(id.0), integer(region), ValueRef::Blob(encoded)])
}

pub fn seal(connection: &Connection, total: &mut Total, id: FileId, seal: Seal) -> Result<()> {
    AT_REST.put(connection, total, &[integer(id.0), integer(seal.size), integer(seal.whole.into())])
}

pub fn break_seal(connection: &Connection, total: &mut Total, id: FileId) -> Result<()> {
    AT_REST.drop_rows(connection, total, &(id.0 as i64))
}

/// Everything of a data file that goes.
pub fn forget(connection: &Connection, total: &mut Total, id: FileId) -> Result<()> {
    CHECKSUM.drop_rows(connection, total, &(id.0 as i64))?;
    break_seal(connection, total, id)
}

pub fn seals(connection: &Connection) -> Result<Vec<(FileId, Seal)>> {
    all(connection, &AT_REST, decode_seal)
}

pub fn decode_seal(values: &[Value]) -> Option<(FileId, Seal)> {
    match values {
        [id, size, Value::Integer(whole)] => Some((FileId(bytes(id)?), Seal { size: bytes(size)?, whole: *whole != 0 })),
        _ => None,
    }
}

pub fn decode_sums(values: &[Value]) -> Option<(FileId, u64, Vec<u8>)> {
    match values {
        [id, region, Value::Blob(sums)] => Some((FileId(bytes(id)?), bytes(region)?, sums.clone())),
        _ => None,
    }
}

pub fn of_file(connection: &Connection, id: FileId) -> Result<Vec<(u64, Vec<u8>)>> {
    let rows = CHECKSUM.some(connection, "SELECT * FROM checksum WHERE file_id = ?1 ORDER BY region", &(id.0 as i64))?;
    let decode = |row: Vec<Value>| match <[Value; 3]>::try_from(row) {
        Ok([_, region, Value::Blob(sums)]) => bytes(&region).map(|region| (region, sums)),
        _ => None,
    };
    rows.into_iter().map(|row| decode(row).ok_or_else(|| damage("a row of checksums makes no sense".to_owned()))).collect()
}

fn integer(number: u64) -> ValueRef<'static> {
    ValueRef::Integer(number as i64)
}
