//! Keys as they travel: what the SDK doesn't encode or decode for us. Pure.

use std::borrow::Cow;

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

#[cfg(test)]
mod tests {
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
}
