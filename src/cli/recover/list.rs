//! What waits, as a table or as JSON.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;

use super::{Failure, safe};
use crate::cache::Torn;
use crate::daemon::bytes_text;
use crate::recover::{Action, Counts, InUpload, Inventory, State, Unnamed, Waiting, ranges};
use crate::types::Span;

/// What is shown.
pub struct Found<'a> {
    pub directory: &'a Path,
    pub inventory: &'a Inventory,
    /// The machine did not go down since the last change, as far as can be told from here.
    pub trusted: bool,
    /// The data was read and compared with its checksums.
    pub checked: bool,
}

#[derive(Serialize)]
struct Listing<'a> {
    directory: String,
    bucket: Option<&'a str>,
    damage: &'a [String],
    /// Something may wait that isn't listed.
    incomplete: bool,
    /// The machine did not go down since the last change, as far as can be told from here.
    trusted: bool,
    /// The data was read and compared with its checksums.
    checked: bool,
    counts: Counts,
    waiting: Vec<Row<'a>>,
    unnamed: Vec<UnnamedRow>,
    /// Left of files that crashes of the machine have torn; their changes were given up.
    torn: Vec<TornRow<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    path: &'a str,
    action: &'static str,
    state: &'static str,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Of a copy or a rename.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    /// Byte ranges that are only in the bucket.
    #[serde(skip_serializing_if = "<[Span]>::is_empty")]
    missing: &'a [Span],
    /// Byte ranges that are only in an unfinished upload.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_upload: Option<Held>,
    /// Byte ranges that are not what was written.
    #[serde(skip_serializing_if = "<[Span]>::is_empty")]
    damaged: &'a [Span],
    /// Bytes without a checksum.
    #[serde(skip_serializing_if = "is_none")]
    unchecked: u64,
}

/// What only an unfinished upload has.
#[derive(Serialize)]
pub struct Held {
    upload: String,
    bytes: u64,
    ranges: Vec<Span>,
}

#[derive(Serialize)]
struct TornRow<'a> {
    was: &'a str,
    bytes: u64,
    path: String,
}

#[derive(Serialize)]
struct UnnamedRow {
    id: String,
    bytes: u64,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    was: Option<String>,
}

pub fn run(found: &Found<'_>, json: bool) -> Result<(), Failure> {
    let text = if json {
        let text = serde_json::to_string_pretty(&listing(found)).map_err(|error| Failure::Failed(error.to_string()))?;
        format!("{text}\n")
    } else {
        table(found)
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// What is wrong with the journal, on standard error.
pub fn warn(inventory: &Inventory) {
    for damage in &inventory.damage {
        eprintln!("the journal is damaged: {damage}");
    }
    if inventory.is_incomplete {
        eprintln!("something may be missing from what follows");
    }
}

fn listing<'a>(found: &Found<'a>) -> Listing<'a> {
    let Found { directory, inventory, trusted, checked } = *found;
    Listing {
        directory: directory.display().to_string(),
        bucket: inventory.bucket.as_deref(),
        damage: &inventory.damage,
        incomplete: inventory.is_incomplete,
        trusted,
        checked,
        counts: inventory.counts(),
        waiting: inventory.waiting.iter().map(row).collect(),
        unnamed: inventory.unnamed.iter().map(unnamed).collect(),
        torn: inventory.torn.iter().map(torn).collect(),
    }
}

fn row(waiting: &Waiting) -> Row<'_> {
    Row {
        path: waiting.key.as_str(),
        action: waiting.action.name(),
        state: waiting.state_name(),
        bytes: waiting.bytes,
        since: waiting.since.map(time),
        reason: reason(waiting),
        from: if let Action::Copy(version) = &waiting.action { Some(version.key.as_str()) } else { None },
        missing: if let State::NeedsBase { missing, .. } = &waiting.state { missing } else { &[] },
        in_upload: waiting.in_upload.as_ref().map(held),
        damaged: &waiting.damaged,
        unchecked: waiting.unchecked,
    }
}

/// What keeps it from being sent as it is.
fn reason(waiting: &Waiting) -> Option<String> {
    match waiting.state.reason() {
        None if waiting.damaged.is_empty() => None,
        None => Some(format!("bytes {} are not what was written", ranges(&waiting.damaged))),
        Some(why) => Some(why.to_owned()),
    }
}

pub fn held(held: &InUpload) -> Held {
    Held { upload: held.upload.0.clone(), bytes: held.bytes(), ranges: held.parts.clone() }
}

fn torn(torn: &Torn) -> TornRow<'_> {
    TornRow { was: torn.key.as_str(), bytes: torn.bytes, path: torn.path.display().to_string() }
}

/// For serde, which asks by reference.
fn is_none(count: &u64) -> bool {
    *count == 0
}

fn unnamed(unnamed: &Unnamed) -> UnnamedRow {
    UnnamedRow {
        id: unnamed.id.to_string(),
        bytes: unnamed.bytes,
        path: unnamed.path.display().to_string(),
        was: unnamed.was.as_ref().map(|key| key.as_str().to_owned()),
    }
}

fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

fn table(found: &Found<'_>) -> String {
    let Found { inventory, .. } = found;
    let mut text = head(found);
    // Writing to a String can't fail.
    if !inventory.waiting.is_empty() {
        let _ = writeln!(text, "{:<10} {:<8} {:>10}  {:<20}  PATH", "ACTION", "STATE", "SIZE", "SINCE");
    }
    for waiting in &inventory.waiting {
        let since = waiting.since.map_or_else(|| "after the end".to_owned(), time);
        let (action, state) = (waiting.action.name(), waiting.state_name());
        let _ =
            writeln!(text, "{action:<10} {state:<8} {:>10}  {since:<20}  {}{}", bytes_text(waiting.bytes), waiting.key, remark(waiting));
    }
    let mut other = |what: &str, state: &str, bytes: u64, path: &Path, was: String| {
        let _ = writeln!(text, "{what:<10} {state:<8} {:>10}  {:<20}  {}{was}", bytes_text(bytes), "", path.display());
    };
    for file in &inventory.unnamed {
        let was = file.was.as_ref().map(|key| format!(" (opened as {key})")).unwrap_or_default();
        other("unnamed", "?", file.bytes, &file.path, was);
    }
    for file in &inventory.torn {
        other("none", "torn", file.bytes, &file.path, format!(" (was {})", file.key));
    }
    text.push_str(&sum(&inventory.counts()));
    text
}

fn head(found: &Found<'_>) -> String {
    let Found { directory, inventory, .. } = found;
    let bucket = inventory.bucket.as_deref().map_or("a bucket that it doesn't name any more".to_owned(), safe);
    let mut lines = vec![format!("{} belongs to {bucket}", directory.display())];
    lines.extend(inventory.damage.iter().map(|damage| format!("DAMAGED: {damage}")));
    if inventory.is_incomplete {
        lines.push("Something may wait that is not listed here.".to_owned());
    }
    if !found.trusted {
        lines.push("The machine went down, or this is a copy: what was written in the last seconds may be missing.".to_owned());
    }
    if !found.checked {
        lines.push("The data was not read: whether it is damaged is not known.".to_owned());
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

fn remark(waiting: &Waiting) -> String {
    let mut remarks: Vec<String> = reason(waiting).iter().map(|why| safe(why)).collect();
    if let Action::Copy(version) = &waiting.action {
        remarks.push(format!("from {}", version.key));
    }
    if let State::NeedsBase { missing, .. } = &waiting.state {
        let bytes = missing.iter().map(|span| span.end - span.start).sum();
        remarks.push(format!("{} of it unchanged in the bucket", bytes_text(bytes)));
    }
    if let Some(held) = &waiting.in_upload {
        remarks.push(format!("{} of it are in an unfinished upload", bytes_text(held.bytes())));
    }
    if waiting.unchecked > 0 {
        remarks.push(format!("{} of it have no checksum", bytes_text(waiting.unchecked)));
    }
    if remarks.is_empty() { String::new() } else { format!(" ({})", remarks.join("; ")) }
}

fn sum(counts: &Counts) -> String {
    let parts = [
        (counts.files, "files"),
        (counts.directories, "directories"),
        (counts.copies, "copies"),
        (counts.attributes, "changes of attributes"),
        (counts.deletions, "deletions"),
    ];
    let said: Vec<String> = parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    let mut text = match said.is_empty() {
        true => "Nothing waits: all is in the bucket".to_owned(),
        false => format!("{} wait ({})", said.join(", "), bytes_text(counts.bytes)),
    };
    for (count, what) in [
        (counts.damaged, "damaged"),
        (counts.lost, "lost"),
        (counts.unnamed, "without a name"),
        (counts.torn, "torn by a crash of the machine"),
    ] {
        if count > 0 {
            let _ = write!(text, "; {count} {what}");
        }
    }
    text.push('\n');
    text
}
