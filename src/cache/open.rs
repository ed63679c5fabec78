//! What a start finds: rows, data files, and desired states are brought together.
//!
//! [`fate`] decides for one file, without I/O. Whatever may be unsent data stays; the rest only if it can be trusted.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{Error, Result};
use crate::journal::{Change, Content, FileRow, Journal, Seal};
use crate::types::{FileId, Span, Version};

use super::budget::Budget;
use super::disk::{self, Disk, OnDisk};
use super::file::LocalFile;
use super::shared::{Counters, Shared};
use super::state::State;
use super::torn::{self, Crash};
use super::{Cache, Limits};

/// The journal's word for the first number that no data file had.
pub const NEXT_ID: &str = "next_file_id";

/// Rows in one transaction.
const BATCH: usize = 1000;

/// What becomes of a data file.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Keep {
        size: u64,
        dirty: bool,
        /// It was clean when the last session ended, and was written to since.
        behind: bool,
    },
    /// Row and file go: the bucket has it.
    Drop,
    /// The same, of a file that is not what it was left as.
    Damaged,
    /// Unsent data was here, and isn't.
    Lost,
}

/// `wanted`: a desired state names the file. `trusted`: the machine did not crash since the row was written.
fn fate(row: &FileRow, seal: Option<&Seal>, found: Option<&OnDisk>, wanted: bool, trusted: bool) -> Fate {
    let dirty = row.dirty || wanted;
    match found {
        // The row of a complete file doesn't follow its length, and it has a data file from the start.
        None if !trusted && !wanted => Fate::Drop,
        None if dirty && (row.complete || !row.present.is_empty()) => Fate::Lost,
        None if dirty => Fate::Keep { size: row.size, dirty, behind: false },
        None => Fate::Drop,
        // Programs go on writing after the daemon died: the disk knows the length, unless the file was at rest.
        Some(found) if dirty => Fate::Keep { size: if row.complete { length(seal, found) } else { row.size }, dirty, behind: false },
        Some(_) if !trusted || row.base.is_none() => Fate::Drop,
        Some(found) if row.complete && (found.size, found.mtime_ns) != (row.size, row.mtime_ns) => match seal {
            // Somebody had it open for writing.
            Some(seal) if !seal.whole => Fate::Keep { size: found.size, dirty: true, behind: true },
            // Every byte is checked when it is read.
            Some(seal) if found.size == row.size && seal.size == row.size => Fate::Keep { size: row.size, dirty, behind: false },
            _ => Fate::Damaged,
        },
        Some(_) => Fate::Keep { size: row.size, dirty, behind: false },
    }
}

fn length(seal: Option<&Seal>, found: &OnDisk) -> u64 {
    seal.filter(|seal| seal.whole).map_or(found.size, |seal| seal.size)
}

struct Kept {
    row: FileRow,
    seal: Option<Seal>,
    found: Option<OnDisk>,
    /// The journal's row says something else.
    rewrite: bool,
    /// A program was free to change it, and did.
    behind: bool,
}

/// What was found, sorted.
#[derive(Default)]
struct Found {
    kept: Vec<Kept>,
    behind: Vec<FileId>,
    /// Dirty files that no desired state wants.
    unclaimed: Vec<FileId>,
    dropped: Vec<FileId>,
    /// Of those, how many were not what they were left as.
    damaged: u64,
    /// Unsent data was here, and isn't. With the version that it was made from.
    lost: Vec<(FileId, Option<Version>)>,
    /// Dirty files that are their base, byte for byte.
    emptied: Vec<FileId>,
}

pub fn open(directory: &Path, journal: Arc<Journal>, limits: Limits, trusted: bool) -> Result<Arc<Cache>> {
    open_on(Disk::open(directory)?, directory, journal, limits, trusted)
}

pub fn open_on(disk: Disk, directory: &Path, journal: Arc<Journal>, limits: Limits, trusted: bool) -> Result<Arc<Cache>> {
    let mut on_disk: HashMap<FileId, OnDisk> = disk.scan()?.into_iter().collect();
    refuse_strange_files(directory, &journal, &on_disk)?;
    let mut desired = journal.desired()?;
    let seals: HashMap<FileId, Seal> = journal.seals()?.into_iter().collect();
    let damage = Counters::default();
    damage.kept.store(torn::kept(directory), Ordering::Relaxed);
    let rows = match trusted {
        true => journal.files()?,
        false => Crash { directory, disk: &disk, journal: &journal, seals: &seals }.survivors(&mut desired, &mut on_disk, &damage)?,
    };
    let wanted: HashSet<FileId> = desired.iter().filter_map(|(_, desired)| staged(&desired.content)).collect();
    let next = next_id(&journal, &rows, &on_disk, &wanted)?;
    let mut found = sort(rows, &seals, &mut on_disk, &wanted, trusted);
    let mut freed: HashMap<FileId, Vec<Span>> = HashMap::new();
    for (id, span) in journal.freed()? {
        freed.entry(id).or_default().push(span);
    }
    // What an upload holds of it is not the base's.
    found.emptied.retain(|id| !freed.contains_key(id));
    damage.refetched.store(found.damaged, Ordering::Relaxed);
    delete(&disk, &journal, &found.dropped, on_disk.keys())?;
    found.kept.sort_by_key(|kept| kept.row.used);
    let clock = found.kept.last().map_or(0, |kept| kept.row.used);
    let shared = Shared::new(disk, journal, Budget::new(limits), clock, next, damage);
    for kept in found.kept {
        let freed = freed.remove(&kept.row.id).unwrap_or_default();
        load(&shared, kept, &freed, trusted)?;
        shared.index.lock().rest(1);
    }
    let over = shared.budget.counts().bytes.saturating_sub(limits.size_bytes);
    shared.evict(over);
    report(&found.behind, &found.unclaimed, found.lost.len());
    // That a file vanished under a machine that went on is not for us to get over.
    let (lost, emptied) = if trusted { Default::default() } else { (found.lost, found.emptied) };
    Ok(Arc::new(Cache { shared, behind: found.behind, unclaimed: found.unclaimed, lost, emptied }))
}

fn staged(content: &Content) -> Option<FileId> {
    if let Content::Staged(id) = content { Some(*id) } else { None }
}

/// A journal that was made just now knows nothing of the files that lie here, and some may be unsent: not ours to delete.
fn refuse_strange_files(directory: &Path, journal: &Journal, on_disk: &HashMap<FileId, OnDisk>) -> Result<()> {
    if !journal.was_made() || on_disk.is_empty() {
        return Ok(());
    }
    let data = directory.join("data");
    Err(Error::Corrupt(format!(
        "{} holds {} files but the journal beside it is missing: bring journal.sqlite back, or move {} away if they are not needed",
        data.display(),
        on_disk.len(),
        data.display()
    )))
}

fn next_id(journal: &Journal, rows: &[FileRow], on_disk: &HashMap<FileId, OnDisk>, wanted: &HashSet<FileId>) -> Result<u64> {
    let reserved = journal.meta(NEXT_ID)?.and_then(|text| text.parse::<u64>().ok()).unwrap_or(1);
    let used = rows.iter().map(|row| row.id).chain(on_disk.keys().copied()).chain(wanted.iter().copied());
    Ok(used.map(|id| id.0 + 1).max().unwrap_or(1).max(reserved))
}

/// Takes the files that have a row out of `on_disk`.
fn sort(
    rows: Vec<FileRow>,
    seals: &HashMap<FileId, Seal>,
    on_disk: &mut HashMap<FileId, OnDisk>,
    wanted: &HashSet<FileId>,
    trusted: bool,
) -> Found {
    let mut sorted = Found::default();
    for mut row in rows {
        let found = on_disk.remove(&row.id);
        let is_wanted = wanted.contains(&row.id);
        let seal = seals.get(&row.id).copied();
        match fate(&row, seal.as_ref(), found.as_ref(), is_wanted, trusted) {
            Fate::Keep { size, dirty, behind } => {
                sorted.behind.extend(behind.then_some(row.id));
                sorted.unclaimed.extend((dirty && !behind && !is_wanted).then_some(row.id));
                // What was changed behind us is journalled with its desired state (`claim_with`).
                let rewrite = dirty && !behind && (!row.dirty || !trusted);
                if !trusted && !row.dirty && row.base.is_some() {
                    // Its upload was the last thing that happened: the bucket has the bytes, and the disk may not.
                    row.complete = row.size == 0;
                    row.present.clear();
                } else {
                    row.size = size;
                }
                row.dirty = dirty;
                sorted.emptied.extend(is_its_base(&row).then_some(row.id));
                sorted.kept.push(Kept { row, seal, found, rewrite, behind });
            }
            Fate::Drop => sorted.dropped.push(row.id),
            Fate::Damaged => {
                let key = row.base.map(|base| base.key);
                tracing::warn!(file = %row.id, ?key, "a cached file was changed behind our back: it is fetched again");
                sorted.damaged += 1;
                sorted.dropped.push(row.id);
            }
            Fate::Lost => {
                tracing::error!(file = %row.id, key = ?row.base.as_ref().map(|base| &base.key), "a file with unsent changes is missing");
                sorted.lost.push((row.id, row.base));
            }
        }
    }
    sorted
}

/// Nothing of it is here, and it isn't shorter either.
pub(super) fn is_its_base(row: &FileRow) -> bool {
    row.dirty && !row.complete && row.present.is_empty() && row.base.as_ref().is_some_and(|base| base.size == row.size)
}

/// Rows before files, as everywhere; and files that have no row.
fn delete<'a>(disk: &Disk, journal: &Journal, dropped: &'a [FileId], orphans: impl Iterator<Item = &'a FileId>) -> Result<()> {
    for batch in dropped.chunks(BATCH) {
        let changes: Vec<Change> = batch.iter().map(|&id| Change::RemoveFile(id)).collect();
        journal.apply(&changes)?;
    }
    for &id in dropped.iter().chain(orphans) {
        disk.remove(id)?;
    }
    Ok(())
}

fn load(shared: &Arc<Shared>, kept: Kept, freed: &[Span], trusted: bool) -> Result<()> {
    let Kept { row, seal, found, mut rewrite, behind } = kept;
    let mut state = State::empty(shared.disk.block_bytes);
    state.size = row.size;
    state.dirty = row.dirty;
    state.complete = row.complete;
    state.on_disk = found.is_some();
    state.in_journal = true;
    state.row_dirty = row.dirty && !behind;
    state.seal = seal;
    if !row.complete {
        state.parts.present = row.present.iter().cloned().collect();
        state.parts.present.cut(row.size);
    }
    // The daemon before may not have synced the name; of a clean file it never does.
    state.new_name = found.is_some();
    if row.dirty {
        // What was changed before is not known any more: whatever is here may be.
        if row.complete {
            state.changes.record(0..row.size);
        }
        state.parts.present.iter().for_each(|span| state.changes.record(span));
        state.parts.change(|sets| sets.journalled.clone_from(&sets.present));
        take_freed(&mut state, freed);
        if !trusted && !state.parts.freed.is_empty() {
            rewrite |= fill_lost(&mut state, row.base.as_ref().map_or(0, |base| base.size));
        }
    }
    state.base = row.base;
    let file = LocalFile::new(row.id, shared.clone(), state);
    let mut state = file.state.lock();
    if let Some(found) = found {
        fit(&file, &mut state, &found)?;
    }
    if behind {
        file.distrust(&mut state)?;
    }
    shared.budget.force(state.charged(), state.dirty);
    let mut index = shared.index.lock();
    index.insert(file.clone());
    if state.dirty {
        drop(index);
        if rewrite {
            file.journal_row(&mut state, &[])?;
        }
        file.make_stale(&mut state);
        shared.index.lock().hold(row.id);
    } else if let Some(base) = &state.base {
        index.name_version(base, row.id);
        index.let_go(&file);
    }
    Ok(())
}

/// What an unfinished upload holds of the file. What is here is newer.
fn take_freed(state: &mut State, freed: &[Span]) {
    for part in freed {
        if !state.complete && part.end <= state.size && state.parts.present.covered(part.clone()) == 0 {
            state.parts.freed.insert(part.start, part.end);
            state.changes.record(part.clone());
        }
    }
}

/// What a power cut took of a file that was being written, beyond its base, reads as zeros, as on a local disk. True: there
/// was some.
fn fill_lost(state: &mut State, base_bytes: u64) -> bool {
    let lost: Vec<Span> = state.missing(base_bytes..state.size);
    for span in &lost {
        state.parts.present.insert(span.clone());
        state.changes.record(span.clone());
    }
    !lost.is_empty()
}

/// What lies past the end of an incomplete file was never acknowledged, and what is absent has no business on the disk;
/// holes of a local change take no room.
fn fit(file: &LocalFile, state: &mut State, found: &OnDisk) -> Result<()> {
    let data = file.file(state)?;
    if !state.complete && found.size > state.size {
        data.set_len(state.size)?;
    }
    let present: Vec<Span> = if state.complete { vec![0..state.size] } else { state.parts.present.iter().collect() };
    present.into_iter().for_each(|span| state.blocks.occupy(span));
    if !state.complete && found.allocated > state.charged() {
        let punched = state.parts.present.missing(0..state.size).iter().try_for_each(|span| disk::punch_silently(&data, span));
        if let Err(error) = punched {
            tracing::warn!(file = %file.id(), "absent bytes take room: {error}");
        }
    }
    if found.allocated < state.charged() {
        disk::holes(&data, state.size)?.into_iter().for_each(|hole| state.blocks.free(hole));
    }
    Ok(())
}

fn report(behind: &[FileId], unclaimed: &[FileId], lost: usize) {
    if lost > 0 {
        tracing::error!("{lost} files with unsent changes are missing from the cache directory");
    }
    if !behind.is_empty() {
        tracing::warn!("{} files were written to after the last session ended", behind.len());
    }
    if !unclaimed.is_empty() {
        tracing::warn!("{} changed files are wanted under no name; they are kept", unclaimed.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ETag;

    const FOUND: OnDisk = OnDisk { size: 10, mtime_ns: 5, allocated: 4096 };

    fn row(dirty: bool, complete: bool, based: bool) -> FileRow {
        let base = based.then(|| Version { key: "a".into(), etag: ETag::new("e"), size: 10 });
        let present = if complete { vec![] } else { Vec::from_iter([0..2, 3..4]) };
        FileRow { id: FileId(1), base, size: 10, dirty, present, complete, mtime_ns: 5, used: 1 }
    }

    fn keep(size: u64, dirty: bool, behind: bool) -> Fate {
        Fate::Keep { size, dirty, behind }
    }

    #[test]
    fn every_case_of_a_start() {
        let longer = OnDisk { size: 12, ..FOUND };
        let touched = OnDisk { mtime_ns: 6, ..FOUND };
        let whole = Seal { size: 10, whole: true };
        let opened = Seal { whole: false, ..whole };
        let none = FileRow { present: vec![], ..row(true, false, true) };
        for (what, row, seal, found, expected) in [
            ("clean and open, longer", row(false, true, true), Some(opened), longer, keep(12, true, true)),
            ("clean and open, touched", row(false, true, true), Some(opened), touched, keep(10, true, true)),
            ("clean, longer", row(false, true, true), Some(whole), longer, Fate::Damaged),
            ("clean, touched", row(false, true, true), Some(whole), touched, keep(10, false, false)),
            ("clean without sums, touched", row(false, true, true), None, touched, Fate::Damaged),
            ("partly fetched, touched", row(false, false, true), None, touched, keep(10, false, false)),
            ("closed, longer", row(true, true, false), Some(whole), longer, keep(10, true, false)),
            ("added to, longer", row(true, true, false), Some(opened), longer, keep(12, true, false)),
        ] {
            assert_eq!(fate(&row, seal.as_ref(), Some(&found), row.dirty, true), expected, "{what}");
        }
        for (what, row, found, wanted, trusted, expected) in [
            ("clean", row(false, true, true), Some(FOUND), false, true, keep(10, false, false)),
            ("clean, machine crashed", row(false, true, true), Some(FOUND), false, false, Fate::Drop),
            ("clean, no version", row(false, true, false), Some(FOUND), false, true, Fate::Drop),
            ("clean, gone", row(false, true, true), None, false, true, Fate::Drop),
            ("dirty", row(true, true, false), Some(longer), true, true, keep(12, true, false)),
            ("dirty, machine crashed", row(true, true, true), Some(longer), true, false, keep(12, true, false)),
            ("dirty, wanted by nobody", row(true, true, false), Some(FOUND), false, true, keep(10, true, false)),
            ("dirty in parts", row(true, false, true), Some(longer), true, true, keep(10, true, false)),
            ("dirty, gone", row(true, true, false), None, true, true, Fate::Lost),
            ("dirty, went down with the machine", row(true, true, false), None, true, false, Fate::Lost),
            ("dirty, wanted by nobody, went down with the machine", row(true, true, false), None, false, false, Fate::Drop),
            ("dirty in parts, gone", row(true, false, true), None, true, true, Fate::Lost),
            ("dirty, nothing of it here", none, None, true, true, keep(10, true, false)),
            ("wanted, row says clean", row(false, true, true), Some(FOUND), true, true, keep(10, true, false)),
            ("empty and dirty, gone", FileRow { size: 0, ..row(true, true, false) }, None, true, true, Fate::Lost),
        ] {
            assert_eq!(fate(&row, None, found.as_ref(), wanted, trusted), expected, "{what}");
        }
    }
}
