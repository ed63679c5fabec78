//! Files and directories as one host's programs see them, and what the bucket then holds.

use std::time::{Duration, SystemTime};

use mediafs::error::Error;
use mediafs::fs::{SetAttr, SetTime};
use mediafs::store::Operation;
use mediafs::store::fault::{Fault, Rule};

use crate::world::{Bucket, ME, Options, ROOT, requests};

#[tokio::test(start_paused = true)]
async fn what_is_saved_is_read_and_reaches_the_bucket() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    mount.mkdir("a").await.unwrap();
    mount.save("a/b.jpg", b"\xff\xd8\xff photo").await.unwrap();
    assert_eq!(mount.read("a/b.jpg").await.unwrap(), b"\xff\xd8\xff photo");
    mount.settle().await;
    assert_eq!(bucket.keys(), ["a/", "a/b.jpg"]);
    let (bytes, info) = bucket.memory.object(&"a/b.jpg".into()).unwrap();
    assert_eq!(&bytes[..], b"\xff\xd8\xff photo");
    assert_eq!(info.headers.content_type.as_deref(), Some("image/jpeg"));
    assert_eq!(info.headers.metadata.keys().collect::<Vec<_>>(), ["mtime"], "defaults are not written");
}

#[tokio::test(start_paused = true)]
async fn another_mount_with_an_empty_cache_sees_the_same() {
    let bucket = Bucket::new();
    let first = bucket.mount();
    first.mkdir("d").await.unwrap();
    first.save("d/f", b"bytes").await.unwrap();
    first.chmod("d/f", 0o600).await.unwrap();
    first.chmod("d", 0o700).await.unwrap();
    first.settle().await;
    let was = first.stat("d/f").await.unwrap();
    let second = bucket.mount();
    assert_eq!(second.read("d/f").await.unwrap(), b"bytes");
    let is = second.stat("d/f").await.unwrap();
    assert_eq!((is.mode, is.uid, is.gid, is.size, is.mtime), (0o600, ME.uid, ME.gid, 5, was.mtime));
    assert_eq!(second.stat("d").await.unwrap().mode, 0o700);
}

#[tokio::test(start_paused = true)]
async fn bytes_change_in_the_middle_at_the_end_and_by_truncation() {
    let bucket = Bucket::new();
    bucket.put("f", b"0123456789").await;
    let mount = bucket.mount();
    let handle = mount.open("f", libc::O_RDWR).await.unwrap();
    mount.write(handle, 3, b"xy").await.unwrap();
    mount.write(handle, 12, b"z").await.unwrap();
    mount.close(handle).await.unwrap();
    assert_eq!(mount.read("f").await.unwrap(), b"012xy56789\0\0z");
    mount.settle().await;
    assert_eq!(bucket.get("f").unwrap(), b"012xy56789\0\0z");
    let ino = mount.stat("f").await.unwrap().ino;
    mount.fs.setattr(ino, SetAttr { size: Some(4), ..SetAttr::default() }).await.unwrap();
    mount.fs.setattr(ino, SetAttr { size: Some(6), ..SetAttr::default() }).await.unwrap();
    assert_eq!(mount.read("f").await.unwrap(), b"012x\0\0");
    mount.settle().await;
    assert_eq!(bucket.get("f").unwrap(), b"012x\0\0");
}

#[tokio::test(start_paused = true)]
async fn an_unlinked_open_file_stays_readable_and_writable() {
    let bucket = Bucket::new();
    bucket.put("f", b"old bytes").await;
    let mount = bucket.mount();
    let handle = mount.open("f", libc::O_RDWR).await.unwrap();
    mount.unlink("f").await.unwrap();
    assert!(!mount.exists("f").await);
    mount.save("f", b"new file").await.unwrap();
    assert_eq!(mount.read_handle(handle, 0, 64).await.unwrap(), b"old bytes");
    mount.write(handle, 4, b"BYTES").await.unwrap();
    assert_eq!(mount.read_handle(handle, 0, 64).await.unwrap(), b"old BYTES");
    mount.close(handle).await.unwrap();
    assert_eq!(mount.read("f").await.unwrap(), b"new file");
    mount.settle().await;
    assert_eq!(bucket.get("f").unwrap(), b"new file");
}

#[tokio::test(start_paused = true)]
async fn exclusive_creation_is_exact() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    let exclusive = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
    let handle = mount.open("f", exclusive).await.unwrap();
    assert!(matches!(mount.open("f", exclusive).await, Err(Error::Exists)));
    mount.close(handle).await.unwrap();
    assert!(matches!(mount.open("f", exclusive).await, Err(Error::Exists)));
    mount.unlink("f").await.unwrap();
    let handle = mount.open("f", exclusive).await.unwrap();
    mount.close(handle).await.unwrap();
    mount.settle().await;
    assert_eq!(bucket.get("f").unwrap(), b"");
}

#[tokio::test(start_paused = true)]
async fn errors_are_exact() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    mount.mkdir("d").await.unwrap();
    mount.save("d/f", b"x").await.unwrap();
    assert!(matches!(mount.mkdir("d").await, Err(Error::Exists)));
    assert!(matches!(mount.mkdir("d/f").await, Err(Error::Exists)));
    assert!(matches!(mount.rmdir("d").await, Err(Error::NotEmpty)));
    assert!(matches!(mount.rmdir("d/f").await, Err(Error::NotDirectory)));
    assert!(matches!(mount.unlink("d").await, Err(Error::IsDirectory)));
    assert!(matches!(mount.unlink("d/none").await, Err(Error::NotFound)));
    assert!(matches!(mount.stat("d/f/x").await, Err(Error::NotDirectory)));
    assert!(matches!(mount.stat(&"n".repeat(256)).await, Err(Error::NameTooLong)));
    let deep = "d/".to_owned() + &"n".repeat(255);
    mount.save(&deep, b"").await.unwrap();
    mount.unlink(&deep).await.unwrap();
    mount.unlink("d/f").await.unwrap();
    mount.rmdir("d").await.unwrap();
    assert!(!mount.exists("d").await);
    mount.settle().await;
    assert!(bucket.keys().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_name_is_free_again_at_once_for_the_other_kind() {
    let bucket = Bucket::new();
    bucket.put("x/old", b"1").await;
    let mount = bucket.mount();
    mount.unlink("x/old").await.unwrap();
    mount.rmdir("x").await.unwrap();
    mount.save("x", b"a file now").await.unwrap();
    assert_eq!(mount.read("x").await.unwrap(), b"a file now");
    assert_eq!(mount.names("").await.unwrap(), ["x"]);
    mount.settle().await;
    assert_eq!(bucket.keys(), ["x"]);
    mount.unlink("x").await.unwrap();
    mount.mkdir("x").await.unwrap();
    mount.save("x/new", b"2").await.unwrap();
    mount.settle().await;
    assert_eq!(bucket.keys(), ["x/", "x/new"]);
    assert_eq!(mount.names("x").await.unwrap(), ["new"]);
}

#[tokio::test(start_paused = true)]
async fn a_directory_without_a_marker_outlives_its_last_child() {
    let bucket = Bucket::new();
    bucket.put("d/only", b"1").await;
    bucket.put("e/one", b"1").await;
    bucket.put("e/two", b"1").await;
    let mount = bucket.mount();
    mount.unlink("d/only").await.unwrap();
    mount.unlink("e/one").await.unwrap();
    assert!(mount.exists("d").await);
    mount.settle().await;
    assert_eq!(bucket.keys(), ["d/", "e/two"]);
    assert!(bucket.mount().exists("d").await);
}

#[tokio::test(start_paused = true)]
async fn listings_merge_what_is_wanted_with_what_is_there() {
    let bucket = Bucket::new();
    for key in ["a", "b", "d/x", "e/y", "a/hides-the-file"] {
        bucket.put(key, b"1").await;
    }
    bucket.put("d//empty", b"1").await;
    let mount = bucket.mount();
    mount.save("c", b"new").await.unwrap();
    mount.unlink("b").await.unwrap();
    mount.unlink("e/y").await.unwrap();
    mount.rmdir("e").await.unwrap();
    assert_eq!(mount.names("").await.unwrap(), ["a", "c", "d"]);
    assert_eq!(mount.names("d").await.unwrap(), ["x"]);
    assert_eq!(mount.fs.hidden_keys(), 2, "the file behind the directory, and the key without a name");
    assert!(mount.stat("a").await.unwrap().kind == mediafs::fs::Kind::Directory);
}

#[tokio::test(start_paused = true)]
async fn attributes_fold_into_the_upload_or_become_one_copy() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    mount.save("f.bin", b"1").await.unwrap();
    mount.chmod("f.bin", 0o644).await.unwrap();
    mount.chmod("f.bin", 0o600).await.unwrap();
    mount.settle().await;
    assert_eq!(mount.counts.snapshot().get("CopyObject"), None);
    let stamp = mediafs::clock::now() - std::time::Duration::from_secs(1_000_000);
    let ino = mount.stat("f.bin").await.unwrap().ino;
    for mode in [0o640, 0o644] {
        let set = SetAttr { mode: Some(mode), mtime: Some(SetTime::To(stamp)), ..SetAttr::default() };
        mount.fs.setattr(ino, set).await.unwrap();
    }
    mount.settle().await;
    assert_eq!(mount.counts.snapshot().get("CopyObject"), Some(&1));
    let fresh = bucket.mount();
    let attr = fresh.stat("f.bin").await.unwrap();
    assert_eq!((attr.mode, attr.mtime), (0o644, stamp));
    assert_eq!(fresh.read("f.bin").await.unwrap(), b"1");
}

#[tokio::test(start_paused = true)]
async fn symlinks_are_kept_and_followed_only_inside() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    mount.fs.symlink(ROOT, "in".as_ref(), "d/f".as_ref(), ME).await.unwrap();
    mount.fs.symlink(ROOT, "out".as_ref(), "/etc/passwd".as_ref(), ME).await.unwrap();
    let ino = mount.stat("out").await.unwrap().ino;
    assert_eq!(mount.fs.readlink(ino).await.unwrap(), b"/etc/passwd", "made on this host");
    mount.settle().await;
    assert_eq!(bucket.get("out").unwrap(), b"/etc/passwd");
    let other = bucket.mount();
    let ino = other.stat("in").await.unwrap().ino;
    assert_eq!(other.fs.readlink(ino).await.unwrap(), b"d/f");
    let ino = other.stat("out").await.unwrap().ino;
    assert!(matches!(other.fs.readlink(ino).await, Err(Error::Denied)), "another host's link out of the mount");
}

#[tokio::test(start_paused = true)]
async fn a_restart_carries_on_with_what_was_not_sent() {
    let bucket = Bucket::new();
    bucket.put("old", b"old").await;
    bucket.put("gone", b"gone").await;
    let first = bucket.mount();
    first.mkdir("d").await.unwrap();
    first.save("d/f", b"unsent").await.unwrap();
    first.rename("old", "moved").await.unwrap();
    first.unlink("gone").await.unwrap();
    let folder = std::sync::Arc::clone(&first.folder);
    first.writer.stop();
    let second = bucket.mount_in(folder, crate::world::Options::default());
    assert_eq!(second.names("").await.unwrap(), ["d", "moved"]);
    assert_eq!(second.read("d/f").await.unwrap(), b"unsent");
    assert_eq!(second.read("moved").await.unwrap(), b"old");
    assert!(!second.exists("gone").await && !second.exists("old").await);
    second.settle().await;
    assert_eq!(bucket.keys(), ["d/", "d/f", "moved"]);
}

#[tokio::test(start_paused = true)]
async fn where_the_store_folds_spellings_they_are_one_file_here_too() {
    let bucket = Bucket::new();
    let mount = bucket.mount_with(Options { folds_names: true, ..Options::default() });
    let (composed, decomposed) = ("caf\u{e9}.jpg", "cafe\u{301}.jpg");
    mount.save(decomposed, b"first").await.unwrap();
    let exclusive = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
    assert!(matches!(mount.save_with(composed, b"second", exclusive).await, Err(Error::Exists)));
    assert_eq!(mount.read(composed).await.unwrap(), b"first");
    assert_eq!(mount.names("").await.unwrap(), [composed]);
    mount.settle().await;
    assert_eq!(bucket.keys(), [composed]);
    bucket.put("e\u{301}", b"by another program").await;
    tokio::time::advance(std::time::Duration::from_secs(11)).await;
    assert_eq!(mount.names("").await.unwrap(), [composed, "\u{e9}"]);
    let separate = bucket.mount();
    separate.save(decomposed, b"its own").await.unwrap();
    assert_eq!(separate.read(composed).await.unwrap(), b"first");
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_no_longer_gives_its_owners_rights_away() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    mount.save("f", b"bytes").await.unwrap();
    let ino = mount.stat("f").await.unwrap().ino;
    let mode = async || mount.stat("f").await.unwrap().mode;
    let changes = [SetAttr { size: Some(2), ..SetAttr::default() }, SetAttr { uid: Some(ME.uid), ..SetAttr::default() }];
    for (before, after) in [(0o6755, 0o755), (0o2745, 0o2745), (0o1644, 0o1644)] {
        for change in changes {
            mount.save("f", b"bytes").await.unwrap();
            mount.chmod("f", before).await.unwrap();
            mount.fs.setattr(ino, change).await.unwrap();
            assert_eq!(mode().await, after, "{before:o} and {change:?}");
        }
        mount.chmod("f", before).await.unwrap();
        let handle = mount.open("f", libc::O_WRONLY).await.unwrap();
        mount.write(handle, 0, b"x").await.unwrap();
        mount.close(handle).await.unwrap();
        assert_eq!(mode().await, after, "{before:o} and a write");
    }
    mount.mkdir("d").await.unwrap();
    mount.chmod("d", 0o2775).await.unwrap();
    let directory = mount.stat("d").await.unwrap().ino;
    mount.fs.setattr(directory, changes[1]).await.unwrap();
    assert_eq!(mount.stat("d").await.unwrap().mode, 0o2775, "a directory hands its group on");
}

#[tokio::test(start_paused = true)]
async fn a_directory_counts_its_subdirectories_once_it_knows_them() {
    let bucket = Bucket::new();
    bucket.put("d/a/x", b"1").await;
    bucket.put("d/b/y", b"1").await;
    bucket.put("d/f", b"1").await;
    let mount = bucket.mount();
    let links = async |path| mount.stat(path).await.unwrap().nlink;
    assert_eq!(links("d").await, 1, "not counted yet");
    mount.names("d").await.unwrap();
    assert_eq!(links("d").await, 4);
    mount.mkdir("d/c").await.unwrap();
    assert_eq!((links("d").await, links("d/c").await), (5, 2));
    mount.mkdir("e").await.unwrap();
    mount.rename("d/c", "e/c").await.unwrap();
    assert_eq!((links("d").await, links("e").await), (4, 3));
    mount.rmdir("e/c").await.unwrap();
    assert_eq!((links("e").await, links("d/f").await), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_read_moves_the_access_time_when_it_is_older_than_the_last_change() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    mount.save("f", b"bytes").await.unwrap();
    let ino = mount.stat("f").await.unwrap().ino;
    let long_ago = SetTime::To(SystemTime::UNIX_EPOCH + Duration::from_secs(1));
    mount.fs.setattr(ino, SetAttr { atime: Some(long_ago), mtime: Some(long_ago), ..SetAttr::default() }).await.unwrap();
    assert_eq!(mount.read("f").await.unwrap(), b"bytes");
    let read = mount.stat("f").await.unwrap();
    assert!(read.atime > read.mtime + Duration::from_secs(1_000_000), "{read:?}");
    assert_eq!(mount.read("f").await.unwrap(), b"bytes");
    assert_eq!(mount.stat("f").await.unwrap().atime, read.atime, "nothing changed since");
    mount.save("f", b"other").await.unwrap();
    assert_eq!(mount.read("f").await.unwrap(), b"other");
    let again = mount.stat("f").await.unwrap();
    assert!(again.atime >= again.mtime && again.atime > read.atime);
}

#[tokio::test(start_paused = true)]
async fn with_noatime_no_read_moves_an_access_time() {
    let bucket = Bucket::new();
    let mount = bucket.mount_with(Options { no_access_times: true, ..Options::default() });
    mount.mkdir("d").await.unwrap();
    mount.save("d/f", b"bytes").await.unwrap();
    let before = (mount.stat("d").await.unwrap().atime, mount.stat("d/f").await.unwrap().atime);
    assert_eq!(mount.read("d/f").await.unwrap(), b"bytes");
    assert_eq!(mount.names("d").await.unwrap(), ["f"]);
    assert_eq!((mount.stat("d").await.unwrap().atime, mount.stat("d/f").await.unwrap().atime), before);
}

#[tokio::test(start_paused = true)]
async fn a_time_that_was_set_on_a_directory_is_kept_with_its_marker() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    mount.mkdir("d").await.unwrap();
    mount.save("d/f", b"bytes").await.unwrap();
    let ino = mount.stat("d").await.unwrap().ino;
    let long_ago = SystemTime::UNIX_EPOCH + Duration::new(1, 23);
    mount.fs.setattr(ino, SetAttr { mtime: Some(SetTime::To(long_ago)), ..SetAttr::default() }).await.unwrap();
    mount.settle().await;
    assert_eq!(bucket.mount().stat("d").await.unwrap().mtime, long_ago);
    let before = requests(&mount);
    mount.save("d/g", b"bytes").await.unwrap();
    mount.settle().await;
    assert!(mount.stat("d").await.unwrap().mtime > long_ago, "a new name in it moves it here");
    let puts = |counts: &[(&'static str, u64)]| counts.iter().find(|(name, _)| *name == "PutObject").map_or(0, |(_, count)| *count);
    assert_eq!(puts(&requests(&mount)), puts(&before) + 1, "but costs no request");
}

#[tokio::test(start_paused = true)]
async fn truncation_by_open_moves_the_times_of_an_empty_file() {
    let bucket = Bucket::new();
    bucket.put_with("stamp", b"", &[("mtime", "5.000000000")]).await;
    let mount = bucket.mount();
    let before = mount.stat("stamp").await.unwrap();
    assert_eq!(before.mtime, SystemTime::UNIX_EPOCH + Duration::from_secs(5));
    let handle = mount.open("stamp", libc::O_WRONLY | libc::O_TRUNC).await.unwrap();
    mount.close(handle).await.unwrap();
    let after = mount.stat("stamp").await.unwrap();
    assert!(after.mtime > before.mtime && after.ctime > before.ctime);
    mount.settle().await;
    assert_eq!(bucket.mount().stat("stamp").await.unwrap().mtime, after.mtime, "and the bucket knows");
}

#[tokio::test(start_paused = true)]
async fn a_link_that_was_learned_before_is_one_also_where_only_a_listing_shows_it() {
    let bucket = Bucket::new();
    let first = bucket.mount();
    first.fs.symlink(ROOT, "link".as_ref(), "d/f".as_ref(), ME).await.unwrap();
    first.settle().await;
    tokio::time::advance(std::time::Duration::from_secs(11)).await;
    first.stat("link").await.unwrap();
    first.writer.stop();
    let second = bucket.mount_in(std::sync::Arc::clone(&first.folder), Options::default());
    assert_eq!(second.names("").await.unwrap(), ["link"]);
    let attr = second.stat("link").await.unwrap();
    assert_eq!(attr.kind, mediafs::fs::Kind::Symlink);
    assert_eq!(second.fs.readlink(attr.ino).await.unwrap(), b"d/f");
}

#[tokio::test(start_paused = true)]
async fn a_name_of_white_space_is_refused_without_asking() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    assert!(!mount.exists(" ").await);
    assert!(matches!(mount.save(" ", b"x").await, Err(Error::Invalid)));
    assert!(matches!(mount.open("\n", libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY).await, Err(Error::Invalid)));
    assert!(matches!(mount.mkdir("\t").await, Err(Error::Invalid)));
    assert_eq!(requests(&mount), []);
    mount.save("f", b"x").await.unwrap();
    assert!(matches!(mount.rename("f", " ").await, Err(Error::Invalid)));
    mount.mkdir("d").await.unwrap();
    mount.save("d/ ", b"below a directory it is a key like any other").await.unwrap();
    mount.settle().await;
    assert_eq!(bucket.keys(), ["d/", "d/ ", "f"]);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_removed_while_it_goes_up_stays_removed() {
    let bucket = Bucket::new();
    bucket.faults.add(Rule::on(Operation::PutObject).fault(Fault::Latency(Duration::from_secs(1))));
    let mount = bucket.mount();
    mount.mkdir("d").await.unwrap();
    for name in ["d/one", "d/two"] {
        mount.save(name, b"bytes").await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    for name in ["d/one", "d/two"] {
        mount.unlink(name).await.unwrap();
    }
    for _ in 0..30 {
        assert!(mount.names("d").await.unwrap().is_empty());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    mount.rmdir("d").await.unwrap();
    mount.settle().await;
    assert!(bucket.keys().is_empty(), "{:?}", bucket.keys());
}

#[tokio::test(start_paused = true)]
async fn what_a_listing_hid_once_does_not_hold_its_directory_for_ever() {
    let bucket = Bucket::new();
    bucket.put("d/x", b"hidden by the directory of its name").await;
    bucket.put("d/x/y", b"1").await;
    let mount = bucket.mount();
    assert_eq!((mount.names("d").await.unwrap(), mount.fs.hidden_keys()), (vec!["x".to_owned()], 1));
    mount.unlink("d/x/y").await.unwrap();
    mount.rmdir("d/x").await.unwrap();
    assert!(matches!(mount.rmdir("d").await, Err(Error::NotEmpty)), "it is still there");
    mount.settle().await;
    tokio::time::advance(Duration::from_secs(11)).await;
    mount.unlink("d/x").await.unwrap();
    mount.rmdir("d").await.unwrap();
    mount.settle().await;
    assert_eq!((bucket.keys(), mount.fs.hidden_keys()), (Vec::new(), 0));
}

#[tokio::test(start_paused = true)]
async fn a_removed_name_is_free_at_once_while_the_bucket_still_has_it() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    mount.save("a", b"old").await.unwrap();
    mount.settle().await;
    bucket.faults.add(Rule::on(Operation::DeleteObject).fault(Fault::LateReply(Duration::from_secs(2))));
    mount.unlink("a").await.unwrap();
    for wait_ms in [10, 500, 1500, 3000] {
        let asked = mount.counts.of(Operation::HeadObject);
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        mount.save_with("a", b"new", libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL).await.unwrap();
        assert!(mount.counts.of(Operation::HeadObject) <= asked + 2, "after {wait_ms} ms");
        mount.unlink("a").await.unwrap();
    }
    mount.settle().await;
    assert!(bucket.keys().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_bucket_slower_than_an_absence_is_believed_is_asked_once() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    bucket.faults.add(Rule::any().fault(Fault::LateReply(Duration::from_secs(2))));
    assert!(!mount.exists("missing").await);
    let asked: u64 = requests(&mount).iter().map(|(_, count)| count).sum();
    assert!(asked <= 2, "{asked} requests");
}
