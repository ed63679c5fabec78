//! Files larger than the cache, through the file system: parts of 5 MiB in a cache of 24.

use std::time::Duration;

use mediafs::error::Error;
use mediafs::store::ErrorKind;
use mediafs::store::fault::{Fault, Rule};
use tokio::time::Instant;

use crate::world::{Bucket, Options, World};

const MIB: usize = 1 << 20;

fn piece(number: usize) -> Vec<u8> {
    (0..MIB / 8).flat_map(|at| ((at * 0x9e37 + number) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect()
}

fn content(count: usize) -> Vec<u8> {
    (0..count).flat_map(piece).collect()
}

fn small(bucket: &Bucket) -> World {
    bucket.mount_with(Options { cache_bytes: 24 << 20, ..Options::default() })
}

async fn append(mount: &World, handle: u64, numbers: std::ops::Range<usize>) {
    for number in numbers {
        mount.write(handle, (number * MIB) as u64, &piece(number)).await.unwrap();
    }
}

const NEW: i32 = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;

#[tokio::test(start_paused = true)]
async fn a_file_larger_than_the_cache_is_written_read_and_renamed() {
    let bucket = Bucket::new();
    let mount = small(&bucket);
    let handle = mount.open("temporary", NEW).await.unwrap();
    append(&mount, handle, 0..34).await;
    assert!(bucket.keys().is_empty());
    mount.rename("temporary", "final").await.unwrap();
    append(&mount, handle, 34..46).await;
    assert_eq!(mount.read_handle(handle, 7 << 20, 1 << 20).await.unwrap(), piece(7));
    mount.write(handle, 6 << 20, &piece(99)).await.unwrap();
    mount.close(handle).await.unwrap();
    let mut expected = content(46);
    expected[6 * MIB..7 * MIB].copy_from_slice(&piece(99));
    assert!(mount.read("final").await.unwrap() == expected);
    mount.settle().await;
    assert_eq!(bucket.keys(), ["final"]);
    assert!(bucket.get("final").unwrap() == expected);
}

#[tokio::test(start_paused = true)]
async fn closed_with_freed_parts_it_can_be_replaced_cut_and_removed() {
    let bucket = Bucket::new();
    let mount = small(&bucket);
    for name in ["replaced", "cut", "removed", "moved"] {
        let handle = mount.open(name, NEW).await.unwrap();
        append(&mount, handle, 0..32).await;
        mount.close(handle).await.unwrap();
        match name {
            "replaced" => mount.save(name, b"short").await.unwrap(),
            "cut" => {
                let handle = mount.open(name, libc::O_RDWR).await.unwrap();
                let ino = mount.stat(name).await.unwrap().ino;
                let cut = mediafs::fs::SetAttr { size: Some(11 << 20), ..Default::default() };
                mount.fs.setattr(ino, cut).await.unwrap();
                mount.close(handle).await.unwrap();
            }
            "removed" => mount.unlink(name).await.unwrap(),
            _ => {
                mount.mkdir("directory").await.unwrap();
                mount.rename(name, "directory/inside").await.unwrap();
                mount.rename("directory", "elsewhere").await.unwrap();
            }
        }
    }
    mount.settle().await;
    assert_eq!(bucket.keys(), ["cut", "elsewhere/", "elsewhere/inside", "replaced"]);
    assert_eq!(bucket.get("replaced").unwrap(), b"short");
    assert!(bucket.get("cut").unwrap() == content(11) && bucket.get("elsewhere/inside").unwrap() == content(32));
}

#[tokio::test(start_paused = true)]
async fn removed_while_open_its_freed_parts_are_gone_and_that_is_told_at_once() {
    let bucket = Bucket::new();
    let mount = small(&bucket);
    let handle = mount.open("file", NEW).await.unwrap();
    append(&mount, handle, 0..32).await;
    mount.unlink("file").await.unwrap();
    assert!(matches!(mount.read_handle(handle, 6 << 20, MIB).await, Err(Error::Stale)));
    mount.close(handle).await.unwrap();
    mount.settle().await;
    assert!(bucket.keys().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_writer_has_the_room_of_removed_files_that_the_kernel_still_knows() {
    let bucket = Bucket::new();
    let mount = small(&bucket);
    let handle = mount.open("old", NEW).await.unwrap();
    append(&mount, handle, 0..16).await;
    mount.close(handle).await.unwrap();
    mount.settle().await;
    let old = mount.looked_up("old").await;
    mount.unlink("old").await.unwrap();
    let handle = mount.fs.open(old, libc::O_RDONLY).await.unwrap().handle;
    mount.close(handle).await.unwrap();
    let handle = mount.open("new", NEW).await.unwrap();
    // Nothing else can make room.
    bucket.faults.add(Rule::any().fault(Fault::Error(ErrorKind::Unreachable)));
    let begun = Instant::now();
    append(&mount, handle, 0..20).await;
    mount.close(handle).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert!(matches!(mount.fs.open(old, libc::O_RDONLY).await, Err(Error::Stale)));
    bucket.faults.clear();
    mount.settle().await;
    assert!(bucket.get("new").unwrap() == content(20));
}
