use std::collections::BTreeMap;

use mediafs::store::{Body, Condition, ErrorKind, Part, Result, UploadId, multipart_etag};
use mediafs::types::{Key, ObjectHeaders};

use super::{Subject, noise};

async fn begin(subject: &Subject, key: &Key) -> UploadId {
    subject.store.create_upload(key, &ObjectHeaders::default()).await.unwrap_or_else(|error| panic!("{error}"))
}

async fn send(subject: &Subject, key: &Key, id: &UploadId, number: u32, bytes: &[u8]) -> Part {
    let part = subject.store.upload_part(key, id, number, Body::new(bytes.to_vec())).await;
    part.unwrap_or_else(|error| panic!("{error}"))
}

/// An upload with one small part, ready to be completed.
async fn small(subject: &Subject, key: &Key, text: &str) -> (UploadId, Vec<Part>) {
    let id = begin(subject, key).await;
    let part = send(subject, key, &id, 1, text.as_bytes()).await;
    (id, vec![part])
}

fn kind<T>(result: Result<T>) -> ErrorKind {
    result.err().expect("an error").kind
}

pub async fn parts_become_one_object(subject: Subject) {
    let (key, size) = (Key::from("dir/big ü+%"), subject.min_part_bytes);
    let headers = ObjectHeaders {
        content_type: Some("video/mp4".to_owned()),
        metadata: BTreeMap::from([("name".to_owned(), "grün".to_owned())]),
        ..ObjectHeaders::default()
    };
    let bytes = noise(2 * size + 333);
    let id = subject.store.create_upload(&key, &headers).await.unwrap();
    let mut parts = Vec::new();
    // Out of order, as parallel uploads finish.
    for number in [3, 1, 2] {
        let from = (number - 1) * size;
        parts.push(send(&subject, &key, &id, number as u32, &bytes[from..bytes.len().min(from + size)]).await);
    }
    assert!(subject.store.head(&key).await.unwrap_err().is(ErrorKind::NotFound), "nothing is there before Complete");
    parts.sort_by_key(|part| part.number);
    let receipt = subject.store.complete_upload(&key, &id, &parts, &Condition::Any).await.unwrap();
    assert_eq!((receipt.size(), Some(receipt.etag())), (bytes.len() as u64, multipart_etag(&parts).as_ref()));
    let info = subject.store.head(&key).await.unwrap();
    assert_eq!((info.size, &info.etag, info.headers), (receipt.size(), receipt.etag(), headers));
    assert!(subject.read(key.as_str(), None).await == bytes);
    let seam = size as u64 - 10..size as u64 + 10;
    assert_eq!(subject.read(key.as_str(), Some(seam)).await, bytes[size - 10..size + 10]);
    assert_eq!(kind(subject.store.complete_upload(&key, &id, &parts, &Condition::Any).await), ErrorKind::NoSuchUpload);
    let part = subject.store.upload_part(&key, &id, 4, Body::new("late")).await;
    assert_eq!(kind(part), ErrorKind::NoSuchUpload);
}

pub async fn parts_are_copied_in_ranges(subject: Subject) {
    let (key, size) = (Key::from("big ü"), subject.min_part_bytes);
    let old = noise(2 * size + 100);
    let version = subject.put(key.as_str(), old.clone()).await;
    let id = begin(&subject, &key).await;
    let store = &subject.store;
    // R2 refuses a last part that is larger than the others.
    let (head, tail) = (0..size as u64, size as u64 + 150..old.len() as u64);
    let parts = vec![
        store.copy_part(&key, &id, 1, &key, Some(version.etag()), head.clone()).await.unwrap(),
        send(&subject, &key, &id, 2, &noise(size)[..]).await,
        store.copy_part(&key, &id, 3, &key, Some(version.etag()), tail.clone()).await.unwrap(),
    ];
    assert_eq!(parts[2].size, tail.end - tail.start);
    let condition = Condition::IfMatch(version.etag().clone());
    let receipt = store.complete_upload(&key, &id, &parts, &condition).await.unwrap();
    assert_eq!(Some(receipt.etag()), multipart_etag(&parts).as_ref());
    let expected = [&old[..size], &noise(size)[..], &old[size + 150..]].concat();
    assert_eq!(receipt.size(), expected.len() as u64);
    assert!(subject.read(key.as_str(), None).await == expected);
    let id = begin(&subject, &key).await;
    let stale = store.copy_part(&key, &id, 1, &key, Some(version.etag()), head).await;
    assert_eq!(kind(stale), ErrorKind::PreconditionFailed);
    store.abort_upload(&key, &id).await.unwrap();
}

pub async fn completes_obey_conditions(subject: Subject) {
    let key = Key::from("a");
    let (id, parts) = small(&subject, &key, "first").await;
    let first = subject.store.complete_upload(&key, &id, &parts, &Condition::IfAbsent).await.unwrap();
    for condition in [Condition::IfAbsent, Condition::IfMatch(subject.put("other", "x").await.etag().clone())] {
        let (id, parts) = small(&subject, &key, "loser").await;
        let refused = subject.store.complete_upload(&key, &id, &parts, &condition).await;
        assert_eq!(kind(refused), ErrorKind::PreconditionFailed, "{condition:?}");
        subject.store.abort_upload(&key, &id).await.unwrap();
    }
    assert_eq!(subject.read("a", None).await, b"first");
    let (id, parts) = small(&subject, &key, "second").await;
    let second = subject.store.complete_upload(&key, &id, &parts, &Condition::IfMatch(first.etag().clone())).await.unwrap();
    assert!(second.etag() != first.etag());
    assert_eq!(subject.read("a", None).await, b"second");
    subject.store.delete(&key).await.unwrap();
    let (id, parts) = small(&subject, &key, "third").await;
    let gone = subject.store.complete_upload(&key, &id, &parts, &Condition::IfMatch(second.etag().clone())).await;
    assert_eq!(kind(gone), ErrorKind::PreconditionFailed, "that version is gone");
}

pub async fn aborted_uploads_are_gone(subject: Subject) {
    let key = Key::from("a");
    let (id, parts) = small(&subject, &key, "x").await;
    subject.store.abort_upload(&key, &id).await.unwrap();
    assert_eq!(kind(subject.store.complete_upload(&key, &id, &parts, &Condition::Any).await), ErrorKind::NoSuchUpload);
    subject.store.abort_upload(&key, &id).await.expect("a second abort");
    subject.store.abort_upload(&key, &UploadId("never-heard-of".to_owned())).await.expect("an unknown upload");
    assert!(subject.store.list_uploads().await.unwrap().is_empty());
    assert!(subject.store.head(&key).await.is_err());
}

pub async fn unfinished_uploads_are_listed(subject: Subject) {
    let mut expected = Vec::new();
    for name in ["dir/a", "dir/a", "ü +%.mp4", "z"] {
        let key = Key::from(name);
        let id = begin(&subject, &key).await;
        expected.push((key, id));
    }
    let order = |(key, id): &(Key, UploadId)| (key.clone(), id.0.clone());
    let uploads = subject.store.list_uploads().await.unwrap();
    let began = uploads.iter().map(|upload| upload.initiated);
    assert!(began.clone().max().unwrap().duration_since(began.min().unwrap()).unwrap() < std::time::Duration::from_secs(60));
    let mut listed: Vec<_> = uploads.into_iter().map(|upload| (upload.key, upload.id)).collect();
    listed.sort_by_key(order);
    expected.sort_by_key(order);
    assert_eq!(listed, expected);
    for (key, id) in expected {
        subject.store.abort_upload(&key, &id).await.unwrap();
    }
    assert!(subject.store.list_uploads().await.unwrap().is_empty());
}

pub async fn small_parts_are_refused(subject: Subject) {
    let key = Key::from("a");
    let id = begin(&subject, &key).await;
    let parts = [send(&subject, &key, &id, 1, b"too small").await, send(&subject, &key, &id, 2, b"last").await];
    let refused = subject.store.complete_upload(&key, &id, &parts, &Condition::Any).await.unwrap_err();
    assert!(!refused.kind.is_transient() && refused.message.contains("EntityTooSmall"), "{refused}");
    assert!(subject.store.head(&key).await.unwrap_err().is(ErrorKind::NotFound));
    subject.store.abort_upload(&key, &id).await.unwrap();
}

pub async fn a_part_can_be_sent_again(subject: Subject) {
    let key = Key::from("a");
    let id = begin(&subject, &key).await;
    send(&subject, &key, &id, 1, b"first try").await;
    let part = send(&subject, &key, &id, 1, b"second try").await;
    let receipt = subject.store.complete_upload(&key, &id, &[part], &Condition::Any).await.unwrap();
    assert_eq!(receipt.size(), 10);
    assert_eq!(subject.read("a", None).await, b"second try");
}
