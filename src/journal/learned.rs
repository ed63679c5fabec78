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

use crate::error::Result;
use crate::types::{ETag, Key, ObjectHeaders};

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
const VERSION: i64 = 1;

const SCHEMA: &str = "CREATE TABLE learned (
    key TEXT NOT NULL UNIQUE, etag TEXT NOT NULL, last_modified_ns INTEGER NOT NULL, headers TEXT NOT NULL, seal INTEGER NOT NULL)";

struct Row {
    etag: ETag,
    last_modified_ns: i64,
    headers: ObjectHeaders,
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

    pub fn add(&self, key: &Key, etag: &ETag, last_modified: SystemTime, headers: &ObjectHeaders) -> Result<()> {
        let row = Row { etag: etag.clone(), last_modified_ns: nanoseconds(last_modified), headers: headers.clone() };
        let mut waiting = self.waiting.lock();
        waiting.insert(key.clone(), row);
        if waiting.len() < BATCH { Ok(()) } else { self.write(&mut waiting) }
    }

    /// A row that can't be read is one that isn't known: the caller asks the bucket.
    pub fn find(&self, key: &Key, etag: &ETag, last_modified: SystemTime) -> Result<Option<ObjectHeaders>> {
        let asked = nanoseconds(last_modified);
        if let Some(row) = self.waiting.lock().get(key) {
            return Ok((row.etag == *etag && same_time(row.last_modified_ns, asked)).then(|| row.headers.clone()));
        }
        match lookup(&self.database.lock(), key) {
            Ok(Some((stored, time, headers))) if stored == etag.as_str() && same_time(time, asked) => {
                Ok(serde_json::from_str(&headers).ok())
            }
            Ok(_) => Ok(None),
            Err(error) => {
                tracing::warn!("learned attributes: {}", explain(&self.path, error));
                Ok(None)
            }
        }
    }

    /// What was learned of these bytes last, and when they were dated: for when the bucket can't be asked.
    pub fn find_last(&self, key: &Key, etag: &ETag) -> Option<(SystemTime, ObjectHeaders)> {
        if let Some(row) = self.waiting.lock().get(key) {
            return (row.etag == *etag).then(|| (system_time(row.last_modified_ns), row.headers.clone()));
        }
        let (stored, time, headers) = lookup(&self.database.lock(), key).ok().flatten()?;
        let headers = serde_json::from_str(&headers).ok()?;
        (stored == etag.as_str()).then(|| (system_time(time), headers))
    }

    /// Adds a row, and writes what waits: it survives a kill.
    pub fn add_now(&self, key: &Key, etag: &ETag, last_modified: SystemTime, headers: &ObjectHeaders) -> Result<()> {
        self.add(key, etag, last_modified, headers)?;
        self.write(&mut self.waiting.lock())
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
                "INSERT OR REPLACE INTO learned (key, etag, last_modified_ns, headers, seal) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            for (key, row) in waiting.iter() {
                let headers = serde_json::to_string(&row.headers).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
                let seal = seal_of(key, row.etag.as_str(), row.last_modified_ns, &headers);
                put.execute(params![key.as_str(), row.etag.as_str(), row.last_modified_ns, headers, seal])?;
            }
            Ok(())
        });
        // Kept or not, they must not pile up.
        waiting.clear();
        self.survived(result)
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

fn seal_of(key: &Key, etag: &str, last_modified_ns: i64, headers: &str) -> i64 {
    let values = [key.as_str(), etag, headers].map(|text| ValueRef::Text(text.as_bytes()));
    seal("learned", values.into_iter().chain([ValueRef::Integer(last_modified_ns)]))
}

fn lookup(connection: &Connection, key: &Key) -> rusqlite::Result<Option<(String, i64, String)>> {
    let mut query = connection.prepare_cached("SELECT etag, last_modified_ns, headers, seal FROM learned WHERE key = ?1")?;
    let found = query.query_row([key.as_str()], |row| Ok(((row.get(0)?, row.get(1)?, row.get(2)?), row.get(3)?))).optional()?;
    let verified = found.filter(|((etag, time, headers), seal): &((String, i64, String), i64)| *seal == seal_of(key, etag, *time, headers));
    Ok(verified.map(|(row, _)| row))
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
mod tests {
    use super::*;

    fn headers(kind: &str) -> ObjectHeaders {
        ObjectHeaders { content_type: Some(kind.into()), ..Default::default() }
    }

    fn at(milliseconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(milliseconds)
    }

    #[test]
    fn headers_changed_within_a_second_under_one_etag_survive_a_kill() {
        let directory = tempfile::tempdir().unwrap();
        let (key, etag) = (Key::from("a"), ETag::new("e"));
        let learned = Learned::open(directory.path()).unwrap();
        learned.add_now(&key, &etag, at(5_100), &headers("image/png")).unwrap();
        learned.add_now(&key, &etag, at(5_900), &headers("image/gif")).unwrap();
        // Nothing is written by an orderly end.
        std::mem::forget(learned);
        let found = Learned::open(directory.path()).unwrap().find(&key, &etag, at(5_000)).unwrap();
        assert_eq!(found, Some(headers("image/gif")));
    }

    #[test]
    fn of_headers_changed_within_a_second_a_power_cut_leaves_neither() {
        let directory = tempfile::tempdir().unwrap();
        let (key, etag, old) = (Key::from("a"), ETag::new("e"), Key::from("old"));
        let learned = Learned::open(directory.path()).unwrap();
        learned.add(&old, &etag, at(5_000), &headers("text/css")).unwrap();
        learned.add(&key, &etag, at(5_000_100), &headers("image/png")).unwrap();
        learned.flush().unwrap();
        learned.add_now(&key, &etag, at(5_000_900), &headers("image/gif")).unwrap();
        // What was not synced is lost.
        let after = tempfile::tempdir().unwrap();
        std::fs::copy(directory.path().join(FILE), after.path().join(FILE)).unwrap();
        let learned = Learned::open(after.path()).unwrap();
        assert_eq!(learned.find(&key, &etag, at(5_000_000)).unwrap(), Some(headers("image/png")), "the older row is there");
        learned.doubt().unwrap();
        assert_eq!(learned.find(&key, &etag, at(5_000_000)).unwrap(), None);
        assert_eq!(learned.find(&old, &etag, at(5_000)).unwrap(), Some(headers("text/css")), "nothing speaks against this one");
    }

    #[test]
    fn a_version_is_its_etag_and_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let learned = Learned::open(directory.path()).unwrap();
        let (key, etag) = (Key::from("a"), ETag::new("e"));
        learned.add(&key, &etag, at(5_000), &headers("image/png")).unwrap();
        for written in [false, true] {
            if written {
                learned.flush().unwrap();
            }
            for (etag, time, known) in
                [("e", 5_000, true), ("e", 5_123, true), ("e", 6_000, false), ("e", 4_999, false), ("f", 5_000, false)]
            {
                let found = learned.find(&key, &ETag::new(etag), at(time)).unwrap();
                assert_eq!(found, known.then(|| headers("image/png")), "{etag} {time} {written}");
            }
        }
        learned.add(&key, &etag, at(7_100), &headers("image/gif")).unwrap();
        assert_eq!(learned.find(&key, &etag, at(7_200)).unwrap(), None, "both know milliseconds and differ");
        assert_eq!(learned.find(&key, &etag, at(7_100)).unwrap(), Some(headers("image/gif")));
    }

    #[test]
    fn the_oldest_go_beyond_the_limit_and_the_rest_outlives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let learned = Learned::open_with_limit(directory.path(), 10).unwrap();
        let key = |n: usize| Key::new(format!("k{n}"));
        for n in 0..30 {
            learned.add(&key(n), &ETag::new("e"), at(0), &headers("t")).unwrap();
            learned.flush().unwrap();
        }
        drop(learned);
        let learned = Learned::open_with_limit(directory.path(), 10).unwrap();
        for n in 0..30 {
            assert_eq!(learned.find(&key(n), &ETag::new("e"), at(0)).unwrap().is_some(), n >= 20, "{n}");
        }
    }

    #[test]
    fn a_batch_is_written_without_being_asked() {
        let directory = tempfile::tempdir().unwrap();
        let learned = Learned::open(directory.path()).unwrap();
        for n in 0..BATCH {
            learned.add(&Key::new(format!("k{n}")), &ETag::new("e"), at(0), &headers("t")).unwrap();
        }
        assert!(learned.waiting.lock().is_empty());
        assert!(learned.find(&Key::from("k7"), &ETag::new("e"), at(0)).unwrap().is_some());
    }

    #[test]
    fn a_damaged_file_is_thrown_away() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), vec![7; 8192]).unwrap();
        let learned = Learned::open(directory.path()).unwrap();
        learned.add(&Key::from("a"), &ETag::new("e"), at(0), &headers("t")).unwrap();
        learned.flush().unwrap();
    }

    #[test]
    fn damage_under_an_open_file_costs_what_was_learned_and_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let learned = Learned::open(directory.path()).unwrap();
        let (key, etag) = (Key::from("a"), ETag::new("e"));
        learned.database.lock().execute_batch("DROP TABLE learned").unwrap();
        for known in [false, true] {
            learned.add(&key, &etag, at(0), &headers("t")).unwrap();
            learned.flush().unwrap();
            assert_eq!(learned.find(&key, &etag, at(0)).unwrap().is_some(), known);
        }
    }

    #[test]
    fn a_row_whose_bytes_changed_is_not_known() {
        let directory = tempfile::tempdir().unwrap();
        let learned = Learned::open(directory.path()).unwrap();
        let (key, etag) = (Key::from("a"), ETag::new("e"));
        learned.add(&key, &etag, at(0), &headers("image/png")).unwrap();
        learned.flush().unwrap();
        learned.database.lock().execute_batch("UPDATE learned SET headers = replace(headers, 'png', 'gif')").unwrap();
        assert_eq!(learned.find(&key, &etag, at(0)).unwrap(), None);
        assert_eq!(learned.find_last(&key, &etag), None);
    }
}
