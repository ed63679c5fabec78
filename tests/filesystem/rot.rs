//! Data files that change behind the daemon's back: what programs read then, and what reaches the bucket.

use std::os::unix::fs::FileExt;

use mediafs::error::Error;
use mediafs::store::ErrorKind;
use mediafs::store::Operation;
use mediafs::store::fault::{Fault, Rule, When};

use crate::world::{Bucket, Options, World, data_files};

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 249) as u8).collect()
}

/// Flips a bit at this offset of every data file that reaches so far.
fn flip(folder: &std::path::Path, at: u64) {
    for path in data_files(folder) {
        let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        if file.read_at(&mut byte, at).unwrap() == 1 {
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        }
    }
}

/// Nothing is stored until `clear`.
fn refuse_puts(bucket: &Bucket) {
    bucket.faults.add(Rule::on(Operation::PutObject).when(When::Always).fault(Fault::Error(ErrorKind::Unavailable)));
}

async fn state(mount: &World, path: &str) -> String {
    let ino = mount.stat(path).await.unwrap().ino;
    String::from_utf8(mount.fs.getxattr(ino, "user.mediafs.state".as_ref()).await.unwrap()).unwrap()
}

/// A crash of the daemon alone.
fn restart(bucket: &Bucket, mount: World) -> World {
    bucket.mount_in(mount.crashed(), Options::default())
}

#[tokio::test(start_paused = true)]
async fn a_flip_in_a_cached_file_costs_one_get_and_no_wrong_byte() {
    let bucket = Bucket::new();
    let bytes = content(300_000);
    bucket.put("f", &bytes).await;
    let mount = bucket.mount();
    assert_eq!(mount.read("f").await.unwrap(), bytes);
    let gets = mount.counts.snapshot()["GetObject"];
    flip(mount.folder.path(), 123_456);
    assert_eq!(mount.read("f").await.unwrap(), bytes);
    assert_eq!(mount.counts.snapshot()["GetObject"], gets + 1);
    assert_eq!(mount.read("f").await.unwrap(), bytes);
    assert_eq!(mount.counts.snapshot()["GetObject"], gets + 1, "it is whole again");
}

#[tokio::test(start_paused = true)]
async fn a_flip_in_a_file_that_was_uploaded_is_fetched_again() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    let bytes = content(300_000);
    mount.save("f", &bytes).await.unwrap();
    mount.settle().await;
    flip(mount.folder.path(), 5);
    assert_eq!(mount.read("f").await.unwrap(), bytes);
    flip(mount.folder.path(), 299_999);
    let mount = restart(&bucket, mount);
    assert_eq!(mount.read("f").await.unwrap(), bytes);
    mount.settle().await;
    assert_eq!(bucket.get("f").unwrap(), bytes);
}

#[tokio::test(start_paused = true)]
async fn a_flip_in_unsent_data_is_never_served_nor_sent_and_heals_by_a_rewrite() {
    for down in [false, true] {
        let bucket = Bucket::new();
        let bytes = content(100_000);
        bucket.put("f", b"what the bucket has").await;
        refuse_puts(&bucket);
        let mut mount = bucket.mount();
        mount.save("f", &bytes).await.unwrap();
        flip(mount.folder.path(), 70_000);
        if down {
            mount = restart(&bucket, mount);
        }
        bucket.faults.clear();
        let key = mediafs::types::Key::from("f");
        let error = mount.writer.sync(&key).await.unwrap_err();
        assert!(matches!(error, Error::Damaged(_)), "{error}");
        assert!(matches!(mount.read("f").await, Err(Error::Damaged(_))));
        assert_eq!(state(&mount, "f").await, "failed");
        let failed = mount.writer.backlog().failed;
        assert!(failed.len() == 1 && failed[0].error.contains("damaged at bytes 65536-81920: write the file anew"), "{failed:?}");
        assert_eq!(bucket.get("f").unwrap(), b"what the bucket has");
        let handle = mount.open("f", libc::O_RDWR).await.unwrap();
        assert!(matches!(mount.fs.fsync(handle).await, Err(Error::Damaged(_))));
        mount.write(handle, 65_536, &bytes[65_536..81_920]).await.unwrap();
        mount.close(handle).await.unwrap();
        mount.settle().await;
        assert_eq!(
            (mount.read("f").await.unwrap(), bucket.get("f").unwrap(), state(&mount, "f").await),
            (bytes.clone(), bytes, "clean".into())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_of_a_file_whose_data_is_damaged_tells_so() {
    let bucket = Bucket::new();
    refuse_puts(&bucket);
    let mount = bucket.mount();
    mount.save("f", &content(100_000)).await.unwrap();
    flip(mount.folder.path(), 5);
    let mount = restart(&bucket, mount);
    bucket.faults.clear();
    assert_eq!(mount.writer.drain(std::time::Duration::from_secs(60)).await, 1);
    let handle = mount.open("f", libc::O_RDWR).await.unwrap();
    assert!(matches!(mount.close(handle).await, Err(Error::Damaged(_))));
    mount.save("f", b"new").await.unwrap();
    mount.settle().await;
    assert_eq!(bucket.get("f").unwrap(), b"new");
}

#[tokio::test(start_paused = true)]
async fn a_large_file_whose_part_is_damaged_is_not_completed() {
    let bucket = Bucket::new();
    let bytes = content(40 << 20);
    refuse_puts(&bucket);
    bucket.faults.add(Rule::on(Operation::UploadPart).when(When::Always).fault(Fault::Error(ErrorKind::Unavailable)));
    let mount = bucket.mount();
    mount.save("f", &bytes).await.unwrap();
    flip(mount.folder.path(), 30 << 20);
    bucket.faults.clear();
    assert_eq!(mount.writer.drain(std::time::Duration::from_secs(600)).await, 1);
    assert_eq!((bucket.get("f"), state(&mount, "f").await), (None, "failed".into()));
    mount.unlink("f").await.unwrap();
    mount.settle().await;
    assert!(bucket.keys().is_empty());
}

#[tokio::test(start_paused = true)]
async fn unsent_data_that_is_cut_short_or_gone_is_not_sent() {
    for length in [Some(0), Some(50_000), None] {
        let bucket = Bucket::new();
        refuse_puts(&bucket);
        let mount = bucket.mount();
        mount.save("f", &content(100_000)).await.unwrap();
        for path in data_files(mount.folder.path()) {
            match length {
                Some(length) => std::fs::File::options().write(true).open(path).unwrap().set_len(length).unwrap(),
                None => std::fs::remove_file(path).unwrap(),
            }
        }
        let mount = restart(&bucket, mount);
        bucket.faults.clear();
        assert_eq!(mount.writer.drain(std::time::Duration::from_secs(600)).await, 1, "{length:?}");
        assert_eq!((bucket.get("f"), mount.writer.state(&"f".into())), (None, "failed"), "{length:?}");
        assert!(mount.writer.backlog().failed[0].error.contains("data"), "{length:?}");
    }
}
