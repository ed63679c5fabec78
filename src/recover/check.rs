//! Are the bytes that wait those that were written? Asked of the checksums in the journal.

use std::fs::File;
use std::path::Path;

use super::inventory::{Action, Inventory, State};
use super::parts::Local;
use crate::cache::{Audit, SpanSet, audit, data_path};
use crate::types::Span;

/// Reads every file that waits, and notes what is damaged.
pub fn check(directory: &Path, inventory: &mut Inventory) {
    for waiting in &mut inventory.waiting {
        let (Action::Upload(id), State::Waiting | State::NeedsBase { .. }) = (&waiting.action, &waiting.state) else { continue };
        let Some(local) = inventory.local.get(id).filter(|local| !local.present.is_empty()) else { continue };
        let found = match File::open(data_path(directory, *id)) {
            Ok(file) => examine(&file, local, &[]),
            Err(_) => Audit { damaged: local.present.clone(), unchecked: 0 },
        };
        (waiting.damaged, waiting.unchecked) = (found.damaged, found.unchecked);
    }
}

/// `file` has what is present of what waits, but for what is known to be `wrong`.
pub fn examine(file: &File, local: &Local, wrong: &[Span]) -> Audit {
    let found = audit(file, &local.present, &local.evidence);
    let damaged: SpanSet = found.damaged.into_iter().chain(wrong.iter().cloned()).collect();
    Audit { damaged: damaged.iter().collect(), ..found }
}

/// For people: `0-99, 200-299`.
pub fn ranges(spans: &[Span]) -> String {
    let ranges: Vec<String> = spans.iter().map(|span| format!("{}-{}", span.start, span.end.saturating_sub(1))).collect();
    ranges.join(", ")
}
