//! Failures below S3: credentials, names, connections, TLS, and answers that aren't HTTP. Reads error chains, no I/O.

use std::error::Error;
use std::io;

use aws_config::imds::client::error::ImdsError;
use aws_credential_types::provider::error::CredentialsError;

use crate::store::ErrorKind;

/// What a failed exchange comes down to.
#[derive(Debug, PartialEq)]
pub(super) struct Transport {
    pub kind: ErrorKind,
    pub message: String,
    /// The request may have reached the store.
    pub sent: bool,
}

/// Finds the cause that a person can act on. `endpoint` names the other side in the message.
pub(super) fn classify(error: &(dyn Error + 'static), timed_out: bool, endpoint: &str) -> Transport {
    let causes: Vec<_> = chain(error).collect();
    let known = causes.iter().find_map(|cause| cause_of(*cause, endpoint));
    known.unwrap_or_else(|| {
        let text = one_line(causes.last().map_or(String::new(), |cause| cause.to_string()));
        match causes.iter().any(|cause| cause.to_string().contains("connect timeout")) {
            true => unsent(ErrorKind::Unreachable, format!("no connection to {endpoint} in time")),
            // The SDK's own deadline for them, of a type that it doesn't show.
            false if causes.iter().any(|cause| cause.to_string().starts_with("identity resolver timed out")) => no_credentials_in_time(),
            false if timed_out => sent(ErrorKind::Timeout, format!("no answer from {endpoint} in time")),
            false if causes.iter().any(|cause| cause.to_string().contains("dns error")) => {
                unsent(ErrorKind::Unreachable, format!("{endpoint}: its name can't be resolved ({text})"))
            }
            false => sent(ErrorKind::Unreachable, format!("the exchange with {endpoint} broke: {text}")),
        }
    })
}

fn cause_of(cause: &(dyn Error + 'static), endpoint: &str) -> Option<Transport> {
    if let Some(error) = cause.downcast_ref::<CredentialsError>() {
        return Some(credentials(error));
    }
    if let Some(error) = cause.downcast_ref::<rustls::Error>() {
        return Some(tls(error, endpoint));
    }
    if let Some(error) = cause.downcast_ref::<hyper::Error>() {
        // The second is what a server says that speaks first, before it was asked; hyper has no other word for it.
        let is_foreign = error.is_parse() || error.to_string().contains("unexpected message");
        return is_foreign.then(|| sent(ErrorKind::NotS3, format!("{endpoint} does not speak HTTP")));
    }
    let error = cause.downcast_ref::<io::Error>().filter(|error| error.get_ref().is_none())?;
    Some(match error.kind() {
        io::ErrorKind::ConnectionRefused => unsent(ErrorKind::Unreachable, format!("{endpoint} refuses the connection")),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable => {
            unsent(ErrorKind::Unreachable, format!("no way to {endpoint} ({error})"))
        }
        _ => sent(ErrorKind::Unreachable, format!("the connection to {endpoint} broke ({error})")),
    })
}

/// Nothing found is final; a source that failed to answer may answer the next time. The instance's metadata service is
/// asked last and on any machine, and its failures show only before it has ever given a key: then there is none.
fn credentials(error: &CredentialsError) -> Transport {
    if chain(error).any(|cause| cause.is::<ImdsError>()) {
        return unsent(ErrorKind::Credentials, "no credentials found".to_owned());
    }
    let text = one_line(chain(error).last().map_or(String::new(), |cause| cause.to_string()));
    match error {
        CredentialsError::CredentialsNotLoaded(_) => unsent(ErrorKind::Credentials, "no credentials found".to_owned()),
        CredentialsError::InvalidConfiguration(_) => unsent(ErrorKind::Credentials, format!("wrong credentials set-up: {text}")),
        CredentialsError::ProviderTimedOut(_) => no_credentials_in_time(),
        _ => unsent(ErrorKind::Unavailable, format!("no credentials: their source failed ({text})")),
    }
}

fn no_credentials_in_time() -> Transport {
    unsent(ErrorKind::Unavailable, "no credentials: their source did not answer in time".to_owned())
}

fn tls(error: &rustls::Error, endpoint: &str) -> Transport {
    let message = match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => {
            format!("TLS: nobody trusted has signed the certificate of {endpoint}")
        }
        rustls::Error::InvalidMessage(_) => format!("TLS: {endpoint} does not speak TLS"),
        error => format!("TLS: {endpoint}: {error}"),
    };
    unsent(ErrorKind::Unreachable, one_line(message))
}

fn sent(kind: ErrorKind, message: String) -> Transport {
    Transport { kind, message, sent: true }
}

fn unsent(kind: ErrorKind, message: String) -> Transport {
    Transport { kind, message, sent: false }
}

/// The error and all below it. An `io::Error` hides its payload from `source`, so it is asked for that first.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(payload) => Some(payload as &(dyn Error + 'static)),
        None => error.source(),
    })
}

/// What others say goes into logs and terminals: one line, printable, not endless.
pub(super) fn one_line(text: impl AsRef<str>) -> String {
    const LONGEST: usize = 300;
    let words: Vec<_> = text.as_ref().split_whitespace().collect();
    words.join(" ").chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_found_below_their_wrapping() {
        let refused = io::Error::other(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(
            classify(&refused, false, "http://h"),
            Transport { kind: ErrorKind::Unreachable, message: "http://h refuses the connection".to_owned(), sent: false }
        );
        let tls = io::Error::other(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer));
        assert!(classify(&tls, false, "https://h").message.starts_with("TLS: "));
        let reset = io::Error::from_raw_os_error(104);
        assert!(classify(&reset, false, "http://h").sent);
        assert_eq!(classify(&io::Error::other("late"), true, "http://h").kind, ErrorKind::Timeout);
        let none = CredentialsError::not_loaded("no providers in chain");
        assert_eq!(classify(&none, false, "").kind, ErrorKind::Credentials);
    }

    #[test]
    fn foreign_text_becomes_one_short_line() {
        assert_eq!(one_line(" a\n b\u{1b}[31m\tc "), "a b[31m c");
        assert_eq!(one_line("x".repeat(1000)).len(), 300);
    }
}
