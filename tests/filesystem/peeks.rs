//! A program that looks for one name after the other that isn't there: what that costs, and that nothing new is overlooked.

use std::time::Duration;

use mediafs::fs::WriteMode;
use mediafs::store::fault::{Fault, Rule};
use mediafs::store::{ErrorKind, Operation};

use crate::world::{Bucket, EXCLUSIVE, Options, World};

/// How many HEADs and LISTs there were.
fn asked(mount: &World) -> (u64, u64) {
    (mount.counts.of(Operation::HeadObject), mount.counts.of(Operation::ListObjectsV2))
}

fn since(mount: &World, before: (u64, u64)) -> (u64, u64) {
    let after = asked(mount);
    (after.0 - before.0, after.1 - before.1)
}

/// Asks for so many names in `d`, none of which exists; how many HEADs and LISTs that was.
async fn miss(mount: &World, names: std::ops::Range<u32>) -> (u64, u64) {
    let before = asked(mount);
    for name in names {
        assert!(!mount.exists(&format!("d/no-{name}.jpg")).await);
    }
    since(mount, before)
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

/// Makes so many new names in `d` without a pause, alone, as Django does.
async fn fill(mount: &World, names: std::ops::Range<u32>) {
    for number in names {
        mount.save_with(&format!("d/mine-{number}.jpg"), b"x", EXCLUSIVE).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn who_fills_a_directory_sees_what_another_host_made_in_it_as_soon_as_others_do() {
    for made_here in [true, false] {
        let bucket = Bucket::new();
        let mount = bucket.mount();
        if made_here {
            mount.mkdir("d").await.unwrap();
        } else {
            bucket.put("d/0.jpg", b"x").await;
            mount.names("d").await.unwrap();
        }
        for turn in 0..5 {
            fill(&mount, turn * 10..turn * 10 + 10).await;
            bucket.put(&format!("d/theirs-{turn}.jpg"), b"x").await;
            // Long enough that an absence is not believed, and short enough that the filling goes on.
            tokio::time::advance(Duration::from_millis(1_001)).await;
            let before = asked(&mount);
            assert!(mount.exists(&format!("d/theirs-{turn}.jpg")).await, "made here {made_here}, turn {turn}");
            assert!(!mount.exists("d/nobodys.jpg").await);
            assert_eq!(since(&mount, before).1, 1, "one LIST for both");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_wide_directory_that_is_being_filled_is_listed_once_a_second_at_the_most() {
    let bucket = Bucket::new();
    for number in 0..3_500 {
        bucket.put(&format!("d/{number:04}.jpg"), b"x").await;
    }
    let mount = bucket.mount();
    mount.names("d").await.unwrap();
    fill(&mount, 0..10).await;
    let before = asked(&mount);
    for number in 10..210 {
        fill(&mount, number..number + 1).await;
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    let (heads, lists) = since(&mount, before);
    assert!(heads <= 5 && (16..=20).contains(&lists), "20 seconds, four pages each time: {heads} and {lists}");
}

#[tokio::test(start_paused = true)]
async fn a_new_name_in_a_very_wide_directory_that_is_being_filled_is_one_head() {
    let bucket = Bucket::new();
    for number in 0..10_500 {
        bucket.put(&format!("d/{number:05}.jpg"), b"x").await;
    }
    let mount = bucket.mount();
    mount.names("d").await.unwrap();
    let mut number = 0;
    let mut fill_for = async |seconds: u32| {
        let before = asked(&mount);
        for _ in 0..seconds * 20 {
            // In no order.
            mount.save_with(&format!("d/{:05}.png", number * 7919 % 10_007), b"x", EXCLUSIVE).await.unwrap();
            number += 1;
            tokio::time::advance(Duration::from_millis(50)).await;
        }
        since(&mount, before)
    };
    let (heads, lists) = fill_for(11).await;
    assert!(heads < 30 && lists < 30, "its list is believed for ten seconds: {heads} and {lists}");
    let (heads, lists) = fill_for(15).await;
    assert!((280..=300).contains(&heads) && lists == 0, "a HEAD each: {heads} and {lists}");
    bucket.put("d/theirs.jpg", b"x").await;
    assert!(mount.exists("d/theirs.jpg").await);
    bucket.put("d/directory/theirs.jpg", b"x").await;
    let (heads, lists) = fill_for(34).await;
    assert!(
        (400..=500).contains(&heads) && (11..=12).contains(&lists),
        "one list of eleven pages, believed for ten seconds: {heads} and {lists}"
    );
    assert!(mount.exists("d/directory").await, "what another host made a directory shows within a minute");
}

/// A mount on a bucket with 10,500 files in `d`, whose list is too old to tell anything, and which a program fills.
async fn very_wide(options: Options) -> (Bucket, World) {
    let bucket = Bucket::new();
    for number in 0..10_500 {
        bucket.put(&format!("d/{number:05}.jpg"), b"x").await;
    }
    let mount = bucket.mount_with(options);
    mount.names("d").await.unwrap();
    for number in 0..220 {
        mount.save_with(&format!("d/b-{}.jpg", number * 7919 % 1000), b"x", EXCLUSIVE).await.unwrap();
        tokio::time::advance(Duration::from_millis(50)).await;
    }
    (bucket, mount)
}

/// Makes the next of numbered files behind all others; how many HEADs and LISTs that was.
async fn append(mount: &World, numbers: std::ops::Range<u32>, pause_ms: u64) -> (u64, u64) {
    let before = asked(mount);
    for number in numbers {
        // Eight at a time don't come in their order.
        mount.save_with(&format!("d/c-{:05}.jpg", number ^ 5), b"x", EXCLUSIVE).await.unwrap();
        tokio::time::advance(Duration::from_millis(pause_ms)).await;
    }
    since(mount, before)
}

#[tokio::test(start_paused = true)]
async fn numbered_files_in_a_very_wide_directory_cost_a_list_a_second() {
    let (bucket, mount) = very_wide(Options::default()).await;
    let (heads, lists) = append(&mount, 0..2_000, 2).await;
    assert!(heads <= 110 && (4..=6).contains(&lists), "2,000 files in four seconds: {heads} and {lists}");
    // What others make meanwhile shows after the second in which an absence is believed.
    bucket.put("d/c-09000.jpg", b"theirs").await;
    bucket.put("d/c-09001.jpg/inside", b"theirs").await;
    tokio::time::advance(Duration::from_millis(1_001)).await;
    let (heads, lists) = append(&mount, 2_000..2_200, 2).await;
    assert!(heads <= 30 && lists <= 4, "{heads} and {lists}");
    for name in ["d/c-09000.jpg", "d/c-09001.jpg"] {
        assert!(mount.exists(name).await, "{name}");
    }
    mount.save_with("d/c-09000.jpg", b"ours", EXCLUSIVE).await.expect_err("the name is taken");
    mount.settle().await;
    assert_eq!(bucket.get("d/c-09000.jpg").as_deref(), Some(&b"theirs"[..]));
}

#[tokio::test(start_paused = true)]
async fn numbered_files_in_a_directory_of_some_pages_cost_a_list_a_second() {
    let bucket = Bucket::new();
    for number in 0..3_500 {
        bucket.put(&format!("d/{number:05}.jpg"), b"x").await;
    }
    let mount = bucket.mount();
    mount.names("d").await.unwrap();
    append(&mount, 0..30, 2).await;
    // Until the list of all names is believed no more.
    tokio::time::advance(Duration::from_millis(1_500)).await;
    let (heads, lists) = append(&mount, 32..4_032, 2).await;
    assert!(heads <= 20 && lists <= 13, "eight seconds, not four pages each time: {heads} and {lists}");
    // Nor is the list of all names believed for a second a page.
    for turn in 0..12 {
        append(&mount, 4_032 + turn * 256..4_288 + turn * 256, 1).await;
        let name = format!("d/c-09{turn:03}.jpg");
        bucket.put(&name, b"theirs").await;
        tokio::time::advance(Duration::from_millis(1_001)).await;
        assert!(mount.exists(&name).await, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_end_of_a_directory_showed_reserves_no_name_once_nobody_fills_it() {
    let (bucket, mount) = very_wide(Options { negative_ttl: Duration::from_secs(30), ..Options::default() }).await;
    // Until the list of all names is believed no more.
    tokio::time::advance(Duration::from_secs(60)).await;
    let (heads, lists) = append(&mount, 0..200, 2).await;
    assert!(heads < 40 && lists > 0, "{heads} and {lists}");
    tokio::time::advance(Duration::from_secs(4)).await;
    assert!(!mount.exists("d/c-09000.jpg").await);
    tokio::time::advance(Duration::from_secs(1)).await;
    bucket.put("d/c-09000.jpg", b"theirs").await;
    mount.save_with("d/c-09000.jpg", b"ours", EXCLUSIVE).await.expect_err("the name is taken");
}

#[tokio::test(start_paused = true)]
async fn numbered_files_that_come_slowly_are_asked_for_one_by_one() {
    let (_bucket, mount) = very_wide(Options::default()).await;
    let (heads, lists) = append(&mount, 0..64, 200).await;
    assert!((48..=66).contains(&heads) && lists <= 15, "a LIST costs as much as twelve HEADs: {heads} and {lists}");
}

#[tokio::test(start_paused = true)]
async fn where_the_end_of_a_directory_can_not_be_listed_each_name_is_asked_for() {
    let (bucket, mount) = very_wide(Options::default()).await;
    bucket.faults.add(Rule::on(Operation::ListObjectsV2).key("d/").fault(Fault::Error(ErrorKind::Denied)));
    let (heads, _) = append(&mount, 0..300, 2).await;
    assert!(heads >= 290, "{heads}");
    bucket.put("d/c-09000.jpg", b"theirs").await;
    assert!(mount.exists("d/c-09000.jpg").await);
}

#[tokio::test(start_paused = true)]
async fn what_others_have_behind_the_end_is_never_taken_for_missing() {
    let (bucket, mount) = very_wide(Options::default()).await;
    // More than one page, files and directories.
    for number in 0..1_500 {
        bucket.put(&if number % 3 == 0 { format!("d/c-{number:05}/x") } else { format!("d/c-{number:05}") }, b"theirs").await;
    }
    for number in 0..40 {
        mount.save_with(&format!("d/bz-{number:03}"), b"x", EXCLUSIVE).await.unwrap();
    }
    // Behind the page, a directory that another host has just made shows within a minute.
    for number in (0..1_500).step_by(37).filter(|number| number % 3 > 0 || *number < 800) {
        assert!(mount.exists(&format!("d/c-{number:05}")).await, "{number}");
        assert!(!mount.exists(&format!("d/c-{number:05}+")).await, "{number}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_no_absence_is_believed_a_new_name_is_asked_for_and_nothing_listed_for_it() {
    let bucket = Bucket::new();
    for number in 0..3_500 {
        bucket.put(&format!("d/{number:04}.jpg"), b"x").await;
    }
    let mount = bucket.mount_with(Options { negative_ttl: Duration::ZERO, ..Options::default() });
    mount.names("d").await.unwrap();
    fill(&mount, 0..10).await;
    let before = asked(&mount);
    for number in 10..60 {
        fill(&mount, number..number + 1).await;
        bucket.put(&format!("d/theirs-{number}.jpg"), b"x").await;
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(mount.exists(&format!("d/theirs-{number}.jpg")).await);
    }
    let (heads, lists) = since(&mount, before);
    assert!(heads <= 200 && lists <= 100, "{heads} and {lists} for 50 new names and 50 of another host");
}

#[tokio::test(start_paused = true)]
async fn in_through_mode_what_another_host_saved_shows_at_once() {
    let bucket = Bucket::new();
    let options = || Options { write_mode: WriteMode::Through, ..Options::default() };
    let (mount, other) = (bucket.mount_with(options()), bucket.mount_with(options()));
    mount.mkdir("d").await.unwrap();
    fill(&mount, 0..20).await;
    let before = asked(&mount);
    for number in 0..20 {
        other.save_with(&format!("d/theirs-{number}.jpg"), b"x", EXCLUSIVE).await.unwrap();
        assert!(mount.exists(&format!("d/theirs-{number}.jpg")).await, "made by another host while this one fills the directory");
    }
    assert_eq!(since(&mount, before), (20, 0));
    mount.names("d").await.unwrap();
    other.save("d/after.jpg", b"x").await.unwrap();
    assert!(mount.exists("d/after.jpg").await, "made since the directory was listed");
    // Of a name that was asked for itself, the answer holds.
    assert!(!mount.exists("d/early.jpg").await);
    other.save("d/early.jpg", b"x").await.unwrap();
    assert!(!mount.exists("d/early.jpg").await);
    tokio::time::advance(Duration::from_millis(1_001)).await;
    assert!(mount.exists("d/early.jpg").await);
}
