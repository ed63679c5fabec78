//! What waits, as ordinary files in another folder.
//!
//! A file is written under `NAME.partial` and gets its name when it is whole and what was written agrees with the journal's
//! checksums. What lacks bytes keeps the other name, with holes where they belong; what is damaged becomes `NAME.damaged`.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use super::check::{examine, ranges};
use super::fetch::fetch;
use super::folder::Folder;
use super::inventory::{Action, Inventory, State, Waiting};
use super::parts::{InUpload, Local};
use crate::cache::{SpanSet, Torn, data_path};
use crate::error::{Error, Result};
use crate::namespace::attributes;
use crate::store::Store;
use crate::types::{FileId, Key, ObjectHeaders, Span, Version};

const UNNAMED_FOLDER: &str = ".unnamed";
/// What crashes of the machine left of files.
const TORN_FOLDER: &str = ".damaged";
const PARTIAL: &str = ".partial";
const DAMAGED: &str = ".damaged";
/// A disk that can't read some bytes loses no more around them.
const STEP_BYTES: u64 = 4 << 10;
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

/// Why a file is not written under its name. All empty but `why`: nobody knows which of its bytes are right.
#[derive(Clone, Debug, Default)]
pub struct Lacks {
    /// Not what was written, or not to be read.
    pub damaged: Vec<Span>,
    /// Only the bucket has these.
    pub missing: Vec<Span>,
    /// An upload that isn't complete has these, from where they can't be read.
    pub in_upload: Option<InUpload>,
    pub why: String,
}

#[derive(Debug)]
pub enum Outcome {
    Written,
    /// Under NAME.partial.
    Partial(Lacks),
    /// Under NAME.damaged; it may lack bytes, too.
    Damaged(Lacks),
    /// What a crash of the machine left of a file whose change was given up.
    Torn,
    /// The change has no bytes of its own here: a deletion, a copy, attributes.
    Nothing,
    Failed(Error),
}

impl Outcome {
    fn of(lacks: Lacks) -> Outcome {
        match lacks {
            lacks if !lacks.damaged.is_empty() => Outcome::Damaged(lacks),
            lacks if lacks.why.is_empty() => Outcome::Written,
            lacks => Outcome::Partial(lacks),
        }
    }
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
        let place = Place { directory, top: &top, local: local_of(inventory, waiting) };
        let outcome = one(&place, waiting, options).await.unwrap_or_else(Outcome::Failed);
        told(Exported { path: waiting.key.to_string(), bytes: waiting.bytes, outcome });
    }
    for unnamed in &inventory.unnamed {
        let outcome = aside(&top, UNNAMED_FOLDER, &unnamed.id.to_string(), &unnamed.path, Outcome::Written, options);
        told(Exported { path: format!("{UNNAMED_FOLDER}/{}", unnamed.id), bytes: unnamed.bytes, outcome });
    }
    for Torn { path, bytes, .. } in &inventory.torn {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let outcome = aside(&top, TORN_FOLDER, &name, path, Outcome::Torn, options);
        told(Exported { path: format!("{TORN_FOLDER}/{name}"), bytes: *bytes, outcome });
    }
    Ok(())
}

fn aside(top: &Folder, folder: &str, name: &str, from: &Path, done: Outcome, options: &ExportOptions) -> Outcome {
    let copy = || copy_unnamed(&top.enter(folder)?, name, &File::open(from)?, options.force);
    copy().map_or_else(Outcome::Failed, |()| done)
}

/// From where to where one file is written.
struct Place<'a> {
    directory: &'a Path,
    top: &'a Folder,
    local: Local,
}

/// All of a file of which the journal knows nothing.
fn local_of(inventory: &Inventory, waiting: &Waiting) -> Local {
    let known = if let Action::Upload(id) = waiting.action { inventory.local.get(&id).cloned() } else { None };
    known.unwrap_or_else(|| Local { present: std::iter::once(0..waiting.bytes).collect(), ..Local::default() })
}

async fn one(place: &Place<'_>, waiting: &Waiting, options: &ExportOptions) -> Result<Outcome> {
    let top = place.top;
    let source = match &waiting.action {
        Action::Delete | Action::Attributes => return Ok(Outcome::Nothing),
        Action::KeepDirectory => return make_folder(top, &waiting.key),
        Action::Inline(_) | Action::Copy(_) if waiting.key.is_marker() => return make_folder(top, &waiting.key),
        Action::Copy(_) if options.store.is_none() => return Ok(Outcome::Nothing),
        Action::Copy(version) => Source::Bucket(version),
        Action::Inline(bytes) => Source::Bytes(bytes),
        Action::Upload(id) => match &waiting.state {
            State::Lost(why) => return Err(Error::Corrupt(why.clone())),
            State::Waiting => Source::File(*id, None),
            State::Damaged(why) => Source::Doubtful(*id, why),
            State::NeedsBase { base, missing } => Source::File(*id, Some((base, missing))),
        },
    };
    let (folder, name) = match top.enter_all(&waiting.key) {
        Ok(there) => there,
        Err(error) => return elsewhere(place, waiting, &error, options.force),
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
    let filled = fill(place, source, waiting, &into, options).await;
    dress(place.directory, waiting, &headers, &into)?;
    let named = filled.and_then(|lacks| name_it(&folder, name, &partial, &into, Outcome::of(lacks), options.force));
    if named.is_err() {
        folder.remove(&partial)?;
    }
    named
}

/// The name that the file has deserved.
fn name_it(folder: &Folder, name: &str, partial: &str, into: &File, outcome: Outcome, force: bool) -> Result<Outcome> {
    into.sync_all()?;
    match &outcome {
        Outcome::Written => folder.rename(partial, name)?,
        Outcome::Damaged(_) => {
            let damaged = format!("{name}{DAMAGED}");
            free(folder, &damaged, force)?;
            folder.rename(partial, &damaged)?;
        }
        _ => {}
    }
    Ok(outcome)
}

enum Source<'a> {
    Bytes(&'a [u8]),
    /// With what of it is only in the bucket, and in which version.
    File(FileId, Option<(&'a Version, &'a [Span])>),
    Doubtful(FileId, &'a str),
    Bucket(&'a Version),
}

async fn fill(place: &Place<'_>, source: Source<'_>, waiting: &Waiting, into: &File, options: &ExportOptions) -> Result<Lacks> {
    let mut lacks = Lacks { in_upload: waiting.in_upload.clone(), ..Lacks::default() };
    match source {
        Source::Bytes(bytes) => into.write_all_at(bytes, 0)?,
        Source::Doubtful(id, why) => {
            lacks.damaged = copy(&data(place.directory, id)?, into, 0..waiting.bytes)?;
            lacks.why = why.to_owned();
        }
        Source::File(id, base) => {
            into.set_len(waiting.bytes)?;
            lacks.damaged = write_local(place, id, into)?;
            if let Some((base, missing)) = base {
                let spans: Vec<_> = missing.iter().filter(|span| !span.is_empty()).cloned().map(Some).collect();
                fill_from_bucket(base, &spans, into, options, &mut lacks).await;
            }
            note_upload(&mut lacks);
        }
        Source::Bucket(version) => fill_from_bucket(version, &[None], into, options, &mut lacks).await,
    }
    if !lacks.damaged.is_empty() && lacks.why.is_empty() {
        lacks.why = "its data on the cache disk is damaged".to_owned();
    }
    Ok(lacks)
}

/// What is here; which of it is damaged. Checked are the bytes that were written, not those that were read.
fn write_local(place: &Place<'_>, id: FileId, into: &File) -> Result<Vec<Span>> {
    if place.local.present.is_empty() {
        return Ok(Vec::new());
    }
    let data = data(place.directory, id)?;
    let mut unreadable = Vec::new();
    for span in &place.local.present {
        unreadable.extend(copy(&data, into, span.clone())?);
    }
    Ok(examine(into, &place.local, &unreadable).damaged)
}

fn note_upload(lacks: &mut Lacks) {
    if let Some(held) = &lacks.in_upload {
        let and = if lacks.why.is_empty() { "" } else { "; " };
        let held =
            format!("a part is in the unfinished upload {}: `mediafs recover … upload` or the next mount completes it", held.upload.0);
        lacks.why = format!("{}{and}{held}", lacks.why);
    }
}

/// `missing`: None is all of it.
async fn fill_from_bucket(version: &Version, missing: &[Option<Span>], into: &File, options: &ExportOptions, lacks: &mut Lacks) {
    let spans = |missing: &[Option<Span>]| missing.iter().map(|span| span.clone().unwrap_or(0..version.size)).collect();
    let Some(store) = &options.store else {
        lacks.why = format!("the rest is in the bucket as {}: give --fetch", version.key);
        lacks.missing = spans(missing);
        return;
    };
    for (at, span) in missing.iter().enumerate() {
        if let Err(error) = fetch(store, version, span.as_ref(), into).await {
            (lacks.missing, lacks.why) = (spans(&missing[at..]), error.to_string());
            return;
        }
    }
}

fn data(directory: &Path, id: FileId) -> Result<File> {
    Ok(File::open(data_path(directory, id))?)
}

/// Zeros stay holes. The bytes that can't be read, which become holes, too.
fn copy(from: &File, into: &File, span: Span) -> Result<Vec<Span>> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut unreadable = SpanSet::default();
    let mut at = span.start;
    while at < span.end {
        let step = if unreadable.is_empty() { CHUNK_BYTES as u64 } else { STEP_BYTES };
        let length = (span.end - at).min(step);
        match from.read_at(&mut buffer[..length as usize], at) {
            Ok(0) => {
                // The file ends before it should.
                unreadable.insert(at..span.end);
                break;
            }
            Ok(read) => {
                if buffer[..read].iter().any(|byte| *byte != 0) {
                    into.write_all_at(&buffer[..read], at)?;
                }
                at += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => {
                let lost = length.min(STEP_BYTES);
                unreadable.insert(at..at + lost);
                at += lost;
            }
        }
    }
    if into.metadata()?.len() < span.end {
        into.set_len(span.end)?;
    }
    Ok(unreadable.iter().collect())
}

fn copy_unnamed(folder: &Folder, name: &str, from: &File, force: bool) -> Result<()> {
    free(folder, name, force)?;
    if folder.exists(name)? {
        folder.remove(name)?;
    }
    let metadata = from.metadata()?;
    let into = folder.create(name)?;
    let unreadable = copy(from, &into, 0..metadata.len())?;
    into.set_modified(metadata.modified()?)?;
    into.sync_all()?;
    match unreadable.is_empty() {
        true => Ok(()),
        false => Err(Error::Corrupt(format!("bytes {} of {name} can't be read, and are zeros now", ranges(&unreadable)))),
    }
}

/// A key that is no path here: its bytes are saved all the same.
fn elsewhere(place: &Place<'_>, waiting: &Waiting, error: &io::Error, force: bool) -> Result<Outcome> {
    let why = format!("can't be written under its name: {error}");
    let Action::Upload(id) = waiting.action else { return Err(Error::Disk(io::Error::new(error.kind(), why))) };
    let (folder, data) = (place.top.enter(UNNAMED_FOLDER)?, data(place.directory, id)?);
    copy_unnamed(&folder, &id.to_string(), &data, force)?;
    let damaged = examine(&data, &place.local, &[]).damaged;
    let why = format!("{why}; its bytes are in {UNNAMED_FOLDER}/{id}");
    let missing = if let State::NeedsBase { missing, .. } = &waiting.state { missing.clone() } else { Vec::new() };
    let mut lacks = Lacks { damaged, missing, in_upload: waiting.in_upload.clone(), why };
    note_upload(&mut lacks);
    Ok(Outcome::Partial(lacks))
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
