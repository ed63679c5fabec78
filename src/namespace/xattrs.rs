//! Extended attributes ↔ object metadata, in the form that s3fs writes and reads: all in one value under the name `xattr`,
//! a JSON object of whole names and values in Base64, percent-encoded.
//!
//! Pure. What doesn't parse counts as absent. Only `user.` names are shown, and none that mediafs answers itself;
//! others that another program keeps there (`security.capability` among them) are left alone and never believed.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

const METADATA: &str = "xattr";

const PREFIX: &str = "user.";
/// Linux's XATTR_NAME_MAX. A NUL would end a name in a list of them.
const NAME_LIMIT_BYTES: usize = 255;
/// Answered by the file system, so never kept.
const ANSWERED: [&str; 2] = ["user.mediafs.", "user.s3."];

/// What a header, a proxy or the decoding of RFC 2047 words might not leave as it is. Base64's own characters stay.
const NOT_PLAIN: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'"').add(b',').add(b'?').add(b'\\').add(b'{').add(b'}');

/// True for the metadata's own name.
pub fn is_metadata(name: &str) -> bool {
    name == METADATA
}

/// The attributes by their whole names.
pub fn decode(metadata: &BTreeMap<String, String>) -> BTreeMap<String, Vec<u8>> {
    let kept = parse(metadata).into_iter().filter(|(name, _)| is_shown(name));
    kept.filter_map(|(name, value)| Some((name, BASE64.decode(value).ok()?))).collect()
}

pub fn get(metadata: &BTreeMap<String, String>, name: &str) -> Option<Vec<u8>> {
    decode(metadata).remove(name)
}

/// Sets one attribute, or removes it.
pub fn set(metadata: &mut BTreeMap<String, String>, name: &str, value: Option<&[u8]>) {
    let mut all = parse(metadata);
    match value {
        Some(value) => all.insert(name.to_owned(), BASE64.encode(value)),
        None => all.remove(name),
    };
    if all.is_empty() {
        metadata.remove(METADATA);
        return;
    }
    let pairs: Vec<String> = all.iter().map(|(name, value)| format!("{}:{}", quoted(name), quoted(value))).collect();
    let json = format!("{{{}}}", pairs.join(","));
    metadata.insert(METADATA.to_owned(), utf8_percent_encode(&json, NOT_PLAIN).to_string());
}

/// A JSON string. s3fs takes any comma for the end of an attribute, so there is none.
fn quoted(name: &str) -> String {
    serde_json::Value::from(name).to_string().replace(',', "\\u002c")
}

fn is_shown(name: &str) -> bool {
    let is_name = (PREFIX.len() + 1..=NAME_LIMIT_BYTES).contains(&name.len()) && !name.contains('\0');
    is_name && name.starts_with(PREFIX) && !ANSWERED.iter().any(|answered| name.starts_with(answered))
}

fn parse(metadata: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let json = metadata.get(METADATA).and_then(|text| percent_decode_str(text).decode_utf8().ok());
    json.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn metadata(text: &str) -> BTreeMap<String, String> {
        [(METADATA.to_owned(), text.to_owned())].into()
    }

    #[test]
    fn what_s3fs_writes_is_read() {
        let theirs = metadata(
            "%7B%22user.comment%22%3A%22aGk%3D%22%2C%22security.capability%22%3A%22AAAA%22%2C%22user.s3.content-type%22%3A%22eA==%22%7D",
        );
        assert_eq!(decode(&theirs), [("user.comment".to_owned(), b"hi".to_vec())].into());
        let foreign = metadata(&format!("%7B%22user.%5Cu0000%22:%22eA==%22%2C%22user.{}%22:%22eA==%22%7D", "n".repeat(251)));
        assert!(decode(&foreign).is_empty(), "{foreign:?}");
        for broken in ["", "{", "%7B%22a%22%7D", "[1]", "%ff"] {
            assert!(decode(&metadata(broken)).is_empty(), "{broken}");
        }
    }

    #[test]
    fn what_is_written_is_plain_and_others_names_stay() {
        let mut ours = metadata("%7B%22security.capability%22%3A%22AAAA%22%7D");
        set(&mut ours, "user.a,b\"?", Some(b"\0\xff"));
        assert_eq!(ours[METADATA], "%7B%22security.capability%22:%22AAAA%22%2C%22user.a%5Cu002cb%5C%22%3F%22:%22AP8=%22%7D");
        // Another program's value can be any text.
        let mut odd = metadata("%7B%22user.odd%22%3A%22x%5C%5C%5C%22%2C%22%7D");
        set(&mut odd, "user.new", Some(b"new"));
        assert_eq!(get(&odd, "user.new").as_deref(), Some(&b"new"[..]), "{odd:?}");
        set(&mut ours, "user.a,b\"?", None);
        assert_eq!(ours[METADATA], "%7B%22security.capability%22:%22AAAA%22%7D");
    }

    proptest! {
        #[test]
        fn attributes_come_back(pairs in prop::collection::btree_map("user\\.[^s\0m][^\0\n]{0,20}", prop::collection::vec(any::<u8>(), 0..50), 0..4)) {
            let mut metadata = BTreeMap::new();
            for (name, value) in &pairs {
                set(&mut metadata, name, Some(value));
            }
            prop_assert_eq!(decode(&metadata), pairs.clone());
            for name in pairs.keys() {
                set(&mut metadata, name, None);
            }
            prop_assert!(metadata.is_empty());
        }
    }
}
