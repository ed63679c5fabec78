//! What waits, as ordinary files in another folder.
//!
//! A file is written under `NAME.partial` and gets its name when it is whole; what lacks bytes keeps the other name, with
//! holes where they belong.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use super::fetch::fetch;
use super::folder::Folder;
use super::inventory::{Action, Inventory, State, Waiting};
use crate::cache::data_path;
use crate::error::{Error, Result};
use crate::namespace::attributes;
use crate::store::Store;
use crate::types::{FileId, Key, ObjectHeaders, Span, Version};

const UNNAMED_FOLDER: &str = ".unnamed";
const PARTIAL: &str = ".partial";
/// Of one read.
const CHUNK_BYTES: usize = 1 << 20;
/// Permissions of files that carry none.
const FILE_MODE: u32 = 0o644;
const PERMISSION_BITS: u32 = 0o777;

#[derive(Default)]
pub struct ExportOptions {
    /// Replace files that are there.
    pub force: bool,
    /// Where to fetch what is missing from.
    pub store: Option<Store>,
}

#[derive(Debug)]
pub enum Outcome {
    Written,
    /// Under NAME.partial: these bytes are missing; empty: nobody knows which are right.
    Partial {
        missing: Vec<Span>,
        why: String,
    },
    /// The change has no bytes of its own here: a deletion, a copy, attributes.
    Nothing,
    Failed(Error),
}

/// What became of one key, or of one file without a name.
#[derive(Debug)]
pub struct Exported {
    pub path: String,
    pub bytes: u64,
    pub outcome: Outcome,
}

/// Writes everything that waits in `directory` below `target`; `told` hears of each.
pub async fn export(
    directory: &Path,
    inventory: &Inventory,
    target: &Path,
    options: &ExportOptions,
    mut told: impl FnMut(Exported),
) -> Result<()> {
    let top = Folder::top(target)?;
    for waiting in &inventory.waiting {
        let outcome = one(directory, &top, waiting, options).await.unwrap_or_else(Outcome::Failed);
        told(Exported { path: waiting.key.to_string(), bytes: waiting.bytes, outcome });
    }
    if inventory.unnamed.is_empty() {
        return Ok(());
    }
    let folder = top.enter(UNNAMED_FOLDER)?;
    for unnamed in &inventory.unnamed {
        let name = unnamed.id.to_string();
        let copied = File::open(&unnamed.path).map_err(Error::from).and_then(|from| copy_unnamed(&folder, &name, &from, options.force));
        let outcome = copied.map_or_else(Outcome::Failed, |()| Outcome::Written);
        told(Exported { path: format!("{UNNAMED_FOLDER}/{name}"), bytes: unnamed.bytes, outcome });
    }
    Ok(())
}

async fn one(directory: &Path, top: &Folder, waiting: &Waiting, options: &ExportOptions) -> Result<Outcome> {
    let source = match &waiting.action {
        Action::Delete | Action::Attributes => return Ok(Outcome::Nothing),
        Action::KeepDirectory => return make_folder(top, &waiting.key),
        Action::Inline(_) if waiting.key.is_marker() => return make_folder(top, &waiting.key),
        Action::Copy(_) if options.store.is_none() => return Ok(Outcome::Nothing),
        Action::Copy(version) => Source::Bucket(version),
        Action::Inline(bytes) => Source::Bytes(bytes),
        Action::Upload(id) => match &waiting.state {
            State::Lost(why) => return Err(Error::Corrupt(why.clone())),
            State::Waiting => Source::File(*id),
            State::Damaged(why) => Source::Doubtful(*id, why),
            State::NeedsBase { base, missing } => Source::Parts(*id, base, missing),
        },
    };
    let (folder, name) = match top.enter_all(&waiting.key) {
        Ok(place) => place,
        Err(error) => return elsewhere(directory, top, waiting, &error, options.force),
    };
    free(&folder, name, options.force)?;
    let headers = waiting.headers.clone().unwrap_or_default();
    if let (Source::Bytes(bytes), true) = (&source, attributes::is_symlink(&headers)) {
        let target = std::str::from_utf8(bytes).map_err(|_| Error::NotUtf8)?;
        if folder.exists(name)? {
            folder.remove(name)?;
        }
        return Ok(folder.link(name, target).map(|()| Outcome::Written)?);
    }
    let partial = format!("{name}{PARTIAL}");
    free(&folder, &partial, options.force)?;
    if folder.exists(&partial)? {
        folder.remove(&partial)?;
    }
    let into = folder.create(&partial)?;
    let outcome = fill(directory, source, waiting.bytes, &into, options).await;
    dress(directory, waiting, &headers, &into)?;
    match outcome {
        Ok(Outcome::Written) => {
            into.sync_all()?;
            folder.rename(&partial, name)?;
            Ok(Outcome::Written)
        }
        Err(error) => {
            folder.remove(&partial)?;
            Err(error)
        }
        other => other,
    }
}

enum Source<'a> {
    Bytes(&'a [u8]),
    File(FileId),
    Doubtful(FileId, &'a str),
    Parts(FileId, &'a Version, &'a [Span]),
    Bucket(&'a Version),
}

async fn fill(directory: &Path, source: Source<'_>, size: u64, into: &File, options: &ExportOptions) -> Result<Outcome> {
    match source {
        Source::Bytes(bytes) => into.write_all_at(bytes, 0)?,
        Source::File(id) => copy(&data(directory, id)?, into, 0..size)?,
        Source::Doubtful(id, why) => {
            copy(&data(directory, id)?, into, 0..size)?;
            return Ok(Outcome::Partial { missing: Vec::new(), why: why.to_owned() });
        }
        Source::Parts(id, base, missing) => {
            into.set_len(size)?;
            let present = gaps(missing, size);
            if !present.is_empty() {
                let data = data(directory, id)?;
                present.into_iter().try_for_each(|span| copy(&data, into, span))?;
            }
            return fill_from_bucket(base, missing, into, options).await;
        }
        Source::Bucket(version) => return fill_from_bucket(version, &[0..size], into, options).await,
    }
    Ok(Outcome::Written)
}

async fn fill_from_bucket(version: &Version, missing: &[Span], into: &File, options: &ExportOptions) -> Result<Outcome> {
    let Some(store) = &options.store else {
        let why = format!("the rest is in the bucket as {}: give --fetch", version.key);
        return Ok(Outcome::Partial { missing: missing.to_vec(), why });
    };
    for (at, span) in missing.iter().enumerate().filter(|(_, span)| !span.is_empty()) {
        if let Err(error) = fetch(store, version, span, into).await {
            return Ok(Outcome::Partial { missing: missing[at..].to_vec(), why: error.to_string() });
        }
    }
    Ok(Outcome::Written)
}

fn data(directory: &Path, id: FileId) -> Result<File> {
    Ok(File::open(data_path(directory, id))?)
}

/// What lies between the missing spans.
fn gaps(missing: &[Span], size: u64) -> Vec<Span> {
    let mut at = 0;
    let ends = missing.iter().map(|span| (span.start, span.end)).chain([(size, size)]);
    let between = ends.map(|(start, end)| std::mem::replace(&mut at, end)..start);
    between.filter(|span| span.start < span.end).collect()
}

/// Zeros stay holes.
fn copy(from: &File, into: &File, span: Span) -> Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut at = span.start;
    while at < span.end {
        let length = (span.end - at).min(CHUNK_BYTES as u64) as usize;
        let read = from.read_at(&mut buffer[..length], at)?;
        if read == 0 {
            return Err(Error::Corrupt(format!("its data file ends at {at} of {}", span.end)));
        }
        if buffer[..read].iter().any(|byte| *byte != 0) {
            into.write_all_at(&buffer[..read], at)?;
        }
        at += read as u64;
    }
    if into.metadata()?.len() < span.end {
        into.set_len(span.end)?;
    }
    Ok(())
}

fn copy_unnamed(folder: &Folder, name: &str, from: &File, force: bool) -> Result<()> {
    free(folder, name, force)?;
    if folder.exists(name)? {
        folder.remove(name)?;
    }
    let metadata = from.metadata()?;
    let into = folder.create(name)?;
    copy(from, &into, 0..metadata.len())?;
    into.set_modified(metadata.modified()?)?;
    Ok(into.sync_all()?)
}

/// A key that is no path here: its bytes are saved all the same.
fn elsewhere(directory: &Path, top: &Folder, waiting: &Waiting, error: &io::Error, force: bool) -> Result<Outcome> {
    let why = format!("can't be written under its name: {error}");
    let Action::Upload(id) = waiting.action else { return Err(Error::Disk(io::Error::new(error.kind(), why))) };
    let folder = top.enter(UNNAMED_FOLDER)?;
    copy_unnamed(&folder, &id.to_string(), &data(directory, id)?, force)?;
    Ok(Outcome::Partial { missing: Vec::new(), why: format!("{why}; its bytes are in {UNNAMED_FOLDER}/{id}") })
}

fn make_folder(top: &Folder, key: &Key) -> Result<Outcome> {
    let (folder, name) = top.enter_all(key)?;
    folder.enter(name)?;
    Ok(Outcome::Written)
}

/// Refuses a name that is taken.
fn free(folder: &Folder, name: &str, force: bool) -> Result<()> {
    if !force && folder.exists(name)? {
        let text = format!("{name} is there already: give --force to replace it");
        return Err(Error::Disk(io::Error::new(io::ErrorKind::AlreadyExists, text)));
    }
    Ok(())
}

/// The mode and time that the object would carry.
fn dress(directory: &Path, waiting: &Waiting, headers: &ObjectHeaders, into: &File) -> Result<()> {
    let posix = attributes::decode(headers);
    into.set_permissions(Permissions::from_mode(posix.mode.unwrap_or(FILE_MODE) & PERMISSION_BITS))?;
    let written = match waiting.action {
        Action::Upload(id) => std::fs::metadata(data_path(directory, id)).and_then(|metadata| metadata.modified()).ok(),
        _ => None,
    };
    match posix.mtime.or(written).or(waiting.since) {
        Some(time) => Ok(into.set_modified(time)?),
        None => Ok(()),
    }
}
