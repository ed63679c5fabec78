use futures::stream::{self, StreamExt};
use mediafs::store::ListRequest;
use mediafs::types::Key;

use super::Subject;

/// All objects and all directories of a listing, over its pages.
async fn all(subject: &Subject, mut request: ListRequest) -> (Vec<String>, Vec<String>, usize) {
    let (mut objects, mut prefixes, mut pages) = (Vec::new(), Vec::new(), 0);
    loop {
        let page = subject.store.list(&request).await.unwrap_or_else(|error| panic!("{error}"));
        pages += 1;
        assert!(page.objects.len() + page.prefixes.len() <= request.max_keys.unwrap_or(1000) as usize);
        objects.extend(page.objects.into_iter().map(|object| object.key.as_str().to_owned()));
        prefixes.extend(page.prefixes.into_iter().map(|key| key.as_str().to_owned()));
        match page.next {
            Some(token) => request.token = Some(token),
            None => return (objects, prefixes, pages),
        }
    }
}

async fn fill(subject: &Subject, keys: impl IntoIterator<Item = String>) {
    let puts = keys.into_iter().map(|key| async move { subject.put(&key, key.clone()).await.size() });
    stream::iter(puts).buffer_unordered(16).collect::<Vec<_>>().await;
}

pub async fn pages_add_up(subject: Subject) {
    let keys: Vec<_> = (0..1100).map(|number| format!("dir/file {number:05}+%.jpg")).collect();
    fill(&subject, keys.iter().cloned()).await;
    let (objects, prefixes, pages) = all(&subject, ListRequest { prefix: "dir/".to_owned(), ..ListRequest::default() }).await;
    assert_eq!((objects, prefixes.len(), pages), (keys.clone(), 0, 2));
    let small = ListRequest { prefix: "dir/".to_owned(), by_directory: true, max_keys: Some(300), ..ListRequest::default() };
    let (objects, prefixes, pages) = all(&subject, small).await;
    assert_eq!((objects, prefixes.len(), pages), (keys, 0, 4));
}

pub async fn directories_are_folded_once(subject: Subject) {
    let names = ["a", "b/1", "b/2", "b/c/3", "d", "e/", "f/g/h", "z"];
    fill(&subject, names.map(str::to_owned)).await;
    for max_keys in [None, Some(1), Some(2), Some(3)] {
        let request = ListRequest { by_directory: true, max_keys, ..ListRequest::default() };
        let (objects, prefixes, _) = all(&subject, request).await;
        assert_eq!(objects, ["a", "d", "z"], "{max_keys:?}");
        assert_eq!(prefixes, ["b/", "e/", "f/"], "{max_keys:?}");
    }
    let below = ListRequest { prefix: "b/".to_owned(), by_directory: true, ..ListRequest::default() };
    assert_eq!(all(&subject, below).await, (vec!["b/1".to_owned(), "b/2".to_owned()], vec!["b/c/".to_owned()], 1));
    let marker = ListRequest { prefix: "e/".to_owned(), by_directory: true, max_keys: Some(1), ..ListRequest::default() };
    assert_eq!(all(&subject, marker).await.0, ["e/"], "a marker is an object of its own directory");
}

pub async fn listings_start_after_a_key(subject: Subject) {
    fill(&subject, ["a", "b", "c/1", "c/2", "d"].map(str::to_owned)).await;
    let after = |start: &str, by_directory| ListRequest { start_after: Some(start.to_owned()), by_directory, ..ListRequest::default() };
    assert_eq!(all(&subject, after("b", false)).await.0, ["c/1", "c/2", "d"]);
    assert_eq!(all(&subject, after("aa", false)).await.0, ["b", "c/1", "c/2", "d"]);
    assert!(all(&subject, after("d", false)).await.0.is_empty());
    let (objects, prefixes, _) = all(&subject, after("a", true)).await;
    assert_eq!((objects, prefixes), (vec!["b".to_owned(), "d".to_owned()], vec!["c/".to_owned()]));
    let paged = ListRequest { max_keys: Some(1), ..after("b", false) };
    assert_eq!(all(&subject, paged).await.0, ["c/1", "c/2", "d"], "the token wins over the start");
}

pub async fn prefixes_limit_listings(subject: Subject) {
    fill(&subject, ["img/a", "img/b", "img-old/c", "im", "other"].map(str::to_owned)).await;
    let list = |prefix: &str| all(&subject, ListRequest { prefix: prefix.to_owned(), ..ListRequest::default() });
    assert_eq!(list("img/").await.0, ["img/a", "img/b"]);
    assert!(list("nothing/").await.0.is_empty());
    let probe = ListRequest { prefix: "img/".to_owned(), max_keys: Some(1), ..ListRequest::default() };
    let page = subject.store.list(&probe).await.unwrap();
    assert!(page.objects.len() == 1 && page.next.is_some());
}

pub async fn a_listing_agrees_with_a_head(subject: Subject) {
    let receipt = subject.put("a", "hello").await;
    let page = subject.store.list(&ListRequest::default()).await.unwrap();
    let [object] = &page.objects[..] else { panic!("{page:?}") };
    let info = subject.store.head(&Key::from("a")).await.unwrap();
    assert_eq!((object.size, &object.etag, object.last_modified), (5, receipt.etag(), info.last_modified));
}

/// MinIO hides what lies below an object's name; only that both can be read is common ground.
pub async fn a_name_beside_its_directory(subject: Subject) {
    fill(&subject, ["x", "x/", "x/y"].map(str::to_owned)).await;
    for key in ["x", "x/", "x/y"] {
        assert_eq!(subject.read(key, None).await, key.as_bytes());
    }
}
