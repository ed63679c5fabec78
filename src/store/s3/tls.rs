//! The HTTP client: rustls on the system's roots, and a file of further ones.

use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use aws_sdk_s3::config::SharedHttpClient;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::store::{ErrorKind, Result, StoreError};

pub(super) fn http_client(ca_file: Option<&Path>, native_roots: bool, idle: Duration, max_idle: usize) -> Result<SharedHttpClient> {
    let mut trust = TrustStore::empty().with_native_roots(native_roots);
    if let Some(path) = ca_file {
        let pem = certificates(path).map_err(|error| wrong(path, error))?;
        trust.add_pem_certificate(pem);
    }
    let context = TlsContext::builder().with_trust_store(trust).build();
    let context = context.map_err(|error| StoreError::new(ErrorKind::Other, "configuration", "", error.to_string()))?;
    Ok(aws_smithy_http_client::Builder::new()
        .pool_idle_timeout(idle)
        .pool_max_idle_per_host(max_idle)
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(context)
        .build_https())
}

/// The file's text, once every certificate in it has been understood: the client panics over any that isn't.
fn certificates(path: &Path) -> io::Result<Vec<u8>> {
    let pem = fs::read(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    if roots.is_empty() { Err(io::Error::other("no PEM certificate in it")) } else { Ok(pem) }
}

fn wrong(path: &Path, error: io::Error) -> StoreError {
    StoreError::new(
        ErrorKind::Other,
        "configuration",
        "",
        format!("--ca-file {}: {error}; give a file of PEM certificates", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_holds_no_certificate_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let open = || http_client(Some(&path), false, Duration::ZERO, 1).map(|_| ());
        assert!(open().unwrap_err().message.contains("ca.pem"));
        for text in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            fs::write(&path, text).unwrap();
            assert!(open().unwrap_err().message.starts_with("--ca-file "), "{text}");
        }
    }
}
