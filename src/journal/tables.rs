//! The sealed tables: how a row is put, dropped and read so that its seal and the total always follow.
//!
//! Everything that changes a row goes through [`Table::put`] or [`Table::drop_rows`], everything that reads one through
//! [`Table::scan`] or [`Table::one`], which refuse a row whose seal doesn't verify.

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params_from_iter};

use super::seal::{self, SEAL, Total};

type Result<T> = rusqlite::Result<T>;

/// A table and its statements. `columns` without the seal, in the table's order; the first `keys` are its primary key.
pub struct Table {
    pub name: &'static str,
    pub columns: &'static [&'static str],
    /// Keyed by SQLite's row number, so that its pages are of the other kind.
    pub by_row_number: bool,
    find: &'static str,
    put: &'static str,
    drop: &'static str,
    all: &'static str,
}

pub const META: Table = Table {
    name: "meta",
    columns: &["name", "value"],
    by_row_number: false,
    find: "SELECT seal FROM meta WHERE name = ?1",
    put: "INSERT OR REPLACE INTO meta (name, value, seal) VALUES (?1, ?2, ?3)",
    drop: "DELETE FROM meta WHERE name = ?1 RETURNING seal",
    all: "SELECT * FROM meta ORDER BY name",
};

pub const DESIRED: Table = Table {
    name: "desired",
    columns: &["key", "state"],
    by_row_number: false,
    find: "SELECT seal FROM desired WHERE key = ?1",
    put: "INSERT OR REPLACE INTO desired (key, state, seal) VALUES (?1, ?2, ?3)",
    drop: "DELETE FROM desired WHERE key = ?1 RETURNING seal",
    all: "SELECT * FROM desired ORDER BY key",
};

pub const FILE: Table = Table {
    name: "file",
    columns: &["id", "base_key", "base_etag", "base_size", "size", "dirty", "complete", "present", "mtime_ns", "used"],
    by_row_number: true,
    find: "SELECT seal FROM file WHERE id = ?1",
    put: "INSERT OR REPLACE INTO file (id, base_key, base_etag, base_size, size, dirty, complete, present, mtime_ns, used, seal)
          VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    drop: "DELETE FROM file WHERE id = ?1 RETURNING seal",
    all: "SELECT * FROM file ORDER BY id",
};

pub const PRESENT: Table = Table {
    name: "present",
    columns: &["file_id", "start", "end", "size"],
    by_row_number: false,
    find: "SELECT seal FROM present WHERE file_id = ?1 AND start = ?2 AND end = ?3 AND size = ?4",
    put: "INSERT OR REPLACE INTO present (file_id, start, end, size, seal) VALUES (?1, ?2, ?3, ?4, ?5)",
    // All spans of a file go at once.
    drop: "DELETE FROM present WHERE file_id = ?1 RETURNING seal",
    all: "SELECT * FROM present ORDER BY file_id, start",
};

pub const UPLOAD: Table = Table {
    name: "upload",
    columns: &["id", "key"],
    by_row_number: false,
    find: "SELECT seal FROM upload WHERE id = ?1",
    put: "INSERT OR REPLACE INTO upload (id, key, seal) VALUES (?1, ?2, ?3)",
    drop: "DELETE FROM upload WHERE id = ?1 RETURNING seal",
    all: "SELECT * FROM upload ORDER BY key, id",
};

pub const ATTEMPT: Table = Table {
    name: "attempt",
    columns: &["key", "etag"],
    by_row_number: false,
    find: "SELECT seal FROM attempt WHERE key = ?1 AND etag = ?2",
    put: "INSERT OR REPLACE INTO attempt (key, etag, seal) VALUES (?1, ?2, ?3)",
    // All attempts of a key go at once.
    drop: "DELETE FROM attempt WHERE key = ?1 RETURNING seal",
    all: "SELECT * FROM attempt ORDER BY key, etag",
};

pub const SYMLINK: Table = Table {
    name: "symlink",
    columns: &["key", "target"],
    by_row_number: false,
    find: "SELECT seal FROM symlink WHERE key = ?1",
    put: "INSERT OR REPLACE INTO symlink (key, target, seal) VALUES (?1, ?2, ?3)",
    drop: "DELETE FROM symlink WHERE key = ?1 RETURNING seal",
    all: "SELECT * FROM symlink ORDER BY key",
};

pub const KEPT_UPLOAD: Table = Table {
    name: "kept_upload",
    columns: &["id", "file_id", "part_bytes", "headers"],
    by_row_number: false,
    find: "SELECT seal FROM kept_upload WHERE id = ?1",
    put: "INSERT OR REPLACE INTO kept_upload (id, file_id, part_bytes, headers, seal) VALUES (?1, ?2, ?3, ?4, ?5)",
    drop: "DELETE FROM kept_upload WHERE id = ?1 RETURNING seal",
    all: "SELECT * FROM kept_upload ORDER BY id",
};

pub const FREED: Table = Table {
    name: "freed",
    columns: &["file_id", "start", "end", "upload_id", "number", "etag", "md5"],
    by_row_number: false,
    find: "SELECT seal FROM freed WHERE file_id = ?1 AND start = ?2",
    put: "INSERT OR REPLACE INTO freed (file_id, start, end, upload_id, number, etag, md5, seal)
          VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    // All parts of an upload go at once.
    drop: "DELETE FROM freed WHERE upload_id = ?1 RETURNING seal",
    all: "SELECT * FROM freed ORDER BY file_id, start",
};

pub const CHECKSUM: Table = Table {
    name: "checksum",
    columns: &["file_id", "region", "sums"],
    by_row_number: false,
    find: "SELECT seal FROM checksum WHERE file_id = ?1 AND region = ?2",
    put: "INSERT OR REPLACE INTO checksum (file_id, region, sums, seal) VALUES (?1, ?2, ?3, ?4)",
    // All regions of a file go at once.
    drop: "DELETE FROM checksum WHERE file_id = ?1 RETURNING seal",
    all: "SELECT * FROM checksum ORDER BY file_id, region",
};

pub const AT_REST: Table = Table {
    name: "at_rest",
    columns: &["file_id", "size", "whole"],
    by_row_number: false,
    find: "SELECT seal FROM at_rest WHERE file_id = ?1",
    put: "INSERT OR REPLACE INTO at_rest (file_id, size, whole, seal) VALUES (?1, ?2, ?3, ?4)",
    drop: "DELETE FROM at_rest WHERE file_id = ?1 RETURNING seal",
    all: "SELECT * FROM at_rest ORDER BY file_id",
};

pub const TABLES: [&Table; 11] = [&META, &DESIRED, &FILE, &PRESENT, &UPLOAD, &ATTEMPT, &SYMLINK, &CHECKSUM, &AT_REST, &KEPT_UPLOAD, &FREED];

impl Table {
    /// How many of the first columns are the primary key: as many as `find` asks for.
    fn keys(&self) -> usize {
        self.find.matches('?').count()
    }

    /// Of the values of all columns but the seal.
    pub fn seal(&self, values: &[ValueRef<'_>]) -> i64 {
        seal::seal(self.name, self.columns.iter().zip(values).filter(|(column, _)| seal::covers(column)).map(|(_, value)| *value))
    }

    /// Makes or replaces a row.
    pub fn put(&self, connection: &Connection, total: &mut Total, values: &[ValueRef<'_>]) -> Result<()> {
        let keys = values[..self.keys()].iter().map(|value| ToSqlOutput::Borrowed(*value));
        let old: Option<i64> = connection.prepare_cached(self.find)?.query_row(params_from_iter(keys), |row| row.get(0)).optional()?;
        let seal = self.seal(values);
        let all = values.iter().map(|value| ToSqlOutput::Borrowed(*value)).chain([ToSqlOutput::from(seal)]);
        connection.prepare_cached(self.put)?.execute(params_from_iter(all))?;
        if let Some(old) = old {
            total.remove(old);
        }
        total.add(seal);
        Ok(())
    }

    /// Drops the rows that the table's `drop` names by `key`.
    pub fn drop_rows(&self, connection: &Connection, total: &mut Total, key: &dyn ToSql) -> Result<()> {
        let mut statement = connection.prepare_cached(self.drop)?;
        let mut dropped = statement.query([key])?;
        while let Some(row) = dropped.next()? {
            total.remove(row.get(0)?);
        }
        Ok(())
    }

    /// Each row's values without the seal, and the seal, in order. A row that doesn't verify is the error.
    pub fn scan(&self, connection: &Connection, mut each: impl FnMut(Vec<Value>, i64) -> Result<()>) -> Result<()> {
        let mut statement = connection.prepare(self.all)?;
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (values, seal) = verified(self.name, &columns, row)?;
            each(values, seal)?;
        }
        Ok(())
    }

    /// The rows as they are, from a time before there were seals.
    pub fn scan_unsealed(&self, connection: &Connection) -> Result<Vec<Vec<Value>>> {
        let mut statement = connection.prepare(self.all)?;
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let rows = statement.query_map([], |row| Ok(values(&columns, row)?.0))?;
        rows.collect()
    }

    /// The rows that `query` (`SELECT * FROM … WHERE …`) finds.
    pub fn some(&self, connection: &Connection, query: &str, key: &dyn ToSql) -> Result<Vec<Vec<Value>>> {
        let mut statement = connection.prepare_cached(query)?;
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let rows = statement.query_map([key], |row| verified(self.name, &columns, row).map(|(values, _)| values))?;
        rows.collect()
    }

    /// The row that `query` (`SELECT * FROM … WHERE …`) finds.
    pub fn one(&self, connection: &Connection, query: &str, key: &dyn ToSql) -> Result<Option<Vec<Value>>> {
        let mut statement = connection.prepare_cached(query)?;
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        statement.query_row([key], |row| verified(self.name, &columns, row).map(|(values, _)| values)).optional()
    }
}

fn verified(table: &str, columns: &[String], row: &Row<'_>) -> Result<(Vec<Value>, i64)> {
    let (values, stored) = values(columns, row)?;
    let names = columns.iter().filter(|name| *name != SEAL);
    let covered = names.zip(&values).filter(|(name, _)| seal::covers(name)).map(|(_, value)| ValueRef::from(value));
    match stored {
        Some(stored) if stored == seal::seal(table, covered) => Ok((values, stored)),
        _ => Err(damage(format!("a row of the table {table} has a wrong checksum"))),
    }
}

fn values(columns: &[String], row: &Row<'_>) -> Result<(Vec<Value>, Option<i64>)> {
    let mut values = Vec::with_capacity(columns.len());
    let mut seal = None;
    for (at, name) in columns.iter().enumerate() {
        if name == SEAL {
            seal = row.get_ref(at)?.as_i64().ok();
        } else {
            // Not by `get`: text that is no UTF-8 any more is damage, too.
            values.push(Value::try_from(row.get_ref(at)?)?);
        }
    }
    Ok((values, seal))
}

/// What was found says that the file is damaged, in SQLite's own words for it.
pub fn damage(what: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), Some(what))
}
