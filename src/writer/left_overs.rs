//! What the last daemon left in the cache directory without a word in the journal, at a start: of a mount, or of `recover`.

use super::Writer;
use super::copy::copied;
use crate::cache::LocalFile;
use crate::clock;
use crate::journal::{Content, Desired};
use crate::store::Condition;
use crate::types::{Key, Version};

impl Writer {
    /// What the last daemon left in the cache directory without a word in the journal: files that programs wrote on in
    /// after it died are wanted, files whose desired state was settled or withdrawn are not.
    pub fn claim_left_overs(&self) {
        for file in self.shared.cache.changed_behind() {
            let Some((key, desired)) = file.base().and_then(|base| self.wanted_of_left_over(&file, &base)) else {
                tracing::info!(file = %file.id(), "written after the last daemon died, to a file that was removed: discarded");
                self.shared.cache.discard(file.id());
                continue;
            };
            tracing::info!(%key, "written after the last daemon died: goes up");
            if let Err(error) = self.shared.claim(key.clone(), desired, &file) {
                tracing::error!(%key, %error, "what was written after the last daemon died can't be kept");
            }
        }
        for file in self.shared.cache.unclaimed() {
            tracing::info!(file = %file.id(), size = file.size(), "left over from a removed file: discarded");
            self.shared.cache.discard(file.id());
        }
    }

    /// Where a file belongs whose bytes differ from its version: under the name that the version was given last. None:
    /// it has none any more.
    fn wanted_of_left_over(&self, file: &LocalFile, base: &Version) -> Option<(Key, Desired)> {
        let content = Content::Staged(file.id());
        let moved = self.pending_below(&Key::root()).into_iter().find(|(_, desired)| copied(&desired.content) == Some(base));
        if let Some((key, desired)) = moved {
            return Some((key, Desired { content, ..desired }));
        }
        let headers = self.shared.journal.last_headers(&base.key, &base.etag).map(|(_, headers)| headers);
        let condition = Condition::IfMatch(base.etag.clone());
        let desired = Desired { content, headers: headers.map(Into::into), condition, was_there: true, since: clock::now() };
        self.pending(&base.key).is_none().then(|| (base.key.clone(), desired))
    }
}
