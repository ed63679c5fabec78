//! A new journal of what is left, in the place of a damaged one. The damaged one is put aside, and so is every data file
//! that it might have named: the next mount would take files that no row names for left-overs.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::UNNAMED;
use super::inventory::{Action, Inventory, State};
use crate::cache::data_path;
use crate::clock;
use crate::error::Result;
use crate::journal::{Salvage, replace};
use crate::types::FileId;

/// Where the damaged journal is now, and how many data files were put aside. `bucket` is entered where the journal lost it.
pub fn repair(directory: &Path, inventory: &Inventory, mut salvage: Salvage, bucket: &str) -> Result<(PathBuf, usize)> {
    let mut aside: Vec<FileId> = inventory.unnamed.iter().map(|unnamed| unnamed.id).collect();
    aside.extend(inventory.waiting.iter().filter_map(|waiting| match (&waiting.action, &waiting.state) {
        (Action::Upload(id), State::Damaged(_)) => Some(*id),
        _ => None,
    }));
    // Files before rows: dying in between, the damaged journal is still in its place, and the files are found here.
    let moved = put_aside(directory, &aside)?;
    let aside: HashSet<FileId> = aside.into_iter().collect();
    salvage.files.retain(|row| !aside.contains(&row.id));
    salvage.meta.entry("bucket".to_owned()).or_insert_with(|| bucket.to_owned());
    let seconds = clock::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let damaged = replace(directory, &salvage, &format!("journal.sqlite.damaged-{seconds}"))?;
    Ok((damaged, moved))
}

fn put_aside(directory: &Path, ids: &[FileId]) -> Result<usize> {
    let folder = directory.join(UNNAMED);
    let mut moved = 0;
    for id in ids {
        let from = data_path(directory, *id);
        if from.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            fs::rename(&from, folder.join(id.to_string()))?;
            moved += 1;
        }
    }
    if moved > 0 {
        File::open(&folder)?.sync_all()?;
    }
    Ok(moved)
}
