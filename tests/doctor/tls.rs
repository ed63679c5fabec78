//! Certificates: nobody's, another name's, and no TLS at all.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use mediafs::doctor::{Outcome, Step};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, Stream};

use crate::{Setup, assert_finding, emulator, failed, of};

/// Signed by itself, for 127.0.0.1, until the year 2126.
const CERTIFICATE: &str = include_str!("self-signed.pem");
const KEY: &str = include_str!("self-signed.key");

/// Ends each connection after one answer, or after a refused handshake. Its port.
fn serve() -> u16 {
    let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).expect("certificate");
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).expect("key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).expect("pair"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("port");
    let port = listener.local_addr().expect("address").port();
    thread::spawn(move || {
        for mut connection in listener.incoming().map_while(Result::ok) {
            let Ok(mut session) = ServerConnection::new(Arc::clone(&config)) else { continue };
            let mut stream = Stream::new(&mut session, &mut connection);
            let mut request = [0; 4096];
            if stream.read(&mut request).is_ok() {
                let _ = stream.write_all(b"HTTP/1.1 503 Busy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            }
        }
    });
    port
}

#[tokio::test]
async fn certificates_are_judged() {
    let port = serve();
    let report = Setup::new(&format!("https://127.0.0.1:{port}")).examined().await;
    assert_eq!(failed(&report), [Step::Tls], "{:#?}", report.findings);
    assert_finding(&report, Step::Tls, Outcome::Failed, "nobody trusted has signed", "--ca-file");
    assert_eq!(of(&report, Step::List).outcome, Outcome::Skipped);

    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, CERTIFICATE).expect("file");
    let trusted = [("ca-file", file.to_str().expect("UTF-8"))];
    let report = Setup::with("s3://media", &format!("https://localhost:{port}"), &trusted).examined().await;
    assert_finding(&report, Step::Tls, Outcome::Failed, "TLS: ", "another name");
    let report = Setup::with("s3://media", &format!("https://127.0.0.1:{port}"), &trusted).examined().await;
    assert_finding(&report, Step::Tls, Outcome::Passed, "trusted", "");
    assert_finding(&report, Step::Bucket, Outcome::Failed, "503", "try again later");
}

#[tokio::test]
async fn plain_http_and_missing_files_are_told() {
    let emulator = emulator().await;
    let report = Setup::new(&emulator.endpoint().replace("http:", "https:")).examined().await;
    assert_finding(&report, Step::Tls, Outcome::Failed, "does not speak TLS", "http://");
    let report = Setup::with("s3://media", "https://127.0.0.1:1", &[("ca-file", "/nonexistent.pem")]).examined().await;
    assert!(!report.is_healthy() && report.findings.iter().any(|finding| finding.text.contains("--ca-file /nonexistent.pem")));
}
