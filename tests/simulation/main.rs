//! Deterministic simulation: one seed is one world, with its clock, its disk, its bucket, its faults and its crashes.
//!
//! `MEDIAFS_SIM_SEEDS` says how many worlds `worlds` plays, `MEDIAFS_SIM_FROM` the first; a failure prints the line that
//! plays it again. `MEDIAFS_SIM_TRACE` shows all that happened in it, `MEDIAFS_SIM_STATE` also what each life found, and
//! `MEDIAFS_SIM_LOG` the mount's own log.

mod driver;
mod history;
mod machine;
mod model;
mod mount;
mod past;
mod platters;
mod shared;
mod sight;
mod steps;
mod trace;
mod watched;
mod weather;
#[path = "../filesystem/world.rs"]
#[allow(dead_code, reason = "the other suite uses the rest of it")]
mod world;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use history::{Failure, Script, play};

/// Few enough for every run of the tests.
const SEEDS: u64 = 250;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Fewer steps may show the same: the shortest lives in which it still fails.
fn shrink(seed: u64, failure: Failure) -> (Script, Failure) {
    for steps in [1, 2, 3, 5, 8, 12, 18, 25, 35, 45] {
        let script = Script { seed, steps: Some(steps) };
        if let Err(failure) = play(script) {
            return (script, failure);
        }
    }
    (Script { seed, steps: None }, failure)
}

fn report(script: Script, failure: &Failure) -> String {
    let steps = script.steps.map_or(String::new(), |steps| format!("MEDIAFS_SIM_STEPS={steps} "));
    if std::env::var_os("MEDIAFS_SIM_TRACE").is_some() {
        failure.trace.iter().for_each(|line| println!("{line}"));
    }
    let again = "MEDIAFS_SIM_TRACE=1 cargo test --test simulation one_seed -- --nocapture";
    format!("{}\nMEDIAFS_SIM_SEED={} {steps}{again}", failure.message, script.seed)
}

/// The seeds from `first` on, one after the other, until one fails or `goes_on` says that it is enough.
fn play_on(next: &AtomicU64, goes_on: &(dyn Fn(u64) -> bool + Sync)) -> Option<(u64, Failure)> {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if !goes_on(seed) {
            return None;
        }
        if let Err(failure) = play(Script { seed, steps: None }) {
            return Some((seed, failure));
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "how long it took in the real world")]
fn real_time() -> Instant {
    Instant::now()
}

/// So many worlds, or with `MEDIAFS_SIM_SECONDS` as many as there is time for.
#[test]
fn worlds() {
    let (from, count) = (number("MEDIAFS_SIM_FROM").unwrap_or(0), number("MEDIAFS_SIM_SEEDS").unwrap_or(SEEDS));
    let (begun, seconds) = (real_time(), number("MEDIAFS_SIM_SECONDS"));
    let (next, failed) = (AtomicU64::new(from), AtomicBool::new(false));
    let goes_on = |seed: u64| {
        let more = match seconds {
            Some(seconds) => begun.elapsed().as_secs() < seconds,
            None => seed < from + count,
        };
        more && !failed.load(Ordering::Relaxed)
    };
    let work = || play_on(&next, &goes_on).inspect(|_| failed.store(true, Ordering::Relaxed));
    let failures: Vec<_> = std::thread::scope(|scope| {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().filter_map(|worker| worker.join().unwrap()).collect()
    });
    let (played, took) = (next.into_inner() - from, begun.elapsed().as_secs_f64());
    println!("{played} worlds from seed {from} in {took:.0} s: {:.1} a second", played as f64 / took);
    if let Some((seed, failure)) = failures.into_iter().next() {
        let (script, failure) = shrink(seed, failure);
        panic!("{}", report(script, &failure));
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in 0..6 {
        let script = Script { seed, steps: None };
        let digests = [play(script), play(script)].map(|played| played.map_err(|failure| failure.message));
        assert_eq!(digests[0], digests[1], "seed {seed}");
    }
}

/// Plays `MEDIAFS_SIM_SEED` alone.
#[test]
fn one_seed() {
    let Some(seed) = number("MEDIAFS_SIM_SEED") else { return };
    if std::env::var_os("MEDIAFS_SIM_LOG").is_some() {
        tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr).init();
    }
    let script = Script { seed, steps: number("MEDIAFS_SIM_STEPS").map(|steps| steps as usize) };
    if let Err(failure) = play(script) {
        panic!("{}", report(script, &failure));
    }
}
