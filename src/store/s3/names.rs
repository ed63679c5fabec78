//! Keys and metadata as they travel: what the SDK doesn't encode or decode for us. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::types::Key;

/// Everything but RFC 3986's unreserved characters and the slash.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// The form of `x-amz-copy-source`.
pub(super) fn copy_source(bucket: &str, key: &Key) -> String {
    format!("{bucket}/{}", utf8_percent_encode(key.as_str(), PATH))
}

/// A key out of a listing with `encoding-type=url`, which follows the rules of forms: `+` is a space.
/// None where the bytes aren't UTF-8.
pub(super) fn form_decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(Cow::into_owned)
}

/// True where XML 1.0 has no way to write the key, so that it can't stand in the body of a DeleteObjects.
pub(super) fn fits_xml(key: &Key) -> bool {
    key.as_str().chars().all(|c| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..))
}

/// Metadata as header values. What ASCII headers can't carry goes as RFC 2047 words, the form that R2 and MinIO give
/// back for such values in any case.
pub(super) fn encode_metadata(metadata: &BTreeMap<String, String>) -> HashMap<String, String> {
    metadata.iter().map(|(name, value)| (name.to_ascii_lowercase(), encode_value(value))).collect()
}

pub(super) fn decode_metadata(metadata: Option<&HashMap<String, String>>) -> BTreeMap<String, String> {
    metadata.into_iter().flatten().map(|(name, value)| (name.to_ascii_lowercase(), decode_value(value))).collect()
}

/// An RFC 2047 word has at most 75 characters: 12 of frame, and 60 of Base64 for 45 bytes.
const WORD_BYTES: usize = 45;

fn encode_value(value: &str) -> String {
    let plain = value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && value.trim() == value && !value.contains("=?");
    if plain {
        return value.to_owned();
    }
    let mut words = Vec::new();
    let mut rest = value;
    while !rest.is_empty() {
        let mut end = rest.len().min(WORD_BYTES);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        words.push(format!("=?UTF-8?B?{}?=", BASE64.encode(&rest[..end])));
        rest = &rest[end..];
    }
    words.join(" ")
}

/// Joins adjacent encoded words; whatever isn't one in UTF-8 stays as it is.
fn decode_value(value: &str) -> String {
    if !value.contains("=?") {
        return value.to_owned();
    }
    let mut text = Vec::new();
    let mut after_word = false;
    let mut gap = "";
    for piece in value.split_inclusive(' ') {
        let word = piece.trim_end_matches(' ');
        match decode_word(word) {
            Some(bytes) => {
                if !after_word {
                    text.extend_from_slice(gap.as_bytes());
                }
                text.extend(bytes);
                after_word = true;
            }
            None => {
                text.extend_from_slice(gap.as_bytes());
                text.extend_from_slice(word.as_bytes());
                after_word = false;
            }
        }
        gap = &piece[word.len()..];
    }
    text.extend_from_slice(gap.as_bytes());
    String::from_utf8(text).unwrap_or_else(|_| value.to_owned())
}

fn decode_word(word: &str) -> Option<Vec<u8>> {
    let mut fields = word.strip_prefix("=?")?.strip_suffix("?=")?.splitn(3, '?');
    let (charset, encoding, text) = (fields.next()?, fields.next()?, fields.next()?);
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    match encoding {
        "B" | "b" => BASE64.decode(text).ok(),
        "Q" | "q" => decode_quoted(text),
        _ => None,
    }
}

fn decode_quoted(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'_' => b' ',
            b'=' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                (digit(bytes.next())? * 16 + digit(bytes.next())?) as u8
            }
            byte => byte,
        });
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn copy_sources_are_percent_encoded() {
        assert_eq!(copy_source("b", &Key::from("a b/ü+%?#~.jpg")), "b/a%20b/%C3%BC%2B%25%3F%23~.jpg");
    }

    #[test]
    fn listings_decode_by_the_rules_of_forms() {
        for (text, key) in [("a+b", "a b"), ("a%2Bb", "a+b"), ("a%20b", "a b"), ("%C3%BC%01", "ü\u{1}"), ("a/b", "a/b")] {
            assert_eq!(form_decode(text).as_deref(), Some(key), "{text}");
        }
        assert_eq!(form_decode("%ff"), None);
    }

    #[test]
    fn control_characters_do_not_fit_xml() {
        for (key, fits) in [("a b\n\t\r", true), ("ü\u{1F3AC}", true), ("a\u{1}", false), ("\u{FFFE}", false)] {
            assert_eq!(fits_xml(&Key::from(key)), fits, "{key:?}");
        }
    }

    #[test]
    fn other_programs_words_are_read() {
        for (value, text) in [
            ("=?UTF-8?q?gr=C3=BCn?=", "grün"),
            ("=?UTF-8?Q?a_b=3D?=", "a b="),
            ("=?utf-8?b?Z3LDvG4=?=", "grün"),
            ("=?UTF-8?B?Z3I=?= =?UTF-8?B?w7xu?=", "grün"),
            ("a =?UTF-8?q?=C3=BC?= b", "a ü b"),
            ("=?latin1?q?=FC?=", "=?latin1?q?=FC?="),
            ("a  b", "a  b"),
        ] {
            assert_eq!(decode_value(value), text);
        }
    }

    proptest! {
        #[test]
        fn metadata_comes_back(value in ".{0,80}") {
            let sent = encode_value(&value);
            prop_assert!(sent.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(decode_value(&sent), value);
        }

        #[test]
        fn awkward_metadata_comes_back(value in "[ =?UTF8Bbq_ü\n-]{0,24}") {
            prop_assert_eq!(decode_value(&encode_value(&value)), value);
        }
    }
}
