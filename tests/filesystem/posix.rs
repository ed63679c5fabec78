//! What programs may count on by POSIX and by Linux' own habits, where a store alone would behave otherwise.

use std::future::Future;

use mediafs::error::{Error, Result};
use mediafs::fs::{SetAttr, SetTime};

use crate::world::{Bucket, ME, Options, ROOT, World, requests};

/// A path of four directories that leaves `left` bytes of a key's 1,024 for a name.
async fn deep(mount: &World, left: usize) -> String {
    let mut path = String::new();
    let mut rest = 1024 - left;
    for depth in 0..4 {
        let length = rest.div_ceil(4 - depth);
        rest -= length;
        path += &"d".repeat(length - 1);
        mount.mkdir(&path).await.unwrap();
        path.push('/');
    }
    path
}

#[tokio::test(start_paused = true)]
async fn a_name_that_would_make_too_long_a_key_is_refused_without_asking() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    let path = deep(&mount, 4).await;
    mount.settle().await;
    let before = requests(&mount);
    let long = format!("{path}12345");
    assert!(matches!(mount.stat(&long).await, Err(Error::NameTooLong)), "what no key can hold is not asked for");
    assert!(matches!(mount.save(&long, b"x").await, Err(Error::NameTooLong)));
    assert!(matches!(mount.mkdir(&long).await, Err(Error::NameTooLong)));
    assert!(matches!(mount.unlink(&long).await, Err(Error::NameTooLong)));
    assert_eq!(requests(&mount), before);
    let full = format!("{path}1234");
    assert!(matches!(mount.mkdir(&full).await, Err(Error::NameTooLong)), "its marker would end in one slash more");
    mount.save(&full, b"fills its key").await.unwrap();
    mount.settle().await;
    assert_eq!(mount.read(&full).await.unwrap(), b"fills its key");
    assert_eq!(bucket.mount().read(&full).await.unwrap(), b"fills its key");
    assert!(matches!(mount.rename(&full, &long).await, Err(Error::NameTooLong)));
}

/// Which of its times an operation moved: `a`, `m` and `c` in this order.
async fn moved(mount: &World, path: &str, operation: impl Future<Output = Result<()>>) -> String {
    let before = mount.stat(path).await.unwrap();
    operation.await.unwrap();
    let after = mount.stat(path).await.unwrap();
    let times = [('a', before.atime, after.atime), ('m', before.mtime, after.mtime), ('c', before.ctime, after.ctime)];
    times.into_iter().filter(|(_, before, after)| before != after).map(|(name, _, _)| name).collect()
}

#[tokio::test(start_paused = true)]
async fn times_move_as_on_a_disk() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    mount.mkdir("d").await.unwrap();
    mount.save("d/f", b"0123456789").await.unwrap();
    let ino = mount.stat("d/f").await.unwrap().ino;
    let fs = &mount.fs;
    let set = |set: SetAttr| async move { fs.setattr(ino, set).await.map(drop) };
    let size = |size| set(SetAttr { size: Some(size), ..SetAttr::default() });
    let handle = mount.open("d/f", libc::O_RDWR).await.unwrap();
    assert_eq!(moved(&mount, "d/f", mount.write(handle, 0, b"x")).await, "mc");
    assert_eq!(moved(&mount, "d/f", async { mount.read_handle(handle, 0, 4).await.map(drop) }).await, "a", "first read");
    assert_eq!(moved(&mount, "d/f", async { mount.read_handle(handle, 0, 4).await.map(drop) }).await, "", "second read");
    mount.save_with("d/f", b"y", libc::O_WRONLY).await.unwrap();
    assert_eq!(
        moved(&mount, "d/f", async { mount.read_handle(handle, 0, 4).await.map(drop) }).await,
        "a",
        "written through another handle"
    );
    mount.save_with("d/f", b"z", libc::O_WRONLY).await.unwrap();
    let opened = async { mount.close(mount.open("d/f", libc::O_RDONLY).await?).await };
    assert_eq!(moved(&mount, "d/f", opened).await, "a", "the kernel reads its own pages, and tells nobody");
    assert_eq!(moved(&mount, "d/f", size(5)).await, "mc");
    assert_eq!(moved(&mount, "d/f", size(5)).await, "mc", "truncated to the size that it has");
    assert_eq!(moved(&mount, "d/f", mount.fs.fallocate(handle, 0, 3, 0)).await, "mc", "allocated within its size");
    assert_eq!(moved(&mount, "d/f", mount.fs.fallocate(handle, 0, 9, libc::FALLOC_FL_KEEP_SIZE)).await, "mc");
    assert_eq!(moved(&mount, "d/f", mount.chmod("d/f", 0o600)).await, "c");
    assert_eq!(moved(&mount, "d/f", set(SetAttr::default())).await, "c", "chown to nobody else");
    mount.close(handle).await.unwrap();
    assert_eq!(moved(&mount, "d", mount.save("d/n", b"")).await, "mc");
    assert_eq!(moved(&mount, "d", async { mount.names("d").await.map(drop) }).await, "a");
    assert_eq!(moved(&mount, "d", async { mount.names("d").await.map(drop) }).await, "");
    assert_eq!(moved(&mount, "d", mount.rename("d/n", "d/o")).await, "mc");
    assert_eq!(moved(&mount, "d", mount.unlink("d/o")).await, "mc");
}

#[tokio::test(start_paused = true)]
async fn the_root_takes_attributes_and_keeps_mode_and_owner() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let set = SetAttr { mode: Some(0o2750), uid: Some(33), gid: Some(34), mtime: Some(SetTime::To(time)), ..SetAttr::default() };
    let shown = mount.fs.setattr(ROOT, set).await.unwrap().attr;
    assert_eq!((shown.mode, shown.uid, shown.gid, shown.mtime), (0o2750, 33, 34, time));
    assert_eq!(mount.fs.getattr(ROOT).await.unwrap().attr.mtime, time);
    mount.settle().await;
    assert!(requests(&mount).is_empty() && bucket.keys().is_empty(), "no object is made for it");
    let folder = std::sync::Arc::clone(&mount.folder);
    drop(mount);
    let again = bucket.mount_in(folder, Options::default()).fs.getattr(ROOT).await.unwrap().attr;
    assert_eq!((again.mode, again.uid, again.gid), (0o2750, 33, 34));
    let elsewhere = bucket.mount().fs.getattr(ROOT).await.unwrap().attr;
    assert_eq!((elsewhere.mode, elsewhere.uid, elsewhere.gid), (0o755, ME.uid, ME.gid));
}

/// Names with their positions, from `cookie` on, at most so many.
async fn listed(mount: &World, handle: u64, cookie: u64, count: usize) -> Vec<(String, u64)> {
    let entries = mount.fs.readdir(handle, cookie, false).await.unwrap();
    entries.into_iter().map(|entry| (entry.name.into_string().unwrap(), entry.next)).take(count).collect()
}

#[tokio::test(start_paused = true)]
async fn positions_in_a_directory_hold_while_it_changes() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    mount.mkdir("d").await.unwrap();
    for number in 0..2000 {
        mount.save(&format!("d/{number:04}"), b"").await.unwrap();
    }
    let ino = mount.stat("d").await.unwrap().ino;
    let stream = mount.fs.opendir(ino).await.unwrap();
    let first = listed(&mount, stream, 0, 502).await;
    let (middle, position) = first.last().unwrap().clone();
    assert_eq!(middle, "0499");
    // What was shown goes, something comes before and behind; then the stream goes to its start and back, and others list.
    for name in ["0003", "0499", "0700"] {
        mount.unlink(&format!("d/{name}")).await.unwrap();
    }
    for name in ["0000a", "zzzz"] {
        mount.save(&format!("d/{name}"), b"").await.unwrap();
    }
    assert_eq!(mount.names("d").await.unwrap().len(), 1999);
    assert_eq!(listed(&mount, stream, 0, 1).await[0].0, ".");
    // The kernel serves one stream from what another one listed, and then asks for the rest.
    let other = mount.fs.opendir(ino).await.unwrap();
    for handle in [stream, other] {
        let (mut cookie, mut names) = (position, Vec::new());
        loop {
            let batch = listed(&mount, handle, cookie, 100).await;
            let Some((_, next)) = batch.last() else { break };
            cookie = *next;
            names.extend(batch.into_iter().map(|(name, _)| name));
        }
        let stayed: Vec<String> = (500..2000).filter(|number| *number != 700).map(|number| format!("{number:04}")).collect();
        assert_eq!(names[..stayed.len()], stayed, "neither skipped nor repeated");
        assert_eq!(names[stayed.len()..], ["0000a", "zzzz"]);
    }
    for handle in [stream, other] {
        mount.fs.releasedir(handle);
    }
    assert_eq!(mount.names("d").await.unwrap()[..2], ["0000", "0000a"], "with nobody in the midst, by name again");
}

#[tokio::test(start_paused = true)]
async fn an_emptied_empty_file_loses_its_set_id_bits_too() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    mount.save("f", b"").await.unwrap();
    let ino = mount.stat("f").await.unwrap().ino;
    for change in [SetAttr { size: Some(0), ..SetAttr::default() }, SetAttr::default()] {
        mount.chmod("f", 0o6755).await.unwrap();
        mount.fs.setattr(ino, change).await.unwrap();
        assert_eq!(mount.stat("f").await.unwrap().mode, 0o755);
    }
}
