//! R2 mode: each rule that MinIO would not enforce.

use std::time::Duration;

use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::types::{ChecksumAlgorithm, MetadataDirective, ObjectCannedAcl, ServerSideEncryption, StorageClass};

use crate::multipart::{PART, begin, complete, part};
use crate::{BUCKET, client, put, refusal, refused, start_r2};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn one_write_a_second_a_key() {
    let (emulator, s3) = start_r2().await;
    let write = |key: &str| s3.put_object().bucket(BUCKET).key(key).body(b"x".to_vec().into()).send();
    write("a").await.unwrap();
    write("b").await.unwrap();
    assert_eq!(refusal(write("a").await), refused(429, "TooManyRequests"));
    let copy = || s3.copy_object().bucket(BUCKET).key("a").copy_source(format!("{BUCKET}/b")).send();
    assert_eq!(refusal(copy().await), refused(429, "TooManyRequests"));
    let id = begin(&s3, "a").await;
    let one = part(&s3, "a", &id, 1, b"x".to_vec()).await;
    assert_eq!(refusal(complete(&s3, "a", &id, vec![one.clone()]).send().await), refused(429, "TooManyRequests"));
    emulator.pass_time(SECOND);
    complete(&s3, "a", &id, vec![one]).send().await.unwrap();
    emulator.pass_time(SECOND);
    copy().await.unwrap();
    s3.delete_object().bucket(BUCKET).key("a").send().await.unwrap();
}

#[tokio::test]
async fn two_spellings_are_one_key() {
    let (emulator, s3) = start_r2().await;
    put(&s3, "caf\u{e9}/1", "composed").await;
    emulator.pass_time(SECOND);
    put(&s3, "cafe\u{301}/1", "decomposed").await;
    assert_eq!(emulator.keys(BUCKET), ["cafe\u{301}/1"]);
    let got = s3.get_object().bucket(BUCKET).key("caf\u{e9}/1").send().await.unwrap();
    assert_eq!(got.body.collect().await.unwrap().to_vec(), b"decomposed");
    let listed = s3.list_objects_v2().bucket(BUCKET).prefix("caf\u{e9}").send().await.unwrap();
    assert_eq!(listed.contents()[0].key(), Some("cafe\u{301}/1"));
    let taken = s3.put_object().bucket(BUCKET).key("caf\u{e9}/1").body(vec![].into()).if_none_match("*").send().await;
    assert_eq!(refusal(taken), refused(412, "PreconditionFailed"));
}

#[tokio::test]
async fn parts_are_equal_but_for_the_last() {
    let (emulator, s3) = start_r2().await;
    let id = begin(&s3, "a").await;
    let small = part(&s3, "a", &id, 1, vec![1; PART]).await;
    let large = part(&s3, "a", &id, 2, vec![2; PART + 1]).await;
    let last = part(&s3, "a", &id, 3, vec![3; 7]).await;
    let complete =
        |parts: &[&aws_sdk_s3::types::CompletedPart]| complete(&s3, "a", &id, parts.iter().map(|&part| part.clone()).collect()).send();
    assert_eq!(refusal(complete(&[&small, &large, &last]).await), refused(400, "InvalidPart"));
    assert_eq!(refusal(complete(&[&small, &large]).await), refused(400, "InvalidPart"));
    // The order of the list doesn't matter.
    complete(&[&last, &small]).await.unwrap();
    assert_eq!(emulator.object(BUCKET, "a").unwrap().body.len(), PART + 7);
}

#[tokio::test]
async fn a_failed_condition_takes_the_upload_with_it() {
    let (emulator, s3) = start_r2().await;
    put(&s3, "a", "there").await;
    emulator.pass_time(SECOND);
    let id = begin(&s3, "a").await;
    let one = part(&s3, "a", &id, 1, b"x".to_vec()).await;
    let taken = complete(&s3, "a", &id, vec![one.clone()]).if_none_match("*").send().await;
    assert_eq!(refusal(taken), refused(412, "PreconditionFailed"));
    assert!(emulator.uploads(BUCKET).is_empty());
    assert_eq!(refusal(complete(&s3, "a", &id, vec![one]).send().await), refused(404, "NoSuchUpload"));
}

#[tokio::test]
async fn features_that_r2_lacks() {
    let (emulator, s3) = start_r2().await;
    let write = || s3.put_object().bucket(BUCKET).key("a").body(b"x".to_vec().into());
    let not_implemented = refused(501, "NotImplemented");
    assert_eq!(refusal(write().acl(ObjectCannedAcl::Private).send().await), not_implemented);
    assert_eq!(refusal(write().tagging("a=b").send().await), not_implemented);
    assert_eq!(refusal(write().server_side_encryption(ServerSideEncryption::AwsKms).send().await), not_implemented);
    assert_eq!(refusal(write().storage_class(StorageClass::Glacier).send().await), refused(400, "InvalidStorageClass"));
    write().storage_class(StorageClass::StandardIa).send().await.unwrap();
    assert_eq!(refusal(s3.get_object_tagging().bucket(BUCKET).key("a").send().await), not_implemented);

    let id = begin(&s3, "b").await;
    let copy = s3.upload_part_copy().bucket(BUCKET).key("b").upload_id(&id).part_number(1).copy_source(format!("{BUCKET}/a"));
    assert_eq!(refusal(copy.clone().copy_source_if_match("\"x\"").send().await), not_implemented);
    copy.send().await.unwrap();

    // What the SDK does by itself unless told not to: a checksum in a trailer, so a chunked body.
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), "from a file").unwrap();
    let chunked = s3_with_checksums(&emulator).put_object().bucket(BUCKET).key("c").checksum_algorithm(ChecksumAlgorithm::Crc32);
    let body = aws_sdk_s3::primitives::ByteStream::from_path(path.path()).await.unwrap();
    assert_eq!(refusal(chunked.body(body).send().await), not_implemented);
    assert_eq!(emulator.keys(BUCKET), ["a"]);
}

fn s3_with_checksums(emulator: &mediafs::emulator::Emulator) -> aws_sdk_s3::Client {
    let base = client(&emulator.endpoint(), "mediafs", "mediafs-secret", "auto");
    let config = base.config().to_builder().request_checksum_calculation(RequestChecksumCalculation::WhenSupported).build();
    aws_sdk_s3::Client::from_conf(config)
}

#[tokio::test]
async fn bucket_calls_need_more_than_an_object_token() {
    let (_emulator, s3) = start_r2().await;
    assert_eq!(refusal(s3.head_bucket().bucket(BUCKET).send().await).0, 403);
    let denied = refused(403, "AccessDenied");
    assert_eq!(refusal(s3.list_buckets().send().await), denied);
    assert_eq!(refusal(s3.create_bucket().bucket("other").send().await), denied);
    assert_eq!(refusal(s3.get_bucket_location().bucket(BUCKET).send().await), denied);
    s3.list_objects_v2().bucket(BUCKET).max_keys(1).send().await.unwrap();
    s3.list_multipart_uploads().bucket(BUCKET).send().await.unwrap();
}

#[tokio::test]
async fn regions_and_keys() {
    let (emulator, _s3) = start_r2().await;
    let list = |access, region| client(&emulator.endpoint(), access, "mediafs-secret", region).list_objects_v2().bucket(BUCKET).send();
    assert!(list("mediafs", "auto").await.is_ok());
    assert!(list("mediafs", "us-east-1").await.is_ok());
    assert!(list("mediafs", "").await.is_ok());
    assert_eq!(refusal(list("mediafs", "eu-central-1").await), refused(400, "InvalidRegionName"));
    assert_eq!(refusal(list("nobody", "auto").await), refused(401, "Unauthorized"));
}

#[tokio::test]
async fn metadata_may_be_larger() {
    let (emulator, s3) = start_r2().await;
    let put = |size: usize| s3.put_object().bucket(BUCKET).key("a").body(vec![].into()).metadata("m", "x".repeat(size)).send();
    assert!(put(8191).await.is_ok());
    emulator.pass_time(SECOND);
    assert_eq!(refusal(put(8192).await), refused(400, "MetadataTooLarge"));
}

#[tokio::test]
async fn copies_have_their_own_conditions_and_merge() {
    let (emulator, s3) = start_r2().await;
    s3.put_object().bucket(BUCKET).key("a").body(vec![].into()).content_type("text/css").metadata("mode", "1").send().await.unwrap();
    put(&s3, "b", "there").await;
    emulator.pass_time(SECOND);
    let copy = |to: &str| s3.copy_object().bucket(BUCKET).key(to).copy_source(format!("{BUCKET}/a"));
    let guarded = copy("b").customize().mutate_request(|request| {
        request.headers_mut().insert("cf-copy-destination-if-none-match", "*");
    });
    assert_eq!(refusal(guarded.send().await), refused(412, "PreconditionFailed"));
    copy("a").metadata_directive(MetadataDirective::from("MERGE")).metadata("gid", "2").send().await.unwrap();
    let headers = emulator.object(BUCKET, "a").unwrap().headers;
    assert_eq!((headers.content_type.as_deref(), headers.metadata.len()), (Some("text/css"), 2));
}
