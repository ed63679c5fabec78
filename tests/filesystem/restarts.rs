//! A kill in the middle of things, and the mount that comes after it.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use mediafs::fs::{Fs, RenameFlags};
use mediafs::store::fault::{Fault, Rule, When};
use mediafs::store::{ErrorKind, ObjectStore, Operation};

use crate::world::{Bucket, Meanwhile, Options, ROOT, World, data_files};

const EXCHANGE: RenameFlags = RenameFlags { no_replace: false, exchange: true };

#[tokio::test(start_paused = true)]
async fn what_was_written_after_the_daemon_died_keeps_its_mode() {
    let bucket = Bucket::new();
    bucket.put_with("a", b"bytes", &[("mode", "0100600"), ("owner", "theirs")]).await;
    let mount = bucket.mount();
    let open = mount.open("a", libc::O_RDWR).await.unwrap();
    mount.write(open, 0, b"BYTES").await.unwrap();
    mount.fs.fsync(open).await.unwrap();
    let folder = killed(&mount);
    std::fs::write(&data_files(folder.path())[0], b"written on").unwrap();
    let next = bucket.mount_in(folder, Options::default());
    next.settle().await;
    assert_eq!(bucket.get("a").unwrap(), b"written on");
    let (_, info) = bucket.memory.object(&"a".into()).unwrap();
    assert_eq!((&*info.headers.metadata["mode"], &*info.headers.metadata["owner"]), ("0100600", "theirs"));
}

/// What a kill at this moment leaves: of what was learned of attributes, not all.
fn killed(mount: &World) -> Arc<tempfile::TempDir> {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let copied = std::process::Command::new("cp").arg("-a").arg(mount.folder.path().join(".")).arg(folder.path()).status();
    assert!(copied.unwrap().success());
    mount.writer.stop();
    folder
}

#[tokio::test(start_paused = true)]
async fn what_was_exchanged_before_a_restart_keeps_its_mode() {
    let bucket = Bucket::new();
    bucket.put_with("a", b"first", &[("mode", "0100600")]).await;
    bucket.put_with("b", b"second", &[("mode", "0100640")]).await;
    let mount = bucket.mount();
    for operation in [Operation::CopyObject, Operation::PutObject, Operation::GetObject] {
        bucket.faults.add(Rule::on(operation).fault(Fault::Error(ErrorKind::Unavailable)));
    }
    mount.rename_with("a", "b", EXCHANGE).await.unwrap();
    let folder = killed(&mount);
    bucket.faults.clear();
    let next = bucket.mount_in(folder, Options::default());
    // When the source is asked for, something else is there already; and the name has its old object still.
    bucket.faults.add(Rule::on(Operation::PutObject).when(When::First(1)).fault(Fault::Latency(Duration::from_secs(9))));
    bucket.faults.add(Rule::on(Operation::HeadObject).when(When::First(1)).fault(Fault::Latency(Duration::from_secs(5))));
    for _ in 0..2 {
        assert_eq!((next.stat("a").await.unwrap().mode, next.stat("b").await.unwrap().mode), (0o640, 0o600));
        next.settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_uploaded_to_close_a_circle_is_written_on_in_place() {
    let bucket = Bucket::new();
    bucket.put("a", b"first").await;
    bucket.put("b", b"second").await;
    let mount = bucket.mount();
    assert_eq!((mount.read("a").await.unwrap(), mount.read("b").await.unwrap()), (b"first".to_vec(), b"second".to_vec()));
    for operation in [Operation::CopyObject, Operation::PutObject] {
        bucket.faults.add(Rule::on(operation).fault(Fault::Error(ErrorKind::Unavailable)));
    }
    mount.rename_with("a", "b", EXCHANGE).await.unwrap();
    let folder = Arc::clone(&mount.folder);
    mount.writer.stop();
    drop(mount);
    let next = bucket.mount_in(folder, Options::default());
    assert!(next.exists("a").await && next.exists("b").await);
    // By now the bytes of one side are taken for an upload.
    tokio::time::sleep(Duration::from_secs(30)).await;
    for name in ["a", "b"] {
        let handle = next.open(name, libc::O_RDWR).await.unwrap();
        next.write(handle, 0, b"F").await.unwrap();
        next.close(handle).await.unwrap();
    }
    bucket.faults.clear();
    next.settle().await;
    assert_eq!((bucket.get("a").unwrap(), bucket.get("b").unwrap()), (b"Fecond".to_vec(), b"First".to_vec()));
    assert_eq!(data_files(next.folder.path()).len(), 2, "no file is left over");
}

const LATER: Duration = Duration::from_secs(5);

/// What a mount leaves that was killed before it could send these.
async fn unsent(bucket: &Bucket, directories: &[&str], files: &[&str]) -> Arc<tempfile::TempDir> {
    let mount = bucket.mount();
    for directory in directories {
        mount.mkdir(directory).await.unwrap();
    }
    mount.settle().await;
    for operation in [Operation::PutObject, Operation::CopyObject] {
        bucket.faults.add(Rule::on(operation).fault(Fault::Error(ErrorKind::Unavailable)));
    }
    for file in files {
        mount.save(file, b"bytes").await.unwrap();
    }
    let folder = killed(&mount);
    bucket.faults.clear();
    folder
}

/// The first listing is as old as its question, and what waits has arrived before it is answered.
fn first_listing_comes_late(bucket: &Bucket) {
    bucket.faults.add(Rule::on(Operation::ListObjectsV2).when(When::First(1)).fault(Fault::LateReply(LATER)));
    bucket.faults.add(Rule::on(Operation::PutObject).fault(Fault::Latency(Duration::from_secs(1))));
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_what_waited_overtakes_shows_it_all_the_same() {
    let bucket = Bucket::new();
    let folder = unsent(&bucket, &["d", "d/sub"], &["d/sub/f", "d/f", "f"]).await;
    for marker in ["d/", "d/sub/"] {
        bucket.memory.delete(&marker.into()).await.unwrap();
    }
    let next = bucket.mount_in(folder, Options::default());
    first_listing_comes_late(&bucket);
    assert_eq!(next.names("").await.unwrap(), ["d", "f"]);
    assert_eq!(bucket.keys(), ["d/f", "d/sub/f", "f"], "they were on their way");
    assert_eq!(next.names("d").await.unwrap(), ["f", "sub"]);
    assert_eq!(next.read("d/sub/f").await.unwrap(), b"bytes");
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_what_waited_overtakes_finds_it_all_the_same() {
    let bucket = Bucket::new();
    // A name like a file's: that it is a directory is asked.
    let folder = unsent(&bucket, &["d.x"], &["d.x/f"]).await;
    bucket.memory.delete(&"d.x/".into()).await.unwrap();
    let next = bucket.mount_in(folder, Options::default());
    bucket.faults.add(Rule::on(Operation::ListObjectsV2).when(When::First(1)).fault(Fault::LateReply(Duration::from_secs(3))));
    bucket.faults.add(Rule::on(Operation::PutObject).fault(Fault::Latency(Duration::from_secs(1))));
    assert!(next.exists("d.x").await);
    assert_eq!(bucket.keys(), ["d.x/f"], "it was on its way");
    assert_eq!(next.read("d.x/f").await.unwrap(), b"bytes");
    assert_eq!(next.fs.degraded(), None);
}

#[tokio::test(start_paused = true)]
async fn a_directory_is_there_by_what_waits_in_it() {
    let bucket = Bucket::new();
    let folder = unsent(&bucket, &["d.x"], &["d.x/f"]).await;
    bucket.memory.delete(&"d.x/".into()).await.unwrap();
    let next = bucket.mount_in(folder, Options::default());
    bucket.faults.add(Rule::on(Operation::PutObject).fault(Fault::Error(ErrorKind::Denied)));
    assert!(next.exists("d.x").await);
    assert_eq!(next.read("d.x/f").await.unwrap(), b"bytes");
}

#[tokio::test(start_paused = true)]
async fn a_directory_takes_along_what_arrives_while_it_is_looked_through() {
    let bucket = Bucket::new();
    let folder = unsent(&bucket, &["d", "d/sub"], &["d/sub/f", "d/f"]).await;
    let next = bucket.mount_in(folder, Options::default());
    assert!(next.exists("d").await && !next.exists("e").await);
    first_listing_comes_late(&bucket);
    next.rename("d", "e").await.unwrap();
    next.settle().await;
    assert_eq!(bucket.keys(), ["e/", "e/f", "e/sub/", "e/sub/f"]);
    assert_eq!(next.names("e").await.unwrap(), ["f", "sub"]);
    assert_eq!(next.read("e/sub/f").await.unwrap(), b"bytes");
}

/// On two threads a listing can be answered between the end of an upload and the word of it.
#[tokio::test(start_paused = true)]
async fn a_listing_answered_before_word_of_an_upload_came_shows_what_it_brought() {
    type Listing = BoxFuture<'static, mediafs::error::Result<Vec<mediafs::fs::DirEntry>>>;
    let bucket = Bucket::new();
    let folder = unsent(&bucket, &[], &["f"]).await;
    let listing: Arc<Mutex<Option<Listing>>> = Arc::default();
    let going_on = Arc::clone(&listing);
    let meanwhile: Meanwhile = Arc::new(move |_: &Fs, _| {
        let mut listing = going_on.lock().unwrap();
        assert!(listing.as_mut().is_some_and(|listing| listing.now_or_never().is_none()), "it asks again");
    });
    let all_at_once = Duration::from_secs(1);
    bucket.faults.add(Rule::on(Operation::ListObjectsV2).when(When::First(1)).fault(Fault::LateReply(all_at_once)));
    bucket.faults.add(Rule::on(Operation::ListObjectsV2).fault(Fault::Latency(all_at_once)));
    bucket.faults.add(Rule::on(Operation::PutObject).fault(Fault::Latency(all_at_once)));
    let next = bucket.mount_in(folder, Options { meanwhile: Some(meanwhile), ..Options::default() });
    let fs = Arc::clone(&next.fs);
    let mut begun: Listing = async move {
        let handle = fs.opendir(ROOT).await?;
        fs.readdir(handle, 2, false).await
    }
    .boxed();
    assert!((&mut begun).now_or_never().is_none());
    *listing.lock().unwrap() = Some(begun);
    next.settle().await;
    let listing = listing.lock().unwrap().take().unwrap();
    let names: Vec<_> = listing.await.unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["f"]);
}

/// Two versions of a marker in one second have the same ETag and the same time.
#[tokio::test(start_paused = true)]
async fn a_directory_whose_mode_changed_within_a_second_has_that_after_a_kill() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    mount.mkdir("d").await.unwrap();
    mount.settle().await;
    assert_eq!(mount.stat("d").await.unwrap().mode, 0o755);
    // What was learned so far is on the disk.
    mount.cache.persist().unwrap();
    mount.chmod("d", 0o700).await.unwrap();
    mount.settle().await;
    let next = bucket.mount_in(killed(&mount), Options::default());
    assert_eq!(next.stat("d").await.unwrap().mode, 0o700);
}

/// What was saved here has its attributes after a restart by the journal, though the answer to an upload doesn't say when the
/// store dated it; unless the answer took so long that another host may have changed them since. The store's clock may be off.
#[tokio::test(start_paused = true)]
async fn what_was_saved_here_is_not_asked_for_after_a_restart() {
    for (behind_s, late_s, asked) in [(0, 0, None), (900, 0, None), (0, 4, None), (0, 7, Some(1))] {
        let bucket = if behind_s > 0 { Bucket::behind(Duration::from_secs(behind_s)) } else { Bucket::on_virtual_time() };
        bucket.faults.add(Rule::on(Operation::PutObject).fault(Fault::LateReply(Duration::from_secs(late_s))));
        let mount = bucket.mount();
        mount.save("a", b"bytes").await.unwrap();
        mount.chmod("a", 0o600).await.unwrap();
        mount.settle().await;
        mount.cache.persist().unwrap();
        let next = bucket.mount_in(killed(&mount), Options::default());
        assert_eq!(next.names("").await.unwrap(), ["a"]);
        assert_eq!(next.stat("a").await.unwrap().mode, 0o600);
        assert_eq!(next.counts.snapshot().get("HeadObject").copied(), asked, "{behind_s} s behind, {late_s} s late");
        // By now the store's own time is known, also to the next daemon.
        next.cache.persist().unwrap();
        let last = bucket.mount_in(killed(&next), Options::default());
        assert_eq!((last.names("").await.unwrap(), last.stat("a").await.unwrap().mode), (vec!["a".to_owned()], 0o600));
        assert_eq!(last.counts.snapshot().get("HeadObject"), None, "{behind_s} s behind, {late_s} s late");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rename_over_the_same_bytes_brings_its_mode_over_a_kill() {
    for is_known in [false, true] {
        let bucket = Bucket::new();
        let mount = bucket.mount();
        mount.save("b", b"bytes").await.unwrap();
        mount.chmod("b", 0o640).await.unwrap();
        mount.settle().await;
        bucket.put_with("a", b"bytes", &[("mode", "0100600")]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(mount.names("").await.unwrap(), ["a", "b"]);
        assert!(!is_known || mount.stat("a").await.unwrap().mode == 0o600);
        mount.cache.persist().unwrap();
        mount.rename("a", "b").await.unwrap();
        mount.settle().await;
        let next = bucket.mount_in(killed(&mount), Options::default());
        assert_eq!(next.names("").await.unwrap(), ["b"]);
        assert_eq!(next.stat("b").await.unwrap().mode, 0o600, "known {is_known}");
    }
}
