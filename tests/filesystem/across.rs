//! Two hosts on one bucket: close-to-open, reservations, conflicts.

use std::time::Duration;

use mediafs::error::Error;
use mediafs::fs::WriteMode;
use mediafs::writer::OnConflict;

use crate::world::{Bucket, EXCLUSIVE, Options};

fn through(host: &'static str) -> Options {
    Options { write_mode: WriteMode::Through, host, ..Options::default() }
}

#[tokio::test(start_paused = true)]
async fn a_change_shows_on_the_other_host_after_the_ttl() {
    let bucket = Bucket::new();
    let (one, two) = (bucket.mount(), bucket.mount());
    one.save("f", b"first").await.unwrap();
    one.settle().await;
    assert_eq!(two.read("f").await.unwrap(), b"first");
    one.save("f", b"again").await.unwrap();
    one.settle().await;
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(two.read("f").await.unwrap(), b"again", "the same size, another version");
    one.unlink("f").await.unwrap();
    one.settle().await;
    tokio::time::advance(Duration::from_secs(11)).await;
    assert!(!two.exists("f").await);
}

/// The ETag stays, and the answer to our upload didn't say when the store dated it.
#[tokio::test(start_paused = true)]
async fn another_host_s_chmod_shows_and_stays_though_it_came_right_after_our_save() {
    let bucket = Bucket::on_virtual_time();
    let (one, two) = (bucket.mount(), bucket.mount());
    for name in ["f", "g"] {
        one.save(name, b"first").await.unwrap();
    }
    one.settle().await;
    tokio::time::advance(Duration::from_secs(3)).await;
    for name in ["f", "g"] {
        two.chmod(name, 0o600).await.unwrap();
    }
    two.settle().await;
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(one.stat("f").await.unwrap().mode, 0o600);
    assert_eq!(one.names("").await.unwrap(), ["f", "g"]);
    one.save("g", b"again").await.unwrap();
    one.settle().await;
    let fresh = bucket.mount();
    assert_eq!((fresh.stat("f").await.unwrap().mode, fresh.stat("g").await.unwrap().mode), (0o600, 0o600));
}

#[tokio::test(start_paused = true)]
async fn an_open_file_stays_on_its_version_or_says_that_it_is_gone() {
    let bucket = Bucket::new();
    bucket.put("cached", b"old").await;
    bucket.put("cold", &vec![1; 4 << 20]).await;
    let mount = bucket.mount();
    let cached = mount.open("cached", libc::O_RDONLY).await.unwrap();
    assert_eq!(mount.read_handle(cached, 0, 9).await.unwrap(), b"old");
    let cold = mount.open("cold", libc::O_RDONLY).await.unwrap();
    bucket.put("cached", b"new").await;
    bucket.put("cold", &vec![2; 4 << 20]).await;
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(mount.read("cached").await.unwrap(), b"new");
    assert_eq!(mount.read_handle(cached, 0, 9).await.unwrap(), b"old");
    assert!(matches!(mount.read_handle(cold, 0, 9).await, Err(Error::Stale)));
    assert_eq!(mount.read("cold").await.unwrap()[..3], [2, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn in_through_mode_the_second_to_reserve_a_name_hears_it_at_close() {
    let bucket = Bucket::new();
    let (one, two) = (bucket.mount_with(through("one")), bucket.mount_with(through("two")));
    let first = one.open("name", EXCLUSIVE).await.unwrap();
    let second = two.open("name", EXCLUSIVE).await.unwrap();
    one.write(first, 0, b"winner").await.unwrap();
    two.write(second, 0, b"loser").await.unwrap();
    one.close(first).await.unwrap();
    assert!(matches!(two.close(second).await, Err(Error::Exists)));
    assert_eq!(bucket.get("name").unwrap(), b"winner");
    assert_eq!(two.read("name").await.unwrap(), b"winner");
    two.settle().await;
    assert_eq!(bucket.keys(), ["name"]);
}

#[tokio::test(start_paused = true)]
async fn in_through_mode_close_means_in_the_bucket() {
    let bucket = Bucket::new();
    let mount = bucket.mount_with(through("one"));
    mount.save("f", b"1").await.unwrap();
    assert_eq!(bucket.get("f").unwrap(), b"1");
    mount.save("f", b"2").await.unwrap();
    assert_eq!(bucket.get("f").unwrap(), b"2", "a whole replacement: the last writer wins");
}

#[tokio::test(start_paused = true)]
async fn a_late_conflict_keeps_both_sides() {
    let bucket = Bucket::new();
    let (one, two) = (bucket.mount(), bucket.mount());
    one.save_with("photo.jpg", b"one", EXCLUSIVE).await.unwrap();
    two.save_with("photo.jpg", b"two", EXCLUSIVE).await.unwrap();
    one.settle().await;
    two.settle().await;
    assert_eq!(bucket.get("photo.jpg").unwrap(), b"one");
    let kept: Vec<String> = bucket.keys().into_iter().filter(|key| key.contains(".conflict-here-")).collect();
    assert_eq!(kept.len(), 1, "{:?}", bucket.keys());
    assert!(kept[0].ends_with(".jpg"));
    assert_eq!(bucket.get(&kept[0]).unwrap(), b"two");
    assert_eq!(two.read("photo.jpg").await.unwrap(), b"one");
    assert_eq!(two.read(&kept[0]).await.unwrap(), b"two");
    assert_eq!(two.writer.backlog().conflicts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_change_built_on_old_bytes_conflicts_and_overwrite_is_a_choice() {
    let bucket = Bucket::new();
    bucket.put("f.txt", b"base").await;
    let careful = bucket.mount();
    let bold = bucket.mount_with(Options { on_conflict: OnConflict::Overwrite, ..Options::default() });
    for mount in [&careful, &bold] {
        mount.read("f.txt").await.unwrap();
        let handle = mount.open("f.txt", libc::O_WRONLY).await.unwrap();
        mount.write(handle, 4, b" and more").await.unwrap();
        mount.close(handle).await.unwrap();
    }
    bucket.put("f.txt", b"theirs").await;
    careful.settle().await;
    assert_eq!(bucket.get("f.txt").unwrap(), b"theirs");
    assert_eq!(careful.writer.backlog().conflicts, 1);
    bold.settle().await;
    assert_eq!(bucket.get("f.txt").unwrap(), b"base and more");
}

#[tokio::test(start_paused = true)]
async fn a_small_change_keeps_the_old_bytes_that_it_builds_on() {
    let bucket = Bucket::new();
    bucket.put("f.txt", b"base").await;
    let mount = bucket.mount();
    let handle = mount.open("f.txt", libc::O_WRONLY).await.unwrap();
    mount.write(handle, 4, b" and more").await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    bucket.put("f.txt", b"theirs").await;
    mount.close(handle).await.unwrap();
    mount.settle().await;
    let kept = bucket.keys().into_iter().find(|key| key.contains(".conflict-here-")).unwrap();
    assert_eq!(bucket.get(&kept).unwrap(), b"base and more");
    assert_eq!(bucket.get("f.txt").unwrap(), b"theirs");
}
