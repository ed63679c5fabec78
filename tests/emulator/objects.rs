//! Single objects: headers, ranges, conditions of reads, deletes, signatures, odd keys.

use std::time::Duration;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use mediafs::types::ETag;

use crate::{BUCKET, client, config, put, refusal, refused, start, start_with};

async fn body(output: GetObjectOutput) -> Vec<u8> {
    output.body.collect().await.unwrap().to_vec()
}

#[tokio::test]
async fn an_object_comes_back_with_its_headers() {
    let (emulator, s3) = start().await;
    let request = s3.put_object().bucket(BUCKET).key("a/photo.jpg").body(b"bytes".to_vec().into());
    let request = request.content_type("image/jpeg").cache_control("max-age=60").content_disposition("inline");
    let request = request.content_encoding("gzip").content_language("de").metadata("mode", "33188").metadata("name", "caf\u{e9}");
    let etag = request.send().await.unwrap().e_tag.unwrap();
    assert_eq!(etag, "\"4b3a6218bb3e3a7303e8a171a60fcf92\"");

    let head = s3.head_object().bucket(BUCKET).key("a/photo.jpg").send().await.unwrap();
    assert_eq!(head.content_length(), Some(5));
    assert_eq!(head.e_tag(), Some(&*etag));
    let got = s3.get_object().bucket(BUCKET).key("a/photo.jpg").send().await.unwrap();
    assert_eq!(got.content_type(), Some("image/jpeg"));
    assert_eq!(got.cache_control(), Some("max-age=60"));
    assert_eq!(got.content_disposition(), Some("inline"));
    assert_eq!(got.content_encoding(), Some("gzip"));
    assert_eq!(got.content_language(), Some("de"));
    assert_eq!(got.last_modified(), head.last_modified());
    assert_eq!(got.metadata().unwrap()["mode"], "33188");
    // Not ASCII comes back by RFC 2047, as from MinIO and R2.
    assert_eq!(got.metadata().unwrap()["name"], "=?UTF-8?B?Y2Fmw6k=?=");
    assert_eq!(body(got).await, b"bytes");

    let stored = emulator.object(BUCKET, "a/photo.jpg").unwrap();
    assert_eq!((&*stored.body, stored.etag, &*stored.headers.metadata["name"]), (&b"bytes"[..], ETag::new(&etag), "caf\u{e9}"));
    assert_eq!(refusal(s3.get_object().bucket(BUCKET).key("b").send().await), refused(404, "NoSuchKey"));
    assert_eq!(refusal(s3.head_object().bucket(BUCKET).key("b").send().await).0, 404);
    assert_eq!(refusal(s3.get_object().bucket("other").key("b").send().await), refused(404, "NoSuchBucket"));
}

#[tokio::test]
async fn ranges() {
    let (_emulator, s3) = start().await;
    put(&s3, "ten", "0123456789").await;
    put(&s3, "empty", "").await;
    let get = |key: &str, range: &str| s3.get_object().bucket(BUCKET).key(key).range(range).send();
    for (range, content_range, expected) in [
        ("bytes=0-0", "bytes 0-0/10", "0"),
        ("bytes=5-", "bytes 5-9/10", "56789"),
        ("bytes=-3", "bytes 7-9/10", "789"),
        ("bytes=-99", "bytes 0-9/10", "0123456789"),
        ("bytes=8-100", "bytes 8-9/10", "89"),
    ] {
        let got = get("ten", range).await.unwrap();
        assert_eq!(got.content_range(), Some(content_range), "{range}");
        assert_eq!(body(got).await, expected.as_bytes(), "{range}");
    }
    for (key, range) in [("ten", "bytes=10-"), ("ten", "bytes=10-20"), ("ten", "bytes=-0"), ("empty", "bytes=0-0"), ("empty", "bytes=-1")] {
        assert_eq!(refusal(get(key, range).await), refused(416, "InvalidRange"), "{key} {range}");
    }
    assert_eq!(body(s3.get_object().bucket(BUCKET).key("empty").send().await.unwrap()).await, b"");
    let head = s3.head_object().bucket(BUCKET).key("ten").range("bytes=2-3").send().await.unwrap();
    assert_eq!((head.content_length(), head.content_range()), (Some(2), Some("bytes 2-3/10")));
}

#[tokio::test]
async fn conditional_reads() {
    let (_emulator, s3) = start().await;
    let etag = put(&s3, "a", "one").await;
    let get = || s3.get_object().bucket(BUCKET).key("a");
    let past = DateTime::from(mediafs::clock::now() - Duration::from_secs(3600));
    assert!(get().if_match(&etag).send().await.is_ok());
    assert_eq!(refusal(get().if_match("\"other\"").send().await), refused(412, "PreconditionFailed"));
    assert_eq!(refusal(get().if_none_match(&etag).send().await).0, 304);
    assert!(get().if_none_match("\"other\"").send().await.is_ok());
    assert!(get().if_modified_since(past).send().await.is_ok());
    assert_eq!(refusal(get().if_unmodified_since(past).send().await), refused(412, "PreconditionFailed"));
    let missing = s3.get_object().bucket(BUCKET).key("b").if_match(&etag).send().await;
    assert_eq!(refusal(missing), refused(404, "NoSuchKey"));
    assert_eq!(refusal(s3.head_object().bucket(BUCKET).key("a").if_match("\"other\"").send().await).0, 412);
}

#[tokio::test]
async fn a_body_is_checked_against_its_md5() {
    let (emulator, s3) = start().await;
    let put = |md5: &str| s3.put_object().bucket(BUCKET).key("a").body(b"bytes".to_vec().into()).content_md5(md5).send();
    assert_eq!(refusal(put("AAAAAAAAAAAAAAAAAAAAAA==").await), refused(400, "BadDigest"));
    assert_eq!(refusal(put("AAAA").await), refused(400, "InvalidDigest"));
    assert_eq!(emulator.keys(BUCKET), [""; 0]);
    put("SzpiGLs+OnMD6KFxpg/Pkg==").await.unwrap();
}

#[tokio::test]
async fn deletes() {
    let (emulator, s3) = start().await;
    for key in ["a", "b", "c", "d"] {
        put(&s3, key, "x").await;
    }
    s3.delete_object().bucket(BUCKET).key("a").send().await.unwrap();
    s3.delete_object().bucket(BUCKET).key("a").send().await.unwrap();
    let stale = s3.delete_object().bucket(BUCKET).key("b").if_match("\"other\"").send().await;
    assert_eq!(refusal(stale), refused(412, "PreconditionFailed"));
    let many = |keys: Vec<String>| {
        let objects = keys.into_iter().map(|key| ObjectIdentifier::builder().key(key).build().unwrap()).collect();
        s3.delete_objects().bucket(BUCKET).delete(Delete::builder().set_objects(Some(objects)).build().unwrap()).send()
    };
    let deleted = many(vec!["b".into(), "c".into(), "missing".into()]).await.unwrap();
    assert_eq!(deleted.deleted().len(), 3);
    assert_eq!(emulator.keys(BUCKET), ["d"]);
    assert!(many((0..1000).map(|n| n.to_string()).collect()).await.is_ok());
    assert_eq!(refusal(many((0..1001).map(|n| n.to_string()).collect()).await), refused(400, "MalformedXML"));
    put(&s3, "\u{1}", "x").await;
    assert_eq!(refusal(many(vec!["d".into(), "\u{1}".into()]).await), refused(400, "MalformedXML"));
    assert_eq!(emulator.keys(BUCKET), ["\u{1}", "d"]);
    assert_eq!(emulator.counts()["DeleteObject"], 3);
    assert_eq!(emulator.counts()["DeleteObjects"], 4);
    emulator.reset_counts();
    assert!(emulator.counts().is_empty());
}

#[tokio::test]
async fn keys_are_flat_and_any_text() {
    let (emulator, s3) = start().await;
    let long_component = "c".repeat(300);
    let longest = "k".repeat(1024);
    let mut keys = vec![
        "a",
        "a/",
        "a/b",
        "a//b",
        "//",
        "/lead",
        "..",
        "a/../b",
        "./x",
        " a ",
        "a b+c%20d",
        "e\u{301}",
        "\u{e9}",
        "\u{1}\t\n\r",
        "?#&<>\"'\\:*|",
        "\u{1f3ac}",
        &long_component,
        &longest,
    ];
    for key in &keys {
        let put = s3.put_object().bucket(BUCKET).key(*key).body(key.as_bytes().to_vec().into()).send().await;
        assert!(put.is_ok(), "{key:?}: {put:?}");
    }
    for key in &keys {
        let got = s3.get_object().bucket(BUCKET).key(*key).send().await.unwrap();
        assert_eq!(body(got).await, key.as_bytes(), "{key:?}");
    }
    keys.sort_unstable();
    assert_eq!(emulator.keys(BUCKET), keys);
    let too_long = s3.put_object().bucket(BUCKET).key("k".repeat(1025)).body(vec![].into()).send().await;
    assert_eq!(refusal(too_long), refused(400, "KeyTooLongError"));
}

#[tokio::test]
async fn metadata_has_a_limit() {
    let (_emulator, s3) = start().await;
    let put = |size: usize| s3.put_object().bucket(BUCKET).key("a").body(vec![].into()).metadata("m", "x".repeat(size)).send();
    assert!(put(2047).await.is_ok());
    assert_eq!(refusal(put(2048).await), refused(400, "MetadataTooLarge"));
}

#[tokio::test]
async fn signatures_are_checked() {
    let (emulator, s3) = start_with(mediafs::emulator::EmulatorConfig { region: Some("eu-1".into()), ..config() }).await;
    let with = |access, secret, region| client(&emulator.endpoint(), access, secret, region).head_bucket().bucket(BUCKET).send();
    assert!(with("mediafs", "mediafs-secret", "eu-1").await.is_ok());
    assert_eq!(refusal(with("mediafs", "wrong", "eu-1").await).0, 403);
    assert_eq!(refusal(with("nobody", "wrong", "eu-1").await).0, 403);
    assert_eq!(refusal(with("mediafs", "mediafs-secret", "us-1").await).0, 400);
    let listed = s3.list_objects_v2().bucket(BUCKET).send().await;
    assert_eq!(refusal(listed), refused(400, "AuthorizationHeaderMalformed"));
    let other = client(&emulator.endpoint(), "nobody", "x", "eu-1");
    assert_eq!(refusal(other.list_objects_v2().bucket(BUCKET).send().await), refused(403, "InvalidAccessKeyId"));
    let other = client(&emulator.endpoint(), "mediafs", "x", "eu-1");
    assert_eq!(refusal(other.list_objects_v2().bucket(BUCKET).send().await), refused(403, "SignatureDoesNotMatch"));
}

#[tokio::test]
async fn a_presigned_url_needs_no_other_signature() {
    let (emulator, s3) = start().await;
    put(&s3, "a b/\u{e9}", "hello").await;
    let expires = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
    let signed = s3.get_object().bucket(BUCKET).key("a b/\u{e9}").presigned(expires).await.unwrap();
    let target = signed.uri().strip_prefix(&emulator.endpoint()).unwrap();
    assert!(crate::faults::raw(&emulator, &format!("GET {target} HTTP/1.1")).await.ends_with("\r\n\r\nhello"));
    let bare = target.split('?').next().unwrap();
    assert!(crate::faults::raw(&emulator, &format!("GET {bare} HTTP/1.1")).await.starts_with("HTTP/1.1 403"));
}

#[tokio::test]
async fn buckets() {
    let (_emulator, s3) = start().await;
    s3.create_bucket().bucket("second").send().await.unwrap();
    assert_eq!(refusal(s3.create_bucket().bucket("second").send().await), refused(409, "BucketAlreadyOwnedByYou"));
    let listed = s3.list_buckets().send().await.unwrap();
    let names: Vec<&str> = listed.buckets().iter().filter_map(|bucket| bucket.name()).collect();
    assert_eq!(names, [BUCKET, "second"]);
    s3.head_bucket().bucket("second").send().await.unwrap();
    s3.get_bucket_location().bucket("second").send().await.unwrap();
    s3.delete_bucket().bucket("second").send().await.unwrap();
    assert_eq!(refusal(s3.head_bucket().bucket("second").send().await).0, 404);
}
