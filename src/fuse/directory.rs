//! Fills the kernel's buffer with one batch of a directory, entry by entry until it is full.
//!
//! The kernel comes back with the last cookie that it got, so one batch an answer is enough.
//!
//! INVARIANT: each entry that a readdirplus really sends counts as one lookup, except `.` and `..`; one that no longer
//! fits does not. The kernel gives exactly those back with FORGET.

use std::time::Duration;

use fuser::{Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use futures::StreamExt;
use futures::stream;

use super::convert;
use crate::error::Result;
use crate::fs::{DirEntry, Entry, Fs, Ino, Lookup};

/// Entries without attributes that one readdirplus looks up; at the next one the answer ends, and the kernel asks on.
const LOOKUPS_AN_ANSWER: usize = 32;
/// Of these, so many at once.
const LOOKUPS_AT_ONCE: usize = 16;

pub(super) fn fill(mut reply: ReplyDirectory, batch: &[DirEntry]) {
    for entry in batch {
        if reply.add(INodeNo(entry.ino), entry.next, convert::kind(entry.kind), &entry.name) {
            break;
        }
    }
    reply.ok();
}

/// An entry with its attributes, ready to be sent.
pub(super) struct Ready {
    entry: DirEntry,
    /// None for `.` and `..`.
    found: Option<Entry>,
    /// Found by a lookup, which has counted it already.
    counted: bool,
}

/// One batch for readdirplus. What `fs` has no attributes of is looked up, as the kernel itself would do next; but not
/// for the first batch: the kernel asks so for every directory's beginning, before it knows whether anybody wants more
/// than the names.
pub(super) async fn batch_plus(fs: &Fs, directory: Ino, handle: u64, cookie: u64) -> Result<Vec<Ready>> {
    let mut batch = fs.readdir(handle, cookie, true).await?;
    if cookie == 0 {
        return Ok(batch.into_iter().filter_map(|entry| provisional(fs, entry)).collect());
    }
    if let Some((end, _)) = batch.iter().enumerate().filter(|(_, entry)| is_unknown(entry)).nth(LOOKUPS_AN_ANSWER) {
        batch.truncate(end);
    }
    let mut resolving = std::pin::pin!(stream::iter(batch).map(|entry| resolve(fs, directory, entry)).buffered(LOOKUPS_AT_ONCE));
    let mut ready = Vec::new();
    while let Some(resolved) = resolving.next().await {
        match resolved {
            Ok(Some(entry)) => ready.push(entry),
            // Gone since it was listed.
            Ok(None) => {}
            Err(error) if ready.is_empty() => return Err(error),
            // An incomplete listing must not look complete: this answer ends before the gap, the next one reports it.
            Err(_) => break,
        }
    }
    Ok(ready)
}

fn is_dot(entry: &DirEntry) -> bool {
    entry.name == "." || entry.name == ".."
}

fn is_unknown(entry: &DirEntry) -> bool {
    entry.entry.is_none() && !is_dot(entry)
}

/// With what is known so far, which the kernel is told not to believe: fuser has no way to send a name alone here.
fn provisional(fs: &Fs, entry: DirEntry) -> Option<Ready> {
    let found = if is_unknown(&entry) { Some(fs.provisional_entry(entry.ino)?) } else { entry.entry };
    Some(Ready { found, entry, counted: false })
}

async fn resolve(fs: &Fs, directory: Ino, entry: DirEntry) -> Result<Option<Ready>> {
    if !is_unknown(&entry) {
        let found = if is_dot(&entry) { None } else { entry.entry };
        return Ok(Some(Ready { entry, found, counted: false }));
    }
    match fs.lookup(directory, &entry.name).await? {
        Lookup::Found(found) => Ok(Some(Ready { entry, found: Some(found), counted: true })),
        Lookup::Missing(_) => Ok(None),
    }
}

pub(super) fn fill_plus(fs: &Fs, mut reply: ReplyDirectoryPlus, batch: Vec<Ready>) {
    let mut full = false;
    for Ready { entry, found, counted } in batch {
        full = full || add(&mut reply, &entry, found.as_ref());
        match found {
            Some(found) if full && counted => fs.forget(found.attr.ino, 1),
            // The directory is open, so that none of its names leaves memory.
            Some(found) if !full && !counted => drop(fs.remember(found.attr.ino)),
            _ => {}
        }
    }
    reply.ok();
}

/// True when it did not fit.
fn add(reply: &mut ReplyDirectoryPlus, entry: &DirEntry, found: Option<&Entry>) -> bool {
    match found {
        Some(found) => {
            let attr = convert::attr(&found.attr);
            reply.add(attr.ino, entry.next, &entry.name, &found.ttl, &attr, Generation(0))
        }
        // The kernel takes only number and type of `.` and `..`, and counts no lookup.
        None => {
            let mut attr = convert::no_attr();
            attr.ino = INodeNo(entry.ino);
            attr.kind = convert::kind(entry.kind);
            reply.add(attr.ino, entry.next, &entry.name, &Duration::ZERO, &attr, Generation(0))
        }
    }
}
