//! A mount without FUSE: the file system on the in-memory store, a journal and a cache in a temporary folder, and
//! tokio's paused clock.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::future::BoxFuture;
use mediafs::cache::{Cache, Limits};
use mediafs::error::{Error, Result};
use mediafs::fs::{Attr, Caller, Fs, FsConfig, IdleName, Ino, Invalidate, Lookup, RenameFlags, SetAttr, WriteMode};
use mediafs::journal::{Content, Journal};
use mediafs::media::Rules;
use mediafs::reader::{Reader, ReaderConfig};
use mediafs::store::fault::{FaultStore, Faults};
use mediafs::store::memory::MemoryStore;
use mediafs::store::trace::{RequestCounts, TraceStore};
use mediafs::store::{Body, Condition, ObjectStore, Store};
use mediafs::types::{FileId, Key, ObjectHeaders, Version};
use mediafs::writer::{Events, OnConflict, Writer, WriterConfig};

pub const ROOT: Ino = 1;
pub const ME: Caller = Caller { uid: 1000, gid: 1000, pid: 1 };

/// The bucket outlives its mounts.
pub struct Bucket {
    pub memory: Arc<MemoryStore>,
    /// Between the bucket and its mounts.
    pub faults: Faults,
}

pub struct World {
    pub fs: Arc<Fs>,
    pub writer: Arc<Writer>,
    pub cache: Arc<Cache>,
    pub counts: RequestCounts,
    pub folder: Arc<tempfile::TempDir>,
    pub kernel: Kernel,
}

/// What a kernel without open files remembers, and when it forgets it: an inode goes with its name.
#[derive(Clone, Default)]
pub struct Kernel(Arc<Mutex<Dentries>>);

/// By directory and name: the inode, and how often it was looked up.
type Dentries = HashMap<(Ino, String), (Ino, u64)>;

impl Kernel {
    /// Returns what it took the name from.
    fn looked_up(&self, parent: Ino, name: &str, ino: Ino) -> Option<(Ino, u64)> {
        let mut names = self.0.lock().unwrap();
        let known = names.entry((parent, name.to_owned())).or_insert((ino, 0));
        if known.0 == ino {
            known.1 += 1;
            return None;
        }
        Some(std::mem::replace(known, (ino, 1)))
    }

    fn took(&self, parent: Ino, name: &str) -> Option<(Ino, u64)> {
        self.0.lock().unwrap().remove(&(parent, name.to_owned()))
    }

    fn gave(&self, parent: Ino, name: &str, known: (Ino, u64)) {
        self.0.lock().unwrap().insert((parent, name.to_owned()), known);
    }
}

/// A name that the kernel is told to drop is forgotten, a moment later.
pub struct Told {
    pub kernel: Kernel,
    pub fs: Weak<Fs>,
}

impl Invalidate for Told {
    fn inode(&self, _: Ino) {}
    fn attributes(&self, _: Ino) {}
    fn entry(&self, parent: Ino, name: &OsStr) {
        let Some((ino, lookups)) = name.to_str().and_then(|name| self.kernel.took(parent, name)) else { return };
        let fs = self.fs.clone();
        tokio::spawn(async move { fs.upgrade().map(|fs| fs.forget(ino, lookups)) });
    }
    fn idle(&self, names: Vec<IdleName>) {
        names.iter().for_each(|idle| self.entry(idle.parent, OsStr::new(&*idle.name)));
    }
    fn told(&self, _: Ino) -> Option<BoxFuture<'static, ()>> {
        None
    }
}

/// Gets the key of what was just stored or removed.
pub type Meanwhile = Arc<dyn Fn(&Fs, &Key) + Send + Sync>;

/// Does something at the instant when the journal has the end of an upload, a copy or a removal and the file system has not
/// heard of it: on two threads a program's change can come just then.
struct LateWord {
    fs: Weak<Fs>,
    meanwhile: Meanwhile,
}

impl LateWord {
    fn fs(&self, key: &Key) -> Option<Arc<Fs>> {
        let fs = self.fs.upgrade()?;
        (self.meanwhile)(&fs, key);
        Some(fs)
    }
}

impl Events for LateWord {
    fn headers(&self, key: &Key, file: FileId) -> Option<ObjectHeaders> {
        self.fs.upgrade()?.headers(key, file)
    }

    fn stored(&self, content: &Content, version: &Version, headers: Option<&ObjectHeaders>, last_modified: SystemTime, clean: bool) {
        if let Some(fs) = self.fs(&version.key) {
            fs.stored(content, version, headers, last_modified, clean);
        }
    }

    fn renewed(&self, key: &Key, old: &Version, new: &Version) {
        if let Some(fs) = self.fs(key) {
            fs.renewed(key, old, new);
        }
    }

    fn deleted(&self, key: &Key) {
        if let Some(fs) = self.fs(key) {
            fs.deleted(key);
        }
    }

    fn conflict(&self, key: &Key, kept_as: Option<&Key>) {
        if let Some(fs) = self.fs(key) {
            fs.conflict(key, kept_as);
        }
    }
}

/// As Django's storage opens a new file.
pub const EXCLUSIVE: i32 = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;

/// What differs from one test's mount to another's.
#[derive(Clone)]
pub struct Options {
    pub write_mode: WriteMode,
    pub on_conflict: OnConflict,
    pub ttl: Duration,
    pub negative_ttl: Duration,
    pub host: &'static str,
    pub cache_bytes: u64,
    pub folds_names: bool,
    pub timeout: Duration,
    pub rules: Arc<Rules>,
    pub posix_metadata: bool,
    pub no_access_times: bool,
    pub listing_bytes: u64,
    pub names_limit: usize,
    pub waiting_limit: usize,
    pub meanwhile: Option<Meanwhile>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            write_mode: WriteMode::Back,
            on_conflict: OnConflict::KeepBoth,
            ttl: Duration::from_secs(10),
            negative_ttl: Duration::from_secs(1),
            host: "here",
            cache_bytes: 1 << 30,
            folds_names: false,
            timeout: Duration::from_secs(60),
            rules: Arc::default(),
            posix_metadata: true,
            no_access_times: false,
            listing_bytes: 64 << 20,
            names_limit: 100_000,
            waiting_limit: 100_000,
            meanwhile: None,
        }
    }
}

impl Bucket {
    pub fn new() -> Self {
        Self { memory: Arc::new(MemoryStore::new()), faults: Faults::new(1) }
    }

    /// One that lists nothing below a name while it is a file, as MinIO does.
    pub fn like_minio() -> Self {
        Self { memory: Arc::new(MemoryStore::new().with_files_that_hide_directories()), faults: Faults::new(1) }
    }

    /// One whose clock is behind ours.
    pub fn behind(time: Duration) -> Self {
        Self { memory: Arc::new(MemoryStore::new().with_clock(move || mediafs::clock::now() - time)), faults: Faults::new(1) }
    }

    /// One whose time goes by as the test's does.
    pub fn on_virtual_time() -> Self {
        let (begun, start) = (mediafs::clock::now(), tokio::time::Instant::now());
        Self { memory: Arc::new(MemoryStore::new().with_clock(move || begun + start.elapsed())), faults: Faults::new(1) }
    }

    pub fn mount(&self) -> World {
        self.mount_with(Options::default())
    }

    pub fn mount_with(&self, options: Options) -> World {
        self.mount_in(Arc::new(tempfile::tempdir().unwrap()), options)
    }

    /// A mount on a cache folder that may hold an earlier one's files.
    pub fn mount_in(&self, folder: Arc<tempfile::TempDir>, options: Options) -> World {
        let counts = RequestCounts::new();
        let store: Store =
            Arc::new(TraceStore::new(Arc::new(FaultStore::new(Arc::clone(&self.memory) as Store, self.faults.clone())), counts.clone()));
        let store = mediafs::store::gzip::decoded(store);
        let journal = Arc::new(Journal::open(folder.path(), "memory/bucket").unwrap());
        let limits = Limits { size_bytes: options.cache_bytes, free_floor_bytes: 0 };
        let cache = Cache::open(folder.path(), Arc::clone(&journal), limits, true).unwrap();
        let reader = Reader::new(Arc::clone(&store), ReaderConfig { timeout: Duration::from_secs(60), parallel: 16 });
        let through = options.write_mode == WriteMode::Through;
        let writer_config = WriterConfig {
            on_conflict: options.on_conflict,
            through,
            host: options.host.into(),
            waiting_limit: options.waiting_limit,
            rules: Arc::clone(&options.rules),
            ..WriterConfig::default()
        };
        let writer = Writer::open(Arc::clone(&store), Arc::clone(&journal), Arc::clone(&cache), writer_config).unwrap();
        let config = FsConfig {
            write_mode: options.write_mode,
            ttl: options.ttl,
            negative_ttl: options.negative_ttl,
            exclusive: false,
            read_only: false,
            no_access_times: options.no_access_times,
            folds_names: options.folds_names,
            prefix_bytes: 0,
            uid: ME.uid,
            gid: ME.gid,
            umask: 0o022,
            posix_metadata: options.posix_metadata,
            unsafe_symlinks: false,
            timeout: options.timeout,
            passthrough_room_bytes: 0,
            listing_bytes: options.listing_bytes,
            names_limit: options.names_limit,
            public_url_base: None,
            r2: options.folds_names,
            rules: Arc::clone(&options.rules),
        };
        let fs = Fs::new(store, journal, Arc::clone(&cache), reader, Arc::clone(&writer), config).unwrap();
        if let Some(meanwhile) = options.meanwhile {
            // Who comes first is whom the writer tells.
            writer.start(Arc::new(LateWord { fs: Arc::downgrade(&fs), meanwhile }));
        }
        let kernel = Kernel::default();
        fs.start(Arc::new(Told { kernel: kernel.clone(), fs: Arc::downgrade(&fs) }));
        World { fs, writer, cache, counts, folder, kernel }
    }

    /// Another program's PUT.
    pub async fn put(&self, key: &str, bytes: &[u8]) {
        self.put_with(key, bytes, &[]).await;
    }

    pub async fn put_with(&self, key: &str, bytes: &[u8], metadata: &[(&str, &str)]) {
        let metadata = metadata.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let headers = ObjectHeaders { metadata, ..ObjectHeaders::default() };
        let body = Body::new(Bytes::copy_from_slice(bytes));
        let _receipt = self.memory.put(&Key::from(key), body, &headers, &Condition::Any).await.unwrap();
    }

    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.memory.object(&Key::from(key)).map(|(bytes, _)| bytes.to_vec())
    }

    pub fn keys(&self) -> Vec<String> {
        self.memory.keys().iter().map(|key| key.as_str().to_owned()).collect()
    }
}

/// Of a cache folder.
pub fn data_files(folder: &std::path::Path) -> Vec<PathBuf> {
    let shards = std::fs::read_dir(folder.join("data")).unwrap();
    shards.flat_map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap()).map(|file| file.unwrap().path()).collect()
}

/// Requests by operation, as `[("HeadObject", 1), …]`.
pub fn requests(world: &World) -> Vec<(&'static str, u64)> {
    world.counts.snapshot().into_iter().filter(|(_, count)| *count > 0).collect()
}

impl World {
    /// The inode of what a program looked up and is about to open: the kernel knows it whatever becomes of its name.
    pub async fn looked_up(&self, path: &str) -> Ino {
        let (parent, name) = self.walk(path).await.unwrap();
        match self.fs.lookup(parent, OsStr::new(name)).await.unwrap() {
            Lookup::Found(entry) => entry.attr.ino,
            Lookup::Missing(_) => panic!("{path} is missing"),
        }
    }

    /// The last component's directory, walked from the root as the kernel does.
    pub async fn walk<'a>(&self, path: &'a str) -> Result<(Ino, &'a str)> {
        let mut at = ROOT;
        let mut parts: Vec<&str> = path.split('/').collect();
        let last = parts.pop().unwrap();
        for part in parts {
            at = self.lookup_in(at, part).await?.ok_or(Error::NotFound)?.ino;
        }
        Ok((at, last))
    }

    pub async fn lookup_in(&self, parent: Ino, name: &str) -> Result<Option<Attr>> {
        Ok(match self.fs.lookup(parent, OsStr::new(name)).await? {
            Lookup::Found(entry) => {
                self.forget(self.kernel.looked_up(parent, name, entry.attr.ino));
                Some(entry.attr)
            }
            Lookup::Missing(_) => None,
        })
    }

    pub async fn stat(&self, path: &str) -> Result<Attr> {
        let (parent, name) = self.walk(path).await?;
        self.lookup_in(parent, name).await?.ok_or(Error::NotFound)
    }

    pub async fn exists(&self, path: &str) -> bool {
        match self.stat(path).await {
            Ok(_) => true,
            Err(Error::NotFound) => false,
            Err(error) => panic!("{path}: {error}"),
        }
    }

    pub async fn mkdir(&self, path: &str) -> Result<()> {
        let (parent, name) = self.walk(path).await?;
        let made = self.fs.mkdir(parent, OsStr::new(name), 0o755, ME).await?;
        self.forget(self.kernel.looked_up(parent, name, made.attr.ino));
        Ok(())
    }

    pub async fn rmdir(&self, path: &str) -> Result<()> {
        let (parent, name) = self.walk(path).await?;
        self.fs.rmdir(parent, OsStr::new(name)).await
    }

    pub async fn unlink(&self, path: &str) -> Result<()> {
        let (parent, name) = self.walk(path).await?;
        self.fs.unlink(parent, OsStr::new(name)).await?;
        self.forget(self.kernel.took(parent, name));
        Ok(())
    }

    fn forget(&self, known: Option<(Ino, u64)>) {
        if let Some((ino, lookups)) = known {
            self.fs.forget(ino, lookups);
        }
    }

    pub async fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.rename_with(from, to, RenameFlags::default()).await
    }

    pub async fn rename_with(&self, from: &str, to: &str, flags: RenameFlags) -> Result<()> {
        let (parent, name) = self.walk(from).await?;
        let (to_parent, to_name) = self.walk(to).await?;
        self.fs.rename(parent, OsStr::new(name), to_parent, OsStr::new(to_name), flags).await?;
        let (moved, replaced) = (self.kernel.took(parent, name), self.kernel.took(to_parent, to_name));
        if let Some(moved) = moved {
            self.kernel.gave(to_parent, to_name, moved);
        }
        match replaced {
            Some(exchanged) if flags.exchange => self.kernel.gave(parent, name, exchanged),
            replaced => self.forget(replaced.filter(|replaced| moved.is_none_or(|moved| moved.0 != replaced.0))),
        }
        Ok(())
    }

    /// open(2) as the kernel does it: LOOKUP, then OPEN or CREATE.
    pub async fn open(&self, path: &str, flags: i32) -> Result<u64> {
        let (parent, name) = self.walk(path).await?;
        let found = self.lookup_in(parent, name).await?;
        match found {
            Some(_) if flags & libc::O_CREAT != 0 && flags & libc::O_EXCL != 0 => Err(Error::Exists),
            Some(attr) => Ok(self.fs.open(attr.ino, flags).await?.handle),
            None if flags & libc::O_CREAT == 0 => Err(Error::NotFound),
            None => {
                let (entry, opened) = self.fs.create(parent, OsStr::new(name), 0o644, flags, ME).await?;
                self.forget(self.kernel.looked_up(parent, name, entry.attr.ino));
                Ok(opened.handle)
            }
        }
    }

    pub async fn write(&self, handle: u64, offset: u64, bytes: &[u8]) -> Result<()> {
        let written = match self.fs.write_now(handle, offset, bytes) {
            Some(written) => written?,
            None => self.fs.write(handle, offset, Bytes::copy_from_slice(bytes)).await?,
        };
        assert_eq!(written, bytes.len());
        Ok(())
    }

    /// close(2): FLUSH, then RELEASE.
    pub async fn close(&self, handle: u64) -> Result<()> {
        let flushed = self.fs.flush(handle).await;
        self.fs.release(handle);
        flushed
    }

    pub async fn save(&self, path: &str, bytes: &[u8]) -> Result<()> {
        self.save_with(path, bytes, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC).await
    }

    pub async fn save_with(&self, path: &str, bytes: &[u8], flags: i32) -> Result<()> {
        let handle = self.open(path, flags).await?;
        self.write(handle, 0, bytes).await?;
        self.close(handle).await
    }

    pub async fn read_handle(&self, handle: u64, offset: u64, size: usize) -> Result<Vec<u8>> {
        let mut buffer = vec![0; size];
        match self.fs.read_now(handle, offset, &mut buffer) {
            Some(read) => {
                buffer.truncate(read?);
                Ok(buffer)
            }
            None => Ok(self.fs.read(handle, offset, size).await?.to_vec()),
        }
    }

    pub async fn read(&self, path: &str) -> Result<Vec<u8>> {
        let handle = self.open(path, libc::O_RDONLY).await?;
        let mut bytes = Vec::new();
        loop {
            let chunk = match self.read_handle(handle, bytes.len() as u64, 128 << 10).await {
                Ok(chunk) => chunk,
                Err(error) => {
                    self.fs.release(handle);
                    return Err(error);
                }
            };
            if chunk.is_empty() {
                break;
            }
            bytes.extend(chunk);
        }
        self.close(handle).await?;
        Ok(bytes)
    }

    pub async fn names(&self, path: &str) -> Result<Vec<String>> {
        self.names_in(if path.is_empty() { ROOT } else { self.stat(path).await?.ino }).await
    }

    pub async fn names_in(&self, ino: Ino) -> Result<Vec<String>> {
        let handle = self.fs.opendir(ino).await?;
        let (mut names, mut cookie) = (Vec::new(), 0);
        loop {
            let entries = self.fs.readdir(handle, cookie, false).await?;
            let Some(last) = entries.last() else { break };
            cookie = last.next;
            names.extend(entries.iter().map(|entry| entry.name.to_str().unwrap().to_owned()).filter(|name| name != "." && name != ".."));
        }
        self.fs.releasedir(handle);
        Ok(names)
    }

    pub async fn chmod(&self, path: &str, mode: u32) -> Result<()> {
        let ino = self.stat(path).await?.ino;
        self.fs.setattr(ino, SetAttr { mode: Some(mode), ..SetAttr::default() }).await.map(drop)
    }

    /// A crash of the daemon alone: what it left on the disk.
    pub fn crashed(self) -> Arc<tempfile::TempDir> {
        self.writer.stop();
        Arc::clone(&self.folder)
    }

    /// Until all is in the bucket.
    pub async fn settle(&self) {
        assert_eq!(self.writer.drain(Duration::from_secs(3600)).await, 0, "all goes up");
    }
}
