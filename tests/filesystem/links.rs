//! Symbolic links at the instants at which nobody knows quite where they are: between the end of an upload and the word of it,
//! and over a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use mediafs::error::Result;
use mediafs::fs::{Fs, Ino, Kind, RenameFlags, SetAttr};
use mediafs::store::fault::{Fault, Rule};
use mediafs::store::{ErrorKind, ObjectStore, Operation};
use mediafs::types::Version;

use crate::world::{Bucket, ME, Meanwhile, Options, ROOT, World};

const TARGET: &[u8] = b"some/where";

async fn link(mount: &World, name: &str) -> Ino {
    mount.fs.symlink(ROOT, name.as_ref(), "some/where".as_ref(), ME).await.unwrap().attr.ino
}

/// A link, to which `then` is done when it has just gone up, and the bucket after all of that.
async fn once_up(then: impl Fn(&Fs) -> Result<()> + Send + Sync + 'static) -> (Bucket, World) {
    let bucket = Bucket::new();
    let done = Arc::new(AtomicBool::new(false));
    let is_done = Arc::clone(&done);
    let meanwhile: Meanwhile = Arc::new(move |fs, key| {
        if key.as_str() == "link" && !done.swap(true, Ordering::Relaxed) {
            then(fs).unwrap();
        }
    });
    let mount = bucket.mount_with(Options { meanwhile: Some(meanwhile), ..Options::default() });
    assert!(mount.names("").await.unwrap().is_empty());
    link(&mount, "link").await;
    mount.settle().await;
    assert!(is_done.load(Ordering::Relaxed));
    (bucket, mount)
}

fn at_once<T>(operation: impl Future<Output = Result<T>>) -> Result<T> {
    operation.now_or_never().expect("all of it is known")
}

fn looked_up(fs: &Fs) -> Ino {
    match at_once(fs.lookup(ROOT, "link".as_ref())).unwrap() {
        mediafs::fs::Lookup::Found(entry) => entry.attr.ino,
        mediafs::fs::Lookup::Missing(_) => panic!("the link is missing"),
    }
}

/// From the mount that did it, and from an empty cache.
async fn is_link(bucket: &Bucket, mount: &World, name: &str, owner: u32) {
    assert_eq!(bucket.keys(), [name]);
    assert_eq!(bucket.get(name).unwrap(), TARGET);
    for mount in [mount, &bucket.mount()] {
        let attr = mount.stat(name).await.unwrap();
        assert_eq!((attr.kind, attr.uid, attr.size), (Kind::Symlink, owner, TARGET.len() as u64));
        assert_eq!(mount.fs.readlink(attr.ino).await.unwrap(), TARGET);
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_is_one_before_word_of_its_upload_came() {
    let (bucket, mount) = once_up(|fs| {
        let ino = looked_up(fs);
        assert_eq!(at_once(fs.getattr(ino)).unwrap().attr.size, TARGET.len() as u64);
        assert_eq!(at_once(fs.readlink(ino)).unwrap(), TARGET);
        Ok(())
    })
    .await;
    is_link(&bucket, &mount, "link", ME.uid).await;
}

#[tokio::test(start_paused = true)]
async fn a_link_renamed_before_word_of_its_upload_came_goes_up_under_its_new_name() {
    let (bucket, mount) = once_up(|fs| at_once(fs.rename(ROOT, "link".as_ref(), ROOT, "renamed".as_ref(), RenameFlags::default()))).await;
    is_link(&bucket, &mount, "renamed", ME.uid).await;
    mount.rename("renamed", "again").await.unwrap();
    mount.settle().await;
    is_link(&bucket, &mount, "again", ME.uid).await;
}

#[tokio::test(start_paused = true)]
async fn a_link_changed_before_word_of_its_upload_came_keeps_its_target() {
    let owned = SetAttr { uid: Some(7), ..SetAttr::default() };
    let (bucket, mount) = once_up(move |fs| at_once(fs.setattr(looked_up(fs), owned)).map(drop)).await;
    is_link(&bucket, &mount, "link", 7).await;
    let moded = SetAttr { mode: Some(0o700), ..SetAttr::default() };
    let (bucket, mount) = once_up(move |fs| at_once(fs.setattr(looked_up(fs), moded)).map(drop)).await;
    is_link(&bucket, &mount, "link", ME.uid).await;
}

#[tokio::test(start_paused = true)]
async fn a_link_removed_before_word_of_its_upload_came_is_gone() {
    let (bucket, mount) = once_up(|fs| at_once(fs.unlink(ROOT, "link".as_ref()))).await;
    assert!(bucket.keys().is_empty(), "{:?}", bucket.keys());
    assert!(mount.names("").await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_directory_changed_before_word_of_its_marker_came_has_one() {
    for renames in [false, true] {
        let bucket = Bucket::new();
        let done = AtomicBool::new(false);
        let meanwhile: Meanwhile = Arc::new(move |fs, key| {
            if key.as_str() != "d/" || done.swap(true, Ordering::Relaxed) {
                return;
            }
            if renames {
                return at_once(fs.rename(ROOT, "d".as_ref(), ROOT, "e".as_ref(), RenameFlags::default())).unwrap();
            }
            at_once(fs.rmdir(ROOT, "d".as_ref())).unwrap();
            at_once(fs.mkdir(ROOT, "e".as_ref(), 0o700, ME)).unwrap();
        });
        let mount = bucket.mount_with(Options { meanwhile: Some(meanwhile), ..Options::default() });
        assert!(mount.names("").await.unwrap().is_empty());
        mount.mkdir("d").await.unwrap();
        mount.chmod("d", 0o700).await.unwrap();
        mount.settle().await;
        assert_eq!(bucket.keys(), ["e/"]);
        for mount in [&mount, &bucket.mount()] {
            assert_eq!(mount.stat("e").await.unwrap().mode, 0o700);
            assert_eq!(mount.names("").await.unwrap(), ["e"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_renamed_link_is_one_after_a_restart() {
    for (owner, is_copied) in [(ME.uid, false), (7, false), (ME.uid, true)] {
        let bucket = Bucket::new();
        let mount = bucket.mount();
        let ino = link(&mount, "link").await;
        mount.settle().await;
        bucket.faults.add(Rule::on(Operation::CopyObject).fault(Fault::Error(ErrorKind::Unavailable)));
        mount.rename("link", "renamed").await.unwrap();
        if owner != ME.uid {
            mount.fs.setattr(ino, SetAttr { uid: Some(owner), ..SetAttr::default() }).await.unwrap();
        }
        let folder = Arc::clone(&mount.folder);
        mount.writer.stop();
        drop(mount);
        if is_copied {
            // Killed before that was in the journal.
            let (_, info) = bucket.memory.object(&"link".into()).unwrap();
            let from = Version { key: "link".into(), etag: info.etag, size: info.size };
            let _receipt = bucket.memory.copy(&from, &"renamed".into(), None).await.unwrap();
            bucket.memory.delete(&"link".into()).await.unwrap();
        }
        let next = bucket.mount_in(folder, Options::default());
        let attr = next.stat("renamed").await.unwrap();
        assert_eq!((attr.kind, attr.uid), (Kind::Symlink, owner), "{is_copied}");
        assert_eq!(next.fs.readlink(attr.ino).await.unwrap(), TARGET);
        bucket.faults.clear();
        next.settle().await;
        is_link(&bucket, &next, "renamed", owner).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_exchanged_with_a_file_is_known_where_it_went() {
    for (at, other) in [("a", "b"), ("b", "a")] {
        let bucket = Bucket::new();
        let mount = bucket.mount();
        link(&mount, at).await;
        // Its bytes are not here, so that those of the link are what is taken here to break the cycle.
        bucket.put(other, &[7; 100_000]).await;
        mount.settle().await;
        mount.rename_with(at, other, RenameFlags { exchange: true, no_replace: false }).await.unwrap();
        mount.settle().await;
        assert_eq!((bucket.get(other).unwrap(), bucket.get(at).unwrap()), (TARGET.to_vec(), vec![7; 100_000]));
        mount.unlink(at).await.unwrap();
        mount.settle().await;
        mount.rename(other, "moved").await.unwrap();
        mount.settle().await;
        is_link(&bucket, &mount, "moved", ME.uid).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_that_was_taken_here_goes_with_its_link() {
    for replaced in [false, true] {
        let bucket = Bucket::new();
        let mount = bucket.mount();
        link(&mount, "link").await;
        bucket.put("file", &[7; 100_000]).await;
        mount.save("other", b"other").await.unwrap();
        mount.settle().await;
        bucket.faults.add(Rule::on(Operation::PutObject).fault(Fault::Error(ErrorKind::Unavailable)));
        mount.rename_with("link", "file", RenameFlags { exchange: true, no_replace: false }).await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(mount.cache.usage().dirty_bytes > 0, "nothing was taken");
        match replaced {
            true => mount.rename("other", "file").await.unwrap(),
            false => mount.unlink("file").await.unwrap(),
        }
        bucket.faults.clear();
        mount.settle().await;
        assert_eq!(mount.cache.usage().dirty_bytes, 0, "replaced {replaced}");
        assert_eq!((bucket.get("file"), bucket.get("link")), (replaced.then(|| b"other".to_vec()), Some(vec![7; 100_000])));
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_whose_target_was_taken_here_is_one_after_a_restart() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    link(&mount, "link").await;
    bucket.put("file", &[7; 100_000]).await;
    mount.settle().await;
    bucket.faults.add(Rule::on(Operation::PutObject).fault(Fault::Error(ErrorKind::Unavailable)));
    mount.rename_with("link", "file", RenameFlags { exchange: true, no_replace: false }).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(mount.cache.usage().dirty_bytes > 0, "nothing was taken");
    let next = bucket.mount_in(mount.crashed(), Options::default());
    let attr = next.stat("file").await.unwrap();
    assert_eq!((attr.kind, next.fs.readlink(attr.ino).await.unwrap()), (Kind::Symlink, TARGET.to_vec()));
    bucket.faults.clear();
    next.unlink("link").await.unwrap();
    next.rename("file", "moved").await.unwrap();
    next.settle().await;
    is_link(&bucket, &next, "moved", ME.uid).await;
}

#[tokio::test(start_paused = true)]
async fn two_exchanged_links_are_links_after_a_restart_while_one_waits() {
    let fail = |operation| Rule::on(operation).fault(Fault::Error(ErrorKind::Unavailable));
    let bucket = Bucket::new();
    let mount = bucket.mount();
    for (name, target) in [("a", "to/a"), ("b", "to/b")] {
        mount.fs.symlink(ROOT, name.as_ref(), target.as_ref(), ME).await.unwrap();
    }
    mount.settle().await;
    for operation in [Operation::CopyObject, Operation::GetObject, Operation::PutObject] {
        bucket.faults.add(fail(operation));
    }
    mount.rename_with("a", "b", RenameFlags { exchange: true, no_replace: false }).await.unwrap();
    let next = bucket.mount_in(mount.crashed(), Options::default());
    // Names alone don't tell links from files.
    assert_eq!(next.names("").await.unwrap(), ["a", "b"]);
    bucket.faults.clear();
    bucket.faults.add(fail(Operation::PutObject));
    // One target is taken here and can't go up; the other is copied over the object that the first one came from.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(next.cache.usage().dirty_bytes > 0, "nothing was taken");
    for (name, target) in [("a", "to/b"), ("b", "to/a")] {
        let attr = next.stat(name).await.unwrap();
        assert_eq!(attr.kind, Kind::Symlink, "{name}");
        assert_eq!(next.fs.readlink(attr.ino).await.unwrap(), target.as_bytes());
    }
    bucket.faults.clear();
    next.settle().await;
    assert_eq!((bucket.get("a").unwrap(), bucket.get("b").unwrap()), (b"to/b".to_vec(), b"to/a".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn a_link_that_changes_owner_before_word_of_its_exchange_came_gets_it() {
    let bucket = Bucket::new();
    let done = Arc::new(AtomicBool::new(false));
    let is_done = Arc::clone(&done);
    let meanwhile: Meanwhile = Arc::new(move |fs, key| {
        if key.as_str() != "file" || done.swap(true, Ordering::Relaxed) {
            return;
        }
        let mediafs::fs::Lookup::Found(entry) = at_once(fs.lookup(ROOT, "file".as_ref())).unwrap() else { panic!("it is missing") };
        at_once(fs.setattr(entry.attr.ino, SetAttr { uid: Some(5), ..SetAttr::default() })).unwrap();
    });
    let mount = bucket.mount_with(Options { meanwhile: Some(meanwhile), ..Options::default() });
    link(&mount, "link").await;
    bucket.put("file", &[7; 100_000]).await;
    mount.settle().await;
    mount.rename_with("link", "file", RenameFlags { exchange: true, no_replace: false }).await.unwrap();
    mount.settle().await;
    assert!(is_done.load(Ordering::Relaxed));
    mount.unlink("link").await.unwrap();
    mount.settle().await;
    is_link(&bucket, &mount, "file", 5).await;
}
