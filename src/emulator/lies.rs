//! Answers that are well-formed and untrue: listings out of order, twice over, without end or in circles, and sizes and ETags
//! that no object has. Text to text, but for what puts it into an answer.

use http_body_util::BodyExt;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue};
use hyper::{Response, Uri};
use s3s::Body;
use serde::Deserialize;

use super::listing::After;

/// How an answer is untrue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lie {
    /// The entries of a page the wrong way round.
    Unsorted,
    /// Each entry twice.
    Repeated,
    /// After the last page comes another, with names that nobody stored.
    Endless,
    /// The last page says that it goes on, and leads back to the first.
    Circle,
    /// Sizes that are not those of the objects.
    Sizes,
    /// ETags of other versions.
    ETags,
}

/// Made-up names on a page.
const MADE_UP: usize = 1000;
/// What the sizes are off by.
const OFF_BYTES: u64 = 7;

/// The same answer, untrue.
pub async fn tell(lie: Lie, uri: &Uri, response: Response<Body>) -> Response<Body> {
    if !response.status().is_success() {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let query = uri.query().unwrap_or_default();
    if !query.contains("list-type=2") {
        falsify(lie, &mut head.headers);
        return Response::from_parts(head, body);
    }
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let text = listing(lie, query, &String::from_utf8_lossy(&bytes));
    head.headers.remove(CONTENT_LENGTH);
    Response::from_parts(head, Body::from(text))
}

fn falsify(lie: Lie, headers: &mut HeaderMap) {
    let (name, change): (_, fn(&str) -> Option<String>) = match lie {
        Lie::ETags => (ETAG, |etag| Some(other_etag(etag))),
        // A body that is shorter than its length is another fault.
        Lie::Sizes => (CONTENT_RANGE, |range| {
            let (range, size) = range.rsplit_once('/')?;
            Some(format!("{range}/{}", size.parse::<u64>().ok()? + OFF_BYTES))
        }),
        _ => return,
    };
    let changed = headers.get(&name).and_then(|value| value.to_str().ok()).and_then(change);
    if let Some(value) = changed.and_then(|text| HeaderValue::from_str(&text).ok()) {
        headers.insert(name, value);
    }
}

/// The first digit is another one.
fn other_etag(etag: &str) -> String {
    let mut done = false;
    let other = |c: char| if c == 'a' { 'b' } else { 'a' };
    etag.chars()
        .map(|c| {
            if !done && c.is_ascii_hexdigit() {
                done = true;
                other(c)
            } else {
                c
            }
        })
        .collect()
}

/// A page of ListObjectsV2, as the emulator writes it.
fn listing(lie: Lie, query: &str, page: &str) -> String {
    match lie {
        Lie::Unsorted => rearranged(page, |blocks| blocks.reverse()),
        Lie::Repeated => rearranged(page, |blocks| blocks.extend(blocks.clone())),
        Lie::Sizes => replaced(page, "Size", |size| size.parse::<u64>().map_or(size.to_owned(), |size| (size + OFF_BYTES).to_string())),
        Lie::ETags => replaced(page, "ETag", |etag| {
            let bare = etag.trim_start_matches("&quot;");
            format!("{}{}", &etag[..etag.len() - bare.len()], other_etag(bare))
        }),
        Lie::Circle if page.contains("<IsTruncated>false") => {
            // There and back: two tokens that lead to one another.
            let start = After::Start.token();
            let other = After::Key(String::new()).token();
            going_on(page, if query.contains(&start) { &other } else { &start })
        }
        Lie::Endless if page.contains("<IsTruncated>false") => {
            let prefix = element(page, "Prefix").unwrap_or_default();
            let number = rand::random::<u32>();
            let entry = |at: usize| {
                format!(
                    "<Contents><Key>{prefix}~{number:08x}{at:04}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                     <ETag>&quot;{at:032x}&quot;</ETag><Size>1</Size><StorageClass>STANDARD</StorageClass></Contents>"
                )
            };
            let made_up: String = (0..MADE_UP).map(entry).collect();
            let page = page.replacen("</ListBucketResult>", &format!("{made_up}</ListBucketResult>"), 1);
            going_on(&page, &After::Key(format!("\u{10ffff}{number}")).token())
        }
        Lie::Circle | Lie::Endless => page.to_owned(),
    }
}

fn going_on(page: &str, token: &str) -> String {
    let page = page.replacen("<IsTruncated>false</IsTruncated>", "<IsTruncated>true</IsTruncated>", 1);
    page.replacen("</ListBucketResult>", &format!("<NextContinuationToken>{token}</NextContinuationToken></ListBucketResult>"), 1)
}

fn element<'a>(page: &'a str, tag: &str) -> Option<&'a str> {
    let start = page.find(&format!("<{tag}>"))? + tag.len() + 2;
    page[start..].split('<').next()
}

/// The entries of the page taken out, changed, and put to its end.
fn rearranged(page: &str, change: impl Fn(&mut Vec<String>)) -> String {
    let mut page = page.to_owned();
    for tag in ["Contents", "CommonPrefixes"] {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        let mut blocks = Vec::new();
        while let Some(start) = page.find(&open) {
            let end = page[start..].find(&close).map_or(page.len(), |end| start + end + close.len());
            blocks.push(page[start..end].to_owned());
            page.replace_range(start..end, "");
        }
        change(&mut blocks);
        page = page.replacen("</ListBucketResult>", &format!("{}</ListBucketResult>", blocks.concat()), 1);
    }
    page
}

fn replaced(page: &str, tag: &str, change: impl Fn(&str) -> String) -> String {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let mut parts = page.split(&open);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (text, rest) = part.split_once(&close).unwrap_or((part, ""));
        out.push_str(&format!("{open}{}{close}{rest}", change(text)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "<ListBucketResult><IsTruncated>false</IsTruncated><Prefix>p/</Prefix>\
        <Contents><Key>p/a</Key><ETag>&quot;a1&quot;</ETag><Size>1</Size></Contents>\
        <Contents><Key>p/b</Key><ETag>&quot;52&quot;</ETag><Size>2</Size></Contents></ListBucketResult>";

    #[test]
    fn each_lie_is_told() {
        let keys =
            |page: &str| page.split("<Key>").skip(1).filter_map(|rest| rest.split('<').next().map(str::to_owned)).collect::<Vec<_>>();
        assert_eq!(keys(&listing(Lie::Unsorted, "", PAGE)), ["p/b", "p/a"]);
        assert_eq!(keys(&listing(Lie::Repeated, "", PAGE)), ["p/a", "p/b", "p/a", "p/b"]);
        assert!(listing(Lie::Sizes, "", PAGE).contains("<Size>8</Size>"));
        let etags = listing(Lie::ETags, "", PAGE);
        assert!(etags.contains("&quot;b1&quot;") && etags.contains("&quot;a2&quot;"), "{etags}");
        let endless = listing(Lie::Endless, "", PAGE);
        assert_eq!(keys(&endless).len(), 2 + MADE_UP);
        assert!(endless.contains("<IsTruncated>true") && element(&endless, "NextContinuationToken").is_some());
        let there = listing(Lie::Circle, "list-type=2", PAGE);
        let back = listing(Lie::Circle, &format!("continuation-token={}", After::Start.token()), PAGE);
        let token = |page: &str| After::from_token(element(page, "NextContinuationToken").unwrap_or_default());
        assert_eq!((token(&there), token(&back)), (Some(After::Start), Some(After::Key(String::new()))));
    }
}
