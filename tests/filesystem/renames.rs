//! rename(2) in all its forms: clean and dirty, files and directories, over what exists, exchanged.

use std::time::Duration;

use futures::FutureExt;
use mediafs::error::Error;
use mediafs::fs::{RenameFlags, SetAttr};
use mediafs::store::fault::{Fault, Rule, When};
use mediafs::store::{Body, Condition, ErrorKind, ObjectStore, Operation};
use mediafs::types::ObjectHeaders;

use crate::world::{Bucket, Meanwhile, Options, ROOT, World, data_files, requests};

const EXCHANGE: RenameFlags = RenameFlags { no_replace: false, exchange: true };
const NO_REPLACE: RenameFlags = RenameFlags { no_replace: true, exchange: false };

#[tokio::test(start_paused = true)]
async fn a_clean_file_is_copied_by_the_server() {
    let bucket = Bucket::new();
    bucket.put_with("a.txt", b"bytes", &[("owner", "theirs")]).await;
    let mount = bucket.mount();
    mount.rename("a.txt", "b.jpg").await.unwrap();
    assert!(!mount.exists("a.txt").await);
    assert_eq!(mount.read("b.jpg").await.unwrap(), b"bytes");
    mount.settle().await;
    assert_eq!(bucket.keys(), ["b.jpg"]);
    let (_, info) = bucket.memory.object(&"b.jpg".into()).unwrap();
    assert_eq!(info.headers.content_type.as_deref(), Some("image/jpeg"), "by the new name");
    assert_eq!(info.headers.metadata.get("owner").map(String::as_str), Some("theirs"));
    assert_eq!(mount.read("b.jpg").await.unwrap(), b"bytes");
}

#[tokio::test(start_paused = true)]
async fn over_an_existing_file_the_victim_stays_for_its_readers() {
    let bucket = Bucket::new();
    bucket.put("a", b"aaa").await;
    bucket.put("b", b"bbb").await;
    let mount = bucket.mount();
    let victim = mount.open("b", libc::O_RDONLY).await.unwrap();
    mount.rename("a", "b").await.unwrap();
    assert_eq!(mount.read_handle(victim, 0, 9).await.unwrap(), b"bbb");
    assert_eq!(mount.read("b").await.unwrap(), b"aaa");
    mount.close(victim).await.unwrap();
    mount.settle().await;
    assert_eq!((bucket.keys(), bucket.get("b")), (vec!["b".to_owned()], Some(b"aaa".to_vec())));
}

/// The kernel looks the name up, and the request to open what it found arrives after another program's rename: on ESTALE it
/// looks again.
#[tokio::test(start_paused = true)]
async fn what_lost_its_name_between_a_look_up_and_its_open_is_there_until_the_kernel_forgets_it() {
    for (sent, removed) in [(false, false), (true, false), (false, true), (true, true)] {
        let bucket = Bucket::new();
        let mount = bucket.mount();
        mount.save("served", b"old").await.unwrap();
        if sent {
            mount.settle().await;
        }
        let found = mount.looked_up("served").await;
        match removed {
            true => mount.unlink("served").await.unwrap(),
            false => {
                mount.save("temporary", b"new").await.unwrap();
                mount.rename("temporary", "served").await.unwrap();
            }
        }
        for _ in 0..2 {
            let handle = mount.fs.open(found, libc::O_RDONLY).await.unwrap().handle;
            assert_eq!(mount.read_handle(handle, 0, 10).await.unwrap(), b"old", "sent: {sent}, removed: {removed}");
            mount.close(handle).await.unwrap();
            mount.settle().await;
        }
        assert_eq!(bucket.get("served"), (!removed).then(|| b"new".to_vec()));
        mount.fs.setattr(found, SetAttr { size: Some(2), ..SetAttr::default() }).await.unwrap();
        mount.fs.forget(found, 1);
        assert_eq!(data_files(mount.folder.path()).len(), usize::from(!removed), "its bytes go");
        assert!(matches!(mount.fs.open(found, libc::O_RDONLY).await, Err(Error::NotFound)));
    }
}

#[tokio::test(start_paused = true)]
async fn what_lost_its_name_and_its_bytes_before_its_open_is_looked_up_again() {
    for size in [None, Some(2)] {
        let bucket = Bucket::new();
        bucket.put("served", b"old").await;
        let mount = bucket.mount();
        let found = mount.looked_up("served").await;
        mount.save("temporary", b"new").await.unwrap();
        mount.rename("temporary", "served").await.unwrap();
        let outcome = match size {
            Some(_) => mount.fs.setattr(found, SetAttr { size, ..SetAttr::default() }).await.err(),
            None => mount.fs.open(found, libc::O_RDONLY).await.err(),
        };
        assert!(matches!(outcome, Some(Error::Stale)), "truncated: {size:?}: {outcome:?}");
        mount.settle().await;
        assert_eq!(bucket.get("served"), Some(b"new".to_vec()));
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_dirty_file_is_renamed_and_written_on() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    let handle = mount.open("tmp", libc::O_RDWR | libc::O_CREAT | libc::O_EXCL).await.unwrap();
    mount.write(handle, 0, b"one").await.unwrap();
    mount.rename("tmp", "final").await.unwrap();
    mount.write(handle, 3, b" two").await.unwrap();
    mount.close(handle).await.unwrap();
    assert!(matches!(mount.unlink("tmp").await, Err(Error::NotFound)));
    mount.settle().await;
    assert_eq!((bucket.keys(), bucket.get("final")), (vec!["final".to_owned()], Some(b"one two".to_vec())));
}

/// An object in parts: copied as a whole, it gets another ETag.
async fn put_in_parts(bucket: &Bucket, key: &str, bytes: &'static [u8]) {
    let (key, store) = (key.into(), &bucket.memory);
    let id = store.create_upload(&key, &ObjectHeaders::default()).await.unwrap();
    let part = store.upload_part(&key, &id, 1, Body::new(bytes.to_vec())).await.unwrap();
    let _receipt = store.complete_upload(&key, &id, &[part], &Condition::Any).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_file_renamed_while_its_mode_is_on_its_way_can_be_read_and_renamed_on() {
    for cached in [false, true] {
        let bucket = Bucket::new();
        put_in_parts(&bucket, "a", b"bytes").await;
        let mount = bucket.mount();
        if cached {
            assert_eq!(mount.read("a").await.unwrap(), b"bytes");
        }
        bucket.faults.add(Rule::on(Operation::CopyObject).fault(Fault::Latency(Duration::from_secs(2))));
        mount.chmod("a", 0o600).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        mount.rename("a", "b").await.unwrap();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(mount.read("b").await.unwrap(), b"bytes", "its mode is in the bucket, its name is not");
        mount.settle().await;
        assert_eq!(mount.read("b").await.unwrap(), b"bytes");
        mount.rename("b", "a").await.unwrap();
        mount.settle().await;
        assert_eq!((bucket.keys(), bucket.get("a")), (vec!["a".to_owned()], Some(b"bytes".to_vec())));
        assert_eq!(mount.stat("a").await.unwrap().mode, 0o600);
    }
}

#[tokio::test(start_paused = true)]
async fn chains_and_reuse_of_names_before_anything_was_sent() {
    let bucket = Bucket::new();
    bucket.put("a", b"1").await;
    bucket.put("b", b"2").await;
    let mount = bucket.mount();
    mount.rename("a", "t").await.unwrap();
    mount.rename("b", "a").await.unwrap();
    mount.rename("t", "b").await.unwrap();
    mount.save("t", b"3").await.unwrap();
    let seen = [mount.read("a").await.unwrap(), mount.read("b").await.unwrap(), mount.read("t").await.unwrap()];
    assert_eq!(seen, [b"2", b"1", b"3"]);
    mount.settle().await;
    let held = ["a", "b", "t"].map(|key| bucket.get(key).unwrap());
    assert_eq!(held, [b"2", b"1", b"3"]);
    assert_eq!(bucket.keys(), ["a", "b", "t"]);
}

#[tokio::test(start_paused = true)]
async fn exchange_and_no_replace_are_honoured() {
    let bucket = Bucket::new();
    bucket.put("a", b"1").await;
    bucket.put("d/f", b"2").await;
    let mount = bucket.mount();
    assert!(matches!(mount.rename_with("a", "d", NO_REPLACE).await, Err(Error::Exists)));
    assert!(matches!(mount.rename_with("a", "none", EXCHANGE).await, Err(Error::NotFound)));
    mount.rename_with("a", "d", EXCHANGE).await.unwrap();
    assert_eq!(mount.read("d").await.unwrap(), b"1");
    assert_eq!(mount.read("a/f").await.unwrap(), b"2");
    mount.settle().await;
    assert_eq!(bucket.get("d").unwrap(), b"1");
    assert_eq!(bucket.get("a/f").unwrap(), b"2");
    assert_eq!(bucket.get("d/f"), None);
    mount.rename_with("d", "new", NO_REPLACE).await.unwrap();
    mount.settle().await;
    assert_eq!(bucket.get("new").unwrap(), b"1");
}

async fn tree(bucket: &Bucket) -> World {
    for key in ["d/one", "d/sub/two", "d/sub/three", "d/empty/"] {
        bucket.put(key, key.as_bytes()).await;
    }
    bucket.mount()
}

#[tokio::test(start_paused = true)]
async fn a_directory_moves_with_all_that_is_below() {
    let bucket = Bucket::new();
    let mount = tree(&bucket).await;
    bucket.put("d//hidden", b"no path shows it").await;
    mount.save("d/sub/new", b"unsent").await.unwrap();
    mount.unlink("d/sub/three").await.unwrap();
    let open = mount.open("d/one", libc::O_RDONLY).await.unwrap();
    mount.rename("d", "e").await.unwrap();
    assert!(!mount.exists("d").await);
    assert_eq!(mount.names("e").await.unwrap(), ["empty", "one", "sub"]);
    assert_eq!(mount.names("e/sub").await.unwrap(), ["new", "two"]);
    assert_eq!(mount.read("e/sub/two").await.unwrap(), b"d/sub/two");
    assert_eq!(mount.read_handle(open, 0, 99).await.unwrap(), b"d/one");
    mount.close(open).await.unwrap();
    mount.settle().await;
    assert_eq!(
        bucket.keys(),
        ["e//hidden", "e/empty/", "e/one", "e/sub/new", "e/sub/two"]
            .map(String::from)
            .to_vec()
            .into_iter()
            .chain(markers(&bucket))
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    );
    assert_eq!(mount.read("e/sub/two").await.unwrap(), b"d/sub/two");
    assert!(mount.names("").await.unwrap() == ["e"]);
}

/// Markers that a rename may add to directories that had none.
fn markers(bucket: &Bucket) -> Vec<String> {
    bucket.keys().into_iter().filter(|key| key.ends_with('/') && key.starts_with("e/")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_directory_rename_costs_a_copy_each_and_batched_deletes() {
    let bucket = Bucket::new();
    for at in 0..300 {
        bucket.put(&format!("d/{at:03}"), b"x").await;
    }
    let mount = bucket.mount();
    mount.rename("d", "e").await.unwrap();
    mount.settle().await;
    let counts: std::collections::BTreeMap<_, _> = requests(&mount).into_iter().collect();
    assert_eq!(counts["CopyObject"], 300, "{counts:?}");
    assert!(counts["DeleteObjects"] <= 2, "{counts:?}");
    assert!(counts["ListObjectsV2"] <= 4, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn directories_are_refused_where_posix_refuses_them() {
    let bucket = Bucket::new();
    let mount = tree(&bucket).await;
    mount.save("file", b"x").await.unwrap();
    assert!(matches!(mount.rename("d", "d/sub/inside").await, Err(Error::Invalid)));
    assert!(matches!(mount.rename("d", "file").await, Err(Error::NotDirectory)));
    assert!(matches!(mount.rename("file", "d").await, Err(Error::IsDirectory)));
    assert!(matches!(mount.rename("d/sub", "d/empty/x/y").await, Err(Error::NotFound)));
    mount.mkdir("full").await.unwrap();
    mount.save("full/f", b"x").await.unwrap();
    assert!(matches!(mount.rename("d", "full").await, Err(Error::NotEmpty)));
    mount.rename("full", "d/empty").await.unwrap();
    assert_eq!(mount.read("d/empty/f").await.unwrap(), b"x");
}

#[tokio::test(start_paused = true)]
async fn a_file_shows_where_a_directory_is_still_being_removed() {
    let bucket = Bucket::new();
    bucket.put("a/", b"").await;
    bucket.put("a/x", b"x").await;
    let mount = bucket.mount();
    mount.rename("a", "c").await.unwrap();
    mount.settle().await;
    mount.save("a", b"file").await.unwrap();
    mount.settle().await;
    // As a mount finds it that was killed between the file's upload and the removals.
    bucket.put("a/x", b"x").await;
    bucket.faults.add(Rule::on(Operation::DeleteObject).fault(Fault::Error(ErrorKind::Unavailable)));
    let next = bucket.mount();
    next.unlink("a/x").await.unwrap();
    next.rmdir("a").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(20)).await;
    assert_eq!(next.names("").await.unwrap(), ["a", "c"]);
    assert_eq!(next.read("a").await.unwrap(), b"file");
}

#[tokio::test(start_paused = true)]
async fn what_was_written_after_the_daemon_died_follows_the_rename() {
    let bucket = Bucket::new();
    bucket.put("a", b"bytes").await;
    let mount = bucket.mount();
    assert_eq!(mount.read("a").await.unwrap(), b"bytes");
    // Open for writing until the end: of a closed file other bytes would be damage.
    let open = mount.open("a", libc::O_RDWR).await.unwrap();
    mount.write(open, 0, b"BYTES").await.unwrap();
    mount.fs.fsync(open).await.unwrap();
    bucket.faults.add(Rule::on(Operation::CopyObject).fault(Fault::Error(ErrorKind::Unavailable)));
    mount.rename("a", "b").await.unwrap();
    mount.writer.stop();
    std::fs::write(&data_files(mount.folder.path())[0], b"written on").unwrap();
    let folder = std::sync::Arc::clone(&mount.folder);
    drop(mount);
    bucket.faults.clear();
    let next = bucket.mount_in(folder, Options::default());
    assert_eq!(next.read("b").await.unwrap(), b"written on");
    next.settle().await;
    assert_eq!((bucket.keys(), bucket.get("b")), (vec!["b".to_owned()], Some(b"written on".to_vec())));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_arrives_while_its_directory_is_listed_for_a_rename_moves_too() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    mount.mkdir("d").await.unwrap();
    mount.mkdir("d/sub").await.unwrap();
    mount.settle().await;
    // The listing says what was there before the uploads, and comes after them.
    bucket.faults.add(Rule::on(Operation::ListObjectsV2).key("d/").fault(Fault::LateReply(std::time::Duration::from_secs(3))));
    mount.save("d/a", b"a").await.unwrap();
    mount.save("d/sub/b", b"b").await.unwrap();
    mount.rename("d", "e").await.unwrap();
    assert_eq!((mount.read("e/a").await.unwrap(), mount.read("e/sub/b").await.unwrap()), (b"a".to_vec(), b"b".to_vec()));
    mount.settle().await;
    assert_eq!(bucket.keys(), ["e/", "e/a", "e/sub/", "e/sub/b"]);
}

#[tokio::test(start_paused = true)]
async fn a_marker_that_arrives_while_its_directory_is_listed_goes_with_it() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    let seconds = std::time::Duration::from_secs;
    bucket.faults.add(Rule::on(Operation::PutObject).key("d/").fault(Fault::Latency(seconds(12))));
    bucket.faults.add(Rule::on(Operation::ListObjectsV2).key("d/").fault(Fault::LateReply(seconds(2))));
    mount.mkdir("d").await.unwrap();
    // By now the directory has to be listed, and its marker is still on its way.
    tokio::time::sleep(seconds(11)).await;
    mount.rmdir("d").await.unwrap();
    mount.settle().await;
    assert!(bucket.keys().is_empty(), "{:?}", bucket.keys());
}

#[tokio::test(start_paused = true)]
async fn a_file_shows_that_was_hidden_by_a_directory_which_goes_while_it_is_listed() {
    let bucket = Bucket::new();
    bucket.put("d/", b"").await;
    let first = bucket.mount();
    bucket.faults.add(Rule::any().fault(Fault::Latency(std::time::Duration::from_secs(1))));
    first.rmdir("d").await.unwrap();
    let folder = std::sync::Arc::clone(&first.folder);
    first.writer.stop();
    bucket.faults.clear();
    bucket.put("d", b"file").await;
    let millis = std::time::Duration::from_millis;
    for operation in [Operation::DeleteObject, Operation::DeleteObjects] {
        bucket.faults.add(Rule::on(operation).fault(Fault::Latency(millis(1000))));
    }
    bucket.faults.add(Rule::on(Operation::ListObjectsV2).fault(Fault::Latency(millis(700))));
    // The first listing still has the marker; when the directory is looked into, it is gone.
    let second = bucket.mount_in(folder, crate::world::Options::default());
    assert_eq!(second.names("").await.unwrap(), ["d"]);
    assert_eq!(second.read("d").await.unwrap(), b"file");
    second.settle().await;
    assert_eq!(bucket.keys(), ["d"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_removed_while_it_was_open_does_not_come_back_in_an_outage() {
    let bucket = Bucket::new();
    bucket.put("d/open", b"x").await;
    bucket.put("d/other", b"y").await;
    let mount = bucket.mount();
    let handle = mount.open("d/open", libc::O_RDONLY).await.unwrap();
    assert_eq!(mount.read_handle(handle, 0, 9).await.unwrap(), b"x");
    assert_eq!(mount.names("d").await.unwrap(), ["open", "other"]);
    mount.unlink("d/open").await.unwrap();
    mount.settle().await;
    bucket.faults.add(Rule::any().fault(Fault::Error(mediafs::store::ErrorKind::Unreachable)));
    tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    assert_eq!(mount.names("d").await.unwrap(), ["other"]);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_nobody_recorded_tells_the_mode_of_the_file() {
    let bucket = Bucket::new();
    let mode = [("mode", "33152")];
    bucket.put_with("a", b"bytes", &mode).await;
    let mount = bucket.mount();
    assert_eq!(mount.stat("a").await.unwrap().mode, 0o600);
    bucket.faults.add(Rule::on(Operation::CopyObject).fault(Fault::Error(ErrorKind::Unavailable)));
    mount.rename("a", "b").await.unwrap();
    mount.writer.stop();
    let folder = std::sync::Arc::clone(&mount.folder);
    drop(mount);
    // Copied and deleted, and killed before it was in the journal; what was learned may be lost with a daemon.
    bucket.put_with("b", b"bytes", &mode).await;
    bucket.memory.delete(&"a".into()).await.unwrap();
    std::fs::remove_file(folder.path().join("attributes.sqlite")).unwrap();
    let next = bucket.mount_in(folder, Options::default());
    assert_eq!(next.stat("b").await.unwrap().mode, 0o600);
}

#[tokio::test(start_paused = true)]
async fn a_file_renamed_before_word_of_its_upload_came_is_known_by_its_new_name() {
    for content in [&b""[..], b"bytes"] {
        let bucket = Bucket::new();
        let renamed = std::sync::atomic::AtomicBool::new(false);
        let meanwhile: Meanwhile = std::sync::Arc::new(move |fs, key| {
            if key.as_str() == "a" && !renamed.swap(true, std::sync::atomic::Ordering::Relaxed) {
                let rename = fs.rename(ROOT, "a".as_ref(), ROOT, "b".as_ref(), RenameFlags::default());
                rename.now_or_never().expect("both names are known").unwrap();
            }
        });
        let mount = bucket.mount_with(Options { meanwhile: Some(meanwhile), ..Options::default() });
        assert!(mount.names("").await.unwrap().is_empty());
        mount.save("a", content).await.unwrap();
        mount.settle().await;
        assert_eq!(bucket.keys(), ["b"]);
        mount.rename("b", "c").await.unwrap();
        mount.settle().await;
        assert_eq!(bucket.keys(), ["c"]);
        assert_eq!(mount.names("").await.unwrap(), ["c"]);
        assert_eq!(mount.read("c").await.unwrap(), content);
        assert_eq!(mount.writer.backlog().conflicts, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_mode_of_a_renamed_file_is_not_that_of_what_took_its_old_name() {
    let bucket = Bucket::new();
    bucket.put_with("a", b"bytes", &[("mode", "33152")]).await;
    let mount = bucket.mount();
    bucket.faults.add(Rule::on(Operation::CopyObject).fault(Fault::Error(ErrorKind::Unavailable)));
    mount.rename("a", "b").await.unwrap();
    mount.save("a", b"new").await.unwrap();
    mount.writer.stop();
    let folder = std::sync::Arc::clone(&mount.folder);
    drop(mount);
    // What was learned is written without a promise.
    for file in ["attributes.sqlite", "attributes.sqlite-wal"] {
        let _ = std::fs::remove_file(folder.path().join(file));
    }
    bucket.faults.clear();
    // The look at the old name comes after the copy, and after what was saved there.
    bucket.faults.add(Rule::on(Operation::HeadObject).key("a").fault(Fault::Latency(Duration::from_secs(5))));
    let next = bucket.mount_in(folder, Options::default());
    assert_eq!(next.stat("b").await.unwrap().mode, 0o600);
    assert_eq!(bucket.get("a"), Some(b"new".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_a_delete_takes_nothing_from_what_has_the_name_since() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    for (name, bytes) in [("a", &b"old"[..]), ("b", b"")] {
        mount.save(name, bytes).await.unwrap();
    }
    mount.settle().await;
    bucket.faults.add(Rule::on(Operation::DeleteObject).fault(Fault::LateReply(Duration::from_secs(2))));
    mount.unlink("a").await.unwrap();
    while bucket.keys() != ["b"] {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    mount.save("b", b"other bytes").await.unwrap();
    mount.rename("b", "a").await.unwrap();
    bucket.faults.add(Rule::on(Operation::PutObject).when(When::First(1)).fault(Fault::Latency(Duration::from_secs(3))));
    for wait_ms in [0, 2500, 5000] {
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        assert_eq!(mount.stat("a").await.unwrap().size, 11, "after {wait_ms} ms");
        assert_eq!(mount.read("a").await.unwrap(), b"other bytes");
    }
    mount.settle().await;
    assert_eq!((bucket.keys(), bucket.get("a").unwrap()), (vec!["a".to_owned()], b"other bytes".to_vec()));
}
