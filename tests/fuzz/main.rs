//! Whatever bytes come from outside: no panic, and what is made of them keeps its promises.
//!
//! Each target is a function of bytes. It is given the corpus in tests/fuzz/corpus, and mutations of that for
//! `MEDIAFS_FUZZ_SECONDS` (one by default; `scripts/soak --fuzz N` for long), from a seed that is printed. On a finding the input is written
//! to target/fuzz: copied into the corpus, it is tried first from then on. The operations of the file system have such a
//! test over their reference model, in tests/filesystem/model.rs, and the whole program tests/simulation.

mod mutate;
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::Instant;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = root().join("tests/fuzz/corpus").join(name);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

fn attempt(name: &str, target: fn(&[u8]), input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        let folder = root().join("target/fuzz");
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{name}-{:08x}", crc32fast::hash(input)));
        fs::write(&path, input).unwrap();
        panic!("{name}: found by {:?}\nkept in {}", String::from_utf8_lossy(input), path.display());
    }
}

fn fuzz(name: &str, target: fn(&[u8])) {
    let corpus = corpus(name);
    assert!(!corpus.is_empty());
    for input in &corpus {
        attempt(name, target, input);
    }
    let seed = variable("MEDIAFS_FUZZ_SEED").unwrap_or_else(rand::random);
    let end = Instant::now() + Duration::from_secs(variable("MEDIAFS_FUZZ_SECONDS").unwrap_or(1));
    let mut random = StdRng::seed_from_u64(seed);
    let mut count = 0u64;
    while Instant::now() < end {
        attempt(name, target, &mutate::mutated(&corpus, &mut random));
        count += 1;
    }
    println!("{name}: {count} inputs from MEDIAFS_FUZZ_SEED={seed}");
}

#[test]
fn keys() {
    fuzz("keys", targets::keys);
}

#[test]
fn listing() {
    fuzz("listing", targets::listing);
}

#[test]
fn metadata() {
    fuzz("metadata", targets::metadata);
}

#[test]
fn config() {
    fuzz("config", targets::config);
}

#[test]
fn ranges() {
    fuzz("ranges", targets::ranges);
}

#[test]
fn journal() {
    fuzz("journal", targets::journal);
}

#[test]
fn rows() {
    fuzz("rows", targets::rows);
}

#[test]
fn gzip() {
    fuzz("gzip", targets::gzip);
}
