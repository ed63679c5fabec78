//! What mediafs itself tells of a file, under `user.mediafs.`: read only.

use std::time::Duration;

use super::super::Fs;
use crate::error::{Error, Result};
use crate::namespace::{Ino, Node, ROOT};
use crate::types::{Archive, Key};
use crate::writer::Events;

/// How long a presigned URL from an attribute works: long enough for a page to be loaded, too short to be kept.
const URL_VALID: Duration = Duration::from_secs(3600);
/// The longest that a signature may be valid for.
const URL_LONGEST_SECONDS: u64 = 7 * 24 * 3600;

impl Fs {
    /// `name` is what follows `user.mediafs.`.
    pub(super) async fn own_attribute(&self, ino: Ino, name: &str) -> Result<Vec<u8>> {
        match name {
            "status" if ino == ROOT => Ok(self.status.get().ok_or(Error::NoAttribute)?().into_bytes()),
            "state" => self.state(ino).await.map(|state| state.as_bytes().to_vec()),
            "etag" => {
                let names = self.names.lock();
                let version = names.get(ino).and_then(|inode| inode.version()).ok_or(Error::NoAttribute)?;
                Ok(version.etag.text().into_owned().into_bytes())
            }
            _ => {
                let valid = url_valid(name).ok_or(Error::NoAttribute)?;
                self.url(ino, valid).await.map(String::into_bytes)
            }
        }
    }

    /// `clean`, `dirty`, `uploading` or `failed`; of what is clean also `archived` or `restoring`.
    async fn state(&self, ino: Ino) -> Result<&'static str> {
        let (key, may_be_archived) = {
            let names = self.names.lock();
            let inode = names.get(ino).ok_or(Error::NotFound)?;
            if !matches!(inode.node, Node::File(_)) {
                return Err(Error::NoAttribute);
            }
            let Some(key) = names.key(ino) else { return Ok("clean") };
            (key, Archive::of(inode.headers().storage_class.as_deref(), None) != Archive::Readable)
        };
        let state = self.writer.state(&key);
        if state != "clean" || !may_be_archived {
            return Ok(state);
        }
        // A restoration changes neither ETag nor date: only the bucket can tell.
        Ok(match self.head(&key).await?.map(|info| info.archive) {
            Some(Archive::Archived) => "archived",
            Some(Archive::Restoring) => "restoring",
            _ => state,
        })
    }

    /// Public where the mount knows the public address of its bucket, else presigned.
    async fn url(&self, ino: Ino, valid: Duration) -> Result<String> {
        let key = self.file_key(ino)?;
        match &self.config.public_url_base {
            Some(base) => Ok(public_url(base, &key)),
            None => Ok(self.store.presign_get(&key, valid).await?),
        }
    }

    /// `name`: of a file whose upload was refused for good, what is under the name in the bucket is kept, and ours is given up.
    pub(super) fn resolve_held(&self, ino: Ino, value: &[u8]) -> Result<()> {
        let key = self.file_key(ino)?;
        if value != b"name" || self.writer.state(&key) != "failed" {
            return Err(Error::Invalid);
        }
        let local = self.names.lock().get(ino).and_then(|inode| inode.file()?.local.clone());
        self.writer.apply(vec![(key.clone(), None)], &[])?;
        self.conflict(&key, None);
        local.into_iter().for_each(|file| self.cache.discard(file.id()));
        Ok(())
    }

    fn file_key(&self, ino: Ino) -> Result<Key> {
        let names = self.names.lock();
        let is_file = names.get(ino).is_some_and(|inode| matches!(inode.node, Node::File(_)));
        names.key(ino).filter(|_| is_file).ok_or(Error::NoAttribute)
    }
}

/// Of `url` and `url.SECONDS`: how long a presigned one works.
fn url_valid(name: &str) -> Option<Duration> {
    let Some(seconds) = name.strip_prefix("url.") else { return (name == "url").then_some(URL_VALID) };
    let seconds = seconds.parse().ok().filter(|seconds| (1..=URL_LONGEST_SECONDS).contains(seconds))?;
    Some(Duration::from_secs(seconds))
}

/// The object's address below a public base, percent-encoded but for the slashes.
fn public_url(base: &str, key: &Key) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    format!("{}/{}", base.trim_end_matches('/'), utf8_percent_encode(key.as_str(), KEPT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_works_for_as_long_as_its_name_says() {
        for (name, seconds) in [("url", Some(3600)), ("url.1", Some(1)), ("url.604800", Some(604_800))] {
            assert_eq!(url_valid(name).map(|valid| valid.as_secs()), seconds, "{name}");
        }
        for name in ["url.", "url.0", "url.604801", "url.1h", "urls", "", "url.-1"] {
            assert_eq!(url_valid(name), None, "{name}");
        }
    }

    #[test]
    fn a_public_url_encodes_all_but_slashes() {
        assert_eq!(public_url("https://cdn.example.com/", &Key::from("a b/ü+%.jpg")), "https://cdn.example.com/a%20b/%C3%BC%2B%25.jpg");
    }
}
