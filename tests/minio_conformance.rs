//! The conformance suite on a MinIO server: `MEDIAFS_TEST_MINIO=http://127.0.0.1:9000 cargo test --features minio-tests`,
//! with the keys minioadmin/minioadmin. Every test works below a prefix of its own in the bucket
//! `mediafs-conformance`, which is made where it is missing. Over https://, `MEDIAFS_TEST_MINIO_CA` names the CA file.

#[macro_use]
#[path = "conformance/suite/mod.rs"]
mod suite;

use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, SharedHttpClient};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use mediafs::store::prefix::PrefixStore;
use mediafs::store::s3::{S3Config, StaticCredentials, connect};
use mediafs::store::{ErrorKind, Store, check_bucket};
use suite::Subject;

const BUCKET: &str = "mediafs-conformance";
const KEY: &str = "minioadmin";

fn endpoint() -> String {
    env::var("MEDIAFS_TEST_MINIO").expect("set MEDIAFS_TEST_MINIO to the URL of a MinIO server")
}

fn ca_file() -> Option<PathBuf> {
    env::var_os("MEDIAFS_TEST_MINIO_CA").map(PathBuf::from)
}

fn config(bucket: &str) -> S3Config {
    let credentials = Some(StaticCredentials::new(KEY, KEY));
    S3Config { endpoint_url: Some(endpoint()), credentials, ca_file: ca_file(), ..S3Config::new(bucket) }
}

fn http_client() -> SharedHttpClient {
    let mut trust = TrustStore::empty();
    if let Some(path) = ca_file() {
        trust.add_pem_certificate(std::fs::read(path).expect("a readable CA file"));
    }
    let context = TlsContext::builder().with_trust_store(trust).build().expect("a TLS set-up");
    let tls = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring));
    tls.tls_context(context).build_https()
}

async fn make_bucket() {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .http_client(http_client())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint())
        .force_path_style(true)
        .credentials_provider(Credentials::new(KEY, KEY, None, None, "test"))
        .build();
    // Another test may have made it: whether it is there shows in the first request.
    let _ = aws_sdk_s3::Client::from_conf(config).create_bucket().bucket(BUCKET).send().await;
}

async fn minio() -> Subject {
    static TESTS: AtomicU64 = AtomicU64::new(0);
    make_bucket().await;
    let store = connect(config(BUCKET)).await.expect("a valid configuration");
    let since = mediafs::clock::now().duration_since(std::time::SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let prefix = format!("{since}-{}/", TESTS.fetch_add(1, Ordering::Relaxed));
    let store = Arc::new(PrefixStore::new(Arc::new(store), &prefix));
    Subject { serves_http: endpoint().starts_with("http:"), ..Subject::new(store) }
}

conformance!(minio);

async fn mistake(config: S3Config) -> (ErrorKind, String) {
    let begun = tokio::time::Instant::now();
    let store: Store = Arc::new(connect(config).await.expect("a valid configuration"));
    let error = check_bucket(&store).await.expect_err("this can't work");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    (error.kind, error.message)
}

#[tokio::test]
async fn newcomers_mistakes_have_their_own_kinds() {
    make_bucket().await;
    let wrong = |key: &str, secret: &str| S3Config { credentials: Some(StaticCredentials::new(key, secret)), ..config(BUCKET) };
    assert_eq!(mistake(wrong("nobody", KEY)).await.0, ErrorKind::Credentials);
    assert_eq!(mistake(wrong(KEY, "wrongsecret")).await.0, ErrorKind::Credentials);
    let (kind, message) = mistake(config("no-such-bucket")).await;
    assert!(kind == ErrorKind::NoSuchBucket && message.contains("no-such-bucket"), "{message}");
    assert_eq!(mistake(config("Not_A_Name")).await.0, ErrorKind::NoSuchBucket);
    // The other scheme than the server's: neither side of TLS understands plain HTTP.
    let (scheme, expected) = if endpoint().starts_with("http:") { ("https", ErrorKind::Unreachable) } else { ("http", ErrorKind::NotS3) };
    let rest = endpoint().split_once(':').map(|(_, rest)| rest.to_owned()).expect("a URL");
    let (kind, message) = mistake(S3Config { endpoint_url: Some(format!("{scheme}:{rest}")), ..config(BUCKET) }).await;
    assert_eq!(kind, expected, "{message}");
    if ca_file().is_some() {
        let (kind, message) = mistake(S3Config { ca_file: None, ..config(BUCKET) }).await;
        assert!(kind == ErrorKind::Unreachable && message.starts_with("TLS: nobody trusted"), "{message}");
    }
}
