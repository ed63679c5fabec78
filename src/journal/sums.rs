//! Checksums of data files, and the seals that tell what they are worth: statements and nothing else.
//!
//! The cache encodes the sums and knows their meaning. A region's row is dropped before a byte of it changes, so that at no
//! instant the journal holds a sum of bytes that are no more.

use rusqlite::{Connection, params};

use super::Seal;
use super::rows::bytes;
use crate::types::FileId;

type Result<T> = rusqlite::Result<T>;

pub fn put(connection: &Connection, id: FileId, region: u64, encoded: &[u8]) -> Result<()> {
    let mut put = connection.prepare_cached("INSERT OR REPLACE INTO checksum (file_id, region, sums) VALUES (?1, ?2, ?3)")?;
    put.execute(params![id.0 as i64, region as i64, encoded]).map(|_| ())
}

pub fn drop(connection: &Connection, id: FileId, region: u64) -> Result<()> {
    let mut drop = connection.prepare_cached("DELETE FROM checksum WHERE file_id = ?1 AND region = ?2")?;
    drop.execute([id.0 as i64, region as i64]).map(|_| ())
}

pub fn seal(connection: &Connection, id: FileId, seal: Seal) -> Result<()> {
    let mut put = connection.prepare_cached("INSERT OR REPLACE INTO seal (file_id, size, whole) VALUES (?1, ?2, ?3)")?;
    put.execute(params![id.0 as i64, seal.size as i64, seal.whole]).map(|_| ())
}

pub fn break_seal(connection: &Connection, id: FileId) -> Result<()> {
    connection.prepare_cached("DELETE FROM seal WHERE file_id = ?1")?.execute([id.0 as i64]).map(|_| ())
}

/// Everything of a data file that goes.
pub fn forget(connection: &Connection, id: FileId) -> Result<()> {
    connection.prepare_cached("DELETE FROM checksum WHERE file_id = ?1")?.execute([id.0 as i64])?;
    break_seal(connection, id)
}

pub fn seals(connection: &Connection) -> Result<Vec<(FileId, Seal)>> {
    let mut query = connection.prepare("SELECT file_id, size, whole FROM seal ORDER BY file_id")?;
    let rows = query.query_map([], |row| Ok((FileId(bytes(row, 0)?), Seal { size: bytes(row, 1)?, whole: row.get(2)? })))?;
    rows.collect()
}

pub fn of_file(connection: &Connection, id: FileId) -> Result<Vec<(u64, Vec<u8>)>> {
    let mut query = connection.prepare_cached("SELECT region, sums FROM checksum WHERE file_id = ?1 ORDER BY region")?;
    let rows = query.query_map([id.0 as i64], |row| Ok((bytes(row, 0)?, row.get(1)?)))?;
    rows.collect()
}
