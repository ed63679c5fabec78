//! A cache directory without its daemon: what waits in it, saved to another place or sent to the bucket.
//!
//! - `inventory`: what the journal and the data files say. Pure, but for `look`. `parts`: where the bytes of a file are.
//! - `check`: are the bytes that are here those that were written?
//! - `folder`, `export`: what waits as ordinary files. `fetch`: bytes that only the bucket has.
//! - `repair`: a new journal in the place of a damaged one. `upload`: what the next mount would send, now.
//!
//! Invariants:
//! - Looking and exporting change nothing in the cache directory.
//! - No byte is exported under its name that doesn't agree with the journal's checksums, as far as there is one.
//! - Nothing is deleted from it: a damaged journal and data files that nobody names are put aside.
//! - Keys are strangers' words: no file is written outside the folder that was asked for.
//!
//! Must not: run beside a daemon; the caller holds the directory's lock.

mod check;
mod export;
mod fetch;
mod folder;
mod inventory;
mod parts;
mod repair;
#[cfg(test)]
mod tests;
mod upload;

pub use check::{check, ranges};
pub use export::{ExportOptions, Exported, Lacks, Outcome, export};
pub use inventory::{Action, Counts, Inventory, State, Unnamed, Waiting, look};
pub use parts::InUpload;
pub use repair::repair;
pub use upload::Uploading;

/// In the cache directory: data files that were put aside because no row names them any more.
const UNNAMED: &str = "unnamed";
