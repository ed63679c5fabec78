//! The client against prepared answers: what each failure becomes, and what requests look like. No network but
//! loopback; the conformance suite tries the working bucket.

mod lying;
mod server;

use std::time::Duration;

use tokio::time::Instant;

use futures::TryStreamExt;

use self::server::{Server, answer, config, error};
use super::*;
use crate::store::{Store, check_bucket};

const HTML: &str = "<!DOCTYPE html><html><body>hello</body></html>";
const TEXT_HTML: &str = "Content-Type: text/html";

/// What a newcomer's first request ends with, and how it is told.
async fn first_request(config: S3Config) -> (ErrorKind, String) {
    let begun = Instant::now();
    let store: Store = Arc::new(connect(config).await.unwrap());
    let error = check_bucket(&store).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let line = crate::store::advice(&error);
    assert!(!line.contains('\n') && !line.contains("hush"), "{line}");
    (error.kind, line)
}

#[tokio::test]
async fn each_wrong_answer_has_its_kind() {
    let cases = [
        (error(403, "InvalidAccessKeyId", ""), ErrorKind::Credentials, "access key"),
        (error(403, "SignatureDoesNotMatch", ""), ErrorKind::Credentials, "secret"),
        (error(401, "Unauthorized", ""), ErrorKind::Credentials, "access key"),
        (error(403, "AccessDenied", ""), ErrorKind::Denied, "Read & Write"),
        (error(404, "NoSuchBucket", ""), ErrorKind::NoSuchBucket, "\"bucket\""),
        (error(400, "AuthorizationHeaderMalformed", "<Region>eu-west-9</Region>"), ErrorKind::WrongRegion, "eu-west-9"),
        (answer(301, "x-amz-bucket-region: eu-west-9", ""), ErrorKind::WrongRegion, "eu-west-9"),
        (error(301, "PermanentRedirect", "<Endpoint>b.s3</Endpoint>"), ErrorKind::WrongRegion, "--region"),
        (error(403, "RequestTimeTooSkewed", ""), ErrorKind::ClockSkew, "clock"),
        (error(503, "SlowDown", ""), ErrorKind::Throttled, "later"),
        (answer(200, TEXT_HTML, HTML), ErrorKind::NotS3, "text/html"),
        (answer(404, TEXT_HTML, HTML), ErrorKind::NotS3, "text/html"),
        (answer(301, "Location: https://elsewhere/", HTML), ErrorKind::NotS3, "elsewhere"),
        (answer(200, "Content-Type: application/json", "{}"), ErrorKind::NotS3, "json"),
        (answer(200, "", ""), ErrorKind::NotS3, "200"),
        (answer(400, "Content-Type: text/plain", "Client sent an HTTP request to an HTTPS server."), ErrorKind::NotS3, "400"),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 99\r\n\r\nClient sent".to_vec(), ErrorKind::NotS3, "400"),
        (b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(), ErrorKind::NotS3, "does not speak HTTP"),
        (Vec::new(), ErrorKind::Unreachable, "broke"),
    ];
    for (bytes, kind, says) in cases {
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let server = Server::new(Some(bytes)).await;
        let (got, line) = first_request(server.config()).await;
        assert_eq!(got, kind, "{line}\n{shown}");
        assert!(line.contains(says), "{line}\n{shown}");
        let attempts = if kind == ErrorKind::ClockSkew { 2 } else { 1 };
        assert_eq!(server.requests().len(), attempts, "one attempt, whatever comes\n{shown}");
    }
}

#[tokio::test]
async fn whoever_cannot_be_reached_is_named() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (kind, line) = first_request(config(&format!("http://{nobody}"))).await;
    assert!(kind == ErrorKind::Unreachable && line.contains(&nobody.to_string()) && line.contains("refuses"), "{line}");
    let (kind, line) = first_request(config("http://no-such-host.invalid")).await;
    assert!(kind == ErrorKind::Unreachable && line.contains("no-such-host.invalid"), "{line}");
    let plain = Server::new(Some(answer(200, "", ""))).await;
    let (kind, line) = first_request(config(&plain.url.replace("http:", "https:"))).await;
    assert!(kind == ErrorKind::Unreachable && line.contains("TLS: "), "{line}");
    let silent = Server::new(None).await;
    let patience = Duration::from_millis(100);
    let (kind, line) = first_request(S3Config { attempt_timeout: patience, ..silent.config() }).await;
    assert!(kind == ErrorKind::Timeout, "{line}");
}

#[tokio::test]
async fn wrong_configuration_is_refused_before_any_request() {
    let refused = |config| async { connect(config).await.err().unwrap().to_string() };
    assert!(refused(config("minio:9000")).await.contains("http://"));
    if std::env::var_os("R2_ACCOUNT_ID").is_none() && std::env::var_os("AWS_ENDPOINT_URL").is_none() {
        let r2 = S3Config { r2: true, ..S3Config::new("bucket") };
        assert!(refused(r2).await.contains("R2_ACCOUNT_ID"));
    }
}

/// The environment belongs to the whole process, so the search for credentials is tried in one of its own.
#[tokio::test]
async fn a_machine_without_credentials_says_so() {
    const CHILD: &str = "MEDIAFS_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let server = Server::new(Some(answer(200, "", ""))).await;
        let (kind, line) = first_request(S3Config { credentials: None, ..server.config() }).await;
        assert!(kind == ErrorKind::Credentials && line.contains("AWS_ACCESS_KEY_ID"), "{line}");
        assert!(server.requests().is_empty());
        return;
    }
    // The last source in the chain, the instance's metadata service, takes the connection and says nothing.
    let silent = Server::new(None).await;
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.env_clear().env("HOME", "/nonexistent").env(CHILD, "1").env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &silent.url);
    child.args(["--exact", "store::s3::tests::a_machine_without_credentials_says_so"]);
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test]
async fn a_lost_answer_leaves_the_outcome_open() {
    let (key, headers) = (Key::from("k"), ObjectHeaders::default());
    for (bytes, kind, unknown) in [
        (Vec::new(), ErrorKind::Unreachable, true),
        (error(500, "InternalError", ""), ErrorKind::Unavailable, true),
        (error(503, "SlowDown", ""), ErrorKind::Throttled, false),
        (error(429, "TooManyRequests", ""), ErrorKind::Throttled, false),
        (error(412, "PreconditionFailed", ""), ErrorKind::PreconditionFailed, false),
        (error(409, "ConditionalRequestConflict", ""), ErrorKind::Unavailable, false),
        (error(404, "NoSuchKey", ""), ErrorKind::PreconditionFailed, false),
    ] {
        let store = Server::new(Some(bytes)).await.store().await;
        let condition = Condition::IfMatch(ETag::new("e"));
        let failed = store.put(&key, Body::new("x"), &headers, &condition).await.unwrap_err();
        assert_eq!((failed.kind, failed.outcome_unknown), (kind, unknown), "{failed}");
        let read = store.head(&key).await.unwrap_err();
        assert!(!read.outcome_unknown, "a read changes nothing");
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let store = connect(config(&format!("http://{nobody}"))).await.unwrap();
    let failed = store.put(&key, Body::new("x"), &headers, &Condition::Any).await.unwrap_err();
    assert!(!failed.outcome_unknown, "what was never sent was never done");
}

#[tokio::test]
async fn an_answer_without_a_length_is_asked_for_as_it_is_stored() {
    let unclear = b"HTTP/1.1 200 OK\r\nETag: \"e\"\r\nConnection: close\r\n\r\n".to_vec();
    for get in [false, true] {
        let server = Server::new(Some(unclear.clone())).await;
        let (store, key) = (server.store().await, Key::from("k"));
        let failed = if get { store.get(&key, None, None).await.err() } else { store.head(&key).await.err() };
        assert_eq!(failed.map(|error| error.kind), Some(ErrorKind::NotS3));
        let takes_gzip = |request: &String| request.to_ascii_lowercase().contains("accept-encoding: gzip");
        assert_eq!(server.requests().iter().map(takes_gzip).collect::<Vec<_>>(), [false, true], "{:?}", server.requests());
    }
}

#[tokio::test]
async fn the_wish_to_be_left_alone_is_passed_on() {
    let server = Server::new(Some(answer(429, "Retry-After: 7", ""))).await;
    let failed = server.store().await.head(&Key::from("k")).await.unwrap_err();
    assert_eq!((failed.kind, failed.retry_after), (ErrorKind::Throttled, Some(Duration::from_secs(7))));
}

#[tokio::test]
async fn a_complete_that_fails_late_is_a_failure() {
    let server = Server::new(Some(error(200, "InternalError", ""))).await;
    let parts = [Part { number: 1, etag: ETag::new("e"), size: 1 }];
    let upload = UploadId("u".to_owned());
    let failed = server.store().await.complete_upload(&Key::from("k"), &upload, &parts, &Condition::Any).await.unwrap_err();
    assert_eq!((failed.kind, failed.outcome_unknown), (ErrorKind::Unavailable, true));
}

#[tokio::test]
async fn other_bytes_than_were_sent_are_noticed() {
    let other = "ETag: \"d41d8cd98f00b204e9800998ecf8427e\"";
    let put = async |headers: &str| {
        let store = Server::new(Some(answer(200, headers, ""))).await.store().await;
        store.put(&Key::from("k"), Body::new("x"), &ObjectHeaders::default(), &Condition::Any).await.map_err(|error| error.kind)
    };
    assert_eq!(put(other).await, Err(ErrorKind::Corrupt));
    assert!(put("ETag: \"opaque\"").await.is_ok());
    assert!(put(&format!("{other}\nx-amz-server-side-encryption-aws-kms-key-id: key")).await.is_ok());
    assert_eq!(put("").await, Err(ErrorKind::NotS3));
    let part = async |headers: &str| {
        let store = Server::new(Some(answer(200, headers, ""))).await.store().await;
        let part = store.upload_part(&Key::from("k"), &UploadId("u".into()), 1, Body::new("x")).await;
        part.map(|part| part.size).map_err(|error| error.kind)
    };
    assert_eq!(part(other).await, Err(ErrorKind::Corrupt), "Complete would only see that its parts are what they are");
    assert_eq!(part("ETag: \"opaque\"").await, Ok(1));
}

#[tokio::test]
async fn the_store_s_time_is_that_of_its_answers() {
    let day = Duration::from_secs(86_400);
    let ahead = async |headers: &str| {
        let store = Server::new(Some(answer(200, headers, ""))).await.store().await;
        let _receipt = store.put(&Key::from("k"), Body::new("x"), &ObjectHeaders::default(), &Condition::Any).await.unwrap();
        store.now() > crate::clock::now() + day
    };
    assert!(ahead("ETag: \"opaque\"\nDate: Fri, 01 Jan 2100 00:00:00 GMT").await);
    assert!(!ahead("ETag: \"opaque\"\nDate: Fri, 01 Jan 2100 00:00:00 GMT\nAge: 30").await, "out of a cache's memory");
    assert!(!ahead("ETag: \"opaque\"").await);
}

#[tokio::test]
async fn bodies_that_break_or_do_not_fit_are_noticed() {
    let get = async |bytes: &[u8], span: Option<Span>| {
        let store = Server::new(Some(bytes.to_vec())).await.store().await;
        let body = store.get(&Key::from("k"), span, None).await.map_err(|error| error.kind)?;
        body.stream.map_ok(|chunk| chunk.len()).try_fold(0, async |sum, length| Ok(sum + length)).await.map_err(|error| error.kind)
    };
    let cut = b"HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 10\r\n\r\nhello";
    assert_eq!(get(cut, None).await, Err(ErrorKind::Truncated));
    let whole = answer(200, "ETag: \"e\"", "hello");
    assert_eq!(get(&whole, None).await, Ok(5));
    assert_eq!(get(&whole, Some(0..9)).await, Ok(5), "the whole is what was asked for");
    assert_eq!(get(&whole, Some(1..3)).await, Err(ErrorKind::Corrupt), "the range was ignored");
    let misfit = answer(206, "ETag: \"e\"\nContent-Range: bytes 1-2/9", "hello");
    assert_eq!(get(&misfit, Some(1..3)).await, Err(ErrorKind::Corrupt));
}

#[tokio::test]
async fn uploads_carry_an_md5_and_no_header_that_r2_refuses() {
    let server = Server::new(Some(answer(200, "ETag: \"opaque\"", ""))).await;
    let store = connect(S3Config { r2: true, region: None, ..server.config() }).await.unwrap();
    assert_eq!(store.region(), "auto");
    let _ = store.put(&Key::from("a b/ü+%.txt"), Body::new("x"), &ObjectHeaders::default(), &Condition::IfAbsent).await.unwrap();
    let upload = UploadId("u".to_owned());
    let _ = store.upload_part(&Key::from("k"), &upload, 1, Body::new("x")).await.unwrap();
    let [put, part] = &server.requests()[..] else { panic!("two requests") };
    assert!(put.starts_with("put /bucket/a%20b/%c3%bc%2b%25.txt?") || put.starts_with("put /bucket/a%20b/%c3%bc%2b%25.txt "), "{put}");
    assert!(put.contains("if-none-match: *") && put.contains("content-type: application/octet-stream"), "{put}");
    for head in [put, part] {
        assert!(head.contains("content-md5: ndtkysamgdt1yfzofvxnpg=="), "{head}");
        assert!(head.contains("x-amz-content-sha256: unsigned-payload"), "{head}");
        for refused in [
            "x-amz-checksum",
            "x-amz-sdk-checksum",
            "x-amz-acl",
            "x-amz-tagging",
            "aws-chunked",
            "expect:",
            "x-amz-trailer",
            "transfer-encoding",
        ] {
            assert!(!head.contains(refused), "{refused}: {head}");
        }
    }
}

#[tokio::test]
async fn a_part_copied_on_r2_is_checked_afterwards() {
    let result = "<CopyPartResult><ETag>\"p\"</ETag></CopyPartResult>";
    let server = Server::new(Some(answer(200, "ETag: \"now\"\nContent-Type: application/xml", result))).await;
    let upload = UploadId("u".to_owned());
    let (key, from) = (Key::from("k"), Key::from("ü"));
    let copy = async |r2, version: &str| {
        let store = connect(S3Config { r2, ..server.config() }).await.unwrap();
        let part = store.copy_part(&key, &upload, 1, &from, Some(&ETag::new(version)), 0..5).await;
        (part.map_err(|error| error.kind), store.counts.of(Operation::HeadObject))
    };
    let part = Ok(Part { number: 1, etag: ETag::new("p"), size: 5 });
    assert_eq!(copy(false, "any").await, (part.clone(), 0));
    assert_eq!(copy(true, "now").await, (part, 1));
    assert_eq!(copy(true, "before").await, (Err(ErrorKind::PreconditionFailed), 1));
    let copies: Vec<_> = server.requests().into_iter().filter(|head| head.starts_with("put ")).collect();
    assert!(copies[0].contains("x-amz-copy-source-if-match: \"any\"") && copies[0].contains("x-amz-copy-source: bucket/%c3%bc"));
    assert!(!copies[1].contains("copy-source-if"), "{}", copies[1]);
}

#[tokio::test]
async fn listings_are_decoded_only_where_they_are_encoded() {
    let list = async |encoding: &str| {
        let xml = format!(
            "<ListBucketResult>{encoding}<Contents><Key>a+%C3%BC</Key><ETag>\"e\"</ETag><Size>1</Size></Contents>\
             <CommonPrefixes><Prefix>d+%2B/</Prefix></CommonPrefixes><IsTruncated>false</IsTruncated></ListBucketResult>"
        );
        let server = Server::new(Some(answer(200, "Content-Type: application/xml", &xml))).await;
        let page = server.store().await.list(&ListRequest::default()).await.unwrap();
        (page.objects[0].key.clone(), page.prefixes[0].clone())
    };
    assert_eq!(list("<EncodingType>url</EncodingType>").await, (Key::from("a ü"), Key::from("d +/")));
    assert_eq!(list("").await, (Key::from("a+%C3%BC"), Key::from("d+%2B/")));
}

#[tokio::test]
async fn a_key_that_the_client_cannot_say_is_a_wrong_name_and_no_outage() {
    let server = Server::new(None).await;
    let store = connect(server.config()).await.unwrap();
    let error = store.head(&Key::from(" ")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidName, "{error}");
    assert!(server.requests().is_empty());
}
