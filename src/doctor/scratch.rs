//! The throw-away keys of one examination: everything that it makes in the bucket goes through here and is noted before
//! it is sent, so that it can be taken away again whatever happens in between.
//!
//! Must not: touch a key that is not below its own base, which has a random name.

use std::future::Future;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use super::STEP_TIME;
use crate::store::{Body, Condition, ErrorKind, ListRequest, Part, Receipt, Result, Store, StoreError, UploadId};
use crate::types::{Key, ObjectHeaders, Version};

/// R2 takes one write to a key in a second; a little more is surely enough.
const PACE: Duration = Duration::from_millis(1100);
const ATTEMPTS: usize = 4;

pub struct Scratch {
    store: Store,
    /// Ends in a slash.
    base: String,
    r2: bool,
    /// Possibly in the bucket.
    made: Mutex<Made>,
    /// Could not be taken away, from the bucket's root.
    left: Mutex<Vec<String>>,
}

#[derive(Clone, Default)]
struct Made {
    keys: Vec<Key>,
    uploads: Vec<(Key, UploadId)>,
}

/// How cleaning up went.
pub struct Cleaned {
    /// Below the prefix; uploads too.
    pub left: Vec<String>,
    pub error: Option<StoreError>,
    /// How many objects and uploads were taken away.
    pub gone: usize,
}

impl Scratch {
    /// A link to one of our objects that anybody may follow while a step lasts.
    pub async fn link(&self, key: &Key) -> Result<String> {
        self.store.presign_get(key, STEP_TIME).await
    }

    /// `store` shows the bucket below the prefix; `r2` lets a 403 count as haste, once.
    pub fn new(store: Store, r2: bool) -> Self {
        let name: u64 = rand::random();
        Self { store, base: format!(".mediafs-doctor-{name:016x}/"), r2, made: Mutex::default(), left: Mutex::default() }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn key(&self, name: &str) -> Key {
        Key::new(format!("{}{name}", self.base))
    }

    /// Repeats what the store is too busy for, all within the time of a step.
    pub async fn ask<T, F: Future<Output = Result<T>>>(&self, request: impl Fn() -> F) -> Result<T> {
        let patient = async {
            let mut left = ATTEMPTS;
            loop {
                left -= 1;
                match request().await {
                    Err(error) if left > 0 && error.is(ErrorKind::Throttled) => {}
                    Err(error) if left == ATTEMPTS - 1 && error.is(ErrorKind::ClockSkew) => continue,
                    // R2 answers bursts with 403.
                    Err(error) if self.r2 && left == ATTEMPTS - 1 && error.is(ErrorKind::Denied) => {}
                    answer => return answer,
                }
                sleep(PACE).await;
            }
        };
        within(patient).await
    }

    pub async fn put(&self, key: &Key, body: &Body, condition: &Condition) -> Result<Receipt> {
        let is_new = self.note(key);
        let headers = headers();
        let sent = self.ask(|| self.store.put(key, body.clone(), &headers, condition)).await;
        self.noted(key, is_new, sent)
    }

    /// One attempt, for the store's answer to haste.
    pub async fn put_once(&self, key: &Key, body: &Body) -> Result<Receipt> {
        let is_new = self.note(key);
        let headers = headers();
        let sent = within(self.store.put(key, body.clone(), &headers, &Condition::Any)).await;
        self.noted(key, is_new, sent)
    }

    pub async fn copy(&self, from: &Version, to: &Key) -> Result<Receipt> {
        let is_new = self.note(to);
        let sent = self.ask(|| self.store.copy(from, to, None)).await;
        self.noted(to, is_new, sent)
    }

    pub async fn create(&self, key: &Key) -> Result<UploadId> {
        let headers = headers();
        let id = self.ask(|| self.store.create_upload(key, &headers)).await?;
        self.made.lock().uploads.push((key.clone(), id.clone()));
        Ok(id)
    }

    pub async fn part(&self, key: &Key, id: &UploadId, body: &Body) -> Result<Part> {
        self.ask(|| self.store.upload_part(key, id, 1, body.clone())).await
    }

    pub async fn complete(&self, key: &Key, id: &UploadId, part: &Part, condition: &Condition) -> Result<Receipt> {
        let is_new = self.note(key);
        let sent = self.ask(|| self.store.complete_upload(key, id, std::slice::from_ref(part), condition)).await;
        if sent.is_ok() {
            self.made.lock().uploads.retain(|(_, made)| made != id);
        }
        self.noted(key, is_new, sent)
    }

    pub async fn abort(&self, key: &Key, id: &UploadId) -> Result<()> {
        self.ask(|| self.store.abort_upload(key, id)).await?;
        self.made.lock().uploads.retain(|(_, made)| made != id);
        Ok(())
    }

    /// Notes a key before it is written. True for a new one.
    fn note(&self, key: &Key) -> bool {
        let mut made = self.made.lock();
        let is_new = !made.keys.contains(key);
        if is_new {
            made.keys.push(key.clone());
        }
        is_new
    }

    /// A new key whose write was surely refused is not there.
    fn noted<T>(&self, key: &Key, is_new: bool, sent: Result<T>) -> Result<T> {
        let refused = sent.as_ref().is_err_and(|error| !error.outcome_unknown && !error.kind.is_transient());
        if is_new && refused {
            self.forget(key);
        }
        sent
    }

    fn forget(&self, key: &Key) {
        self.made.lock().keys.retain(|made| made != key);
    }

    pub fn has_made_any(&self) -> bool {
        let made = self.made.lock();
        !made.keys.is_empty() || !made.uploads.is_empty()
    }

    /// For the report, from the bucket's root.
    pub fn leave(&self, keys: Vec<String>) {
        *self.left.lock() = keys;
    }

    pub fn left(&self) -> Vec<String> {
        self.left.lock().clone()
    }

    /// Takes everything away again, one by one, and looks whether it is gone.
    pub async fn clean(&self) -> Cleaned {
        let Made { keys, uploads } = self.made.lock().clone();
        let mut cleaned = Cleaned { left: Vec::new(), error: None, gone: 0 };
        for (key, id) in uploads.iter().chain(&self.strays(&uploads).await) {
            match self.abort(key, id).await {
                Ok(()) => cleaned.gone += 1,
                Err(error) => {
                    cleaned.left.push(format!("{} (unfinished upload {})", key.as_str(), id.0));
                    cleaned.error.get_or_insert(error);
                }
            }
        }
        let mut undeleted = Vec::new();
        for key in &keys {
            match self.ask(|| self.store.delete(key)).await {
                Ok(()) => {
                    cleaned.gone += 1;
                    self.forget(key);
                }
                Err(error) => {
                    undeleted.push(key.as_str().to_owned());
                    cleaned.error.get_or_insert(error);
                }
            }
        }
        let request = ListRequest { prefix: self.base.clone(), ..ListRequest::default() };
        match self.ask(|| self.store.list(&request)).await {
            Ok(page) => cleaned.left.extend(page.objects.into_iter().map(|object| object.key.as_str().to_owned())),
            // Who may not list has to believe the answers.
            Err(_) => cleaned.left.append(&mut undeleted),
        }
        cleaned
    }

    /// Uploads of ours whose beginning was not answered.
    async fn strays(&self, known: &[(Key, UploadId)]) -> Vec<(Key, UploadId)> {
        let all = within(self.store.list_uploads()).await.unwrap_or_default();
        let ours = all.into_iter().filter(|upload| upload.key.as_str().starts_with(&self.base));
        ours.map(|upload| (upload.key, upload.id)).filter(|upload| !known.contains(upload)).collect()
    }
}

/// The name of the first object.
pub const OBJECT: &str = "object";

/// Not longer than a step may take.
pub async fn within<T>(request: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(STEP_TIME, request).await.unwrap_or_else(|_| {
        let text = format!("no answer within {} seconds", STEP_TIME.as_secs());
        Err(StoreError::new(ErrorKind::Timeout, "request", "", text).with_unknown_outcome())
    })
}

fn headers() -> ObjectHeaders {
    ObjectHeaders { content_type: Some("text/plain".to_owned()), ..ObjectHeaders::default() }
}
