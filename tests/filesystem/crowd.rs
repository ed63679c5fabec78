//! More names than shall be in memory.

use std::ffi::OsStr;
use std::time::Duration;

use mediafs::error::Error;
use mediafs::store::Operation;
use mediafs::store::fault::{Fault, Rule};
use tokio::time::{Instant, sleep};

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
    sleep(Duration::from_secs(11)).await;
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
    bucket.faults.add(Rule::on(Operation::PutObject).fault(Fault::Latency(Duration::from_secs(30))));
    let mount = bucket.mount();
    let open = mount.open("00/01.jpg", libc::O_RDONLY).await.unwrap();
    mount.save("00/new.jpg", b"not sent yet").await.unwrap();
    mount.mkdir("made").await.unwrap();
    sleep(Duration::from_secs(11)).await;
    mount.fs.thin_out(0).await;
    sleep(Duration::from_millis(10)).await;
    assert_eq!(mount.fs.names_in_memory(), 5, "the root, two directories, two files");
    assert_eq!(mount.read_handle(open, 0, 10).await.unwrap(), b"1");
    assert_eq!(mount.read("00/new.jpg").await.unwrap(), b"not sent yet");
    assert!(mount.exists("made").await);
    assert!(!bucket.keys().contains(&"00/new.jpg".to_owned()));
    mount.close(open).await.unwrap();
    mount.settle().await;
    // Saved here, and gone from memory: the bucket has it, and the cache its bytes.
    all_leave(&mount).await;
    let before = mount.counts.of(Operation::GetObject);
    assert_eq!(mount.read("00/new.jpg").await.unwrap(), b"not sent yet");
    assert_eq!(mount.counts.of(Operation::GetObject), before);
}

/// It was used longest ago, but somebody is in the midst of it.
#[tokio::test(start_paused = true)]
async fn names_of_an_open_directory_stay() {
    let bucket = Bucket::new();
    fill(&bucket, 10).await;
    let mount = bucket.mount();
    let handle = opendir(&mount, "00").await;
    let first = mount.fs.readdir(handle, 0, true).await.unwrap()[..10].to_vec();
    for at in 1..10 {
        let other = opendir(&mount, &format!("{at:02}")).await;
        assert_eq!(rest(&mount, other, 0).await, WIDTH + 2);
        mount.fs.releasedir(other);
    }
    mount.fs.thin_out(8 * WIDTH).await;
    assert!(mount.fs.names_in_memory() < 8 * WIDTH);
    let before = requests(&mount);
    assert_eq!(rest(&mount, handle, first.last().unwrap().next).await, WIDTH + 2 - 10);
    let again = opendir(&mount, "00").await;
    assert_eq!(rest(&mount, again, 0).await, WIDTH + 2);
    assert_eq!(requests(&mount), before);
}

async fn stat_all(mount: &World) {
    for at in 0..WIDTH {
        mount.stat(&path(at)).await.unwrap();
    }
}

/// Each of its names would be a question of its own.
#[tokio::test(start_paused = true)]
async fn a_wide_directory_that_was_just_listed_stays_until_that_is_old() {
    let bucket = Bucket::new();
    fill(&bucket, 1).await;
    let mount = bucket.mount_with(Options { names_limit: 20, ..Options::default() });
    let handle = opendir(&mount, "00").await;
    rest(&mount, handle, 0).await;
    mount.fs.releasedir(handle);
    stat_all(&mount).await;
    sleep(Duration::from_secs(8)).await;
    let before = requests(&mount);
    stat_all(&mount).await;
    assert_eq!((requests(&mount), mount.fs.names_in_memory()), (before, WIDTH + 2));
    sleep(Duration::from_secs(15)).await;
    assert!(mount.fs.names_in_memory() <= 20, "{}", mount.fs.names_in_memory());
}

/// What has to be asked for anyhow goes before it is too much; what need not, stays.
#[tokio::test(start_paused = true)]
async fn close_to_the_limit_what_is_old_goes() {
    let bucket = Bucket::new();
    fill(&bucket, 4).await;
    let mount = bucket.mount_with(Options { names_limit: 210, ..Options::default() });
    stat_all(&mount).await;
    sleep(Duration::from_secs(11)).await;
    for at in WIDTH..4 * WIDTH {
        mount.stat(&path(at)).await.unwrap();
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(mount.fs.names_in_memory(), 161, "most of the first directory");
    let before = requests(&mount);
    for at in WIDTH..4 * WIDTH {
        mount.stat(&path(at)).await.unwrap();
    }
    assert_eq!(requests(&mount), before);
}

#[tokio::test(start_paused = true)]
async fn who_saves_more_than_may_wait_goes_at_the_pace_of_the_uploads() {
    let bucket = Bucket::new();
    bucket.faults.add(Rule::on(Operation::PutObject).fault(Fault::Latency(Duration::from_secs(1))));
    let mount = bucket.mount_with(Options { waiting_limit: 10, ..Options::default() });
    let begun = Instant::now();
    for at in 0..10 {
        mount.save(&at.to_string(), b"x").await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_millis(10));
    for at in 10..80 {
        mount.save(&at.to_string(), b"x").await.unwrap();
    }
    // Sixteen at a time, a second each.
    assert!(begun.elapsed() > Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(mount.writer.backlog().dirty_files <= 10 + 16);
}

/// Otherwise each new name would have to be asked for.
#[tokio::test(start_paused = true)]
async fn a_directory_that_is_being_filled_stays() {
    let bucket = Bucket::new();
    let mount = bucket.mount_with(Options { names_limit: 700, ..Options::default() });
    mount.mkdir("d").await.unwrap();
    for at in 0..2_500 {
        mount.save(&format!("d/{at:04}"), b"x").await.unwrap();
        sleep(Duration::from_millis(20)).await;
    }
    let asked = mount.counts.of(Operation::HeadObject) + mount.counts.of(Operation::ListObjectsV2);
    assert!(asked < 150, "a LIST or two a second: {:?}", requests(&mount));
    mount.settle().await;
    sleep(Duration::from_secs(30)).await;
    assert!(mount.fs.names_in_memory() <= 700, "{}", mount.fs.names_in_memory());
}

/// A directory that was made here is known to hold nothing else, until names leave.
#[tokio::test(start_paused = true)]
async fn what_left_a_directory_that_was_made_here_is_asked_for() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    for at in 0..320 {
        if at % 16 == 0 {
            mount.mkdir(&format!("{:02}", at / 16)).await.unwrap();
        }
        mount.save(&format!("{:02}/{at}", at / 16), b"x").await.unwrap();
    }
    mount.settle().await;
    sleep(Duration::from_secs(3)).await;
    mount.fs.thin_out(150).await;
    sleep(Duration::from_millis(10)).await;
    assert!(mount.fs.names_in_memory() < 150);
    for at in 0..10 {
        mount.save(&format!("00/new-{at}"), b"x").await.unwrap();
    }
    for at in 0..320 {
        assert!(mount.exists(&format!("{:02}/{at}", at / 16)).await, "{at}");
    }
    mount.fs.thin_out(150).await;
    sleep(Duration::from_millis(10)).await;
    for at in 0..20 {
        assert!(matches!(mount.fs.rmdir(1, OsStr::new(&format!("{at:02}"))).await, Err(Error::NotEmpty)), "{at}");
    }
}

/// The rename learns all that is below, and then waits for headers: what it learned stays.
#[tokio::test(start_paused = true)]
async fn a_directory_moves_whole_whatever_leaves_memory_meanwhile() {
    let bucket = Bucket::new();
    fill(&bucket, 1).await;
    let mount = bucket.mount_with(Options { names_limit: 0, ..Options::default() });
    for asks in [Operation::HeadObject, Operation::ListObjectsV2] {
        bucket.faults.add(Rule::on(asks).fault(Fault::Latency(Duration::from_secs(1))));
    }
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
