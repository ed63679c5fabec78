//! `recover … export`: what became of each file, in lines or as JSON.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use serde::Serialize;

use super::{Failure, configure, failed, list, safe};
use crate::cli::logging;
use crate::daemon::{self, answering_bucket, bytes_text};
use crate::recover::{ExportOptions, Exported, Inventory, Lacks, Outcome, export, ranges};
use crate::types::Span;

pub fn run(directory: &Path, inventory: &Inventory, arguments: &ArgMatches) -> Result<(), Failure> {
    let Some(target) = arguments.get_one::<PathBuf>("target") else { return Ok(()) };
    if std::path::absolute(target)?.starts_with(directory) {
        return Err(Failure::Usage(format!("{} lies in the cache directory: choose another place", target.display())));
    }
    let mut options = ExportOptions { force: arguments.get_flag("force"), store: None };
    let runtime = daemon::runtime()?;
    list::warn(inventory);
    let mut told = Told { target: target.display().to_string(), ..Told::default() };
    runtime.block_on(async {
        if arguments.get_flag("fetch") {
            let config = configure(directory, inventory, arguments)?;
            logging::start(&config.log)?;
            options.store = Some(answering_bucket(&config.settings).await?.steady);
        }
        export(directory, inventory, target, &options, |exported| told.note(&exported)).await.map_err(failed)
    })?;
    if arguments.get_flag("json") {
        let text = serde_json::to_string_pretty(&told).map_err(|error| Failure::Failed(error.to_string()))?;
        io::stdout().write_all(format!("{text}\n").as_bytes())?;
    } else {
        told.print();
    }
    match told.left {
        0 => Ok(()),
        left => Err(Failure::Failed(format!("{left} of {} could not be saved whole, see above", told.written + left))),
    }
}

#[derive(Default, Serialize)]
struct Told {
    target: String,
    /// Files and directories.
    written: u64,
    bytes: u64,
    without_bytes: u64,
    /// Left of files that crashes of the machine have torn.
    torn: u64,
    /// Not saved whole.
    left: u64,
    files: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    path: String,
    outcome: &'static str,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damaged: Vec<Span>,
    /// Only in the bucket.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_upload: Option<list::Held>,
}

impl Told {
    fn note(&mut self, exported: &Exported) {
        let Exported { path, bytes, outcome } = exported;
        let name = match outcome {
            Outcome::Written => "written",
            Outcome::Partial(_) => "partial",
            Outcome::Damaged(_) => "damaged",
            Outcome::Torn => "torn",
            Outcome::Nothing => "nothing",
            Outcome::Failed(_) => "failed",
        };
        let mut row = Row {
            path: path.clone(),
            outcome: name,
            bytes: *bytes,
            reason: None,
            damaged: Vec::new(),
            missing: Vec::new(),
            in_upload: None,
        };
        match outcome {
            Outcome::Written => {
                self.written += 1;
                self.bytes += bytes;
            }
            Outcome::Nothing => self.without_bytes += 1,
            Outcome::Torn => self.torn += 1,
            Outcome::Partial(lacks) | Outcome::Damaged(lacks) => {
                self.left += 1;
                eprintln!("{name:<8} {}: {}", safe(path), told(lacks));
                row.reason = Some(lacks.why.clone());
                (row.damaged, row.missing) = (lacks.damaged.clone(), lacks.missing.clone());
                row.in_upload = lacks.in_upload.as_ref().map(list::held);
            }
            Outcome::Failed(error) => {
                self.left += 1;
                eprintln!("failed   {}: {}", safe(path), safe(&error.to_string()));
                row.reason = Some(error.to_string());
            }
        }
        self.files.push(row);
    }

    fn print(&self) {
        println!("{} files and directories ({}) are in {}", self.written, bytes_text(self.bytes), self.target);
        if self.torn > 0 {
            println!("{} files that a crash of the machine has torn are in {}/.damaged", self.torn, self.target);
        }
        if self.without_bytes > 0 {
            println!("{} changes have no bytes of their own here (deletions, copies, attributes): see `list`", self.without_bytes);
        }
    }
}

fn told(lacks: &Lacks) -> String {
    let mut text = safe(&lacks.why);
    let held: &[Span] = lacks.in_upload.as_ref().map_or(&[], |held| &held.parts);
    for (spans, what) in [(&*lacks.damaged, "damaged"), (&*lacks.missing, "missing"), (held, "in the upload")] {
        if !spans.is_empty() {
            text = format!("{text}; bytes {} are {what}", ranges(spans));
        }
    }
    text
}
