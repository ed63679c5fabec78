//! Headers of object versions that were asked about once, so that they never are again.
//!
//! A file of its own beside the journal, because it may be lost: it isn't checked at start, which would take seconds
//! with a million rows, and its writes never wait in the journal's way. Rows are written in batches, since a walk over a
//! directory learns thousands; [`Learned::find`] sees what waits. Each row carries a checksum, and one that doesn't verify
//! isn't known. A file that SQLite finds damaged, at start or later, is made anew with a warning.
//!
//! Must not: answer for another version than the one asked about, or fail because of what it may lose.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use crate::clock;
use crate::error::Result;
use crate::types::{ETag, Key, ObjectHeaders, Version};

use super::Journal;
use super::database::{connect, explain, open, transaction};
use super::make::{index_of, log_of, remove};
use super::seal::seal;
use super::tables::damage;

/// Rows kept; about 200 bytes each, so 200 MB of disk at the most.
const LIMIT: usize = 1_000_000;

/// So many rows make one commit: 1–2 ms, in the handler that learned the last of them.
const BATCH: usize = 256;

/// So long before the newest row a power cut may have brought an older row of one version back, to the store's clock.
const DOUBTED: Duration = Duration::from_secs(600);

const FILE: &str = "attributes.sqlite";

/// Of the tables below; a file of another version is thrown away.
const VERSION: i64 = 2;

const SCHEMA: &str = "CREATE TABLE learned (
    key TEXT NOT NULL UNIQUE, etag TEXT NOT NULL, last_modified_ns INTEGER NOT NULL, about INTEGER NOT NULL, headers TEXT NOT NULL,
    seal INTEGER NOT NULL)";

struct Row {
    etag: ETag,
    dated: Dated,
    headers: ObjectHeaders,
}

/// In nanoseconds since 1970.
#[derive(Clone, Copy)]
struct Dated {
    at: i64,
    /// When the answer came, since an upload's doesn't say when the store dated it.
    about: bool,
}

impl Dated {
    fn matches(self, asked: i64) -> bool {
        same_time(self.at, asked) || self.about && clock::can_be_ours(system_time(self.at), system_time(asked))
    }
}

struct Found {
    etag: String,
    dated: Dated,
    /// As JSON.
    headers: String,
}

/// Lock order: `waiting`, then `database`; `second` alone.
pub struct Learned {
    path: PathBuf,
    limit: usize,
    waiting: Mutex<HashMap<Key, Row>>,
    database: Mutex<Connection>,
    /// Checkpoints, so that a lookup doesn't wait behind their fsyncs.
    second: Mutex<Connection>,
}

impl Learned {
    pub fn open(directory: &Path) -> Result<Self> {
        Self::open_with_limit(directory, LIMIT)
    }

    pub fn open_with_limit(directory: &Path, limit: usize) -> Result<Self> {
        let path = directory.join(FILE);
        let (database, second) = open_file(&path).or_else(|error| anew(&path, &error))?;
        Ok(Self { path, limit, waiting: Mutex::default(), database: Mutex::new(database), second: Mutex::new(second) })
    }

    /// What the store said of a version, and when it was dated.
    pub fn add(&self, key: &Key, etag: &ETag, last_modified: SystemTime, headers: &ObjectHeaders) -> Result<()> {
        self.put(key, etag, Dated { at: nanoseconds(last_modified), about: false }, headers)
    }

    /// Of a version of ours, answered for at `stored` by the store's clock.
    pub fn add_own(&self, key: &Key, etag: &ETag, stored: SystemTime, headers: &ObjectHeaders) -> Result<()> {
        self.put(key, etag, Dated { at: nanoseconds(stored), about: true }, headers)
    }

    fn put(&self, key: &Key, etag: &ETag, dated: Dated, headers: &ObjectHeaders) -> Result<()> {
        let row = Row { etag: etag.clone(), dated, headers: headers.clone() };
        let mut waiting = self.waiting.lock();
        waiting.insert(key.clone(), row);
        if waiting.len() < BATCH { Ok(()) } else { self.write(&mut waiting) }
    }

    /// A row that can't be read is one that isn't known: the caller asks the bucket. One of ours has the store's time from
    /// then on.
    pub fn find(&self, key: &Key, etag: &ETag, last_modified: SystemTime) -> Result<Option<ObjectHeaders>> {
        let asked = nanoseconds(last_modified);
        let is_that = |stored: &str, dated: Dated| stored == etag.text() && dated.matches(asked);
        if let Some(row) = self.waiting.lock().get_mut(key) {
            if !is_that(&row.etag.text(), row.dated) {
                return Ok(None);
            }
            if row.dated.about {
                row.dated = Dated { at: asked, about: false };
            }
            return Ok(Some(row.headers.clone()));
        }
        let found = lookup(&self.database.lock(), key).unwrap_or_else(|error| {
            tracing::warn!("learned attributes: {}", explain(&self.path, error));
            None
        });
        let Some(row) = found.filter(|row| is_that(&row.etag, row.dated)) else { return Ok(None) };
        let Ok(headers) = serde_json::from_str(&row.headers) else { return Ok(None) };
        if row.dated.about {
            self.add(key, etag, last_modified, &headers)?;
        }
        Ok(Some(headers))
    }

    /// What was learned of these bytes last, and when they were dated: for when the bucket can't be asked.
    pub fn find_last(&self, key: &Key, etag: &ETag) -> Option<(SystemTime, ObjectHeaders)> {
        if let Some(row) = self.waiting.lock().get(key) {
            return (row.etag == *etag).then(|| (system_time(row.dated.at), row.headers.clone()));
        }
        let row = lookup(&self.database.lock(), key).ok().flatten().filter(|row| row.etag == etag.text())?;
        let headers = serde_json::from_str(&row.headers).ok()?;
        Some((system_time(row.dated.at), headers))
    }

    /// Adds a row of ours, and writes what waits: it survives a kill.
    pub fn add_own_now(&self, key: &Key, etag: &ETag, stored: SystemTime, headers: &ObjectHeaders) -> Result<()> {
        self.add_own(key, etag, stored, headers)?;
        self.write(&mut self.waiting.lock())
    }

    /// Nothing is known of `key` any more, after a kill neither.
    pub fn forget(&self, key: &Key) -> Result<()> {
        self.waiting.lock().remove(key);
        let forgotten = self.database.lock().execute("DELETE FROM learned WHERE key = ?1", [key.as_str()]);
        self.survived(forgotten).map(drop)
    }

    /// The machine went down: forgets what was dated shortly before the newest row. Headers that changed within one second,
    /// under an ETag that stayed, make two rows that nothing tells apart; the power cut may have left the first of them. Of
    /// what is dated earlier the last row is on the disk, since a later one is.
    pub fn doubt(&self) -> Result<()> {
        let doubted = i64::try_from(DOUBTED.as_nanos()).unwrap_or(i64::MAX);
        let young = "DELETE FROM learned WHERE last_modified_ns >= (SELECT max(last_modified_ns) FROM learned) - ?1";
        let (mut database, mut second) = (self.database.lock(), self.second.lock());
        if let Err(error) = database.execute(young, [doubted]) {
            (*database, *second) = anew(&self.path, &error)?;
        }
        Ok(())
    }

    /// Writes what waits, prunes, and checkpoints. May fsync.
    pub fn flush(&self) -> Result<()> {
        let mut waiting = self.waiting.lock();
        let wrote = !waiting.is_empty();
        self.write(&mut waiting)?;
        drop(waiting);
        let pruned = prune(&self.database.lock(), self.limit);
        if self.survived(pruned)? || wrote {
            let moved = self.second.lock().query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
            self.survived(moved)?;
        }
        Ok(())
    }

    /// Makes a damaged file anew; the journal's own work goes on. Called with neither connection locked.
    fn survived<T: Default>(&self, result: rusqlite::Result<T>) -> Result<T> {
        match result {
            Err(error) if is_damage(&error) => {
                let (mut database, mut second) = (self.database.lock(), self.second.lock());
                (*database, *second) = anew(&self.path, &error)?;
                Ok(T::default())
            }
            result => result.map_err(|error| explain(&self.path, error)),
        }
    }

    fn write(&self, waiting: &mut HashMap<Key, Row>) -> Result<()> {
        if waiting.is_empty() {
            return Ok(());
        }
        let result = transaction(&self.database.lock(), |connection| {
            let mut put = connection.prepare_cached(
                "INSERT OR REPLACE INTO learned (key, etag, last_modified_ns, about, headers, seal) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            for (key, row) in waiting.iter() {
                let headers = serde_json::to_string(&row.headers).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
                let row = Found { etag: row.etag.text().into_owned(), dated: row.dated, headers };
                let seal = seal_of(key, &row);
                put.execute(params![key.as_str(), row.etag, row.dated.at, row.dated.about, row.headers, seal])?;
            }
            Ok(())
        });
        // Kept or not, they must not pile up.
        waiting.clear();
        self.survived(result)
    }
}

impl Journal {
    /// Headers learned of exactly this version, if any. Times are compared to the second where one of them has no
    /// more than that: a HEAD tells whole seconds, a listing milliseconds.
    pub fn headers(&self, key: &Key, etag: &ETag, last_modified: SystemTime) -> Result<Option<ObjectHeaders>> {
        self.learned.find(key, etag, last_modified)
    }

    /// What was learned of these bytes last, and when they were dated: for when the bucket can't be asked.
    pub fn last_headers(&self, key: &Key, etag: &ETag) -> Option<(SystemTime, ObjectHeaders)> {
        self.learned.find_last(key, etag)
    }

    /// Remembers the headers of a version. Kept in memory and written in batches: losing one costs one HEAD.
    pub fn learn(&self, key: &Key, etag: &ETag, last_modified: SystemTime, headers: &ObjectHeaders) -> Result<()> {
        self.learned.add(key, etag, last_modified, headers)
    }

    /// The same of a version that went up from here, answered for at `stored` by the store's clock.
    pub fn learn_own(&self, version: &Version, stored: SystemTime, headers: &ObjectHeaders) -> Result<()> {
        self.learned.add_own(&version.key, &version.etag, stored, headers)
    }

    /// The same under an ETag that stayed. Not lost by a kill: the older headers of those seconds would be believed then.
    /// `headers` None: nothing is known of it any more.
    pub fn relearn(&self, version: &Version, stored: SystemTime, headers: Option<&ObjectHeaders>) -> Result<()> {
        match headers {
            Some(headers) => self.learned.add_own_now(&version.key, &version.etag, stored, headers),
            None => self.learned.forget(&version.key),
        }
    }
}

fn open_file(path: &Path) -> rusqlite::Result<(Connection, Connection)> {
    let connection = open(path)?;
    match connection.query_row("PRAGMA user_version", [], |row| row.get(0))? {
        VERSION => {}
        0 => transaction(&connection, |connection| {
            connection.execute_batch(SCHEMA)?;
            connection.pragma_update(None, "user_version", VERSION)
        })?,
        _ => return Err(damage("another version's".to_owned())),
    }
    Ok((connection, connect(path)?))
}

/// Throws the file away and begins an empty one.
fn anew(path: &Path, error: &rusqlite::Error) -> Result<(Connection, Connection)> {
    tracing::warn!("learned attributes are thrown away: {}: {error}", path.display());
    for name in [path.to_owned(), log_of(path), index_of(path)] {
        remove(&name)?;
    }
    open_file(path).map_err(|error| explain(path, error))
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown))
}

fn seal_of(key: &Key, row: &Found) -> i64 {
    let values = [key.as_str(), &row.etag, &row.headers].map(|text| ValueRef::Text(text.as_bytes()));
    let dated = [row.dated.at, row.dated.about.into()].map(ValueRef::Integer);
    seal("learned", values.into_iter().chain(dated))
}

fn lookup(connection: &Connection, key: &Key) -> rusqlite::Result<Option<Found>> {
    let mut query = connection.prepare_cached("SELECT etag, last_modified_ns, about, headers, seal FROM learned WHERE key = ?1")?;
    let read = |row: &rusqlite::Row<'_>| {
        let dated = Dated { at: row.get(1)?, about: row.get(2)? };
        Ok((Found { etag: row.get(0)?, dated, headers: row.get(3)? }, row.get(4)?))
    };
    let found: Option<(Found, i64)> = query.query_row([key.as_str()], read).optional()?;
    Ok(found.filter(|(row, seal)| *seal == seal_of(key, row)).map(|(row, _)| row))
}

/// Drops the rows learned longest ago beyond `limit`. Row ids grow with every replacement, so their distance bounds
/// the count, and no scan is needed to know that there is nothing to do.
fn prune(connection: &Connection, limit: usize) -> rusqlite::Result<bool> {
    let range = "SELECT coalesce(max(rowid) - min(rowid) + 1, 0) FROM learned";
    let at_most: i64 = connection.prepare_cached(range)?.query_row([], |row| row.get(0))?;
    if at_most <= limit as i64 {
        return Ok(false);
    }
    let count: i64 = connection.query_row("SELECT count(*) FROM learned", [], |row| row.get(0))?;
    let surplus = count - limit as i64;
    if surplus <= 0 {
        return Ok(false);
    }
    connection.execute("DELETE FROM learned WHERE rowid IN (SELECT rowid FROM learned ORDER BY rowid LIMIT ?1)", [surplus])?;
    Ok(true)
}

const SECOND: i64 = 1_000_000_000;

fn nanoseconds(time: SystemTime) -> i64 {
    let clamp = |distance: Duration| i64::try_from(distance.as_nanos()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => clamp(after),
        Err(before) => -clamp(before.duration()),
    }
}

fn system_time(nanoseconds: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanoseconds.unsigned_abs());
    if nanoseconds < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

/// Equal as far as both can tell: a header carries whole seconds, a listing milliseconds.
fn same_time(a: i64, b: i64) -> bool {
    let whole = |time: i64| time.rem_euclid(SECOND) == 0;
    a == b || ((whole(a) || whole(b)) && a.div_euclid(SECOND) == b.div_euclid(SECOND))
}

#[cfg(test)]
mod tests;
