//! What the store does with conditions, checksums and haste, and whether the public address leads to the same objects.

use super::cause::{About, cause};
use super::report::{Sheet, Step};
use super::rights::Written;
use super::scratch::{Scratch, within};
use crate::store::s3::{BareAnswer, S3Config, fetch};
use crate::store::{Body, Condition, ErrorKind, Result, StoreError, md5, plain_etag};
use crate::types::ETag;

/// Needs the first object, which `written` is.
pub async fn examine(scratch: &Scratch, written: Option<&Written>, exclusive: bool, about: &About, sheet: &mut Sheet<'_>) {
    let Some(written) = written else {
        return sheet.skip_rest(&[Step::Conditions, Step::Checksums, Step::Rules], "there is no object to try it on");
    };
    conditions(scratch, written, exclusive, about, sheet).await;
    checksums(scratch, written, about, sheet).await;
    rules(scratch, about, sheet).await;
}

/// What a store does with a condition that doesn't hold.
#[derive(Clone, Debug)]
enum Verdict {
    Honoured,
    Ignored,
    Refused(StoreError),
}

fn verdict<T>(answer: Result<T>) -> Verdict {
    match answer {
        Ok(_) => Verdict::Ignored,
        Err(error) if error.is(ErrorKind::PreconditionFailed) => Verdict::Honoured,
        Err(error) => Verdict::Refused(error),
    }
}

async fn conditions(scratch: &Scratch, written: &Written, exclusive: bool, about: &About, sheet: &mut Sheet<'_>) {
    let key = &written.version.key;
    let stranger = Condition::IfMatch(ETag::new(&"0".repeat(32)));
    let tried = within(async {
        Ok([
            ("If-None-Match: *", verdict(scratch.put(key, &written.body, &Condition::IfAbsent).await)),
            ("If-Match", verdict(scratch.put(key, &written.body, &stranger).await)),
            ("If-None-Match: * of a multipart upload", completed(scratch, written).await),
        ])
    });
    let verdicts = tried.await.unwrap_or_else(|error| ["", "", ""].map(|name| (name, Verdict::Refused(error.clone()))));
    let refused = verdicts.iter().find_map(|(_, verdict)| if let Verdict::Refused(error) = verdict { Some(error) } else { None });
    if let Some(error) = refused {
        let found = cause(Step::Conditions, error, about);
        return sheet.fail(Step::Conditions, found.what, found.fix);
    }
    let ignored: Vec<_> = verdicts.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Ignored)).map(|(name, _)| *name).collect();
    if ignored.is_empty() {
        return sheet.pass(Step::Conditions, "honoured: nobody's change is overwritten unseen");
    }
    let what =
        format!("the store ignores {}: a file that another host changed meanwhile is overwritten without a conflict", ignored.join(", "));
    let fix = "use a store (or a newer version of it) with conditional writes, or let one mount alone write here (--exclusive)";
    if exclusive { sheet.warn(Step::Conditions, what, fix) } else { sheet.fail(Step::Conditions, what, fix) }
}

/// An upload for the name of the first object, which is taken.
async fn completed(scratch: &Scratch, written: &Written) -> Verdict {
    let key = &written.version.key;
    let sent = async {
        let id = scratch.create(key).await?;
        let part = scratch.part(key, &id, &written.body).await?;
        let done = scratch.complete(key, &id, &part, &Condition::IfAbsent).await;
        Ok(verdict(done))
    };
    sent.await.unwrap_or_else(Verdict::Refused)
}

async fn checksums(scratch: &Scratch, written: &Written, about: &About, sheet: &mut Sheet<'_>) {
    let bytes = written.body.bytes.clone();
    let wrong = Body { bytes, md5: md5(b"something else") };
    let is_md5 = written.version.etag == plain_etag(&written.body.md5);
    match scratch.put_once(&scratch.key("checksum"), &wrong).await {
        // Found by the ETag of the answer, not by the store.
        Err(error) if error.is(ErrorKind::Corrupt) && error.message.starts_with("the store has other bytes") => unchecked(sheet),
        Ok(_) => unchecked(sheet),
        Err(error) if error.is(ErrorKind::Corrupt) || error.message.contains("Digest") => match is_md5 {
            true => sheet.pass(Step::Checksums, "uploads are checked by Content-MD5, and the ETag is the MD5"),
            false => sheet.warn(
                Step::Checksums,
                "uploads are checked by Content-MD5, but the ETag is not the MD5: a wrong byte on the way back is not noticed",
                "nothing to do where the bucket encrypts with keys of its own (SSE-KMS, SSE-C); else ask who runs the store",
            ),
        },
        Err(error) => {
            let found = cause(Step::Checksums, &error, about);
            sheet.fail(Step::Checksums, found.what, found.fix);
        }
    }
}

fn unchecked(sheet: &mut Sheet<'_>) {
    let what = "the store takes an upload whose Content-MD5 is wrong";
    sheet.warn(
        Step::Checksums,
        what,
        "use https:// and a store that checks Content-MD5: a byte that turns over on the way is stored as it is",
    );
}

/// Two writes to one key at once, which R2 refuses.
async fn rules(scratch: &Scratch, about: &About, sheet: &mut Sheet<'_>) {
    let (key, body) = (scratch.key("pace"), Body::new("again\n"));
    let (first, second) = (scratch.put_once(&key, &body).await, scratch.put_once(&key, &body).await);
    let hasty = [&first, &second].into_iter().any(|sent| sent.as_ref().is_err_and(|error| error.is(ErrorKind::Throttled)));
    match (about.r2, hasty) {
        (true, true) => sheet.pass(Step::Rules, "R2: one write a second for each key, parts of equal size; mediafs keeps to both"),
        (true, false) => sheet.pass(Step::Rules, "R2: mediafs writes each key once a second and cuts parts of equal size"),
        (false, true) => sheet.fail(
            Step::Rules,
            "the store refuses a second write to a key within a second, as R2 does",
            format!("if it is R2 behind another name, say so: r2://{} instead of s3://{}", about.bucket, about.bucket),
        ),
        (false, false) => match [first, second].into_iter().find_map(Result::err) {
            None => sheet.pass(Step::Rules, "not R2: a key may be written again at once"),
            Some(error) => {
                let found = cause(Step::Rules, &error, about);
                sheet.fail(Step::Rules, found.what, found.fix);
            }
        },
    }
}

/// Whether `base` leads to what lies below the prefix: by the first object.
pub async fn public_url(config: &S3Config, base: Option<&str>, written: Option<&Written>, about: &About, sheet: &mut Sheet<'_>) {
    let Some(base) = base else { return sheet.skip(Step::PublicUrl, "no --public-url-base is given") };
    let Some(written) = written else { return sheet.skip(Step::PublicUrl, "there is no object of ours to ask for") };
    let url = format!("{}/{}", base.trim_end_matches('/'), written.version.key.as_str());
    let answer = within(fetch(config, &url, false, None)).await;
    match answer {
        Ok(answer) => match wrong(&answer, base, &written.body, about) {
            None => sheet.pass(Step::PublicUrl, format!("{base} gives the objects to everybody")),
            Some((what, fix)) => sheet.fail(Step::PublicUrl, what, fix),
        },
        Err(error) => sheet.fail(Step::PublicUrl, error.message, "check --public-url-base: host, port, and http:// or https://"),
    }
}

/// Whether a page of `origin` may read the objects: at the public address, else by a signed link.
pub async fn cors(
    scratch: &Scratch,
    config: &S3Config,
    base: Option<&str>,
    origin: Option<&str>,
    written: Option<&Written>,
    sheet: &mut Sheet<'_>,
) {
    let Some(origin) = origin else { return sheet.skip(Step::Cors, "not asked for with --cors ORIGIN") };
    let Some(written) = written else { return sheet.skip(Step::Cors, "there is no object of ours to ask for") };
    let url = match base {
        Some(base) => format!("{}/{}", base.trim_end_matches('/'), written.version.key.as_str()),
        None => match scratch.link(&written.version.key).await {
            Ok(url) => url,
            Err(error) => return sheet.fail(Step::Cors, error.message, "see above"),
        },
    };
    match within(fetch(config, &url, false, Some(origin))).await {
        Ok(answer) => match refused_origin(&answer, origin) {
            None => sheet.pass(Step::Cors, format!("pages of {origin} may read the objects")),
            Some(what) => {
                let fix = match base {
                    Some(_) => {
                        format!("allow GET for {origin} in the CORS rules of the bucket, and have the CDN pass the Origin header on")
                    }
                    None => format!(
                        "allow GET for {origin} in the bucket's CORS rules (S3: aws s3api put-bucket-cors; R2: the bucket's settings)"
                    ),
                };
                sheet.fail(Step::Cors, what, fix);
            }
        },
        Err(error) => sheet.fail(Step::Cors, error.message, "see public URL and endpoint above"),
    }
}

fn refused_origin(answer: &BareAnswer, origin: &str) -> Option<String> {
    match (answer.status, answer.allowed_origin.as_deref()) {
        (200, Some(allowed)) if allowed == "*" || allowed == origin => None,
        (200, Some(allowed)) => Some(format!("browsers let pages of {allowed} read the objects, not those of {origin}")),
        (200, None) => Some(format!("browsers let no page of {origin} read the objects: the answer has no Access-Control-Allow-Origin")),
        (status, _) => Some(format!("the object can't be had: status {status}")),
    }
}

fn wrong(answer: &BareAnswer, base: &str, body: &Body, about: &About) -> Option<(String, String)> {
    let status = answer.status;
    let place = if about.prefix.is_empty() { "the bucket's root".to_owned() } else { format!("what lies below {:?}", about.prefix) };
    Some(match status {
        200 if answer.body == body.bytes => return None,
        200 => (
            format!("{base} answers with something else than the object ({})", answer.content_type.as_deref().unwrap_or("no Content-Type")),
            format!("check --public-url-base: it must lead to {place}, not to a site of its own"),
        ),
        301..=308 => {
            let to = answer.location.as_deref().unwrap_or("another place");
            (format!("{base} sends everybody on to {to}"), "give --public-url-base the address that it leads to".to_owned())
        }
        401 | 403 => (
            format!("{base} refuses strangers (status {status})"),
            "make the bucket public there (R2: a custom domain; S3: a bucket policy or CloudFront), or leave --public-url-base out for \
             presigned URLs"
                .to_owned(),
        ),
        404 => (
            format!("{base} does not find the object (status 404)"),
            format!("check --public-url-base: it must lead to {place} of the bucket {:?}", about.bucket),
        ),
        _ => (format!("{base} answers with status {status}"), "look at the web server or CDN behind --public-url-base".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_an_origin_may_read_or_not() {
        let answer =
            |status, allowed: Option<&str>| BareAnswer { status, allowed_origin: allowed.map(Into::into), ..BareAnswer::default() };
        let site = "https://example.com";
        for allowed in ["*", site] {
            assert_eq!(refused_origin(&answer(200, Some(allowed)), site), None);
        }
        for (answer, part) in [
            (answer(200, None), "no Access-Control-Allow-Origin"),
            (answer(200, Some("https://other.example")), "pages of https://other.example"),
            (answer(403, None), "status 403"),
        ] {
            assert!(refused_origin(&answer, site).is_some_and(|text| text.contains(part)), "{part}");
        }
    }

    #[test]
    fn answers_of_a_public_address() {
        let about = About { bucket: "b".into(), prefix: "p/".into(), endpoint: String::new(), region: String::new(), r2: false };
        let body = Body::new("x");
        let answer = |status, text: &'static str| BareAnswer { status, body: text.into(), ..BareAnswer::default() };
        assert_eq!(wrong(&answer(200, "x"), "http://h", &body, &about), None);
        for (answer, what, fix) in [
            (answer(200, "y"), "something else", "below \"p/\""),
            (answer(302, ""), "sends everybody on", "leads to"),
            (answer(403, ""), "refuses strangers", "public"),
            (answer(404, ""), "does not find", "bucket \"b\""),
            (answer(502, ""), "status 502", "CDN"),
        ] {
            let (found, advice) = wrong(&answer, "http://h", &body, &about).expect(what);
            assert!(found.contains(what) && advice.contains(fix), "{found} / {advice}");
        }
    }
}
