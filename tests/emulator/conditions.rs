//! Conditional writes, alone and against each other.

use futures::future::join_all;

use crate::{BUCKET, put, refusal, refused, start};

#[tokio::test]
async fn conditions_of_a_put() {
    let (_emulator, s3) = start().await;
    let write = || s3.put_object().bucket(BUCKET).key("a").body(b"x".to_vec().into());
    assert_eq!(refusal(write().if_match("\"any\"").send().await), refused(404, "NoSuchKey"));
    let etag = write().if_none_match("*").send().await.unwrap().e_tag.unwrap();
    assert_eq!(refusal(write().if_none_match("*").send().await), refused(412, "PreconditionFailed"));
    assert_eq!(refusal(write().if_none_match(&etag).send().await), refused(412, "PreconditionFailed"));
    assert_eq!(refusal(write().if_match("\"stale\"").send().await), refused(412, "PreconditionFailed"));
    write().if_match(&etag).send().await.unwrap();
    write().if_match("*").send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_eight_creators_one_wins() {
    let (_emulator, s3) = start().await;
    for round in 0..6 {
        let key = format!("race/{round}");
        let writers = (0..8).map(|writer| {
            let body = format!("{writer}").repeat(10_000);
            s3.put_object().bucket(BUCKET).key(&key).body(body.into_bytes().into()).if_none_match("*").send()
        });
        let results = join_all(writers).await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        for lost in results.into_iter().filter(|result| result.is_err()) {
            assert_eq!(refusal(lost), refused(412, "PreconditionFailed"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_eight_replacers_one_wins() {
    let (_emulator, s3) = start().await;
    let etag = put(&s3, "a", "old").await;
    let writers = (0..8).map(|writer| {
        let body = format!("new {writer}").into_bytes();
        s3.put_object().bucket(BUCKET).key("a").body(body.into()).if_match(&etag).send()
    });
    assert_eq!(join_all(writers).await.iter().filter(|result| result.is_ok()).count(), 1);
}
