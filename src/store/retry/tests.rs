//! Retrying over the in-memory bucket with injected faults, on tokio's paused clock.

use std::sync::Arc;

use futures::TryStreamExt;
use tokio::time::Instant;

use super::*;
use crate::store::Operation;
use crate::store::fault::{Fault, FaultStore, Faults, Rule, When};
use crate::store::memory::MemoryStore;
use crate::store::trace::{RequestCounts, TraceStore};

struct World {
    bucket: Arc<MemoryStore>,
    faults: Faults,
    counts: RequestCounts,
    store: RetryStore,
}

fn world(policy: RetryPolicy) -> World {
    let bucket = Arc::new(MemoryStore::new().with_min_part_bytes(1));
    let (faults, counts) = (Faults::new(1), RequestCounts::new());
    let faulty = Arc::new(FaultStore::new(bucket.clone(), faults.clone()));
    let store = RetryStore::new(Arc::new(TraceStore::new(faulty, counts.clone())), policy);
    World { bucket, faults, counts, store }
}

fn key() -> Key {
    Key::from("dir/k")
}

impl World {
    async fn put(&self, bytes: &[u8], condition: Condition) -> Result<Receipt> {
        self.store.put(&key(), Body::new(bytes.to_vec()), &ObjectHeaders::default(), &condition).await
    }

    async fn read(&self, span: Option<Span>) -> Result<Vec<u8>> {
        let body = self.store.get(&key(), span, None).await?;
        body.stream
            .try_fold(Vec::new(), |mut all, chunk| async move {
                all.extend(chunk);
                Ok(all)
            })
            .await
    }

    async fn upload(&self) -> (UploadId, Vec<Part>) {
        let id = self.store.create_upload(&key(), &ObjectHeaders::default()).await.unwrap();
        let mut parts = Vec::new();
        for (number, bytes) in [(1, "first"), (2, "second")] {
            parts.push(self.store.upload_part(&key(), &id, number, Body::new(bytes)).await.unwrap());
        }
        (id, parts)
    }
}

fn noise() -> Vec<u8> {
    (0..300_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[tokio::test(start_paused = true)]
async fn transient_failures_are_repeated_until_it_works() {
    let world = world(RetryPolicy::default());
    let kinds = [ErrorKind::Throttled, ErrorKind::Unavailable, ErrorKind::Unreachable, ErrorKind::Timeout, ErrorKind::Corrupt];
    // Each rule counts only what the rules before it let pass.
    for kind in kinds {
        world.faults.add(Rule::on(Operation::PutObject).when(When::First(1)).fault(Fault::Error(kind)));
    }
    assert_eq!(world.put(b"x", Condition::Any).await.unwrap().size(), 1);
    assert_eq!(world.counts.of(Operation::PutObject), 6);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_it_with_the_last_error() {
    let world = world(RetryPolicy::default());
    world.faults.add(Rule::on(Operation::HeadObject).fault(Fault::Error(ErrorKind::Unreachable)));
    let begun = Instant::now();
    let error = world.store.head(&key()).await.unwrap_err();
    assert!(error.is(ErrorKind::Unreachable));
    assert!((45..60).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert!((8..20).contains(&world.counts.of(Operation::HeadObject)));
}

#[tokio::test(start_paused = true)]
async fn final_errors_are_final() {
    let world = world(RetryPolicy::default());
    assert!(world.store.head(&key()).await.unwrap_err().is(ErrorKind::NotFound));
    let _ = world.put(b"x", Condition::IfAbsent).await.unwrap();
    assert!(world.put(b"x", Condition::IfAbsent).await.unwrap_err().is(ErrorKind::PreconditionFailed));
    assert_eq!(world.counts.of(Operation::HeadObject), 1, "no doubt, no HEAD, though the bytes are the same");
    world.faults.add(Rule::on(Operation::ListObjectsV2).fault(Fault::Error(ErrorKind::Denied)));
    let _ = world.store.list(&ListRequest::default()).await.unwrap_err();
    assert_eq!(world.counts.of(Operation::ListObjectsV2), 1);
}

#[tokio::test(start_paused = true)]
async fn r2_repeats_a_denial_a_few_times() {
    let world = world(RetryPolicy::r2());
    world.faults.add(Rule::on(Operation::HeadObject).fault(Fault::Error(ErrorKind::Denied)));
    assert!(world.store.head(&key()).await.unwrap_err().is(ErrorKind::Denied));
    assert_eq!(world.counts.of(Operation::HeadObject), 4);
}

#[tokio::test(start_paused = true)]
async fn the_store_is_left_alone_as_long_as_it_asks() {
    let world = world(RetryPolicy::default());
    world.faults.add(Rule::any().when(When::First(1)).fault(Fault::Throttled(Duration::from_secs(17))));
    let begun = Instant::now();
    let _ = world.put(b"x", Condition::Any).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 17);
}

#[tokio::test(start_paused = true)]
async fn a_cut_body_resumes_unseen() {
    let world = world(RetryPolicy::default());
    let bytes = noise();
    let _ = world.put(&bytes, Condition::Any).await.unwrap();
    for fault in [Fault::BodyCut(100_000), Fault::BodyShort(70_001), Fault::BodyCut(0), Fault::Error(ErrorKind::Unavailable)] {
        world.faults.add(Rule::on(Operation::GetObject).when(When::First(1)).fault(fault));
    }
    assert_eq!(world.read(None).await.unwrap(), bytes);
    assert_eq!(world.counts.of(Operation::GetObject), 5);
    world.faults.clear();
    world.faults.add(Rule::on(Operation::GetObject).when(When::First(3)).fault(Fault::BodyCut(9)));
    assert_eq!(world.read(Some(17..250_000)).await.unwrap(), bytes[17..250_000]);
    let downloaded = world.counts.bytes_down();
    assert_eq!(downloaded, 300_000 + 250_000 - 17, "no byte is asked for twice");
}

#[tokio::test(start_paused = true)]
async fn a_resumed_body_never_mixes_versions() {
    let world = world(RetryPolicy::default());
    // Too large to be held back until its end.
    let _ = world.put(&noise().repeat(4), Condition::Any).await.unwrap();
    world.faults.add(Rule::on(Operation::GetObject).when(When::First(1)).fault(Fault::BodyCut(100_000)));
    let mut stream = world.store.get(&key(), None, None).await.unwrap().stream;
    let mut got = stream.try_next().await.unwrap().unwrap().to_vec();
    let _ = world.put(&[7; 300_000], Condition::Any).await.unwrap();
    let error = loop {
        match stream.try_next().await {
            Ok(chunk) => got.extend(chunk.expect("the body can't end well")),
            Err(error) => break error,
        }
    };
    assert!(error.is(ErrorKind::PreconditionFailed));
    assert_eq!(got, noise()[..100_000]);
    assert!(stream.try_next().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_body_without_progress_is_given_up() {
    let world = world(RetryPolicy::default());
    let _ = world.put(&noise(), Condition::Any).await.unwrap();
    world.faults.add(Rule::on(Operation::GetObject).fault(Fault::BodyCut(0)));
    assert!(world.read(None).await.unwrap_err().is(ErrorKind::Truncated));
}

#[tokio::test(start_paused = true)]
async fn a_conditional_put_whose_answer_was_lost_is_recognised() {
    let world = world(RetryPolicy::default());
    world.faults.add(Rule::on(Operation::PutObject).when(When::First(1)).fault(Fault::ReplyLost));
    let first = world.put(b"one", Condition::IfAbsent).await.unwrap();
    assert_eq!((world.counts.of(Operation::PutObject), world.counts.of(Operation::HeadObject)), (2, 1));
    world.faults.add(Rule::on(Operation::PutObject).when(When::First(1)).fault(Fault::ReplyLost));
    let second = world.put(b"two", Condition::IfMatch(first.etag().clone())).await.unwrap();
    assert_eq!(world.bucket.object(&key()).unwrap().1.etag, *second.etag());
}

#[tokio::test(start_paused = true)]
async fn the_same_bytes_under_other_headers_are_not_taken_for_what_was_sent() {
    let world = world(RetryPolicy::default());
    let headers = ObjectHeaders { metadata: [("mode".to_owned(), "0100600".to_owned())].into(), ..ObjectHeaders::default() };
    let _ = world.bucket.put(&key(), Body::new("ours"), &headers, &Condition::Any).await.unwrap();
    world.faults.add(Rule::on(Operation::PutObject).when(When::First(1)).fault(Fault::RequestLost));
    let error = world.put(b"ours", Condition::IfAbsent).await.unwrap_err();
    assert!(error.is(ErrorKind::PreconditionFailed) && error.outcome_unknown);
}

#[tokio::test(start_paused = true)]
async fn doubt_does_not_excuse_a_stranger() {
    let world = world(RetryPolicy::default());
    let _ = world.bucket.put(&key(), Body::new("theirs"), &ObjectHeaders::default(), &Condition::Any).await.unwrap();
    // Nobody can say whether the first attempt did it; the second fails because of the stranger's object.
    world.faults.add(Rule::on(Operation::PutObject).when(When::First(1)).fault(Fault::RequestLost));
    let error = world.put(b"ours", Condition::IfAbsent).await.unwrap_err();
    assert_eq!(world.counts.of(Operation::HeadObject), 1);
    assert!(error.is(ErrorKind::PreconditionFailed) && !error.outcome_unknown);
}

#[tokio::test(start_paused = true)]
async fn a_complete_whose_answer_was_lost_is_recognised() {
    for condition in [Condition::Any, Condition::IfAbsent] {
        let world = world(RetryPolicy::default());
        let (id, parts) = world.upload().await;
        world.faults.add(Rule::on(Operation::CompleteMultipartUpload).when(When::First(1)).fault(Fault::ReplyLost));
        let receipt = world.store.complete_upload(&key(), &id, &parts, &condition).await.unwrap();
        assert_eq!((receipt.size(), Some(receipt.etag().clone())), (11, multipart_etag(&parts)));
    }
    let world = world(RetryPolicy::default());
    let (_, parts) = world.upload().await;
    let unknown = UploadId("99".to_owned());
    let error = world.store.complete_upload(&key(), &unknown, &parts, &Condition::Any).await.unwrap_err();
    assert!(error.is(ErrorKind::NoSuchUpload));
    assert_eq!(world.counts.of(Operation::HeadObject), 0);
}

#[tokio::test(start_paused = true)]
async fn the_same_bytes_from_an_earlier_upload_leave_none_open() {
    let world = world(RetryPolicy::default());
    let (earlier, parts) = world.upload().await;
    let made = world.store.complete_upload(&key(), &earlier, &parts, &Condition::IfAbsent).await.unwrap();
    let (id, parts) = world.upload().await;
    world.faults.add(Rule::on(Operation::CompleteMultipartUpload).when(When::First(1)).fault(Fault::RequestLost));
    world.faults.add(Rule::on(Operation::AbortMultipartUpload).when(When::First(1)).fault(Fault::RequestLost));
    let receipt = world.store.complete_upload(&key(), &id, &parts, &Condition::IfAbsent).await.unwrap();
    assert_eq!(receipt.etag(), made.etag());
    assert_eq!(world.bucket.list_uploads().await.unwrap().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_in_doubt_says_so() {
    let world = world(RetryPolicy::default());
    world.faults.add(Rule::on(Operation::PutObject).when(When::First(1)).fault(Fault::ReplyLost));
    world.faults.add(Rule::on(Operation::PutObject).fault(Fault::Error(ErrorKind::Unreachable)));
    let error = world.put(b"x", Condition::IfAbsent).await.unwrap_err();
    assert!(error.is(ErrorKind::Unreachable) && error.outcome_unknown);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_byte_of_a_small_object_is_never_delivered() {
    let world = world(RetryPolicy::default());
    let bytes = noise();
    let _ = world.put(&bytes, Condition::Any).await.unwrap();
    for at in [0, 299_999] {
        world.faults.add(Rule::on(Operation::GetObject).when(When::First(1)).fault(Fault::BodyFlip(at)));
    }
    assert_eq!(world.read(None).await.unwrap(), bytes);
    assert_eq!(world.counts.of(Operation::GetObject), 3);
    assert_eq!(world.read(Some(0..300_000)).await.unwrap(), bytes);
    world.faults.add(Rule::on(Operation::GetObject).fault(Fault::BodyFlip(5)));
    assert!(world.read(None).await.unwrap_err().is(ErrorKind::Corrupt));
}

#[tokio::test(start_paused = true)]
async fn an_upload_whose_beginning_was_not_answered_is_aborted() {
    let world = world(RetryPolicy::default());
    let theirs = world.bucket.create_upload(&"other".into(), &ObjectHeaders::default()).await.unwrap();
    world.faults.add(Rule::on(Operation::CreateMultipartUpload).when(When::First(2)).fault(Fault::ReplyLost));
    let (id, _) = world.upload().await;
    let left = |uploads: Vec<PendingUpload>| uploads.into_iter().map(|upload| upload.id).collect::<Vec<_>>();
    assert_eq!(left(world.bucket.list_uploads().await.unwrap()), [theirs.clone(), id.clone()]);
    // Given up in doubt, the next beginning sees to it.
    world.faults.clear();
    world.faults.add(Rule::on(Operation::CreateMultipartUpload).when(When::First(1)).fault(Fault::ReplyLost));
    world.faults.add(Rule::on(Operation::CreateMultipartUpload).fault(Fault::Error(ErrorKind::Unreachable)));
    assert!(world.store.create_upload(&key(), &ObjectHeaders::default()).await.unwrap_err().outcome_unknown);
    world.faults.clear();
    world.store.abort_upload(&key(), &id).await.unwrap();
    let (id, _) = world.upload().await;
    assert_eq!(left(world.bucket.list_uploads().await.unwrap()), [theirs, id]);
}

#[tokio::test(start_paused = true)]
async fn a_beginning_that_may_have_left_another_has_failed_in_doubt() {
    let world = world(RetryPolicy::default());
    let begin = || async {
        world.faults.add(Rule::on(Operation::CreateMultipartUpload).when(When::First(1)).fault(Fault::ReplyLost));
        world.store.create_upload(&key(), &ObjectHeaders::default()).await
    };
    world.faults.add(Rule::on(Operation::ListMultipartUploads).fault(Fault::Error(ErrorKind::Unreachable)));
    let error = begin().await.unwrap_err();
    assert!(error.is(ErrorKind::Unreachable) && error.outcome_unknown);
    world.faults.clear();
    world.faults.add(Rule::on(Operation::ListMultipartUploads).fault(Fault::Error(ErrorKind::Denied)));
    assert!(begin().await.is_ok(), "who may not list can upload");
}
