use std::collections::BTreeMap;

use futures::future::join_all;
use mediafs::store::{Body, Condition, ErrorKind, Result};
use mediafs::types::{ETag, Key, ObjectHeaders};

use super::Subject;

pub async fn conditions_hold(subject: Subject) {
    let key = Key::from("a");
    let put = async |bytes: &'static str, condition: Condition| {
        let result = subject.store.put(&key, Body::new(bytes), &ObjectHeaders::default(), &condition).await;
        result.map(|receipt| receipt.etag().clone()).map_err(|error| error.kind)
    };
    let nowhere = ETag::new("d41d8cd98f00b204e9800998ecf8427e");
    assert_eq!(put("none", Condition::IfMatch(nowhere.clone())).await, Err(ErrorKind::PreconditionFailed), "nothing is there");
    let first = put("first", Condition::IfAbsent).await.unwrap();
    assert_eq!(put("second", Condition::IfAbsent).await, Err(ErrorKind::PreconditionFailed));
    assert_eq!(put("second", Condition::IfMatch(nowhere)).await, Err(ErrorKind::PreconditionFailed));
    let third = put("third", Condition::IfMatch(first.clone())).await.unwrap();
    assert_eq!(put("fourth", Condition::IfMatch(first)).await, Err(ErrorKind::PreconditionFailed));
    assert_eq!(subject.read("a", None).await, b"third");
    assert!(put("fifth", Condition::Any).await.unwrap() != third);
    subject.store.delete(&key).await.unwrap();
    assert!(put("sixth", Condition::IfAbsent).await.is_ok());
}

pub async fn one_winner_of_eight(subject: Subject) {
    for round in 0..4 {
        let key = Key::new(format!("race-{round}"));
        let winner = race(&subject, &key, &Condition::IfAbsent).await;
        assert_eq!(subject.read(key.as_str(), None).await, winner.as_bytes());
    }
}

pub async fn one_replacement_of_eight(subject: Subject) {
    for round in 0..4 {
        let key = Key::new(format!("race-{round}"));
        let old = subject.put(key.as_str(), "old").await.etag().clone();
        let winner = race(&subject, &key, &Condition::IfMatch(old)).await;
        assert_eq!(subject.read(key.as_str(), None).await, winner.as_bytes());
    }
}

/// Eight writers at once; returns what the only one that won has written.
async fn race(subject: &Subject, key: &Key, condition: &Condition) -> String {
    let headers = ObjectHeaders::default();
    let writers = (0..8).map(|writer| subject.store.put(key, Body::new(format!("writer {writer}")), &headers, condition));
    let results: Vec<Result<_>> = join_all(writers).await;
    let winners: Vec<_> = (0..8).filter(|&writer| results[writer].is_ok()).collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    let lost = |error: ErrorKind| matches!(error, ErrorKind::PreconditionFailed | ErrorKind::Unavailable);
    assert!(results.into_iter().filter_map(Result::err).all(|error| lost(error.kind)));
    format!("writer {}", winners[0])
}

pub async fn headers_come_back(subject: Subject) {
    let headers = ObjectHeaders {
        content_type: Some("image/jpeg".to_owned()),
        cache_control: Some("public, max-age=31536000, immutable".to_owned()),
        content_disposition: Some("attachment; filename=\"a b.jpg\"".to_owned()),
        content_encoding: Some("gzip".to_owned()),
        content_language: Some("de".to_owned()),
        storage_class: None,
        metadata: BTreeMap::from([("mode".to_owned(), "33188".to_owned()), ("mtime".to_owned(), "1700000000.123".to_owned())]),
    };
    let key = Key::from("a.jpg");
    let _ = subject.store.put(&key, Body::new("x"), &headers, &Condition::Any).await.unwrap();
    assert_eq!(subject.store.head(&key).await.unwrap().headers, headers);
    assert_eq!(subject.store.get(&key, None, None).await.unwrap().info.headers, headers);
    subject.put("untyped", "x").await.size();
    let untyped = subject.store.head(&Key::from("untyped")).await.unwrap().headers;
    assert_eq!(untyped.content_type.as_deref(), Some("application/octet-stream"), "nobody guesses");
    assert!(untyped.metadata.is_empty());
}

pub async fn metadata_comes_back(subject: Subject) {
    let values =
        ["plain", "grün 緑 🎬", "  spaces  ", "tab\tand\nline", "=?UTF-8?Q?looks=20encoded?=", "100% + a=b; \"q\"", "ü".repeat(99).leak()];
    for (number, value) in values.into_iter().enumerate() {
        let key = Key::new(format!("meta-{number}"));
        let headers = ObjectHeaders { metadata: BTreeMap::from([("value".to_owned(), value.to_owned())]), ..ObjectHeaders::default() };
        let _ = subject.store.put(&key, Body::new("x"), &headers, &Condition::Any).await.unwrap();
        assert_eq!(subject.store.head(&key).await.unwrap().headers.metadata, headers.metadata);
    }
}

pub async fn a_put_replaces_the_headers(subject: Subject) {
    let key = Key::from("a");
    let headers = ObjectHeaders { cache_control: Some("no-store".to_owned()), ..ObjectHeaders::default() };
    let _ = subject.store.put(&key, Body::new("x"), &headers, &Condition::Any).await.unwrap();
    subject.put("a", "x").await.size();
    assert_eq!(subject.store.head(&key).await.unwrap().headers.cache_control, None);
}

pub async fn deletes_succeed_twice(subject: Subject) {
    let key = Key::from("a");
    subject.put("a", "x").await.size();
    for _ in 0..2 {
        subject.store.delete(&key).await.unwrap();
        assert!(subject.store.head(&key).await.unwrap_err().is(ErrorKind::NotFound));
    }
}

pub async fn bulk_deletes_answer_in_order(subject: Subject) {
    let names = ["a", "missing", "dir/ü +%&<>\"'", "line\nbreak\ttab", "control\u{1}", "b"];
    for name in names.iter().filter(|name| **name != "missing") {
        subject.put(name, "x").await.size();
    }
    subject.put("kept", "x").await.size();
    let keys: Vec<_> = names.into_iter().map(Key::from).collect();
    let answers = subject.store.delete_many(&keys).await.unwrap();
    assert_eq!(answers.len(), keys.len());
    for (key, answer) in keys.iter().zip(answers) {
        answer.unwrap_or_else(|error| panic!("{error}"));
        assert!(subject.store.head(key).await.unwrap_err().is(ErrorKind::NotFound), "{key}");
    }
    assert!(subject.store.head(&Key::from("kept")).await.is_ok());
    assert!(subject.store.delete_many(&[]).await.unwrap().is_empty());
}
