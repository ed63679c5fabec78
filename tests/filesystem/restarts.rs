//! A kill in the middle of things, and the mount that comes after it.

use std::sync::Arc;
use std::time::Duration;

use mediafs::fs::RenameFlags;
use mediafs::store::fault::{Fault, Rule, When};
use mediafs::store::{ErrorKind, Operation};

use crate::world::{Bucket, Options, World, data_files};

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
