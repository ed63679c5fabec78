//! Bytes of open files: read, write, truncate, allocate, flush, fsync.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::attributes::without_set_id;
use super::handles::FileHandle;
use super::{Fs, Whence, WriteMode};
use crate::cache::{LocalFile, WriteRefused};
use crate::clock;
use crate::error::{Error, Result};
use crate::journal::{Content, Desired};
use crate::namespace::{Ino, Namespace, Node};
use crate::store::{Condition, ErrorKind};
use crate::types::{Key, Span};

/// What S3 and R2 can hold as one object: 4.995 TiB.
const FILE_LIMIT_BYTES: u64 = 5_492_075_488_379;

/// To this size a file goes up in one PUT.
pub(super) const WHOLE_UPLOAD_BYTES: u64 = 16 << 20;

/// A local change of bytes, tried again after the file was marked dirty or room was made.
type Change<'a> = dyn Fn(&LocalFile) -> std::result::Result<(), WriteRefused> + Send + Sync + 'a;

impl Fs {
    /// Fast path: present bytes into `buffer`; None where it has to wait (then call `read`).
    pub fn read_now(&self, number: u64, offset: u64, buffer: &mut [u8]) -> Option<Result<usize>> {
        let handle = match self.handles.file(number) {
            Ok(handle) if handle.readable => handle,
            Ok(_) => return Some(Err(Error::BadHandle)),
            Err(error) => return Some(Err(error)),
        };
        if let Err(error) = self.take_news(handle.ino, &handle.file) {
            return Some(Err(error));
        }
        let read = self.reader.read_now(&handle.file, &handle.pattern, offset, buffer);
        if matches!(read, Some(Ok(_))) {
            self.accessed(&handle);
        }
        read
    }

    pub async fn read(&self, number: u64, offset: u64, size: usize) -> Result<Bytes> {
        let handle = self.handles.file(number)?;
        let read = tokio::select! {
            biased;
            read = self.reader.read(&handle.file, &handle.pattern, offset, size) => read,
            () = self.outage_outlasts_patience() => Err(Error::Timeout),
        };
        match &read {
            Ok(_) => self.accessed(&handle),
            Err(Error::Stale) => self.expire(handle.ino),
            Err(Error::Store(error)) if error.is(ErrorKind::Corrupt) => self.expire(handle.ino),
            Err(_) => {}
        }
        read
    }

    /// Moves the access time, in memory alone.
    fn accessed(&self, handle: &FileHandle) {
        let now = clock::now();
        if !self.notes_access() || !handle.access_note.is_due(now) {
            return;
        }
        if let Some(inode) = self.names.lock().get_mut(handle.ino) {
            inode.access(now);
            if let Node::File(node) = &mut inode.node {
                node.pages = true;
            }
        }
    }

    /// The bucket has another version than was believed: the next look-up asks, whatever its TTL says.
    fn expire(&self, ino: Ino) {
        let mut names = self.names.lock();
        let Some(inode) = names.get_mut(ino) else { return };
        inode.checked = None;
        if let Some((parent, name)) = inode.place.clone() {
            drop(names);
            self.invalidate_entry(parent, &name);
        }
    }

    /// Fast path; None where it has to wait for room (then call `write` with a copy of the data).
    pub fn write_now(&self, number: u64, offset: u64, data: &[u8]) -> Option<Result<usize>> {
        let written = self.try_write(number, offset, data);
        match written {
            Ok(true) => Some(Ok(data.len())),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Waits for room where the cache is full of what is not uploaded yet; `NoSpace` when none comes in time.
    pub async fn write(&self, number: u64, offset: u64, data: Bytes) -> Result<usize> {
        let room = async {
            loop {
                let room = self.cache.room();
                if self.try_write(number, offset, &data)? {
                    return Ok(data.len());
                }
                room.await;
            }
        };
        tokio::time::timeout(self.room_timeout(), room).await.unwrap_or(Err(Error::NoSpace))
    }

    /// A little less than an operation may take, so that the program hears ENOSPC and not a time-out.
    fn room_timeout(&self) -> Duration {
        self.config.timeout.mul_f32(0.9)
    }

    /// False: no room now.
    fn try_write(&self, number: u64, offset: u64, data: &[u8]) -> Result<bool> {
        let handle = self.handles.file(number)?;
        if !handle.writable {
            return Err(Error::BadHandle);
        }
        if offset.saturating_add(data.len() as u64) > FILE_LIMIT_BYTES {
            return Err(Error::TooLarge);
        }
        self.take_news(handle.ino, &handle.file)?;
        if !self.change(handle.ino, &handle.file, &|file| file.write_at(offset, data))? {
            return Ok(false);
        }
        handle.wrote.store(true, Ordering::Release);
        Ok(true)
    }

    /// Changes bytes of a data file, journalling first that it is dirty. False: no room now.
    fn change(&self, ino: Ino, file: &Arc<LocalFile>, change: &Change<'_>) -> Result<bool> {
        for _ in 0..super::RACES {
            match change(file) {
                Ok(()) => {
                    let mut names = self.names.lock();
                    if let Some(inode) = names.get_mut(ino) {
                        inode.changed(clock::now());
                        inode.forget_content();
                        let mode = without_set_id(inode.mode);
                        if std::mem::replace(&mut inode.mode, mode) != mode {
                            // The kernel asks for size and times after a change, not for the mode.
                            self.invalidate_attributes(ino);
                        }
                        if let Node::File(node) = &mut inode.node {
                            node.pages = true;
                        }
                    }
                    return Ok(true);
                }
                Err(WriteRefused::Full) if self.give_up_departed() => {}
                Err(WriteRefused::Full) => return Ok(false),
                Err(WriteRefused::Freed) => {
                    file.recall();
                    return Ok(false);
                }
                Err(WriteRefused::Clean) => self.mark_dirty(ino, file)?,
                Err(WriteRefused::Failed(error)) => return Err(error),
            }
        }
        Err(Error::Corrupt(format!("data file {} does not stay dirty", file.id())))
    }

    /// The file is about to differ from its version: that is journalled before a byte changes.
    fn mark_dirty(&self, ino: Ino, file: &Arc<LocalFile>) -> Result<()> {
        let names = self.names.lock();
        let Some(key) = names.key(ino) else {
            // Unlinked: its bytes are wanted by its handles alone.
            file.mark_dirty();
            return Ok(());
        };
        let desired = self.staged(&names, ino, &key, file)?;
        self.writer.apply(vec![(key, Some(desired))], &[])?;
        self.complete_soon(file);
        Ok(())
    }

    /// A small file goes up whole, so what it lacks of its old version is fetched anyway: at once, before another host
    /// can replace that version and the bytes are nowhere any more. Of a large one the bucket copies its own parts.
    fn complete_soon(&self, file: &Arc<LocalFile>) {
        let Some(fs) = self.shared().filter(|_| !file.is_complete() && file.size() <= WHOLE_UPLOAD_BYTES) else { return };
        let (file, pin) = (Arc::clone(file), file.pin());
        tokio::spawn(async move {
            if let Err(error) = fs.reader.fetch_all(&file).await {
                tracing::debug!(file = %file.id(), %error, "can't fetch the rest of a changed file yet");
            }
            drop(pin);
        });
    }

    /// Wants the bytes as they are in the bucket once more, under the inode's headers.
    pub(super) fn send_anew(&self, names: &mut Namespace, ino: Ino) -> Result<()> {
        let Some(key) = names.key(ino) else { return Ok(()) };
        let (file, _pin) = self.pinned_file(names, ino)?;
        let desired = self.staged(names, ino, &key, &file)?;
        self.writer.apply(vec![(key, Some(desired))], &[])?;
        self.complete_soon(&file);
        Ok(())
    }

    /// The desired state of a file whose bytes are local.
    pub(super) fn staged(&self, names: &Namespace, ino: Ino, key: &Key, file: &LocalFile) -> Result<Desired> {
        let inode = names.get(ino).ok_or(Error::NotFound)?;
        // Written to in an outage without that anybody knows what it has: the writer asks before it replaces that.
        let is_untold = !inode.known && inode.held().is_some();
        let headers = if is_untold { None } else { Some(self.headers_of(inode, key).into()) };
        let content = Content::Staged(file.id());
        Ok(match self.writer.pending(key) {
            // Goes on from what was wanted so far, its condition included.
            Some(pending) if !matches!(pending.content, Content::Absent | Content::KeptDirectory) => {
                Desired { content, headers: headers.or(pending.headers), ..pending }
            }
            pending => {
                let held = inode.held();
                let was_there = held.is_some() || pending.is_some();
                // Built on old bytes, so on that version alone.
                let condition =
                    held.filter(|version| version.key == *key).map_or(Condition::Any, |version| Condition::IfMatch(version.etag));
                Desired { content, headers, condition, was_there, since: clock::now() }
            }
        })
    }

    /// ftruncate(2), truncate(2), and O_TRUNC.
    pub(super) async fn truncate(&self, ino: Ino, size: u64) -> Result<()> {
        if size > FILE_LIMIT_BYTES {
            return Err(Error::TooLarge);
        }
        let (file, pin) = self.pinned_file(&mut self.names.lock(), ino)?;
        self.take_news(ino, &file)?;
        if size == file.size() {
            return self.touch_content(ino);
        }
        let whole = size == 0;
        if whole {
            self.replace_content(ino, &file)?;
        }
        let done = self.change_waiting(ino, &file, &|file| file.truncate(size)).await;
        file.seal()?;
        drop(pin);
        let names = self.names.lock();
        if names.get(ino).is_some_and(|inode| inode.opens == 0)
            && let Some(key) = names.key(ino)
        {
            self.writer.closed(&key);
        }
        done
    }

    /// All old bytes go: whatever is in the bucket then is replaced, the last writer wins.
    fn replace_content(&self, ino: Ino, file: &Arc<LocalFile>) -> Result<()> {
        let names = self.names.lock();
        let Some(key) = names.key(ino) else { return Ok(()) };
        let mut desired = self.staged(&names, ino, &key, file)?;
        if matches!(desired.condition, Condition::IfMatch(_)) {
            desired.condition = Condition::Any;
        }
        self.writer.apply(vec![(key, Some(desired))], &[])
    }

    pub(super) async fn change_waiting(&self, ino: Ino, file: &Arc<LocalFile>, change: &Change<'_>) -> Result<()> {
        let room = async {
            loop {
                let room = self.cache.room();
                if self.change(ino, file, change)? {
                    return Ok(());
                }
                room.await;
            }
        };
        tokio::time::timeout(self.room_timeout(), room).await.unwrap_or(Err(Error::NoSpace))
    }

    /// fallocate(2): plain and KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE. Others are not supported.
    pub async fn fallocate(&self, number: u64, offset: u64, length: u64, mode: i32) -> Result<()> {
        let handle = self.handles.file(number)?;
        if !handle.writable {
            return Err(Error::BadHandle);
        }
        let end = offset.checked_add(length).filter(|end| *end <= FILE_LIMIT_BYTES).ok_or(Error::TooLarge)?;
        self.take_news(handle.ino, &handle.file)?;
        let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        match mode & !libc::FALLOC_FL_KEEP_SIZE {
            // Room is not reserved in the bucket; what counts is the length.
            0 if keep_size || end <= handle.file.size() => return self.touch_content(handle.ino),
            0 => self.change_waiting(handle.ino, &handle.file, &|file| file.truncate(end)).await?,
            libc::FALLOC_FL_PUNCH_HOLE if keep_size => self.zero(&handle, offset..end, true).await?,
            libc::FALLOC_FL_ZERO_RANGE => self.zero(&handle, offset..end, keep_size).await?,
            _ => return Err(Error::Unsupported),
        }
        handle.wrote.store(true, Ordering::Release);
        Ok(())
    }

    async fn zero(&self, handle: &FileHandle, span: Span, keep_size: bool) -> Result<()> {
        self.change_waiting(handle.ino, &handle.file, &|file| file.zero(span.clone(), keep_size)).await
    }

    /// An object has no holes: data reaches to the end, where the one hole is.
    pub async fn lseek(&self, number: u64, offset: u64, whence: Whence) -> Result<u64> {
        let handle = self.handles.file(number)?;
        self.take_news(handle.ino, &handle.file)?;
        let size = handle.file.size();
        match whence {
            _ if offset >= size => Err(Error::NoSuchOffset),
            Whence::Data => Ok(offset),
            Whence::Hole => Ok(size),
        }
    }

    /// Comes with each close(2). In back mode the bytes are with the local kernel and the journal; in through mode it
    /// returns when the object is in the bucket.
    pub async fn flush(&self, number: u64) -> Result<()> {
        let handle = self.handles.file(number)?;
        if !handle.writable {
            return Ok(());
        }
        let Some(key) = self.refresh(&handle)? else { return Ok(()) };
        if self.config.write_mode == WriteMode::Through && self.is_wanted(&key) {
            return self.writer.sync(&key).await;
        }
        // Here and not where a file is made: there the kernel keeps the whole directory waiting.
        self.writer.room().await;
        self.writer.take_error(&key).map_or(Ok(()), Err)
    }

    /// Returns when the file is in the bucket.
    pub async fn fsync(&self, number: u64) -> Result<()> {
        let handle = self.handles.file(number)?;
        match self.refresh(&handle)? {
            Some(key) => self.writer.sync(&key).await,
            None => Ok(()),
        }
    }

    /// Journals the attributes as they are after the writing so far, and the sums with them. None: unlinked.
    pub(super) fn refresh(&self, handle: &FileHandle) -> Result<Option<Key>> {
        self.take_news(handle.ino, &handle.file)?;
        let wrote = handle.wrote.swap(false, Ordering::AcqRel);
        let rests = handle.file.prepare_seal()?;
        let mut names = self.names.lock();
        let Some(key) = names.key(handle.ino) else { return Ok(None) };
        if wrote && handle.file.is_dirty() && self.is_wanted(&key) {
            self.fill_changed(&mut names, handle.ino, &key, &handle.file);
            let desired = self.staged(&names, handle.ino, &key, &handle.file)?;
            match rests {
                true => self.writer.apply_at_rest(key.clone(), desired, &handle.file)?,
                false => self.writer.apply(vec![(key.clone(), Some(desired))], &[])?,
            }
            return Ok(Some(key));
        }
        drop(names);
        if rests {
            handle.file.seal_with(&[])?;
        }
        Ok(Some(key))
    }
}
