//! What a cache directory holds that the bucket doesn't have yet.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::UNNAMED;
use super::parts::{InUpload, Local, Uploads, local};
use crate::cache::{OnDisk, SpanSet, Torn, data_files, data_path, torn_files};
use crate::daemon::REACHED;
use crate::error::{Error, Result};
use crate::journal::{Content, Desired, FileRow, Salvage, Seal, salvage};
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
    /// These parts are not here: the bucket has them, in an upload that can be gone on with.
    pub in_upload: Option<InUpload>,
    /// Bytes that are here and not what was written; empty as long as nobody has looked (see `check`).
    pub damaged: Vec<Span>,
    /// Bytes that nothing can prove, as far as somebody has looked.
    pub unchecked: u64,
}

impl Waiting {
    fn new(key: Key, action: Action, state: State, bytes: u64) -> Waiting {
        let (since, headers, in_upload) = Default::default();
        Waiting { key, action, state, bytes, since, headers, in_upload, damaged: Vec::new(), unchecked: 0 }
    }

    pub fn state_name(&self) -> &'static str {
        if self.damaged.is_empty() { self.state.name() } else { "damaged" }
    }
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
    /// Left of files that crashes of the machine have torn. They don't wait: their changes were given up.
    pub torn: Vec<Torn>,
    /// What is here of the files that wait, and what the journal has to prove it.
    pub local: HashMap<FileId, Local>,
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
    /// In the folder `damaged`, of crashes of the machine.
    pub torn: u64,
}

impl Inventory {
    pub fn counts(&self) -> Counts {
        let mut counts = Counts { unnamed: self.unnamed.len() as u64, torn: self.torn.len() as u64, ..Counts::default() };
        for waiting in &self.waiting {
            let count = match waiting.action {
                Action::Inline(_) | Action::Copy(_) if waiting.key.is_marker() => &mut counts.directories,
                Action::Upload(_) | Action::Inline(_) => &mut counts.files,
                Action::KeepDirectory => &mut counts.directories,
                Action::Copy(_) => &mut counts.copies,
                Action::Attributes => &mut counts.attributes,
                Action::Delete => &mut counts.deletions,
            };
            *count += 1;
            counts.bytes += if matches!(waiting.action, Action::Upload(_) | Action::Inline(_)) { waiting.bytes } else { 0 };
            counts.damaged += u64::from(waiting.state_name() == "damaged");
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
    inventory.torn = torn_files(directory)?;
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
    let known = Known::new(salvage, on_disk);
    let wanted: HashSet<FileId> = salvage.desired.iter().filter_map(|(_, desired)| staged(desired)).collect();
    let mut waiting: Vec<Waiting> = salvage.desired.iter().map(|(key, desired)| known.one(key, desired)).collect();
    if salvage.is_trusted() {
        for row in salvage.files.iter().filter(|row| !wanted.contains(&row.id)) {
            if let (Some(base), Some(found)) = (&row.base, on_disk.get(&row.id).filter(|found| known.is_behind(row, found))) {
                written_later(&mut waiting, row.id, base, found.size);
            }
        }
    }
    waiting.sort_by(|a, b| a.key.cmp(&b.key));
    let unnamed = if salvage.is_incomplete { known.unnamed(&waiting, directory) } else { Vec::new() };
    let local = local(salvage, waiting.iter().filter_map(|waiting| Some((known.row_of(waiting)?, waiting.bytes))));
    let (bucket, damage) = (salvage.bucket().map(str::to_owned), salvage.damage.clone());
    Inventory { bucket, damage, is_incomplete: salvage.is_incomplete, waiting, unnamed, torn: Vec::new(), local }
}

fn staged(desired: &Desired) -> Option<FileId> {
    if let Content::Staged(id) = desired.content { Some(id) } else { None }
}

/// Written after the daemon died: it belongs under the name that the version was given last, as the next mount sees it.
fn written_later(waiting: &mut Vec<Waiting>, id: FileId, base: &Version, bytes: u64) {
    if let Some(moved) = waiting.iter_mut().find(|waiting| waiting.action == Action::Copy(base.clone())) {
        (moved.action, moved.bytes) = (Action::Upload(id), bytes);
    } else if waiting.iter().all(|waiting| waiting.key != base.key) {
        waiting.push(Waiting::new(base.key.clone(), Action::Upload(id), State::Waiting, bytes));
    }
}

/// What rows and files say, to be asked for one file.
struct Known<'a> {
    rows: HashMap<FileId, &'a FileRow>,
    seals: HashMap<FileId, Seal>,
    uploads: Uploads,
    on_disk: &'a BTreeMap<FileId, OnDisk>,
}

impl<'a> Known<'a> {
    fn new(salvage: &'a Salvage, on_disk: &'a BTreeMap<FileId, OnDisk>) -> Self {
        let rows = salvage.files.iter().map(|row| (row.id, row)).collect();
        Known { rows, seals: salvage.seals.iter().copied().collect(), uploads: Uploads::new(salvage), on_disk }
    }

    /// None also for what was written after the daemon died, of which the journal knows nothing.
    fn row_of(&self, waiting: &Waiting) -> Option<&'a FileRow> {
        let Action::Upload(id) = waiting.action else { return None };
        self.rows.get(&id).copied().filter(|_| waiting.since.is_some())
    }

    /// Clean when the last session ended, open for writing, and written to since.
    fn is_behind(&self, row: &FileRow, found: &OnDisk) -> bool {
        is_changed(row, found) && self.seals.get(&row.id).is_some_and(|seal| !seal.whole)
    }

    fn one(&self, key: &Key, desired: &Desired) -> Waiting {
        let waiting = |action, state, bytes| Waiting::new(key.clone(), action, state, bytes);
        let mut waiting = match &desired.content {
            Content::Staged(id) => self.file(key, *id),
            Content::Inline(bytes) => waiting(Action::Inline(bytes.clone()), State::Waiting, bytes.len() as u64),
            Content::CopyOf(version) | Content::Restored(version) if version.key == *key => {
                waiting(Action::Attributes, State::Waiting, version.size)
            }
            Content::CopyOf(version) | Content::Restored(version) => waiting(Action::Copy(version.clone()), State::Waiting, version.size),
            Content::KeptDirectory => waiting(Action::KeepDirectory, State::Waiting, 0),
            Content::Absent => waiting(Action::Delete, State::Waiting, 0),
        };
        (waiting.since, waiting.headers) = (Some(desired.since), desired.headers());
        waiting
    }

    fn file(&self, key: &Key, id: FileId) -> Waiting {
        let (row, found) = (self.rows.get(&id).copied(), self.on_disk.get(&id));
        let in_upload = row.and_then(|row| self.uploads.of(row));
        let (state, bytes) = self.state(row, found, in_upload.as_ref());
        let state = match (&state, &in_upload) {
            (State::Waiting | State::NeedsBase { .. }, Some(held)) if !self.uploads.can_go_on(key, held) => {
                State::Damaged("parts of it were in an upload that the journal doesn't know any more".into())
            }
            _ => state,
        };
        Waiting { in_upload, ..Waiting::new(key.clone(), Action::Upload(id), state, bytes) }
    }

    fn state(&self, row: Option<&FileRow>, found: Option<&OnDisk>, in_upload: Option<&InUpload>) -> (State, u64) {
        match (row, found) {
            (None, None) => (State::Lost("neither its data file nor its row is here".into()), 0),
            (None, Some(found)) => {
                (State::Damaged("its row in the journal is damaged: which of its bytes are right is not known".into()), found.size)
            }
            (Some(row), None) if row.complete || !row.present.is_empty() => {
                (State::Lost(format!("its data file {} is not in the cache directory", row.id)), row.size)
            }
            // Programs go on writing after the daemon died: the disk knows the length, unless the file was at rest.
            (Some(row), Some(found)) if row.complete => {
                let at_rest = self.seals.get(&row.id).filter(|seal| seal.whole);
                (State::Waiting, at_rest.map_or(found.size, |seal| seal.size))
            }
            (Some(row), _) => {
                let missing = missing(row, in_upload);
                match (&row.base, missing.is_empty()) {
                    (_, true) => (State::Waiting, row.size),
                    (Some(base), false) => (State::NeedsBase { base: base.clone(), missing }, row.size),
                    (None, false) => (State::Damaged("parts of it are nowhere".into()), row.size),
                }
            }
        }
    }

    /// Where rows are missing, every data file that no row proves clean may be the one that they named.
    fn unnamed(&self, waiting: &[Waiting], directory: &Path) -> Vec<Unnamed> {
        let id = |waiting: &Waiting| if let Action::Upload(id) = waiting.action { Some(id) } else { None };
        let named: HashSet<FileId> = waiting.iter().filter_map(id).collect();
        let mut found = Vec::new();
        for (id, file) in self.on_disk.iter().filter(|(id, file)| !named.contains(id) && file.size > 0) {
            let row = self.rows.get(id);
            if row.is_none_or(|row| row.dirty || is_changed(row, file)) {
                let was = row.and_then(|row| row.base.as_ref()).map(|base| base.key.clone());
                found.push(Unnamed { id: *id, path: data_path(directory, *id), bytes: file.size, was });
            }
        }
        found
    }
}

/// Not the file that was left there as clean.
fn is_changed(row: &FileRow, found: &OnDisk) -> bool {
    !row.dirty && row.complete && (found.size, found.mtime_ns) != (row.size, row.mtime_ns)
}

/// What of an incomplete file is neither here nor in its upload.
pub fn missing(row: &FileRow, in_upload: Option<&InUpload>) -> Vec<Span> {
    let mut there: SpanSet = row.present.iter().cloned().collect();
    in_upload.iter().flat_map(|held| &held.parts).for_each(|part| there.insert(part.clone()));
    there.missing(0..row.size)
}
