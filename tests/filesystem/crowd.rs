//! More names than shall be in memory.

use std::ffi::OsStr;
use std::time::Duration;

use mediafs::error::Error;
use mediafs::store::Operation;
use tokio::time::sleep;

use crate::world::{Bucket, Options, World, requests};

/// Files of each directory.
const WIDTH: usize = 50;

async fn fill(bucket: &Bucket, directories: usize) {
    for at in 0..directories * WIDTH {
        bucket.put(&path(at), at.to_string().as_bytes()).await;
    }
}

fn path(at: usize) -> String {
    format!("{:02}/{:02}.jpg", at / WIDTH, at % WIDTH)
}

async fn opendir(mount: &World, name: &str) -> u64 {
    let ino = mount.stat(name).await.unwrap().ino;
    mount.fs.opendir(ino).await.unwrap()
}

/// How many names the rest of a listing has.
async fn rest(mount: &World, handle: u64, mut cookie: u64) -> usize {
    let mut count = 0;
    loop {
        let entries = mount.fs.readdir(handle, cookie, true).await.unwrap();
        let Some(last) = entries.last() else { return count };
        cookie = last.next;
        count += entries.len();
    }
}

/// Everything that may leave does: a directory after what is in it.
async fn all_leave(mount: &World) {
    for _ in 0..3 {
        mount.fs.thin_out(0).await;
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(mount.fs.names_in_memory(), 1, "the root");
}

#[tokio::test(start_paused = true)]
async fn a_walk_leaves_no_more_names_than_the_limit() {
    let bucket = Bucket::new();
    fill(&bucket, 40).await;
    let mount = bucket.mount_with(Options { names_limit: 500, ..Options::default() });
    for at in 0..40 * WIDTH {
        mount.stat(&path(at)).await.unwrap();
        if at % WIDTH == 0 {
            // The kernel's answers come between the requests.
            sleep(Duration::from_secs(1)).await;
            assert!(mount.fs.names_in_memory() <= 500 + WIDTH, "{at}: {}", mount.fs.names_in_memory());
        }
    }
    // What left is there, under the number that it had.
    let old = mount.stat("39/00.jpg").await.unwrap().ino;
    all_leave(&mount).await;
    assert_eq!(mount.stat("39/00.jpg").await.unwrap().ino, old);
    assert_eq!(mount.read("07/07.jpg").await.unwrap(), b"357");
    mount.unlink("07/07.jpg").await.unwrap();
    mount.fs.thin_out(0).await;
    sleep(Duration::from_secs(2)).await;
    assert!(!mount.exists("07/07.jpg").await);
}

#[tokio::test(start_paused = true)]
async fn names_that_are_not_there_take_no_more_room_either() {
    let bucket = Bucket::new();
    let mount = bucket.mount_with(Options { names_limit: 500, ..Options::default() });
    for at in 0..3_000 {
        assert!(!mount.exists(&format!("wp-login-{at}.php")).await);
        if at % 100 == 0 {
            sleep(Duration::from_secs(1)).await;
            assert!(mount.fs.names_in_memory() <= 600, "{at}: {}", mount.fs.names_in_memory());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_somebody_uses_stays() {
    let bucket = Bucket::new();
    fill(&bucket, 4).await;
    let mount = bucket.mount();
    let open = mount.open("00/01.jpg", libc::O_RDONLY).await.unwrap();
    mount.save("00/new.jpg", b"not sent yet").await.unwrap();
    mount.mkdir("made").await.unwrap();
    let handle = opendir(&mount, "01").await;
    let first = mount.fs.readdir(handle, 0, true).await.unwrap()[..10].to_vec();
    let listed = mount.counts.of(Operation::ListObjectsV2);
    mount.fs.thin_out(0).await;
    sleep(Duration::from_millis(10)).await;
    assert_eq!(mount.counts.of(Operation::PutObject), 0);
    assert_eq!(rest(&mount, handle, first.last().unwrap().next).await, WIDTH + 2 - 10);
    // Which was of no use: names of an open directory need not be listed again within the TTL.
    let again = opendir(&mount, "01").await;
    assert_eq!(rest(&mount, again, 0).await, WIDTH + 2);
    assert_eq!(mount.counts.of(Operation::ListObjectsV2), listed);
    assert_eq!(mount.read_handle(open, 0, 10).await.unwrap(), b"1");
    assert_eq!(mount.read("00/new.jpg").await.unwrap(), b"not sent yet");
    assert!(mount.stat("made").await.unwrap().ino > 0);
    mount.settle().await;
    mount.close(open).await.unwrap();
    // Saved here, and gone from memory: the bucket has it, and the cache its bytes.
    mount.fs.releasedir(handle);
    mount.fs.releasedir(again);
    all_leave(&mount).await;
    let before = mount.counts.of(Operation::GetObject);
    assert_eq!(mount.read("00/new.jpg").await.unwrap(), b"not sent yet");
    assert_eq!(mount.counts.of(Operation::GetObject), before);
}

/// A directory that was made here is known to hold nothing else, until names leave.
#[tokio::test(start_paused = true)]
async fn what_left_a_directory_that_was_made_here_is_asked_for() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    mount.mkdir("d").await.unwrap();
    for at in 0..30 {
        mount.save(&format!("d/{at:02}"), b"x").await.unwrap();
    }
    mount.settle().await;
    mount.fs.thin_out(20).await;
    sleep(Duration::from_millis(10)).await;
    assert!(mount.fs.names_in_memory() < 20);
    for at in 0..30 {
        assert!(mount.exists(&format!("d/{at:02}")).await, "{at}");
    }
    let ino = mount.stat("d").await.unwrap().ino;
    assert!(matches!(mount.fs.rmdir(1, OsStr::new("d")).await, Err(Error::NotEmpty)), "{ino}");
}

/// The rename learns all that is below, and then waits for headers: what it learned stays.
#[tokio::test(start_paused = true)]
async fn a_directory_moves_whole_whatever_leaves_memory_meanwhile() {
    let bucket = Bucket::new();
    fill(&bucket, 1).await;
    let mount = bucket.mount_with(Options { names_limit: 0, ..Options::default() });
    let fault = mediafs::store::fault::Fault::Latency(Duration::from_secs(1));
    bucket.faults.add(mediafs::store::fault::Rule::on(Operation::HeadObject).fault(fault.clone()));
    bucket.faults.add(mediafs::store::fault::Rule::on(Operation::ListObjectsV2).fault(fault));
    let moving = mount.rename("00", "moved");
    tokio::pin!(moving);
    loop {
        tokio::select! {
            moved = &mut moving => break moved.unwrap(),
            () = sleep(Duration::from_millis(50)) => mount.fs.thin_out(0).await,
        }
    }
    mount.settle().await;
    let keys = bucket.keys();
    assert!(keys.iter().all(|key| key.starts_with("moved/")) && keys.len() == WIDTH, "{keys:?} {:?}", requests(&mount));
}
