//! The words that every layer shares: keys, versions, headers, ids and ranges.
//!
//! Nothing here does I/O or knows a layer above it. Values are parsed into these types at the edge, so that the
//! inside of the crate never handles a bare string whose meaning has to be guessed.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

mod etag;
mod headers;

pub use etag::ETag;
pub use headers::PackedHeaders;

/// A value that can be replaced while others read it without a lock. What it was before stays in memory, since somebody may
/// still look at it: for what changes when somebody asks for it, not by itself.
#[derive(Debug)]
pub struct Live<T> {
    value: T,
    next: OnceLock<Box<Live<T>>>,
}

impl<T> Live<T> {
    pub fn new(value: T) -> Self {
        Self { value, next: OnceLock::new() }
    }

    pub fn replace(&self, value: T) {
        let mut newest = Box::new(Self::new(value));
        let mut last = self.last();
        while let Err(refused) = last.next.set(newest) {
            newest = refused;
            last = last.last();
        }
    }

    fn last(&self) -> &Self {
        let mut last = self;
        while let Some(next) = last.next.get() {
            last = next;
        }
        last
    }
}

impl<T> Deref for Live<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.last().value
    }
}

/// Where an object lies below the mount's prefix, byte for byte: `a/b.jpg`, `a/` for a directory's marker, the empty
/// key for the root. UTF-8, without a leading slash.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(Arc<str>);

impl Key {
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    pub fn root() -> Self {
        Self::new("")
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// True for the marker of a directory (`a/`).
    pub fn is_marker(&self) -> bool {
        self.0.ends_with('/')
    }

    /// The key of `name` in this directory. `self` is the root or ends in a slash.
    pub fn child(&self, name: &str) -> Self {
        debug_assert!(self.is_root() || self.is_marker());
        Self::new(format!("{}{name}", self.0))
    }

    /// The marker key of the directory of this name: `a` becomes `a/`. The root stays the root.
    pub fn as_directory(&self) -> Self {
        if self.is_root() || self.is_marker() { self.clone() } else { Self::new(format!("{}/", self.0)) }
    }

    /// The same name without the slash of a marker: `a/` becomes `a`.
    pub fn without_slash(&self) -> Self {
        match self.0.strip_suffix('/') {
            Some(text) => Self::new(text),
            None => self.clone(),
        }
    }

    /// The directory (root or with a trailing slash) that holds this key, and the name in it. None for the root.
    pub fn split(&self) -> Option<(Key, &str)> {
        if self.is_root() {
            return None;
        }
        let bare = self.0.strip_suffix('/').unwrap_or(&self.0);
        let start = bare.rfind('/').map_or(0, |at| at + 1);
        Some((Key::new(&bare[..start]), &bare[start..]))
    }

    /// True when this key lies in the directory `directory` (root, or with a trailing slash), at any depth.
    pub fn is_below(&self, directory: &Key) -> bool {
        self.0.len() > directory.0.len() && self.0.starts_with(directory.as_str())
    }

    /// True where a part of the key is `.` or `..` to a program that splits paths at backslashes too, and trims what it finds.
    /// MinIO holds no such key; other stores do.
    pub fn walks_in_windows(&self) -> bool {
        let is_blank = |c: char| c <= ' ';
        self.0.split(['/', '\\']).any(|part| matches!(part.trim_matches(is_blank), "." | ".."))
    }

    /// This key moved from below `from` to below `to`; both end in a slash.
    pub fn moved(&self, from: &Key, to: &Key) -> Option<Key> {
        self.0.strip_prefix(from.as_str()).map(|rest| Key::new(format!("{}{rest}", to.0)))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// Keys come from other programs: control characters are escaped, so that a log or a terminal shows text and nothing else.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                c if c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c) => {
                    write!(f, "{}", c.escape_default())?
                }
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

/// One version of one object: the identity under which bytes are cached, fetched and copied.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    pub key: Key,
    pub etag: ETag,
    /// In bytes.
    pub size: u64,
}

/// The headers that are kept with an object. Metadata names are lower case, without `x-amz-meta-`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObjectHeaders {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_disposition: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_language: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// Whether an object's bytes can be read at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Archive {
    #[default]
    Readable,
    /// In cold storage: it has to be restored first.
    Archived,
    /// That is under way.
    Restoring,
}

impl Archive {
    /// `class`: the storage class; `restore`: S3's `x-amz-restore`, there once somebody asked for it.
    pub fn of(class: Option<&str>, restore: Option<&str>) -> Self {
        match (class, restore) {
            (Some("GLACIER" | "DEEP_ARCHIVE"), None) => Self::Archived,
            (_, Some(restore)) if restore.contains("ongoing-request=\"true\"") => Self::Restoring,
            _ => Self::Readable,
        }
    }
}

/// The metadata that holds a file's time of change, in seconds with nine decimals.
pub const MTIME: &str = "mtime";

/// What a HEAD or a GET tells of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// In bytes, of the whole object also where a range was asked for.
    pub size: u64,
    pub etag: ETag,
    pub last_modified: SystemTime,
    pub headers: ObjectHeaders,
    pub archive: Archive,
}

/// One object as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedObject {
    pub key: Key,
    pub size: u64,
    pub etag: ETag,
    pub last_modified: SystemTime,
    /// None: the standard one.
    pub storage_class: Option<String>,
}

impl ListedObject {
    pub fn version(&self) -> Version {
        Version { key: self.key.clone(), etag: self.etag.clone(), size: self.size }
    }
}

/// The number of a local data file; never reused within one cache directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FileId(pub u64);

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Bytes `start..end` of a file or an object.
pub type Span = std::ops::Range<u64>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_knows_its_directory_and_name() {
        for (key, directory, name) in
            [("a", "", "a"), ("a/", "", "a"), ("a/b", "a/", "b"), ("a/b/", "a/", "b"), ("a/b/c.jpg", "a/b/", "c.jpg")]
        {
            assert_eq!(Key::from(key).split(), Some((Key::from(directory), name)), "{key}");
        }
        assert_eq!(Key::root().split(), None);
    }

    #[test]
    fn below_and_moved_respect_whole_components() {
        assert!(Key::from("a/b").is_below(&Key::from("a/")));
        assert!(!Key::from("ab/c").is_below(&Key::from("a/")));
        assert!(!Key::from("a/").is_below(&Key::from("a/")));
        assert_eq!(Key::from("a/b/c").moved(&Key::from("a/"), &Key::from("x/y/")), Some(Key::from("x/y/b/c")));
        assert_eq!(Key::from("ab").moved(&Key::from("a/"), &Key::from("x/")), None);
    }

    #[test]
    fn what_walks_up_a_path_of_windows_is_known() {
        for key in ["..\\bar", "a\\..\\b", "d/.\\x", "..\\", "a/ ..", "a/.. /b"] {
            assert!(Key::from(key).walks_in_windows(), "{key}");
        }
        for key in ["a\\b", "\\", "...", "a..b", "a\\..b", ".a/b", "a/"] {
            assert!(!Key::from(key).walks_in_windows(), "{key}");
        }
    }

    #[test]
    fn a_shown_key_carries_no_terminal_escape() {
        assert_eq!(Key::from("a\x1b[31m\n\u{202e}b").to_string(), "a\\u{1b}[31m\\n\\u{202e}b");
    }

    #[test]
    fn what_is_archived_is_told_by_class_and_restore() {
        let done = "ongoing-request=\"false\", expiry-date=\"Fri, 21 Dec 2012 00:00:00 GMT\"";
        for (class, restore, expected) in [
            (None, None, Archive::Readable),
            (Some("STANDARD_IA"), None, Archive::Readable),
            (Some("GLACIER_IR"), None, Archive::Readable),
            (Some("GLACIER"), None, Archive::Archived),
            (Some("DEEP_ARCHIVE"), None, Archive::Archived),
            (Some("GLACIER"), Some("ongoing-request=\"true\""), Archive::Restoring),
            (Some("GLACIER"), Some(done), Archive::Readable),
        ] {
            assert_eq!(Archive::of(class, restore), expected, "{class:?} {restore:?}");
        }
    }

    #[test]
    fn a_live_value_is_the_last_one() {
        let live = Live::new(1);
        let before: &i32 = &live;
        live.replace(2);
        live.replace(3);
        assert_eq!((*before, *live), (1, 3));
    }

    #[test]
    fn etags_compare_without_their_quotes() {
        assert_eq!(ETag::new("\"abc-2\""), ETag::new("abc-2"));
        assert_eq!(ETag::new("abc").quoted(), "\"abc\"");
    }
}
