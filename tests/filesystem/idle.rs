//! Files that nobody has open: what is cached of them is let go by their inodes, and goes with them all the same.

use std::time::Duration;

use mediafs::fs::RenameFlags;
use mediafs::store::fault::{Fault, Rule};
use mediafs::store::{ErrorKind, Operation};

use crate::world::{Bucket, World};

const EXCHANGE: RenameFlags = RenameFlags { no_replace: false, exchange: true };

/// Reads `path`; how many GETs that took.
async fn gets(mount: &World, path: &str, content: &[u8]) -> u64 {
    let before = mount.counts.of(Operation::GetObject);
    assert_eq!(mount.read(path).await.unwrap(), content, "{path}");
    mount.counts.of(Operation::GetObject) - before
}

#[tokio::test(start_paused = true)]
async fn cached_bytes_follow_their_file() {
    for saved_here in [true, false] {
        let bucket = Bucket::new();
        let mount = bucket.mount();
        mount.mkdir("d").await.unwrap();
        for name in ["d/moved.jpg", "d/changed.jpg", "d/copied.jpg"] {
            match saved_here {
                true => mount.save(name, name.as_bytes()).await.unwrap(),
                false => bucket.put(name, name.as_bytes()).await,
            }
        }
        mount.settle().await;
        for name in ["d/moved.jpg", "d/changed.jpg", "d/copied.jpg"] {
            assert_eq!(gets(&mount, name, name.as_bytes()).await, u64::from(!saved_here));
        }
        mount.rename("d/moved.jpg", "new.jpg").await.unwrap();
        mount.chmod("d/changed.jpg", 0o600).await.unwrap();
        mount.settle().await;
        assert_eq!(gets(&mount, "new.jpg", b"d/moved.jpg").await, 0, "renamed");
        assert_eq!(gets(&mount, "d/changed.jpg", b"d/changed.jpg").await, 0, "another mode");
        mount.rename("d", "e").await.unwrap();
        mount.settle().await;
        assert_eq!(gets(&mount, "e/changed.jpg", b"d/changed.jpg").await, 0, "in a directory that was renamed");
        assert_eq!(gets(&mount, "e/copied.jpg", b"d/copied.jpg").await, 0);
        mount.save("d", b"d/copied.jpg").await.unwrap();
        mount.settle().await;
        assert_eq!(gets(&mount, "e/copied.jpg", b"d/copied.jpg").await, 0, "the same bytes elsewhere");
    }
}

#[tokio::test(start_paused = true)]
async fn two_that_nobody_opened_are_exchanged_and_moved_on() {
    for opened in [false, true] {
        let bucket = Bucket::new();
        bucket.put("a.jpg", b"first").await;
        bucket.put("b.jpg", b"the second").await;
        let mount = bucket.mount();
        for (path, content) in [("a.jpg", &b"first"[..]), ("b.jpg", b"the second")] {
            mount.stat(path).await.unwrap();
            if opened {
                gets(&mount, path, content).await;
            }
        }
        mount.rename_with("a.jpg", "b.jpg", EXCHANGE).await.unwrap();
        mount.settle().await;
        assert_eq!((bucket.get("a.jpg").unwrap(), bucket.get("b.jpg").unwrap()), (b"the second".to_vec(), b"first".to_vec()));
        mount.mkdir("d").await.unwrap();
        mount.rename("a.jpg", "d/c.jpg").await.unwrap();
        mount.rename("b.jpg", "d/d.jpg").await.unwrap();
        mount.settle().await;
        assert_eq!((bucket.get("d/c.jpg").unwrap(), bucket.get("d/d.jpg").unwrap()), (b"the second".to_vec(), b"first".to_vec()));
        assert_eq!(
            (mount.read("d/c.jpg").await.unwrap(), mount.read("d/d.jpg").await.unwrap()),
            (b"the second".to_vec(), b"first".to_vec())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_were_taken_here_to_break_a_cycle_go_with_their_file() {
    for replaced in [false, true] {
        let bucket = Bucket::new();
        let mount = bucket.mount();
        for path in ["a.jpg", "b.jpg", "c.jpg", "d.jpg"] {
            mount.save(path, path.as_bytes()).await.unwrap();
        }
        mount.settle().await;
        // One of the two is taken here, and can't be sent.
        bucket.faults.add(Rule::on(Operation::PutObject).fault(Fault::Error(ErrorKind::Unavailable)));
        mount.rename_with("a.jpg", "b.jpg", EXCHANGE).await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(mount.cache.usage().dirty_bytes > 0, "nothing was taken");
        for (path, other) in [("a.jpg", "c.jpg"), ("b.jpg", "d.jpg")] {
            match replaced {
                true => mount.rename(other, path).await.unwrap(),
                false => mount.unlink(path).await.unwrap(),
            }
        }
        bucket.faults.clear();
        mount.settle().await;
        assert_eq!(mount.cache.usage().dirty_bytes, 0, "replaced {replaced}");
        assert_eq!(bucket.get("a.jpg"), replaced.then(|| b"c.jpg".to_vec()));
    }
}
