//! Whether the bucket is there, and each right in turn, tried on throw-away keys.

use futures::TryStreamExt;

use super::cause::{About, cause};
use super::report::{Outcome, Sheet, Step};
use super::scratch::{Cleaned, OBJECT, Scratch, within};
use crate::store::{Body, Condition, ErrorKind, ListRequest, Receipt, StoreError};
use crate::types::{Key, Version};

/// Steps that write.
pub const WRITES: [Step; 8] =
    [Step::Put, Step::Copy, Step::Multipart, Step::Uploads, Step::Conditions, Step::Checksums, Step::Rules, Step::Delete];
/// All that need the bucket.
pub const STEPS: [Step; 13] = [
    Step::Key,
    Step::Bucket,
    Step::List,
    Step::Put,
    Step::Head,
    Step::Get,
    Step::Copy,
    Step::Multipart,
    Step::Uploads,
    Step::Conditions,
    Step::Checksums,
    Step::Rules,
    Step::Delete,
];

/// The first object as it was written.
pub struct Written {
    pub version: Version,
    pub body: Body,
}

/// Lists one key. None: no other request can succeed either. Else the listed key, if there is one.
pub async fn bucket(scratch: &Scratch, about: &About, sheet: &mut Sheet<'_>) -> Option<Option<Key>> {
    let request = ListRequest { max_keys: Some(1), ..ListRequest::default() };
    let error = match scratch.ask(|| scratch.store().list(&request)).await {
        Ok(page) => {
            sheet.pass(Step::Key, "the store knows the key, and its secret is right");
            sheet.pass(Step::Bucket, format!("{:?} is there", about.bucket));
            sheet.pass(Step::List, "allowed");
            return Some(page.objects.into_iter().map(|object| object.key).next());
        }
        Err(error) => error,
    };
    let found = cause(Step::List, &error, about);
    let is_page = error.message.contains("text/html");
    match error.kind {
        ErrorKind::Denied if !is_page => {
            sheet.pass(Step::Key, "the store knows the key");
            sheet.skip(Step::Bucket, "who may not list can't tell whether it is there");
            sheet.fail(Step::List, found.what, found.fix);
            return Some(None);
        }
        ErrorKind::NoSuchBucket => {
            sheet.pass(Step::Key, "the store knows the key");
            sheet.fail(Step::Bucket, found.what, found.fix);
        }
        ErrorKind::Credentials | ErrorKind::ClockSkew => sheet.fail(Step::Key, found.what, found.fix),
        _ => sheet.fail(Step::Bucket, found.what, found.fix),
    }
    sheet.skip_rest(&STEPS, "the bucket can't be asked");
    None
}

/// Put, head, get, copy, multipart. Some: the object that later steps use is there.
pub async fn examine(scratch: &Scratch, listed: Option<&Key>, about: &About, sheet: &mut Sheet<'_>) -> Option<Written> {
    let written = put(scratch, about, sheet).await;
    read(scratch, written.as_ref(), listed, about, sheet).await;
    match &written {
        Some(written) => copy(scratch, written, about, sheet).await,
        None => sheet.skip(Step::Copy, "there is no object to copy"),
    }
    multipart(scratch, about, sheet).await;
    uploads(scratch, about, sheet).await;
    written
}

/// For a read-only mount: whether what is there can be read.
pub async fn read_only(scratch: &Scratch, listed: Option<&Key>, about: &About, sheet: &mut Sheet<'_>) {
    sheet.skip_rest(&WRITES, "not needed with --read-only");
    read(scratch, None, listed, about, sheet).await;
}

async fn put(scratch: &Scratch, about: &About, sheet: &mut Sheet<'_>) -> Option<Written> {
    let key = scratch.key(OBJECT);
    let body = Body::new(format!("written by mediafs doctor, to be deleted: {}\n", key.as_str()));
    match scratch.put(&key, &body, &Condition::Any).await {
        Ok(receipt) => {
            sheet.pass(Step::Put, "allowed");
            Some(Written { version: version(&key, &receipt), body })
        }
        Err(error) => {
            told(Step::Put, &error, about, sheet);
            None
        }
    }
}

fn version(key: &Key, receipt: &Receipt) -> Version {
    Version { key: key.clone(), etag: receipt.etag().clone(), size: receipt.size() }
}

/// On our own object, else on one that is there, else on none, where "not found" is an answer that takes the right too.
async fn read(scratch: &Scratch, written: Option<&Written>, listed: Option<&Key>, about: &About, sheet: &mut Sheet<'_>) {
    let own = scratch.key(OBJECT);
    let key = if written.is_some() { &own } else { listed.unwrap_or(&own) };
    match scratch.ask(|| scratch.store().head(key)).await {
        Ok(_) => sheet.pass(Step::Head, "allowed"),
        Err(error) if error.is(ErrorKind::NotFound) => sheet.pass(Step::Head, "allowed"),
        Err(error) => told(Step::Head, &error, about, sheet),
    }
    // One byte of a stranger's object, all of ours.
    let span = written.is_none().then_some(0..1);
    let fetch = || async {
        let answer = scratch.store().get(key, span.clone(), None).await?;
        answer
            .stream
            .try_fold(Vec::new(), |mut all, bytes| async move {
                all.extend_from_slice(&bytes);
                Ok(all)
            })
            .await
    };
    match (scratch.ask(fetch).await, written) {
        (Ok(bytes), Some(written)) if bytes != written.body.bytes => {
            let what = "what was read is not what was written";
            sheet.fail(Step::Get, what, "something between here and the store changes answers: a proxy or a cache that must let S3 pass");
        }
        (Ok(_), _) => sheet.pass(Step::Get, "allowed"),
        (Err(error), _) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::InvalidRange | ErrorKind::Archived) => {
            sheet.pass(Step::Get, "allowed")
        }
        (Err(error), _) => told(Step::Get, &error, about, sheet),
    }
}

async fn copy(scratch: &Scratch, written: &Written, about: &About, sheet: &mut Sheet<'_>) {
    match scratch.copy(&written.version, &scratch.key("copy")).await {
        Ok(_) => sheet.pass(Step::Copy, "allowed"),
        Err(error) => told(Step::Copy, &error, about, sheet),
    }
}

async fn multipart(scratch: &Scratch, about: &About, sheet: &mut Sheet<'_>) {
    let key = scratch.key("multipart");
    let body = Body::new("one part\n");
    let send = async {
        let id = scratch.create(&key).await?;
        let part = scratch.part(&key, &id, &body).await?;
        scratch.complete(&key, &id, &part, &Condition::Any).await
    };
    match within(send).await {
        Ok(_) => sheet.pass(Step::Multipart, "allowed"),
        Err(error) => told(Step::Multipart, &error, about, sheet),
    }
}

/// What a mount needs to find and end the uploads that a crash left.
async fn uploads(scratch: &Scratch, about: &About, sheet: &mut Sheet<'_>) {
    if sheet.outcome(Step::Multipart) != Some(Outcome::Passed) {
        return sheet.skip(Step::Uploads, "there is no upload to abort");
    }
    let key = scratch.key("aborted");
    let send = async {
        let id = scratch.create(&key).await?;
        // First the listing, so that its failure is told though the upload can be aborted.
        let listed = scratch.ask(|| scratch.store().list_uploads()).await;
        scratch.abort(&key, &id).await?;
        listed.map(|_| ())
    };
    match within(send).await {
        Ok(()) => sheet.pass(Step::Uploads, "allowed"),
        Err(error) => told(Step::Uploads, &error, about, sheet),
    }
}

/// Takes the throw-away keys away, which is the test of the right to delete. Once is enough.
pub async fn clean(scratch: &Scratch, about: &About, sheet: &mut Sheet<'_>) {
    if sheet.outcome(Step::Delete).is_some() {
        return;
    }
    let Cleaned { left, error, gone } = scratch.clean().await;
    let left: Vec<String> = left.into_iter().map(|key| format!("{}{key}", about.prefix)).collect();
    match error {
        Some(error) => {
            let found = cause(Step::Delete, &error, about);
            let what = format!("{}; {} throw-away keys are left behind, see below", found.what, left.len());
            sheet.fail(Step::Delete, what, found.fix);
        }
        None if !left.is_empty() => {
            let what = format!("{} throw-away keys are still listed after they were deleted, see below", left.len());
            sheet.warn(Step::Delete, what, "look again in a minute, and delete by hand what is still there");
        }
        None if gone == 0 => nothing_to_delete(scratch, about, sheet).await,
        None => sheet.pass(Step::Delete, format!("allowed; all {gone} throw-away keys and uploads are gone")),
    }
    scratch.leave(left);
}

/// Deleting what isn't there takes the right, too.
async fn nothing_to_delete(scratch: &Scratch, about: &About, sheet: &mut Sheet<'_>) {
    let key = scratch.key(OBJECT);
    match scratch.ask(|| scratch.store().delete(&key)).await {
        Ok(()) => sheet.pass(Step::Delete, "allowed; no throw-away key was made"),
        Err(error) => told(Step::Delete, &error, about, sheet),
    }
}

fn told(step: Step, error: &StoreError, about: &About, sheet: &mut Sheet<'_>) {
    let found = cause(step, error, about);
    sheet.fail(step, found.what, found.fix);
}
