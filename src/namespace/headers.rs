//! The headers that an inode holds: of most files nobody has asked for them, and then they take the room of a pointer. The
//! others are text until somebody asks, a tenth of what they take as a struct with a map in it: a mount knows many files.

use crate::types::ObjectHeaders;

/// JSON, as in the journal; None where there are none.
#[derive(Default)]
pub struct Headers(Option<Box<str>>);

impl Headers {
    pub fn get(&self) -> ObjectHeaders {
        self.0.as_ref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    pub fn change<T>(&mut self, change: impl FnOnce(&mut ObjectHeaders) -> T) -> T {
        let mut headers = self.get();
        let done = change(&mut headers);
        *self = headers.into();
        done
    }

    /// False: no name and no value in it has this in it.
    pub fn may_say(&self, word: &str) -> bool {
        self.0.as_ref().is_some_and(|text| text.contains(word))
    }
}

impl From<ObjectHeaders> for Headers {
    fn from(headers: ObjectHeaders) -> Self {
        let is_none = headers == ObjectHeaders::default();
        Self(if is_none { None } else { serde_json::to_string(&headers).ok().map(String::into_boxed_str) })
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
        let mut headers = Headers::from(some.clone());
        assert_eq!(headers.get(), some);
        assert!(headers.may_say("mtime") && !headers.may_say("md5chksum"));
        let old = headers.change(|headers| headers.metadata.remove("odd\u{1}"));
        assert_eq!((old.as_deref(), headers.get().metadata.len()), (Some("\n\"\\\u{1f600}"), 1));
        headers.change(|headers| *headers = ObjectHeaders::default());
        assert!(headers.0.is_none() && headers.get() == ObjectHeaders::default());
    }
}
