//! copy_file_range(2) of objects: the bucket copies, and no byte crosses the network.
//!
//! The copy becomes a file that has the original's version as its base and differs from it in nothing; it goes up as a
//! server-side copy under its own headers. Until then the original's key stays as it is (the writer's order sees to it).
//! Everything else is left to the kernel, which copies through its page cache: a part of a file, a copy into the middle of
//! another, an original that isn't in the bucket yet.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Fs;
use super::file::WHOLE_UPLOAD_BYTES;
use super::handles::FileHandle;
use crate::error::{Error, Result};
use crate::media::gzip;
use crate::types::Version;

/// What one call may copy: the answer has 32 bits.
const MOST_BYTES: u64 = u32::MAX as u64 & !((1 << 20) - 1);

impl Fs {
    /// Handle and offset on both sides. How many bytes were copied; `Error::Unsupported`: not this way.
    pub async fn copy_file_range(self: Arc<Self>, from: (u64, u64), to: (u64, u64), length: u64) -> Result<u32> {
        let (source, target) = (self.handles.file(from.0)?, self.handles.file(to.0)?);
        if !source.readable || !target.writable {
            return Err(Error::BadHandle);
        }
        self.take_news(source.ino, &source.file)?;
        self.take_news(target.ino, &target.file)?;
        let version = source.file.base().filter(|_| !source.file.is_dirty() && source.ino != target.ino).ok_or(Error::Unsupported)?;
        if from.1 != to.1 || version.size == 0 {
            return Err(Error::Unsupported);
        }
        let end = from.1.saturating_add(length.min(MOST_BYTES)).min(version.size);
        let copied = u32::try_from(end.saturating_sub(from.1)).map_err(|_| Error::TooLarge)?;
        if copied > 0 {
            self.adopt(&source, &target, &version, from.1, end).await?;
        }
        Ok(copied)
    }

    async fn adopt(&self, source: &FileHandle, target: &FileHandle, version: &Version, from: u64, end: u64) -> Result<()> {
        // From here on nothing of ours changes the original, until the queue knows of the copy.
        let hold = self.writer.hold(&version.key);
        let is_compressed = self.names.lock().get(source.ino).is_some_and(|inode| gzip::original_size(&inode.headers()).is_some());
        // The copy may be a file that is not to be compressed.
        if is_compressed || source.file.is_dirty() || source.file.base().as_ref() != Some(version) || self.writer.is_landing(&version.key) {
            return Err(Error::Unsupported);
        }
        self.change_waiting(target.ino, &target.file, &|file| file.adopt(version, from, end)).await?;
        target.wrote.store(true, Ordering::Release);
        self.refresh(target)?;
        drop(hold);
        // What is here already isn't fetched again, neither to read the copy nor, should another host replace the original, to send it.
        if end == version.size && version.size <= WHOLE_UPLOAD_BYTES && source.file.is_complete() {
            target.file.fill_from(&source.file, version)?;
        }
        Ok(())
    }
}
