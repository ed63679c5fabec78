//! A version's name, in as little memory as it takes: there is one for each name that is known, and for each cached file.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The store's name for one version of an object's bytes, without quotes. Opaque; equal means the same bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ETag(Text);

/// INVARIANT: a text that can be held as `Hex` is, so that equal ones are equal.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Text {
    /// 32 digits in lower case, as nearly all are.
    Hex([u8; 16]),
    Other(Arc<str>),
}

impl ETag {
    /// Takes the header's text, with or without its quotes.
    pub fn new(text: &str) -> Self {
        let text = text.trim().trim_matches('"');
        Self(from_hex(text).map_or_else(|| Text::Other(text.into()), Text::Hex))
    }

    pub fn text(&self) -> Cow<'_, str> {
        match &self.0 {
            Text::Hex(bytes) => Cow::Owned(format!("{:032x}", u128::from_be_bytes(*bytes))),
            Text::Other(text) => Cow::Borrowed(text),
        }
    }

    /// The header's form, in quotes.
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.text())
    }
}

fn from_hex(text: &str) -> Option<[u8; 16]> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_hex = text.len() == 32 && text.bytes().all(is_digit);
    u128::from_str_radix(text, 16).ok().filter(|_| is_hex).map(u128::to_be_bytes)
}

/// As the texts.
impl Ord for ETag {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text().cmp(&other.text())
    }
}

impl PartialOrd for ETag {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for ETag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("ETag").field(&self.text()).finish()
    }
}

impl Serialize for ETag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for ETag {
    /// As it was serialised: nothing is trimmed.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Ok(Self(from_hex(&text).map_or_else(|| Text::Other((&*text).into()), Text::Hex)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_what_it_was() {
        for text in [
            "",
            "0",
            "00000000000000000000000000000000",
            "d41d8cd98f00b204e9800998ecf8427e",
            "D41D8CD98F00B204E9800998ECF8427E",
            "d41d8cd98f00b204e9800998ecf8427e-2",
            "+41d8cd98f00b204e9800998ecf8427e",
            "d41d8cd98f00b204e9800998ecf8427",
            "d41d8cd98f00b204e9800998ecf8427e of d41d8cd98f00b204e9800998ecf8427e",
            "é1d8cd98f00b204e9800998ecf8427e",
        ] {
            let etag = ETag::new(text);
            assert_eq!((&*etag.text(), etag.quoted()), (text, format!("\"{text}\"")));
            assert_eq!(ETag::new(&etag.quoted()), etag);
            let json = serde_json::to_string(&etag).unwrap();
            assert_eq!((json.as_str(), serde_json::from_str::<ETag>(&json).unwrap()), (&*etag.quoted(), etag));
        }
        assert!(ETag::new("d41d8cd98f00b204e9800998ecf8427e-2") > ETag::new("d41d8cd98f00b204e9800998ecf8427e"));
        assert_ne!(ETag::new("d41d8cd98f00b204e9800998ecf8427e"), ETag::new("D41D8CD98F00B204E9800998ECF8427E"));
    }

    #[test]
    fn most_take_no_more_than_themselves() {
        assert_eq!(size_of::<ETag>(), 24);
    }
}
