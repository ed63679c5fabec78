//! Reads a journal without SQLite and without touching it: for `recover`, and for what is left of a damaged one.
//!
//! - `pages`: the database with its log over it. `records`: the rows of a page.
//!
//! Every page that isn't free is searched for rows, whatever the tree above it looks like, and a row counts if its seal
//! verifies. So damage costs the rows that it lies in and no others. Whether anything is missing is known all the same:
//! the seals' sum and the number of commits have to be what they were.
//!
//! Must not: write anywhere, or fail for damage.

mod pages;
mod records;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::Path;

use rusqlite::types::{Value, ValueRef};

use crate::error::{Error, Result};
use crate::store::UploadId;
use crate::types::{ETag, FileId, Key};

use super::make::log_of;
use super::seal::Total;
use super::tables::{AT_REST, ATTEMPT, CHECKSUM, DESIRED, FILE, FREED, KEPT_UPLOAD, META, PRESENT, SYMLINK, TABLES, Table, UPLOAD};
use super::tail::{self, Found};
use super::{Change, Desired, FileRow, FreedPart, JOURNAL_FILE, KeptUpload, Seal, database, freed, make, rows, session, sums, verify};
use pages::Pages;
use records::Record;

/// What was read, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Salvage {
    pub desired: Vec<(Key, Desired)>,
    /// With the spans that were added since each row was put.
    pub files: Vec<FileRow>,
    pub uploads: Vec<(Key, UploadId)>,
    pub kept_uploads: Vec<(UploadId, KeptUpload)>,
    /// Parts of files that only an unfinished upload holds.
    pub freed: Vec<(FileId, UploadId, FreedPart)>,
    pub attempts: Vec<(Key, ETag)>,
    pub symlinks: Vec<(Key, String)>,
    /// Checksums of data files, by region.
    pub sums: Vec<(FileId, u64, Vec<u8>)>,
    pub seals: Vec<(FileId, Seal)>,
    pub meta: BTreeMap<String, String>,
    /// One line for each thing that is wrong; empty: every row is here and right.
    pub damage: Vec<String>,
    /// Rows are missing, or some may be older than they should be.
    pub is_incomplete: bool,
    /// As many as the journal says it had.
    pub commits: u64,
}

impl Salvage {
    /// Endpoint, bucket and prefix as the mount named them.
    pub fn bucket(&self) -> Option<&str> {
        self.meta.get("bucket").map(String::as_str)
    }

    /// The machine did not go down since the last session began: data files are as they were left.
    pub fn is_trusted(&self) -> bool {
        let meta = |name: &str| self.meta.get(name).map(String::as_str);
        session::is_trusted(meta("session"), meta("boot"), session::boot_id().as_deref())
    }
}

/// Reads what there is in `directory`. Errors: the files can't be read, or another version wrote them.
pub fn salvage(directory: &Path) -> Result<Salvage> {
    let path = directory.join(JOURNAL_FILE);
    let (database, log) = (read(&path)?, read(&log_of(&path))?);
    let pages = Pages::new(&database, &log);
    let mut found = Rows::read(&pages);
    if found.is_empty() && pages.version().is_some_and(|version| i64::from(version) < database::sealed() && version > 0) {
        return from_copy(directory);
    }
    if database.is_empty() {
        found.damage.push(format!("{JOURNAL_FILE} is missing or empty"));
    }
    found.judge(&pages, &tail::read(directory)?);
    Ok(found.salvage())
}

/// A journal from before there were seals is brought to the present version, in a copy.
fn from_copy(directory: &Path) -> Result<Salvage> {
    let copy = std::env::temp_dir().join(format!("mediafs-recover-{}", std::process::id()));
    std::fs::create_dir(&copy)?;
    let result = migrate_copy(directory, &copy).and_then(|()| salvage(&copy));
    std::fs::remove_dir_all(&copy)?;
    result
}

fn migrate_copy(directory: &Path, copy: &Path) -> Result<()> {
    let (from, to) = (directory.join(JOURNAL_FILE), copy.join(JOURNAL_FILE));
    std::fs::copy(&from, &to)?;
    if log_of(&from).exists() {
        std::fs::copy(log_of(&from), log_of(&to))?;
    }
    let connection = database::connect(&to).map_err(|error| database::explain(&from, error))?;
    let found = verify::contents(&connection, &from)?;
    database::migrate(&connection, found).map_err(|error| database::explain(&from, error))?;
    Ok(())
}

/// Puts a new journal of what was salvaged into the place of the damaged one, which is renamed: its new name.
/// `also` goes into it. Call it with the directory locked and nothing open.
pub fn replace(directory: &Path, salvage: &Salvage, aside: &str) -> Result<std::path::PathBuf> {
    let path = directory.join(JOURNAL_FILE);
    let kept = directory.join(aside);
    let fresh = directory.join(format!("{JOURNAL_FILE}.salvaged"));
    // Commits go on counting, so that the record beside the journal asks for no more than there is.
    let total = Total { commits: salvage.commits.max(reached(directory)?), sum: 0 };
    let meta: Vec<(String, String)> = salvage.meta.clone().into_iter().collect();
    make::build(&fresh, &changes(salvage), &meta, total)?;
    // The log first: with the new database it must not meet the old log.
    for (from, to) in [(log_of(&path), log_of(&kept)), (path.clone(), kept.clone())] {
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    make::remove(&make::index_of(&path))?;
    std::fs::rename(&fresh, &path)?;
    std::fs::File::open(directory)?.sync_all()?;
    Ok(kept)
}

fn reached(directory: &Path) -> Result<u64> {
    Ok(if let Found::Record(record) = tail::read(directory)? { record.acknowledged.max(record.synced) } else { 0 })
}

fn changes(salvage: &Salvage) -> Vec<Change> {
    let mut changes: Vec<Change> = salvage.files.iter().cloned().map(Change::ReplaceFile).collect();
    changes.extend(salvage.desired.iter().cloned().map(|(key, desired)| Change::SetDesired(key, desired)));
    changes.extend(salvage.uploads.iter().cloned().map(|(key, id)| Change::BeginUpload(key, id)));
    changes.extend(salvage.kept_uploads.iter().cloned().map(|(id, kept)| Change::KeepUpload(id, kept)));
    changes.extend(salvage.freed.iter().cloned().map(|(file, id, part)| Change::FreePart(id, file, part)));
    changes.extend(salvage.attempts.iter().cloned().map(|(key, etag)| Change::Attempt(key, etag)));
    changes.extend(salvage.symlinks.iter().cloned().map(|(key, target)| Change::RememberSymlink(key, target)));
    let kept: HashSet<FileId> = salvage.files.iter().map(|file| file.id).collect();
    let sums = salvage.sums.iter().filter(|(id, ..)| kept.contains(id)).cloned();
    changes.extend(sums.map(|(id, region, sums)| Change::PutSums(id, region, sums)));
    changes.extend(salvage.seals.iter().filter(|(id, _)| kept.contains(id)).filter_map(|(id, seal)| {
        // Where commits are missing, a file may have changed after it was called at rest: its sums are believed no further.
        let believed = if salvage.is_incomplete { Seal { size: 0, whole: false } } else { *seal };
        // A program may have gone on writing to an open file: that has to be known still, or its bytes would be thrown away.
        (!salvage.is_incomplete || !seal.whole).then_some(Change::Seal(*id, believed))
    }));
    changes
}

fn read(path: &Path) -> Result<Vec<u8>> {
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::Disk(io::Error::new(error.kind(), format!("{}: {error}", path.display())))),
        bytes => Ok(bytes?),
    }
}

/// Rows that verify, by table, in the order of their values.
#[derive(Default)]
struct Rows {
    tables: BTreeMap<&'static str, Vec<Vec<Value>>>,
    found: Total,
    total: Option<Total>,
    wrong: usize,
    free_unknown: bool,
    damage: Vec<String>,
    is_incomplete: bool,
}

impl Rows {
    fn read(pages: &Pages<'_>) -> Rows {
        let mut rows = Rows::default();
        let free = pages.free();
        rows.free_unknown = free.is_none();
        let free = free.unwrap_or_default();
        for number in pages.numbers().filter(|number| !free.contains(number)) {
            let (records, unreadable) = records::records(pages, number);
            rows.wrong += unreadable;
            records.into_iter().for_each(|record| rows.add(record));
        }
        rows
    }

    fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.total.is_none()
    }

    fn add(&mut self, record: Record) {
        let Record { row_number, mut values } = record;
        if let (5, Some(Value::Text(_))) = (values.len(), values.last()) {
            // The definition of a table.
            return;
        }
        if let (Some(row_number), Some(first)) = (row_number, values.first_mut()) {
            // SQLite leaves out what the row number says.
            *first = Value::Integer(row_number);
        }
        let Some(Value::Integer(seal)) = values.pop() else {
            self.wrong += 1;
            return;
        };
        if let [Value::Integer(id), Value::Integer(commits), Value::Integer(sum)] = values[..]
            && let Some(total) = verify::total(&[id, commits, sum], seal)
        {
            self.total = Some(total);
            return;
        }
        match TABLES.into_iter().find(|table| is_of(table, row_number, &values, seal)) {
            Some(table) => {
                self.found.add(seal);
                self.tables.entry(table.name).or_default().push(values);
            }
            None => self.wrong += 1,
        }
    }

    fn judge(&mut self, pages: &Pages<'_>, tail: &Found) {
        let mut damage = std::mem::take(&mut self.damage);
        if pages.damaged_frames > 0 {
            damage.push(format!("{} pages of its log have wrong checksums", pages.damaged_frames));
        }
        if self.wrong > 0 {
            damage.push(format!("{} rows have wrong checksums", self.wrong));
        }
        let boot = tail::boot_number(session::boot_id().as_deref());
        match (self.total, tail) {
            (None, _) => damage.push("how many rows there were is not known any more".to_owned()),
            (Some(total), _) if total.sum != self.found.sum => {
                damage.push("rows are missing, or some are older than they should be".to_owned())
            }
            (Some(total), Found::Record(record)) if total.commits < record.required(boot) => {
                damage.push(format!("its last {} changes are missing", record.required(boot) - total.commits));
            }
            (Some(_), _) => {
                self.damage = damage;
                return;
            }
        }
        if self.free_unknown {
            damage.push("the list of its free pages is damaged: some rows may be older than they should be".to_owned());
        }
        self.damage = damage;
        self.is_incomplete = true;
    }

    fn salvage(mut self) -> Salvage {
        let mut files: Vec<FileRow> = self.take(&FILE, rows::decode_file);
        files.sort_by_key(|file| file.id);
        files.dedup_by_key(|file| file.id);
        let added = self.take(&PRESENT, rows::decode_added);
        rows::add_spans(&mut files, added);
        let symlinks = self.take(&SYMLINK, rows::decode_pair).into_iter().map(|(key, target)| (Key::new(key), target));
        let symlinks = symlinks.collect();
        let mut desired = self.take(&DESIRED, rows::decode_desired);
        desired.sort_by(|a, b| a.0.cmp(&b.0));
        desired.dedup_by(|a, b| a.0 == b.0);
        Salvage {
            desired,
            files,
            uploads: self.take(&UPLOAD, rows::decode_upload),
            kept_uploads: self.take(&KEPT_UPLOAD, freed::decode_kept),
            freed: self.take(&FREED, freed::decode_freed),
            attempts: self.take(&ATTEMPT, rows::decode_attempt),
            symlinks,
            sums: self.take(&CHECKSUM, sums::decode_sums),
            seals: self.take(&AT_REST, sums::decode_seal),
            meta: self.take(&META, rows::decode_pair).into_iter().collect(),
            damage: self.damage,
            is_incomplete: self.is_incomplete,
            commits: self.total.map_or(0, |total| total.commits),
        }
    }

    fn take<T>(&mut self, table: &Table, decode: impl Fn(&[Value]) -> Option<T>) -> Vec<T> {
        self.tables.remove(table.name).unwrap_or_default().iter().filter_map(|values| decode(values)).collect()
    }
}

fn is_of(table: &Table, row_number: Option<i64>, values: &[Value], seal: i64) -> bool {
    let values: Vec<ValueRef<'_>> = values.iter().map(ValueRef::from).collect();
    table.by_row_number == row_number.is_some() && values.len() == table.columns.len() && table.seal(&values) == seal
}
