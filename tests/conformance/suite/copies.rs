use std::collections::BTreeMap;

use mediafs::store::{Body, Condition, ErrorKind};
use mediafs::types::{ETag, Key, ObjectHeaders, Version};

use super::Subject;

fn headers(content_type: &str, mode: &str) -> ObjectHeaders {
    ObjectHeaders {
        content_type: Some(content_type.to_owned()),
        cache_control: Some(format!("max-age={mode}")),
        metadata: BTreeMap::from([("mode".to_owned(), mode.to_owned()), ("name".to_owned(), "grün".to_owned())]),
        ..ObjectHeaders::default()
    }
}

async fn source(subject: &Subject) -> Version {
    let key = Key::from("dir/source ü+%");
    let receipt = subject.store.put(&key, Body::new("hello"), &headers("image/png", "1"), &Condition::Any).await.unwrap();
    Version { key, etag: receipt.etag().clone(), size: receipt.size() }
}

pub async fn copies_keep_or_replace_headers(subject: Subject) {
    let from = source(&subject).await;
    let kept = subject.store.copy(&from, &Key::from("kept"), None).await.unwrap();
    let info = subject.store.head(&Key::from("kept")).await.unwrap();
    assert_eq!((kept.etag(), kept.size()), (&info.etag, 5));
    assert_eq!(info.headers, headers("image/png", "1"));
    let replaced = subject.store.copy(&from, &Key::from("new"), Some(&headers("image/gif", "2"))).await.unwrap();
    let info = subject.store.head(&Key::from("new")).await.unwrap();
    assert_eq!((replaced.etag(), replaced.size()), (&info.etag, 5));
    assert_eq!(info.headers, headers("image/gif", "2"));
    assert_eq!(subject.read("new", None).await, b"hello");
    assert_eq!(subject.store.head(&from.key).await.unwrap().headers, headers("image/png", "1"), "the source is as it was");
}

pub async fn a_copy_onto_itself_changes_headers(subject: Subject) {
    let version = source(&subject).await;
    let key = version.key.clone();
    assert!(subject.store.copy(&version, &key, None).await.is_err(), "nothing would change");
    let receipt = subject.store.copy(&version, &key, Some(&headers("image/gif", "2"))).await.unwrap();
    let info = subject.store.head(&key).await.unwrap();
    assert_eq!((receipt.etag(), receipt.size(), info.size), (&info.etag, 5, 5));
    assert_eq!(info.headers, headers("image/gif", "2"));
    assert_eq!(subject.read(key.as_str(), None).await, b"hello");
}

pub async fn copies_pin_their_source(subject: Subject) {
    let version = source(&subject).await;
    subject.put(version.key.as_str(), "other").await.size();
    let stale = subject.store.copy(&version, &Key::from("to"), None).await;
    assert!(stale.unwrap_err().is(ErrorKind::PreconditionFailed));
    assert!(subject.store.head(&Key::from("to")).await.unwrap_err().is(ErrorKind::NotFound));
}

pub async fn copies_of_nothing(subject: Subject) {
    let missing = Version { key: Key::from("missing"), etag: ETag::new("d41d8cd98f00b204e9800998ecf8427e"), size: 0 };
    let pinned = subject.store.copy(&missing, &Key::from("to"), None).await;
    assert!(pinned.unwrap_err().is(ErrorKind::PreconditionFailed), "that version is gone");
}
