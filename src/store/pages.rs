//! One listing, page after page, of a store that may lie: tokens that go in circles, pages without end.
//!
//! INVARIANT: a walk ends. What it gave until an error is not the whole listing and must not be taken for it.

use super::{ErrorKind, ListPage, ListRequest, Operation, Result, Store, StoreError};
use crate::types::Key;

/// Ten million names on full pages.
const PAGES_MOST: u64 = 10_000;

/// What a listed object takes beside its key: ETag, size, time.
const OBJECT_BYTES: u64 = 160;

/// Notices where a sequence of marks begins to repeat, with one mark in memory: that of the last step whose number was a power of two.
#[derive(Debug, Default)]
pub struct Circle {
    mark: Option<String>,
    steps: u64,
}

impl Circle {
    /// True once the sequence has been here before; at the latest after three times its length.
    pub fn closes_at(&mut self, mark: &str) -> bool {
        if self.mark.as_deref() == Some(mark) {
            return true;
        }
        self.steps += 1;
        if self.steps.is_power_of_two() {
            self.mark = Some(mark.to_owned());
        }
        false
    }

    pub fn is_too_long(&self) -> bool {
        self.steps >= PAGES_MOST
    }
}

/// A listing under way.
#[derive(Debug)]
pub struct Pages {
    /// None after the last page.
    request: Option<ListRequest>,
    circle: Circle,
    bytes: u64,
    most_bytes: u64,
}

impl Pages {
    /// For pages that are let go one by one.
    pub fn new(request: ListRequest) -> Self {
        Self::kept(request, u64::MAX)
    }

    /// For pages that are kept together, and may take so much memory.
    pub fn kept(request: ListRequest, most_bytes: u64) -> Self {
        Self { request: Some(request), circle: Circle::default(), bytes: 0, most_bytes }
    }

    /// None after the last page. Errors: the store's; `NotS3` for a listing that can't be true, `TooLarge` for one that
    /// is more than memory should hold.
    pub async fn next(&mut self, store: &Store) -> Result<Option<ListPage>> {
        let Some(request) = &mut self.request else { return Ok(None) };
        let page = store.list(request).await?;
        let names = page.objects.iter().map(|object| &object.key).chain(&page.prefixes);
        self.bytes += names.map(|key| key.as_str().len() as u64 + OBJECT_BYTES).sum::<u64>();
        let failed = |kind, what: &str| {
            let prefix = Key::new(request.prefix.as_str());
            Err(StoreError::new(kind, Operation::ListObjectsV2.name(), prefix, what))
        };
        match &page.next {
            None => self.request = None,
            Some(token) if self.circle.closes_at(token) => return failed(ErrorKind::NotS3, "the store's listing goes in circles"),
            Some(_) if self.circle.is_too_long() => return failed(ErrorKind::NotS3, "the store's listing does not end"),
            Some(_) if self.bytes > self.most_bytes => {
                return failed(ErrorKind::TooLarge, "more names than may be held in memory: give a larger --memory-limit");
            }
            Some(token) => request.token = Some(token.clone()),
        }
        Ok(Some(page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_circle_is_noticed_and_nothing_else() {
        for (lead, length) in [(0, 1), (0, 2), (0, 3), (5, 1), (7, 40), (100, 3)] {
            let mut circle = Circle::default();
            let mark = |step: u64| if step < lead { step } else { lead + (step - lead) % length };
            let steps = (0..).take_while(|step| !circle.closes_at(&mark(*step).to_string())).count() as u64;
            assert!(steps >= lead && steps <= 3 * (lead + length) + 2, "{lead} {length}: {steps}");
        }
        let mut line = Circle::default();
        assert!((0..5_000).all(|step: u64| !line.closes_at(&step.to_string())) && !line.is_too_long());
        assert!((5_000..PAGES_MOST).all(|step| !line.closes_at(&step.to_string())) && line.is_too_long());
    }
}
