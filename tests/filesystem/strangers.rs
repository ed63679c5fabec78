//! What other programs leave in a bucket, and what stores make of it: marks of directories, bare objects, archived ones,
//! names that are a file and a directory.

use std::ffi::OsStr;
use std::time::Duration;

use mediafs::error::Error;
use mediafs::fs::Kind;
use mediafs::store::fault::{Fault, Rule, When};
use mediafs::store::{Body, Condition, ErrorKind, ObjectStore, Operation};
use mediafs::types::ObjectHeaders;
use tokio::time::Instant;

use crate::world::{Bucket, ME, Options, requests};

#[tokio::test(start_paused = true)]
async fn every_mark_of_a_directory_is_one() {
    let bucket = Bucket::new();
    for key in ["implicit/f", "bare/", "old_$folder$", "both/", "both_$folder$"] {
        bucket.put(key, b"").await;
    }
    bucket.put("with-bytes/", b"not empty").await;
    let headers = ObjectHeaders { content_type: Some("application/x-directory; charset=UTF-8".into()), ..Default::default() };
    let _receipt = bucket.memory.put(&"typed/".into(), Body::new(Vec::new()), &headers, &Condition::Any).await.unwrap();
    let mount = bucket.mount();
    let names = ["bare", "both", "implicit", "old", "typed", "with-bytes"];
    assert_eq!(mount.names("").await.unwrap(), names);
    tokio::time::advance(Duration::from_secs(60)).await;
    for name in names {
        assert_eq!(mount.stat(name).await.unwrap().kind, Kind::Directory, "{name}");
        mount.save(&format!("{name}/new"), b"x").await.unwrap();
        mount.unlink(&format!("{name}/new")).await.unwrap();
    }
    mount.settle().await;
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(mount.names("").await.unwrap(), names, "none vanished with its last child");
    mount.unlink("implicit/f").await.unwrap();
    for name in names {
        mount.rmdir(name).await.unwrap();
        assert!(!mount.exists(name).await, "{name}");
    }
    assert!(mount.names("").await.unwrap().is_empty());
    mount.settle().await;
    assert!(bucket.keys().is_empty(), "{:?}", bucket.keys());
}

#[tokio::test(start_paused = true)]
async fn a_directory_marked_the_old_way_moves_with_what_is_in_it() {
    let bucket = Bucket::new();
    for key in ["old_$folder$", "old/sub_$folder$", "old/f"] {
        bucket.put(key, b"").await;
    }
    let mount = bucket.mount();
    assert_eq!(mount.names("").await.unwrap(), ["old"]);
    mount.rename("old", "new").await.unwrap();
    mount.settle().await;
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(mount.names("").await.unwrap(), ["new"]);
    assert_eq!(mount.names("new").await.unwrap(), ["f", "sub"]);
    assert!(!bucket.keys().iter().any(|key| key.starts_with("old")), "{:?}", bucket.keys());
}

#[tokio::test(start_paused = true)]
async fn directories_that_nobody_looked_at_keep_their_attributes_when_their_parent_moves() {
    let bucket = Bucket::new();
    let attributes = [("mode", "16832"), ("xattr", "%7B%22user.x%22%3A%22MQ==%22%7D")];
    bucket.put_with("d/sub/", b"", &attributes).await;
    bucket.put("d/sub/f", b"").await;
    let mount = bucket.mount();
    mount.rename("d", "e").await.unwrap();
    mount.settle().await;
    for mount in [mount, bucket.mount()] {
        let attr = mount.stat("e/sub").await.unwrap();
        assert_eq!(attr.mode, 0o700);
        assert_eq!(mount.fs.getxattr(attr.ino, OsStr::new("user.x")).await.unwrap(), b"1");
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_in_a_directory_s_marker_are_kept() {
    let bucket = Bucket::new();
    let headers = ObjectHeaders {
        content_type: Some("text/html".into()),
        storage_class: Some("STANDARD_IA".into()),
        metadata: [("author".to_owned(), "x".to_owned())].into(),
        ..Default::default()
    };
    for key in ["d/", "d/sub/"] {
        let _receipt = bucket.memory.put(&key.into(), Body::new(b"index".to_vec()), &headers, &Condition::Any).await.unwrap();
    }
    bucket.put("d/sub/f", b"f").await;
    let check = |keys: &[&str], mode: Option<&str>| {
        for key in keys {
            let (bytes, info) = bucket.memory.object(&(*key).into()).unwrap_or_else(|| panic!("{key} in {:?}", bucket.keys()));
            assert_eq!(bytes, "index", "{key}");
            assert_eq!(info.headers.metadata.get("mode").map(String::as_str), mode, "{key}");
            let kept = ObjectHeaders { metadata: headers.metadata.clone(), ..info.headers.clone() };
            assert_eq!((&kept, &info.headers.metadata["author"][..]), (&headers, "x"), "{key}");
        }
    };
    let mount = bucket.mount();
    mount.chmod("d/sub", 0o700).await.unwrap();
    mount.settle().await;
    check(&["d/"], None);
    check(&["d/sub/"], Some("040700"));
    // Twice before anything is sent, and once more.
    mount.rename("d", "e").await.unwrap();
    mount.rename("e", "g").await.unwrap();
    assert_eq!(mount.names("g/sub").await.unwrap(), ["f"]);
    mount.settle().await;
    check(&["g/"], None);
    check(&["g/sub/"], Some("040700"));
    let mount = bucket.mount();
    mount.rename("g/sub", "h").await.unwrap();
    mount.chmod("h", 0o755).await.unwrap();
    mount.chmod("h", 0o711).await.unwrap();
    mount.settle().await;
    check(&["h/"], Some("040711"));
    assert_eq!(bucket.keys(), ["g/", "h/", "h/f"]);
    mount.unlink("h/f").await.unwrap();
    mount.rmdir("h").await.unwrap();
    mount.settle().await;
    assert_eq!(bucket.keys(), ["g/"]);
}

#[tokio::test(start_paused = true)]
async fn a_storage_class_survives_copies_of_what_nobody_looked_at() {
    let bucket = Bucket::new();
    let class = |class: &str| ObjectHeaders { storage_class: Some(class.into()), ..Default::default() };
    for key in ["d/sub/f", "d//hidden", "single", "mode"] {
        let _receipt = bucket.memory.put(&key.into(), Body::new(b"x".to_vec()), &class("STANDARD_IA"), &Condition::Any).await.unwrap();
    }
    bucket.put("d/plain", b"x").await;
    let mount = bucket.mount();
    mount.names("").await.unwrap();
    mount.rename("d", "e").await.unwrap();
    mount.rename("single", "renamed").await.unwrap();
    mount.chmod("mode", 0o600).await.unwrap();
    let heads = requests(&mount).into_iter().find(|(name, _)| *name == "HeadObject").unwrap().1;
    assert_eq!(heads, 5, "one for each in a class, and one for the directory's marker");
    mount.settle().await;
    let keys: Vec<String> = bucket.keys().into_iter().filter(|key| !key.ends_with('/')).collect();
    assert_eq!(keys, ["e//hidden", "e/plain", "e/sub/f", "mode", "renamed"]);
    for key in keys {
        let kept = bucket.memory.object(&key.as_str().into()).unwrap().1.headers.storage_class;
        assert_eq!(kept.as_deref(), (key != "e/plain").then_some("STANDARD_IA"), "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn bare_and_empty_objects_are_plain_files() {
    let bucket = Bucket::new();
    bucket.put("empty", b"").await;
    bucket.put("bare", b"bytes").await;
    let mount = bucket.mount();
    assert_eq!((mount.read("empty").await.unwrap(), mount.read("bare").await.unwrap()), (b"".to_vec(), b"bytes".to_vec()));
    let attr = mount.stat("bare").await.unwrap();
    assert_eq!((attr.kind, attr.mode, attr.size), (Kind::File, 0o644, 5));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_the_store_can_t_hold_is_missing_and_can_t_be_made() {
    let bucket = Bucket::new();
    let mount = bucket.mount();
    mount.mkdir("d").await.unwrap();
    mount.save("d/f", b"f").await.unwrap();
    mount.save("d/..\\here", b"other stores take it").await.unwrap();
    mount.settle().await;
    bucket.faults.add(Rule::on(Operation::HeadObject).key("*bar").fault(Fault::Error(ErrorKind::InvalidName)));
    for name in ["d/..\\bar", "d/a\\.\\bar"] {
        assert!(!mount.exists(name).await, "{name}");
        assert!(matches!(mount.save(name, b"x").await, Err(Error::Invalid)), "{name}");
        assert!(matches!(mount.mkdir(name).await, Err(Error::Invalid)), "{name}");
        assert!(matches!(mount.rename("d/f", name).await, Err(Error::Invalid)), "{name}");
        let (parent, last) = mount.walk(name).await.unwrap();
        assert!(matches!(mount.fs.symlink(parent, OsStr::new(last), OsStr::new("f"), ME).await, Err(Error::Invalid)), "{name}");
    }
    assert_eq!(mount.names("d").await.unwrap(), ["..\\here", "f"]);
}

#[tokio::test(start_paused = true)]
async fn an_archived_object_is_shown_and_says_what_it_is() {
    let bucket = Bucket::new();
    for class in ["GLACIER", "DEEP_ARCHIVE"] {
        let headers = ObjectHeaders { storage_class: Some(class.into()), ..Default::default() };
        let _receipt = bucket.memory.put(&class.into(), Body::new(b"cold".to_vec()), &headers, &Condition::Any).await.unwrap();
    }
    let mount = bucket.mount();
    for class in ["GLACIER", "DEEP_ARCHIVE"] {
        let attr = mount.stat(class).await.unwrap();
        assert_eq!(attr.size, 4);
        let error = mount.read(class).await.unwrap_err();
        assert!(matches!(&error, Error::Store(error) if error.is(ErrorKind::Archived)), "{error}");
        let attribute = async |name: &str| mount.fs.getxattr(attr.ino, OsStr::new(name)).await.unwrap();
        assert_eq!(attribute("user.mediafs.state").await, b"archived");
        assert_eq!(attribute("user.s3.storage-class").await, class.as_bytes());
        // It can be replaced and removed all the same.
        mount.save(class, b"warm").await.unwrap();
        mount.settle().await;
        assert_eq!(mount.read(class).await.unwrap(), b"warm");
        assert_eq!(bucket.memory.object(&class.into()).unwrap().1.headers.storage_class, None);
        mount.unlink(class).await.unwrap();
    }
    mount.settle().await;
    assert!(bucket.keys().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_file_gives_way_to_a_directory_of_its_name() {
    let bucket = Bucket::like_minio();
    let mount = bucket.mount_with(Options { ttl: Duration::from_millis(1), ..Options::default() });
    mount.save("a", b"old").await.unwrap();
    mount.settle().await;
    mount.unlink("a").await.unwrap();
    mount.mkdir("a").await.unwrap();
    for name in ["x", "y", "z"] {
        mount.mkdir(&format!("a/{name}")).await.unwrap();
        mount.save(&format!("a/{name}/f"), b"new").await.unwrap();
    }
    // Uploads become due before the removal, which waits for more to go with it.
    for turn in 0..150 {
        let other = format!("other-{turn}");
        mount.save(&other, b"").await.unwrap();
        if turn > 20 {
            mount.unlink(&format!("other-{}", turn - 20)).await.unwrap();
        }
        tokio::time::advance(Duration::from_millis(10)).await;
        let both = ["a", "a/"].map(|key| bucket.keys().contains(&key.to_owned()));
        assert_ne!(both, [true, true], "a file and a directory");
        assert_eq!(mount.names("a").await.unwrap(), ["x", "y", "z"]);
        assert!(mount.exists("a/x/f").await);
    }
    mount.settle().await;
    assert_eq!(mount.names("a").await.unwrap(), ["x", "y", "z"]);
}

#[tokio::test(start_paused = true)]
async fn a_directory_is_there_while_the_file_of_its_name_goes() {
    let bucket = Bucket::new();
    bucket.put("d", b"old").await;
    let mount = bucket.mount();
    mount.unlink("d").await.unwrap();
    bucket.put("d/f", b"another host's").await;
    for operation in [Operation::DeleteObject, Operation::DeleteObjects] {
        bucket.faults.add(Rule::on(operation).fault(Fault::Hang));
    }
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::task::yield_now().await;
    assert_eq!(mount.names("").await.unwrap(), ["d"]);
    assert_eq!(mount.names("d").await.unwrap(), ["f"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_late_answer_shows_of_a_removed_directory_is_gone() {
    for by_name in [true, false] {
        let bucket = Bucket::new();
        let mount = bucket.mount_with(Options { ttl: Duration::from_millis(1), ..Options::default() });
        // No marker of `x`, whose removal would be noticed.
        bucket.put("d/x/f", b"bytes").await;
        assert_eq!(mount.names("d/x").await.unwrap(), ["f"]);
        mount.unlink("d/x/f").await.unwrap();
        mount.rmdir("d/x").await.unwrap();
        mount.rmdir("d").await.unwrap();
        mount.mkdir("d").await.unwrap();
        bucket.faults.add(Rule::on(Operation::ListObjectsV2).fault(Fault::LateReply(Duration::from_secs(5))));
        if by_name {
            mount.mkdir("d/x").await.unwrap();
        } else {
            assert!(mount.names("d").await.unwrap().is_empty());
        }
        bucket.faults.clear();
        mount.settle().await;
        assert_eq!(bucket.keys().contains(&"d/x/".to_owned()), by_name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_moves_into_a_directory_that_takes_its_name() {
    let bucket = Bucket::like_minio();
    let mount = bucket.mount_with(Options { ttl: Duration::from_millis(1), ..Options::default() });
    mount.save("a", b"bytes").await.unwrap();
    mount.settle().await;
    mount.rename("a", "b").await.unwrap();
    mount.mkdir("a").await.unwrap();
    mount.rename("b", "a/inside").await.unwrap();
    for _ in 0..150 {
        tokio::time::advance(Duration::from_millis(10)).await;
        assert_eq!(mount.names("a").await.unwrap(), ["inside"]);
    }
    mount.settle().await;
    assert_eq!(mount.read("a/inside").await.unwrap(), b"bytes");
    assert_eq!(bucket.keys(), ["a/", "a/inside"]);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_took_the_name_of_a_file_moves_whole() {
    let bucket = Bucket::like_minio();
    let mount = bucket.mount();
    mount.save("a", b"bytes").await.unwrap();
    mount.settle().await;
    bucket.faults.add(Rule::on(Operation::DeleteObject).key("a").when(When::First(1)).fault(Fault::Latency(Duration::from_secs(3))));
    mount.rename("a", "b").await.unwrap();
    mount.mkdir("a").await.unwrap();
    mount.rename("b", "a/inside").await.unwrap();
    tokio::time::advance(Duration::from_secs(2)).await;
    while !bucket.keys().contains(&"a/inside".to_owned()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    mount.rename("a", "c").await.unwrap();
    mount.settle().await;
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(mount.names("c").await.unwrap(), ["inside"]);
    assert_eq!(bucket.keys(), ["c/", "c/inside"]);
}

#[tokio::test(start_paused = true)]
async fn a_rename_that_waits_for_a_removal_ends_in_an_outage() {
    let bucket = Bucket::like_minio();
    let mount = bucket.mount();
    mount.save("a", b"bytes").await.unwrap();
    mount.settle().await;
    mount.unlink("a").await.unwrap();
    mount.mkdir("a").await.unwrap();
    for operation in [Operation::DeleteObject, Operation::DeleteObjects] {
        bucket.faults.add(Rule::on(operation).fault(Fault::Error(ErrorKind::Unreachable)));
    }
    let begun = Instant::now();
    assert!(matches!(mount.rename("a", "b").await, Err(Error::Timeout)));
    assert!(begun.elapsed() <= Duration::from_secs(60), "{:?}", begun.elapsed());
    bucket.faults.clear();
    mount.rename("a", "b").await.unwrap();
    mount.settle().await;
    assert_eq!(bucket.keys(), ["b/"]);
}

#[tokio::test(start_paused = true)]
async fn a_directory_wider_than_memory_may_hold_is_used_by_name() {
    let bucket = Bucket::new();
    for number in 0..2_500 {
        bucket.put(&format!("wide/{number:04}.jpg"), b"theirs").await;
    }
    // Less than two pages take.
    let mount = bucket.mount_with(Options { listing_bytes: 200_000, ..Options::default() });
    let refused = mount.names("wide").await.unwrap_err().to_string();
    assert!(refused.contains("--memory-limit"), "{refused}");
    assert_eq!(mount.read("wide/2499.jpg").await.unwrap(), b"theirs");
    mount.save("wide/new.jpg", b"ours").await.unwrap();
    mount.unlink("wide/0000.jpg").await.unwrap();
    assert!(mount.rename("wide", "other").await.is_err() && mount.rmdir("wide").await.is_err());
    mount.settle().await;
    assert_eq!(bucket.keys().len(), 2_500);
    let mount = bucket.mount_with(Options { listing_bytes: 2_000_000, ..Options::default() });
    assert_eq!(mount.names("wide").await.unwrap().len(), 2_500);
}
