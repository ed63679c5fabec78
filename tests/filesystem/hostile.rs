//! A bucket whose writers mean harm: the keys and the metadata of tests/hostile/table.json, all at once. Whatever can be a
//! path is listed, read, moved and removed as if the rest were not there; the rest is hidden, counted and left alone.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::time::Duration;

use mediafs::error::Error;
use mediafs::fs::{Ino, Kind};
use mediafs::store::{Body, Condition, ErrorKind, ObjectStore};
use mediafs::types::{Key, ObjectHeaders};
use serde_json::Value;

use crate::world::{Bucket, Options, ROOT, World};

fn table() -> Value {
    serde_json::from_str(include_str!("../hostile/table.json")).unwrap()
}

/// A text, or parts of which some are repeated: `["a", ["b", 3]]`.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(parts) if parts.len() == 2 && parts[1].is_u64() => {
            text(&parts[0]).repeat(usize::try_from(parts[1].as_u64().unwrap()).unwrap())
        }
        Value::Array(parts) => parts.iter().map(text).collect(),
        other => panic!("{other}"),
    }
}

fn keys() -> Vec<String> {
    table()["keys"].as_array().unwrap().iter().map(text).collect()
}

/// What a mount shows of keys, and what it hides, by rules of this test's own.
#[derive(Default)]
struct Shown {
    files: BTreeSet<String>,
    directories: BTreeSet<String>,
    /// As a listing tells of it: a key, or the first directory on the way to it that can't be a path.
    hidden: BTreeSet<String>,
}

fn is_name(part: &str) -> bool {
    !part.is_empty() && part != "." && part != ".." && part.len() <= 255 && !part.contains('\0')
}

fn shown<'a>(keys: impl IntoIterator<Item = &'a str>) -> Shown {
    let mut shown = Shown::default();
    for key in keys {
        let parts: Vec<&str> = key.split('/').collect();
        let mut path = String::new();
        for (at, part) in parts.iter().enumerate() {
            let is_last = at + 1 == parts.len();
            if is_last && part.is_empty() && at > 0 {
                break;
            }
            if at > 0 {
                path.push('/');
            }
            path.push_str(part);
            if !is_name(part) || at == 0 && part.trim().is_empty() {
                shown.hidden.insert(path.clone() + if is_last { "" } else { "/" });
                break;
            }
            match path.strip_suffix("_$folder$").filter(|_| is_last && part.strip_suffix("_$folder$").is_some_and(is_name)) {
                Some(marked) => drop(shown.directories.insert(marked.to_owned())),
                None if is_last => drop(shown.files.insert(path.clone())),
                None => drop(shown.directories.insert(path.clone())),
            }
        }
    }
    let shadowed: Vec<String> = shown.files.intersection(&shown.directories).cloned().collect();
    for file in shadowed {
        shown.files.remove(&file);
        shown.hidden.insert(file);
    }
    shown
}

/// One name, as `find` comes upon it.
struct Found {
    path: String,
    parent: Ino,
    name: String,
    /// None for a directory.
    bytes: Option<Vec<u8>>,
}

/// Everything that the mount shows, directories before what is in them.
async fn walk(mount: &World) -> Vec<Found> {
    let (mut found, mut ahead) = (Vec::new(), vec![(ROOT, String::new())]);
    while let Some((parent, directory)) = ahead.pop() {
        for name in mount.names_in(parent).await.unwrap_or_else(|error| panic!("{directory:?}: {error}")) {
            assert!(is_name(&name) && !name.contains('/'), "{name:?} in {directory:?}");
            let path = if directory.is_empty() { name.clone() } else { format!("{directory}/{name}") };
            let failed = |error| panic!("{path:?}: {error}");
            let attr =
                mount.lookup_in(parent, &name).await.unwrap_or_else(failed).unwrap_or_else(|| panic!("{path:?} is listed and missing"));
            let bytes = match attr.kind {
                Kind::Directory => {
                    ahead.push((attr.ino, path.clone()));
                    None
                }
                _ => {
                    let handle = mount.fs.open(attr.ino, libc::O_RDONLY).await.unwrap_or_else(|error| panic!("{path:?}: {error}")).handle;
                    let bytes = mount.read_handle(handle, 0, 4096).await.unwrap_or_else(|error| panic!("{path:?}: {error}"));
                    mount.close(handle).await.unwrap();
                    Some(bytes)
                }
            };
            found.push(Found { path, parent, name, bytes });
        }
    }
    found
}

fn paths(found: &[Found], directories: bool) -> BTreeSet<String> {
    found.iter().filter(|found| found.bytes.is_none() == directories).map(|found| found.path.clone()).collect()
}

/// With only what differs in the message.
fn same(found: &BTreeSet<String>, expected: &BTreeSet<String>) {
    let (more, less): (Vec<_>, Vec<_>) = (found.difference(expected).collect(), expected.difference(found).collect());
    assert!(more.is_empty() && less.is_empty(), "too much: {more:?}\nmissing: {less:?}");
}

async fn check(mount: &World, keys: &[String]) {
    let expected = shown(keys.iter().map(String::as_str));
    let found = walk(mount).await;
    same(&paths(&found, false), &expected.files);
    same(&paths(&found, true), &expected.directories);
    for Found { path, bytes, .. } in &found {
        assert!(bytes.as_ref().is_none_or(|bytes| *bytes == format!("of {path}").as_bytes()), "{path:?}");
    }
    assert_eq!(mount.fs.hidden_keys(), expected.hidden.len(), "{:?}", expected.hidden);
}

async fn fill(bucket: &Bucket, keys: &[String]) {
    for key in keys {
        bucket.put(key, format!("of {key}").as_bytes()).await;
    }
}

/// Takes away all that is to be seen, as `rm -rf` does, until nothing more goes.
async fn remove_all(mount: &World) {
    loop {
        let mut gone = 0;
        for Found { path, parent, name, bytes } in walk(mount).await.iter().rev() {
            let removed = match bytes {
                Some(_) => mount.fs.unlink(*parent, OsStr::new(name)).await,
                None => mount.fs.rmdir(*parent, OsStr::new(name)).await,
            };
            match removed {
                Ok(()) => gone += 1,
                Err(Error::NotEmpty) if bytes.is_none() => {}
                Err(error) => panic!("{path:?}: {error}"),
            }
        }
        mount.settle().await;
        tokio::time::advance(Duration::from_secs(60)).await;
        if gone == 0 {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_key_that_is_a_path_is_shown_and_the_rest_is_hidden_and_counted() {
    let keys = keys();
    assert!(keys.len() >= 150, "{}", keys.len());
    let bucket = Bucket::new();
    fill(&bucket, &keys).await;
    check(&bucket.mount(), &keys).await;
}

#[tokio::test(start_paused = true)]
async fn a_mount_of_hostile_keys_can_be_emptied_and_what_is_hidden_stays() {
    let keys = keys();
    let bucket = Bucket::new();
    fill(&bucket, &keys).await;
    let mount = bucket.mount();
    remove_all(&mount).await;
    let expected = shown(keys.iter().map(String::as_str));
    let left: BTreeSet<String> = bucket.keys().into_iter().collect();
    for key in &keys {
        let is_hidden = expected.hidden.iter().any(|hidden| key == hidden || hidden.ends_with('/') && key.starts_with(hidden));
        let shadowed = is_hidden && !expected.directories.contains(key);
        assert!(left.contains(key) || !shadowed, "{key:?} was never shown and is gone");
        let goes = expected.files.contains(key);
        assert!(!left.contains(key) || !goes, "{key:?} was removed and is there");
    }
    for key in left.iter().filter(|key| !keys.contains(key)) {
        assert!(key.ends_with('/') && expected.directories.contains(key.trim_end_matches('/')), "{key:?} came from nowhere");
    }
}

#[tokio::test(start_paused = true)]
async fn a_directory_moves_with_what_it_hides_and_nothing_else() {
    let keys = keys();
    let bucket = Bucket::new();
    fill(&bucket, &keys).await;
    let mount = bucket.mount();
    let tops = ["dots", "s", "c", "u", "w", "p", "k", "n", "mark", "both", "etc"];
    let moved = |key: &String| match key.split_once('/').filter(|(top, _)| tops.contains(top)) {
        Some((top, rest)) => format!("{top}2.moved/{rest}"),
        None => key.clone(),
    };
    for top in tops {
        match mount.rename(top, &format!("{top}2.moved")).await {
            Ok(()) | Err(Error::NotFound) => {}
            Err(error) => panic!("{top}: {error}"),
        }
    }
    mount.settle().await;
    tokio::time::advance(Duration::from_secs(60)).await;
    let is_marker = |key: &String| key.ends_with('/') || key.ends_with("_$folder$");
    let plain = |keys: &mut dyn Iterator<Item = String>| keys.filter(|key| !is_marker(key)).collect::<BTreeSet<String>>();
    let expected = plain(&mut keys.iter().map(moved));
    same(&plain(&mut bucket.keys().into_iter()), &expected);
    let expected = shown(bucket.keys().iter().map(String::as_str)).files;
    same(&paths(&walk(&bucket.mount()).await, false), &expected);
}

fn headers(set: &Value) -> ObjectHeaders {
    let metadata = set["metadata"].as_object().unwrap().iter().map(|(name, value)| (name.clone(), text(value))).collect();
    let header = |name: &str| set[name].as_str().map(str::to_owned);
    ObjectHeaders { metadata, content_type: header("content_type"), content_encoding: header("content_encoding"), ..Default::default() }
}

#[tokio::test(start_paused = true)]
async fn no_metadata_makes_anything_but_plain_files_directories_and_links_that_stay() {
    let table = table();
    let sets = table["metadata"].as_array().unwrap();
    assert!(sets.len() >= 60, "{}", sets.len());
    let bucket = Bucket::new();
    for (number, set) in sets.iter().enumerate() {
        for key in [format!("meta/{number}"), format!("dirs/{number}/")] {
            let _receipt = bucket.memory.put(&Key::from(&*key), Body::new("hello"), &headers(set), &Condition::Any).await.unwrap();
        }
        bucket.put(&format!("dirs/{number}/f"), b"f").await;
    }
    for posix_metadata in [true, false] {
        let mount = bucket.mount_with(Options { posix_metadata, ..Options::default() });
        assert_eq!(mount.names("meta").await.unwrap().len(), sets.len());
        for (number, set) in sets.iter().enumerate() {
            let (file, directory) = (format!("meta/{number}"), format!("dirs/{number}"));
            let attr = mount.stat(&file).await.unwrap();
            assert_eq!(attr.mode & !0o777, 0, "{set}");
            let listed = mount.fs.listxattr(attr.ino).await.unwrap();
            assert!(
                listed.iter().all(|name| name.to_str().unwrap().starts_with("user.") && !name.as_encoded_bytes().contains(&0)),
                "{set}"
            );
            for name in ["security.capability", "trusted.overlay.opaque", "system.posix_acl_access"] {
                assert!(mount.fs.getxattr(attr.ino, OsStr::new(name)).await.is_err(), "{set}");
            }
            match attr.kind {
                Kind::File => match mount.read(&file).await {
                    Ok(bytes) => assert_eq!(bytes, b"hello", "{set}"),
                    // Without attributes from the bucket a link is not seen before it is opened.
                    Err(Error::Loop) if !posix_metadata => {}
                    Err(error) => assert!(error.is_store(ErrorKind::Corrupt) && set["unreadable"] == true, "{set}: {error}"),
                },
                Kind::Symlink => match mount.fs.readlink(attr.ino).await {
                    Ok(target) => assert!(!target.starts_with(b"/") && !target.starts_with(b"../.."), "{set}"),
                    Err(error) => assert!(matches!(error, Error::Denied | Error::Invalid), "{set}: {error}"),
                },
                Kind::Directory => panic!("a key without a slash is no directory: {set}"),
            }
            let attr = mount.stat(&directory).await.unwrap();
            assert_eq!((attr.kind, attr.mode & !0o3777), (Kind::Directory, 0), "{set}");
            assert_eq!(mount.names(&directory).await.unwrap(), ["f"]);
            assert_eq!(mount.read(&format!("{directory}/f")).await.unwrap(), b"f");
        }
    }
}
