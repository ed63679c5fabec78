//! After a crash of the machine: which unsent files reached the disk.
//!
//! A commit of the journal may last while the bytes that it speaks of don't. What proves a file is its seal: sums that the
//! journal has, and that what lies on the disk agrees with. A file without that proof is torn. Its change is given up, as a
//! local disk gives up what was not synced: the bucket keeps what it had, and what is left here is moved into the folder
//! `damaged` for people to look at.

use std::collections::HashMap;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::error::{Error, Result};
use crate::journal::{Change, Content, Desired, FileRow, Journal, Seal};
use crate::types::{FileId, Key, Span};

use super::disk::{self, Disk, OnDisk};
use super::open::is_its_base;
use super::shared::Counters;
use super::spans::SpanSet;
use super::sums::{Sums, blocks};
use super::verify::read_full;

/// Below the cache directory.
const FOLDER: &str = "damaged";

/// A name may have 255 bytes.
const KEY_BYTES: usize = 200;

/// What a start after a crash of the machine has to look at.
pub struct Crash<'a> {
    pub directory: &'a Path,
    pub disk: &'a Disk,
    pub journal: &'a Journal,
    pub seals: &'a HashMap<FileId, Seal>,
}

/// How many files the folder holds.
pub fn kept(directory: &Path) -> u64 {
    std::fs::read_dir(directory.join(FOLDER)).map_or(0, |entries| entries.flatten().count() as u64)
}

/// What is left of one torn file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// Of a long key the end.
    pub key: Key,
    pub path: PathBuf,
    pub bytes: u64,
}

/// What the folder holds, by name; nothing is made or changed.
pub fn torn_files(directory: &Path) -> io::Result<Vec<Torn>> {
    let entries = match std::fs::read_dir(directory.join(FOLDER)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let (name, metadata) = (entry.file_name(), entry.metadata()?);
        if let Some((_, key)) = name.to_str().and_then(|name| name.split_once('-')).filter(|_| metadata.is_file()) {
            let key = Key::from(&*percent_decode_str(key).decode_utf8_lossy());
            found.push(Torn { key, path: entry.path(), bytes: metadata.len() });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

impl Crash<'_> {
    /// The rows that may be believed, of unsent files those that are proven. What is torn leaves `desired` and `on_disk`.
    pub fn survivors(
        &self,
        desired: &mut Vec<(Key, Desired)>,
        on_disk: &mut HashMap<FileId, OnDisk>,
        counters: &Counters,
    ) -> Result<Vec<FileRow>> {
        let mut full: HashMap<FileId, FileRow> = self.journal.files()?.into_iter().map(|row| (row.id, row)).collect();
        let mut rows = Vec::new();
        for row in self.journal.files_as_synced()? {
            let names: Vec<(Key, Desired)> =
                desired.iter().filter(|(_, desired)| desired.content == Content::Staged(row.id)).cloned().collect();
            let Some(full) = full.remove(&row.id) else { continue };
            // What never had a local byte can't be torn.
            if !row.dirty || names.is_empty() || is_its_base(&full) {
                rows.push(row);
                continue;
            }
            let row = full;
            match self.proven(row.clone(), on_disk)? {
                Some(row) => rows.push(row),
                None => {
                    let left = self.give_up(&row, names, on_disk.remove(&row.id), counters)?;
                    desired.retain(|(_, desired)| desired.content != Content::Staged(row.id));
                    desired.extend(left);
                }
            }
        }
        Ok(rows)
    }

    /// The file as it was when it was sealed; None: nothing proves that it is here.
    fn proven(&self, mut row: FileRow, on_disk: &mut HashMap<FileId, OnDisk>) -> Result<Option<FileRow>> {
        // One over nothing that says no more of what follows is that of a file that the kernel was writing to by itself.
        let Some(seal) = self.seals.get(&row.id).filter(|seal| seal.whole || seal.size > 0) else { return Ok(None) };
        let empty = seal.size == 0 && row.complete;
        let file = match self.disk.open_file(row.id, empty && !on_disk.contains_key(&row.id)) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        row.size = seal.size;
        let mut present: SpanSet =
            if row.complete { std::iter::once(0..row.size).collect() } else { row.present.iter().cloned().collect() };
        present.cut(row.size);
        let Some(sums) = Sums::from_journal(self.journal.sums(row.id)?) else { return Ok(None) };
        if !is_right(&file, &sums, &present, row.size) {
            return Ok(None);
        }
        if file.metadata()?.len() > row.size {
            // Added after it was sealed: not all of that may be here.
            file.set_len(row.size)?;
        }
        if !row.complete {
            row.present = present.iter().collect();
        }
        on_disk.insert(row.id, disk::on_disk(&file.metadata()?));
        Ok(Some(row))
    }

    /// What is to be wanted instead under the names of a torn file.
    fn give_up(
        &self,
        row: &FileRow,
        names: Vec<(Key, Desired)>,
        found: Option<OnDisk>,
        counters: &Counters,
    ) -> Result<Vec<(Key, Desired)>> {
        let name = names.first().map_or("", |(key, _)| key.as_str());
        if found.is_some_and(|found| found.size > 0) {
            let place = self.keep(row.id, name)?;
            counters.kept.fetch_add(1, Ordering::Relaxed);
            tracing::error!(key = name, kept_as = %place, "the machine went down before this file was on the disk: its change is given up");
        } else {
            self.disk.remove(row.id)?;
            tracing::error!(key = name, "the machine went down before this file was on the disk: there is nothing left of it");
        }
        let mut changes = vec![Change::RemoveFile(row.id)];
        let mut left = Vec::new();
        for (key, desired) in names {
            match &row.base {
                // It was renamed too, and that stands: the old bytes under the new name.
                Some(base) if base.key != key => {
                    let desired = Desired { content: Content::Restored(base.clone()), headers: None, ..desired };
                    changes.push(Change::SetDesired(key.clone(), desired.clone()));
                    left.push((key, desired));
                }
                _ => changes.push(Change::ClearDesired(key)),
            }
        }
        self.journal.apply(&changes)?;
        Ok(left)
    }

    fn keep(&self, id: FileId, key: &str) -> Result<String> {
        let folder = self.directory.join(FOLDER);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let mut name = utf8_percent_encode(key, NON_ALPHANUMERIC).to_string();
        // Of a long key the end tells more.
        name.drain(..name.len().saturating_sub(KEY_BYTES));
        let place = folder.join(format!("{id}-{name}"));
        std::fs::rename(self.disk.path(id), &place).map_err(Error::from)?;
        Ok(place.display().to_string())
    }
}

/// Every present byte is under a sum that is right, or is a zero without one.
fn is_right(file: &File, sums: &Sums, present: &SpanSet, size: u64) -> bool {
    let holes: SpanSet = disk::holes(file, size).unwrap_or_default().into_iter().collect();
    present.iter().all(|span| {
        let pieces = sums.touching(&span);
        let summed = pieces.iter().all(|piece| {
            let inside = piece.span.start >= span.start && piece.span.end <= span.end;
            inside && read(file, &piece.span).is_some_and(|bytes| piece.is_right(&bytes))
        });
        let unsummed = sums.gaps(&span).into_iter().flat_map(|gap| holes.missing(gap)).flat_map(blocks);
        summed && unsummed.into_iter().all(|gap| read(file, &gap).is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0)))
    }) && file.metadata().is_ok_and(|metadata| metadata.len() >= present.iter().last().map_or(0, |last| last.end))
}

fn read(file: &File, span: &Span) -> Option<Vec<u8>> {
    let mut bytes = vec![0; (span.end - span.start) as usize];
    read_full(file, span.start, &mut bytes).is_ok_and(|read| read == bytes.len()).then_some(bytes)
}
