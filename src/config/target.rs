//! Which bucket, where: `s3://BUCKET/PREFIX`, `r2://BUCKET/PREFIX` and endpoints. Pure.

use super::{ConfigError, error};

/// What every R2 endpoint ends in, the jurisdictions' (`ACCOUNT.eu.r2…`) too.
const R2_HOST: &str = "r2.cloudflarestorage.com";

/// The bucket and the part of it that is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketUrl {
    pub bucket: String,
    /// Empty, or ends in a slash.
    pub prefix: String,
    /// It was `r2://`.
    pub r2: bool,
}

/// Takes `s3://BUCKET[/PREFIX]` or `r2://BUCKET[/PREFIX]`.
pub fn bucket_url(text: &str) -> Result<BucketUrl, ConfigError> {
    let wrong = |why: &str| error(format!("{text:?}: {why}; write s3://BUCKET or s3://BUCKET/PREFIX (r2://… for Cloudflare R2)"));
    let (r2, rest) = match text.split_once("://") {
        Some(("s3", rest)) => (false, rest),
        Some(("r2", rest)) => (true, rest),
        _ => return Err(wrong("not a bucket")),
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if bucket.is_empty() {
        return Err(wrong("the bucket's name is missing"));
    }
    if !bucket.bytes().all(allowed) || !(3..=255).contains(&bucket.len()) {
        return Err(wrong("that can't be a bucket's name (3 or more letters, digits, dots and hyphens)"));
    }
    let prefix = prefix.trim_end_matches('/');
    if !prefix.is_empty() && prefix.split('/').any(|part| matches!(part, "" | "." | "..") || part.contains(char::is_control)) {
        return Err(wrong("the prefix has an empty part, . or .. in it"));
    }
    let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    Ok(BucketUrl { bucket: bucket.to_owned(), prefix, r2 })
}

impl BucketUrl {
    /// How the mount is named everywhere: `s3://BUCKET/PREFIX`.
    pub fn source(&self) -> String {
        let scheme = if self.r2 { "r2" } else { "s3" };
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        format!("{scheme}://{}{slash}{}", self.bucket, self.prefix.trim_end_matches('/'))
    }
}

/// A checked endpoint, without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub url: String,
    host: String,
}

/// Takes `http://HOST[:PORT]` or `https://HOST[:PORT]`, perhaps with a path.
pub fn endpoint(text: &str) -> Result<Endpoint, &'static str> {
    const WRONG: &str = "write a URL like https://s3.example.com or http://127.0.0.1:9000";
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or(WRONG)?;
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let good_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
    let good_host = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | '?' | '#'));
    if !good_host || !good_port || rest.contains(['?', '#']) || rest.contains(char::is_whitespace) {
        return Err(WRONG);
    }
    Ok(Endpoint { url: text.trim_end_matches('/').to_owned(), host: host.to_ascii_lowercase() })
}

impl Endpoint {
    pub fn is_r2(&self) -> bool {
        self.host == R2_HOST || self.host.ends_with(&format!(".{R2_HOST}"))
    }

    /// Data and names pass a network unprotected.
    pub fn is_exposed(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let address = host.parse::<std::net::IpAddr>();
        let is_local = host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|address| address.is_loopback());
        self.url.starts_with("http://") && !is_local
    }
}

/// The endpoint of an R2 account.
pub fn r2_endpoint(account: &str) -> Result<Endpoint, ConfigError> {
    if account.is_empty() || !account.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-')) {
        return Err(error("R2_ACCOUNT_ID: write the account's 32 hexadecimal digits, as in the dashboard's address".to_owned()));
    }
    Ok(Endpoint { url: format!("https://{account}.{R2_HOST}"), host: format!("{account}.{R2_HOST}").to_ascii_lowercase() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_urls() {
        for (text, bucket, prefix, r2, source) in [
            ("s3://media", "media", "", false, "s3://media"),
            ("s3://media/", "media", "", false, "s3://media"),
            ("s3://media/a/b", "media", "a/b/", false, "s3://media/a/b"),
            ("s3://media/a/b/", "media", "a/b/", false, "s3://media/a/b"),
            ("r2://my.media-1/ü x", "my.media-1", "ü x/", true, "r2://my.media-1/ü x"),
        ] {
            let parsed = bucket_url(text).expect(text);
            assert_eq!((parsed.bucket.as_str(), parsed.prefix.as_str(), parsed.r2), (bucket, prefix, r2), "{text}");
            assert_eq!(parsed.source(), source);
        }
    }

    #[test]
    fn what_is_no_bucket_is_refused_with_an_example() {
        for text in [
            "",
            "media",
            "/srv/media",
            "s3:media",
            "http://media",
            "s3://",
            "s3:///a",
            "s3://a b",
            "s3://ab",
            "s3://media/../x",
            "s3://media//x",
        ] {
            let error = bucket_url(text).expect_err(text).to_string();
            assert!(error.contains("s3://BUCKET"), "{error}");
        }
    }

    #[test]
    fn endpoints() {
        for (text, r2, exposed) in [
            ("https://s3.example.com", false, false),
            ("http://127.0.0.1:9000", false, false),
            ("http://localhost:9000/", false, false),
            ("http://[::1]:9000", false, false),
            ("http://minio.lan:9000", false, true),
            ("http://10.0.0.1", false, true),
            ("https://0123abcd.r2.cloudflarestorage.com", true, false),
            ("https://0123abcd.eu.r2.cloudflarestorage.com/", true, false),
            ("https://evil-r2.cloudflarestorage.com.example.org", false, false),
        ] {
            let parsed = endpoint(text).expect(text);
            assert_eq!((parsed.is_r2(), parsed.is_exposed()), (r2, exposed), "{text}");
            assert!(!parsed.url.ends_with('/'));
        }
        for text in
            ["", "s3.example.com", "ftp://x", "https://", "http://h:0", "http://h:99999", "http://a b", "http://u:p@h", "http://h/?x=1"]
        {
            assert!(endpoint(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_r2_account_makes_an_endpoint() {
        assert_eq!(r2_endpoint("0123abcd").map(|endpoint| endpoint.url).ok().as_deref(), Some("https://0123abcd.r2.cloudflarestorage.com"));
        assert!(r2_endpoint("https://x/").is_err());
    }
}
