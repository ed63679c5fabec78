//! What must survive a crash, in SQLite (WAL): desired state, multipart uploads, the index of data files, symlinks.
//!
//! - `database`: settings, schema, and what to tell the user when SQLite fails. `make`: a new journal.
//! - `tables`, `seal`: rows with checksums, and their sum. `rows`, `changes`: from and to Rust.
//! - `verify`, `tail`: is it whole, and does it reach as far as it did? Asked at each start.
//! - `freed`: parts of files that only an unfinished upload holds. `reserve`: room on the disk that nobody else gets.
//! - `salvage`: reads a journal without touching it, and what is left of a damaged one.
//! - `sums`: checksums of data files, and which of those are at rest.
//! - `learned`: headers of object versions, in a file of its own that may be lost.
//! - `flush`: the log to the disk between two syncs.
//! - `session`: did the last session, or the machine, end in good order?
//! - `lock`: one daemon to one cache directory. `exposure`: who else could put files there.
//!
//! Invariants:
//! - A commit is one `write(2)` to the WAL: it outlives the process at once (kill -9), and a power cut from the next
//!   [`Journal::sync`] on. So a commit costs microseconds and may be made by a handler of the mount.
//! - No handler waits for a disk: nothing but `sync` checkpoints, unless the log outgrows its limit. It does so on a second connection, and pays the
//!   fsync that SQLite owes at the start of a new log itself.
//! - A journal that is damaged, newer than this program or another bucket's is refused as it is, never repaired or
//!   replaced in passing: it is the only index of data that the bucket doesn't have.
//!
//! Must not: know the bucket, the data files or what a desired state means.

mod changes;
mod database;
mod exposure;
mod flush;
mod freed;
mod learned;
mod lock;
mod make;
mod reserve;
mod rows;
mod salvage;
mod seal;
mod session;
mod sums;
mod tables;
mod tail;
#[cfg(test)]
mod tests;
mod verify;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::{Mutex, MutexGuard};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::error::{Error, Result};
use crate::simulation::{self, Event};
use crate::store::{Condition, Part, UploadId};
use crate::types::{ETag, FileId, Key, ObjectHeaders, PackedHeaders, Span, Version};

use database::explain;
pub use exposure::{Exposure, exposure};
use learned::Learned;
pub use lock::{DirectoryLock, make_above};
use reserve::Reserve;
pub use salvage::{Salvage, replace, salvage};
use seal::Total;
use tables::{META, SYMLINK};
use tail::Tail;

/// What the bucket shall hold under one key and doesn't yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    pub content: Content,
    /// None keeps the headers of a copied version.
    pub headers: Option<PackedHeaders>,
    pub condition: Condition,
    /// The bucket may hold something under this key, so that its absence takes a DELETE.
    pub was_there: bool,
    /// When the key became dirty; for `status`.
    pub since: SystemTime,
}

impl Desired {
    pub fn headers(&self) -> Option<ObjectHeaders> {
        self.headers.as_ref().map(PackedHeaders::get)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// The bytes of a data file.
    Staged(FileId),
    /// A few bytes of our own: a symlink's target, an empty marker.
    Inline(Vec<u8>),
    /// Server-side copy of a version; of the same key where only headers change.
    CopyOf(Version),
    /// The same, to take back a change that a power cut tore: that very version, or nothing. What has its key by now may
    /// be another file, which we put there ourselves while the change still had bytes of its own.
    Restored(Version),
    /// No object.
    Absent,
    /// For the marker key of a directory whose last known child went: a marker, unless something else is left below.
    KeptDirectory,
}

/// The index row of one data file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRow {
    pub id: FileId,
    pub base: Option<Version>,
    pub size: u64,
    pub dirty: bool,
    /// Parts of the file that are there; meaningless when `complete`.
    pub present: Vec<Span>,
    pub complete: bool,
    /// mtime and size of the data file when it was last known to be clean: a difference at start is unsent data.
    pub mtime_ns: i64,
    /// Order of use, for LRU across restarts.
    pub used: u64,
}

/// An upload that holds what the cache directory doesn't any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptUpload {
    pub file: FileId,
    pub part_bytes: u64,
    /// Those that the upload was begun with.
    pub headers: ObjectHeaders,
}

/// A part that the bucket took and the data file doesn't hold any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreedPart {
    pub part: Part,
    pub span: Span,
    pub md5: [u8; 16],
}

/// What a data file's checksums are worth; without one, bytes without a sum are taken as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// All that was present in so many bytes had a sum, or was zeros, and has not changed since.
    pub size: u64,
    /// Nothing was added behind them either, and nobody may have written to the file without the journal's knowledge.
    pub whole: bool,
}

/// One row to change; a slice of them is one transaction.
#[derive(Clone, Debug)]
pub enum Change {
    SetDesired(Key, Desired),
    /// Its attempts go with it.
    ClearDesired(Key),
    /// A write is about to be sent that makes this version, or one that is told by this text: found after a crash, it is ours.
    Attempt(Key, ETag),
    /// Makes a file's row, or changes one that is not dirty. A dirty row stays as it is: the file keeps it up by itself
    /// while it is written to, and a row that was taken a moment ago must not undo that.
    PutFile(FileRow),
    /// Makes or replaces a file's row, and drops the spans added so far. Only the file itself knows enough to do this.
    ReplaceFile(FileRow),
    RemoveFile(FileId),
    /// Parts of an incomplete file became present, and its size.
    AddPresent(FileId, Span, u64),
    /// The checksums of one region of a data file, encoded by the cache; replaces those that were there.
    PutSums(FileId, u64, Vec<u8>),
    /// The bytes of that region are about to change.
    DropSums(FileId, u64),
    Seal(FileId, Seal),
    BreakSeal(FileId),
    /// The file's place in the order of use; nothing where it has no row.
    Used(FileId, u64),
    BeginUpload(Key, UploadId),
    /// Its freed parts are forgotten with it.
    EndUpload(UploadId),
    /// Parts of the file are to be freed: the upload has to be gone on with after a crash.
    KeepUpload(UploadId, KeptUpload),
    /// The upload alone holds this part from now on.
    FreePart(UploadId, FileId, FreedPart),
    /// Freed parts that begin in this span are here again, or no part of the file any more.
    ForgetFreed(FileId, Span),
    RememberSymlink(Key, String),
    ForgetSymlink(Key),
}

const JOURNAL_FILE: &str = "journal.sqlite";

/// What commits go through.
struct Main {
    connection: Connection,
    total: Total,
    /// None where it can't be written.
    tail: Option<Tail>,
}

/// Lock order: `main` before `second`; both are leaves otherwise: nothing above is called under them.
pub struct Journal {
    directory: PathBuf,
    main: Mutex<Main>,
    /// Checkpoints go through this one, so that a commit doesn't wait behind their fsyncs.
    second: Mutex<Connection>,
    learned: Learned,
    /// Transactions so far, and how many of them the last `sync` covered.
    commits: AtomicU64,
    synced: AtomicU64,
    /// The same of the last `flush`; held while it works, before no other lock.
    flushed: Mutex<u64>,
    was_made: bool,
    /// Of the log, after the last commit.
    log_pages: Arc<AtomicU64>,
    /// The log is half-way to its limit.
    swollen: Notify,
    /// Closed after SQLite's own descriptors.
    reserve: Option<Reserve>,
}

impl Journal {
    /// Opens or makes the journal in `directory`. `bucket` names endpoint, bucket and prefix: another one in the
    /// journal is refused with both names. A newer schema or a damaged file is refused with what to do.
    pub fn open(directory: &Path, bucket: &str) -> Result<Journal> {
        Self::open_under_boot(directory, bucket, session::boot_id().as_deref())
    }

    /// The same under a boot of this name; for tests of crashes of the machine.
    #[doc(hidden)]
    pub fn open_under_boot(directory: &Path, bucket: &str, boot: Option<&str>) -> Result<Journal> {
        let path = directory.join(JOURNAL_FILE);
        let was_made = make::ensure(directory)?;
        verify::header(&path)?;
        let mut connection = database::connect(&path).map_err(|e| verify::refuse(&path, e))?;
        let found = verify::contents(&connection, &path)?;
        let (boot, tail) = (tail::boot_number(boot), tail::read(directory)?);
        verify::reach(&path, &tail, &found.unwrap_or_default(), boot, was_made)?;
        let total = database::migrate(&connection, found).map_err(|e| explain(&path, e))?;
        let second = database::connect(&path).map_err(|e| explain(&path, e))?;
        let log_pages = Arc::new(AtomicU64::new(0));
        count_pages(&mut connection, &log_pages).map_err(|e| explain(&path, e))?;
        let mut journal = Journal {
            directory: directory.to_owned(),
            main: Mutex::new(Main { connection, total, tail: Tail::begin(directory, &tail, total.commits, boot) }),
            second: Mutex::new(second),
            learned: Learned::open(directory)?,
            commits: AtomicU64::new(1),
            synced: AtomicU64::new(0),
            flushed: Mutex::new(0),
            was_made,
            log_pages,
            swollen: Notify::new(),
            reserve: None,
        };
        journal.claim(bucket)?;
        if was_made {
            journal.sync()?;
            File::open(directory)?.sync_all()?;
        }
        journal.reserve = Some(Reserve::open(&path, &make::log_of(&path))?);
        Ok(journal)
    }

    /// Ties the directory to its bucket, once.
    fn claim(&self, bucket: &str) -> Result<()> {
        match self.meta("bucket")? {
            None => self.set_meta("bucket", bucket),
            Some(ours) if ours == bucket => Ok(()),
            Some(theirs) => Err(Error::Disk(std::io::Error::other(format!(
                "{} belongs to {theirs}, not to {bucket}: give each bucket and prefix its own --cache-dir",
                self.directory.display()
            )))),
        }
    }

    /// True where this process made the journal: it can't know data files that were there before.
    pub fn was_made(&self) -> bool {
        self.was_made
    }

    /// One transaction: all of `changes` or none.
    pub fn apply(&self, changes: &[Change]) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        self.transaction(&mut self.main.lock(), |connection, total| changes::apply(connection, total, changes))
    }

    pub fn desired(&self) -> Result<Vec<(Key, Desired)>> {
        self.read(rows::desired)
    }

    /// Every data file, with the spans that were added since its row was put.
    pub fn files(&self) -> Result<Vec<FileRow>> {
        self.read(|connection| rows::files(connection, true))
    }

    /// Every data file as its row was put last: what is certain after a crash of the machine.
    pub fn files_as_synced(&self) -> Result<Vec<FileRow>> {
        self.read(|connection| rows::files(connection, false))
    }

    /// Of every data file that has one.
    pub fn seals(&self) -> Result<Vec<(FileId, Seal)>> {
        self.read(sums::seals)
    }

    /// The checksums of one data file by region, as they were put.
    pub fn sums(&self, id: FileId) -> Result<Vec<(u64, Vec<u8>)>> {
        self.read(|connection| sums::of_file(connection, id))
    }

    pub fn uploads(&self) -> Result<Vec<(Key, UploadId)>> {
        self.read(rows::uploads)
    }

    /// Uploads that hold freed parts, with these in the order of their spans.
    pub fn kept_uploads(&self) -> Result<Vec<(UploadId, KeptUpload, Vec<FreedPart>)>> {
        self.read(freed::kept_uploads)
    }

    /// Freed parts of all files.
    pub fn freed(&self) -> Result<Vec<(FileId, Span)>> {
        self.read(freed::spans)
    }

    /// What writes whose end nobody recorded would have left in the bucket.
    pub fn attempts(&self) -> Result<Vec<(Key, ETag)>> {
        self.read(rows::attempts)
    }

    pub fn symlink(&self, key: &Key) -> Result<Option<String>> {
        let row = self.read(|connection| SYMLINK.one(connection, "SELECT * FROM symlink WHERE key = ?1", &key.as_str()))?;
        Ok(row.and_then(|values| rows::decode_pair(&values)).map(|(_, target)| target))
    }

    pub fn meta(&self, name: &str) -> Result<Option<String>> {
        let row = self.read(|connection| META.one(connection, "SELECT * FROM meta WHERE name = ?1", &name))?;
        Ok(row.and_then(|values| rows::decode_pair(&values)).map(|(_, value)| value))
    }

    pub fn set_meta(&self, name: &str, value: &str) -> Result<()> {
        self.transaction(&mut self.main.lock(), |connection, total| changes::set_meta(connection, total, name, value))
    }

    /// Checkpoints and fsyncs: what was committed before the call outlives a power cut after it. May take long:
    /// blocking pool only.
    pub fn sync(&self) -> Result<()> {
        if let Err(error) = self.learned.flush() {
            // It may be lost; the journal may not.
            tracing::debug!(%error, "learned attributes are not on the disk");
        }
        let synced = self.sync_log();
        self.reserve.iter().for_each(Reserve::refill);
        synced
    }

    fn sync_log(&self) -> Result<()> {
        let covered = self.commits.load(Ordering::Acquire);
        if self.synced.load(Ordering::Acquire) == covered {
            return Ok(());
        }
        let reached = self.main.lock().total.commits;
        self.fsync_log()?;
        let (pages, moved) = self.checkpoint("PRAGMA wal_checkpoint(PASSIVE)")?;
        self.synced.fetch_max(covered, Ordering::AcqRel);
        let mut main = self.main.lock();
        let mut reached = Some(reached);
        let all_moved = pages == moved && self.commits.load(Ordering::Acquire) == covered;
        if all_moved || pages as u64 >= self.log_limit() / 2 {
            if !all_moved {
                self.checkpoint("PRAGMA wal_checkpoint(RESTART)")?;
            }
            // The next commit starts a new log, which SQLite fsyncs first: this one, not a handler's.
            self.transaction(&mut main, |connection, total| changes::set_meta(connection, total, "log", "started"))?;
            simulation::saw(|| Event::JournalSynced);
            self.synced.fetch_max(self.commits.load(Ordering::Acquire), Ordering::AcqRel);
            // It alone may still be lost to a power cut; all before it are in the database.
            reached = main.total.commits.checked_sub(1);
        }
        self.note_synced(main, reached.unwrap_or_default())
    }

    /// In pages.
    fn log_limit(&self) -> u64 {
        self.reserve.as_ref().map_or(u64::MAX, |reserve| reserve.log_limit)
    }

    /// Resolves when the log has grown so much, since this call was made, that it should be synced before its time.
    pub fn swollen(&self) -> Notified<'_> {
        self.swollen.notified()
    }

    /// A power cut must not leave an older record than this for long: it would ask for less.
    fn note_synced(&self, mut main: MutexGuard<'_, Main>, commits: u64) -> Result<()> {
        let Some(tail) = &mut main.tail else { return Ok(()) };
        tail.synced(commits);
        let file = tail.handle()?;
        drop(main);
        Ok(simulation::sync_data(&file, || Event::TailSynced)?)
    }

    /// SQLite's locks lie on the database and its index, not on the log: closing another descriptor of it drops none.
    fn fsync_log(&self) -> Result<()> {
        match File::open(self.directory.join(format!("{JOURNAL_FILE}-wal"))) {
            Ok(log) => Ok(simulation::sync_data(&log, || Event::JournalSynced)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Pages in the log, and how many of them are in the database by now.
    fn checkpoint(&self, pragma: &str) -> Result<(i64, i64)> {
        let second = self.second.lock();
        let result = second.query_row(pragma, [], |row| Ok((row.get(1)?, row.get(2)?)));
        result.map_err(|error| self.explain(error))
    }

    fn transaction(&self, main: &mut Main, work: impl Fn(&Connection, &mut Total) -> rusqlite::Result<()>) -> Result<()> {
        let limit = self.log_limit();
        if self.log_pages.load(Ordering::Relaxed) >= limit
            && let Err(error) = self.checkpoint("PRAGMA wal_checkpoint(RESTART)")
        {
            tracing::warn!(%error, "the journal's log grows past its limit");
        }
        let mut result = self.attempt(main, &work);
        if result.as_ref().is_err_and(is_full) && self.checkpoint("PRAGMA wal_checkpoint(RESTART)").is_ok() {
            // The log begins anew, in blocks that it has.
            result = self.attempt(main, &work);
        }
        let total = result.map_err(|error| self.explain(error))?;
        simulation::saw(|| Event::Committed);
        main.total = total;
        if let Some(tail) = &mut main.tail {
            tail.acknowledge(total.commits);
        }
        if self.log_pages.load(Ordering::Relaxed) >= limit / 2 {
            self.swollen.notify_one();
        }
        Ok(())
    }

    fn attempt(&self, main: &Main, work: &impl Fn(&Connection, &mut Total) -> rusqlite::Result<()>) -> rusqlite::Result<Total> {
        let mut total = main.total;
        let result = database::transaction(&main.connection, |connection| {
            work(connection, &mut total)?;
            total.commits += 1;
            changes::put_total(connection, &total)
        });
        self.commits.fetch_add(1, Ordering::AcqRel);
        result.map(|()| total)
    }

    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        query(&self.main.lock().connection).map_err(|error| self.explain(error))
    }

    fn explain(&self, error: rusqlite::Error) -> Error {
        explain(&self.directory.join(JOURNAL_FILE), error)
    }

    /// Makes every commit fail, as a full disk does.
    #[cfg(test)]
    pub(crate) fn refuse_commits(&self, refuse: bool) {
        self.main.lock().connection.pragma_update(None, "query_only", refuse).expect("a pragma");
    }
}

/// Has the length of the log noted with each commit.
fn count_pages(connection: &mut Connection, pages: &Arc<AtomicU64>) -> rusqlite::Result<()> {
    let noted = Arc::clone(pages);
    connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: i32| {
        noted.store(u64::try_from(pages).unwrap_or_default(), Ordering::Relaxed);
        Ok(())
    }))
}

/// No room on the disk, for the log or for its index.
fn is_full(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi;
    let full = [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_SHMSIZE];
    error.sqlite_error().is_some_and(|cause| full.contains(&cause.extended_code))
}
