//! fuser's trait over [`Fs`]: unpack the request, ask, pack the answer. No decision about files is made here.
//!
//! Names and data are borrowed from fuser's receive buffer and are copied where an operation may outlive the call.
//! Reads and writes of present data, which are most of all calls, run without a copy of their own.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::debug;

use super::answer::{Answers, Patience};
use super::errno::Asked;
use super::passthrough::{Asker, Passing, Passthrough};
use super::sweep::Sweeps;
use super::{MAX_REQUEST_BYTES, convert, directory, xattr};
use crate::error::{Error, Result};
use crate::fs::{Entry, Fs, Lookup, SetAttr, Whence};

/// Requests that the kernel keeps in flight for readahead and direct I/O: the default, 16, starves parallel readers.
const MAX_BACKGROUND: u16 = 64;

thread_local! {
    /// One for each of fuser's threads: where present bytes are read into on their way to the kernel.
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; MAX_REQUEST_BYTES]);
}

pub(super) struct Adapter {
    fs: Arc<Fs>,
    answers: Answers,
    passing: Arc<Passing>,
    /// Whether backing files may lie on a file system that is stacked itself (overlayfs).
    stacked: bool,
    /// A leaf: nothing else is locked while this is held.
    sweeps: Mutex<Sweeps>,
    /// The kernel may keep listings for ever: nobody else changes this prefix.
    keep_listings: bool,
}

impl Adapter {
    pub fn new(fs: Arc<Fs>, answers: Answers, keep_listings: bool, passthrough: Passthrough, stacked: bool) -> Self {
        Self { fs, answers, passing: Arc::new(Passing::new(passthrough)), stacked, sweeps: Mutex::default(), keep_listings }
    }

    fn entry<F>(&self, asked: Asked, operation: F, reply: ReplyEntry)
    where
        F: Future<Output = Result<Entry>> + Send + 'static,
    {
        self.answers.answer(asked, Patience::Deadline, operation, |result| match result {
            Ok(found) => reply.entry(&found.ttl, &convert::attr(&found.attr), Generation(0)),
            Err(errno) => reply.error(errno),
        });
    }

    /// The file that a thread looks up only to remove it.
    fn to_be_removed(&self, request: &Request, parent: u64, name: &OsStr) -> Option<Entry> {
        let listed = self.answers.certain(|| Asked::named("lookup", parent, name), || self.fs.listed_entry(parent, name)).ok()??;
        self.sweeps.lock().looks_up(request.pid(), parent, &name.to_string_lossy(), Instant::now()).then_some(listed)
    }

    fn attributes<F>(&self, asked: Asked, operation: F, reply: ReplyAttr)
    where
        F: Future<Output = Result<Entry>> + Send + 'static,
    {
        self.answers.answer(asked, Patience::Deadline, operation, |result| match result {
            Ok(found) => reply.attr(&found.ttl, &convert::attr(&found.attr)),
            Err(errno) => reply.error(errno),
        });
    }

    fn empty<F>(&self, asked: Asked, patience: Patience, operation: F, reply: ReplyEmpty)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.answers.answer(asked, patience, operation, |result| match result {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        });
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = [
            // O_TRUNC comes with OPEN: no useless fetch of what is thrown away.
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS | InitFlags::FUSE_READDIRPLUS_AUTO,
            // Not ASYNC_DIO: after an asynchronous direct write the kernel leaves in its pages what readers fetched meanwhile, and
            // shows them old bytes (xfstests generic/451). Waiting for the write itself, it throws them away.
            // A file handle, as an NFS server hands it out, has to be good after the kernel forgot the inode: ours aren't, so that
            // name_to_handle_at(2) is refused instead of open_by_handle_at(2) failing with ESTALE (xfstests generic/426).
            InitFlags::FUSE_NO_EXPORT_SUPPORT,
            // Without it the kernel asks for `security.capability` before every write(2). `fs` then takes the set-id bits
            // away at each change itself, whoever makes it: fuser hides in which requests the kernel asked for that.
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
        ];
        for flags in wanted {
            if let Err(missing) = config.add_capabilities(flags) {
                debug!(?missing, "this kernel lacks a capability");
            }
        }
        // One level lies below ours, and one more where the cache directory is on overlayfs.
        let depth = if self.stacked { 2 } else { 1 };
        let passes = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok() && config.set_max_stack_depth(depth).is_ok();
        if !passes {
            self.passing.turn_off();
        }
        // Both only fail for values out of range.
        let write = config.set_max_write(MAX_REQUEST_BYTES as u32);
        let background = config.set_max_background(MAX_BACKGROUND);
        let granularity = config.set_time_granularity(Duration::from_nanos(1));
        if write.is_err() || background.is_err() || granularity.is_err() {
            debug!("the kernel's limits differ from what was asked for");
        }
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if let Some(found) = self.to_be_removed(request, parent.0, name)
            && self.fs.remember(found.attr.ino)
        {
            return reply.entry(&found.ttl, &convert::attr(&found.attr), Generation(0));
        }
        let (fs, name) = (Arc::clone(&self.fs), name.to_owned());
        let asked = Asked::named("lookup", parent.0, &name);
        let operation = async move { fs.lookup(parent.0, &name).await };
        self.answers.answer(asked, Patience::Deadline, operation, |result| match result {
            Ok(Lookup::Found(found)) => reply.entry(&found.ttl, &convert::attr(&found.attr), Generation(0)),
            Ok(Lookup::Missing(ttl)) if ttl.is_zero() => reply.error(Errno::ENOENT),
            Ok(Lookup::Missing(ttl)) => reply.entry(&ttl, &convert::no_attr(), Generation(0)),
            Err(errno) => reply.error(errno),
        });
    }

    fn forget(&self, _: &Request, ino: INodeNo, lookups: u64) {
        // Nobody waits for an answer; a bug is logged.
        let _ = self.answers.certain(|| Asked::of("forget", ino.0), || self.fs.forget(ino.0, lookups));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let fs = Arc::clone(&self.fs);
        self.attributes(Asked::of("getattr", ino.0), async move { fs.getattr(ino.0).await }, reply);
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let fs = Arc::clone(&self.fs);
        let set = SetAttr {
            mode: mode.map(|mode| mode & 0o7777),
            uid,
            gid,
            size,
            atime: atime.map(convert::time),
            mtime: mtime.map(convert::time),
            handle: handle.map(|handle| handle.0),
        };
        self.attributes(Asked::of("setattr", ino.0), async move { fs.setattr(ino.0, set).await }, reply);
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let fs = Arc::clone(&self.fs);
        let operation = async move { fs.readlink(ino.0).await };
        self.answers.answer(Asked::of("readlink", ino.0), Patience::Deadline, operation, |result| match result {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(errno),
        });
    }

    fn mknod(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, _rdev: u32, reply: ReplyEntry) {
        // Devices, pipes and sockets can't be objects. EPERM is what programs fall back from.
        if mode & libc::S_IFMT != libc::S_IFREG {
            return reply.error(Errno::EPERM);
        }
        let (fs, name, caller) = (Arc::clone(&self.fs), name.to_owned(), convert::caller(request));
        let asked = Asked::named("mknod", parent.0, &name);
        let operation = async move {
            let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY;
            let (entry, opened) = fs.create(parent.0, &name, mode & !umask & 0o7777, flags, caller).await?;
            fs.release(opened.handle);
            Ok(entry)
        };
        self.entry(asked, operation, reply);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let (fs, name, caller) = (Arc::clone(&self.fs), name.to_owned(), convert::caller(request));
        let asked = Asked::named("mkdir", parent.0, &name);
        self.entry(asked, async move { fs.mkdir(parent.0, &name, mode & !umask & 0o7777, caller).await }, reply);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.sweeps.lock().removes(request.pid(), parent.0, &name.to_string_lossy(), Instant::now());
        let (fs, name) = (Arc::clone(&self.fs), name.to_owned());
        let asked = Asked::named("unlink", parent.0, &name);
        self.empty(asked, Patience::Deadline, async move { fs.unlink(parent.0, &name).await }, reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (fs, name) = (Arc::clone(&self.fs), name.to_owned());
        let asked = Asked::named("rmdir", parent.0, &name);
        self.empty(asked, Patience::Deadline, async move { fs.rmdir(parent.0, &name).await }, reply);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (fs, name, caller) = (Arc::clone(&self.fs), name.to_owned(), convert::caller(request));
        let target: OsString = target.into();
        let asked = Asked::named("symlink", parent.0, &name);
        self.entry(asked, async move { fs.symlink(parent.0, &name, &target, caller).await }, reply);
    }

    fn rename(&self, _: &Request, parent: INodeNo, name: &OsStr, to: INodeNo, to_name: &OsStr, flags: RenameFlags, reply: ReplyEmpty) {
        let (fs, name, to_name) = (Arc::clone(&self.fs), name.to_owned(), to_name.to_owned());
        let asked = Asked::named("rename", parent.0, &name);
        let operation = async move {
            let flags = convert::rename_flags(flags)?;
            fs.rename(parent.0, &name, to.0, &to_name, flags).await
        };
        self.empty(asked, Patience::Deadline, operation, reply);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        // One object is one file. EPERM is what programs fall back from to a copy.
        reply.error(Errno::EPERM);
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (fs, theirs, passing) = (Arc::clone(&self.fs), Arc::clone(&self.fs), Arc::clone(&self.passing));
        let asker = Asker { pid: request.pid(), flags: flags.0 };
        let operation = async move { fs.open(ino.0, flags.0).await };
        self.answers.answer(Asked::of("open", ino.0), Patience::Deadline, operation, move |result| match result {
            Ok(opened) => passing.answer_open(&theirs, ino.0, &opened, asker, reply),
            Err(errno) => reply.error(errno),
        });
    }

    fn create(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, flags: i32, reply: ReplyCreate) {
        let (fs, theirs, passing) = (Arc::clone(&self.fs), Arc::clone(&self.fs), Arc::clone(&self.passing));
        let (name, caller, asker) = (name.to_owned(), convert::caller(request), Asker { pid: request.pid(), flags });
        let asked = Asked::named("create", parent.0, &name);
        let operation = async move { fs.create(parent.0, &name, mode & !umask & 0o7777, flags, caller).await };
        self.answers.answer(asked, Patience::Deadline, operation, move |result| match result {
            Ok((found, opened)) => passing.answer_create(&theirs, &found, &opened, asker, reply),
            Err(errno) => reply.error(errno),
        });
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let size = (size as usize).min(MAX_REQUEST_BYTES);
        let waits = READ_BUFFER.with_borrow_mut(|buffer| {
            let asked = || Asked::of("read", ino.0);
            match self.answers.now(asked, || self.fs.read_now(handle.0, offset, &mut buffer[..size])) {
                Some(Ok(read)) => reply.data(&buffer[..read.min(size)]),
                Some(Err(errno)) => reply.error(errno),
                None => return Some(reply),
            }
            None
        });
        let Some(reply) = waits else { return };
        let fs = Arc::clone(&self.fs);
        let operation = async move { fs.read(handle.0, offset, size).await };
        self.answers.answer(Asked::of("read", ino.0), Patience::Deadline, operation, |result| match result {
            Ok(data) => reply.data(&data),
            Err(errno) => reply.error(errno),
        });
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let asked = || Asked::of("write", ino.0);
        match self.answers.now(asked, || self.fs.write_now(handle.0, offset, data)) {
            Some(Ok(written)) => return reply.written(written as u32),
            Some(Err(errno)) => return reply.error(errno),
            None => {}
        }
        let (fs, data) = (Arc::clone(&self.fs), Bytes::copy_from_slice(data));
        let operation = async move { fs.write(handle.0, offset, data).await };
        self.answers.answer(asked(), Patience::WhileMoving, operation, |result| match result {
            Ok(written) => reply.written(written as u32),
            Err(errno) => reply.error(errno),
        });
    }

    fn flush(&self, _: &Request, ino: INodeNo, handle: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        let fs = Arc::clone(&self.fs);
        self.empty(Asked::of("flush", ino.0), Patience::WhileMoving, async move { fs.flush(handle.0).await }, reply);
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        // The kernel has forgotten the open by now. Ours goes before `fs` does: with its last open an inode may get another file.
        self.passing.released(handle.0);
        let released = self.answers.certain(|| Asked::of("release", ino.0), || self.fs.release(handle.0));
        match released {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn fsync(&self, _: &Request, ino: INodeNo, handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let fs = Arc::clone(&self.fs);
        self.empty(Asked::of("fsync", ino.0), Patience::WhileMoving, async move { fs.fsync(handle.0).await }, reply);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let fs = Arc::clone(&self.fs);
        // The kernel drops a listing that it kept when a name changes through this mount, but nothing makes it ask again
        // after a while: where others write the prefix too, each opendir lists anew.
        let flags = if self.keep_listings { FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() };
        let operation = async move { fs.opendir(ino.0).await };
        self.answers.answer(Asked::of("opendir", ino.0), Patience::Deadline, operation, move |result| match result {
            Ok(handle) => reply.opened(FileHandle(handle), flags),
            Err(errno) => reply.error(errno),
        });
    }

    fn readdir(&self, _: &Request, ino: INodeNo, handle: FileHandle, cookie: u64, reply: ReplyDirectory) {
        let fs = Arc::clone(&self.fs);
        let operation = async move { fs.readdir(handle.0, cookie, false).await };
        self.answers.answer(Asked::of("readdir", ino.0), Patience::Deadline, operation, |result| match result {
            Ok(batch) => directory::fill(reply, &batch),
            Err(errno) => reply.error(errno),
        });
    }

    fn readdirplus(&self, _: &Request, ino: INodeNo, handle: FileHandle, cookie: u64, reply: ReplyDirectoryPlus) {
        let (fs, theirs) = (Arc::clone(&self.fs), Arc::clone(&self.fs));
        let operation = async move { directory::batch_plus(&theirs, ino.0, handle.0, cookie).await };
        self.answers.answer(Asked::of("readdirplus", ino.0), Patience::Deadline, operation, move |result| match result {
            Ok(batch) => directory::fill_plus(&fs, reply, batch),
            Err(errno) => reply.error(errno),
        });
    }

    fn releasedir(&self, _: &Request, ino: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        match self.answers.certain(|| Asked::of("releasedir", ino.0), || self.fs.releasedir(handle.0)) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let fs = Arc::clone(&self.fs);
        self.empty(Asked::of("fsyncdir", ino.0), Patience::WhileMoving, async move { fs.fsyncdir(ino.0).await }, reply);
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        match self.answers.certain(|| Asked::of("statfs", ino.0), || self.fs.statfs()) {
            Ok(s) => {
                let (free, available) = (s.blocks_free, s.blocks_available);
                reply.statfs(s.blocks, free, available, s.files, s.files_free, s.block_size, s.name_max, s.block_size);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn setxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, value: &[u8], flags: i32, _position: u32, reply: ReplyEmpty) {
        let (fs, name, value) = (Arc::clone(&self.fs), name.to_owned(), value.to_vec());
        let asked = Asked::named("setxattr", ino.0, &name);
        self.empty(asked, Patience::Deadline, async move { fs.setxattr(ino.0, &name, &value, flags).await }, reply);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if let Some(errno) = xattr::never_there(name) {
            return reply.error(errno);
        }
        let (fs, name) = (Arc::clone(&self.fs), name.to_owned());
        let asked = Asked::named("getxattr", ino.0, &name);
        let operation = async move { fs.getxattr(ino.0, &name).await };
        self.answers.answer(asked, Patience::Deadline, operation, move |result| xattr::send(reply, size, result));
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let fs = Arc::clone(&self.fs);
        let operation = async move { fs.listxattr(ino.0).await.map(|names| xattr::joined(&names)) };
        self.answers.answer(Asked::of("listxattr", ino.0), Patience::Deadline, operation, move |result| xattr::send(reply, size, result));
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (fs, name) = (Arc::clone(&self.fs), name.to_owned());
        let asked = Asked::named("removexattr", ino.0, &name);
        self.empty(asked, Patience::Deadline, async move { fs.removexattr(ino.0, &name).await }, reply);
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        // default_permissions: the kernel judges by mode and owner.
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(&self, _: &Request, ino: INodeNo, handle: FileHandle, offset: u64, length: u64, mode: i32, reply: ReplyEmpty) {
        let fs = Arc::clone(&self.fs);
        let operation = async move { fs.fallocate(handle.0, offset, length, mode).await };
        self.empty(Asked::of("fallocate", ino.0), Patience::WhileMoving, operation, reply);
    }

    fn lseek(&self, _: &Request, ino: INodeNo, handle: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let fs = Arc::clone(&self.fs);
        let operation = async move {
            let whence = match whence {
                libc::SEEK_DATA => Whence::Data,
                libc::SEEK_HOLE => Whence::Hole,
                _ => return Err(Error::Invalid),
            };
            let offset = u64::try_from(offset).map_err(|_| Error::NoSuchOffset)?;
            fs.lseek(handle.0, offset, whence).await
        };
        self.answers.answer(Asked::of("lseek", ino.0), Patience::Deadline, operation, |result| match result {
            Ok(offset) => reply.offset(offset as i64),
            Err(errno) => reply.error(errno),
        });
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        from: FileHandle,
        from_offset: u64,
        ino: INodeNo,
        to: FileHandle,
        to_offset: u64,
        length: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let fs = Arc::clone(&self.fs);
        let operation = async move { fs.copy_file_range((from.0, from_offset), (to.0, to_offset), length).await };
        // Of EOPNOTSUPP no program hears: the kernel copies through its page cache then.
        self.answers.answer(Asked::of("copy_file_range", ino.0), Patience::Deadline, operation, |result| match result {
            Ok(copied) => reply.written(copied),
            Err(errno) => reply.error(errno),
        });
    }

    fn bmap(&self, _: &Request, _: INodeNo, _: u32, _: u64, reply: ReplyBmap) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(&self, _: &Request, _: INodeNo, _: FileHandle, _: IoctlFlags, _: u32, _: &[u8], _: u32, reply: ReplyIoctl) {
        reply.error(Errno::ENOTTY);
    }
}
