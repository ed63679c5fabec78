//! Files that are stored compressed: what the bucket holds, and that no program on the mount can tell.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mediafs::error::{Error, Result};
use mediafs::fs::WriteMode;
use mediafs::media::{Rules, RulesBuilder, gzip};
use mediafs::store::{Body, Condition, ErrorKind, ObjectStore};
use mediafs::types::{Key, ObjectHeaders};

use crate::world::{Bucket, Options, World, requests};

fn rules() -> Arc<Rules> {
    let mut rules = RulesBuilder::default();
    rules.gzip("*.{css,js}", Some(gzip::LEAST_BYTES)).unwrap();
    Arc::new(rules.build().unwrap())
}

fn options() -> Options {
    Options { rules: rules(), ..Options::default() }
}

/// Text that compresses, different for each seed.
fn text(seed: usize, length: usize) -> Vec<u8> {
    let lines: String = (0..2000).map(|line| format!(".rule-{seed}-{} {{ margin: {}px }}\n", line * 7919 % 1000, line % 97)).collect();
    lines.into_bytes().into_iter().cycle().take(length).collect()
}

/// The object's original, if it is stored compressed; its headers.
fn stored(bucket: &Bucket, key: &str) -> (Option<Vec<u8>>, ObjectHeaders) {
    let (bytes, info) = bucket.memory.object(&Key::from(key)).unwrap();
    let original = gzip::original_size(&info.headers).map(|size| gzip::inflate(&bytes, size).unwrap());
    assert!(original.as_ref().is_none_or(|original| original.len() > bytes.len()));
    (original, info.headers)
}

async fn put(bucket: &Bucket, key: &str, bytes: &[u8], headers: &ObjectHeaders) {
    let body = Body::new(Bytes::copy_from_slice(bytes));
    let _receipt = bucket.memory.put(&Key::from(key), body, headers, &Condition::Any).await.unwrap();
}

/// As another mount would have stored it.
async fn put_compressed(bucket: &Bucket, key: &str, original: &[u8]) {
    let mut headers = ObjectHeaders { content_type: Some("text/css".into()), ..ObjectHeaders::default() };
    gzip::mark(&mut headers, original.len() as u64);
    put(bucket, key, &gzip::compress(original).unwrap(), &headers).await;
}

/// What a mount that never saw the file shows of it.
async fn check(bucket: &Bucket, options: Options, path: &str, expected: &[u8]) {
    let there = bucket.mount_with(options);
    assert_eq!(there.stat(path).await.unwrap().size, expected.len() as u64, "{path}");
    assert_eq!(there.read(path).await.unwrap(), expected, "{path}");
    let listed = bucket.mount_with(Options { posix_metadata: false, ..self::options() });
    listed.names("").await.unwrap();
    assert_eq!(listed.read(path).await.unwrap(), expected, "{path} after a listing");
    assert_eq!(listed.stat(path).await.unwrap().size, expected.len() as u64, "{path} after a listing");
}

/// A crash of the daemon alone.
fn restart(bucket: &Bucket, mount: World) -> World {
    bucket.mount_in(mount.crashed(), options())
}

#[tokio::test(start_paused = true)]
async fn a_file_is_stored_compressed_and_stays_what_it_is() {
    for write_mode in [WriteMode::Back, WriteMode::Through] {
        let bucket = Bucket::new();
        let here = bucket.mount_with(Options { write_mode, ..options() });
        let bytes = text(1, 50_000);
        here.save("a.css", &bytes).await.unwrap();
        assert_eq!(here.stat("a.css").await.unwrap().size, 50_000);
        here.settle().await;
        let (original, headers) = stored(&bucket, "a.css");
        assert_eq!(original.as_deref(), Some(&bytes[..]));
        assert_eq!((headers.content_encoding.as_deref(), headers.content_type.as_deref()), (Some("gzip"), Some("text/css")));
        let puts = |world: &World| requests(world).iter().filter(|(name, _)| matches!(*name, "PutObject" | "CopyObject")).count();
        assert_eq!(puts(&here), 1);
        // A listing, which shows how much is stored, changes nothing.
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(here.names("").await.unwrap(), ["a.css"]);
        assert_eq!(here.stat("a.css").await.unwrap().size, 50_000);
        assert_eq!(here.read("a.css").await.unwrap(), bytes);
        assert!(!requests(&here).iter().any(|(name, _)| *name == "GetObject"), "{:?}", requests(&here));
        let again = restart(&bucket, here);
        assert_eq!(again.names("").await.unwrap(), ["a.css"]);
        assert_eq!(again.stat("a.css").await.unwrap().size, 50_000);
        assert_eq!(again.read("a.css").await.unwrap(), bytes);
        assert!(!requests(&again).iter().any(|(name, _)| *name == "GetObject"), "still cached: {:?}", requests(&again));
        check(&bucket, options(), "a.css", &bytes).await;
        check(&bucket, Options::default(), "a.css", &bytes).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_small_or_of_another_kind_or_does_not_shrink_is_stored_as_it_is() {
    let bucket = Bucket::new();
    let here = bucket.mount_with(options());
    let noise: Vec<u8> = (0..5000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8 ^ ((at * at) >> 7) as u8).collect();
    let large = text(1, gzip::LIMIT_BYTES as usize + 1);
    let incompressible = gzip::compress(&noise).is_none();
    for (path, bytes) in [("a.css", text(1, 1023)), ("b.txt", text(1, 5000)), ("c.css", noise), ("large.css", large)] {
        here.save(path, &bytes).await.unwrap();
        here.settle().await;
        let (original, headers) = stored(&bucket, path);
        assert!(original.is_none() && headers.content_encoding.is_none() || (path == "c.css" && !incompressible), "{path}");
        assert_eq!(here.read(path).await.unwrap(), bytes, "{path}");
        check(&bucket, options(), path, &bytes).await;
    }
}

#[tokio::test(start_paused = true)]
async fn any_range_can_be_read_of_it() {
    let bucket = Bucket::new();
    let bytes = text(3, 4_000_000);
    put_compressed(&bucket, "a.js", &bytes).await;
    let stored_bytes = bucket.get("a.js").unwrap().len();
    assert!(stored_bytes < 3_900_000, "ranges behind the end of what is stored");
    for at in [3_900_000, 0, 1_000_000, 2_500_000, 3_999_999] {
        let here = bucket.mount_with(options());
        let handle = here.open("a.js", libc::O_RDONLY).await.unwrap();
        let end = (at + 100_000).min(bytes.len());
        assert_eq!(here.read_handle(handle, at as u64, 100_000).await.unwrap(), bytes[at..end], "{at}");
        here.close(handle).await.unwrap();
    }
    let here = bucket.mount_with(options());
    assert_eq!(here.read("a.js").await.unwrap(), bytes);
    let gets = here.counts.snapshot()["GetObject"];
    assert!(gets <= 3, "read range by range, fetched once: {gets}");
    // A cache without room for it.
    let here = bucket.mount_with(Options { cache_bytes: 1 << 20, ..options() });
    assert_eq!(here.read("a.js").await.unwrap(), bytes);
}

#[tokio::test(start_paused = true)]
async fn attributes_and_names_change_without_a_byte() {
    let bucket = Bucket::new();
    let bytes = text(4, 20_000);
    let here = bucket.mount_with(options());
    here.save("a.css", &bytes).await.unwrap();
    here.settle().await;
    let etag = bucket.memory.object(&Key::from("a.css")).unwrap().1.etag;
    here.chmod("a.css", 0o600).await.unwrap();
    here.settle().await;
    here.rename("a.css", "b.css").await.unwrap();
    here.settle().await;
    here.rename("b.css", "c.txt").await.unwrap();
    here.settle().await;
    here.chmod("c.txt", 0o640).await.unwrap();
    here.settle().await;
    assert_eq!(stored(&bucket, "c.txt").0.as_deref(), Some(&bytes[..]));
    assert_eq!(bucket.memory.object(&Key::from("c.txt")).unwrap().1.etag, etag);
    let counts = here.counts.snapshot();
    assert_eq!((counts["PutObject"], counts.get("GetObject").copied().unwrap_or(0)), (1, 0));
    assert_eq!(here.stat("c.txt").await.unwrap().size, 20_000);
    assert_eq!(here.read("c.txt").await.unwrap(), bytes);
    for options in [options(), Options::default()] {
        check(&bucket, options.clone(), "c.txt", &bytes).await;
        // By a mount that knows it from the bucket alone.
        let there = bucket.mount_with(options.clone());
        there.names("").await.unwrap();
        there.chmod("c.txt", 0o600).await.unwrap();
        there.settle().await;
        there.rename("c.txt", "d.bin").await.unwrap();
        there.rename("d.bin", "c.txt").await.unwrap();
        there.settle().await;
        check(&bucket, options, "c.txt", &bytes).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_rewrite_decides_anew() {
    let bucket = Bucket::new();
    put_compressed(&bucket, "a.css", &text(5, 9_000)).await;
    put_compressed(&bucket, "a.txt", &text(5, 9_000)).await;
    let here = bucket.mount_with(options());
    let (short, long, mut grown) = (text(6, 300), text(7, 7_000), text(5, 9_000));
    for path in ["a.css", "a.txt"] {
        let handle = here.open(path, libc::O_WRONLY | libc::O_APPEND).await.unwrap();
        here.write(handle, 9_000, b"more").await.unwrap();
        here.close(handle).await.unwrap();
        here.settle().await;
        if path == "a.css" {
            grown.extend_from_slice(b"more");
        }
        assert_eq!(stored(&bucket, path).0.is_some(), path == "a.css");
        check(&bucket, options(), path, &grown).await;
        for bytes in [&short, &long] {
            here.save(path, bytes).await.unwrap();
            here.settle().await;
            let (original, headers) = stored(&bucket, path);
            assert_eq!(original.is_some(), path == "a.css" && bytes.len() > 1024, "{path}");
            assert_eq!(headers.content_encoding.is_some(), original.is_some());
            assert!(gzip::mentions(&headers) == original.is_some());
            assert_eq!(here.read(path).await.unwrap(), *bytes);
            check(&bucket, options(), path, bytes).await;
        }
        // In the middle, by a mount that has none of it.
        let there = bucket.mount_with(options());
        let handle = there.open(path, libc::O_RDWR).await.unwrap();
        there.write(handle, 100, b"XYZ").await.unwrap();
        there.close(handle).await.unwrap();
        there.settle().await;
        let mut changed = long.clone();
        changed[100..103].copy_from_slice(b"XYZ");
        check(&bucket, options(), path, &changed).await;
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(here.read(path).await.unwrap(), changed);
    }
}

#[tokio::test(start_paused = true)]
async fn it_grows_into_parts_and_shrinks_back() {
    let bucket = Bucket::new();
    let start = text(8, 3_000_000);
    put_compressed(&bucket, "a.css", &start).await;
    let here = bucket.mount_with(options());
    let tail = text(9, 18_000_000);
    let handle = here.open("a.css", libc::O_RDWR).await.unwrap();
    here.write(handle, 3_000_000, &tail).await.unwrap();
    here.close(handle).await.unwrap();
    here.settle().await;
    let whole = [&start[..], &tail].concat();
    let (original, headers) = stored(&bucket, "a.css");
    assert!(original.is_none() && headers.content_encoding.is_none() && !gzip::mentions(&headers));
    assert_eq!(bucket.get("a.css").unwrap(), whole);
    check(&bucket, options(), "a.css", &whole).await;
    here.save("a.css", &start).await.unwrap();
    here.settle().await;
    assert_eq!(stored(&bucket, "a.css").0, Some(start));
}

#[tokio::test(start_paused = true)]
async fn objects_of_others_are_what_is_stored() {
    let bucket = Bucket::new();
    let original = text(10, 5_000);
    let compressed = gzip::compress(&original).unwrap();
    let theirs = ObjectHeaders { content_encoding: Some("gzip".into()), ..ObjectHeaders::default() };
    put(&bucket, "a.css", &compressed, &theirs).await;
    check(&bucket, options(), "a.css", &compressed).await;
    let here = bucket.mount_with(options());
    here.chmod("a.css", 0o600).await.unwrap();
    here.settle().await;
    let (none, headers) = stored(&bucket, "a.css");
    assert!(none.is_none() && headers.content_encoding.as_deref() == Some("gzip"));
    check(&bucket, options(), "a.css", &compressed).await;
}

#[tokio::test(start_paused = true)]
async fn damage_is_an_error_and_nothing_of_it_is_kept() {
    let bucket = Bucket::new();
    for (name, length) in [("small", 50_000), ("large", 1_500_000)] {
        let original = text(11, length);
        let right = gzip::compress(&original).unwrap();
        let mut flipped = right.clone();
        let middle = right.len() / 2;
        flipped[middle] ^= 4;
        let wrongs = [right[..right.len() - 9].to_vec(), flipped, gzip::compress(&original[1..]).unwrap(), text(12, right.len() / 2)];
        for (at, wrong) in wrongs.iter().enumerate() {
            let mut headers = ObjectHeaders::default();
            gzip::mark(&mut headers, length as u64);
            let path = format!("{name}-{at}.js");
            put(&bucket, &path, wrong, &headers).await;
            let here = bucket.mount_with(options());
            assert_eq!(here.stat(&path).await.unwrap().size, length as u64);
            let error = here.read(&path).await.unwrap_err();
            assert!(matches!(&error, Error::Store(error) if error.is(ErrorKind::Corrupt)), "{path}: {error}");
            // Made good under the mount, it reads.
            put(&bucket, &path, &right, &headers).await;
            tokio::time::advance(Duration::from_secs(60)).await;
            assert_eq!(here.read(&path).await.unwrap(), original, "{path}");
        }
    }
}

async fn encoding(world: &World, path: &str) -> Result<Vec<u8>> {
    let ino = world.stat(path).await?.ino;
    world.fs.getxattr(ino, OsStr::new("user.s3.content-encoding")).await
}

#[tokio::test(start_paused = true)]
async fn an_encoding_that_is_set_wins_and_how_it_is_stored_is_no_attribute() {
    let name = OsStr::new("user.s3.content-encoding");
    let bucket = Bucket::new();
    let bytes = text(13, 9_000);
    for pending in [true, false] {
        let path = format!("{pending}.css");
        let here = bucket.mount_with(options());
        here.save(&path, &bytes).await.unwrap();
        if !pending {
            here.settle().await;
            assert!(stored(&bucket, &path).0.is_some());
            assert_eq!(encoding(&here, &path).await.unwrap(), b"gzip");
        }
        let ino = here.stat(&path).await.unwrap().ino;
        assert!(here.fs.listxattr(ino).await.unwrap().is_empty(), "a program would copy it onto the copy");
        assert!(matches!(here.fs.removexattr(ino, name).await, Err(Error::NoAttribute)));
        here.fs.setxattr(ino, name, b"br", 0).await.unwrap();
        here.settle().await;
        let (original, headers) = stored(&bucket, &path);
        assert!(original.is_none() && headers.content_encoding.as_deref() == Some("br") && !gzip::mentions(&headers), "{headers:?}");
        assert_eq!(bucket.get(&path).unwrap(), bytes);
        check(&bucket, options(), &path, &bytes).await;
        here.fs.removexattr(ino, name).await.unwrap();
        here.save(&path, &bytes[1..]).await.unwrap();
        here.settle().await;
        assert!(stored(&bucket, &path).0.is_some());
    }
    // By a mount without its bytes.
    put_compressed(&bucket, "c.css", &bytes).await;
    let there = bucket.mount_with(options());
    let ino = there.stat("c.css").await.unwrap().ino;
    there.fs.setxattr(ino, name, b"", 0).await.unwrap();
    there.settle().await;
    assert_eq!(bucket.get("c.css").unwrap(), bytes);
    check(&bucket, options(), "c.css", &bytes).await;
}

#[tokio::test(start_paused = true)]
async fn a_kill_or_a_change_while_it_goes_up_leaves_one_right_object() {
    let bucket = Bucket::new();
    let bytes = text(14, 30_000);
    let here = bucket.mount_with(options());
    here.save("a.css", &bytes).await.unwrap();
    let here = restart(&bucket, here);
    assert_eq!(here.stat("a.css").await.unwrap().size, 30_000);
    here.settle().await;
    assert_eq!(stored(&bucket, "a.css").0.as_deref(), Some(&bytes[..]));
    // Renamed and given another mode before it went up, and after.
    here.save("tmp", &bytes[..20_000]).await.unwrap();
    here.rename("tmp", "b.css").await.unwrap();
    here.chmod("b.css", 0o600).await.unwrap();
    here.settle().await;
    here.chmod("b.css", 0o644).await.unwrap();
    here.rename("b.css", "a.css").await.unwrap();
    let here = restart(&bucket, here);
    assert_eq!(here.stat("a.css").await.unwrap().size, 20_000);
    here.settle().await;
    assert_eq!(stored(&bucket, "a.css").0.as_deref(), Some(&bytes[..20_000]));
    check(&bucket, options(), "a.css", &bytes[..20_000]).await;
    assert_eq!(bucket.keys(), ["a.css"]);
}

#[tokio::test(start_paused = true)]
async fn a_copy_by_the_bucket_is_not_made_of_it() {
    let bucket = Bucket::new();
    let bytes = text(15, 30_000);
    put_compressed(&bucket, "a.css", &bytes).await;
    let here = bucket.mount_with(options());
    let from = here.open("a.css", libc::O_RDONLY).await.unwrap();
    let to = here.open("copy.bin", libc::O_WRONLY | libc::O_CREAT).await.unwrap();
    let copied = Arc::clone(&here.fs).copy_file_range((from, 0), (to, 0), 30_000).await;
    assert!(matches!(copied, Err(Error::Unsupported)), "the kernel copies bytes");
    here.close(from).await.unwrap();
    here.close(to).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_same_bytes_of_two_hosts_are_no_conflict() {
    let bucket = Bucket::new();
    let bytes = text(16, 12_000);
    let here = bucket.mount_with(options());
    let there = bucket.mount_with(Options { host: "there", ..options() });
    here.save("a.css", &bytes).await.unwrap();
    there.save("a.css", &bytes).await.unwrap();
    here.settle().await;
    there.settle().await;
    assert_eq!(bucket.keys(), ["a.css"]);
    tokio::time::advance(Duration::from_secs(60)).await;
    for world in [&here, &there] {
        assert_eq!(world.stat("a.css").await.unwrap().size, 12_000);
        assert_eq!(world.read("a.css").await.unwrap(), bytes);
    }
}
