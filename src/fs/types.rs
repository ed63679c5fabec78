//! The words between the file system and its edge: attributes, entries, options.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;

use crate::media::Rules;
/// An inode number; the root is 1; never reused while mounted.
pub use crate::namespace::Ino;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink,
}

#[derive(Clone, Copy, Debug)]
pub struct Attr {
    pub ino: Ino,
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky; no type.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    /// In bytes.
    pub size: u64,
    pub atime: SystemTime,
    pub mtime: SystemTime,
    pub ctime: SystemTime,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub attr: Attr,
    /// How long the kernel may keep the name and the attributes.
    pub ttl: Duration,
}

/// The answer to a lookup.
#[derive(Clone, Copy, Debug)]
pub enum Lookup {
    Found(Entry),
    /// The kernel may keep the absence so long (zero: don't).
    Missing(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    Now,
    To(SystemTime),
}

#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
    /// The open handle, where the change came through one.
    pub handle: Option<u64>,
}

impl SetAttr {
    pub(super) fn changes_attributes(&self) -> bool {
        self.mode.is_some() || self.uid.is_some() || self.gid.is_some() || self.atime.is_some() || self.mtime.is_some()
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Opened {
    pub handle: u64,
    /// The kernel's cached pages of this inode are still right.
    pub keep_cache: bool,
    /// Opened read-only: close() has nothing to say.
    pub no_flush: bool,
}

/// One entry of a directory, in the order of its cookies.
#[derive(Clone, Debug)]
pub struct DirEntry {
    pub name: OsString,
    pub ino: Ino,
    pub kind: Kind,
    /// The cookie of the *next* entry.
    pub next: u64,
    /// For readdirplus; None for `.`, `..` and where the attributes are not known. The edge calls `remember` for each one that it sends.
    pub entry: Option<Entry>,
}

#[derive(Clone, Copy, Debug)]
pub struct StatFs {
    pub block_size: u32,
    pub blocks: u64,
    pub blocks_free: u64,
    pub blocks_available: u64,
    pub files: u64,
    pub files_free: u64,
    pub name_max: u32,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct RenameFlags {
    pub no_replace: bool,
    pub exchange: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    Data,
    Hole,
}

/// What the kernel has to forget. Sent to the edge's notifier thread; may be called while locks are held, must not block.
pub trait Invalidate: Send + Sync + 'static {
    /// Attributes and cached pages.
    fn inode(&self, ino: Ino);
    /// Attributes alone; the pages are right.
    fn attributes(&self, ino: Ino);
    fn entry(&self, parent: Ino, name: &OsStr);
    /// Nobody here needs these any more: the kernel may let go of those that nobody uses there.
    fn idle(&self, names: Vec<IdleName>);
    /// Ends when the kernel has heard all that was queued of this inode. None: that is so already.
    fn told(&self, ino: Ino) -> Option<BoxFuture<'static, ()>>;
}

/// A name that the kernel may forget, with its inode.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdleName {
    pub ino: Ino,
    pub parent: Ino,
    pub name: Arc<str>,
    pub is_directory: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    Back,
    Through,
}

#[derive(Clone, Debug)]
pub struct FsConfig {
    pub write_mode: WriteMode,
    pub ttl: Duration,
    pub negative_ttl: Duration,
    /// This mount alone writes the prefix.
    pub exclusive: bool,
    pub read_only: bool,
    /// Reading moves no access time.
    pub no_access_times: bool,
    /// The store keeps keys in NFC (R2): the spellings of one name are one file here too.
    pub folds_names: bool,
    /// Length of the mount's own prefix, which counts towards a key's 1,024 bytes.
    pub prefix_bytes: usize,
    /// Owner and modes of what carries no metadata.
    pub uid: u32,
    pub gid: u32,
    pub umask: u32,
    pub posix_metadata: bool,
    pub unsafe_symlinks: bool,
    /// Longest time an operation waits for the bucket.
    pub timeout: Duration,
    /// Where the cache has less room than this, nobody writes past the daemon.
    pub passthrough_room_bytes: u64,
    /// The most memory that a listing may take on its way.
    pub listing_bytes: u64,
    /// Names in memory, of inodes and of what is known to be missing: past it those that nobody needs are forgotten.
    pub names_limit: usize,
    /// For `user.mediafs.url`.
    pub public_url_base: Option<String>,
    /// Cloudflare R2: more metadata and fewer storage classes than S3.
    pub r2: bool,
    /// Headers by path pattern.
    pub rules: Arc<Rules>,
}

/// The JSON that `user.mediafs.status` on the root carries; the daemon installs it.
pub type StatusSource = Arc<dyn Fn() -> String + Send + Sync>;
