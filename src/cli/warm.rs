//! `mediafs warm PATH…`: brings files into the cache before somebody waits for them, by reading them.
//!
//! Exit codes: 0 all of them were read, 1 some were not (each is named, the others are warm), 2 the command line is wrong.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::progress::{POLL, Progress};
use super::{Failure, attribute};
use crate::daemon::bytes_text;

/// As many as keep a line with 100 ms of latency busy with small files; a large one is fetched in parts side by side anyway.
const READERS: &str = "16";
const MOST_READERS: u64 = 256;
/// The largest request that the kernel makes of a mount.
const READ_BYTES: usize = 1 << 20;
/// Failures that are named one by one.
const FAILURES_NAMED: usize = 20;

pub fn command() -> Command {
    Command::new("warm")
        .about("Read files, or everything below directories, into the cache")
        .after_help("Ends with 0 if all could be read, with 1 if some could not: each of them is named, all others are read.")
        .arg(
            Arg::new("path")
                .value_name("PATH")
                .required(true)
                .action(ArgAction::Append)
                .num_args(1..)
                .value_parser(clap::value_parser!(PathBuf))
                .value_hint(ValueHint::AnyPath)
                .help("Files and directories on a mount; symlinks in them are not followed"),
        )
        .arg(
            Arg::new("jobs")
                .long("jobs")
                .short('j')
                .value_name("NUMBER")
                .default_value(READERS)
                .value_parser(clap::value_parser!(u64).range(1..=MOST_READERS))
                .help("Files that are read at once"),
        )
}

pub fn run(arguments: &ArgMatches) -> Result<(), Failure> {
    let paths: Vec<&PathBuf> = arguments.get_many::<PathBuf>("path").into_iter().flatten().collect();
    let jobs = arguments.get_one::<u64>("jobs").copied().unwrap_or(1) as usize;
    let mut found = Found::default();
    for path in &paths {
        let root = attribute::mount_root(path)?;
        let before = found.bytes;
        found.add(path);
        *found.by_mount.entry(root).or_default() += found.bytes - before;
    }
    for (root, bytes) in &found.by_mount {
        let (_, report) = attribute::report(root)?;
        if *bytes > report.cache_limit_bytes {
            let (bytes, limit) = (bytes_text(*bytes), bytes_text(report.cache_limit_bytes));
            eprintln!("mediafs: these are {bytes}, and the cache holds {limit} (--cache-size): what is read first will have to go again");
        }
    }
    let (files, begun) = (found.files.len(), Instant::now());
    let done = read_all(found, jobs);
    let seconds = begun.elapsed().as_secs_f64().max(0.001);
    let text =
        format!("{} of {files} files, {} at {}/s", done.files, bytes_text(done.bytes), bytes_text((done.bytes as f64 / seconds) as u64));
    match done.failed {
        0 => {
            eprintln!("{text}: in the cache");
            Ok(())
        }
        failed => Err(Failure::Failed(format!("{failed} could not be read; {text}, are in the cache"))),
    }
}

/// What there is to read.
#[derive(Default)]
struct Found {
    files: VecDeque<PathBuf>,
    bytes: u64,
    by_mount: BTreeMap<PathBuf, u64>,
    /// What could not be looked at.
    failures: Vec<(PathBuf, io::Error)>,
}

impl Found {
    /// Deep trees are walked without a stack of calls. A symlink that was named is followed.
    fn add(&mut self, path: &Path) {
        match fs::metadata(path) {
            Ok(facts) if facts.is_file() => self.take(path.to_owned(), facts.len()),
            Ok(_) => self.walk(path),
            Err(error) => self.failures.push((path.to_owned(), error)),
        }
    }

    fn walk(&mut self, top: &Path) {
        let mut directories = vec![top.to_owned()];
        while let Some(directory) = directories.pop() {
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) => {
                    self.failures.push((directory, error));
                    continue;
                }
            };
            for entry in entries {
                match entry.and_then(|entry| Ok((entry.path(), entry.metadata()?))) {
                    Ok((path, facts)) if facts.is_dir() => directories.push(path),
                    Ok((path, facts)) if facts.is_file() => self.take(path, facts.len()),
                    Ok(_) => {}
                    // Removed since it was listed.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => self.failures.push((directory.clone(), error)),
                }
            }
        }
    }

    fn take(&mut self, path: PathBuf, bytes: u64) {
        self.files.push_back(path);
        self.bytes += bytes;
    }
}

struct Done {
    files: usize,
    failed: usize,
    bytes: u64,
}

fn read_all(found: Found, jobs: usize) -> Done {
    let (total, files) = (found.bytes, found.files.len());
    let mut progress = Progress::new(total);
    let mut done = Done { files: 0, failed: 0, bytes: 0 };
    for (path, error) in found.failures {
        fail(&mut done, &progress, &path, &error);
    }
    let (queue, read) = (Arc::new(Mutex::new(found.files)), Arc::new(AtomicU64::new(0)));
    let (send, results) = mpsc::channel();
    for _ in 0..jobs.min(files) {
        let (queue, read, send) = (Arc::clone(&queue), Arc::clone(&read), send.clone());
        let reader = move || {
            let mut buffer = vec![0; READ_BYTES];
            loop {
                let Some(path) = queue.lock().pop_front() else { return };
                let result = read_whole(&path, &mut buffer, &read);
                if send.send((path, result)).is_err() {
                    return;
                }
            }
        };
        // The system has no thread left: the others do it.
        if thread::Builder::new().name("warm".into()).spawn(reader).is_err() {
            break;
        }
    }
    drop(send);
    loop {
        match results.recv_timeout(POLL) {
            Ok((_, Ok(()))) => done.files += 1,
            // Removed since it was listed.
            Ok((_, Err(error))) if error.kind() == io::ErrorKind::NotFound => {}
            Ok((path, Err(error))) => fail(&mut done, &progress, &path, &error),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        done.bytes = read.load(Ordering::Relaxed);
        progress.update(done.bytes, total.max(done.bytes), &format!("{} of {files} files", done.files));
    }
    let left = queue.lock().len();
    done.failed += left;
    progress.finish();
    done
}

fn fail(done: &mut Done, progress: &Progress, path: &Path, error: &io::Error) {
    done.failed += 1;
    match done.failed {
        ..=FAILURES_NAMED => progress.say(&format!("mediafs: {}: {error}", shown(path))),
        failed if failed == FAILURES_NAMED + 1 => progress.say("mediafs: … further failures are only counted"),
        _ => {}
    }
}

/// Names come from other programs: nothing in them may steer the terminal.
fn shown(path: &Path) -> String {
    path.display().to_string().escape_debug().collect()
}

fn read_whole(path: &Path, buffer: &mut [u8], read: &AtomicU64) -> io::Result<()> {
    let mut file = File::open(path)?;
    loop {
        match file.read(buffer)? {
            0 => return Ok(()),
            bytes => read.fetch_add(bytes as u64, Ordering::Relaxed),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn found(path: &Path) -> Found {
        let mut found = Found::default();
        found.add(path);
        found
    }

    #[test]
    fn everything_below_is_found_once_and_links_are_left_alone() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path();
        fs::create_dir_all(path.join("a/b/c")).expect("directories");
        fs::write(path.join("a/one"), "1").expect("file");
        fs::write(path.join("a/b/c/two"), "22").expect("file");
        symlink(path, path.join("a/b/loop")).expect("link");
        let all = found(path);
        assert_eq!((all.files.len(), all.bytes, all.failures.len()), (2, 3, 0));
        assert_eq!(found(&path.join("a/one")).bytes, 1);
        assert_eq!(found(&path.join("missing")).failures.len(), 1);
    }

    #[test]
    fn all_that_can_be_read_is_read() {
        let directory = tempfile::tempdir().expect("directory");
        for number in 0..50 {
            fs::write(directory.path().join(number.to_string()), [0; 100]).expect("file");
        }
        let mut all = found(directory.path());
        all.failures.push((PathBuf::from("a\u{1b}[31m"), io::Error::other("no")));
        // A directory can be opened and not read.
        all.files.push_front(directory.path().to_owned());
        let done = read_all(all, 4);
        assert_eq!((done.files, done.failed, done.bytes), (50, 2, 5_000));
        assert_eq!(shown(Path::new("a\u{1b}b")), "a\\u{1b}b");
    }
}
