//! One SQLite file: how it is opened, checked and brought to the present schema, and what its errors mean to a user.
//!
//! Must not: know what the tables are for.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::error::{Error, Result};

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
    CREATE TABLE checksum (file_id INTEGER NOT NULL, region INTEGER NOT NULL, sums BLOB NOT NULL, PRIMARY KEY (file_id, region));
    CREATE TABLE seal (file_id INTEGER PRIMARY KEY, size INTEGER NOT NULL, whole INTEGER NOT NULL);
",
];

/// Another process that looks into the journal (`recover`, a backup) may hold it for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// More than the statements there are, so that each is parsed once.
const STATEMENTS: usize = 64;

pub struct Database {
    pub connection: Connection,
    /// There was no file, or an empty one.
    pub was_made: bool,
}

impl Database {
    /// Opens the file, made with mode 0600 where there was none; SQLite gives its log the same mode.
    pub fn open(path: &Path) -> rusqlite::Result<Database> {
        let cannot = |error: std::io::Error| {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
            rusqlite::Error::SqliteFailure(code, Some(error.to_string()))
        };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(cannot)?;
        let was_made = file.metadata().map_err(cannot)?.len() == 0;
        drop(file);
        Ok(Database { connection: connect(path)?, was_made })
    }
}

/// A connection with our settings. `synchronous=NORMAL` makes a commit a `write(2)` without fsync, and keeps the file
/// sound over a power cut; checkpoints are never automatic, since they fsync.
pub fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0; PRAGMA temp_store = MEMORY;")?;
    Ok(connection)
}

/// Refuses a file whose structure is broken.
pub fn check(connection: &Connection, path: &Path) -> Result<()> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|e| explain(path, e))?;
    if verdict == "ok" { Ok(()) } else { Err(damaged(path, &verdict)) }
}

pub fn migrate(connection: &Connection, path: &Path) -> Result<()> {
    let newest = MIGRATIONS.len() as i64;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(|e| explain(path, e))?;
    if version > newest {
        return Err(Error::Journal(format!(
            "{} has schema version {version}, this mediafs knows {newest}: use the newer mediafs that wrote it, or another --cache-dir",
            path.display()
        )));
    }
    for (index, step) in MIGRATIONS.iter().enumerate().skip(version.max(0) as usize) {
        let result = transaction(connection, |connection| {
            connection.execute_batch(step)?;
            connection.pragma_update(None, "user_version", index as i64 + 1)
        });
        result.map_err(|e| explain(path, e))?;
    }
    Ok(())
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

fn damaged(path: &Path, detail: &str) -> Error {
    let directory = path.parent().unwrap_or(path).display();
    Error::Corrupt(format!(
        "{} ({detail}); nothing was changed: save what is not in the bucket yet with `mediafs recover {directory}`, \
         or move {directory} away to start with an empty cache",
        path.display()
    ))
}
