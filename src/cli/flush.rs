//! `mediafs flush PATH`: returns when the file, or everything below the directory, is in the bucket.
//!
//! It is fsync(2) on the path and nothing else; the rest is telling how far it is.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use clap::{Arg, ArgMatches, Command, ValueHint};

use super::progress::{POLL, Progress};
use super::{Failure, attribute};
use crate::daemon::{Report, bytes_text};

pub fn command() -> Command {
    Command::new("flush").about("Wait until a file, or everything below a directory, is in the bucket").arg(
        Arg::new("path")
            .value_name("PATH")
            .required(true)
            .value_parser(clap::value_parser!(PathBuf))
            .value_hint(ValueHint::AnyPath)
            .help("A file or a directory on a mount"),
    )
}

pub fn run(arguments: &ArgMatches) -> Result<(), Failure> {
    let Some(path) = arguments.get_one::<PathBuf>("path") else { return Ok(()) };
    let root = attribute::mount_root(path)?;
    let (_, before) = attribute::report(&root)?;
    let file = File::open(path).map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
    let (send, done) = mpsc::channel();
    thread::Builder::new().name("flush".into()).spawn(move || send.send(file.sync_all()).ok())?;
    match watch(&root, &before, &done) {
        Ok(()) => {
            eprintln!("{} is in the bucket", path.display());
            Ok(())
        }
        Err(error) => Err(Failure::Failed(explain(path, &root, &error))),
    }
}

/// What is shown is the whole mount's: what else waits takes part in it.
fn watch(root: &Path, before: &Report, done: &mpsc::Receiver<io::Result<()>>) -> io::Result<()> {
    let mut progress = Progress::new(before.dirty_bytes);
    let mut total = before.dirty_bytes;
    let result = loop {
        match done.recv_timeout(POLL) {
            Ok(result) => break result,
            Err(RecvTimeoutError::Disconnected) => break Err(io::Error::other("the flush ended without a result")),
            Err(RecvTimeoutError::Timeout) => {}
        }
        // A status that can't be had leaves what is shown as it is.
        if let Ok((_, now)) = attribute::report(root) {
            total = total.max(now.dirty_bytes);
            progress.update(total - now.dirty_bytes, total, &format!("{} files left", now.dirty_files));
        }
    };
    progress.finish();
    result
}

/// fsync says only that it failed; the mount knows why.
fn explain(path: &Path, root: &Path, error: &io::Error) -> String {
    let path = path.display();
    let Ok((_, report)) = attribute::report(root) else { return format!("{path}: {error}") };
    let why = match (report.failed.first(), &report.degraded) {
        (Some(failed), _) => format!("{} of {} failed, {}: {}", report.failed.len(), report.dirty_files, failed.path, failed.error),
        (None, Some(degraded)) => format!("the bucket doesn't answer since {}: {}", degraded.since, degraded.error),
        (None, None) => format!("{error}; {} files ({}) still wait", report.dirty_files, bytes_text(report.dirty_bytes)),
    };
    format!("{path} is not in the bucket: {why}")
}
