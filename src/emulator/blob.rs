//! The bytes of objects and parts: files named by a number in one folder, or memory.
//!
//! An object's content is a list of segments of blobs, so completing an upload, copying an object and copying a range
//! move no data. A blob never changes once written; its file goes away with the last reference to it, which lets a GET
//! under way finish on an object that was replaced meanwhile. A key never becomes a path.
//!
//! A file that nothing in the ledger names (a killed process leaves some) is removed when the folder is opened.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures::Stream;
use md5::{Digest, Md5};

/// One read and one step of a streamed body: large enough that the blocking pool costs little, small against memory.
const CHUNK_BYTES: u64 = 256 * 1024;

/// Received bytes are written in lots of this size, or at the end.
const LOT_BYTES: usize = 1024 * 1024;

/// Up to here a read, a write or a hash runs where it stands: a hop to the blocking pool costs more.
const INLINE_BYTES: usize = 64 * 1024;

/// Where blobs are kept.
pub struct Blobs {
    folder: Option<PathBuf>,
    next: AtomicU64,
    closing: Arc<AtomicBool>,
}

/// A file that is removed when nobody refers to it any more, unless the emulator is going away.
pub struct BlobFile {
    id: u64,
    path: PathBuf,
    closing: Arc<AtomicBool>,
}

impl Drop for BlobFile {
    fn drop(&mut self) {
        if !self.closing.load(Ordering::Acquire) {
            // A file that stays behind is only space; the next start removes it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[derive(Clone)]
pub enum Blob {
    Memory(Bytes),
    File(Arc<BlobFile>),
}

/// Bytes `offset..offset + length` of a blob.
#[derive(Clone)]
pub struct Segment {
    pub blob: Blob,
    pub offset: u64,
    pub length: u64,
}

pub type Content = Vec<Segment>;

/// A segment as the ledger writes it: blob number, offset, length.
pub type SegmentRecord = (u64, u64, u64);

/// A body that has arrived.
pub struct Written {
    pub content: Content,
    pub size: u64,
    pub md5: [u8; 16],
}

impl Blobs {
    pub fn in_memory() -> Self {
        Self { folder: None, next: AtomicU64::new(1), closing: Arc::default() }
    }

    pub fn in_folder(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self { folder: Some(folder.to_owned()), next: AtomicU64::new(1), closing: Arc::default() })
    }

    /// From here on no file is removed: what refers to them is leaving memory, not the bucket.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub fn writer(&self) -> BlobWriter<'_> {
        BlobWriter { blobs: self, target: None, memory: Vec::new(), md5: Md5::new(), size: 0, lot: Vec::new(), lot_bytes: 0 }
    }

    /// A body that is at hand already.
    pub fn store(&self, bytes: Bytes) -> io::Result<Written> {
        let md5 = Md5::digest(&bytes).into();
        let size = bytes.len() as u64;
        let blob = match self.create()? {
            None => Blob::Memory(bytes),
            Some((blob, file)) => {
                (&*file).write_all(&bytes)?;
                Blob::File(blob)
            }
        };
        Ok(Written { content: segments(blob, size), size, md5 })
    }

    fn create(&self) -> io::Result<Option<(Arc<BlobFile>, Arc<File>)>> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let path = blob_path(folder, id);
        let file = File::options().write(true).create_new(true).open(&path)?;
        Ok(Some((Arc::new(BlobFile { id, path, closing: self.closing.clone() }), Arc::new(file))))
    }

    /// Turns the ledger's segments back into content. `known` holds the blobs met before: one file, one reference count.
    pub fn adopt(&self, records: &[SegmentRecord], known: &mut HashMap<u64, Arc<BlobFile>>) -> Content {
        let Some(folder) = &self.folder else { return Vec::new() };
        let mut file = |id: u64| {
            let adopted = || Arc::new(BlobFile { id, path: blob_path(folder, id), closing: self.closing.clone() });
            known.entry(id).or_insert_with(adopted).clone()
        };
        records.iter().map(|&(id, offset, length)| Segment { blob: Blob::File(file(id)), offset, length }).collect()
    }

    /// Removes the files that are not in `known` and goes on numbering after the highest.
    pub fn sweep(&self, known: &HashMap<u64, Arc<BlobFile>>) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let mut highest = 0;
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().and_then(|name| u64::from_str_radix(name, 16).ok()) else { continue };
            highest = highest.max(id);
            if !known.contains_key(&id) {
                std::fs::remove_file(entry.path())?;
            }
        }
        self.next.store(highest + 1, Ordering::Relaxed);
        Ok(())
    }
}

fn blob_path(folder: &Path, id: u64) -> PathBuf {
    folder.join(format!("{id:016x}"))
}

fn segments(blob: Blob, length: u64) -> Content {
    if length == 0 { Vec::new() } else { vec![Segment { blob, offset: 0, length }] }
}

/// Takes a body as it arrives: hashed, and written without keeping more than a lot of it.
pub struct BlobWriter<'a> {
    blobs: &'a Blobs,
    target: Option<(Arc<BlobFile>, Arc<File>)>,
    memory: Vec<u8>,
    md5: Md5,
    size: u64,
    lot: Vec<Bytes>,
    lot_bytes: usize,
}

impl BlobWriter<'_> {
    pub async fn push(&mut self, bytes: Bytes) -> io::Result<()> {
        self.size += bytes.len() as u64;
        self.lot_bytes += bytes.len();
        self.lot.push(bytes);
        if self.lot_bytes >= LOT_BYTES { self.flush().await } else { Ok(()) }
    }

    pub async fn finish(mut self) -> io::Result<Written> {
        self.flush().await?;
        let blob = match self.target.take() {
            Some((blob, _)) => Blob::File(blob),
            None => Blob::Memory(self.memory.into()),
        };
        Ok(Written { content: segments(blob, self.size), size: self.size, md5: self.md5.finalize().into() })
    }

    async fn flush(&mut self) -> io::Result<()> {
        let lot = std::mem::take(&mut self.lot);
        let lot_bytes = std::mem::take(&mut self.lot_bytes);
        if lot_bytes == 0 {
            return Ok(());
        }
        if self.target.is_none() {
            self.target = self.blobs.create()?;
        }
        let Some((_, file)) = &self.target else {
            for bytes in &lot {
                self.md5.update(bytes);
                self.memory.extend_from_slice(bytes);
            }
            return Ok(());
        };
        let file = file.clone();
        let mut md5 = std::mem::take(&mut self.md5);
        let work = move || {
            for bytes in &lot {
                md5.update(bytes);
                (&*file).write_all(bytes)?;
            }
            Ok(md5)
        };
        self.md5 = if lot_bytes <= INLINE_BYTES { work()? } else { off_thread(work).await? };
        Ok(())
    }
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

pub fn records(content: &[Segment]) -> Vec<SegmentRecord> {
    let number = |blob: &Blob| match blob {
        Blob::File(file) => file.id,
        Blob::Memory(_) => 0,
    };
    content.iter().map(|segment| (number(&segment.blob), segment.offset, segment.length)).collect()
}

/// The part of `content` that lies in `span` (offsets into the whole).
pub fn slice(content: &[Segment], span: Range<u64>) -> Content {
    let mut start = 0;
    let mut found = Vec::new();
    for segment in content {
        let from = span.start.clamp(start, start + segment.length);
        let to = span.end.clamp(start, start + segment.length);
        if from < to {
            found.push(Segment { blob: segment.blob.clone(), offset: segment.offset + (from - start), length: to - from });
        }
        start += segment.length;
    }
    found
}

/// Reads content from its start, a chunk at a time.
struct Reading {
    left: VecDeque<Segment>,
    open: Option<Arc<File>>,
}

impl Reading {
    fn new(content: Content) -> Self {
        Self { left: content.into(), open: None }
    }

    /// The next chunk, at the calling thread's expense.
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let Some(segment) = self.left.front_mut() else { return Ok(None) };
        let length = segment.length.min(CHUNK_BYTES);
        let bytes = match &segment.blob {
            Blob::Memory(bytes) => bytes.slice(segment.offset as usize..(segment.offset + length) as usize),
            Blob::File(blob) => {
                let file = match &self.open {
                    Some(file) => file.clone(),
                    None => self.open.insert(Arc::new(File::open(&blob.path)?)).clone(),
                };
                let mut buffer = vec![0; length as usize];
                file.read_exact_at(&mut buffer, segment.offset)?;
                buffer.into()
            }
        };
        segment.offset += length;
        segment.length -= length;
        if segment.length == 0 {
            self.left.pop_front();
            self.open = None;
        }
        Ok(Some(bytes))
    }

    fn is_quick(&self) -> bool {
        self.left.front().is_none_or(|segment| matches!(segment.blob, Blob::Memory(_)) || segment.length <= INLINE_BYTES as u64)
    }
}

/// The bytes of `content` in order, in chunks.
pub fn stream(content: Content) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    futures::stream::try_unfold(Reading::new(content), |mut reading| async move {
        let (chunk, reading) =
            if reading.is_quick() { (reading.next()?, reading) } else { off_thread(move || Ok((reading.next()?, reading))).await? };
        Ok(chunk.map(|bytes| (bytes, reading)))
    })
}

/// All bytes at once: for what is known to be small, and for tests.
pub fn read_all(content: &[Segment]) -> io::Result<Bytes> {
    let mut reading = Reading::new(content.to_vec());
    let mut all = Vec::new();
    while let Some(chunk) = reading.next()? {
        all.extend_from_slice(&chunk);
    }
    Ok(all.into())
}

pub async fn md5(content: Content) -> io::Result<[u8; 16]> {
    off_thread(move || {
        let mut reading = Reading::new(content);
        let mut md5 = Md5::new();
        while let Some(chunk) = reading.next()? {
            md5.update(&chunk);
        }
        Ok(md5.finalize().into())
    })
    .await
}

pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(text: &'static str) -> Segment {
        Segment { blob: Blob::Memory(Bytes::from_static(text.as_bytes())), offset: 0, length: text.len() as u64 }
    }

    #[test]
    fn a_slice_crosses_segments() {
        let content = vec![memory("abc"), memory("defg"), memory("h")];
        for (span, expected) in [(0..8, "abcdefgh"), (1..2, "b"), (2..4, "cd"), (3..7, "defg"), (7..8, "h"), (4..4, "")] {
            assert_eq!(read_all(&slice(&content, span.clone())).unwrap(), expected, "{span:?}");
        }
        let inner = slice(&slice(&content, 1..7), 1..4);
        assert_eq!(read_all(&inner).unwrap(), "cde");
    }

    #[tokio::test]
    async fn a_file_lives_as_long_as_someone_refers_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::in_folder(folder.path()).unwrap();
        let files = || std::fs::read_dir(folder.path()).unwrap().count();
        let mut writer = blobs.writer();
        writer.push(Bytes::from(vec![7; 3 << 20])).await.unwrap();
        let written = writer.finish().await.unwrap();
        let part = slice(&written.content, 5..9);
        drop(written);
        assert_eq!(read_all(&part).unwrap(), vec![7; 4]);
        assert_eq!(files(), 1);
        drop(part);
        assert_eq!(files(), 0);
        let kept = blobs.store(Bytes::from_static(b"kept")).unwrap();
        blobs.close();
        drop(kept);
        assert_eq!(files(), 1);
    }
}
