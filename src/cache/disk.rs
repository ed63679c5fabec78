//! The data files as files: where they lie, and the few system calls that `std` has no name for.
//!
//! `data/<2 hex>/<16 hex>`, the first two digits being the *last* byte of the id, so that files spread evenly.
//! Must not: know what a file holds, or count bytes.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::simulation::{self, Event};
use crate::types::{FileId, Span};

/// File systems report their blocks, with two lies to guard against: less than memory's pages, in which files come and go,
/// and what a network likes to be asked for at once.
const BLOCK_LEAST_BYTES: u64 = 4 << 10;
const BLOCK_MOST_BYTES: u64 = 64 << 10;

/// Its name in the cache directory.
const DATA: &str = "data";

/// The directory of data files.
pub struct Disk {
    root: PathBuf,
    /// Held open for statfs and for syncing.
    handle: File,
    /// In bytes: what the smallest file takes.
    pub block_bytes: u64,
}

/// A data file as it lies on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnDisk {
    pub size: u64,
    pub mtime_ns: i64,
    /// In bytes; less than `size` where the file has holes.
    pub allocated: u64,
}

impl Disk {
    /// Makes the directories (0700) where they are missing.
    pub fn open(cache_directory: &Path) -> io::Result<Disk> {
        let root = cache_directory.join(DATA);
        let mut made = false;
        for shard in 0..=255u8 {
            let path = root.join(format!("{shard:02x}"));
            if !path.is_dir() {
                DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
                made = true;
            }
        }
        let handle = File::open(&root)?;
        if made {
            // A file that is synced in a directory whose own name is not would go with it.
            handle.sync_all()?;
            File::open(cache_directory)?.sync_all()?;
        }
        let block_bytes = statvfs(&handle)?.f_frsize.clamp(BLOCK_LEAST_BYTES, BLOCK_MOST_BYTES).next_power_of_two();
        Ok(Disk { root, handle, block_bytes })
    }

    pub fn path(&self, id: FileId) -> PathBuf {
        self.shard(id).join(id.to_string())
    }

    fn shard(&self, id: FileId) -> PathBuf {
        self.root.join(format!("{:02x}", id.0 & 0xff))
    }

    /// `new`: the file must not exist yet.
    pub fn open_file(&self, id: FileId, new: bool) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(new).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(self.path(id))
    }

    /// Succeeds also where there is no file.
    pub fn remove(&self, id: FileId) -> io::Result<()> {
        match std::fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => {
                simulation::saw(|| Event::Removed);
                Ok(())
            }
        }
    }

    /// Makes the names of new files last.
    pub fn sync_names(&self, ids: impl Iterator<Item = FileId>) -> io::Result<()> {
        let shards: std::collections::BTreeSet<PathBuf> = ids.map(|id| self.shard(id)).collect();
        for shard in shards {
            simulation::sync_names(&File::open(&shard)?, || Event::NamesSynced(shard))?;
        }
        Ok(())
    }

    /// Every data file there is. Names that aren't ours are left alone.
    pub fn scan(&self) -> io::Result<Vec<(FileId, OnDisk)>> {
        scan(&self.root)
    }

    /// Bytes that this process may still use on the disk.
    pub fn available(&self) -> io::Result<u64> {
        let stat = statvfs(&self.handle)?;
        Ok(stat.f_bavail * stat.f_frsize)
    }
}

fn statvfs(directory: &File) -> io::Result<libc::statvfs> {
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the descriptor is open as long as the borrow, and the pointer is to memory of the right size.
    let result = unsafe { libc::fstatvfs(directory.as_raw_fd(), stat.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fstatvfs succeeded, so it filled the structure.
    Ok(unsafe { stat.assume_init() })
}

/// Brings the file's dirty pages to the disk and waits for that. Not an fsync: what it takes to find them again may be missing.
pub fn write_pages(file: &File) -> io::Result<()> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: the descriptor is open as long as the borrow; the call takes no memory.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The data files of a cache directory that nobody has open; nothing is made or changed.
pub fn data_files(cache_directory: &Path) -> io::Result<Vec<(FileId, OnDisk)>> {
    scan(&cache_directory.join(DATA))
}

/// Where the data file of this number lies.
pub fn data_path(cache_directory: &Path, id: FileId) -> PathBuf {
    cache_directory.join(DATA).join(format!("{:02x}", id.0 & 0xff)).join(id.to_string())
}

fn scan(root: &Path) -> io::Result<Vec<(FileId, OnDisk)>> {
    let mut found = Vec::new();
    for shard in 0..=255u8 {
        let entries = match std::fs::read_dir(root.join(format!("{shard:02x}"))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(id) = name.to_str().filter(|name| name.len() == 16).and_then(|name| u64::from_str_radix(name, 16).ok()) else {
                continue;
            };
            let metadata = entry.metadata()?;
            if metadata.is_file() {
                found.push((FileId(id), on_disk(&metadata)));
            }
        }
    }
    Ok(found)
}

pub fn on_disk(metadata: &std::fs::Metadata) -> OnDisk {
    let mtime_ns = metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
    OnDisk { size: metadata.len(), mtime_ns, allocated: metadata.blocks() * 512 }
}

/// Makes `span` a hole that reads as zeros; the length stays.
pub fn punch(file: &File, span: &Span) -> io::Result<()> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let length = span.end - span.start;
    loop {
        // SAFETY: plain integers on a descriptor that is open as long as the borrow.
        let result = unsafe { libc::fallocate(file.as_raw_fd(), mode, span.start as libc::off_t, length as libc::off_t) };
        if result == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// The same, and the file's time of change stays: nothing of what it holds for its readers has changed.
pub fn punch_silently(file: &File, span: &Span) -> io::Result<()> {
    let modified = file.metadata()?.modified()?;
    punch(file, span)?;
    file.set_modified(modified)
}

/// The holes in the first `size` bytes, as far as the file system knows them.
pub fn holes(file: &File, size: u64) -> io::Result<Vec<Span>> {
    let mut holes = Vec::new();
    let mut at = 0;
    while at < size {
        let data = seek(file, at, libc::SEEK_DATA)?.map_or(size, |data| data.min(size));
        if at < data {
            holes.push(at..data);
        }
        at = match seek(file, data, libc::SEEK_HOLE)? {
            Some(hole) if data < size => hole,
            _ => size,
        };
    }
    Ok(holes)
}

/// None where nothing of the kind follows.
fn seek(file: &File, offset: u64, whence: libc::c_int) -> io::Result<Option<u64>> {
    // SAFETY: plain integers on a descriptor that is open as long as the borrow. Nothing here uses the file's position.
    let result = unsafe { libc::lseek(file.as_raw_fd(), offset as libc::off_t, whence) };
    match u64::try_from(result) {
        Ok(at) => Ok(Some(at)),
        Err(_) => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            error => Err(error),
        },
    }
}

/// True for the errors that mean "no room": the disk or a quota is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn holes_are_found_and_made() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::open(directory.path()).unwrap();
        let file = disk.open_file(FileId(7), true).unwrap();
        let block = 1 << 16;
        file.set_len(4 * block).unwrap();
        file.write_all_at(&vec![1; block as usize], block).unwrap();
        assert_eq!(holes(&file, 4 * block).unwrap(), [0..block, 2 * block..4 * block]);
        punch(&file, &(block..block + 10)).unwrap();
        let mut bytes = [9; 11];
        file.read_exact_at(&mut bytes, block).unwrap();
        assert_eq!(bytes, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        punch(&file, &(0..4 * block)).unwrap();
        assert_eq!(holes(&file, 4 * block).unwrap(), std::slice::from_ref(&(0..4 * block)));
    }

    #[test]
    fn a_scan_finds_data_files_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::open(directory.path()).unwrap();
        for id in [1, 255, 0xfeed_0000_0001] {
            disk.open_file(FileId(id), true).unwrap().set_len(id & 0xffff).unwrap();
        }
        std::fs::write(directory.path().join("data/00/README"), "not ours").unwrap();
        let mut found: Vec<_> = disk.scan().unwrap().into_iter().map(|(id, file)| (id.0, file.size)).collect();
        found.sort();
        assert_eq!(found, [(1, 1), (255, 255), (0xfeed_0000_0001, 1)]);
        disk.remove(FileId(1)).unwrap();
        disk.remove(FileId(1)).unwrap();
        assert_eq!(disk.scan().unwrap().len(), 2);
        assert!(disk.available().unwrap() > 0);
    }
}
