//! What of a cache directory is certain to be on the disk, and what a crash leaves of it.
//!
//! A killed process leaves everything as it is: the page cache survives. A power cut leaves what was fsynced, and of
//! the rest whatever chance wants: each data file's later bytes whole, not at all, or in part; names of files only where
//! their directory was synced; of the journal's log a prefix of the frames since, the last one torn.
//!
//! The database file itself is taken as it lies: only a checkpoint writes to it, which fsyncs it, and no crash happens
//! in the middle of SQLite's code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

const JOURNAL: &str = "journal.sqlite";
/// How far the journal reaches.
const TAIL: &str = "journal.tail";
const LEARNED: &str = "attributes.sqlite";
/// Disks write whole blocks.
const BLOCK: usize = 4096;
const SECTOR: usize = 512;
const LOG_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// What is certain. Data files go by their name, which is never used twice.
#[derive(Clone, Default)]
pub struct Platters {
    contents: BTreeMap<String, Vec<u8>>,
    names: BTreeSet<String>,
    log: Vec<u8>,
    tail: Vec<u8>,
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// The data files of a cache directory, in order.
pub fn data_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for shard in fs::read_dir(folder.join("data")).into_iter().flatten() {
        found.extend(fs::read_dir(shard.unwrap().path()).unwrap().map(|file| file.unwrap().path()));
    }
    found.sort();
    found
}

fn shard(name: &str) -> PathBuf {
    Path::new("data").join(&name[name.len() - 2..])
}

impl Platters {
    /// After an orderly end, or when the machine starts: all that is there.
    pub fn of(folder: &Path) -> Self {
        let mut this = Self::default();
        for path in data_files(folder) {
            this.names.insert(name_of(&path));
            this.file_synced(&path);
        }
        this.journal_synced(folder);
        this.tail_synced(folder);
        this
    }

    pub fn file_synced(&mut self, path: &Path) {
        if let Ok(bytes) = fs::read(path) {
            self.contents.insert(name_of(path), bytes);
        }
    }

    pub fn names_synced(&mut self, directory: &Path) {
        let end = name_of(directory);
        self.names.retain(|name| !name.ends_with(&end));
        self.names.extend(fs::read_dir(directory).unwrap().map(|file| name_of(&file.unwrap().path())));
    }

    pub fn journal_synced(&mut self, folder: &Path) {
        self.log = fs::read(log_of(folder, JOURNAL)).unwrap_or_default();
    }

    pub fn tail_synced(&mut self, folder: &Path) {
        self.tail = fs::read(folder.join(TAIL)).unwrap_or_default();
    }

    /// Copies `folder` as a killed process leaves it.
    pub fn kill(&self, folder: &Path, to: &Path) {
        copy(&folder.join(TAIL), &to.join(TAIL));
        for name in [JOURNAL, LEARNED] {
            copy(&folder.join(name), &to.join(name));
            copy(&log_of(folder, name), &log_of(to, name));
        }
        for path in data_files(folder) {
            place(to, &name_of(&path), |target| copy(&path, target));
        }
    }

    /// Copies `folder` as a machine without power leaves it.
    pub fn cut(&self, folder: &Path, to: &Path, random: &mut StdRng) {
        copy(&folder.join(JOURNAL), &to.join(JOURNAL));
        let log = fs::read(log_of(folder, JOURNAL)).unwrap_or_default();
        fs::write(log_of(to, JOURNAL), torn_log(&self.log, &log, random)).unwrap();
        // One sector: the last one written, or an older one.
        match random.random() {
            true => copy(&folder.join(TAIL), &to.join(TAIL)),
            false if self.tail.is_empty() => {}
            false => fs::write(to.join(TAIL), &self.tail).unwrap(),
        }
        // What was learned may be lost: it is written without a promise.
        if random.random() {
            copy(&folder.join(LEARNED), &to.join(LEARNED));
        }
        let present: BTreeMap<String, PathBuf> = data_files(folder).into_iter().map(|path| (name_of(&path), path)).collect();
        let all: BTreeSet<&String> = present.keys().chain(&self.names).collect();
        for name in all {
            let is_certain = self.names.contains(name) == present.contains_key(name);
            let stays = if is_certain { self.names.contains(name) } else { random.random() };
            if stays {
                let now = present.get(name).map(|path| fs::read(path).unwrap());
                let bytes = torn_bytes(self.contents.get(name), now, random);
                place(to, name, |target| fs::write(target, &bytes).unwrap());
            }
        }
    }
}

fn log_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}-wal"))
}

/// With its time of change, which the cache compares.
fn copy(from: &Path, to: &Path) {
    if from.exists() {
        fs::copy(from, to).unwrap();
        let modified = fs::metadata(from).unwrap().modified().unwrap();
        File::options().write(true).open(to).unwrap().set_modified(modified).unwrap();
    }
}

fn place(to: &Path, name: &str, make: impl FnOnce(&Path)) {
    let directory = to.join(shard(name));
    fs::create_dir_all(&directory).unwrap();
    make(&directory.join(name));
}

/// `now` None: the file was removed since.
fn torn_bytes(certain: Option<&Vec<u8>>, now: Option<Vec<u8>>, random: &mut StdRng) -> Vec<u8> {
    let Some(now) = now else { return certain.cloned().unwrap_or_default() };
    let old = certain.cloned().unwrap_or_default();
    match random.random_range(0..3) {
        0 => now,
        1 => old,
        _ => {
            let length = if random.random() { now.len() } else { old.len() };
            let mut bytes = vec![0; length];
            for at in (0..length).step_by(BLOCK) {
                let from = if random.random() { &now } else { &old };
                let end = (at + BLOCK).min(length).min(from.len());
                if at < end {
                    bytes[at..end].copy_from_slice(&from[at..end]);
                }
            }
            bytes
        }
    }
}

/// `certain`, and a prefix of the frames that `now` has in its place; the last of them may be torn.
fn torn_log(certain: &[u8], now: &[u8], random: &mut StdRng) -> Vec<u8> {
    if now.len() < LOG_HEADER {
        return now.to_vec();
    }
    let page = u32::from_be_bytes(now[8..12].try_into().unwrap()) as usize;
    let frame = FRAME_HEADER + page;
    let span = |index: usize| LOG_HEADER + index * frame..(LOG_HEADER + (index + 1) * frame).min(now.len());
    let count = (now.len() - LOG_HEADER) / frame;
    let new: Vec<usize> = (0..count).filter(|&index| certain.get(span(index)) != now.get(span(index))).collect();
    let mut log = certain.to_vec();
    let mut put = |range: std::ops::Range<usize>| {
        if log.len() < range.end {
            log.resize(range.end, 0);
        }
        log[range.clone()].copy_from_slice(&now[range]);
    };
    put(0..LOG_HEADER);
    let kept = random.random_range(0..=new.len());
    new[..kept].iter().for_each(|&index| put(span(index)));
    if let Some(&index) = new.get(kept).filter(|_| random.random()) {
        let torn = span(index);
        let sectors = random.next_u32() as usize % (frame / SECTOR + 1);
        put(torn.start..(torn.start + sectors * SECTOR).min(torn.end));
    }
    log
}
