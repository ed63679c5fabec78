use std::collections::BTreeSet;

use mediafs::store::{ErrorKind, ListRequest};
use mediafs::types::Key;

use super::Subject;

/// The other spelling of "ü".
const DECOMPOSED: &str = "u\u{308}";

/// What uploads are really called, and what breaks encodings.
const ODD: [&str; 20] = [
    "a b",
    "a+b",
    "a%20b",
    "a%2Bb%",
    "ü",
    DECOMPOSED,
    "緑/🎬.jpg",
    "q?x=1&y=2",
    "hash#frag",
    "amp&lt<gt>quot\"apos'",
    "back\\slash",
    "colon:star*pipe|",
    "tab\there",
    "line\nbreak",
    "return\rhere",
    "control\u{1}",
    "tilde~ (1) [2] {3}",
    "semi;comma,at@dollar$equals=",
    "trailing ",
    "nul-looking %00",
];

/// Those that are keys of their own on this store.
fn odd_names(subject: &Subject) -> impl Iterator<Item = &'static str> + use<> {
    let folds_names = subject.folds_names;
    ODD.into_iter().filter(move |name| !(folds_names && *name == DECOMPOSED))
}

pub async fn odd_keys_keep_their_bytes(subject: Subject) {
    for name in odd_names(&subject) {
        subject.put(&format!("odd/{name}"), name.to_owned()).await.size();
    }
    for name in odd_names(&subject) {
        let key = format!("odd/{name}");
        assert_eq!(subject.read(&key, None).await, name.as_bytes(), "{name:?}");
        assert_eq!(subject.store.head(&Key::new(key)).await.unwrap().size, name.len() as u64, "{name:?}");
    }
    let mut listed = BTreeSet::new();
    let mut request = ListRequest { prefix: "odd/".to_owned(), max_keys: Some(7), ..ListRequest::default() };
    loop {
        let page = subject.store.list(&request).await.unwrap();
        listed.extend(page.objects.into_iter().map(|object| object.key));
        request.token = page.next;
        if request.token.is_none() {
            break;
        }
    }
    let expected: BTreeSet<_> = odd_names(&subject).map(|name| Key::new(format!("odd/{name}"))).collect();
    assert_eq!(listed, expected);
}

pub async fn odd_keys_copy_and_delete(subject: Subject) {
    for name in odd_names(&subject) {
        let (from, to) = (Key::new(format!("from/{name}")), Key::new(format!("to/{name}")));
        subject.put(from.as_str(), name.to_owned()).await.size();
        let _ = subject.store.copy(&from, None, &to, None).await.unwrap_or_else(|error| panic!("{name:?}: {error}"));
        assert_eq!(subject.read(to.as_str(), None).await, name.as_bytes(), "{name:?}");
        subject.store.delete(&from).await.unwrap();
        assert!(subject.store.head(&from).await.is_err(), "{name:?}");
        let found = ListRequest { prefix: to.as_str().to_owned(), ..ListRequest::default() };
        assert_eq!(subject.store.list(&found).await.unwrap().objects.len(), 1, "{name:?}");
    }
}

pub async fn long_keys_are_refused(subject: Subject) {
    let component = "c".repeat(200);
    let long = |components: usize| Key::new(vec![component.as_str(); components].join("/"));
    subject.put(long(4).as_str(), "x").await.size();
    let headers = Default::default();
    let body = mediafs::store::Body::new("x");
    let refused = subject.store.put(&long(6), body, &headers, &Default::default()).await;
    assert!(refused.unwrap_err().is(ErrorKind::InvalidName));
}

pub async fn the_empty_key_is_refused(subject: Subject) {
    subject.put("a", "x").await.size();
    // Below a prefix, the empty key is the prefix itself: an object that nobody made.
    if let Err(error) = subject.store.head(&Key::root()).await {
        assert!(matches!(error.kind, ErrorKind::InvalidName | ErrorKind::NotFound), "{error}");
    }
    let _ = subject.store.delete(&Key::root()).await;
    assert!(subject.store.head(&Key::from("a")).await.is_ok());
}
