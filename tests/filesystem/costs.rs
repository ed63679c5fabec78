//! What things cost, in requests: exact.

use std::collections::BTreeMap;

use mediafs::store::ObjectStore;
use mediafs::store::fault::{Fault, Rule};

use crate::world::{Bucket, EXCLUSIVE, World, requests};

/// Requests since `before`, as `[("HeadObject", 1), …]`.
fn since(mount: &World, before: &BTreeMap<&'static str, u64>) -> Vec<(&'static str, u64)> {
    let now = mount.counts.snapshot();
    let asked = now.into_iter().map(|(name, count)| (name, count - before.get(name).copied().unwrap_or(0)));
    asked.filter(|(_, count)| *count > 0).collect()
}

#[tokio::test(start_paused = true)]
async fn a_new_file_is_one_put_and_at_most_two_look_ups() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    assert!(!mount.exists("photo.jpg").await);
    mount.save_with("photo.jpg", b"bytes", EXCLUSIVE).await.unwrap();
    mount.chmod("photo.jpg", 0o644).await.unwrap();
    mount.stat("photo.jpg").await.unwrap();
    mount.settle().await;
    assert_eq!(requests(&mount), [("HeadObject", 1), ("ListObjectsV2", 1), ("PutObject", 1)]);
}

/// Commits of the journal so far, by the record beside it.
fn commits(mount: &World) -> u64 {
    let tail = std::fs::read(mount.folder.path().join("journal.tail")).unwrap();
    u64::from_le_bytes(tail[8..16].try_into().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_save_is_two_commits_and_its_upload_two() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    // Numbers of data files are taken in stretches, with a commit each.
    mount.save_with("first.jpg", b"bytes", EXCLUSIVE).await.unwrap();
    mount.settle().await;
    assert!(!mount.exists("photo.jpg").await);
    let before = commits(&mount);
    // That the file is dirty, before its first byte; what it holds, and that it is at rest, when it is closed.
    mount.save_with("photo.jpg", b"bytes", EXCLUSIVE).await.unwrap();
    assert_eq!(commits(&mount) - before, 2);
    mount.settle().await;
    // What is about to be sent; that it is there, the file clean, and nothing wanted.
    assert_eq!(commits(&mount) - before, 4);
}

#[tokio::test(start_paused = true)]
async fn a_temporary_file_and_its_rename_are_one_put() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    mount.mkdir("d").await.unwrap();
    mount.settle().await;
    let before = mount.counts.snapshot().get("PutObject").copied().unwrap_or(0);
    mount.save_with("d/.photo.tmp", b"bytes", EXCLUSIVE).await.unwrap();
    mount.rename("d/.photo.tmp", "d/photo.jpg").await.unwrap();
    mount.settle().await;
    let after = mount.counts.snapshot();
    assert_eq!(after["PutObject"] - before, 1);
    assert!(!after.contains_key("CopyObject") && !after.contains_key("DeleteObject") && !after.contains_key("DeleteObjects"), "{after:?}");
    assert_eq!(bucket.keys(), ["d/", "d/photo.jpg"]);
}

#[tokio::test(start_paused = true)]
async fn ten_rewrites_are_one_put_and_a_removed_new_file_none() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    for at in 0..10 {
        mount.save("f.css", format!("version {at}").as_bytes()).await.unwrap();
    }
    mount.save_with("never.tmp", b"x", EXCLUSIVE).await.unwrap();
    mount.unlink("never.tmp").await.unwrap();
    mount.settle().await;
    let counts: std::collections::BTreeMap<_, _> = requests(&mount).into_iter().collect();
    assert_eq!(counts.get("PutObject"), Some(&1), "{counts:?}");
    assert!(!counts.contains_key("DeleteObject") && !counts.contains_key("DeleteObjects"), "{counts:?}");
    assert_eq!(bucket.get("f.css").unwrap(), b"version 9");
}

#[tokio::test(start_paused = true)]
async fn unlink_and_create_again_within_the_settling_time_is_one_put() {
    let bucket = Bucket::new();
    bucket.put("f.css", b"old").await;
    let mount = bucket.mount();
    for at in 0..3 {
        mount.unlink("f.css").await.unwrap();
        mount.save_with("f.css", format!("version {at}").as_bytes(), EXCLUSIVE).await.unwrap();
    }
    mount.settle().await;
    let counts: std::collections::BTreeMap<_, _> = requests(&mount).into_iter().collect();
    assert_eq!(counts.get("PutObject"), Some(&1), "{counts:?}");
    assert!(!counts.contains_key("DeleteObject") && !counts.contains_key("DeleteObjects"), "{counts:?}");
    assert_eq!(bucket.get("f.css").unwrap(), b"version 2");
}

#[tokio::test(start_paused = true)]
async fn a_cold_small_file_is_one_head_and_one_get_and_then_nothing() {
    let bucket = Bucket::new();
    bucket.put("photo.jpg", &[7; 32 << 10]).await;
    let mount = bucket.mount();
    assert_eq!(mount.read("photo.jpg").await.unwrap().len(), 32 << 10);
    assert_eq!(requests(&mount), [("GetObject", 1), ("HeadObject", 1)]);
    mount.read("photo.jpg").await.unwrap();
    mount.stat("photo.jpg").await.unwrap();
    assert_eq!(requests(&mount), [("GetObject", 1), ("HeadObject", 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_another_tool_made_is_one_head_and_one_list() {
    let bucket = Bucket::new();
    for name in ["photos", "v1.0"] {
        bucket.put(&format!("{name}/a.jpg"), b"bytes").await;
        let mount = bucket.mount();
        assert_eq!(mount.stat(name).await.unwrap().mode & 0o777, 0o755);
        assert_eq!(requests(&mount), [("HeadObject", 1), ("ListObjectsV2", 1)], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_directory_is_asked_for_once_a_minute_and_its_files_once_a_ttl() {
    let bucket = Bucket::new();
    for name in ["photos/a.jpg", "photos/b.jpg"] {
        bucket.put(name, b"bytes").await;
    }
    let mount = bucket.mount();
    for view in 0..20 {
        mount.stat(["photos/a.jpg", "photos/b.jpg"][view % 2]).await.unwrap();
        tokio::time::advance(std::time::Duration::from_millis(5500)).await;
    }
    // A HEAD each, one to see that the directory is no file, and a LIST at the first and at the sixtieth second.
    assert_eq!(requests(&mount), [("HeadObject", 21), ("ListObjectsV2", 2)]);
    for name in ["photos/a.jpg", "photos/b.jpg"] {
        bucket.memory.delete(&name.into()).await.unwrap();
    }
    tokio::time::advance(std::time::Duration::from_secs(10)).await;
    assert!(!mount.exists("photos").await, "gone within the TTL of what was seen last");
}

#[tokio::test(start_paused = true)]
async fn a_directory_with_a_marker_is_confirmed_by_a_head_that_brings_its_attributes() {
    let bucket = Bucket::new();
    let (here, there) = (bucket.mount(), bucket.mount());
    here.mkdir("d").await.unwrap();
    here.settle().await;
    assert_eq!(there.stat("d").await.unwrap().mode & 0o777, 0o755);
    here.chmod("d", 0o700).await.unwrap();
    here.save("d/f", b"bytes").await.unwrap();
    let changed = here.stat("d").await.unwrap().mtime;
    here.settle().await;
    let before = there.counts.snapshot();
    tokio::time::advance(std::time::Duration::from_secs(11)).await;
    assert_eq!(there.stat("d").await.unwrap().mode & 0o777, 0o700, "another host's change of mode shows within the TTL");
    assert_eq!(since(&there, &before), [("HeadObject", 1)]);
    assert_eq!(here.stat("d").await.unwrap().mtime, changed, "what the marker doesn't say goes on here");
    here.unlink("d/f").await.unwrap();
    here.rmdir("d").await.unwrap();
    here.settle().await;
    tokio::time::advance(std::time::Duration::from_secs(11)).await;
    assert!(!there.exists("d").await);
}

#[tokio::test(start_paused = true)]
async fn after_the_ttl_one_head_confirms_what_is_cached() {
    let bucket = Bucket::new();
    bucket.put("photo.jpg", b"bytes").await;
    let mount = bucket.mount();
    mount.read("photo.jpg").await.unwrap();
    tokio::time::advance(std::time::Duration::from_secs(11)).await;
    mount.read("photo.jpg").await.unwrap();
    assert_eq!(requests(&mount), [("GetObject", 1), ("HeadObject", 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_listing_costs_a_list_for_a_thousand_and_no_head() {
    let bucket = Bucket::new();
    for at in 0..2500 {
        bucket.put(&format!("d/{at:05}.jpg"), b"x").await;
    }
    let mount = bucket.mount();
    let ino = mount.stat("d").await.unwrap().ino;
    let before = mount.counts.snapshot();
    assert_eq!(mount.names("d").await.unwrap().len(), 2500);
    let after = mount.counts.snapshot();
    assert_eq!(after["ListObjectsV2"] - before["ListObjectsV2"], 3);
    assert_eq!(after.get("HeadObject"), before.get("HeadObject"));
    let _ = ino;
    mount.names("d").await.unwrap();
    assert_eq!(mount.counts.snapshot(), after, "fresh for the TTL");
    mount.stat("d/missing.jpg").await.unwrap_err();
    assert_eq!(mount.counts.snapshot(), after, "a fresh listing answers for missing names too");
}

#[tokio::test(start_paused = true)]
async fn missing_names_come_to_be_asked_in_one_round_trip() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    for at in 0..5 {
        assert!(!mount.exists(&format!("no-{at}.jpg")).await);
    }
    assert_eq!(requests(&mount), [("HeadObject", 5), ("ListObjectsV2", 5)]);
    assert!(!mount.exists("no-4.jpg").await);
    assert_eq!(requests(&mount), [("HeadObject", 5), ("ListObjectsV2", 5)], "for the negative TTL");
}

/// `rm -r` by a thread that the edge knows to be at it: the listing is all that its look-ups need.
async fn sweep(mount: &World, directory: &str) {
    let parent = mount.stat(directory).await.unwrap().ino;
    for name in mount.names(directory).await.unwrap() {
        let name = std::ffi::OsStr::new(&name);
        assert!(mount.fs.listed_entry(parent, name).is_some_and(|entry| entry.ttl.is_zero() && entry.attr.mode == 0));
        mount.fs.unlink(parent, name).await.unwrap();
        assert!(mount.fs.listed_entry(parent, name).is_none());
    }
    mount.rmdir(directory).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn removing_a_tree_is_its_listing_and_a_batch_for_a_thousand() {
    let bucket = Bucket::new();
    for at in 0..2500 {
        bucket.put(&format!("d/{at:04}"), b"x").await;
    }
    let mount = bucket.mount();
    mount.stat("d").await.unwrap();
    let before = mount.counts.snapshot();
    sweep(&mount, "d").await;
    mount.settle().await;
    assert!(bucket.keys().is_empty());
    assert_eq!(since(&mount, &before), [("DeleteObjects", 3), ("ListObjectsV2", 3)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_more_than_listed_is_looked_up_in_full() {
    let bucket = Bucket::new();
    bucket.put("d/a", b"x").await;
    bucket.put("d/e/b", b"x").await;
    let mount = bucket.mount();
    let parent = mount.stat("d").await.unwrap().ino;
    let listed = |name: &str| mount.fs.listed_entry(parent, std::ffi::OsStr::new(name)).is_some();
    assert!(!listed("a"), "not listed yet");
    mount.names("d").await.unwrap();
    assert!(listed("a") && !listed("e") && !listed("missing"));
    mount.stat("d/a").await.unwrap();
    assert!(!listed("a"), "known by now");
    mount.save("d/new", b"x").await.unwrap();
    assert!(!listed("new"), "ours");
    mount.fs.forget(parent, 0);
    tokio::time::advance(std::time::Duration::from_secs(11)).await;
    assert!(!listed("a"), "the listing is old");
}

#[tokio::test(start_paused = true)]
async fn renaming_a_directory_is_a_listing_a_copy_each_and_a_batch_for_a_thousand() {
    let bucket = Bucket::new();
    for at in 0..1500 {
        bucket.put(&format!("d/{at:04}.jpg"), b"x").await;
    }
    let mount = bucket.mount();
    mount.stat("d").await.unwrap();
    assert!(!mount.exists("e").await);
    let before = mount.counts.snapshot();
    mount.rename("d", "e").await.unwrap();
    mount.settle().await;
    assert_eq!(bucket.keys().len(), 1500);
    assert_eq!(since(&mount, &before), [("CopyObject", 1500), ("DeleteObjects", 2), ("ListObjectsV2", 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_renamed_directory_moves_in_a_few_round_trips() {
    let bucket = Bucket::new();
    for at in 0..300 {
        bucket.put(&format!("d/{at:04}.jpg"), b"x").await;
    }
    let trip = std::time::Duration::from_millis(30);
    bucket.faults.add(Rule::any().fault(Fault::Latency(trip)));
    let mount = bucket.mount();
    mount.stat("d").await.unwrap();
    mount.names("d").await.unwrap();
    let begun = tokio::time::Instant::now();
    mount.rename("d", "e").await.unwrap();
    mount.settle().await;
    assert!(begun.elapsed() <= trip * 15, "{:?}", begun.elapsed());
    let begun = tokio::time::Instant::now();
    sweep(&mount, "e").await;
    mount.settle().await;
    assert!(begun.elapsed() <= trip * 15, "{:?}", begun.elapsed());
    assert!(bucket.keys().is_empty());
}

#[tokio::test(start_paused = true)]
async fn hot_reads_cost_nothing_within_the_ttl() {
    let bucket = Bucket::new();
    bucket.put("film.mp4", &vec![7; 3 << 20]).await;
    let mount = bucket.mount();
    mount.read("film.mp4").await.unwrap();
    let before = mount.counts.snapshot();
    for _ in 0..3 {
        mount.read("film.mp4").await.unwrap();
        mount.stat("film.mp4").await.unwrap();
        tokio::time::advance(std::time::Duration::from_secs(3)).await;
    }
    assert_eq!(since(&mount, &before), []);
}

#[tokio::test(start_paused = true)]
async fn filling_a_directory_does_not_ask_for_each_new_name() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    mount.mkdir("d").await.unwrap();
    mount.settle().await;
    let before = mount.counts.snapshot();
    for at in 0..200 {
        mount.save_with(&format!("d/{at}.jpg"), b"x", EXCLUSIVE).await.unwrap();
    }
    mount.settle().await;
    let after = mount.counts.snapshot();
    let asked = |name: &str| after.get(name).copied().unwrap_or(0) - before.get(name).copied().unwrap_or(0);
    assert_eq!(asked("PutObject"), 200);
    assert!(asked("HeadObject") + asked("ListObjectsV2") <= 20, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn filling_on_lists_once_a_second_instead() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    mount.mkdir("d").await.unwrap();
    for at in 0..200 {
        mount.save_with(&format!("d/{at}.jpg"), b"x", EXCLUSIVE).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    mount.settle().await;
    let counts = mount.counts.snapshot();
    assert_eq!(counts["PutObject"], 201);
    // In twenty seconds; the first eight names are asked for one by one.
    assert!(counts["HeadObject"] <= 9 && counts["ListObjectsV2"] <= 20 + 9, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn attributes_of_listed_files_are_asked_for_side_by_side_and_once() {
    let bucket = Bucket::new();
    for at in 0..1000 {
        bucket.put(&format!("d/{at:04}.jpg"), b"x").await;
    }
    let trip = std::time::Duration::from_millis(30);
    bucket.faults.add(Rule::any().fault(Fault::Latency(trip)));
    let mount = bucket.mount();
    mount.stat("d").await.unwrap();
    let before = mount.counts.snapshot();
    let begun = tokio::time::Instant::now();
    for name in mount.names("d").await.unwrap() {
        mount.stat(&format!("d/{name}")).await.unwrap();
    }
    assert_eq!(since(&mount, &before), [("HeadObject", 1000), ("ListObjectsV2", 1)]);
    assert!(begun.elapsed() <= trip * 50, "{:?}", begun.elapsed());
    let before = mount.counts.snapshot();
    for at in 0..1000 {
        mount.stat(&format!("d/{at:04}.jpg")).await.unwrap();
    }
    assert_eq!(since(&mount, &before), []);
}
