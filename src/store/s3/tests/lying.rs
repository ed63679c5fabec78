//! Answers that no honest store gives: none is believed, none costs more memory or time than is set for it.

use super::*;

/// With a body that is as long as it likes.
fn endless(status: u16, bytes: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/xml\r\nConnection: close\r\n\r\n<ListBucketResult>");
    [head.into_bytes(), vec![b' '; bytes]].concat()
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    for status in [200, 404, 500] {
        let server = Server::new(Some(endless(status, 40 << 20))).await;
        let store = server.store().await;
        let listed = store.list(&ListRequest::default()).await.unwrap_err();
        let got = store.get(&Key::from("k"), None, None).await.err();
        if status != 200 {
            assert!(got.is_some(), "{status}");
        }
        assert!(!listed.is(ErrorKind::NotFound), "{status}: {listed}");
    }
}

#[tokio::test]
async fn a_full_page_of_the_longest_keys_is_read() {
    let key = "%F0%9F%98%80".repeat(256);
    let entry = format!("<Contents><Key>{key}</Key><ETag>\"e\"</ETag><Size>1</Size></Contents>");
    let page = format!("<ListBucketResult><EncodingType>url</EncodingType>{}</ListBucketResult>", entry.repeat(1000));
    let server = Server::new(Some(answer(200, "Content-Type: application/xml", &page))).await;
    assert_eq!(server.store().await.list(&ListRequest::default()).await.unwrap().objects.len(), 1000);
}

#[tokio::test]
async fn bytes_that_were_not_asked_for_are_not_taken() {
    let body = |headers: &str, body: &str| answer(206, &format!("ETag: \"e\"\n{headers}"), body);
    for (bytes, kind) in [
        (body("Content-Range: bytes 1-5/9", "hello"), ErrorKind::Corrupt),
        (body("Content-Range: bytes 0-5/9", "hello"), ErrorKind::Corrupt),
        (body("Content-Range: bytes 0-4/3", "hello"), ErrorKind::Corrupt),
        (body("Content-Range: bytes 0-18446744073709551615/9", "hello"), ErrorKind::NotS3),
        (body("Content-Range: nonsense", "hello"), ErrorKind::NotS3),
        (answer(200, "ETag: \"e\"", "more than was asked for"), ErrorKind::Corrupt),
        (answer(206, "Content-Range: bytes 0-4/9", "hello"), ErrorKind::NotS3),
    ] {
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let server = Server::new(Some(bytes)).await;
        let error = server.store().await.get(&Key::from("k"), Some(0..5), None).await.err().unwrap_or_else(|| panic!("{shown}"));
        assert_eq!(error.kind, kind, "{error}\n{shown}");
    }
}

#[tokio::test]
async fn a_body_that_is_shorter_than_announced_is_noticed() {
    let short = b"HTTP/1.1 200 X\r\nETag: \"e\"\r\nContent-Length: 9\r\nConnection: close\r\n\r\nhello".to_vec();
    let server = Server::new(Some(short)).await;
    let body = server.store().await.get(&Key::from("k"), None, None).await.unwrap();
    assert!(body.stream.try_collect::<Vec<_>>().await.unwrap_err().is(ErrorKind::Truncated));
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_credentials() {
    let elsewhere = Server::new(Some(answer(200, "", ""))).await;
    for status in [301, 302, 307, 308] {
        let server = Server::new(Some(answer(status, &format!("Location: {}/bucket/k", elsewhere.url), ""))).await;
        let store = server.store().await;
        assert!(store.head(&Key::from("k")).await.is_err() && store.get(&Key::from("k"), None, None).await.is_err());
        assert!(store.list(&ListRequest::default()).await.is_err());
    }
    assert!(elsewhere.requests().is_empty(), "{:?}", elsewhere.requests());
}

#[tokio::test]
async fn metadata_that_is_not_text_is_an_error_that_nobody_repeats() {
    let mut bytes =
        b"HTTP/1.1 200 X\r\nETag: \"e\"\r\nContent-Length: 5\r\nx-amz-meta-a: \xff\xfe\x80\r\nConnection: close\r\n\r\n".to_vec();
    bytes.extend(b"hello");
    let server = Server::new(Some(bytes)).await;
    let answer = server.store().await.get(&Key::from("k"), None, None).await;
    assert!(answer.as_ref().err().is_none_or(|error| !error.kind.is_transient()), "{:?}", answer.err());
}

#[tokio::test]
async fn a_listing_that_breaks_off_is_no_listing() {
    let entry = |name: &str| format!("<Contents><Key>{name}</Key><ETag>\"e\"</ETag><Size>1</Size></Contents>");
    let fields = "<EncodingType>url</EncodingType>";
    let end = "<IsTruncated>false</IsTruncated>";
    let entries = [entry("a"), entry("b"), entry("c")].concat();
    // AWS tells whether there is more before the entries, others after them.
    for xml in [
        format!("<?xml version=\"1.0\"?>\n<ListBucketResult>{fields}{end}{entries}</ListBucketResult>"),
        format!("<ListBucketResult>{fields}{entries}{end}</ListBucketResult>"),
    ] {
        for at in 0..=xml.len() {
            // Without a length the end of the connection is the end of the answer.
            let head = "HTTP/1.1 200 X\r\nContent-Type: application/xml\r\nConnection: close\r\n\r\n";
            let server = Server::new(Some([head.as_bytes(), &xml.as_bytes()[..at]].concat())).await;
            let listed = server.store().await.list(&ListRequest::default()).await;
            match listed {
                Ok(page) => assert_eq!((page.objects.len(), at), (3, xml.len()), "{}", &xml[..at]),
                Err(error) => assert!(at < xml.len() && (at == 0 || error.kind == ErrorKind::Truncated), "{at}: {error}"),
            }
        }
    }
}
