//! One SQLite file: how it is opened and brought to the present schema, and what its errors mean to a user.
//!
//! Must not: know what the tables are for.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use rusqlite::types::ValueRef;

use crate::error::Error;

use super::changes::put_total;
use super::seal::Total;
use super::tables::TABLES;

/// Each step brings a journal from the version that is its index to the next; a released step is never edited.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE desired (key TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE file (
        id INTEGER PRIMARY KEY,
        base_key TEXT, base_etag TEXT, base_size INTEGER,
        size INTEGER NOT NULL, dirty INTEGER NOT NULL, complete INTEGER NOT NULL,
        present BLOB NOT NULL, mtime_ns INTEGER NOT NULL, used INTEGER NOT NULL
    );
    CREATE TABLE present (
        file_id INTEGER NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL, size INTEGER NOT NULL,
        PRIMARY KEY (file_id, start, end, size)
    ) WITHOUT ROWID;
    CREATE TABLE upload (id TEXT PRIMARY KEY, key TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE attempt (key TEXT NOT NULL, etag TEXT NOT NULL, PRIMARY KEY (key, etag)) WITHOUT ROWID;
    CREATE TABLE symlink (key TEXT PRIMARY KEY, target TEXT NOT NULL) WITHOUT ROWID;
",
    "
    CREATE TABLE checksum (
        file_id INTEGER NOT NULL, region INTEGER NOT NULL, sums BLOB NOT NULL, PRIMARY KEY (file_id, region)
    ) WITHOUT ROWID;
    CREATE TABLE at_rest (file_id INTEGER PRIMARY KEY, size INTEGER NOT NULL, whole INTEGER NOT NULL) WITHOUT ROWID;
",
    "
    ALTER TABLE meta ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE desired ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE file ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE present ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE upload ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE attempt ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE symlink ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE checksum ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE at_rest ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE total (id INTEGER PRIMARY KEY, commits INTEGER NOT NULL, sum INTEGER NOT NULL, seal INTEGER NOT NULL);
",
    "
    CREATE TABLE kept_upload (
        id TEXT PRIMARY KEY, file_id INTEGER NOT NULL, part_bytes INTEGER NOT NULL, headers TEXT NOT NULL, seal INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE freed (
        file_id INTEGER NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL, upload_id TEXT NOT NULL,
        number INTEGER NOT NULL, etag TEXT NOT NULL, md5 BLOB NOT NULL, seal INTEGER NOT NULL, PRIMARY KEY (file_id, start)
    ) WITHOUT ROWID;
",
];

/// What the step says that brings the seals.
const SEALING: &str = "CREATE TABLE total";

/// Locks the file against other processes once, keeps the log's index in memory that this process' connections share, and then
/// asks the kernel for no lock any more: with the usual one a commit costs some six of those calls. Nobody else has business
/// here while the daemon runs (`lock`): `recover` reads without SQLite.
const VFS: &str = "unix-excl";

/// Another process that looks into the journal before a daemon starts (a backup) may hold it for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// More than the statements there are, so that each is parsed once.
const STATEMENTS: usize = 64;

/// Opens the file, made with mode 0600 where there was none; SQLite gives its log the same mode.
pub fn open(path: &Path) -> rusqlite::Result<Connection> {
    let cannot = |error: std::io::Error| {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
        rusqlite::Error::SqliteFailure(code, Some(error.to_string()))
    };
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .map_err(cannot)?;
    connect(path)
}

/// A connection with our settings. `synchronous=NORMAL` makes a commit a `write(2)` without fsync, and keeps the file
/// sound over a power cut; checkpoints are never automatic, since they fsync. Nor does closing make one: where a damaged
/// journal is refused, it stays as it was found.
pub fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags_and_vfs(path, flags, VFS)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Compiled with STAT4, SQLite would parse some statements anew for each value that is bound to them.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0; PRAGMA temp_store = MEMORY;")?;
    Ok(connection)
}

pub fn newest() -> i64 {
    MIGRATIONS.len() as i64
}

/// The first version whose rows have seals.
pub fn sealed() -> i64 {
    MIGRATIONS.iter().position(|step| step.contains(SEALING)).map_or(i64::MAX, |index| index as i64 + 1)
}

pub fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Of one table: type, name, the table's name, and the statement that made it.
type Definition = (String, String, String, Option<String>);

/// The tables' definitions, by name.
pub fn schema(connection: &Connection) -> rusqlite::Result<Vec<Definition>> {
    let mut query = connection.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name")?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    rows.collect()
}

/// The definitions that the steps to this version make; None where this program doesn't know it.
pub fn schema_of(version: i64) -> rusqlite::Result<Option<Vec<Definition>>> {
    let Some(steps) = usize::try_from(version).ok().and_then(|version| MIGRATIONS.get(..version)) else { return Ok(None) };
    let connection = Connection::open_in_memory()?;
    steps.iter().try_for_each(|step| connection.execute_batch(step))?;
    schema(&connection).map(Some)
}

/// Brings the tables to the newest version in one transaction, and seals every row anew where they changed. `total` is
/// what was verified before; None where there were no seals.
pub fn migrate(connection: &Connection, total: Option<Total>) -> rusqlite::Result<Total> {
    let version = version(connection)?;
    match total {
        Some(total) if version == newest() => return Ok(total),
        _ => {}
    }
    let mut total = Total { sum: 0, ..total.unwrap_or_default() };
    transaction(connection, |connection| {
        for step in MIGRATIONS.iter().skip(version.max(0) as usize) {
            connection.execute_batch(step)?;
        }
        connection.pragma_update(None, "user_version", newest())?;
        for table in TABLES {
            let rows = table.scan_unsealed(connection)?;
            connection.execute(&format!("DELETE FROM {}", table.name), [])?;
            for row in rows {
                let values: Vec<ValueRef<'_>> = row.iter().map(ValueRef::from).collect();
                table.put(connection, &mut total, &values)?;
            }
        }
        total.commits += 1;
        put_total(connection, &total)
    })?;
    Ok(total)
}

/// Runs `work` in one transaction: all of it or nothing.
pub fn transaction(connection: &Connection, work: impl FnOnce(&Connection) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let result = work(connection).and_then(|()| connection.prepare_cached("COMMIT")?.execute([]).map(|_| ()));
    if result.is_err() && !connection.is_autocommit() {
        // The first error is the one to tell; SQLite has rolled back by itself where this one fails.
        let _ = connection.execute_batch("ROLLBACK");
    }
    result
}

/// What SQLite's error means here, and what to do about it.
pub fn explain(path: &Path, error: rusqlite::Error) -> Error {
    use rusqlite::Error as E;
    match &error {
        // The file is shorter than its pages say.
        E::SqliteFailure(cause, _) if cause.extended_code == rusqlite::ffi::SQLITE_IOERR_SHORT_READ => damaged(path, &error.to_string()),
        E::SqliteFailure(cause, _) => match cause.code {
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => damaged(path, &error.to_string()),
            ErrorCode::DiskFull => Error::NoSpace,
            _ => Error::Journal(format!("{}: {error}", path.display())),
        },
        // A value that we did not write.
        E::FromSqlConversionFailure(..) | E::IntegralValueOutOfRange(..) | E::InvalidColumnType(..) | E::Utf8Error(..) => {
            damaged(path, &error.to_string())
        }
        _ => Error::Journal(format!("{}: {error}", path.display())),
    }
}

pub fn damaged(path: &Path, detail: &str) -> Error {
    let directory = path.parent().unwrap_or(path).display();
    Error::Corrupt(format!(
        "{} ({detail}); nothing was changed: see what is not in the bucket yet with `mediafs recover {directory} list`, send it with \
         `… upload` or save it with `… export DIR`, or move {directory} away to start with an empty cache",
        path.display()
    ))
}

/// The tables as the first version made them.
#[cfg(test)]
pub fn first_version(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(MIGRATIONS[0])?;
    connection.pragma_update(None, "user_version", 1)
}
