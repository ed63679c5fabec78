//! Bounds how many names are in memory, so that a walk through millions of files, or a robot that asks for names that aren't
//! there, costs requests and not the host's memory.
//!
//! Shortly below the limit those leave that would have to be asked for anyhow, which costs nothing. Above the limit others do,
//! too: they cost a request each when somebody wants them again.
//!
//! The kernel keeps what it has looked up for as long as it has memory itself, and what it knows can't be forgotten here. So
//! it is told to let go of what nobody uses there either; its FORGETs come a moment later.
//!
//! An operation that learns all names of a directory and then relies on them keeps names from leaving meanwhile
//! (`keep_names`), as an open directory does for its own. Both are looked at under the lock of the names.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Fs, IdleName};
use crate::namespace::{Directory, Ino, Inode, Known, Namespace};
use crate::types::Key;

/// Names looked at in one go, with the lock held: a few milliseconds.
const STRETCH: usize = 4_096;

/// Between two rounds, in which the kernel's answers come; and at most, after rounds that led to nothing: files that wait for their
/// upload are needed, and are many while many are saved.
const REST: Duration = Duration::from_millis(250);
const LONG_REST: Duration = Duration::from_secs(5);

/// So often what would have to be asked for anyhow is looked for, once there are almost as many names as there may be.
const SWEEP: Duration = Duration::from_secs(10);

/// So many times the limit a directory may have while a program fills it.
const FILLED: usize = 4;

/// On a mount that alone writes its prefix, a listing counts as one of a moment ago for so long.
const FRESH: Duration = Duration::from_secs(60);

fn almost(limit: usize) -> usize {
    limit - limit / 8
}

/// Somebody relies on all names of a directory being in memory.
pub(super) struct Kept<'a>(&'a AtomicUsize);

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Fs {
    /// No name leaves memory until this is dropped.
    pub(super) fn keep_names(&self) -> Kept<'_> {
        self.kept.fetch_add(1, Ordering::SeqCst);
        Kept(&self.kept)
    }

    /// There may be more names than there should be.
    pub(super) fn note_crowd(&self, names: &Namespace) {
        if names.len() > almost(self.config.names_limit) {
            self.crowded.notify_one();
        }
    }

    pub(super) fn watch_crowd(&self) {
        let (crowded, me) = (Arc::clone(&self.crowded), self.me.clone());
        tokio::spawn(async move {
            let (mut rest, mut was_swept, mut is_crowded) = (REST, None, false);
            loop {
                if !is_crowded {
                    crowded.notified().await;
                }
                let Some(fs) = me.upgrade() else { return };
                let (limit, before) = (fs.config.names_limit, fs.names_in_memory());
                if before > limit {
                    fs.thin_out(limit).await;
                } else if was_swept.is_none_or(|at: Instant| at.elapsed() >= SWEEP) {
                    fs.sweep(almost(limit)).await;
                    was_swept = Some(Instant::now());
                }
                drop(fs);
                sleep(rest).await;
                let Some(after) = me.upgrade().map(|fs| fs.names_in_memory()) else { return };
                let led_nowhere = after > limit && after >= before - before / 16;
                (rest, is_crowded) = (if led_nowhere { (rest * 2).min(LONG_REST) } else { REST }, after > limit);
            }
        });
    }

    /// How many names are in memory.
    pub fn names_in_memory(&self) -> usize {
        self.names.lock().len()
    }

    /// Where there are more names than `limit`, has those that nobody needs leave memory until there are an eighth less: what was
    /// used longest ago first. It is asked for again when somebody uses it.
    pub async fn thin_out(&self, limit: usize) {
        // Of a wide directory that would be many questions, where all its names were listed a moment ago.
        let is_spared = |node: &Directory| node.children.len() > limit / 8 && node.listed.is_some_and(|listed| self.is_fresh(listed));
        self.forget_names(limit, is_spared, |_| false).await;
    }

    /// The same with those alone that would have to be asked for anyhow.
    async fn sweep(&self, limit: usize) {
        let is_spared = |node: &Directory| node.listed.is_some_and(|listed| self.is_fresh(listed));
        let is_believed = |checked: Instant| self.config.exclusive || checked.elapsed() < self.config.negative_ttl;
        let is_kept = |known: &Known<'_>| match known {
            Known::Inode(inode, _) => inode.checked.is_some_and(|checked| self.is_fresh(checked)),
            Known::Missing(checked) => is_believed(*checked),
        };
        self.forget_names(limit, is_spared, is_kept).await;
    }

    fn is_fresh(&self, checked: Instant) -> bool {
        self.fresh_since().map_or(checked.elapsed() < FRESH, |since| checked >= since)
    }

    async fn forget_names(&self, limit: usize, is_spared: impl Fn(&Directory) -> bool, is_kept: impl Fn(&Known<'_>) -> bool) {
        let target = almost(limit);
        // That new names are new is seen from the names that are known.
        let is_filled = |node: &Directory| node.is_filling(Instant::now()) && node.children.len() < FILLED * limit.max(1);
        let (directories, mut excess) = {
            let names = self.names.lock();
            // While nobody can be asked, what is known is all that there is.
            if names.len() <= if self.outage.is_on() { 2 * limit } else { limit } {
                return;
            }
            (names.directories_by_use(), names.len() - target)
        };
        for directory in directories {
            let mut after = None;
            loop {
                let thinned = {
                    let mut names = self.names.lock();
                    if !self.may_forget_in(directory) || names.directory(directory).is_none_or(|node| is_spared(node) || is_filled(node)) {
                        break;
                    }
                    let is_needed = |known: Known<'_>| match known {
                        _ if is_kept(&known) => true,
                        Known::Inode(inode, key) => self.is_needed(inode, key),
                        Known::Missing(_) => false,
                    };
                    names.thin_out(directory, after.as_ref(), (STRETCH, excess), is_needed)
                };
                excess -= thinned.done;
                self.tell_to_forget(directory, thinned.known_to_kernel);
                if excess == 0 {
                    return;
                }
                tokio::task::yield_now().await;
                after = thinned.next;
                if after.is_none() {
                    break;
                }
            }
        }
    }

    /// The kernel has forgotten an inode: so may we, if that was why.
    pub(super) fn leave_if_idle(&self, names: &mut Namespace, ino: Ino) {
        if !names.may_leave(ino) {
            return;
        }
        let parent = names.get(ino).and_then(|inode| inode.place.as_ref()).map(|(parent, _)| *parent);
        let may_forget = parent.is_some_and(|parent| self.may_forget_in(parent));
        names.leave(ino, |inode, key| !may_forget || self.is_needed(inode, key));
    }

    /// Nobody lists the directory, or relies on what it has in memory.
    fn may_forget_in(&self, directory: Ino) -> bool {
        self.kept.load(Ordering::SeqCst) == 0 && self.handles.of_directory(directory) == 0
    }

    /// More is known of it than the bucket would tell.
    fn is_needed(&self, inode: &Inode, key: &Key) -> bool {
        if inode.is_directory() {
            return self.writer.has_below(key) || self.writer.is_landing(key) || self.handles.of_directory(inode.ino) > 0;
        }
        self.writer.pending(key).is_some() || self.writer.is_landing(key)
    }

    fn tell_to_forget(&self, parent: Ino, idle: Vec<(Arc<str>, Ino)>) {
        if let Some(kernel) = self.invalidate.get().filter(|_| !idle.is_empty()) {
            let names = self.names.lock();
            let is_directory = |ino| names.get(ino).is_some_and(Inode::is_directory);
            let idle = idle.into_iter().map(|(name, ino)| IdleName { ino, parent, name, is_directory: is_directory(ino) }).collect();
            drop(names);
            kernel.idle(idle);
        }
    }
}
