//! From a store's error to its cause and its fix, in plain words. Pure.

use super::report::Step;
use crate::store::{ErrorKind, StoreError, remedy};

/// The bucket that is looked at, as messages need it.
#[derive(Clone, Debug)]
pub struct About {
    pub bucket: String,
    /// Empty, or ends in a slash.
    pub prefix: String,
    pub endpoint: String,
    pub region: String,
    pub r2: bool,
}

/// What went wrong, and what to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub what: String,
    pub fix: String,
}

/// The cause of `error`, which came of trying `step`.
pub fn cause(step: Step, error: &StoreError, about: &About) -> Cause {
    let what = error.message.trim_end_matches('.').to_owned();
    let fix = match error.kind {
        ErrorKind::Denied if !what.contains("text/html") => return Cause { what: denied(step, &what), fix: allow(step, about) },
        ErrorKind::Credentials => credentials(&what),
        ErrorKind::WrongRegion => right_region(&what).map(|region| format!("give --region {region}")),
        ErrorKind::NoSuchBucket => Some(format!(
            "check the name {:?} and --endpoint-url, or make the bucket (aws s3 mb s3://{}); names of other accounts' buckets look the same",
            about.bucket, about.bucket
        )),
        ErrorKind::Unreachable if what.starts_with("TLS: ") => Some(certificate(&what).to_owned()),
        ErrorKind::Unsupported => {
            Some(format!("the store lacks what {} needs: use another store or a newer version of it", step.names().1))
        }
        _ => None,
    };
    let fix = fix.or_else(|| remedy(error).map(str::to_owned)).unwrap_or_else(|| "see what the store's own log says of it".to_owned());
    Cause { what, fix }
}

fn denied(step: Step, what: &str) -> String {
    match action(step) {
        Some(action) => format!("the key is known and lacks the right {action} ({what})"),
        None => format!("the key is known and lacks a right ({what})"),
    }
}

/// The right that S3 asks for in this step.
pub fn action(step: Step) -> Option<&'static str> {
    Some(match step {
        Step::List | Step::Bucket => "s3:ListBucket",
        Step::Put | Step::Multipart | Step::Conditions | Step::Checksums | Step::Rules => "s3:PutObject",
        Step::Head | Step::Get => "s3:GetObject",
        Step::Copy => "s3:GetObject or s3:PutObject (for a copy)",
        Step::Uploads => "s3:ListBucketMultipartUploads or s3:AbortMultipartUpload",
        Step::Delete => "s3:DeleteObject",
        _ => return None,
    })
}

fn allow(step: Step, about: &About) -> String {
    let About { bucket, prefix, .. } = about;
    if about.r2 {
        return format!(
            "make an R2 token \"Object Read & Write\" for the bucket {bucket:?}; R2 also answers 403 where it is asked too fast: try again in a minute"
        );
    }
    match step {
        Step::List | Step::Bucket => format!("allow s3:ListBucket on arn:aws:s3:::{bucket}; see the policy below"),
        Step::Uploads => format!(
            "allow s3:ListBucketMultipartUploads on arn:aws:s3:::{bucket} and s3:AbortMultipartUpload on arn:aws:s3:::{bucket}/{prefix}*; see \
             the policy below"
        ),
        _ => {
            let action = action(step).unwrap_or("s3:GetObject and s3:PutObject");
            format!(
                "allow {action} on arn:aws:s3:::{bucket}/{prefix}*; see the policy below, and look for a Deny in the bucket's own policy"
            )
        }
    }
}

fn credentials(what: &str) -> Option<String> {
    let says = |word: &str| what.contains(word);
    let fix = if says("InvalidAccessKeyId") || says("access key") {
        "the access key is unknown there: check AWS_ACCESS_KEY_ID (R2: R2_ACCESS_KEY_ID), and that the key belongs to this endpoint"
    } else if says("SignatureDoesNotMatch") {
        "the secret does not belong to this access key: check AWS_SECRET_ACCESS_KEY (R2: R2_SECRET_ACCESS_KEY) for missing or extra letters"
    } else if says("ExpiredToken") || says("TokenRefreshRequired") {
        "the credentials have expired: get new ones, or a source that renews them (role, credential_process)"
    } else if says("InvalidToken") {
        "check AWS_SESSION_TOKEN: it belongs to another key, or must not be set for a permanent one"
    } else {
        return None;
    };
    Some(fix.to_owned())
}

/// As the message quotes it.
fn right_region(what: &str) -> Option<&str> {
    what.split_once("is in region \"")?.1.split('"').next()
}

/// What to do about a failed handshake.
pub fn certificate(what: &str) -> &'static str {
    let says = |word: &str| what.contains(word);
    if says("does not speak TLS") {
        "the port speaks plain HTTP: write http:// in --endpoint-url, or give the port that speaks TLS"
    } else if says("nobody trusted") || says("UnknownIssuer") {
        "give the certificate of its authority (or the self-signed one) with --ca-file FILE.pem"
    } else if says("xpired") {
        "the certificate has expired: renew it on the server, and check this machine's date"
    } else if says("NotValidForName") || says("not valid for name") {
        "the certificate is for another name: write that name in --endpoint-url"
    } else if says("NotValidYet") || says("not valid yet") {
        "the certificate is not valid yet: check this machine's date"
    } else {
        "check the endpoint's scheme (http:// or https://) and name, or trust its certificate with --ca-file"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(r2: bool) -> About {
        About { bucket: "b".into(), prefix: "p/".into(), endpoint: "http://h".into(), region: "us-east-1".into(), r2 }
    }

    #[test]
    fn each_error_has_a_cause_and_a_fix() {
        use ErrorKind::*;
        for (step, kind, message, what, fix) in [
            (
                Step::Put,
                Denied,
                "AccessDenied: no.",
                "lacks the right s3:PutObject (AccessDenied: no)",
                "allow s3:PutObject on arn:aws:s3:::b/p/*",
            ),
            (Step::List, Denied, "AccessDenied", "s3:ListBucket", "allow s3:ListBucket on arn:aws:s3:::b;"),
            (Step::Head, Denied, "403", "s3:GetObject", "s3:GetObject"),
            (Step::Delete, Denied, "403", "s3:DeleteObject", "s3:DeleteObject"),
            (Step::Uploads, Denied, "403", "s3:AbortMultipartUpload", "s3:ListBucketMultipartUploads"),
            (Step::List, Denied, "http://h answers with status 403 and \"text/html\"", "text/html", "web server"),
            (Step::List, Credentials, "InvalidAccessKeyId: unknown", "InvalidAccessKeyId", "access key is unknown"),
            (Step::List, Credentials, "SignatureDoesNotMatch: they differ", "SignatureDoesNotMatch", "secret does not belong"),
            (Step::List, Credentials, "ExpiredToken", "ExpiredToken", "have expired"),
            (Step::List, Credentials, "no credentials found", "no credentials", "AWS_ACCESS_KEY_ID"),
            (Step::List, WrongRegion, "bucket \"b\" is in region \"eu-1\", not in \"us-east-1\"", "eu-1", "--region eu-1"),
            (Step::List, WrongRegion, "bucket \"b\" is not in region \"x\"", "not in region", "--region"),
            (Step::List, NoSuchBucket, "no bucket \"b\" at http://h", "no bucket", "check the name \"b\""),
            (Step::List, ClockSkew, "this machine's clock is 40m behind", "clock", "NTP"),
            (Step::List, Throttled, "SlowDown", "SlowDown", "busy"),
            (Step::List, NotS3, "http://h answers with status 200", "200", "web site"),
            (Step::List, Unreachable, "TLS: http://h does not speak TLS", "TLS", "http:// in --endpoint-url"),
            (Step::List, Unreachable, "TLS: nobody trusted has signed the certificate", "trusted", "--ca-file"),
            (Step::List, Unreachable, "TLS: h: invalid peer certificate: Expired", "Expired", "renew"),
            (Step::List, Unreachable, "TLS: h: invalid peer certificate: NotValidForName", "Name", "another name"),
            (Step::List, Timeout, "no answer within 10 seconds", "no answer", "network"),
            (Step::Copy, Unsupported, "NotImplemented", "NotImplemented", "copy"),
            (Step::Get, Corrupt, "other bytes", "other bytes", "store's own log"),
        ] {
            let found = cause(step, &StoreError::new(kind, "X", "", message), &about(false));
            assert!(found.what.contains(what) && found.fix.contains(fix), "{kind:?} {message}: {found:?}");
        }
    }

    #[test]
    fn on_r2_a_403_may_be_haste() {
        let fix = cause(Step::Put, &StoreError::new(ErrorKind::Denied, "X", "", "AccessDenied"), &about(true)).fix;
        assert!(fix.contains("Object Read & Write") && fix.contains("too fast"), "{fix}");
    }
}
