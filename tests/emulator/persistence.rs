//! A folder keeps everything over a restart and a kill, and the memory stays bounded.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use mediafs::emulator::{Emulator, EmulatorConfig, Error};
use mediafs::types::ObjectHeaders;

use crate::multipart::{PART, begin, complete, part};

use crate::{BUCKET, client, config, put, start_with};

#[tokio::test]
async fn a_restart_finds_objects_and_uploads() {
    let folder = tempfile::tempdir().unwrap();
    let config = EmulatorConfig { folder: Some(folder.path().to_owned()), ..config() };
    let (emulator, s3) = start_with(config.clone()).await;
    let odd = "../\u{1}//\u{e9}/..";
    put(&s3, odd, "odd").await;
    put(&s3, "gone", "gone").await;
    put(&s3, "twice", "old").await;
    put(&s3, "twice", "new").await;
    s3.delete_object().bucket(BUCKET).key("gone").send().await.unwrap();
    let id = begin(&s3, "big").await;
    let one = part(&s3, "big", &id, 1, vec![1; PART]).await;
    s3.copy_object().bucket(BUCKET).key("copy").copy_source(format!("{BUCKET}/twice")).send().await.unwrap();
    let before = (emulator.keys(BUCKET), emulator.object(BUCKET, odd), emulator.uploads(BUCKET));
    assert!(matches!(Emulator::start(config.clone()).await, Err(Error::Folder { .. })), "a folder has one emulator");
    emulator.stop().await;

    let (emulator, s3) = start_with(config.clone()).await;
    assert_eq!((emulator.keys(BUCKET), emulator.object(BUCKET, odd), emulator.uploads(BUCKET)), before);
    assert_eq!(&*emulator.object(BUCKET, "copy").unwrap().body, b"new");
    let two = part(&s3, "big", &id, 2, b"end".to_vec()).await;
    complete(&s3, "big", &id, vec![one, two]).send().await.unwrap();
    s3.delete_object().bucket(BUCKET).key("twice").send().await.unwrap();
    emulator.stop().await;

    let (emulator, _s3) = start_with(config).await;
    assert_eq!(emulator.object(BUCKET, "big").unwrap().body.len(), PART + 3);
    assert_eq!(&*emulator.object(BUCKET, "copy").unwrap().body, b"new");
    assert!(emulator.uploads(BUCKET).is_empty());
    // `copy`, the odd key and the two parts; nothing of what was replaced or removed.
    assert_eq!(std::fs::read_dir(folder.path().join("blobs")).unwrap().count(), 4);
}

#[tokio::test]
async fn leftovers_are_swept_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let config = EmulatorConfig { folder: Some(folder.path().to_owned()), ..config() };
    let emulator = Emulator::start(config.clone()).await.unwrap();
    emulator.put_raw(BUCKET, "a", "kept", ObjectHeaders::default()).unwrap();
    emulator.stop().await;
    let leftover = folder.path().join("blobs/00000000000000ff");
    std::fs::write(&leftover, "half of a body").unwrap();
    let emulator = Emulator::start(config).await.unwrap();
    assert!(!leftover.exists());
    emulator.put_raw(BUCKET, "b", "new", ObjectHeaders::default()).unwrap();
    assert_eq!(&*emulator.object(BUCKET, "a").unwrap().body, b"kept");
}

#[tokio::test]
async fn a_large_object_streams_through_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (emulator, s3) = start_with(EmulatorConfig { folder: Some(folder.path().to_owned()), ..config() }).await;
    let body: Vec<u8> = (0..24u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    s3.put_object().bucket(BUCKET).key("big").body(body.clone().into()).send().await.unwrap();
    let got = s3.get_object().bucket(BUCKET).key("big").send().await.unwrap();
    // Replaced while it is read: the reader finishes on what it opened.
    put(&s3, "big", "small").await;
    assert!(got.body.collect().await.unwrap().to_vec() == body);
    assert_eq!(&*emulator.object(BUCKET, "big").unwrap().body, b"small");
}

#[tokio::test]
async fn a_taken_address_and_a_wrong_bucket_name_are_said() {
    let emulator = Emulator::start(config()).await.unwrap();
    let address = emulator.endpoint().strip_prefix("http://").unwrap().parse().unwrap();
    assert!(matches!(Emulator::start(EmulatorConfig { address, ..config() }).await, Err(Error::Listen { .. })));
    let wrong = EmulatorConfig { buckets: vec!["No_Bucket".to_owned()], ..config() };
    assert!(matches!(Emulator::start(wrong).await, Err(Error::BucketName(_))));
}

/// The folder for [`child`]; set in the child alone.
const CHILD_FOLDER: &str = "MEDIAFS_TEST_EMULATOR_FOLDER";

/// Not a test by itself: this binary, run again as an emulator that can be killed and measured.
#[tokio::test]
async fn child() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let emulator = Emulator::start(EmulatorConfig { folder: Some(folder.into()), ..config() }).await.unwrap();
    println!("\nendpoint {}", emulator.endpoint());
    std::future::pending().await
}

/// Ends with its owner.
struct ChildProcess(Child);

impl Drop for ChildProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

impl ChildProcess {
    /// By SIGKILL; afterwards it is gone.
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn spawn_child(folder: &Path) -> (ChildProcess, aws_sdk_s3::Client) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "persistence::child", "--nocapture"]).env(CHILD_FOLDER, folder);
    let mut child = ChildProcess(command.stdout(Stdio::piped()).spawn().unwrap());
    let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let endpoint = lines.map(Result::unwrap).find_map(|line| line.strip_prefix("endpoint ").map(str::to_owned));
    (child, client(&endpoint.unwrap(), "mediafs", "mediafs-secret", "auto"))
}

#[tokio::test]
async fn what_was_answered_for_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, s3) = spawn_child(folder.path());
    let mut writes: FuturesUnordered<_> = (0..200)
        .map(|number| {
            let body = format!("{number};").repeat(number * 100);
            let send = s3.put_object().bucket(BUCKET).key(format!("k/{number}")).body(body.clone().into_bytes().into()).send();
            async move { send.await.map(|_| (number, body)) }
        })
        .collect();
    let mut answered = Vec::new();
    while let Some(result) = writes.next().await {
        answered.extend(result.ok());
        if answered.len() == 60 {
            child.kill();
        }
    }
    assert!(answered.len() >= 60);
    let (emulator, _s3) = start_with(EmulatorConfig { folder: Some(folder.path().to_owned()), ..config() }).await;
    for (number, body) in answered {
        assert!(emulator.object(BUCKET, &format!("k/{number}")).unwrap().body == body.as_bytes(), "{number}");
    }
    for key in emulator.keys(BUCKET) {
        assert!(emulator.object(BUCKET, &key).is_some(), "{key} is listed and has no bytes");
    }
}

#[tokio::test]
async fn a_large_object_needs_little_memory() {
    const SIZE: u64 = 256 << 20;
    const ALLOWED_KIB: u64 = 96 << 10;
    let folder = tempfile::tempdir().unwrap();
    let (child, s3) = spawn_child(folder.path());
    let file = folder.path().join("source");
    std::fs::File::create(&file).unwrap().set_len(SIZE).unwrap();
    // A body from a file is signed without its hash, so that only the emulator's own work is done.
    let body = aws_sdk_s3::primitives::ByteStream::from_path(&file).await.unwrap();
    s3.put_object().bucket(BUCKET).key("big").body(body).send().await.unwrap();
    let mut got = s3.get_object().bucket(BUCKET).key("big").send().await.unwrap().body;
    let mut size = 0;
    while let Some(bytes) = got.next().await {
        size += bytes.unwrap().len() as u64;
    }
    assert_eq!(size, SIZE);
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.0.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib < ALLOWED_KIB, "{peak_kib} KiB");
}
