//! Headers as they are kept: a mount knows those of many files, and most of the time nobody asks for them. Of most files there
//! are none, or none are known; the others are text, a tenth of what they take as a struct with a map in it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ObjectHeaders;

/// JSON, as the journal has it; empty where there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedHeaders(Box<str>);

impl PackedHeaders {
    pub fn get(&self) -> ObjectHeaders {
        // Only `from` makes what isn't empty.
        serde_json::from_str(&self.0).unwrap_or_default()
    }

    pub fn change<T>(&mut self, change: impl FnOnce(&mut ObjectHeaders) -> T) -> T {
        let mut headers = self.get();
        let done = change(&mut headers);
        *self = headers.into();
        done
    }

    /// False: no name and no value in it has this in it.
    pub fn may_say(&self, word: &str) -> bool {
        self.0.contains(word)
    }
}

impl From<ObjectHeaders> for PackedHeaders {
    fn from(headers: ObjectHeaders) -> Self {
        Self::from(&headers)
    }
}

impl From<&ObjectHeaders> for PackedHeaders {
    fn from(headers: &ObjectHeaders) -> Self {
        let is_none = *headers == ObjectHeaders::default();
        Self(if is_none { Box::default() } else { serde_json::to_string(headers).unwrap_or_default().into_boxed_str() })
    }
}

impl Serialize for PackedHeaders {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.get().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PackedHeaders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ObjectHeaders::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_comes_out() {
        let some = ObjectHeaders {
            content_type: Some("image/jpeg".into()),
            content_disposition: Some("attachment; filename=\"\u{fc}.jpg\"".into()),
            metadata: [("mtime".into(), "1700000000.123456789".into()), ("odd\u{1}".into(), "\n\"\\\u{1f600}".into())].into(),
            ..ObjectHeaders::default()
        };
        let mut headers = PackedHeaders::from(&some);
        assert_eq!(headers.get(), some);
        let text = serde_json::to_string(&headers).expect("JSON");
        assert_eq!(text, serde_json::to_string(&some).expect("JSON"), "the journal can't tell them apart");
        assert_eq!(serde_json::from_str::<PackedHeaders>(&text).expect("the same"), headers);
        assert!(headers.may_say("mtime") && !headers.may_say("md5chksum"));
        let old = headers.change(|headers| headers.metadata.remove("odd\u{1}"));
        assert_eq!((old.as_deref(), headers.get().metadata.len()), (Some("\n\"\\\u{1f600}"), 1));
        headers.change(|headers| *headers = ObjectHeaders::default());
        assert!(headers.0.is_empty() && headers.get() == ObjectHeaders::default());
        assert_eq!(serde_json::from_str::<PackedHeaders>("{}").expect("none"), headers);
    }
}
