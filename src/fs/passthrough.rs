//! Files that the kernel reads and writes by itself: which opens may be so, and how the daemon keeps up with them.
//!
//! Of what is written so nothing gets here. Whoever has to know what a file is by now asks for the news first: every flush,
//! fsync, release, and change of attributes does, and once a second somebody looks at all of them. A file with news is
//! journalled as one to be sent, as if it had been written to through the daemon.
//!
//! What may be written past the daemon: files that go up whole anyhow, since of them it needn't be known which bytes changed;
//! in back mode, since in through mode finished parts go up meanwhile; and where the cache has much room. A program that fills
//! the disk past the daemon is told so by the disk, and nobody can make it wait until something was sent.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::attributes::without_set_id;
use super::file::WHOLE_UPLOAD_BYTES;
use super::handles::FileHandle;
use super::{Attr, Fs, WriteMode};
use crate::cache::{Backing, LocalFile, Look};
use crate::clock;
use crate::error::Result;
use crate::namespace::Ino;
use crate::simulation;

/// A file that the kernel can read ahead in one request is no slower through its page cache, and takes two calls less to open.
const SMALL_BYTES: u64 = 128 << 10;

/// How often somebody looks at files that are open: a stat sees what it needs to at any time; this is for those that are
/// written to for long, to be sent at rest and to be counted.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What nobody has taken in yet, as stat shows it.
pub(super) fn show(attr: &mut Attr, look: &Look) {
    attr.size = look.size;
    attr.mode = without_set_id(attr.mode);
    if !simulation::is_on() {
        (attr.mtime, attr.ctime) = (look.modified(), look.modified());
    }
}

impl Fs {
    /// The data file of an open one for the kernel. None: the daemon has to serve it.
    pub fn back(&self, number: u64) -> Option<Backing> {
        let handle = self.handles.file(number).ok()?;
        let suits = if handle.writable { self.may_be_loose(&handle.file) } else { handle.file.size() > SMALL_BYTES };
        if !suits {
            return None;
        }
        let backing = handle.file.back().unwrap_or_else(|error| {
            tracing::debug!(file = %handle.file.id(), %error, "this file can't be left to the kernel");
            None
        })?;
        if !handle.writable {
            self.reads_unseen(handle.ino);
        }
        Some(backing)
    }

    fn may_be_loose(&self, file: &LocalFile) -> bool {
        self.config.write_mode == WriteMode::Back
            && file.size() <= WHOLE_UPLOAD_BYTES
            && self.cache.free() >= self.config.passthrough_room_bytes
    }

    /// Who opens to read alone reads.
    fn reads_unseen(&self, ino: Ino) {
        let mut names = self.names.lock();
        if !self.config.read_only
            && let Some(inode) = names.get_mut(ino)
            && inode.access(clock::now())
        {
            self.invalidate_attributes(ino);
        }
    }

    /// From now on the kernel may write to this open file without telling. The journal knows when this returns.
    pub fn loosen(&self, number: u64) -> Result<()> {
        let handle = self.handles.file(number)?;
        if !handle.writable || handle.loose.load(Ordering::Acquire) {
            return Ok(());
        }
        handle.file.loosen()?;
        handle.loose.store(true, Ordering::Release);
        self.watch_loose();
        Ok(())
    }

    /// The handle is gone: nothing is written through it any more.
    pub(super) fn end_passthrough(&self, handle: &FileHandle) {
        if !handle.loose.load(Ordering::Acquire) {
            return;
        }
        let taken = self.take_news(handle.ino, &handle.file);
        handle.file.tighten();
        if let Err(error) = taken.and_then(|()| handle.file.seal()) {
            tracing::error!(file = %handle.file.id(), %error, "a file that was written to can't be journalled");
        }
    }

    pub(super) fn take_news_of(&self, ino: Ino) -> Result<()> {
        let local = self.names.lock().get(ino).and_then(|inode| inode.file()?.local.clone());
        local.map_or(Ok(()), |local| self.take_news(ino, &local))
    }

    /// Takes in what was written past the daemon: the file is dirty and journalled as such when this returns.
    pub(super) fn take_news(&self, ino: Ino, file: &Arc<LocalFile>) -> Result<()> {
        let Some(look) = file.news()? else { return Ok(()) };
        let mut names = self.names.lock();
        if let Some(inode) = names.get_mut(ino) {
            let now = clock::now();
            inode.changed(if simulation::is_on() { now } else { look.modified() });
            // The disk's clock may lag a tick behind ours: it was written to after it was last read all the same.
            inode.ctime = inode.ctime.max(inode.atime.min(now));
            inode.forget_content();
            let mode = without_set_id(inode.mode);
            if std::mem::replace(&mut inode.mode, mode) != mode {
                // The kernel asks for size and times after a change, not for the mode.
                self.invalidate_attributes(ino);
            }
        }
        match names.key(ino) {
            None => file.mark_dirty(),
            Some(key) => {
                self.fill_changed(&mut names, ino, &key, file);
                let desired = self.staged(&names, ino, &key, file)?;
                self.writer.apply(vec![(key, Some(desired))], &[])?;
            }
        }
        file.told(look);
        Ok(())
    }

    fn watch_loose(&self) {
        if self.watching.swap(true, Ordering::AcqRel) {
            return;
        }
        let me = self.me.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let Some(fs) = me.upgrade() else { return };
                if !fs.look_at_loose() {
                    return;
                }
            }
        });
    }

    /// False: there are none any more.
    fn look_at_loose(&self) -> bool {
        if self.handles.loose().is_empty() {
            self.watching.store(false, Ordering::Release);
            // One may have come meanwhile, and have relied on us.
            if self.handles.loose().is_empty() || self.watching.swap(true, Ordering::AcqRel) {
                return false;
            }
        }
        if let Err(error) = self.take_all_news() {
            tracing::error!(%error, "a file that is being written to can't be journalled");
        }
        true
    }

    /// Of all open files; the first error, after all were tried.
    pub(super) fn take_all_news(&self) -> Result<()> {
        let mut outcome = Ok(());
        for handle in self.handles.loose() {
            if handle.file.glimpse().is_some() {
                // The kernel knows of write(2), and not of a store through mmap.
                self.invalidate_attributes(handle.ino);
            }
            outcome = outcome.and(self.take_news(handle.ino, &handle.file));
        }
        outcome
    }
}
