//! Files that the kernel reads and writes by itself: a test writes to the data file in its place.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use mediafs::cache::Backing;
use mediafs::error::Error;
use mediafs::fs::{SetAttr, WriteMode};

use crate::world::{Bucket, Options, World};

const NEW: i32 = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
const LARGE: usize = 300_000;

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 249) as u8 + 1).collect()
}

/// An open that the kernel serves by itself.
async fn open(mount: &World, path: &str, flags: i32) -> (u64, Backing) {
    let handle = mount.open(path, flags).await.unwrap();
    let backing = mount.fs.back(handle).expect("the kernel may have it");
    mount.fs.loosen(handle).unwrap();
    (handle, backing)
}

async fn close(mount: &World, (handle, backing): (u64, Backing)) {
    mount.fs.flush(handle).await.unwrap();
    drop(backing);
    mount.fs.release(handle);
}

/// A kill of the daemon; programs that had files open go on writing.
fn restart(bucket: &Bucket, mount: World) -> World {
    bucket.mount_in(mount.crashed(), Options::default())
}

#[tokio::test(start_paused = true)]
async fn what_is_written_past_the_daemon_is_seen_at_once_and_goes_up() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    let kernel = open(&mount, "f", NEW).await;
    mount.chmod("f", 0o4755).await.unwrap();
    kernel.1.descriptor().write_all_at(b"hello", 0).unwrap();
    let seen = mount.stat("f").await.unwrap();
    assert_eq!((seen.size, seen.mode), (5, 0o755));
    assert_eq!(mount.read("f").await.unwrap(), b"hello");
    close(&mount, kernel).await;
    mount.settle().await;
    assert_eq!(bucket.get("f").unwrap(), b"hello");
    assert_eq!(mount.stat("f").await.unwrap().mtime, seen.mtime, "the time of the write, not of the close");
}

#[tokio::test(start_paused = true)]
async fn a_read_after_a_write_moves_the_access_time_though_the_disks_clock_lags() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    mount.save("f", b"one").await.unwrap();
    mount.read("f").await.unwrap();
    let first = mount.stat("f").await.unwrap().atime;
    let kernel = open(&mount, "f", libc::O_RDWR).await;
    kernel.1.descriptor().write_all_at(b"two", 0).unwrap();
    kernel.1.descriptor().set_modified(first - Duration::from_millis(4)).unwrap();
    close(&mount, kernel).await;
    assert_eq!(mount.read("f").await.unwrap(), b"two");
    assert!(mount.stat("f").await.unwrap().atime > first);
}

#[tokio::test(start_paused = true)]
async fn the_length_that_a_truncate_starts_from_is_the_disks() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    let kernel = open(&mount, "f", NEW).await;
    kernel.1.descriptor().write_all_at(&content(1000), 0).unwrap();
    let ino = mount.stat("f").await.unwrap().ino;
    mount.fs.setattr(ino, SetAttr { size: Some(500), ..SetAttr::default() }).await.unwrap();
    kernel.1.descriptor().write_all_at(b"end", 500).unwrap();
    close(&mount, kernel).await;
    mount.settle().await;
    assert_eq!(bucket.get("f").unwrap(), [&content(1000)[..500], b"end"].concat());
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_only_opened_is_not_sent() {
    let bucket = Bucket::new();
    bucket.put("f", b"old").await;
    let mount = bucket.mount();
    assert_eq!(mount.read("f").await.unwrap(), b"old");
    let kernel = open(&mount, "f", libc::O_RDWR).await;
    close(&mount, kernel).await;
    mount.settle().await;
    assert!(!mount.counts.snapshot().contains_key("PutObject"));
    assert_eq!(mount.read("f").await.unwrap(), b"old");
    assert_eq!(mount.counts.snapshot()["GetObject"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_stays_open_goes_up_at_rest_and_once_more_when_it_changes() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    let kernel = open(&mount, "f", NEW).await;
    kernel.1.descriptor().write_all_at(b"one", 0).unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(bucket.get("f").unwrap(), b"one");
    kernel.1.descriptor().write_all_at(b"two", 0).unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(bucket.get("f").unwrap(), b"two");
    let puts = mount.counts.snapshot()["PutObject"];
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(mount.counts.snapshot()["PutObject"], puts, "what doesn't change isn't sent again");
    kernel.1.descriptor().write_all_at(b"three", 0).unwrap();
    mount.fs.fsync(kernel.0).await.unwrap();
    assert_eq!(bucket.get("f").unwrap(), b"three");
    close(&mount, kernel).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_written_when_the_daemon_was_killed_and_after_it_is_sent() {
    let bucket = Bucket::new();
    bucket.put("old", b"before").await;
    let mount = bucket.mount();
    mount.read("old").await.unwrap();
    let kernels = [open(&mount, "old", libc::O_RDWR).await, open(&mount, "new", NEW).await, open(&mount, "synced", NEW).await];
    kernels[2].1.descriptor().write_all_at(b"seen", 0).unwrap();
    mount.fs.fsync(kernels[2].0).await.unwrap();
    let files = kernels.map(|(_, backing)| backing.descriptor().try_clone().unwrap());
    files[1].write_all_at(b"not looked at", 0).unwrap();
    let mount = {
        let folder = Arc::clone(&mount.folder);
        mount.writer.stop();
        drop(mount);
        for file in &files {
            file.write_all_at(b"AFTER", 0).unwrap();
        }
        bucket.mount_in(folder, Options::default())
    };
    mount.settle().await;
    for (name, bytes) in [("old", &b"AFTERe"[..]), ("new", b"AFTERooked at"), ("synced", b"AFTER")] {
        assert_eq!(bucket.get(name).unwrap(), bytes, "{name}");
        assert_eq!(mount.read(name).await.unwrap(), bytes, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_program_writes_to_a_file_whose_name_is_gone_is_nobodys_after_a_kill() {
    for replaced in [false, true] {
        let bucket = Bucket::new();
        let mount = bucket.mount();
        mount.save("f", b"old").await.unwrap();
        mount.save("new", b"new").await.unwrap();
        mount.settle().await;
        let kernel = open(&mount, "f", libc::O_RDWR).await;
        match replaced {
            true => mount.rename("new", "f").await.unwrap(),
            false => mount.unlink("f").await.unwrap(),
        }
        mount.settle().await;
        kernel.1.descriptor().write_all_at(b"OLD AND MORE", 0).unwrap();
        mount.cache.persist().unwrap();
        let next = restart(&bucket, mount);
        kernel.1.descriptor().write_all_at(b"and more", 0).unwrap();
        next.settle().await;
        let expected = if replaced { vec![("f", b"new".to_vec())] } else { vec![("new", b"new".to_vec())] };
        let found: Vec<_> = bucket.keys().iter().map(|key| (key.clone(), bucket.get(key).unwrap())).collect();
        let expected: Vec<_> = expected.into_iter().map(|(key, bytes)| (key.to_owned(), bytes)).collect();
        assert_eq!((found, next.writer.backlog().conflicts), (expected, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_close_a_file_has_sums_again() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    let kernel = open(&mount, "f", NEW).await;
    kernel.1.descriptor().write_all_at(&content(50_000), 0).unwrap();
    let data = kernel.1.descriptor().try_clone().unwrap();
    close(&mount, kernel).await;
    data.write_all_at(b"\0", 20_000).unwrap();
    assert!(matches!(mount.read("f").await, Err(Error::Damaged(_))));
    let mount = restart(&bucket, mount);
    assert!(matches!(mount.read("f").await, Err(Error::Damaged(_))), "the journal has them");
}

#[tokio::test(start_paused = true)]
async fn the_kernel_gets_only_what_was_found_right() {
    let bucket = Bucket::new();
    let bytes = content(LARGE);
    bucket.put("f", &bytes).await;
    let mount = bucket.mount();
    let handle = mount.open("f", libc::O_RDONLY).await.unwrap();
    assert!(mount.fs.back(handle).is_none(), "nothing of it is here");
    mount.close(handle).await.unwrap();
    assert_eq!(mount.read("f").await.unwrap(), bytes);
    let handle = mount.open("f", libc::O_RDONLY).await.unwrap();
    let data = mount.fs.back(handle).expect("all of it was fetched").descriptor().try_clone().unwrap();
    mount.close(handle).await.unwrap();
    data.write_all_at(b"\0", 123_456).unwrap();
    let handle = mount.open("f", libc::O_RDONLY).await.unwrap();
    assert!(mount.fs.back(handle).is_none(), "somebody has changed it");
    mount.close(handle).await.unwrap();
    assert_eq!(mount.read("f").await.unwrap(), bytes);
    let handle = mount.open("f", libc::O_RDONLY).await.unwrap();
    assert!(mount.fs.back(handle).is_some(), "it was fetched anew");
}

#[tokio::test(start_paused = true)]
async fn what_is_written_through_the_daemon_stays_there() {
    let bucket = Bucket::new();
    bucket.put("large", &content(17 << 20)).await;
    let mount = bucket.mount();
    mount.read("large").await.unwrap();
    let handle = mount.open("large", libc::O_RDWR).await.unwrap();
    assert!(mount.fs.back(handle).is_none(), "of a large file only what changed goes up");
    let through = bucket.mount_with(Options { write_mode: WriteMode::Through, ..Options::default() });
    let handle = through.open("new", NEW).await.unwrap();
    assert!(through.fs.back(handle).is_none(), "finished parts go up before the end");
}

#[tokio::test(start_paused = true)]
async fn the_bucket_copies_nothing_into_a_file_that_the_kernel_has() {
    let bucket = Bucket::new();
    bucket.put("from", &content(1000)).await;
    let mount = bucket.mount();
    let from = mount.open("from", libc::O_RDONLY).await.unwrap();
    let kernel = open(&mount, "to", NEW).await;
    let copied = Arc::clone(&mount.fs).copy_file_range((from, 0), (kernel.0, 0), 1000).await;
    assert!(matches!(copied, Err(Error::Unsupported)));
    close(&mount, kernel).await;
}
