//! A cache on a real directory. `model` compares a file with a vector of bytes over random steps and crashes, `crash`
//! goes through what a start can find, `order` through what is on the disk before what, `room` through budget and eviction,
//! `idle` through what nobody uses, `race` lets threads get in each other's way, `refusal` breaks the journal, `rot` the data,
//! `spares` are made ahead.
#![allow(clippy::single_range_in_vec_init, reason = "a list of one span is what is meant")]

mod crash;
mod freed;
mod idle;
mod model;
mod order;
mod race;
mod refusal;
mod room;
mod rot;
mod spares;

use super::*;
use crate::types::{ETag, Key, Span};

/// A cache directory whose daemon can be killed.
struct World {
    directory: tempfile::TempDir,
    limits: Limits,
    /// 1: bytes are counted exactly.
    block_bytes: u64,
    cache: Option<Arc<Cache>>,
}

impl World {
    fn new() -> Self {
        Self::with_limit(1 << 30)
    }

    fn with_limit(size_bytes: u64) -> Self {
        Self::at(tempfile::tempdir().unwrap(), size_bytes)
    }

    /// Where an fsync costs nothing, if there is such a place.
    fn in_memory() -> Self {
        Self::at(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap(), 1 << 30)
    }

    fn at(directory: tempfile::TempDir, size_bytes: u64) -> Self {
        let limits = Limits { size_bytes, free_floor_bytes: 0 };
        let mut world = Self { directory, limits, block_bytes: 1, cache: None };
        world.start(true).unwrap();
        world
    }

    fn start(&mut self, trusted: bool) -> Result<()> {
        let journal = Arc::new(Journal::open(self.directory.path(), "b")?);
        let mut disk = disk::Disk::open(self.directory.path())?;
        disk.block_bytes = self.block_bytes;
        self.cache = Some(open::open_on(disk, self.directory.path(), journal, self.limits, trusted)?);
        Ok(())
    }

    /// Ends the daemon without letting it say anything, and starts another. `trusted`: the machine stayed up.
    fn kill(&mut self, trusted: bool) {
        self.stop();
        self.start(trusted).unwrap();
    }

    fn stop(&mut self) {
        // Descriptors and SQLite's locks must go, as they go with a process; nothing of ours is written by that.
        self.cache = None;
    }

    fn cache(&self) -> &Arc<Cache> {
        self.cache.as_ref().unwrap()
    }

    fn journal(&self) -> &Journal {
        &self.cache().shared.journal
    }

    fn data_files(&self) -> usize {
        self.cache().shared.disk.scan().unwrap().len()
    }

    /// A clean, complete file that holds `content` under `key`.
    fn clean(&self, key: &str, content: &[u8]) -> Arc<LocalFile> {
        let version = version(key, content.len() as u64);
        let file = self.cache().of_version(&version).unwrap();
        assert!(file.fill(&version, 0, content).unwrap());
        file
    }

    /// A new dirty file, as the writer makes it.
    fn dirty(&self, content: &[u8]) -> Arc<LocalFile> {
        let file = self.cache().create().unwrap();
        self.journal().apply(&[crate::journal::Change::PutFile(file.row(true).unwrap())]).unwrap();
        file.mark_dirty();
        file.write_at(0, content).unwrap();
        file
    }
}

fn version(key: &str, size: u64) -> Version {
    Version { key: Key::from(key), etag: ETag::new(&format!("etag-of-{key}")), size }
}

fn read(file: &LocalFile, span: Span) -> Option<Vec<u8>> {
    let mut buffer = vec![0xee; (span.end - span.start) as usize];
    let length = file.read_at(span.start, &mut buffer).unwrap()?;
    buffer.truncate(length);
    Some(buffer)
}

fn all(file: &LocalFile) -> Vec<u8> {
    read(file, 0..file.size() + 10).expect("nothing is absent")
}

#[test]
fn a_new_file_is_written_uploaded_and_found_as_its_version() {
    let world = World::new();
    let cache = world.cache();
    let file = cache.create().unwrap();
    assert!(matches!(file.write_at(0, b"x"), Err(WriteRefused::Clean)));
    assert!(matches!(file.truncate(1), Err(WriteRefused::Clean)));
    assert!(matches!(file.zero(0..1, false), Err(WriteRefused::Clean)));
    file.mark_dirty();
    file.write_at(0, b"hello").unwrap();
    let stamp = file.stamp().unwrap();
    assert!(file.settle(&stamp, &version("a", 5)).unwrap());
    assert!(!file.is_dirty() && file.is_complete() && file.changed().is_empty());
    let found = cache.find_version(&version("a", 5)).unwrap();
    assert_eq!((found.id(), all(&found)), (file.id(), b"hello".to_vec()));
    assert_eq!(cache.usage(), Usage { bytes: 5, dirty_bytes: 0, limit_bytes: 1 << 30, files: 1 });
    file.mark_dirty();
    assert!(cache.find_version(&version("a", 5)).is_none(), "a changed file is not its version");
    assert!(cache.of_version(&version("a", 5)).unwrap().missing(0..5) == [0..5]);
}

#[test]
fn what_changed_during_an_upload_stays_to_be_sent() {
    let world = World::new();
    let file = world.dirty(&[1; 100]);
    let stamp = file.stamp().unwrap();
    file.write_at(40, &[2; 10]).unwrap();
    assert_eq!(file.changed(), [0..100]);
    assert!(!file.settle(&stamp, &version("a", 100)).unwrap());
    assert_eq!((file.is_dirty(), file.changed(), file.base()), (true, vec![40..50], Some(version("a", 100))));
    let stamp = file.stamp().unwrap();
    let data = file.handle().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&*data, &[3; 200], 0).unwrap();
    assert!(!file.settle(&stamp, &version("b", 100)).unwrap(), "a writer that passes by the daemon is seen");
    assert_eq!((file.size(), file.changed()), (200, vec![0..200]));
    assert_eq!(world.cache().usage().dirty_bytes, 200);
}

#[test]
fn an_upload_of_another_size_settles_nothing() {
    let world = World::new();
    let file = world.dirty(&[1; 100]);
    let stamp = file.stamp().unwrap();
    assert!(!file.settle(&stamp, &version("a", 99)).unwrap());
    assert_eq!((file.is_dirty(), file.changed()), (true, vec![0..100]));
}

#[test]
fn a_rebased_file_keeps_its_bytes_under_the_new_name() {
    let world = World::new();
    let file = world.clean("a", b"hello");
    file.rebase(&version("b", 5)).unwrap();
    assert!(world.cache().find_version(&version("a", 5)).is_none());
    assert_eq!(all(&world.cache().find_version(&version("b", 5)).unwrap()), b"hello");
    assert!(matches!(file.rebase(&version("c", 6)), Err(crate::error::Error::Invalid)));
    assert!(!file.fill(&version("a", 5), 0, b"HELLO").unwrap(), "bytes of another base are not taken in");
}

#[test]
fn fetched_bytes_go_only_where_nothing_is() {
    let world = World::new();
    let base = version("a", 10);
    let file = world.cache().of_version(&base).unwrap();
    let _pin = file.pin();
    file.mark_dirty();
    file.write_at(3, b"XY").unwrap();
    assert!(file.fill(&base, 2, b"abcd").unwrap());
    assert_eq!((read(&file, 2..6), read(&file, 1..6)), (Some(b"aXYd".to_vec()), None));
    assert_eq!(file.missing(0..100), [0..2, 6..10]);
    assert_eq!(file.changed(), [3..5]);
    file.truncate(4).unwrap();
    assert!(file.fill(&base, 0, b"0123456789").unwrap());
    assert_eq!(all(&file), b"01aX");
    assert!(file.is_complete());
}

#[test]
fn an_unlinked_file_stays_readable_until_its_last_pin() {
    let world = World::new();
    let file = world.dirty(b"hello");
    let pins = (file.pin(), file.pin());
    world.cache().discard(file.id());
    assert!(world.cache().get(file.id()).is_none());
    assert!(world.journal().files().unwrap().is_empty());
    file.write_at(5, b" world").unwrap();
    drop(pins.0);
    assert_eq!(all(&file), b"hello world");
    assert_eq!((world.data_files(), world.cache().usage().bytes), (1, 11));
    drop(pins.1);
    assert_eq!((world.data_files(), world.cache().usage()), (0, Usage { limit_bytes: 1 << 30, ..Usage::default() }));
    assert!(matches!(file.write_at(0, b"x"), Err(WriteRefused::Failed(_))));
    world.cache().sync().unwrap();
}

#[test]
fn ids_are_never_used_again() {
    let mut world = World::new();
    let first = world.cache().create().unwrap().id();
    world.cache().discard(first);
    world.kill(true);
    assert!(world.cache().create().unwrap().id() > first);
}

#[test]
fn few_descriptors_stay_open() {
    let world = World::new();
    let pinned: Vec<_> = (0..10).map(|_| world.dirty(b"x")).map(|file| file.pin()).collect();
    pinned.iter().for_each(|pin| assert_eq!(all(pin.file()), b"x"));
    let files: Vec<_> = (0..600).map(|_| world.dirty(b"x")).collect();
    assert!(world.cache().shared.descriptors.lock().len() <= 256);
    assert!(files.iter().all(|file| all(file) == b"x"));
    assert!(pinned.iter().all(|pin| pin.file().state.lock().handle.is_some()));
}

#[tokio::test]
async fn a_wakeup_between_the_call_and_the_await_is_not_lost() {
    let world = World::with_limit(10);
    let file = world.cache().of_version(&version("a", 4)).unwrap();
    let filled = file.filled();
    file.fill(&version("a", 4), 0, b"abcd").unwrap();
    filled.await;
    let filled = file.filled();
    file.rebase(&version("b", 4)).unwrap();
    filled.await;

    let dirty = world.dirty(b"0123456789");
    let other = world.dirty(b"");
    let room = world.cache().room();
    assert!(matches!(other.write_at(0, b"x"), Err(WriteRefused::Full)));
    let stamp = dirty.stamp().unwrap();
    dirty.settle(&stamp, &version("c", 10)).unwrap();
    room.await;
    other.write_at(0, b"x").unwrap();
}

#[test]
fn a_cached_file_that_vanished_or_shrank_is_a_miss() {
    let world = World::new();
    let file = world.clean("a", b"hello");
    world.cache().shared.descriptors.lock().clear();
    std::fs::remove_file(world.cache().shared.disk.path(file.id())).unwrap();
    assert_eq!(read(&file, 0..5), None);
    assert_eq!((file.missing(0..5), world.cache().usage().bytes), (vec![0..5], 0));
    file.fill(&version("a", 5), 0, b"hello").unwrap();
    assert_eq!(all(&file), b"hello");
    file.handle().unwrap().set_len(2).unwrap();
    assert_eq!(read(&file, 0..5), None);
}

#[test]
fn offsets_past_the_kernel_s_are_refused() {
    let world = World::new();
    let file = world.dirty(b"x");
    for refused in [file.write_at(u64::MAX, b"x"), file.write_at(i64::MAX as u64, b"x"), file.truncate(1 << 63)] {
        assert!(matches!(refused, Err(WriteRefused::Failed(crate::error::Error::TooLarge))));
    }
    assert_eq!(all(&file), b"x");
}
