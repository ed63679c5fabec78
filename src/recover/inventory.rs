//! What a cache directory holds that the bucket doesn't have yet.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::UNNAMED;
use crate::cache::{OnDisk, data_files, data_path};
use crate::daemon::REACHED;
use crate::error::{Error, Result};
use crate::journal::{Content, Desired, FileRow, Salvage, salvage};
use crate::types::{FileId, Key, ObjectHeaders, Span, Version};

/// What is wanted of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A data file's bytes are to be its object.
    Upload(FileId),
    /// A few bytes from the journal: a symlink's target, the marker of a directory.
    Inline(Vec<u8>),
    /// The object of another name is to be copied.
    Copy(Version),
    /// Only attributes change.
    Attributes,
    /// A directory that became empty is to stay.
    KeepDirectory,
    Delete,
}

impl Action {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Upload(_) => "upload",
            Self::Inline(_) => "write",
            Self::Copy(_) => "copy",
            Self::Attributes => "attributes",
            Self::KeepDirectory => "directory",
            Self::Delete => "delete",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// All that it takes is here.
    Waiting,
    /// Unchanged parts of a big file are only in the bucket.
    NeedsBase {
        base: Version,
        missing: Vec<Span>,
    },
    /// Bytes are here, but what they are worth is not known.
    Damaged(String),
    Lost(String),
}

impl State {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Waiting | Self::NeedsBase { .. } => "waiting",
            Self::Damaged(_) => "damaged",
            Self::Lost(_) => "lost",
        }
    }

    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Damaged(why) | Self::Lost(why) => Some(why),
            Self::Waiting | Self::NeedsBase { .. } => None,
        }
    }
}

/// One key that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub key: Key,
    pub action: Action,
    pub state: State,
    /// Of the whole file.
    pub bytes: u64,
    /// None: written after the daemon died.
    pub since: Option<SystemTime>,
    pub headers: Option<ObjectHeaders>,
}

/// A data file that may be somebody's, but nothing says whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unnamed {
    pub id: FileId,
    pub path: PathBuf,
    pub bytes: u64,
    /// The key that it was opened under, if a row still says so.
    pub was: Option<Key>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Endpoint, bucket and prefix.
    pub bucket: Option<String>,
    /// What is wrong with the journal.
    pub damage: Vec<String>,
    /// Something may wait that is not in `waiting`.
    pub is_incomplete: bool,
    /// In the order of keys.
    pub waiting: Vec<Waiting>,
    pub unnamed: Vec<Unnamed>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    pub files: u64,
    pub bytes: u64,
    pub directories: u64,
    pub copies: u64,
    pub attributes: u64,
    pub deletions: u64,
    /// Of all these: cannot be sent as they are.
    pub damaged: u64,
    pub lost: u64,
    pub unnamed: u64,
}

impl Inventory {
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { unnamed: self.unnamed.len() as u64, ..Counts::default() };
        for waiting in &self.waiting {
            let count = match waiting.action {
                Action::Inline(_) if waiting.key.is_marker() => &mut counts.directories,
                Action::Upload(_) | Action::Inline(_) => &mut counts.files,
                Action::KeepDirectory => &mut counts.directories,
                Action::Copy(_) => &mut counts.copies,
                Action::Attributes => &mut counts.attributes,
                Action::Delete => &mut counts.deletions,
            };
            *count += 1;
            counts.bytes += if matches!(waiting.action, Action::Upload(_) | Action::Inline(_)) { waiting.bytes } else { 0 };
            counts.damaged += u64::from(matches!(waiting.state, State::Damaged(_)));
            counts.lost += u64::from(matches!(waiting.state, State::Lost(_)));
        }
        counts
    }
}

/// Reads the directory and changes nothing. Errors: it is no cache directory, or can't be read.
pub fn look(directory: &Path) -> Result<(Inventory, Salvage)> {
    let on_disk: BTreeMap<FileId, OnDisk> = data_files(directory)?.into_iter().collect();
    let salvage = salvage(directory)?;
    if salvage.meta.is_empty() && on_disk.is_empty() && !directory.join("journal.sqlite").exists() {
        let text = format!("{} is not a cache directory of mediafs: give the --cache-dir of the mount", directory.display());
        return Err(Error::Disk(io::Error::new(io::ErrorKind::NotFound, text)));
    }
    let mut inventory = inventory(&salvage, &on_disk, directory);
    // The journal's own word may be what was damaged.
    inventory.bucket = inventory.bucket.or_else(|| std::fs::read_to_string(directory.join(REACHED)).ok());
    inventory.unnamed.extend(put_aside(directory)?);
    Ok((inventory, salvage))
}

/// What an earlier repair put aside.
fn put_aside(directory: &Path) -> Result<Vec<Unnamed>> {
    let entries = match std::fs::read_dir(directory.join(UNNAMED)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let id = entry.file_name().to_str().and_then(|name| u64::from_str_radix(name, 16).ok());
        let metadata = entry.metadata()?;
        if let Some(id) = id.filter(|_| metadata.is_file()) {
            found.push(Unnamed { id: FileId(id), path: entry.path(), bytes: metadata.len(), was: None });
        }
    }
    found.sort_by_key(|unnamed| unnamed.id);
    Ok(found)
}

pub fn inventory(salvage: &Salvage, on_disk: &BTreeMap<FileId, OnDisk>, directory: &Path) -> Inventory {
    let rows: HashMap<FileId, &FileRow> = salvage.files.iter().map(|row| (row.id, row)).collect();
    let wanted: HashSet<FileId> = salvage.desired.iter().filter_map(|(_, desired)| staged(desired)).collect();
    let mut waiting: Vec<Waiting> = salvage.desired.iter().map(|(key, desired)| one(key, desired, &rows, on_disk)).collect();
    if salvage.is_trusted() {
        for row in salvage.files.iter().filter(|row| !wanted.contains(&row.id)) {
            if let (Some(base), Some(found)) = (&row.base, on_disk.get(&row.id).filter(|found| is_changed(row, found))) {
                written_later(&mut waiting, row.id, base, found.size);
            }
        }
    }
    waiting.sort_by(|a, b| a.key.cmp(&b.key));
    let unnamed = if salvage.is_incomplete { unnamed(&waiting, &rows, on_disk, directory) } else { Vec::new() };
    let (bucket, damage) = (salvage.bucket().map(str::to_owned), salvage.damage.clone());
    Inventory { bucket, damage, is_incomplete: salvage.is_incomplete, waiting, unnamed }
}

fn staged(desired: &Desired) -> Option<FileId> {
    if let Content::Staged(id) = desired.content { Some(id) } else { None }
}

/// Clean when the last session ended, and written to since.
fn is_changed(row: &FileRow, found: &OnDisk) -> bool {
    !row.dirty && row.complete && (found.size, found.mtime_ns) != (row.size, row.mtime_ns)
}

/// Written after the daemon died: it belongs under the name that the version was given last, as the next mount sees it.
fn written_later(waiting: &mut Vec<Waiting>, id: FileId, base: &Version, bytes: u64) {
    if let Some(moved) = waiting.iter_mut().find(|waiting| waiting.action == Action::Copy(base.clone())) {
        (moved.action, moved.bytes) = (Action::Upload(id), bytes);
    } else if waiting.iter().all(|waiting| waiting.key != base.key) {
        let (key, action) = (base.key.clone(), Action::Upload(id));
        waiting.push(Waiting { key, action, state: State::Waiting, bytes, since: None, headers: None });
    }
}

fn one(key: &Key, desired: &Desired, rows: &HashMap<FileId, &FileRow>, on_disk: &BTreeMap<FileId, OnDisk>) -> Waiting {
    let (action, state, bytes) = match &desired.content {
        Content::Staged(id) => {
            let (state, bytes) = state(rows.get(id).copied(), on_disk.get(id));
            (Action::Upload(*id), state, bytes)
        }
        Content::Inline(bytes) => (Action::Inline(bytes.clone()), State::Waiting, bytes.len() as u64),
        Content::CopyOf(version) if version.key == *key => (Action::Attributes, State::Waiting, version.size),
        Content::CopyOf(version) => (Action::Copy(version.clone()), State::Waiting, version.size),
        Content::KeptDirectory => (Action::KeepDirectory, State::Waiting, 0),
        Content::Absent => (Action::Delete, State::Waiting, 0),
    };
    Waiting { key: key.clone(), action, state, bytes, since: Some(desired.since), headers: desired.headers.clone() }
}

fn state(row: Option<&FileRow>, found: Option<&OnDisk>) -> (State, u64) {
    match (row, found) {
        (None, None) => (State::Lost("neither its data file nor its row is here".into()), 0),
        (None, Some(found)) => {
            (State::Damaged("its row in the journal is damaged: which of its bytes are right is not known".into()), found.size)
        }
        (Some(row), None) if row.complete || !row.present.is_empty() => {
            (State::Lost(format!("its data file {} is not in the cache directory", row.id)), row.size)
        }
        (Some(row), Some(found)) if row.complete => (State::Waiting, found.size),
        (Some(row), _) => {
            let missing = missing(row);
            match (&row.base, missing.is_empty()) {
                (_, true) => (State::Waiting, row.size),
                (Some(base), false) => (State::NeedsBase { base: base.clone(), missing }, row.size),
                (None, false) => (State::Damaged("parts of it are nowhere".into()), row.size),
            }
        }
    }
}

/// What of an incomplete file is not here.
pub fn missing(row: &FileRow) -> Vec<Span> {
    let (mut missing, mut at) = (Vec::new(), 0);
    for span in &row.present {
        if at < span.start.min(row.size) {
            missing.push(at..span.start.min(row.size));
        }
        at = at.max(span.end);
    }
    if at < row.size {
        missing.push(at..row.size);
    }
    missing
}

/// Where rows are missing, every data file that no row calls clean may be the one that they named.
fn unnamed(waiting: &[Waiting], rows: &HashMap<FileId, &FileRow>, on_disk: &BTreeMap<FileId, OnDisk>, directory: &Path) -> Vec<Unnamed> {
    let named: HashSet<FileId> =
        waiting.iter().filter_map(|waiting| if let Action::Upload(id) = waiting.action { Some(id) } else { None }).collect();
    let mut found = Vec::new();
    for (id, file) in on_disk.iter().filter(|(id, file)| !named.contains(id) && file.size > 0) {
        let row = rows.get(id);
        if row.is_none_or(|row| row.dirty) {
            let was = row.and_then(|row| row.base.as_ref()).map(|base| base.key.clone());
            found.push(Unnamed { id: *id, path: data_path(directory, *id), bytes: file.size, was });
        }
    }
    found
}
