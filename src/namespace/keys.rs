//! Path ↔ key: which names may become keys, which keys can be shown as names, and what a delimiter listing says about
//! one directory.
//!
//! Pure. A key that no path can show is hidden and counted, never guessed at and never turned into another name: a
//! guess would let two keys meet under one path, or let a key lead out of the mount. A directory wins over a file of
//! the same name. Listings are folded without trusting their order: pages may be short, unsorted or repeat entries.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::time::SystemTime;

use unicode_normalization::UnicodeNormalization;

use crate::error::Error;
use crate::store::ListPage;
use crate::types::{ETag, Key, ListedObject};

/// Linux's NAME_MAX: the kernel refuses more, and so do the programs above it.
pub const NAME_LIMIT_BYTES: usize = 255;

/// The longest key of S3 and R2, the mount's prefix included.
pub const KEY_LIMIT_BYTES: usize = 1024;

/// What Hadoop's older S3 connectors append to a directory's name to mark it.
const HADOOP_SUFFIX: &str = "_$folder$";

/// The older mark of a directory (`a/b/`): the object `a/b_$folder$` beside it. None for the root, which needs none.
pub fn hadoop_marker(directory: &Key) -> Option<Key> {
    (!directory.is_root()).then(|| Key::new(format!("{}{HADOOP_SUFFIX}", directory.without_slash().as_str())))
}

/// The directory that such an object marks.
pub fn marked_by_hadoop(key: &Key) -> Option<Key> {
    let (parent, name) = key.split().filter(|_| !key.is_marker())?;
    let name = name.strip_suffix(HADOOP_SUFFIX).filter(|name| !name.is_empty())?;
    let marked = parent.child(name).as_directory();
    // All of it: whoever takes it in makes the directories on the way.
    shown_key(&marked).is_ok().then_some(marked)
}

/// Why a key is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// An empty component: `a//b`, or a leading slash.
    Empty,
    /// `.` or `..`.
    Dots,
    /// A NUL byte.
    Nul,
    /// A component over 255 bytes.
    TooLong,
    /// Nothing but white space at the top of the bucket.
    Blank,
    /// An object `a` beside keys `a/…`.
    Shadowed,
    /// The listing's answer does not lie in the directory that was asked for.
    Foreign,
}

impl Reason {
    /// For logs and `status`.
    pub fn text(self) -> &'static str {
        match self {
            Self::Empty => "has an empty path component",
            Self::Dots => "has a component . or ..",
            Self::Nul => "contains a NUL byte",
            Self::TooLong => "has a component over 255 bytes",
            Self::Blank => "is white space alone",
            Self::Shadowed => "has the name of a directory",
            Self::Foreign => "lies outside the listed directory",
        }
    }
}

/// Checks a name that the kernel passed. Errors: `NotUtf8`, `NameTooLong`, `Invalid`.
pub fn component(name: &OsStr) -> Result<&str, Error> {
    // Length first: a name too long is that, whatever its bytes are.
    if name.len() > NAME_LIMIT_BYTES {
        return Err(Error::NameTooLong);
    }
    let text = name.to_str().ok_or(Error::NotUtf8)?;
    if text.contains('/') {
        return Err(Error::Invalid);
    }
    match shown_component(text) {
        Ok(()) => Ok(text),
        Err(Reason::TooLong) => Err(Error::NameTooLong),
        Err(_) => Err(Error::Invalid),
    }
}

/// Whether a key is white space alone. The SDK takes such a key for a missing one and sends no request, which looks like
/// a bucket out of reach: so no file of that name exists or can be made, below a mount prefix neither.
pub fn is_blank(key: &Key) -> bool {
    let text = key.as_str();
    !text.is_empty() && text.strip_suffix('/').unwrap_or(text).trim().is_empty()
}

/// Checks a whole key below a mount prefix of `prefix_bytes`. Errors: `Invalid`, `NameTooLong`.
pub fn check_key(key: &Key, prefix_bytes: usize) -> Result<(), Error> {
    if is_blank(key) {
        return Err(Error::Invalid);
    }
    if prefix_bytes + key.as_str().len() > KEY_LIMIT_BYTES { Err(Error::NameTooLong) } else { Ok(()) }
}

/// A guess that saves a round trip: directories are rarely named with an extension.
pub fn looks_like_directory(name: &str) -> bool {
    !name.trim_start_matches('.').contains('.')
}

/// Whether one component of a key can be shown as a name.
pub fn shown_component(name: &str) -> Result<(), Reason> {
    match name {
        "" => Err(Reason::Empty),
        "." | ".." => Err(Reason::Dots),
        _ if name.len() > NAME_LIMIT_BYTES => Err(Reason::TooLong),
        _ if name.contains('\0') => Err(Reason::Nul),
        _ => Ok(()),
    }
}

fn shown_below(directory: &Key, name: &str) -> Result<(), Reason> {
    shown_component(name)?;
    if is_blank(&directory.child(name)) { Err(Reason::Blank) } else { Ok(()) }
}

/// Whether every component of a key can be shown; the root and a marker's trailing slash are fine.
pub fn shown_key(key: &Key) -> Result<(), Reason> {
    let text = key.as_str();
    if text.is_empty() {
        return Ok(());
    }
    if text != "/" && is_blank(key) {
        return Err(Reason::Blank);
    }
    text.strip_suffix('/').unwrap_or(text).split('/').try_for_each(shown_component)
}

/// Of the keys of one flat listing, those of files that have the name of a directory: objects `a` beside keys `a/…`.
pub fn shadowed<'a>(keys: impl Iterator<Item = &'a Key>) -> BTreeSet<Key> {
    let all: BTreeSet<Key> = keys.cloned().collect();
    let is_shadowed = |key: &Key| {
        let directory = key.as_directory();
        all.range(&directory..).next().is_some_and(|next| next.as_str().starts_with(directory.as_str()))
            || hadoop_marker(&directory).is_some_and(|marker| all.contains(&marker))
    };
    all.iter().filter(|key| !key.is_marker() && is_shadowed(key)).cloned().collect()
}

/// True where R2 would fold the two names into one key although their bytes differ: it stores keys in NFC.
pub fn same_on_r2(a: &str, b: &str) -> bool {
    a == b || a.nfc().eq(b.nfc())
}

/// The one spelling that R2 makes of a name: two names collide exactly when these are equal.
pub fn r2_spelling(name: &str) -> String {
    name.nfc().collect()
}

/// What a listing shows under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListedKind {
    File { size: u64, etag: ETag, last_modified: SystemTime },
    Directory,
}

/// One name of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    pub kind: ListedKind,
}

/// What the pages of one directory's delimiter listing say, folded together. The same pages in any order, with any
/// repetition, give the same value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    pub entries: BTreeMap<String, ListedKind>,
    /// The directory's own marker object.
    pub marker: Option<ListedObject>,
    /// Objects `a_$folder$`, by the name of the directory `a` that they mark. They go when it goes.
    pub hadoop_markers: BTreeMap<String, Key>,
    /// Directories in which a look of its own found something.
    pub confirmed: BTreeSet<String>,
    /// Keys that can't be shown.
    pub hidden: BTreeMap<Key, Reason>,
}

impl Listing {
    /// Folds in one page of the listing of `directory` (root, or with a trailing slash).
    pub fn add(&mut self, directory: &Key, page: &ListPage) {
        for prefix in &page.prefixes {
            match prefix.as_str().strip_prefix(directory.as_str()) {
                Some(rest) => self.add_below(directory, prefix, rest),
                None => self.hide(prefix, Reason::Foreign),
            }
        }
        for object in &page.objects {
            match object.key.as_str().strip_prefix(directory.as_str()) {
                Some("") if directory.is_root() => self.hide(&object.key, Reason::Empty),
                Some("") => self.add_marker(object),
                Some(rest) => self.add_object(directory, object, rest),
                None => self.hide(&object.key, Reason::Foreign),
            }
        }
    }

    /// The entries as a list, in byte order of their names.
    pub fn into_listed(self) -> Vec<Listed> {
        self.entries.into_iter().map(|(name, kind)| Listed { name, kind }).collect()
    }

    fn hide(&mut self, key: &Key, reason: Reason) {
        self.hidden.insert(key.clone(), reason);
    }

    fn add_marker(&mut self, object: &ListedObject) {
        if self.marker.as_ref().is_none_or(|old| is_newer((object.last_modified, &object.etag), (old.last_modified, &old.etag))) {
            self.marker = Some(object.clone());
        }
    }

    fn add_object(&mut self, directory: &Key, object: &ListedObject, rest: &str) {
        if rest.contains('/') {
            // A prefix in effect: some stores return the markers of subdirectories as objects.
            return self.add_below(directory, &object.key, rest);
        }
        if let Some(name) = rest.strip_suffix(HADOOP_SUFFIX).filter(|name| shown_component(name).is_ok()) {
            self.hadoop_markers.insert(name.to_owned(), object.key.clone());
            return self.add_directory(directory, name);
        }
        match shown_below(directory, rest) {
            Ok(()) => self.add_file(rest, object),
            Err(reason) => self.hide(&object.key, reason),
        }
    }

    /// `key` lies in a subdirectory; `rest` is what follows `directory` in it.
    fn add_below(&mut self, directory: &Key, key: &Key, rest: &str) {
        let name = rest.split('/').next().unwrap_or_default();
        match shown_below(directory, name) {
            Ok(()) => self.add_directory(directory, name),
            Err(reason) => self.hide(key, reason),
        }
    }

    fn add_directory(&mut self, directory: &Key, name: &str) {
        if let Some(ListedKind::File { .. }) = self.entries.insert(name.to_owned(), ListedKind::Directory) {
            self.hide(&directory.child(name), Reason::Shadowed);
        }
    }

    fn add_file(&mut self, name: &str, object: &ListedObject) {
        let file = ListedKind::File { size: object.size, etag: object.etag.clone(), last_modified: object.last_modified };
        match self.entries.get_mut(name) {
            None => {
                self.entries.insert(name.to_owned(), file);
            }
            Some(ListedKind::Directory) => self.hide(&object.key, Reason::Shadowed),
            Some(ListedKind::File { etag, last_modified, .. }) => {
                if is_newer((object.last_modified, &object.etag), (*last_modified, etag)) {
                    self.entries.insert(name.to_owned(), file);
                }
            }
        }
    }
}

/// An object that changed while it was listed may come twice. The ETag breaks ties, so that order never matters.
fn is_newer(a: (SystemTime, &ETag), b: (SystemTime, &ETag)) -> bool {
    a > b
}

/// The entries of `directory` from one page.
pub fn fold_listing(directory: &Key, page: &ListPage) -> Vec<Listed> {
    let mut listing = Listing::default();
    listing.add(directory, page);
    listing.into_listed()
}

#[cfg(test)]
mod tests;
