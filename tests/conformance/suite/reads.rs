use std::sync::Arc;
use std::time::Duration;

use mediafs::store::fault::{Fault, FaultStore, Faults, Rule, When};
use mediafs::store::retry::{RetryPolicy, RetryStore};
use mediafs::store::{ErrorKind, Operation, md5, plain_etag};
use mediafs::types::{ETag, Key};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Subject, collect, noise, read};

pub async fn a_missing_object(subject: Subject) {
    let key = Key::from("missing");
    assert!(subject.store.head(&key).await.unwrap_err().is(ErrorKind::NotFound));
    assert!(subject.store.get(&key, None, None).await.err().unwrap().is(ErrorKind::NotFound));
    let pinned = subject.store.get(&key, None, Some(&ETag::new("d41d8cd98f00b204e9800998ecf8427e"))).await;
    assert!(pinned.err().unwrap().is(ErrorKind::PreconditionFailed), "that version is gone");
}

pub async fn head_and_get_agree(subject: Subject) {
    let begun = mediafs::clock::now() - Duration::from_secs(60);
    let receipt = subject.put("dir/a.bin", noise(100_000)).await;
    assert_eq!((receipt.size(), receipt.etag()), (100_000, &plain_etag(&md5(&noise(100_000)))));
    let key = Key::from("dir/a.bin");
    let info = subject.store.head(&key).await.unwrap();
    assert_eq!((info.size, &info.etag), (100_000, receipt.etag()));
    assert!(info.last_modified > begun && info.last_modified < begun + Duration::from_secs(120));
    let body = subject.store.get(&key, None, None).await.unwrap();
    assert_eq!((&body.info, &body.span), (&info, &(0..100_000)));
    assert_eq!(collect(body).await, noise(100_000));
}

pub async fn ranges_are_clamped(subject: Subject) {
    subject.put("a", noise(1000)).await.size();
    let key = Key::from("a");
    for (asked, got) in [(0..1, 0..1), (10..20, 10..20), (999..1000, 999..1000), (990..5000, 990..1000), (0..u64::MAX, 0..1000)] {
        let body = subject.store.get(&key, Some(asked.clone()), None).await.unwrap();
        assert_eq!((body.info.size, &body.span), (1000, &got), "{asked:?}");
        assert_eq!(collect(body).await, noise(1000)[got.start as usize..got.end as usize], "{asked:?}");
    }
    let behind = subject.store.get(&key, Some(1000..1001), None).await;
    assert!(behind.err().unwrap().is(ErrorKind::InvalidRange));
}

pub async fn empty_objects(subject: Subject) {
    assert_eq!(subject.put("empty", Vec::new()).await.size(), 0);
    assert_eq!(subject.store.head(&Key::from("empty")).await.unwrap().size, 0);
    let body = subject.store.get(&Key::from("empty"), None, None).await.unwrap();
    assert_eq!((body.info.size, &body.span), (0, &(0..0)));
    assert!(collect(body).await.is_empty());
    let range = subject.store.get(&Key::from("empty"), Some(0..1), None).await;
    assert!(range.err().unwrap().is(ErrorKind::InvalidRange));
}

pub async fn versions_are_pinned(subject: Subject) {
    let key = Key::from("a");
    let old = subject.put("a", "old").await;
    let body = subject.store.get(&key, Some(0..2), Some(old.etag())).await.unwrap();
    assert_eq!(collect(body).await, b"ol");
    let new = subject.put("a", "new").await;
    let gone = subject.store.get(&key, Some(0..2), Some(old.etag())).await;
    assert!(gone.err().unwrap().is(ErrorKind::PreconditionFailed));
    assert_eq!(collect(subject.store.get(&key, None, Some(new.etag())).await.unwrap()).await, b"new");
}

pub async fn cut_bodies_resume(subject: Subject) {
    let bytes = noise(1 << 20);
    subject.put("a", bytes.clone()).await.size();
    let faults = Faults::new(1);
    let faulty = Arc::new(FaultStore::new(subject.store.clone(), faults.clone()));
    let store = RetryStore::new(faulty, RetryPolicy::default());
    for cut in [Fault::BodyCut(300_001), Fault::BodyShort(200_000), Fault::BodyCut(0)] {
        faults.add(Rule::on(Operation::GetObject).when(When::First(1)).fault(cut));
    }
    assert_eq!(read(&store, "a", None).await, bytes);
}

pub async fn presigned_urls_need_no_key(subject: Subject) {
    let key = Key::from("dir/ü +%.txt");
    subject.put(key.as_str(), "for everyone").await.size();
    let url = subject.store.presign_get(&key, Duration::from_secs(60)).await.unwrap();
    assert!(url.contains("X-Amz-Expires=60"), "{url}");
    if subject.serves_http {
        let answer = plain_get(&url).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("for everyone"), "{answer}");
    }
}

/// The whole answer to a GET of an `http://` URL, as text.
async fn plain_get(url: &str) -> String {
    let (host, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("a plain URL");
    let mut stream = TcpStream::connect(host).await.unwrap();
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}
