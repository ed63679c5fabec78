//! Multipart uploads from begin to end.

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::complete_multipart_upload::builders::CompleteMultipartUploadFluentBuilder;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};

use crate::{BUCKET, put, refusal, refused, start};

pub const PART: usize = 5 << 20;

pub async fn begin(s3: &Client, key: &str) -> String {
    let created = s3.create_multipart_upload().bucket(BUCKET).key(key).content_type("video/mp4").metadata("mode", "1").send().await;
    created.unwrap().upload_id.unwrap()
}

pub async fn part(s3: &Client, key: &str, id: &str, number: i32, body: Vec<u8>) -> CompletedPart {
    let sent = s3.upload_part().bucket(BUCKET).key(key).upload_id(id).part_number(number).body(body.into()).send().await.unwrap();
    CompletedPart::builder().part_number(number).e_tag(sent.e_tag.unwrap()).build()
}

pub fn complete(s3: &Client, key: &str, id: &str, parts: Vec<CompletedPart>) -> CompleteMultipartUploadFluentBuilder {
    let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
    s3.complete_multipart_upload().bucket(BUCKET).key(key).upload_id(id).multipart_upload(parts)
}

#[tokio::test]
async fn parts_become_one_object() {
    let (emulator, s3) = start().await;
    let id = begin(&s3, "big").await;
    let replaced = part(&s3, "big", &id, 1, vec![0; PART]).await;
    let one = part(&s3, "big", &id, 1, vec![1; PART]).await;
    let three = part(&s3, "big", &id, 3, b"end".to_vec()).await;
    assert_eq!(emulator.keys(BUCKET), [""; 0]);
    assert_eq!(emulator.uploads(BUCKET)[0].parts, [(1, PART as u64), (3, 3)].into());
    let listed = s3.list_parts().bucket(BUCKET).key("big").upload_id(&id).max_parts(1).send().await.unwrap();
    assert_eq!((listed.parts().len(), listed.is_truncated(), listed.next_part_number_marker()), (1, Some(true), Some("1")));
    let listed = s3.list_parts().bucket(BUCKET).key("big").upload_id(&id).part_number_marker("1").send().await.unwrap();
    assert_eq!((listed.parts()[0].part_number(), listed.is_truncated()), (Some(3), Some(false)));

    for (parts, status, code) in [
        (vec![replaced, three.clone()], 400, "InvalidPart"),
        (vec![three.clone(), one.clone()], 400, "InvalidPartOrder"),
        (vec![], 400, "MalformedXML"),
    ] {
        assert_eq!(refusal(complete(&s3, "big", &id, parts).send().await), refused(status, code));
    }
    let done = complete(&s3, "big", &id, vec![one.clone(), three.clone()]).send().await.unwrap();
    assert_eq!(done.e_tag(), Some("\"1895fd3f1fa1af269610f12d13feb801-2\""));
    assert!(emulator.uploads(BUCKET).is_empty());
    assert_eq!(refusal(complete(&s3, "big", &id, vec![one, three]).send().await), refused(404, "NoSuchUpload"));

    let stored = emulator.object(BUCKET, "big").unwrap();
    assert_eq!(
        (stored.body.len(), &stored.body[PART..], stored.headers.content_type.as_deref()),
        (PART + 3, &b"end"[..], Some("video/mp4"))
    );
    let over = s3.get_object().bucket(BUCKET).key("big").range(format!("bytes={}-{}", PART - 1, PART)).send().await.unwrap();
    assert_eq!(over.body.collect().await.unwrap().to_vec(), [1, b'e']);
    let second = s3.get_object().bucket(BUCKET).key("big").part_number(2).send().await.unwrap();
    assert_eq!((second.parts_count(), second.content_length()), (Some(2), Some(3)));
}

#[tokio::test]
async fn the_etag_is_the_md5_of_the_md5s() {
    let (_emulator, s3) = start().await;
    let id = begin(&s3, "a").await;
    let one = part(&s3, "a", &id, 1, b"hello".to_vec()).await;
    assert_eq!(one.e_tag(), Some("\"5d41402abc4b2a76b9719d911017c592\""));
    let done = complete(&s3, "a", &id, vec![one]).send().await.unwrap();
    assert_eq!(done.e_tag(), Some("\"62109206880d38a4010a98e11243924a-1\""));
}

#[tokio::test]
async fn small_parts_are_refused_and_conditions_leave_the_upload() {
    let (emulator, s3) = start().await;
    let id = begin(&s3, "a").await;
    let parts = vec![part(&s3, "a", &id, 1, vec![1; PART - 1]).await, part(&s3, "a", &id, 2, vec![2]).await];
    assert_eq!(refusal(complete(&s3, "a", &id, parts.clone()).send().await), refused(400, "EntityTooSmall"));
    put(&s3, "a", "there").await;
    let last = vec![parts[1].clone()];
    let taken = complete(&s3, "a", &id, last.clone()).if_none_match("*").send().await;
    assert_eq!(refusal(taken), refused(412, "PreconditionFailed"));
    assert_eq!(emulator.uploads(BUCKET).len(), 1);
    complete(&s3, "a", &id, last).send().await.unwrap();
    assert_eq!(&*emulator.object(BUCKET, "a").unwrap().body, [2]);
}

#[tokio::test]
async fn uploads_that_are_not_there() {
    let (_emulator, s3) = start().await;
    let upload = s3.upload_part().bucket(BUCKET).key("a").upload_id("x").part_number(1).body(vec![1; 3 << 20].into());
    assert_eq!(refusal(upload.send().await), refused(404, "NoSuchUpload"));
    s3.abort_multipart_upload().bucket(BUCKET).key("a").upload_id("x").send().await.unwrap();
    let id = begin(&s3, "a").await;
    let other_key = s3.list_parts().bucket(BUCKET).key("b").upload_id(&id).send().await;
    assert_eq!(refusal(other_key), refused(404, "NoSuchUpload"));
    let numbered = s3.upload_part().bucket(BUCKET).key("a").upload_id(&id).part_number(10_001).body(vec![].into());
    assert_eq!(refusal(numbered.send().await), refused(400, "InvalidArgument"));
    s3.abort_multipart_upload().bucket(BUCKET).key("a").upload_id(&id).send().await.unwrap();
    assert_eq!(refusal(s3.list_parts().bucket(BUCKET).key("a").upload_id(&id).send().await), refused(404, "NoSuchUpload"));
}

#[tokio::test]
async fn pending_uploads_are_listed_in_pages() {
    let (_emulator, s3) = start().await;
    let mut expected = Vec::new();
    for key in ["d/1", "d/1", "d/2", "e f"] {
        expected.push((key.to_owned(), begin(&s3, key).await));
    }
    expected.sort();
    let mut found = Vec::new();
    let (mut key, mut id) = (None, None);
    loop {
        let request = s3.list_multipart_uploads().bucket(BUCKET).max_uploads(1).set_key_marker(key).set_upload_id_marker(id);
        let page = request.send().await.unwrap();
        found.extend(page.uploads().iter().map(|upload| (upload.key().unwrap().to_owned(), upload.upload_id().unwrap().to_owned())));
        (key, id) = (page.next_key_marker().map(str::to_owned), page.next_upload_id_marker().map(str::to_owned));
        if page.is_truncated() != Some(true) {
            break;
        }
    }
    assert_eq!(found, expected);
    let list = || s3.list_multipart_uploads().bucket(BUCKET);
    assert_eq!(list().prefix("d/").send().await.unwrap().uploads().len(), 3);
    assert_eq!(list().key_marker("d/1").send().await.unwrap().uploads().len(), 2);
    let folded = list().delimiter("/").send().await.unwrap();
    assert_eq!((folded.common_prefixes()[0].prefix(), folded.uploads().len()), (Some("d/"), 1));
    let encoded = list().prefix("e").encoding_type("url".into()).send().await.unwrap();
    assert_eq!(encoded.uploads()[0].key(), Some("e+f"));
}
