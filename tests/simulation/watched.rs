//! The bucket, watched: each request is an instant for a crash, before it does its work and after; and whatever it leaves
//! under a key must be something that a file of that name really was.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use mediafs::simulation::World;
use mediafs::store::memory::MemoryStore;
use mediafs::store::{Body, Condition, ListPage, ListRequest, ObjectBody, ObjectStore, Part, PendingUpload, Receipt, Result, UploadId};
use mediafs::types::{ETag, Key, ObjectHeaders, ObjectInfo, Span, Version};

use crate::machine::{Machine, held};
use crate::sight::describe;

pub struct Watched(pub Arc<MemoryStore>);

/// Whether what a power cut tore may be seen, and go up as it is. It may not: data files have checksums.
pub const TORN_FILES_STAY: bool = false;

/// Names of the instants at which something has arrived in the bucket and nobody knows yet.
pub const DONE: &[&str] = &["put", "copied", "deleted", "begun", "part", "completed", "aborted"];

/// The longest way to the bucket or back, in milliseconds.
const WAY_MILLIS: f64 = 20.0;

async fn way() {
    let chance = Machine::current().map_or(0.0, |machine| machine.chance());
    tokio::time::sleep(Duration::from_millis((chance * WAY_MILLIS) as u64)).await;
}

fn reach(event: &'static str) {
    if let Some(machine) = Machine::current() {
        machine.reach(event);
    }
}

/// The work is done, and the answer on its way.
async fn answers(event: &'static str) {
    tracing::debug!(event, "in the bucket");
    reach(event);
    way().await;
}

impl Watched {
    async fn arrives(&self) {
        way().await;
        reach("request");
    }

    /// What lies under `key` now was stored by the mount.
    fn check(&self, key: &Key) {
        let (Some(machine), Some(bytes)) = (Machine::current(), held(&self.0, key)) else { return };
        let is_exact = !key.is_marker() && !key.as_str().starts_with(crate::shared::DIRECTORY);
        if is_exact && !machine.past.borrow().knows(key.as_str(), &bytes, TORN_FILES_STAY) {
            machine.violated(format!("the bucket got {key}: {}, which no file of that name ever was", describe(Some(&bytes))));
        }
    }
}

#[async_trait]
impl ObjectStore for Watched {
    fn now(&self) -> SystemTime {
        self.0.now()
    }

    async fn head(&self, key: &Key) -> Result<ObjectInfo> {
        self.arrives().await;
        self.0.head(key).await
    }

    async fn get(&self, key: &Key, span: Option<Span>, if_match: Option<&ETag>) -> Result<ObjectBody> {
        self.arrives().await;
        self.0.get(key, span, if_match).await
    }

    async fn put(&self, key: &Key, body: Body, headers: &ObjectHeaders, condition: &Condition) -> Result<Receipt> {
        self.arrives().await;
        let done = self.0.put(key, body, headers, condition).await?;
        self.check(key);
        answers("put").await;
        Ok(done)
    }

    async fn copy(&self, from: &Version, to: &Key, headers: Option<&ObjectHeaders>) -> Result<Receipt> {
        self.arrives().await;
        let done = self.0.copy(from, to, headers).await?;
        self.check(to);
        answers("copied").await;
        Ok(done)
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.arrives().await;
        self.0.delete(key).await?;
        answers("deleted").await;
        Ok(())
    }

    async fn delete_many(&self, keys: &[Key]) -> Result<Vec<Result<()>>> {
        self.arrives().await;
        let done = self.0.delete_many(keys).await?;
        answers("deleted").await;
        Ok(done)
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.arrives().await;
        self.0.list(request).await
    }

    async fn create_upload(&self, key: &Key, headers: &ObjectHeaders) -> Result<UploadId> {
        self.arrives().await;
        let done = self.0.create_upload(key, headers).await?;
        answers("begun").await;
        Ok(done)
    }

    async fn upload_part(&self, key: &Key, upload: &UploadId, number: u32, body: Body) -> Result<Part> {
        self.arrives().await;
        let done = self.0.upload_part(key, upload, number, body).await?;
        answers("part").await;
        Ok(done)
    }

    async fn copy_part(&self, key: &Key, upload: &UploadId, number: u32, from: &Key, if_match: Option<&ETag>, span: Span) -> Result<Part> {
        self.arrives().await;
        let done = self.0.copy_part(key, upload, number, from, if_match, span).await?;
        answers("part").await;
        Ok(done)
    }

    async fn complete_upload(&self, key: &Key, upload: &UploadId, parts: &[Part], condition: &Condition) -> Result<Receipt> {
        self.arrives().await;
        let done = self.0.complete_upload(key, upload, parts, condition).await?;
        self.check(key);
        answers("completed").await;
        Ok(done)
    }

    async fn abort_upload(&self, key: &Key, upload: &UploadId) -> Result<()> {
        self.arrives().await;
        self.0.abort_upload(key, upload).await?;
        answers("aborted").await;
        Ok(())
    }

    async fn list_uploads(&self) -> Result<Vec<PendingUpload>> {
        self.arrives().await;
        self.0.list_uploads().await
    }

    async fn presign_get(&self, key: &Key, expires: Duration) -> Result<String> {
        self.0.presign_get(key, expires).await
    }
}
