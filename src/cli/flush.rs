//! `mediafs flush PATH`: returns when the file, or everything below the directory, is in the bucket.
//!
//! It is fsync(2) on the path and nothing else; the rest is a progress bar.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use indicatif::{ProgressBar, ProgressStyle};

use super::{Failure, attribute};
use crate::daemon::{Report, bytes_text};

/// Often enough to look alive.
const POLL: Duration = Duration::from_millis(200);

pub fn command() -> Command {
    Command::new("flush")
        .about("Wait until a file, or everything below a directory, is in the bucket")
        .arg(Arg::new("path").value_name("PATH").required(true).value_parser(clap::value_parser!(PathBuf)))
}

pub fn run(arguments: &ArgMatches) -> Result<(), Failure> {
    let Some(path) = arguments.get_one::<PathBuf>("path") else { return Ok(()) };
    let root = attribute::mount_root(path)?;
    let (_, before) = attribute::report(&root)?;
    let file = File::open(path).map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
    let (send, done) = mpsc::channel();
    thread::Builder::new().name("flush".into()).spawn(move || send.send(file.sync_all()).ok())?;
    let result = if io::stderr().is_terminal() { watch(&root, &before, &done) } else { wait(&done) };
    match result {
        Ok(()) => {
            eprintln!("{} is in the bucket", path.display());
            Ok(())
        }
        Err(error) => Err(Failure::Failed(explain(path, &root, &error))),
    }
}

fn wait(done: &mpsc::Receiver<io::Result<()>>) -> io::Result<()> {
    done.recv().unwrap_or_else(|_| Err(io::Error::other("the flush ended without a result")))
}

fn watch(root: &Path, before: &Report, done: &mpsc::Receiver<io::Result<()>>) -> io::Result<()> {
    let bar = ProgressBar::new(before.dirty_bytes);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {binary_bytes} of {binary_total_bytes} {binary_bytes_per_sec} {msg}") {
        bar.set_style(style);
    }
    let result = loop {
        match done.recv_timeout(POLL) {
            Ok(result) => break result,
            Err(RecvTimeoutError::Disconnected) => break wait(done),
            Err(RecvTimeoutError::Timeout) => {}
        }
        // A status that can't be had leaves the bar where it is.
        if let Ok((_, now)) = attribute::report(root) {
            let (left, total) = (now.dirty_bytes, bar.length().unwrap_or_default().max(now.dirty_bytes));
            bar.set_length(total);
            bar.set_position(total - left);
            bar.set_message(format!("{} files left", now.dirty_files));
        }
    };
    bar.finish_and_clear();
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
