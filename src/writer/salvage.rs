//! What is left to want after a crash of the machine, in which the last seconds' bytes went down.
//!
//! A change whose bytes are nowhere is given up: on a local disk a power cut costs it too. The file goes back to the
//! version that it was made from, and to no other: under that version's key there may be another file by now. A new file
//! is gone, and what the bucket has under its key shows again. A change of which nothing is local *is* that
//! version: its upload was the last thing that happened, or its bytes are lost.
//!
//! Must not: give up anything in a session that can be trusted. There a missing file stays wanted and says so.

use std::collections::HashSet;

use crate::cache::Cache;
use crate::error::Result;
use crate::journal::{Change, Content, Desired, Journal};
use crate::types::{FileId, Key};

/// Where a staged file's bytes are.
enum Found {
    Here,
    /// In a version from which this makes the object.
    InBucket(Content),
    Nowhere,
}

/// The journal's desired states, and the journal, brought to what can still be had. In one transaction.
pub fn desired(journal: &Journal, cache: &Cache) -> Result<Vec<(Key, Desired)>> {
    let rows = journal.desired()?;
    let gone: HashSet<FileId> = cache.lost().iter().map(|(id, _)| id).chain(cache.emptied()).copied().collect();
    if gone.is_empty() {
        return Ok(rows);
    }
    let mut changes: Vec<Change> = gone.iter().map(|&id| Change::RemoveFile(id)).collect();
    let mut kept = Vec::with_capacity(rows.len());
    for (key, mut desired) in rows {
        match find(cache, &desired.content) {
            Found::Here => kept.push((key, desired)),
            Found::InBucket(content) => {
                tracing::info!(%key, ?content, "back to the version before the machine went down");
                desired.content = content;
                changes.push(Change::SetDesired(key.clone(), desired.clone()));
                kept.push((key, desired));
            }
            Found::Nowhere => {
                tracing::error!(%key, "the machine went down before its last change was on the disk: the change is lost");
                changes.push(Change::ClearDesired(key));
            }
        }
    }
    journal.apply(&changes)?;
    cache.emptied().iter().for_each(|&id| cache.discard(id));
    Ok(kept)
}

fn find(cache: &Cache, content: &Content) -> Found {
    let Content::Staged(id) = content else { return Found::Here };
    let content = match cache.lost().iter().find(|(lost, _)| lost == id) {
        Some((_, base)) => base.clone().map(Content::Restored),
        // It had no bytes of its own, so that nothing replaced that version but other writers.
        None if cache.emptied().contains(id) => cache.get(*id).and_then(|file| file.base()).map(Content::CopyOf),
        None => return Found::Here,
    };
    content.map_or(Found::Nowhere, Found::InBucket)
}
