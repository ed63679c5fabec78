//! The bucket is away: what is known goes on at once, and the end of it is noticed without anybody asking.

use std::time::Duration;

use futures::FutureExt;
use mediafs::error::Error;
use mediafs::store::fault::{Fault, Rule, When};
use mediafs::store::{Body, Condition, ErrorKind, ObjectStore, Operation};
use mediafs::types::{Key, ObjectHeaders};
use tokio::time::{Instant, sleep};

use crate::world::{Bucket, Options, World, requests};

/// A name that is known, a TTL that is over, and a bucket that does this to every request.
async fn known_then(fault: Fault) -> (Bucket, World) {
    let bucket = Bucket::new();
    for number in 0..3 {
        bucket.put(&format!("d/f{number}"), b"known").await;
    }
    let mount = bucket.mount();
    for number in 0..3 {
        assert_eq!(mount.read(&format!("d/f{number}")).await.unwrap(), b"known");
    }
    assert_eq!(mount.names("d").await.unwrap().len(), 3);
    sleep(Duration::from_secs(11)).await;
    bucket.faults.add(Rule::any().fault(fault));
    (bucket, mount)
}

#[tokio::test(start_paused = true)]
async fn what_is_known_costs_one_wait_and_then_none() {
    let (bucket, mount) = known_then(Fault::Hang).await;
    let begun = Instant::now();
    assert!(mount.exists("d/f0").await);
    assert!(begun.elapsed() <= Duration::from_secs(11), "{:?} for the path's two names", begun.elapsed());
    let (why, begun) = (mount.fs.degraded(), Instant::now());
    assert!(why.is_some());
    for number in 0..3 {
        assert_eq!(mount.read(&format!("d/f{number}")).await.unwrap(), b"known");
        assert_eq!(mount.names("d").await.unwrap().len(), 3);
    }
    // More new names than a directory is asked for one by one.
    for number in 0..20 {
        mount.save(&format!("d/new{number}"), b"new").await.unwrap();
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(mount.fs.degraded(), why, "since when and why stay");
    bucket.faults.clear();
    sleep(Duration::from_secs(8)).await;
    assert_eq!(mount.fs.degraded(), None, "nobody asked for anything");
    mount.settle().await;
    assert_eq!(bucket.keys().len(), 23);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_cannot_be_moved_now_says_so_within_one_deadline() {
    let (bucket, mount) = known_then(Fault::Hang).await;
    let begun = Instant::now();
    let error = mount.rename("d", "e").await.unwrap_err();
    assert!(matches!(error, Error::Timeout | Error::Store(_)), "{error}");
    assert!(begun.elapsed() <= Duration::from_secs(21), "{:?}: the look-ups, and the listing of what is in it", begun.elapsed());
    assert!(mount.fs.degraded().is_some());
    let begun = Instant::now();
    mount.rename("d", "e").await.unwrap_err();
    assert!(begun.elapsed() <= Duration::from_secs(6), "{:?}", begun.elapsed());
    assert!(mount.exists("d/f0").await && mount.read("d/f1").await.unwrap() == b"known");
    bucket.faults.clear();
    sleep(Duration::from_secs(8)).await;
    mount.rename("d", "e").await.unwrap();
    mount.settle().await;
    assert_eq!(bucket.keys(), ["e/f0", "e/f1", "e/f2"]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_an_answer() {
    let (bucket, mount) = known_then(Fault::Error(ErrorKind::Unreachable)).await;
    assert!(mount.exists("d/f0").await);
    assert!(mount.fs.degraded().is_some());
    bucket.faults.clear();
    bucket.faults.add(Rule::any().fault(Fault::Error(ErrorKind::Denied)));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(mount.fs.degraded(), None);
}

#[tokio::test(start_paused = true)]
async fn with_a_short_timeout_known_names_are_answered_before_it() {
    let bucket = Bucket::new();
    bucket.put("f", b"known").await;
    let mount = bucket.mount_with(Options { timeout: Duration::from_secs(2), ..Options::default() });
    assert_eq!(mount.read("f").await.unwrap(), b"known");
    assert_eq!(mount.names("").await.unwrap(), ["f"]);
    sleep(Duration::from_secs(11)).await;
    bucket.faults.add(Rule::any().fault(Fault::Hang));
    let begun = Instant::now();
    assert!(mount.exists("f").await);
    assert_eq!(mount.names("").await.unwrap(), ["f"]);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_was_renamed_unsent_is_there_after_a_restart_without_the_bucket() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    mount.save("f", b"cached").await.unwrap();
    mount.settle().await;
    assert_eq!(mount.read("f").await.unwrap(), b"cached");
    assert!(!mount.exists("renamed").await);
    bucket.faults.add(Rule::any().fault(Fault::Error(ErrorKind::Unreachable)));
    mount.rename("f", "renamed").await.unwrap();
    mount.writer.stop();
    let folder = mount.folder.clone();
    drop(mount);
    let next = bucket.mount_in(folder, Options::default());
    next.fs.assume_outage(std::time::SystemTime::UNIX_EPOCH, "refused".into());
    assert_eq!(next.read("renamed").await.unwrap(), b"cached");
    assert!(matches!(next.stat("never seen").await, Err(Error::Store(_))));
    bucket.faults.clear();
    next.settle().await;
    assert_eq!(bucket.keys(), ["renamed"]);
}

#[tokio::test(start_paused = true)]
async fn free_space_costs_no_request() {
    let (_bucket, mount) = known_then(Fault::Hang).await;
    let before = requests(&mount);
    let begun = Instant::now();
    assert!(mount.fs.statfs().blocks_free > 0);
    assert_eq!((requests(&mount), begun.elapsed()), (before, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn who_goes_on_with_a_file_that_could_not_be_sent_hears_of_it_once() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    bucket.faults.add(Rule::any().key("f").fault(Fault::Error(ErrorKind::TooLarge)));
    let append = libc::O_WRONLY | libc::O_APPEND;
    bucket.faults.clear();
    assert!(!mount.exists("f").await);
    mount.save("f", b"1").await.unwrap();
    bucket.faults.add(Rule::any().key("f").fault(Fault::Error(ErrorKind::TooLarge)));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(mount.writer.state(&Key::from("f")), "failed");
    assert!(matches!(mount.save_with("f", b"2", append).await, Err(Error::Store(_))), "after a change, too");
    // The change was tried anew, and nobody was told of that failure yet.
    sleep(Duration::from_secs(2)).await;
    bucket.faults.clear();
    mount.settle().await;
    mount.save_with("f", b"3", append).await.unwrap();
    mount.settle().await;
    assert_eq!(bucket.get("f").unwrap().len(), 1);
}

/// The kernel asks up to four times for one read(2) that fails.
#[tokio::test(start_paused = true)]
async fn reads_wait_for_a_short_outage_and_not_again_and_again_for_a_long_one() {
    let (bucket, mount) = known_then(Fault::Hang).await;
    bucket.faults.clear();
    bucket.put("d/cold", b"cold").await;
    let handle = mount.open("d/cold", libc::O_RDONLY).await.unwrap();
    let hang = || bucket.faults.add(Rule::any().fault(Fault::Hang));
    hang();
    let begun = Instant::now();
    let times_out = async || assert!(matches!(mount.read_handle(handle, 0, 4).await, Err(Error::Timeout)));
    mount.fs.assume_outage(mediafs::clock::now(), "nothing was answered".into());
    times_out().await;
    assert_eq!(begun.elapsed(), Duration::from_secs(60), "it might have come back");
    for _ in 0..3 {
        times_out().await;
    }
    assert!(begun.elapsed() <= Duration::from_secs(76), "{:?}", begun.elapsed());
    bucket.faults.clear();
    while mount.fs.degraded().is_some() {
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(mount.read_handle(handle, 0, 4).await.unwrap(), b"cold");
}

#[tokio::test(start_paused = true)]
async fn what_was_removed_in_an_outage_does_not_come_back_from_the_cache() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    mount.mkdir("d").await.unwrap();
    for path in ["d/removed", "d/stays", "other"] {
        mount.save(path, b"bytes").await.unwrap();
    }
    mount.settle().await;
    // Removals and listings get through, and nothing else.
    bucket.faults.add(Rule::on(Operation::HeadObject).fault(Fault::Error(ErrorKind::Unreachable)));
    assert_eq!((mount.names("").await.unwrap().len(), mount.names("d").await.unwrap().len()), (2, 2));
    mount.fs.assume_outage(mediafs::clock::now(), "nothing was answered".into());
    assert_eq!(mount.names("").await.unwrap(), ["d", "other"]);
    mount.unlink("d/removed").await.unwrap();
    sleep(Duration::from_secs(20)).await;
    assert_eq!(bucket.keys(), ["d/", "d/stays", "other"]);
    assert!(matches!(mount.rmdir("d").await, Err(Error::NotEmpty)), "it lists the directory");
    assert!(mount.fs.degraded().is_some());
    assert_eq!(mount.names("d").await.unwrap(), ["stays"]);
}

/// A copy of what went up in parts has an ETag that can't be foretold.
#[tokio::test(start_paused = true)]
async fn a_chmod_whose_answer_was_lost_is_not_taken_for_another_hosts_change() {
    let bucket = Bucket::new();
    let key = Key::from("f");
    let upload = bucket.memory.create_upload(&key, &ObjectHeaders::default()).await.unwrap();
    let part = bucket.memory.upload_part(&key, &upload, 1, Body::new("in parts")).await.unwrap();
    let _receipt = bucket.memory.complete_upload(&key, &upload, &[part], &Condition::Any).await.unwrap();
    let mount = bucket.mount();
    let handle = mount.open("f", libc::O_RDWR).await.unwrap();
    assert_eq!(mount.read("f").await.unwrap(), b"in parts");
    bucket.faults.add(Rule::on(Operation::CopyObject).when(When::First(1)).fault(Fault::ReplyLost));
    mount.chmod("f", 0o600).await.unwrap();
    mount.settle().await;
    // The bucket is asked what it has by now.
    sleep(Duration::from_secs(11)).await;
    assert_eq!(mount.stat("f").await.unwrap().mode, 0o600);
    mount.write(handle, 0, b"IN").await.unwrap();
    mount.fs.fsync(handle).await.unwrap();
    assert_eq!(bucket.get("f").unwrap(), b"IN parts");
    mount.close(handle).await.unwrap();
    assert_eq!(mount.read("f").await.unwrap(), b"IN parts");
    assert_eq!((bucket.keys(), mount.counts.snapshot()["GetObject"]), (vec!["f".to_owned()], 1), "what was cached stays so");
}

#[tokio::test(start_paused = true)]
async fn what_a_listing_lacked_is_not_shown_from_the_cache_in_an_outage() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    for directory in ["d", "unlisted", "gone"] {
        mount.mkdir(directory).await.unwrap();
    }
    for path in ["kept", "removed", "d/removed", "d/kept", "unlisted/kept", "gone/removed"] {
        mount.save(path, b"bytes").await.unwrap();
    }
    mount.settle().await;
    mount.writer.stop();
    let folder = mount.folder.clone();
    drop(mount);
    for path in ["removed", "d/removed", "gone/removed", "gone/"] {
        bucket.memory.delete(&path.into()).await.unwrap();
    }
    let next = bucket.mount_in(folder, Options::default());
    for _ in 0..2 {
        assert_eq!(next.names("").await.unwrap(), ["d", "kept", "unlisted"]);
        assert_eq!(next.names("d").await.unwrap(), ["kept"]);
        for removed in ["removed", "gone", "d/removed"] {
            assert!(!next.exists(removed).await, "{removed}");
        }
        bucket.faults.add(Rule::any().fault(Fault::Error(ErrorKind::Unreachable)));
        sleep(Duration::from_secs(11)).await;
        next.fs.assume_outage(mediafs::clock::now(), "nothing was answered".into());
    }
    assert_eq!(next.names("unlisted").await.unwrap(), ["kept"], "nobody has listed that");
}

#[tokio::test(start_paused = true)]
async fn what_was_removed_unsent_stays_so_after_a_restart_without_the_bucket() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    mount.mkdir("d").await.unwrap();
    for path in ["f", "d/f", "kept"] {
        mount.save(path, b"bytes").await.unwrap();
    }
    mount.settle().await;
    bucket.faults.add(Rule::on(Operation::DeleteObject).fault(Fault::Error(ErrorKind::Unreachable)));
    bucket.faults.add(Rule::on(Operation::DeleteObjects).fault(Fault::Error(ErrorKind::Unreachable)));
    mount.unlink("f").await.unwrap();
    mount.unlink("d/f").await.unwrap();
    mount.rmdir("d").await.unwrap();
    let folder = mount.folder.clone();
    mount.writer.stop();
    drop(mount);
    bucket.faults.add(Rule::any().fault(Fault::Error(ErrorKind::Unreachable)));
    let next = bucket.mount_in(folder, Options::default());
    next.fs.assume_outage(mediafs::clock::now(), "refused".into());
    assert!(!next.exists("f").await && !next.exists("d").await);
    assert_eq!(next.names("").await.unwrap(), ["kept"]);
}

fn mode_of(bucket: &Bucket, key: &str) -> Option<String> {
    let info = bucket.memory.head(&Key::from(key)).now_or_never().expect("it is in memory").unwrap();
    info.headers.metadata.get("mode").cloned()
}

#[tokio::test(start_paused = true)]
async fn the_mode_of_what_was_renamed_survives_its_leaving_memory_and_an_outage() {
    let bucket = Bucket::new();
    bucket.put_with("a", b"known", &[("mode", "0100600")]).await;
    let mount = bucket.mount();
    assert_eq!(mount.read("a").await.unwrap(), b"known");
    mount.rename("a", "b").await.unwrap();
    mount.settle().await;
    mount.fs.thin_out(0).await;
    assert!(mount.fs.names_in_memory() <= 1, "it stayed in memory");
    bucket.faults.add(Rule::any().fault(Fault::Error(ErrorKind::Unreachable)));
    mount.fs.assume_outage(std::time::UNIX_EPOCH, "a test".into());
    assert_eq!(mount.stat("b").await.unwrap().mode, 0o600);
    let handle = mount.open("b", libc::O_WRONLY | libc::O_TRUNC).await.unwrap();
    mount.write(handle, 0, b"new").await.unwrap();
    mount.close(handle).await.unwrap();
    bucket.faults.clear();
    sleep(Duration::from_secs(8)).await;
    mount.settle().await;
    assert_eq!((bucket.get("b").unwrap(), mode_of(&bucket, "b")), (b"new".to_vec(), Some("0100600".into())));
}

#[tokio::test(start_paused = true)]
async fn what_only_the_cache_knows_is_read_and_written_in_an_outage_and_keeps_its_headers() {
    let ways = [None, Some(0), Some(libc::O_TRUNC)].map(|written| [(false, written), (true, written)]).concat();
    for ((listed, written), killed) in ways.iter().flat_map(|way| [(*way, false), (*way, true)]) {
        let bucket = Bucket::new();
        bucket.put_with("a", b"known", &[("mode", "0100600")]).await;
        let mount = bucket.mount();
        assert_eq!(mount.read("a").await.unwrap(), b"known");
        mount.cache.persist().unwrap();
        let folder = mount.crashed();
        for file in ["attributes.sqlite", "attributes.sqlite-wal"] {
            let _ = std::fs::remove_file(folder.path().join(file));
        }
        let next = bucket.mount_in(folder, Options::default());
        if listed {
            assert_eq!(next.names("").await.unwrap(), ["a"]);
        }
        bucket.faults.add(Rule::any().fault(Fault::Error(ErrorKind::Unreachable)));
        next.fs.assume_outage(std::time::UNIX_EPOCH, "a test".into());
        assert_eq!(next.read("a").await.unwrap(), b"known");
        // What else would have to be replaced with it is not known.
        assert!(matches!(next.chmod("a", 0o640).await, Err(Error::Timeout)));
        if let Some(flags) = written {
            let handle = next.open("a", libc::O_WRONLY | flags).await.unwrap();
            next.write(handle, 0, b"KN").await.unwrap();
            next.close(handle).await.unwrap();
        }
        let next = if killed { bucket.mount_in(next.crashed(), Options::default()) } else { next };
        bucket.faults.clear();
        sleep(Duration::from_secs(8)).await;
        let mode = next.stat("a").await.unwrap().mode;
        next.settle().await;
        let bytes = written.map_or(&b"known"[..], |flags| if flags == 0 { b"KNown" } else { b"KN" });
        assert_eq!((bucket.get("a").unwrap(), mode_of(&bucket, "a")), (bytes.to_vec(), Some("0100600".into())));
        assert_eq!((mode, next.stat("a").await.unwrap().mode), (0o600, 0o600), "{listed} {written:?} {killed}");
        sleep(Duration::from_secs(11)).await;
        assert_eq!((next.names("").await.unwrap(), next.stat("a").await.unwrap().mode), (vec!["a".to_owned()], 0o600));
        assert_eq!((next.read("a").await.unwrap(), next.writer.backlog().conflicts), (bytes.to_vec(), 0));
    }
}
