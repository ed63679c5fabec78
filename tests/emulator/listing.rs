//! ListObjectsV2 and its older form, over the wire.

use aws_sdk_s3::types::EncodingType;
use mediafs::types::ObjectHeaders;

use crate::{BUCKET, put, refusal, refused, start};

#[tokio::test]
async fn pages_of_keys_and_prefixes() {
    let (emulator, s3) = start().await;
    for key in ["t/1", "t/2", "t/3/x", "t/3/y", "t/4", "u"] {
        put(&s3, key, "body").await;
    }
    let mut names: Vec<String> = Vec::new();
    let mut token = None;
    let mut pages = 0;
    loop {
        let request = s3.list_objects_v2().bucket(BUCKET).prefix("t/").delimiter("/").max_keys(1);
        let page = request.set_continuation_token(token.clone()).send().await.unwrap();
        assert_eq!((page.key_count(), page.max_keys(), page.prefix(), page.delimiter()), (Some(1), Some(1), Some("t/"), Some("/")));
        assert_eq!(page.continuation_token(), token.as_deref());
        names.extend(page.contents().iter().filter_map(|object| object.key()).map(str::to_owned));
        names.extend(page.common_prefixes().iter().filter_map(|prefix| prefix.prefix()).map(str::to_owned));
        pages += 1;
        token = page.next_continuation_token().map(str::to_owned);
        assert_eq!(page.is_truncated(), Some(token.is_some()));
        if token.is_none() {
            break;
        }
    }
    assert_eq!(names, ["t/1", "t/2", "t/3/", "t/4"]);
    assert_eq!(emulator.counts()["ListObjectsV2"], pages);
}

#[tokio::test]
async fn an_entry_tells_size_etag_and_owner() {
    let (_emulator, s3) = start().await;
    let etag = put(&s3, "a", "four").await;
    let listed = s3.list_objects_v2().bucket(BUCKET).fetch_owner(true).send().await.unwrap();
    let [object] = listed.contents() else { panic!("{listed:?}") };
    assert_eq!((object.size(), object.e_tag()), (Some(4), Some(&*etag)));
    assert!(object.owner().is_some() && object.last_modified().is_some());
    let head = s3.head_object().bucket(BUCKET).key("a").send().await.unwrap();
    assert_eq!(object.last_modified().unwrap().secs(), head.last_modified().unwrap().secs());
    let listed = s3.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    assert!(listed.contents()[0].owner().is_none());
}

#[tokio::test]
async fn start_after_and_limits() {
    let (emulator, s3) = start().await;
    for number in 0..1100 {
        emulator.put_raw(BUCKET, &format!("k{number:04}"), "", ObjectHeaders::default()).unwrap();
    }
    let list = || s3.list_objects_v2().bucket(BUCKET);
    let page = list().send().await.unwrap();
    assert_eq!((page.contents().len(), page.is_truncated()), (1000, Some(true)));
    assert_eq!(list().max_keys(5000).send().await.unwrap().contents().len(), 1000);
    let none = list().max_keys(0).send().await.unwrap();
    assert_eq!((none.contents().len(), none.is_truncated()), (0, Some(false)));
    let rest = list().start_after("k1097").send().await.unwrap();
    let keys: Vec<&str> = rest.contents().iter().filter_map(|object| object.key()).collect();
    assert_eq!(keys, ["k1098", "k1099"]);
    assert_eq!(refusal(list().continuation_token("!").send().await), refused(400, "InvalidArgument"));
    assert_eq!(refusal(s3.list_objects_v2().bucket("other").send().await), refused(404, "NoSuchBucket"));
}

#[tokio::test]
async fn url_encoding_carries_any_key() {
    let (_emulator, s3) = start().await;
    put(&s3, "p q/\u{1}\n+\u{e9}", "x").await;
    let list = || s3.list_objects_v2().bucket(BUCKET).encoding_type(EncodingType::Url);
    let listed = list().prefix("p q/").start_after("p a").send().await.unwrap();
    assert_eq!(listed.contents()[0].key(), Some("p+q/%01%0A%2B%C3%A9"));
    assert_eq!((listed.prefix(), listed.start_after()), (Some("p+q/"), Some("p+a")));
    assert_eq!(listed.encoding_type(), Some(&EncodingType::Url));
    let listed = list().delimiter("/").send().await.unwrap();
    assert_eq!(listed.common_prefixes()[0].prefix(), Some("p+q/"));
}

#[tokio::test]
async fn the_older_form() {
    let (_emulator, s3) = start().await;
    for key in ["a/1", "a/2", "b", "c"] {
        put(&s3, key, "x").await;
    }
    let list = || s3.list_objects().bucket(BUCKET).delimiter("/").max_keys(1);
    let first = list().send().await.unwrap();
    assert_eq!((first.common_prefixes()[0].prefix(), first.next_marker()), (Some("a/"), Some("a/")));
    let second = list().marker("a/").send().await.unwrap();
    assert_eq!((second.contents()[0].key(), second.is_truncated()), (Some("b"), Some(true)));
}
