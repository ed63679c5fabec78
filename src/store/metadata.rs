//! User metadata as it travels: header values, and how much room they take. Pure.

use std::collections::{BTreeMap, HashMap};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

/// Counted for each name: MinIO takes it for a part of the name, AWS and R2 don't.
const NAME_PREFIX_BYTES: usize = "x-amz-meta-".len();

/// What stores count towards their limit, at the most: names with their prefix, and values as they travel.
pub fn metadata_bytes(metadata: &BTreeMap<String, String>) -> usize {
    metadata.iter().map(|(name, value)| NAME_PREFIX_BYTES + name.len() + encode_value(value).len()).sum()
}

/// Metadata as header values. What ASCII headers can't carry goes as RFC 2047 words, the form that R2 and MinIO give
/// back for such values in any case.
pub(in crate::store) fn encode_metadata(metadata: &BTreeMap<String, String>) -> HashMap<String, String> {
    metadata.iter().map(|(name, value)| (name.to_ascii_lowercase(), encode_value(value))).collect()
}

pub(in crate::store) fn decode_metadata(metadata: Option<&HashMap<String, String>>) -> BTreeMap<String, String> {
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
    fn room_is_counted_as_it_travels() {
        let bytes = |value: &str| metadata_bytes(&[("a".to_owned(), value.to_owned())].into());
        assert_eq!(bytes("12345"), 11 + 1 + 5);
        assert_eq!(bytes("\u{fc}"), 11 + 1 + "=?UTF-8?B?w7w=?=".len());
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
