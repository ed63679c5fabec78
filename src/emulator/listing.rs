//! What one page of a listing holds: pure, over a sorted map of flat keys.
//!
//! Keys are in byte order. With a delimiter, everything below the next one after the prefix is one common prefix, and
//! is stepped over in one seek however much lies below. A page ends at its limit and says so only if more follows.

use std::collections::BTreeMap;
use std::ops::Bound;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// S3 shows no more than this on a page, whatever is asked for.
pub const PAGE_LIMIT: usize = 1000;

#[derive(Clone, Debug, Default)]
pub struct Query<'a> {
    pub prefix: &'a str,
    /// Empty is none.
    pub delimiter: &'a str,
    pub after: After,
    pub limit: usize,
}

/// Where a listing goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum After {
    #[default]
    Start,
    /// After this key; what lies below it is still to come.
    Key(String),
    /// After this common prefix and everything below it.
    Prefix(String),
}

#[derive(Debug, PartialEq, Eq)]
pub enum Entry<'a, T> {
    Key(&'a str, &'a T),
    Prefix(String),
}

#[derive(Debug)]
pub struct Page<'a, T> {
    pub entries: Vec<Entry<'a, T>>,
    /// Some where more follows.
    pub next: Option<After>,
}

impl After {
    /// What a client gave as `start-after` or `marker`: a common prefix that equals it was already shown.
    pub fn name(name: &str, delimiter: &str) -> Self {
        match name {
            "" => Self::Start,
            name if !delimiter.is_empty() && name.ends_with(delimiter) => Self::Prefix(name.to_owned()),
            name => Self::Key(name.to_owned()),
        }
    }

    /// The opaque continuation token.
    pub fn token(&self) -> String {
        URL_SAFE_NO_PAD.encode(match self {
            Self::Start => "s".to_owned(),
            Self::Key(key) => format!("k{key}"),
            Self::Prefix(prefix) => format!("p{prefix}"),
        })
    }

    pub fn from_token(token: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        match text.split_at_checked(1)? {
            ("s", "") => Some(Self::Start),
            ("k", key) => Some(Self::Key(key.to_owned())),
            ("p", prefix) => Some(Self::Prefix(prefix.to_owned())),
            _ => None,
        }
    }
}

pub fn page<'a, T>(keys: &'a BTreeMap<String, T>, query: &Query<'_>) -> Page<'a, T> {
    let limit = query.limit.min(PAGE_LIMIT);
    let mut entries: Vec<Entry<'a, T>> = Vec::new();
    let mut from = start(query);
    while limit > 0
        && let Some(bound) = from
    {
        let Some((key, value)) = keys.range::<str, _>((bound.as_ref().map(String::as_str), Bound::Unbounded)).next() else { break };
        if !key.starts_with(query.prefix) {
            break;
        }
        if entries.len() == limit {
            let next = entries.last().map(|last| match last {
                Entry::Key(key, _) => After::Key((*key).to_owned()),
                Entry::Prefix(prefix) => After::Prefix(prefix.clone()),
            });
            return Page { entries, next };
        }
        match common_prefix(key, query) {
            Some(prefix) => {
                from = above(prefix).map(Bound::Included);
                entries.push(Entry::Prefix(prefix.to_owned()));
            }
            None => {
                from = Some(Bound::Excluded(key.clone()));
                entries.push(Entry::Key(key, value));
            }
        }
    }
    Page { entries, next: None }
}

/// The first key that may be shown; None where the position is beyond every key.
fn start(query: &Query<'_>) -> Option<Bound<String>> {
    let bound = match &query.after {
        After::Start => Bound::Unbounded,
        After::Key(key) => Bound::Excluded(key.clone()),
        // Only what the prefix query folds is a common prefix; any other name is just a place in the order.
        After::Prefix(prefix) if common_prefix(prefix, query) == Some(prefix) => Bound::Included(above(prefix)?),
        After::Prefix(name) => Bound::Excluded(name.clone()),
    };
    let prefix = query.prefix;
    Some(match bound {
        Bound::Excluded(key) if key.as_str() >= prefix => Bound::Excluded(key),
        Bound::Included(key) if key.as_str() >= prefix => Bound::Included(key),
        _ => Bound::Included(prefix.to_owned()),
    })
}

fn common_prefix<'k>(key: &'k str, query: &Query<'_>) -> Option<&'k str> {
    if query.delimiter.is_empty() {
        return None;
    }
    let rest = key.strip_prefix(query.prefix)?;
    let at = rest.find(query.delimiter)?;
    Some(&key[..query.prefix.len() + at + query.delimiter.len()])
}

/// The least text above everything that starts with `prefix`; None where there is none. UTF-8 sorts as code points do.
fn above(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            text.push(next);
            return Some(text);
        }
    }
    None
}

/// `encoding-type=url` as S3 does it: form rules, so a space is `+`, and `/` stays.
pub fn url_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' | b'/' => encoded.push(char::from(byte)),
            b' ' => encoded.push('+'),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(names: &[&str]) -> BTreeMap<String, ()> {
        names.iter().map(|name| ((*name).to_owned(), ())).collect()
    }

    fn names(page: &Page<'_, ()>) -> Vec<String> {
        let name = |entry: &Entry<'_, ()>| match entry {
            Entry::Key(key, ()) => (*key).to_owned(),
            Entry::Prefix(prefix) => format!("[{prefix}]"),
        };
        page.entries.iter().map(name).collect()
    }

    #[test]
    fn prefixes_and_positions() {
        let keys = keys(&["a", "a/", "a/b", "a/c/d", "a0", "b//x", "c/1", "c/2", "\u{10ffff}", "\u{10ffff}/x"]);
        for (prefix, delimiter, after, expected) in [
            ("", "", After::Start, "a a/ a/b a/c/d a0 b//x c/1 c/2 \u{10ffff} \u{10ffff}/x"),
            ("", "/", After::Start, "a [a/] a0 [b/] [c/] \u{10ffff} [\u{10ffff}/]"),
            ("a/", "/", After::Start, "a/ a/b [a/c/]"),
            ("a", "/", After::Start, "a [a/] a0"),
            ("b/", "/", After::Start, "[b//]"),
            ("", "", After::name("a/b", ""), "a/c/d a0 b//x c/1 c/2 \u{10ffff} \u{10ffff}/x"),
            ("", "/", After::name("a/", "/"), "a0 [b/] [c/] \u{10ffff} [\u{10ffff}/]"),
            ("", "/", After::name("c/1", "/"), "[c/] \u{10ffff} [\u{10ffff}/]"),
            ("a/", "/", After::name("a/", "/"), "a/b [a/c/]"),
            ("c/", "", After::name("a", ""), "c/1 c/2"),
            ("c/", "", After::name("d", ""), ""),
            ("", "/", After::name("\u{10ffff}/", "/"), ""),
        ] {
            let query = Query { prefix, delimiter, after, limit: 1000 };
            assert_eq!(names(&page(&keys, &query)).join(" "), expected, "{query:?}");
        }
    }

    #[test]
    fn a_full_page_is_truncated_only_if_more_follows() {
        let keys = keys(&["a/1", "a/2", "b"]);
        let query = |limit| Query { delimiter: "/", limit, ..Query::default() };
        assert_eq!(page(&keys, &query(1)).next, Some(After::Prefix("a/".to_owned())));
        assert_eq!(page(&keys, &query(2)).next, None);
        assert!(page(&keys, &query(0)).entries.is_empty());
    }

    #[test]
    fn url_encoding_follows_form_rules() {
        assert_eq!(url_encode("a b+c/ü%\u{1}~*"), "a+b%2Bc/%C3%BC%25%01%7E*");
    }

    proptest! {
        #[test]
        fn pages_of_any_size_add_up_to_the_whole(
            names_in in proptest::collection::btree_set("[a-c/é\u{10ffff}]{1,5}", 0..40),
            prefix in "[a-c/]{0,2}",
            delimiter in prop_oneof![Just(""), Just("/"), Just("a")],
            limit in 1usize..4,
        ) {
            let keys: BTreeMap<String, ()> = names_in.iter().map(|name| (name.clone(), ())).collect();
            let mut expected: Vec<String> = Vec::new();
            for key in names_in.iter().filter(|key| key.starts_with(&prefix)) {
                let rest = &key[prefix.len()..];
                let shown = match rest.find(delimiter).filter(|_| !delimiter.is_empty()) {
                    Some(at) => format!("[{prefix}{}]", &rest[..at + delimiter.len()]),
                    None => key.clone(),
                };
                if expected.last() != Some(&shown) {
                    expected.push(shown);
                }
            }
            let mut found = Vec::new();
            let mut after = After::Start;
            loop {
                let page = page(&keys, &Query { prefix: &prefix, delimiter, after, limit });
                found.extend(names(&page));
                match page.next {
                    Some(next) => after = After::from_token(&next.token()).unwrap(),
                    None => break,
                }
            }
            prop_assert_eq!(found, expected);
        }
    }
}
