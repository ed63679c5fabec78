//! A mount's part of the bucket: every key gets the prefix on the way down and loses it on the way up.
//!
//! Nothing outside the prefix is ever touched or shown. Listing tokens pass through, since only the store that made
//! them can read them. Unfinished uploads are filtered here and not by the store, because MinIO answers a
//! ListMultipartUploads with a prefix such as `x/` with nothing.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::{Body, Condition, ListPage, ListRequest, ObjectBody, ObjectStore, Part, PendingUpload, Receipt, Result, Store, UploadId};
use crate::types::{ETag, Key, ListedObject, ObjectHeaders, ObjectInfo, Span, Version};

pub struct PrefixStore {
    inner: Store,
    /// Empty, or ends in a slash.
    prefix: String,
}

impl PrefixStore {
    /// `prefix` names a directory of the bucket, with or without its trailing slash; empty for the whole bucket.
    pub fn new(inner: Store, prefix: &str) -> Self {
        let slash = if prefix.is_empty() || prefix.ends_with('/') { "" } else { "/" };
        Self { inner, prefix: format!("{prefix}{slash}") }
    }

    fn down(&self, key: &Key) -> Key {
        if self.prefix.is_empty() { key.clone() } else { Key::new(format!("{}{}", self.prefix, key.as_str())) }
    }

    /// None for what lies outside, and for the marker of the prefix itself, which is nobody's name inside.
    fn up(&self, key: Key) -> Option<Key> {
        if self.prefix.is_empty() {
            return Some(key);
        }
        key.as_str().strip_prefix(&self.prefix).filter(|rest| !rest.is_empty()).map(Key::new)
    }

    fn object_up(&self, object: ListedObject) -> Option<ListedObject> {
        self.up(object.key.clone()).map(|key| ListedObject { key, ..object })
    }
}

#[async_trait]
impl ObjectStore for PrefixStore {
    fn now(&self) -> SystemTime {
        self.inner.now()
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo> {
        self.inner.head(&self.down(key)).await
    }

    async fn get(&self, key: &Key, span: Option<Span>, if_match: Option<&ETag>) -> Result<ObjectBody> {
        self.inner.get(&self.down(key), span, if_match).await
    }

    async fn put(&self, key: &Key, body: Body, headers: &ObjectHeaders, condition: &Condition) -> Result<Receipt> {
        self.inner.put(&self.down(key), body, headers, condition).await
    }

    async fn copy(&self, from: &Version, to: &Key, headers: Option<&ObjectHeaders>) -> Result<Receipt> {
        self.inner.copy(&Version { key: self.down(&from.key), ..from.clone() }, &self.down(to), headers).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.inner.delete(&self.down(key)).await
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<Vec<Result<()>>> {
        let keys: Vec<_> = keys.iter().map(|key| self.down(key)).collect();
        self.inner.delete_many(&keys).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        let request = ListRequest {
            prefix: format!("{}{}", self.prefix, request.prefix),
            start_after: request.start_after.as_ref().map(|key| format!("{}{key}", self.prefix)),
            ..request.clone()
        };
        let page = self.inner.list(&request).await?;
        Ok(ListPage {
            objects: page.objects.into_iter().filter_map(|object| self.object_up(object)).collect(),
            prefixes: page.prefixes.into_iter().filter_map(|key| self.up(key)).collect(),
            next: page.next,
        })
    }

    async fn create_upload(&self, key: &Key, headers: &ObjectHeaders) -> Result<UploadId> {
        self.inner.create_upload(&self.down(key), headers).await
    }

    async fn upload_part(&self, key: &Key, upload: &UploadId, number: u32, body: Body) -> Result<Part> {
        self.inner.upload_part(&self.down(key), upload, number, body).await
    }

    async fn copy_part(&self, key: &Key, upload: &UploadId, number: u32, from: &Key, if_match: Option<&ETag>, span: Span) -> Result<Part> {
        self.inner.copy_part(&self.down(key), upload, number, &self.down(from), if_match, span).await
    }

    async fn complete_upload(&self, key: &Key, upload: &UploadId, parts: &[Part], condition: &Condition) -> Result<Receipt> {
        self.inner.complete_upload(&self.down(key), upload, parts, condition).await
    }

    async fn abort_upload(&self, key: &Key, upload: &UploadId) -> Result<()> {
        self.inner.abort_upload(&self.down(key), upload).await
    }

    async fn list_uploads(&self) -> Result<Vec<PendingUpload>> {
        let all = self.inner.list_uploads().await?;
        let seen = |PendingUpload { key, id, initiated }| Some(PendingUpload { key: self.up(key)?, id, initiated });
        Ok(all.into_iter().filter_map(seen).collect())
    }

    async fn presign_get(&self, key: &Key, expires: Duration) -> Result<String> {
        self.inner.presign_get(&self.down(key), expires).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::ErrorKind;
    use crate::store::memory::MemoryStore;

    async fn put(store: &impl ObjectStore, key: &str) {
        let _ = store.put(&Key::from(key), Body::new(key.to_owned()), &ObjectHeaders::default(), &Condition::Any).await.unwrap();
    }

    #[tokio::test]
    async fn keys_lose_the_prefix_and_strangers_stay_hidden() {
        let bucket = Arc::new(MemoryStore::new());
        let store = PrefixStore::new(bucket.clone(), "site/media");
        put(&store, "a/b").await;
        put(&store, "c").await;
        for stranger in ["site/media/", "site/media2/x", "site/other", "z"] {
            put(&*bucket, stranger).await;
        }
        assert!(bucket.object(&Key::from("site/media/a/b")).is_some());
        let page = store.list(&ListRequest { by_directory: true, ..ListRequest::default() }).await.unwrap();
        assert_eq!(page.prefixes, [Key::from("a/")]);
        assert_eq!(page.objects.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), ["c"]);
        let after = ListRequest { start_after: Some("a/b".to_owned()), ..ListRequest::default() };
        assert_eq!(store.list(&after).await.unwrap().objects.len(), 1);
        assert!(store.head(&Key::from("other")).await.is_err_and(|error| error.is(ErrorKind::NotFound)));
    }

    #[tokio::test]
    async fn only_uploads_below_the_prefix_are_listed() {
        let bucket = Arc::new(MemoryStore::new());
        let store = PrefixStore::new(bucket.clone(), "p/");
        let _ = bucket.create_upload(&Key::from("q/x"), &ObjectHeaders::default()).await.unwrap();
        let id = store.create_upload(&Key::from("x"), &ObjectHeaders::default()).await.unwrap();
        let listed = store.list_uploads().await.unwrap();
        assert_eq!(listed.into_iter().map(|upload| (upload.key, upload.id)).collect::<Vec<_>>(), [(Key::from("x"), id)]);
    }
}
