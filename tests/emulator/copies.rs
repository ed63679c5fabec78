//! Copies on the server's side: whole objects and ranges into parts.

use aws_sdk_s3::types::{CompletedPart, MetadataDirective};

use crate::multipart::{PART, begin, complete, part};
use crate::{BUCKET, put, refusal, refused, start};

#[tokio::test]
async fn a_copy_keeps_or_replaces_headers() {
    let (emulator, s3) = start().await;
    let etag = s3.put_object().bucket(BUCKET).key("from \u{e9}+").body(b"x".to_vec().into()).content_type("text/css").metadata("mode", "1");
    let etag = etag.send().await.unwrap().e_tag.unwrap();
    let copy = |to: &str| s3.copy_object().bucket(BUCKET).key(to).copy_source(format!("{BUCKET}/from%20%C3%A9%2B"));
    let kept = copy("kept").copy_source_if_match(&etag).send().await.unwrap();
    assert_eq!(kept.copy_object_result().unwrap().e_tag(), Some(&*etag));
    let replaced = copy("replaced").metadata_directive(MetadataDirective::Replace).content_type("text/html").metadata("gid", "2");
    replaced.send().await.unwrap();
    let headers = |key: &str| emulator.object(BUCKET, key).unwrap().headers;
    assert_eq!((headers("kept").content_type.as_deref(), headers("kept").metadata.len()), (Some("text/css"), 1));
    assert_eq!(
        (headers("replaced").content_type.as_deref(), headers("replaced").metadata.contains_key("mode")),
        (Some("text/html"), false)
    );

    assert_eq!(refusal(copy("kept").copy_source_if_match("\"stale\"").send().await), refused(412, "PreconditionFailed"));
    assert_eq!(refusal(copy("kept").copy_source_if_none_match(&etag).send().await), refused(412, "PreconditionFailed"));
    assert_eq!(refusal(copy("kept").if_none_match("*").send().await), refused(412, "PreconditionFailed"));
    let missing = s3.copy_object().bucket(BUCKET).key("b").copy_source(format!("{BUCKET}/missing")).send().await;
    assert_eq!(refusal(missing), refused(404, "NoSuchKey"));
}

#[tokio::test]
async fn a_copy_onto_itself_must_change_something() {
    let (emulator, s3) = start().await;
    let etag = put(&s3, "a", "x").await;
    let copy = || s3.copy_object().bucket(BUCKET).key("a").copy_source(format!("{BUCKET}/a"));
    assert_eq!(refusal(copy().send().await), refused(400, "InvalidRequest"));
    let changed = copy().metadata_directive(MetadataDirective::Replace).metadata("mode", "33188").send().await.unwrap();
    assert_eq!(changed.copy_object_result().unwrap().e_tag(), Some(&*etag));
    assert_eq!(emulator.object(BUCKET, "a").unwrap().headers.metadata["mode"], "33188");
}

#[tokio::test]
async fn a_copied_multipart_object_is_a_plain_one() {
    let (emulator, s3) = start().await;
    let id = begin(&s3, "big").await;
    let one = part(&s3, "big", &id, 1, b"hello".to_vec()).await;
    let composed = complete(&s3, "big", &id, vec![one]).send().await.unwrap().e_tag.unwrap();
    let copy = |to: &str| s3.copy_object().bucket(BUCKET).key(to).copy_source(format!("{BUCKET}/big"));
    let plain = copy("other").send().await.unwrap();
    assert_eq!(plain.copy_object_result().unwrap().e_tag(), Some("\"5d41402abc4b2a76b9719d911017c592\""));
    let same = copy("big").metadata_directive(MetadataDirective::Replace).send().await.unwrap();
    assert_eq!(same.copy_object_result().unwrap().e_tag(), Some(&*composed));
    s3.delete_object().bucket(BUCKET).key("big").send().await.unwrap();
    assert_eq!(&*emulator.object(BUCKET, "other").unwrap().body, b"hello");
}

#[tokio::test]
async fn parts_from_ranges() {
    let (emulator, s3) = start().await;
    let source: Vec<u8> = (0..PART + 100).map(|n| (n % 251) as u8).collect();
    let etag = s3.put_object().bucket(BUCKET).key("src").body(source.clone().into()).send().await.unwrap().e_tag.unwrap();
    let id = begin(&s3, "dst").await;
    let copy = |number: i32, range: &str| {
        let request = s3.upload_part_copy().bucket(BUCKET).key("dst").upload_id(&id).part_number(number);
        request.copy_source(format!("{BUCKET}/src")).copy_source_range(range)
    };
    let copied = copy(1, &format!("bytes=50-{}", PART + 49)).copy_source_if_match(&etag).send().await.unwrap();
    let first = CompletedPart::builder().part_number(1).e_tag(copied.copy_part_result().unwrap().e_tag().unwrap()).build();
    let last = part(&s3, "dst", &id, 2, b"tail".to_vec()).await;
    assert_eq!(refusal(copy(3, "bytes=0-99999999").send().await), refused(416, "InvalidRange"));
    assert_eq!(refusal(copy(3, "bytes=0-").send().await), refused(400, "InvalidArgument"));
    assert_eq!(refusal(copy(3, "bytes=0-9").copy_source_if_match("\"stale\"").send().await), refused(412, "PreconditionFailed"));
    complete(&s3, "dst", &id, vec![first, last]).send().await.unwrap();
    let body = emulator.object(BUCKET, "dst").unwrap().body;
    assert_eq!((&body[..PART], &body[PART..]), (&source[50..PART + 50], &b"tail"[..]));
}
