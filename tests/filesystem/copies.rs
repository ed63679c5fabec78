//! copy_file_range(2): the bucket copies where it can, and the copy is a file like any other.

use std::sync::Arc;

use mediafs::error::Error;

use crate::world::{Bucket, Options, World, requests};

const NEW: i32 = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
const OVER: i32 = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;

impl World {
    /// cp(1) in steps of `step` bytes; where the file system refuses, through the page cache.
    async fn cp(&self, from: &str, to: &str, flags: i32, step: u64) -> Result<bool, Error> {
        let source = self.open(from, libc::O_RDONLY).await?;
        let target = self.open(to, flags).await?;
        let (mut at, mut by_bucket) = (0, true);
        loop {
            match Arc::clone(&self.fs).copy_file_range((source, at), (target, at), step).await {
                Ok(0) => break,
                Ok(copied) => at += u64::from(copied),
                Err(Error::Unsupported) => {
                    by_bucket = false;
                    let data = self.read_handle(source, at, step as usize).await?;
                    if data.is_empty() {
                        break;
                    }
                    self.write(target, at, &data).await?;
                    at += data.len() as u64;
                }
                Err(error) => return Err(error),
            }
        }
        self.close(source).await?;
        self.close(target).await?;
        Ok(by_bucket)
    }
}

fn picture(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

#[tokio::test(start_paused = true)]
async fn no_byte_of_a_copy_crosses_the_network() {
    for step in [1 << 30, 30_000] {
        let bucket = Bucket::new();
        bucket.put_with("a.jpg", &picture(100_000), &[("artist", "somebody")]).await;
        let mount = bucket.mount();
        assert!(mount.cp("a.jpg", "b.jpg", NEW, step).await.unwrap());
        assert_eq!(mount.stat("b.jpg").await.unwrap().size, 100_000);
        mount.settle().await;
        let counts = mount.counts.snapshot();
        assert_eq!(counts.get("CopyObject"), Some(&1), "{counts:?}");
        assert!(
            !counts.contains_key("GetObject") && !counts.contains_key("PutObject") && !counts.contains_key("CreateMultipartUpload"),
            "{counts:?}"
        );
        assert_eq!(bucket.get("b.jpg").unwrap(), picture(100_000));
        let (_, info) = bucket.memory.object(&"b.jpg".into()).unwrap();
        assert_eq!(info.headers.content_type.as_deref(), Some("image/jpeg"));
        assert!(!info.headers.metadata.contains_key("artist"), "attributes are for the program to copy");
        assert_eq!(mount.read("b.jpg").await.unwrap(), picture(100_000));
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_what_is_cached_is_read_without_a_request() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    mount.save("a.bin", &picture(70_000)).await.unwrap();
    mount.settle().await;
    assert!(mount.cp("a.bin", "b.bin", NEW, 1 << 30).await.unwrap());
    assert_eq!(mount.read("b.bin").await.unwrap(), picture(70_000));
    mount.settle().await;
    // Look-ups of both names, the save, and the copy with a look before it: it must not replace anything.
    assert_eq!(requests(&mount), [("CopyObject", 1), ("HeadObject", 3), ("ListObjectsV2", 2), ("PutObject", 1)]);
}

#[tokio::test(start_paused = true)]
async fn an_old_file_is_copied_over() {
    let bucket = Bucket::new();
    bucket.put("a", &picture(50_000)).await;
    bucket.put("b", b"old").await;
    let mount = bucket.mount();
    assert!(mount.cp("a", "b", OVER, 1 << 30).await.unwrap());
    mount.settle().await;
    assert_eq!(bucket.get("b").unwrap(), picture(50_000));
}

#[tokio::test(start_paused = true)]
async fn both_sides_change_after_the_copy_and_before_it_is_sent() {
    let bucket = Bucket::new();
    bucket.put("a", &picture(50_000)).await;
    let mount = bucket.mount();
    assert!(mount.cp("a", "b", NEW, 1 << 30).await.unwrap());
    let handle = mount.open("b", libc::O_RDWR).await.unwrap();
    mount.write(handle, 10, b"changed").await.unwrap();
    mount.close(handle).await.unwrap();
    assert!(mount.cp("a", "c", NEW, 1 << 30).await.unwrap());
    mount.save("a", b"another").await.unwrap();
    assert!(mount.cp("c", "d", NEW, 1 << 30).await.is_ok_and(|by_bucket| !by_bucket), "c isn't in the bucket yet");
    mount.unlink("c").await.unwrap();
    mount.settle().await;
    let mut changed = picture(50_000);
    changed[10..17].copy_from_slice(b"changed");
    assert!(bucket.get("b").unwrap() == changed && bucket.get("d").unwrap() == picture(50_000));
    assert_eq!((bucket.get("a").unwrap(), bucket.get("c")), (b"another".to_vec(), None));
}

#[tokio::test(start_paused = true)]
async fn what_the_bucket_can_t_do_is_left_to_the_kernel() {
    let bucket = Bucket::new();
    bucket.put("a", &picture(50_000)).await;
    let mount = bucket.mount();
    let source = mount.open("a", libc::O_RDONLY).await.unwrap();
    let target = mount.open("b", libc::O_RDWR | libc::O_CREAT).await.unwrap();
    let copy = |from, to, length| Arc::clone(&mount.fs).copy_file_range((source, from), (target, to), length);
    assert!(matches!(copy(10, 0, 100).await, Err(Error::Unsupported)));
    assert!(matches!(copy(10, 10, 100).await, Err(Error::Unsupported)), "there is nothing before it");
    assert_eq!(copy(60_000, 60_000, 100).await.unwrap(), 0);
    assert_eq!(copy(0, 0, 100).await.unwrap(), 100);
    mount.write(target, 5, b"x").await.unwrap();
    assert!(matches!(copy(100, 100, 100).await, Err(Error::Unsupported)), "it isn't the original's beginning any more");
    assert!(matches!(Arc::clone(&mount.fs).copy_file_range((target, 0), (source, 0), 10).await, Err(Error::BadHandle)));
    mount.close(target).await.unwrap();
    mount.close(source).await.unwrap();
    mount.settle().await;
    let mut expected = picture(100);
    expected[5] = b'x';
    assert_eq!(bucket.get("b").unwrap(), expected, "a part of the original, and a change");
}

#[tokio::test(start_paused = true)]
async fn a_copy_survives_a_kill() {
    let bucket = Bucket::new();
    bucket.put("a", &picture(50_000)).await;
    bucket.put("big", &picture(90_000)).await;
    let mount = bucket.mount();
    let folder = Arc::clone(&mount.folder);
    assert!(mount.cp("a", "b", NEW, 1 << 30).await.unwrap());
    assert_eq!(mount.read("big").await.unwrap().len(), 90_000);
    assert!(mount.cp("big", "copy", NEW, 1 << 30).await.unwrap());
    drop(mount);
    assert_eq!(bucket.get("b"), None);
    let mount = bucket.mount_in(folder, Options::default());
    assert_eq!(mount.read("b").await.unwrap(), picture(50_000));
    mount.settle().await;
    assert!(bucket.get("b").unwrap() == picture(50_000) && bucket.get("copy").unwrap() == picture(90_000));
}

#[tokio::test(start_paused = true)]
async fn another_host_replaces_the_original_before_the_copy_is_made() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    mount.save("a", &picture(50_000)).await.unwrap();
    mount.settle().await;
    assert!(mount.cp("a", "b", NEW, 1 << 30).await.unwrap());
    bucket.put("a", b"theirs").await;
    mount.settle().await;
    assert_eq!((bucket.get("a").unwrap(), bucket.get("b").unwrap()), (b"theirs".to_vec(), picture(50_000)));
}
