//! The headers that an inode holds: of most files nobody has asked for them, and then they take the room of a pointer.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use crate::types::ObjectHeaders;

static NONE: ObjectHeaders = ObjectHeaders {
    content_type: None,
    cache_control: None,
    content_disposition: None,
    content_encoding: None,
    content_language: None,
    storage_class: None,
    metadata: BTreeMap::new(),
};

/// Behaves as the headers themselves.
#[derive(Default)]
pub struct Headers(Option<Box<ObjectHeaders>>);

impl Deref for Headers {
    type Target = ObjectHeaders;

    fn deref(&self) -> &ObjectHeaders {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl DerefMut for Headers {
    fn deref_mut(&mut self) -> &mut ObjectHeaders {
        self.0.get_or_insert_default()
    }
}

impl From<ObjectHeaders> for Headers {
    fn from(headers: ObjectHeaders) -> Self {
        Self((headers != NONE).then(|| Box::new(headers)))
    }
}
