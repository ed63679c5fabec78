//! The index on disk: SQLite, one row an object, an upload or a part, keys as text and never as paths.
//!
//! Every change is one transaction, made before it shows in memory, so a killed process comes back with what it had
//! answered for. Rows name blobs by number; the bytes were written before the row. The database is locked for as long
//! as it is open: two emulators on one folder would remove each other's blobs.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::blob::{self, BlobFile, Blobs, SegmentRecord};
use super::state::{Bucket, Object, Part, State, Upload};
use crate::types::ObjectHeaders;

/// Long enough for a process that is just ending, short for someone who waits for the message.
const LOCK_WAIT: Duration = Duration::from_secs(1);

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS buckets (name TEXT PRIMARY KEY, created_ms INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS objects (bucket TEXT, key TEXT, record TEXT NOT NULL, PRIMARY KEY (bucket, key)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS uploads (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS parts (upload TEXT, number INTEGER, record TEXT NOT NULL, PRIMARY KEY (upload, number)) WITHOUT ROWID;
";

pub type Result<T> = rusqlite::Result<T>;

pub struct Ledger {
    db: Connection,
}

#[derive(Serialize, Deserialize)]
struct ObjectRecord {
    spelling: String,
    size: u64,
    etag: String,
    modified_ms: u64,
    headers: ObjectHeaders,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    part_sizes: Vec<u64>,
    content: Vec<SegmentRecord>,
}

#[derive(Serialize, Deserialize)]
struct UploadRecord {
    bucket: String,
    key: String,
    spelling: String,
    headers: ObjectHeaders,
    initiated_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct PartRecord {
    md5: [u8; 16],
    size: u64,
    modified_ms: u64,
    content: Vec<SegmentRecord>,
}

impl Ledger {
    /// Opens or makes the database and takes its lock. Err where another process has it.
    pub fn open(path: &Path) -> Result<Self> {
        let db = Connection::open(path)?;
        db.busy_timeout(LOCK_WAIT)?;
        // WAL without a sync for each commit: safe against a killed process, and consistent after a power cut.
        db.execute_batch("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; BEGIN EXCLUSIVE;")?;
        db.execute_batch(SCHEMA)?;
        db.execute_batch("COMMIT;")?;
        Ok(Self { db })
    }

    /// Everything that is written, with its blobs; afterwards blobs that nothing names are removed.
    pub fn load(self, blobs: &Blobs) -> Result<State> {
        let mut known = HashMap::new();
        let mut state = State::default();
        state.buckets = self.load_buckets()?;
        self.load_objects(blobs, &mut known, &mut state.buckets)?;
        state.uploads = self.load_uploads(blobs, &mut known)?;
        blobs.sweep(&known).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        state.ledger = Some(self);
        Ok(state)
    }

    fn load_buckets(&self) -> Result<BTreeMap<String, Bucket>> {
        let mut query = self.db.prepare("SELECT name, created_ms FROM buckets")?;
        let rows = query.query_map([], |row| {
            Ok((row.get(0)?, Bucket { created: from_millis(row.get::<_, i64>(1)? as u64), objects: BTreeMap::new() }))
        })?;
        rows.collect()
    }

    fn load_objects(&self, blobs: &Blobs, known: &mut HashMap<u64, Arc<BlobFile>>, buckets: &mut BTreeMap<String, Bucket>) -> Result<()> {
        let mut query = self.db.prepare("SELECT bucket, key, record FROM objects")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let record: ObjectRecord = parse(&row.get::<_, String>(2)?)?;
            let object = Object {
                content: blobs.adopt(&record.content, known),
                spelling: record.spelling,
                size: record.size,
                etag: record.etag,
                modified: from_millis(record.modified_ms),
                headers: record.headers,
                part_sizes: record.part_sizes,
            };
            if let Some(bucket) = buckets.get_mut(&row.get::<_, String>(0)?) {
                bucket.objects.insert(row.get(1)?, Arc::new(object));
            }
        }
        Ok(())
    }

    fn load_uploads(&self, blobs: &Blobs, known: &mut HashMap<u64, Arc<BlobFile>>) -> Result<BTreeMap<String, Upload>> {
        let mut uploads = BTreeMap::new();
        let mut query = self.db.prepare("SELECT id, record FROM uploads")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let UploadRecord { bucket, key, spelling, headers, initiated_ms } = parse(&row.get::<_, String>(1)?)?;
            let initiated = from_millis(initiated_ms);
            uploads.insert(row.get(0)?, Upload { bucket, key, spelling, headers, initiated, parts: BTreeMap::new() });
        }
        let mut query = self.db.prepare("SELECT upload, number, record FROM parts")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let record: PartRecord = parse(&row.get::<_, String>(2)?)?;
            let content = blobs.adopt(&record.content, known);
            let part = Part { md5: record.md5, size: record.size, modified: from_millis(record.modified_ms), content };
            if let Some(upload) = uploads.get_mut(&row.get::<_, String>(0)?) {
                upload.parts.insert(row.get(1)?, part);
            }
        }
        Ok(uploads)
    }

    pub fn put_bucket(&mut self, name: &str, created: SystemTime) -> Result<()> {
        let created_ms = millis(created) as i64;
        self.db.execute("INSERT INTO buckets VALUES (?1, ?2)", params![name, created_ms]).map(drop)
    }

    pub fn delete_bucket(&mut self, name: &str) -> Result<()> {
        let change = self.db.transaction()?;
        change.execute("DELETE FROM parts WHERE upload IN (SELECT id FROM uploads WHERE record ->> 'bucket' = ?1)", [name])?;
        change.execute("DELETE FROM uploads WHERE record ->> 'bucket' = ?1", [name])?;
        change.execute("DELETE FROM buckets WHERE name = ?1", [name])?;
        change.commit()
    }

    /// Writes an object, and in the same transaction removes the upload that it was made of.
    pub fn put_object(&mut self, bucket: &str, key: &str, object: &Object, upload: Option<&str>) -> Result<()> {
        let record = text(&ObjectRecord {
            spelling: object.spelling.clone(),
            size: object.size,
            etag: object.etag.clone(),
            modified_ms: millis(object.modified),
            headers: object.headers.clone(),
            part_sizes: object.part_sizes.clone(),
            content: blob::records(&object.content),
        })?;
        let change = self.db.transaction()?;
        change.prepare_cached("INSERT OR REPLACE INTO objects VALUES (?1, ?2, ?3)")?.execute(params![bucket, key, record])?;
        if let Some(id) = upload {
            delete_upload(&change, id)?;
        }
        change.commit()
    }

    pub fn delete_objects(&mut self, bucket: &str, keys: &[impl AsRef<str>]) -> Result<()> {
        let change = self.db.transaction()?;
        for key in keys {
            change.prepare_cached("DELETE FROM objects WHERE bucket = ?1 AND key = ?2")?.execute([bucket, key.as_ref()])?;
        }
        change.commit()
    }

    pub fn put_upload(&mut self, id: &str, upload: &Upload) -> Result<()> {
        let record = text(&UploadRecord {
            bucket: upload.bucket.clone(),
            key: upload.key.clone(),
            spelling: upload.spelling.clone(),
            headers: upload.headers.clone(),
            initiated_ms: millis(upload.initiated),
        })?;
        self.db.execute("INSERT INTO uploads VALUES (?1, ?2)", [id, &record]).map(drop)
    }

    pub fn put_part(&mut self, id: &str, number: i32, part: &Part) -> Result<()> {
        let content = blob::records(&part.content);
        let record = text(&PartRecord { md5: part.md5, size: part.size, modified_ms: millis(part.modified), content })?;
        self.db.execute("INSERT OR REPLACE INTO parts VALUES (?1, ?2, ?3)", params![id, number, record]).map(drop)
    }

    pub fn delete_upload(&mut self, id: &str) -> Result<()> {
        let change = self.db.transaction()?;
        delete_upload(&change, id)?;
        change.commit()
    }
}

fn delete_upload(db: &Connection, id: &str) -> Result<()> {
    db.execute("DELETE FROM parts WHERE upload = ?1", [id])?;
    db.execute("DELETE FROM uploads WHERE id = ?1", [id]).map(drop)
}

fn text<T: Serialize>(record: &T) -> Result<String> {
    serde_json::to_string(record).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T> {
    let wrong = |error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error));
    serde_json::from_str(text).map_err(wrong)
}

fn millis(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn from_millis(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}
