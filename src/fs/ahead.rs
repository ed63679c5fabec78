//! Asks for the attributes of listed names ahead of who walks through them, and no name twice at once.
//!
//! Each question is an owned task: it goes on when its asker is gone. Failed, it is nobody's error; who comes to the name
//! asks again.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::Fs;
use super::question::{Ask, Question};
use crate::namespace::{Ino, Namespace};

/// By inode, the questions for attributes under way. A leaf: nothing else is locked while this is held.
#[derive(Default)]
pub(super) struct Asking(Mutex<HashMap<Ino, watch::Receiver<()>>>);

/// Ends when it is dropped, which wakes who waits for it.
struct Turn<'a> {
    asking: &'a Asking,
    ino: Ino,
    _end: watch::Sender<()>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.asking.0.lock().remove(&self.ino);
    }
}

impl Asking {
    fn begin(&self, ino: Ino) -> Option<watch::Sender<()>> {
        let mut asking = self.0.lock();
        if asking.contains_key(&ino) {
            return None;
        }
        let (end, wait) = watch::channel(());
        asking.insert(ino, wait);
        Some(end)
    }

    /// False: nobody asks ahead for this inode. True: somebody did, and the answer is in.
    pub async fn answered(&self, ino: Ino) -> bool {
        let Some(mut wait) = self.0.lock().get(&ino).cloned() else { return false };
        // The sender says nothing; it ends.
        let _ = wait.changed().await;
        true
    }
}

impl Fs {
    /// A program comes to `name`, and its attributes are `unknown` or not.
    pub(super) fn look_ahead(&self, names: &mut Namespace, parent: Ino, name: &Arc<str>, unknown: bool) {
        let Some(node) = names.directory_mut(parent) else { return };
        let mut ahead = std::mem::take(&mut node.ahead);
        let fresh_since = self.fresh_since();
        let is_fresh = |listed: Option<_>| listed.is_some_and(|listed| fresh_since.is_none_or(|since| listed >= since));
        let follows = names.directory(parent).filter(|node| is_fresh(node.listed)).map(|node| {
            ahead.reach(&node.children, name, unknown, |ino| {
                names.get(ino).is_some_and(|inode| !inode.known && inode.file().is_some() && is_fresh(inode.checked))
            })
        });
        if let Some(node) = names.directory_mut(parent) {
            node.ahead = ahead;
        }
        for (name, ino) in follows.unwrap_or_default() {
            self.ask_ahead(names, parent, name, ino);
        }
    }

    fn ask_ahead(&self, names: &Namespace, parent: Ino, name: Arc<str>, ino: Ino) {
        let Some(key) = names.key(ino).filter(|key| self.writer.pending(key).is_none()) else { return };
        let (Some(fs), Some(end)) = (self.shared(), self.asking.begin(ino)) else { return };
        tokio::spawn(async move {
            let _turn = Turn { asking: &fs.asking, ino, _end: end };
            let question = Question { parent, name, key, ask: Ask::Headers { ino } };
            if let Err(error) = fs.ask(question).await {
                tracing::debug!(ino, %error, "asked ahead in vain");
            }
        });
    }
}
