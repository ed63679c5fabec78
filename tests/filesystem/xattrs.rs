//! Extended attributes: what is set is kept with the object, through every change of the file, and by the rules of Linux.

use std::ffi::OsStr;
use std::sync::Arc;

use mediafs::error::{Error, Result};
use mediafs::fs::WriteMode;

use crate::world::{Bucket, ME, Options, ROOT, World, requests};

const CREATE: i32 = libc::XATTR_CREATE;
const REPLACE: i32 = libc::XATTR_REPLACE;

impl World {
    async fn set(&self, path: &str, name: &str, value: &[u8]) -> Result<()> {
        self.set_as(path, name, value, 0).await
    }

    async fn set_as(&self, path: &str, name: &str, value: &[u8], flags: i32) -> Result<()> {
        let ino = self.stat(path).await?.ino;
        self.fs.setxattr(ino, OsStr::new(name), value, flags).await
    }

    async fn attribute(&self, path: &str, name: &str) -> Result<Vec<u8>> {
        let ino = self.stat(path).await?.ino;
        self.fs.getxattr(ino, OsStr::new(name)).await
    }

    async fn attributes(&self, path: &str) -> Vec<String> {
        let ino = self.stat(path).await.unwrap().ino;
        self.fs.listxattr(ino).await.unwrap().into_iter().map(|name| name.into_string().unwrap()).collect()
    }

    async fn remove(&self, path: &str, name: &str) -> Result<()> {
        let ino = self.stat(path).await?.ino;
        self.fs.removexattr(ino, OsStr::new(name)).await
    }
}

fn is_missing(result: Result<Vec<u8>>) -> bool {
    matches!(result, Err(Error::NoAttribute))
}

#[tokio::test(start_paused = true)]
async fn attributes_ride_with_the_upload_and_are_seen_elsewhere() {
    for write_mode in [WriteMode::Back, WriteMode::Through] {
        let bucket = Bucket::new();
        let here = bucket.mount_with(Options { write_mode, ..Options::default() });
        let handle = here.open("a.jpg", libc::O_WRONLY | libc::O_CREAT).await.unwrap();
        here.write(handle, 0, b"bytes").await.unwrap();
        here.set("a.jpg", "user.comment", b"\0\xffbinary").await.unwrap();
        here.set("a.jpg", "user.\u{65e5}\u{672c}", b"").await.unwrap();
        here.close(handle).await.unwrap();
        here.settle().await;
        assert_eq!(requests(&here).iter().filter(|(name, _)| matches!(*name, "PutObject" | "CopyObject")).count(), 1, "{write_mode:?}");
        let there = bucket.mount();
        assert_eq!(there.attribute("a.jpg", "user.comment").await.unwrap(), b"\0\xffbinary");
        assert_eq!(there.attribute("a.jpg", "user.\u{65e5}\u{672c}").await.unwrap(), b"");
        assert_eq!(there.attributes("a.jpg").await, ["user.comment", "user.\u{65e5}\u{672c}"]);
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_clean_file_they_are_one_copy_onto_itself() {
    let bucket = Bucket::new();
    bucket.put_with("a", b"bytes", &[("theirs", "x")]).await;
    let here = bucket.mount();
    here.set("a", "user.one", b"1").await.unwrap();
    here.set("a", "user.two", b"2").await.unwrap();
    here.set("a", "user.two", b"2").await.unwrap();
    here.settle().await;
    let counts = requests(&here);
    assert!(
        counts.contains(&("CopyObject", 1)) && !counts.iter().any(|(name, _)| matches!(*name, "PutObject" | "GetObject")),
        "{counts:?}"
    );
    let there = bucket.mount();
    assert_eq!(there.attributes("a").await, ["user.one", "user.two", "user.s3.meta.theirs"]);
    assert_eq!(there.read("a").await.unwrap(), b"bytes");
    here.chmod("a", 0o600).await.unwrap();
    here.save("a", b"new bytes").await.unwrap();
    here.rename("a", "b").await.unwrap();
    here.remove("b", "user.one").await.unwrap();
    here.settle().await;
    let there = bucket.mount();
    assert_eq!(there.attributes("b").await, ["user.two", "user.s3.meta.theirs"]);
    assert_eq!(there.stat("b").await.unwrap().mode, 0o600);
}

#[tokio::test(start_paused = true)]
async fn they_survive_a_kill() {
    let bucket = Bucket::new();
    let here = bucket.mount();
    here.save("clean", b"bytes").await.unwrap();
    here.settle().await;
    here.set("clean", "user.one", b"1").await.unwrap();
    here.save("dirty", b"bytes").await.unwrap();
    here.set("dirty", "user.s3.cache-control", b"no-store").await.unwrap();
    let folder = Arc::clone(&here.folder);
    here.writer.stop();
    drop(here);
    let again = bucket.mount_in(folder, Options::default());
    assert_eq!(again.attribute("clean", "user.one").await.unwrap(), b"1");
    assert_eq!(again.attribute("dirty", "user.s3.cache-control").await.unwrap(), b"no-store");
    again.settle().await;
    let there = bucket.mount();
    assert_eq!(there.attribute("clean", "user.one").await.unwrap(), b"1");
    assert_eq!(there.attribute("dirty", "user.s3.cache-control").await.unwrap(), b"no-store");
}

#[tokio::test(start_paused = true)]
async fn create_and_replace_are_exact() {
    let bucket = Bucket::new();
    let here = bucket.mount();
    here.save("a", b"bytes").await.unwrap();
    assert!(matches!(here.set_as("a", "user.x", b"1", REPLACE).await, Err(Error::NoAttribute)));
    here.set_as("a", "user.x", b"1", CREATE).await.unwrap();
    assert!(matches!(here.set_as("a", "user.x", b"2", CREATE).await, Err(Error::Exists)));
    here.set_as("a", "user.x", b"3", REPLACE).await.unwrap();
    assert_eq!(here.attribute("a", "user.x").await.unwrap(), b"3");
    here.remove("a", "user.x").await.unwrap();
    assert!(matches!(here.remove("a", "user.x").await, Err(Error::NoAttribute)));
    assert!(matches!(here.set_as("a", "user.x", b"", 1 << 10).await, Err(Error::Invalid)));
}

#[tokio::test(start_paused = true)]
async fn the_stores_limit_is_enospc_at_once() {
    for (r2, largest) in [(false, 1_400), (true, 5_900)] {
        let bucket = Bucket::new();
        let here = bucket.mount_with(Options { folds_names: r2, ..Options::default() });
        here.save("a", b"bytes").await.unwrap();
        here.set("a", "user.small", b"x").await.unwrap();
        here.set("a", "user.x", &vec![0xaa; largest]).await.unwrap();
        assert!(matches!(here.set("a", "user.y", &vec![0xaa; largest / 8]).await, Err(Error::TooManyAttributes)), "r2: {r2}");
        assert_eq!(here.attributes("a").await, ["user.small", "user.x"]);
        here.chmod("a", 0o600).await.unwrap();
        here.settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_privileged_comes_from_the_bucket() {
    let bucket = Bucket::new();
    bucket.put_with("a", b"x", &[("xattr", "%7B%22security.capability%22%3A%22AAAA%22%2C%22user.ok%22%3A%22AAAA%22%7D")]).await;
    let here = bucket.mount();
    assert_eq!(here.attributes("a").await, ["user.ok"]);
    for name in ["security.capability", "trusted.x"] {
        assert!(is_missing(here.attribute("a", name).await), "{name}");
        assert!(matches!(here.set("a", name, b"x").await, Err(Error::Unsupported)), "{name}");
        assert!(matches!(here.remove("a", name).await, Err(Error::NoAttribute)), "{name}");
    }
    for name in ["system.posix_acl_access", "nonsense"] {
        assert!(matches!(here.attribute("a", name).await, Err(Error::Unsupported)), "{name}");
        assert!(matches!(here.set("a", name, b"x").await, Err(Error::Unsupported)), "{name}");
    }
    for name in ["user.mediafs.etag", "user.s3.meta.mode", "user.s3.nonsense"] {
        assert!(matches!(here.set("a", name, b"x").await, Err(Error::NotPermitted)), "{name}");
    }
    assert!(matches!(here.set("a", "user.", b"x").await, Err(Error::Invalid)));
}

#[tokio::test(start_paused = true)]
async fn a_link_is_signed_for_as_long_as_is_asked() {
    let bucket = Bucket::new();
    bucket.put("d/a", b"x").await;
    let here = bucket.mount();
    for (name, seconds) in [("user.mediafs.url", "=3600"), ("user.mediafs.url.60", "=60")] {
        let url = String::from_utf8(here.attribute("d/a", name).await.unwrap()).unwrap();
        assert!(url.contains("d/a") && url.ends_with(seconds), "{url}");
    }
    for (path, name) in [("d/a", "user.mediafs.url.0"), ("d/a", "user.mediafs.url.1h"), ("d", "user.mediafs.url.60")] {
        assert!(matches!(here.attribute(path, name).await, Err(Error::NoAttribute)), "{path} {name}");
    }
}

#[tokio::test(start_paused = true)]
async fn directories_have_them_and_symlinks_have_not() {
    let bucket = Bucket::new();
    bucket.put("implicit/a", b"x").await;
    let here = bucket.mount();
    here.mkdir("d").await.unwrap();
    for path in ["d", "implicit"] {
        here.set(path, "user.x", b"1").await.unwrap();
        assert!(matches!(here.set(path, "user.s3.cache-control", b"no-store").await, Err(Error::Unsupported)));
    }
    here.rename("d", "e").await.unwrap();
    here.fs.symlink(ROOT, OsStr::new("link"), OsStr::new("e"), ME).await.unwrap();
    assert!(matches!(here.set("link", "user.x", b"1").await, Err(Error::NotPermitted)));
    assert!(is_missing(here.attribute("link", "user.x").await));
    assert!(here.attributes("link").await.is_empty());
    here.settle().await;
    let there = bucket.mount();
    assert_eq!(there.attribute("e", "user.x").await.unwrap(), b"1");
    assert_eq!(there.attribute("implicit", "user.x").await.unwrap(), b"1");
    assert!(matches!(there.fs.setxattr(ROOT, OsStr::new("user.x"), b"", 0).await, Err(Error::Unsupported)));
}

#[tokio::test(start_paused = true)]
async fn a_chosen_header_stays_until_it_is_removed() {
    let bucket = Bucket::new();
    let here = bucket.mount();
    here.save("a.jpg", b"bytes").await.unwrap();
    assert_eq!(here.attribute("a.jpg", "user.s3.content-type").await.unwrap(), b"image/jpeg");
    assert!(here.attributes("a.jpg").await.is_empty(), "what any file of this name has is not listed");
    here.set("a.jpg", "user.s3.content-type", b"image/x-mine").await.unwrap();
    here.set("a.jpg", "user.s3.meta.Camera", "Z\u{fc}rich".as_bytes()).await.unwrap();
    here.save("a.jpg", b"other bytes").await.unwrap();
    here.rename("a.jpg", "a.png").await.unwrap();
    here.settle().await;
    let there = bucket.mount();
    assert_eq!(there.attribute("a.png", "user.s3.content-type").await.unwrap(), b"image/x-mine");
    assert_eq!(there.attribute("a.png", "user.s3.meta.camera").await.unwrap(), "Z\u{fc}rich".as_bytes());
    assert_eq!(there.attributes("a.png").await, ["user.s3.content-type", "user.s3.meta.camera"]);
    there.rename("a.png", "a.webp").await.unwrap();
    there.settle().await;
    let info = bucket.memory.object(&"a.webp".into()).unwrap().1;
    assert_eq!(info.headers.content_type.as_deref(), Some("image/x-mine"));
    there.remove("a.webp", "user.s3.content-type").await.unwrap();
    assert!(matches!(there.remove("a.webp", "user.s3.content-type").await, Err(Error::NoAttribute)));
    there.settle().await;
    let info = bucket.memory.object(&"a.webp".into()).unwrap().1;
    assert_eq!(info.headers.content_type.as_deref(), Some("image/webp"));
    for (name, value) in [("content-type", &b"jpeg"[..]), ("cache-control", b"a\nb"), ("storage-class", b"COLD"), ("meta.x", b"\xff")] {
        assert!(matches!(there.set("a.webp", &format!("user.s3.{name}"), value).await, Err(Error::Invalid)), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_sum_that_rclone_keeps_goes_with_the_bytes() {
    let bucket = Bucket::new();
    bucket.put_with("a", b"bytes", &[("md5chksum", "eA=="), ("theirs", "x")]).await;
    let here = bucket.mount();
    here.save_with("a", b"BYTES", libc::O_WRONLY).await.unwrap();
    here.settle().await;
    let metadata = bucket.memory.object(&"a".into()).unwrap().1.headers.metadata;
    assert!(!metadata.contains_key("md5chksum") && metadata.contains_key("theirs"), "{metadata:?}");
}
