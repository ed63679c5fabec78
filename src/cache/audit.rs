//! Which bytes of a data file are not those that were written: for whoever looks at a cache directory that nobody has open.
//!
//! The same judgement as a read's (see `verify`), over all that is present at once. Nothing is learned and nothing changed.

use std::fs::File;

use crate::journal::Seal;
use crate::types::Span;

use super::disk;
use super::spans::SpanSet;
use super::sums::{Sums, blocks};
use super::verify::read_full;

/// What the journal has about the bytes of one data file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Checksums by region, as they were put.
    pub sums: Vec<(u64, Vec<u8>)>,
    pub seal: Option<Seal>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// In order: not what was written, not readable, or past the end of the file.
    pub damaged: Vec<Span>,
    /// Bytes that nothing can prove: no checksum reached the journal.
    pub unchecked: u64,
}

/// Reads everything that is called present, holes aside.
pub fn audit(file: &File, present: &[Span], evidence: &Evidence) -> Audit {
    let whole: SpanSet = present.iter().cloned().collect();
    let Some(mut sums) = Sums::from_journal(evidence.sums.clone()) else {
        return Audit { damaged: whole.iter().collect(), unchecked: 0 };
    };
    let mut zeros_below = evidence.seal.map_or(0, |seal| seal.size);
    for piece in sums.touching(&(0..u64::MAX)) {
        if !whole.contains(&piece.span) {
            // Fetched bytes may be absent again that share a sum with others.
            zeros_below = if whole.covered(piece.span.clone()) > 0 { 0 } else { zeros_below };
            sums.forget(&piece.span);
        }
    }
    let size = whole.iter().last().map_or(0, |last| last.end);
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let holes: SpanSet = disk::holes(file, size.min(length)).unwrap_or_default().into_iter().collect();
    let (mut damaged, mut unchecked) = (SpanSet::default(), 0);
    for span in whole.iter() {
        let wrong = sums.touching(&span).into_iter().filter(|piece| !read(file, &piece.span).is_some_and(|bytes| piece.is_right(&bytes)));
        wrong.for_each(|piece| damaged.insert(piece.span));
        for block in sums.gaps(&span).into_iter().flat_map(|gap| holes.missing(gap)).flat_map(blocks) {
            match read(file, &block) {
                Some(bytes) if bytes.iter().all(|byte| *byte == 0) => {}
                Some(_) if block.end > zeros_below => unchecked += block.end - block.start,
                _ => damaged.insert(block),
            }
        }
    }
    Audit { damaged: damaged.iter().collect(), unchecked }
}

/// None: it can't be read, or the file ends before.
fn read(file: &File, span: &Span) -> Option<Vec<u8>> {
    let mut bytes = vec![0; (span.end - span.start) as usize];
    read_full(file, span.start, &mut bytes).is_ok_and(|read| read == bytes.len()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::cache::sums::BLOCK_BYTES as BLOCK;

    #[test]
    fn every_damage_is_found_and_nothing_else() {
        let file = tempfile::tempfile().unwrap();
        let data: Vec<u8> = (0..3 * BLOCK).map(|at| (at % 251) as u8 + 1).collect();
        let (size, hole) = (5 * BLOCK, 3 * BLOCK..5 * BLOCK);
        let mut sums = Sums::default();
        sums.add(0, &data);
        let evidence = Evidence { sums: sums.behind(), seal: Some(Seal { size, whole: true }) };
        let unsealed = Evidence { seal: None, ..evidence.clone() };
        let mend = || {
            file.set_len(0).unwrap();
            file.set_len(size).unwrap();
            file.write_all_at(&data, 0).unwrap();
        };
        let all = [0..size];
        let found = |present: &[Span], evidence: &Evidence| {
            let audit = audit(&file, present, evidence);
            (audit.damaged, audit.unchecked)
        };
        mend();
        assert_eq!(found(&all, &evidence), (vec![], 0));
        assert_eq!(found(&all, &Evidence::default()), (vec![], 3 * BLOCK), "nothing is known of it");
        file.write_all_at(&[0], BLOCK + 5).unwrap();
        assert_eq!(found(&all, &evidence), (vec![BLOCK..2 * BLOCK], 0));
        assert_eq!(found(&[0..BLOCK, 2 * BLOCK..size], &evidence), (vec![], 0), "what is absent is not asked for");
        mend();
        file.write_all_at(&[7], hole.start + 9).unwrap();
        // How much of a hole is one no more is for the file system to say.
        let filled = found(&all, &evidence);
        assert!(matches!(&filled.0[..], [span] if span.contains(&(hole.start + 9)) && span.end <= hole.start + BLOCK), "{filled:?}");
        let later = found(&all, &unsealed);
        assert!(later.0.is_empty() && later.1 > 0 && later.1 <= BLOCK, "it may have been written later: {later:?}");
        mend();
        file.set_len(2 * BLOCK + 1).unwrap();
        assert_eq!(found(&all, &evidence).0, [2 * BLOCK..size], "cut short");
        let senseless = Evidence { sums: vec![(0, vec![1; 7])], seal: None };
        assert_eq!(found(&all, &senseless).0, all);
    }
}
