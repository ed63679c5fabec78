//! Which bytes of a file that waits are here, which only an unfinished upload holds, and what the journal has to prove
//! those that are here. Pure.

use std::collections::{HashMap, HashSet};

use crate::cache::{Evidence, SpanSet};
use crate::journal::{FileRow, Salvage};
use crate::store::UploadId;
use crate::types::{FileId, Key, Span};

/// Parts of a file that gave up their room: an upload holds them, and nothing else does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InUpload {
    pub upload: UploadId,
    /// In order.
    pub parts: Vec<Span>,
}

impl InUpload {
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.end - part.start).sum()
    }
}

/// What is here of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    pub present: Vec<Span>,
    pub evidence: Evidence,
}

/// The uploads that hold parts of files.
pub struct Uploads {
    freed: HashMap<FileId, Vec<(UploadId, Span)>>,
    /// Those that can be gone on with.
    known: HashSet<(Key, UploadId)>,
}

impl Uploads {
    pub fn new(salvage: &Salvage) -> Uploads {
        let mut freed: HashMap<FileId, Vec<(UploadId, Span)>> = HashMap::new();
        for (file, upload, part) in &salvage.freed {
            freed.entry(*file).or_default().push((upload.clone(), part.span.clone()));
        }
        freed.values_mut().for_each(|parts| parts.sort_by_key(|(_, part)| part.start));
        let kept: HashSet<&UploadId> = salvage.kept_uploads.iter().map(|(upload, _)| upload).collect();
        let known = salvage.uploads.iter().filter(|(_, upload)| kept.contains(upload)).cloned().collect();
        Uploads { freed, known }
    }

    /// What an upload holds of the file. What is here is newer, as the next mount sees it.
    pub fn of(&self, row: &FileRow) -> Option<InUpload> {
        let freed = self.freed.get(&row.id).filter(|_| !row.complete)?;
        let present: SpanSet = row.present.iter().cloned().collect();
        let holds = |part: &Span| part.end <= row.size && present.covered(part.clone()) == 0;
        let mut held = freed.iter().filter(|(_, part)| holds(part));
        let (upload, first) = held.next()?;
        // A file has one upload at a time.
        let rest = held.filter(|(other, _)| other == upload).map(|(_, part)| part.clone());
        Some(InUpload { upload: upload.clone(), parts: std::iter::once(first.clone()).chain(rest).collect() })
    }

    /// The next mount finds it, and finds it to be this key's.
    pub fn can_go_on(&self, key: &Key, held: &InUpload) -> bool {
        self.known.contains(&(key.clone(), held.upload.clone()))
    }
}

/// `files` that wait, each with its size.
pub fn local<'a>(salvage: &Salvage, files: impl Iterator<Item = (&'a FileRow, u64)>) -> HashMap<FileId, Local> {
    let mut local: HashMap<FileId, Local> =
        files.map(|(row, size)| (row.id, Local { present: present(row, size), ..Local::default() })).collect();
    for (id, region, sums) in &salvage.sums {
        if let Some(local) = local.get_mut(id) {
            local.evidence.sums.push((*region, sums.clone()));
        }
    }
    for (id, seal) in &salvage.seals {
        if let Some(local) = local.get_mut(id) {
            local.evidence.seal = Some(*seal);
        }
    }
    local
}

fn present(row: &FileRow, size: u64) -> Vec<Span> {
    let mut present: SpanSet = if row.complete { std::iter::once(0..size).collect() } else { row.present.iter().cloned().collect() };
    present.cut(size);
    present.iter().collect()
}
