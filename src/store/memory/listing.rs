//! One page of a listing, from the sorted keys: prefix, folding at `/`, start, token and the page's size.
//!
//! A page's token is the last name that the page showed. After a folded directory the next page skips everything
//! below it, so a directory is shown once in a listing, on whatever page.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::Object;
use crate::store::{ListPage, ListRequest};
use crate::types::{Key, ListedObject};

/// S3's largest page.
const MAX_KEYS: u32 = 1000;

pub(super) fn page(objects: &BTreeMap<Key, Object>, request: &ListRequest) -> ListPage {
    let limit = request.max_keys.unwrap_or(MAX_KEYS).min(MAX_KEYS) as usize;
    let mut page = ListPage::default();
    if limit == 0 {
        return page;
    }
    let mut from = start(request);
    let mut last = None;
    while let Some((key, object)) = objects.range((from, Bound::Unbounded)).next() {
        if !key.as_str().starts_with(&request.prefix) {
            break;
        }
        if page.objects.len() + page.prefixes.len() == limit {
            page.next = last;
            break;
        }
        match folded(key, request) {
            Some(directory) => {
                from = after_directory(&directory);
                last = Some(directory.as_str().to_owned());
                page.prefixes.push(directory);
            }
            None => {
                from = Bound::Excluded(key.clone());
                last = Some(key.as_str().to_owned());
                page.objects.push(listed(key, object));
            }
        }
    }
    page
}

/// Where the page begins: behind the token or `start_after`, at the prefix at the earliest.
fn start(request: &ListRequest) -> Bound<Key> {
    let prefix = Key::new(request.prefix.as_str());
    let behind = match (&request.token, &request.start_after) {
        (Some(token), _) => match folded(&Key::new(token.as_str()), request) {
            Some(directory) => after_directory(&directory),
            None => Bound::Excluded(Key::new(token.as_str())),
        },
        (None, Some(key)) => Bound::Excluded(Key::new(key.as_str())),
        (None, None) => return Bound::Included(prefix),
    };
    match &behind {
        Bound::Included(key) | Bound::Excluded(key) if *key < prefix => Bound::Included(prefix),
        _ => behind,
    }
}

/// The directory that stands for `key` in a folded listing.
fn folded(key: &Key, request: &ListRequest) -> Option<Key> {
    let rest = key.as_str().strip_prefix(request.prefix.as_str()).filter(|_| request.by_directory)?;
    let slash = request.prefix.len() + rest.find('/')?;
    Some(Key::new(&key.as_str()[..=slash]))
}

/// The first key that can't lie below `directory`: `0` is the byte after `/`.
fn after_directory(directory: &Key) -> Bound<Key> {
    Bound::Included(Key::new(format!("{}0", directory.without_slash().as_str())))
}

fn listed(key: &Key, object: &Object) -> ListedObject {
    ListedObject {
        key: key.clone(),
        size: object.bytes.len() as u64,
        etag: object.etag.clone(),
        last_modified: object.last_modified,
        storage_class: object.headers.storage_class.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::SystemTime;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::types::{ETag, ObjectHeaders};

    fn bucket(keys: &BTreeSet<String>) -> BTreeMap<Key, Object> {
        let object =
            Object { bytes: Bytes::new(), etag: ETag::new("e"), last_modified: SystemTime::UNIX_EPOCH, headers: ObjectHeaders::default() };
        keys.iter().map(|key| (Key::new(key.as_str()), object.clone())).collect()
    }

    fn names(objects: &BTreeMap<Key, Object>, mut request: ListRequest) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let page = page(objects, &request);
            let keys = page.objects.iter().map(|object| &object.key).chain(&page.prefixes);
            let mut shown: Vec<_> = keys.map(|key| key.as_str().to_owned()).collect();
            assert!(shown.len() <= request.max_keys.unwrap_or(MAX_KEYS) as usize);
            shown.sort();
            all.extend(shown);
            match page.next {
                Some(token) => request.token = Some(token),
                None => return all,
            }
        }
    }

    proptest! {
        /// Whatever the page's size, a listing is every name once, in order.
        #[test]
        fn pages_add_up(
            keys in prop::collection::btree_set("[ab/0]{1,5}", 0..30),
            prefix in "[ab/]{0,2}",
            by_directory in any::<bool>(),
            max_keys in 1u32..5,
            start_after in prop::option::of("[ab/0]{1,4}"),
        ) {
            let after = |key: &&String| start_after.as_ref().is_none_or(|start| *key > start);
            let fold = |key: &String| match key[prefix.len()..].find('/').filter(|_| by_directory) {
                Some(at) => key[..=prefix.len() + at].to_owned(),
                None => key.clone(),
            };
            let expected: BTreeSet<_> = keys.iter().filter(|key| key.starts_with(&prefix)).filter(after).map(fold).collect();
            let request = ListRequest { prefix: prefix.clone(), by_directory, start_after: start_after.clone(), max_keys: Some(max_keys), token: None };
            prop_assert_eq!(names(&bucket(&keys), request), expected.into_iter().collect::<Vec<_>>());
        }
    }
}
