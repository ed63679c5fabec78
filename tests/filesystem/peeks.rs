//! A program that looks for one name after the other that isn't there: what that costs, and that nothing new is overlooked.

use std::time::Duration;

use mediafs::store::fault::{Fault, Rule};
use mediafs::store::{ErrorKind, Operation};

use crate::world::{Bucket, World};

/// Asks for so many names in `d`, none of which exists; how many HEADs and LISTs that was.
async fn miss(mount: &World, names: std::ops::Range<u32>) -> (u64, u64) {
    let asked = || (mount.counts.of(Operation::HeadObject), mount.counts.of(Operation::ListObjectsV2));
    let before = asked();
    for name in names {
        assert!(!mount.exists(&format!("d/no-{name}.jpg")).await);
    }
    let after = asked();
    (after.0 - before.0, after.1 - before.1)
}

/// A bucket with so many files in `d`, and a mount that knows of the directory.
async fn directory_of(files: u32) -> (Bucket, World) {
    let bucket = Bucket::new();
    for number in 0..files {
        bucket.put(&format!("d/{number:04}.jpg"), b"x").await;
    }
    let mount = bucket.mount();
    mount.stat("d").await.unwrap();
    (bucket, mount)
}

#[tokio::test(start_paused = true)]
async fn one_list_tells_of_all_that_is_missing() {
    let (bucket, mount) = directory_of(900).await;
    assert_eq!(miss(&mount, 0..5).await, (5, 5), "a few names are asked for one by one");
    assert_eq!(miss(&mount, 5..500).await, (3, 4));
    assert!(mount.exists("d/0899.jpg").await);
    // What another host makes meanwhile shows as soon as if each had been asked for.
    bucket.put("d/no-7.jpg", b"new").await;
    tokio::time::advance(Duration::from_millis(1_001)).await;
    assert!(mount.exists("d/no-7.jpg").await);
}

#[tokio::test(start_paused = true)]
async fn a_wide_directory_is_not_listed_for_it() {
    let (_bucket, mount) = directory_of(1_100).await;
    assert_eq!(miss(&mount, 0..200).await, (200, 201), "the one LIST said that there is more");
}

#[tokio::test(start_paused = true)]
async fn whoever_may_not_list_it_asks_on() {
    let (bucket, mount) = directory_of(3).await;
    assert_eq!(miss(&mount, 0..8).await, (8, 8));
    bucket.faults.add(Rule::on(Operation::ListObjectsV2).key("d/").fault(Fault::Error(ErrorKind::Denied)));
    assert_eq!(miss(&mount, 8..20).await, (12, 13));
}

#[tokio::test(start_paused = true)]
async fn a_list_that_failed_once_is_tried_again() {
    let (bucket, mount) = directory_of(3).await;
    assert_eq!(miss(&mount, 0..8).await, (8, 8));
    bucket.faults.add(Rule::on(Operation::ListObjectsV2).key("d/").fault(Fault::Error(ErrorKind::Unavailable)));
    assert_eq!(miss(&mount, 8..9).await, (1, 2));
    bucket.faults.clear();
    tokio::time::advance(Duration::from_millis(1_001)).await;
    assert_eq!(miss(&mount, 9..200).await, (0, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_made_here_meanwhile_is_not_overlooked() {
    let (_bucket, mount) = directory_of(3).await;
    for number in 0..30 {
        assert!(!mount.exists(&format!("d/{number}.png")).await);
        mount.save(&format!("d/{number}.png"), b"x").await.unwrap();
        assert!(mount.exists(&format!("d/{number}.png")).await);
        if number % 10 == 9 {
            mount.settle().await;
        }
    }
    assert_eq!(mount.names("d").await.unwrap().len(), 33);
}
