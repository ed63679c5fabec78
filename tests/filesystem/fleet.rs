//! Fifty hosts that share a bucket of 100,000 objects: what each of them asks for, how old what they show may be, and what
//! happens when all of them start again at once. The figures are exact: simulated time, one thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use mediafs::error::Error;
use mediafs::store::fault::{Fault, Rule};
use mediafs::store::{Body, Condition, ObjectStore};
use mediafs::types::{Key, ObjectHeaders};
use tokio::time::{Instant, sleep, sleep_until};

use crate::world::{Bucket, Options, World};

const HOSTS: usize = 50;
const DIRECTORIES: usize = 100;
const IN_EACH: usize = 1000;
/// What a site's visitors look at: 200 files in 20 directories.
const POPULAR: usize = 200;
const TTL: Duration = Duration::from_secs(10);
/// From here to the bucket and back.
const ROUND_TRIP: Duration = Duration::from_millis(30);
/// What a rewrite takes until it is in the bucket: it settles, and it is sent.
const ARRIVES: Duration = Duration::from_secs(1);

fn popular(at: usize) -> String {
    format!("site/{:03}/{:03}.jpg", at % 20 * 5, at / 20 * 7)
}

/// Later numbers have fewer visitors, as pages of a site do: half of all views go to a tenth of the files.
fn chosen(host: usize, view: usize) -> usize {
    let mixed = (host as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (view as u64 + 1).wrapping_mul(0xd1b5_4a32_d192_ed03);
    let uniform = (mixed.wrapping_mul(0xff51_afd7_ed55_8ccd) >> 11) as f64 / (1u64 << 53) as f64;
    (uniform.powi(3) * POPULAR as f64) as usize
}

async fn bucket() -> Bucket {
    let bucket = Bucket::new();
    let receipts = (0..DIRECTORIES * IN_EACH).map(|at| {
        let key = Key::from(format!("site/{:03}/{:03}.jpg", at / IN_EACH, at % IN_EACH).as_str());
        let store = Arc::clone(&bucket.memory);
        async move { store.put(&key, Body::new("0"), &ObjectHeaders::default(), &Condition::Any).await.map(drop) }
    });
    for receipt in receipts {
        receipt.await.unwrap();
    }
    bucket.faults.add(Rule::any().fault(Fault::Latency(ROUND_TRIP)));
    bucket
}

fn total(host: &World, operation: &str) -> u64 {
    host.counts.snapshot().get(operation).copied().unwrap_or(0)
}

fn all(host: &World) -> u64 {
    host.counts.snapshot().values().sum()
}

/// What the TTL asks for: a HEAD for a file and a LIST for a directory that nobody confirmed for so long, and the first time a
/// HEAD for the directory, which could have been a file.
fn confirmations(views: impl Iterator<Item = (Duration, usize)>) -> u64 {
    let (mut confirmed, mut requests) = (BTreeMap::new(), 0);
    for (now, file) in views {
        let path = popular(file);
        let directory = path.rsplit_once('/').unwrap().0.to_owned();
        for (name, first, later) in [("site".to_owned(), 2, 1), (directory, 2, 1), (path, 1, 1)] {
            requests += match confirmed.get(&name) {
                Some(last) if now - *last < TTL => continue,
                Some(_) => later,
                None => first,
            };
            confirmed.insert(name, now);
        }
    }
    requests
}

/// Host 0 writes versions of one file after the other; what the others are shown must not be older than the TTL allows.
#[tokio::test(start_paused = true)]
async fn fifty_hosts_see_each_others_changes_within_the_ttl_and_ask_for_little() {
    let bucket = bucket().await;
    let hosts: Vec<World> = (0..HOSTS).map(|_| bucket.mount_with(Options { ttl: TTL, ..Options::default() })).collect();
    let began = Instant::now();
    let minutes = 2;
    let rewritten = 3;
    // Version n of each of the first three files is closed at second 5 n.
    let writer = async {
        for version in 1..minutes * 12 {
            sleep_until(began + Duration::from_secs(5 * version as u64)).await;
            for file in 0..rewritten {
                hosts[0].save(&popular(file), version.to_string().as_bytes()).await.unwrap();
            }
        }
    };
    let visited = |at: usize| {
        let host = &hosts[at];
        async move {
            let (mut oldest, mut stale) = (Duration::ZERO, 0);
            for view in 0..minutes * 60 * 5 {
                // Five views a second, the hosts out of step.
                sleep_until(began + Duration::from_millis(200 * view as u64 + 4 * at as u64)).await;
                let asked = began.elapsed();
                let file = chosen(at, view);
                let read = match host.read(&popular(file)).await {
                    // Looked up within the TTL, not cached, and replaced: its bytes are nowhere. The next try has the new ones.
                    Err(Error::Stale) => {
                        stale += 1;
                        host.read(&popular(file)).await
                    }
                    read => read,
                };
                let shown: u64 = String::from_utf8(read.unwrap()).unwrap().parse().unwrap();
                let replaced = Duration::from_secs(5 * (shown + 1));
                if file < rewritten && shown + 1 < minutes as u64 * 12 && asked > replaced {
                    oldest = oldest.max(asked - replaced);
                }
            }
            (oldest, stale)
        }
    };
    let (_, seen) = tokio::join!(writer, join_all((1..HOSTS).map(visited)));
    let oldest = seen.iter().map(|(oldest, _)| *oldest).max().unwrap();
    let stale: u64 = seen.iter().map(|(_, stale)| stale).sum();
    let asked: Vec<u64> = hosts[1..].iter().map(all).collect();
    let gets: Vec<u64> = hosts[1..].iter().map(|host| total(host, "GetObject")).collect();
    let lists = hosts[1..].iter().map(|host| total(host, "ListObjectsV2")).max().unwrap();
    println!("reads of a version that another host had just replaced: {stale} of {}", (HOSTS - 1) * minutes * 60 * 5);
    println!(
        "views a host: {}; requests: {} to {}, of them GETs {} to {}, LISTs at most {lists}; the oldest content shown was {oldest:?} behind",
        minutes * 60 * 5,
        asked.iter().min().unwrap(),
        asked.iter().max().unwrap(),
        gets.iter().min().unwrap(),
        gets.iter().max().unwrap(),
    );
    assert!(oldest > Duration::ZERO, "the writer was seen");
    assert!(oldest <= TTL + ARRIVES, "{oldest:?}");
    // Each file once, and each version of those that were rewritten.
    assert!(*gets.iter().max().unwrap() <= (POPULAR + rewritten * minutes * 12) as u64, "{gets:?}");
    for (at, asked) in (1..HOSTS).zip(&asked) {
        let views = (0..minutes * 60 * 5).map(|view| (Duration::from_millis(200 * view as u64), chosen(at, view)));
        let confirmed = confirmations(views) + gets[at - 1];
        assert!(*asked <= confirmed, "host {at}: {asked} requests, of which {confirmed} are explained");
    }
}

/// All at once, each on the cache that it left: what is cached is confirmed, file by file as visitors come, and nothing else.
#[tokio::test(start_paused = true)]
async fn a_fleet_that_starts_at_once_confirms_what_it_has_and_fetches_nothing() {
    let bucket = bucket().await;
    let watch = |host: usize, count: usize| (0..count).map(move |view| popular(chosen(host, view)));
    let first: Vec<World> = (0..HOSTS).map(|_| bucket.mount_with(Options { ttl: TTL, ..Options::default() })).collect();
    let mut folders = Vec::new();
    for (at, host) in first.into_iter().enumerate() {
        for file in watch(at, 100) {
            host.read(&file).await.unwrap();
        }
        host.cache.persist().unwrap();
        folders.push(host.crashed());
    }
    sleep(Duration::from_secs(60)).await;
    let again: Vec<World> = folders.into_iter().map(|folder| bucket.mount_in(folder, Options { ttl: TTL, ..Options::default() })).collect();
    sleep(Duration::from_secs(5)).await;
    let idle: Vec<u64> = again.iter().map(all).collect();
    assert!(idle.iter().all(|requests| *requests == 0), "a start asks for nothing: {idle:?}");
    let views = join_all(again.iter().enumerate().map(|(at, host)| async move {
        for file in watch(at, 100) {
            host.read(&file).await.unwrap();
        }
    }));
    let began = Instant::now();
    views.await;
    let took = began.elapsed();
    let most = again.iter().map(all).max().unwrap();
    let fetched: u64 = again.iter().map(|host| total(host, "GetObject")).sum();
    let distinct = (0..HOSTS).map(|at| watch(at, 100).collect::<BTreeSet<_>>().len() as u64).max().unwrap();
    let lists = again.iter().map(|host| total(host, "ListObjectsV2")).max().unwrap();
    let everyone: u64 = again.iter().map(all).sum();
    println!("after the restart: at most {most} requests a host for {distinct} files, {lists} of them LISTs, {fetched} GETs in all");
    println!("{everyone} requests of {HOSTS} hosts in {took:?}: {:.0} a second", everyone as f64 / took.as_secs_f64());
    assert_eq!(fetched, 0, "what is cached is not fetched again");
    assert!(most <= distinct + 21 * 2, "one HEAD a file, and for each directory on the way a HEAD and a LIST: {most} for {distinct}");
}
