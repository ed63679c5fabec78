//! A new journal, made beside its place and put there whole: a crash leaves none or a complete one.
//!
//! Where a journal was before, none is made: an empty one in its place would say that nothing is wanted and that the data
//! files beside it belong to nobody.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::error::{Error, Result};

use super::database::{self, explain};
use super::seal::Total;
use super::tail::{self, Found};
use super::{Change, JOURNAL_FILE, changes};

/// Makes the journal where there is none: true. Refuses where one has vanished.
pub fn ensure(directory: &Path) -> Result<bool> {
    let path = directory.join(JOURNAL_FILE);
    if length(&path)? > 0 {
        return Ok(false);
    }
    let trace = if tail::read(directory)? != Found::Nothing {
        Some(tail::FILE)
    } else if length(&log_of(&path))? > 0 {
        Some("its log")
    } else if holds_files(&directory.join("data"))? {
        Some("data files")
    } else {
        None
    };
    match trace {
        None => build(&path, &[], &[], Total::default()).map(|()| true),
        Some(trace) => Err(Error::Corrupt(format!(
            "{} is missing or empty, though {trace} beside it show that there was one: bring {JOURNAL_FILE} back, save the data files \
             with `mediafs recover {} export DIR`, or move that directory away to start with an empty cache",
            path.display(),
            directory.display()
        ))),
    }
}

/// Writes a complete journal with these rows and puts it at `path`, over what is there. fsyncs.
pub fn build(path: &Path, rows: &[Change], meta: &[(String, String)], total: Total) -> Result<()> {
    let new = path.with_added_extension("new");
    for leftover in [new.clone(), log_of(&new), index_of(&new)] {
        remove(&leftover)?;
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    fill(&new, rows, meta, total).map_err(|error| explain(&new, error))?;
    remove(&log_of(&new))?;
    remove(&index_of(&new))?;
    File::open(&new)?.sync_all()?;
    fs::rename(&new, path)?;
    Ok(File::open(path.parent().unwrap_or(path))?.sync_all()?)
}

fn fill(new: &Path, rows: &[Change], meta: &[(String, String)], total: Total) -> rusqlite::Result<()> {
    let connection: Connection = database::connect(new)?;
    let mut total = database::migrate(&connection, Some(total))?;
    database::transaction(&connection, |connection| {
        changes::apply(connection, &mut total, rows)?;
        for (name, value) in meta {
            changes::set_meta(connection, &mut total, name, value)?;
        }
        total.commits += 1;
        changes::put_total(connection, &total)
    })?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

fn length(path: &Path) -> io::Result<u64> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Any file in any of its subdirectories.
fn holds_files(data: &Path) -> io::Result<bool> {
    let shards = match fs::read_dir(data) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        shards => shards?,
    };
    for shard in shards {
        let shard = shard?.path();
        if shard.is_dir() && fs::read_dir(shard)?.next().is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// SQLite's name for the log of a database.
pub fn log_of(path: &Path) -> PathBuf {
    suffixed(path, "-wal")
}

/// The log's index, which SQLite makes anew.
pub fn index_of(path: &Path) -> PathBuf {
    suffixed(path, "-shm")
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Succeeds also where there is nothing.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
