//! What mediafs itself tells of a file, under `user.mediafs.`: read only.

use std::time::Duration;

use super::super::Fs;
use crate::error::{Error, Result};
use crate::namespace::{Ino, Node, ROOT};
use crate::types::{Archive, Key};

/// How long a presigned URL from an attribute works: long enough for a page to be loaded, too short to be kept.
const URL_VALID: Duration = Duration::from_secs(3600);

impl Fs {
    /// `name` is what follows `user.mediafs.`.
    pub(super) async fn own_attribute(&self, ino: Ino, name: &str) -> Result<Vec<u8>> {
        match name {
            "status" if ino == ROOT => Ok(self.status.get().ok_or(Error::NoAttribute)?().into_bytes()),
            "state" => self.state(ino).await.map(|state| state.as_bytes().to_vec()),
            "etag" => {
                let names = self.names.lock();
                let version = names.get(ino).and_then(|inode| inode.version()).ok_or(Error::NoAttribute)?;
                Ok(version.etag.as_str().as_bytes().to_vec())
            }
            "url" => self.url(ino).await.map(String::into_bytes),
            _ => Err(Error::NoAttribute),
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

    /// Public where the mount knows the public address of its bucket, else presigned for an hour.
    async fn url(&self, ino: Ino) -> Result<String> {
        let key = self.file_key(ino)?;
        match &self.config.public_url_base {
            Some(base) => Ok(public_url(base, &key)),
            None => Ok(self.store.presign_get(&key, URL_VALID).await?),
        }
    }

    fn file_key(&self, ino: Ino) -> Result<Key> {
        let names = self.names.lock();
        let is_file = names.get(ino).is_some_and(|inode| matches!(inode.node, Node::File(_)));
        names.key(ino).filter(|_| is_file).ok_or(Error::NoAttribute)
    }
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
    fn a_public_url_encodes_all_but_slashes() {
        assert_eq!(public_url("https://cdn.example.com/", &Key::from("a b/ü+%.jpg")), "https://cdn.example.com/a%20b/%C3%BC%2B%25.jpg");
    }
}
