//! What waits, as a table or as JSON.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;

use super::{Failure, safe};
use crate::daemon::bytes_text;
use crate::journal::Salvage;
use crate::recover::{Action, Counts, Inventory, State, Unnamed, Waiting};
use crate::types::Span;

#[derive(Serialize)]
struct Listing<'a> {
    directory: String,
    bucket: Option<&'a str>,
    damage: &'a [String],
    /// Something may wait that isn't listed.
    incomplete: bool,
    /// The machine did not go down since the last change, as far as can be told from here.
    trusted: bool,
    counts: Counts,
    waiting: Vec<Row<'a>>,
    unnamed: Vec<UnnamedRow>,
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
    reason: Option<&'a str>,
    /// Of a copy or a rename.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    /// Byte ranges that are only in the bucket.
    #[serde(skip_serializing_if = "<[Span]>::is_empty")]
    missing: &'a [Span],
}

#[derive(Serialize)]
struct UnnamedRow {
    id: String,
    bytes: u64,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    was: Option<String>,
}

pub fn run(directory: &Path, inventory: &Inventory, salvage: &Salvage, json: bool) -> Result<(), Failure> {
    let trusted = salvage.is_trusted();
    let text = if json {
        let listing = listing(directory, inventory, trusted);
        let text = serde_json::to_string_pretty(&listing).map_err(|error| Failure::Failed(error.to_string()))?;
        format!("{text}\n")
    } else {
        table(directory, inventory, trusted)
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

fn listing<'a>(directory: &Path, inventory: &'a Inventory, trusted: bool) -> Listing<'a> {
    Listing {
        directory: directory.display().to_string(),
        bucket: inventory.bucket.as_deref(),
        damage: &inventory.damage,
        incomplete: inventory.is_incomplete,
        trusted,
        counts: inventory.counts(),
        waiting: inventory.waiting.iter().map(row).collect(),
        unnamed: inventory.unnamed.iter().map(unnamed).collect(),
    }
}

fn row(waiting: &Waiting) -> Row<'_> {
    Row {
        path: waiting.key.as_str(),
        action: waiting.action.name(),
        state: waiting.state.name(),
        bytes: waiting.bytes,
        since: waiting.since.map(time),
        reason: waiting.state.reason(),
        from: if let Action::Copy(version) = &waiting.action { Some(version.key.as_str()) } else { None },
        missing: if let State::NeedsBase { missing, .. } = &waiting.state { missing } else { &[] },
    }
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

fn table(directory: &Path, inventory: &Inventory, trusted: bool) -> String {
    let mut text = String::new();
    let bucket = inventory.bucket.as_deref().map_or("a bucket that it doesn't name any more".to_owned(), safe);
    // Writing to a String can't fail.
    let _ = writeln!(text, "{} belongs to {bucket}", directory.display());
    for damage in &inventory.damage {
        let _ = writeln!(text, "DAMAGED: {damage}");
    }
    if inventory.is_incomplete {
        let _ = writeln!(text, "Something may wait that is not listed here.");
    }
    if !trusted {
        let _ = writeln!(text, "The machine went down, or this is a copy: what was written in the last seconds may be missing.");
    }
    if !inventory.waiting.is_empty() {
        let _ = writeln!(text, "{:<10} {:<8} {:>10}  {:<20}  PATH", "ACTION", "STATE", "SIZE", "SINCE");
    }
    for waiting in &inventory.waiting {
        let since = waiting.since.map_or_else(|| "after the end".to_owned(), time);
        let (action, state) = (waiting.action.name(), waiting.state.name());
        let _ =
            writeln!(text, "{action:<10} {state:<8} {:>10}  {since:<20}  {}{}", bytes_text(waiting.bytes), waiting.key, remark(waiting));
    }
    for file in &inventory.unnamed {
        let was = file.was.as_ref().map(|key| format!(" (opened as {key})")).unwrap_or_default();
        let _ = writeln!(text, "{:<10} {:<8} {:>10}  {:<20}  {}{was}", "unnamed", "?", bytes_text(file.bytes), "", file.path.display());
    }
    text.push_str(&sum(&inventory.counts()));
    text
}

fn remark(waiting: &Waiting) -> String {
    match (&waiting.action, &waiting.state) {
        (_, State::Damaged(why) | State::Lost(why)) => format!(" ({})", safe(why)),
        (Action::Copy(version), _) => format!(" (from {})", version.key),
        (_, State::NeedsBase { missing, .. }) => {
            let bytes = missing.iter().map(|span| span.end - span.start).sum();
            format!(" ({} of it unchanged in the bucket)", bytes_text(bytes))
        }
        _ => String::new(),
    }
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
    for (count, what) in [(counts.damaged, "damaged"), (counts.lost, "lost"), (counts.unnamed, "without a name")] {
        if count > 0 {
            let _ = write!(text, "; {count} {what}");
        }
    }
    text.push('\n');
    text
}
