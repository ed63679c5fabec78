//! What becomes of bytes that are not what they were: on the disk, by rot, by hand, or by a disk that can't read them.
//!
//! What the bucket has is dropped and fetched again: a miss. What it doesn't have stays as it is: no read and no upload gets
//! it, until it is written over. Both are counted, and logged once a file or more.

use std::sync::atomic::Ordering;

use crate::error::{Error, Result};
use crate::types::Span;

use super::disk;
use super::file::LocalFile;
use super::spans::SpanSet;
use super::state::State;

impl LocalFile {
    /// Takes damaged bytes away where the bucket has them. `Error::Damaged`: it doesn't.
    pub(super) fn give_up(&self, state: &mut State, spans: Vec<Span>) -> Result<()> {
        let hull = spans.first().map_or(0, |span| span.start)..spans.last().map_or(0, |span| span.end);
        if !in_the_bucket(state, &spans) || !self.drop_damaged(state, &spans) {
            return Err(self.damaged(state, hull));
        }
        self.shared.damage.refetched.fetch_add(1, Ordering::Relaxed);
        let key = state.base.as_ref().map(|base| base.key.as_str());
        tracing::warn!(file = %self.id, key, from = hull.start, to = hull.end, "cached bytes are damaged: they are fetched again");
        Ok(())
    }

    /// Notes damage that nothing here can heal.
    pub(super) fn damaged(&self, state: &mut State, span: Span) -> Error {
        if !std::mem::replace(&mut state.damage_told, true) {
            self.shared.damage.unsent.fetch_add(1, Ordering::Relaxed);
            let path = self.shared.disk.path(self.id);
            tracing::error!(file = %path.display(), from = span.start, to = span.end, "unsent data is damaged on the cache disk");
        }
        Error::Damaged(span)
    }

    /// False: the journal can't say so, nothing was changed.
    fn drop_damaged(&self, state: &mut State, spans: &[Span]) -> bool {
        let charged = state.charged();
        let before = (state.complete, state.parts.clone());
        if state.complete {
            state.complete = false;
            state.parts.present = std::iter::once(0..state.size).collect();
            if state.dirty {
                state.parts.change(|sets| sets.journalled.clone_from(&sets.present));
            }
        }
        spans.iter().for_each(|span| state.parts.take_out(span));
        // An unsent file's row must not promise what is not here; a clean one's may, until the sums tell again.
        if state.dirty
            && let Err(error) = self.journal_row(state, &[])
        {
            tracing::error!(file = %self.id, "the journal can't be told of damage: {error}");
            (state.complete, state.parts) = before;
            return false;
        }
        state.cuts += 1;
        for span in spans {
            state.forget_sums(span);
            state.seen.remove(span.clone());
            // Where they stay, they take room, and nobody but the kernel reads them: it shall not find zeros.
            let file = self.file(state);
            if state.backed == 0 && file.is_ok_and(|file| disk::punch(&file, span).is_ok()) {
                state.blocks.free(span.clone());
            }
        }
        state.looked = None;
        self.shared.release(charged - state.charged(), state.dirty);
        self.make_stale(state);
        true
    }
}

/// The base has these very bytes.
fn in_the_bucket(state: &State, spans: &[Span]) -> bool {
    let Some(base) = &state.base else { return false };
    if state.gone {
        return false;
    }
    if !state.dirty {
        return true;
    }
    let changed: SpanSet = state.changes.all();
    spans.iter().all(|span| span.end <= base.size && changed.covered(span.clone()) == 0)
}
