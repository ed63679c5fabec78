//! Gives the kernel the data files of opens that it may serve by itself, and keeps account of them.
//!
//! Where that can't be (no CAP_SYS_ADMIN, a kernel before 6.9, a cache directory on a file system that is stacked already)
//! the first refusal turns it off, and the whole mount goes through the daemon.
//!
//! INVARIANT: all opens of an inode that use a backing file use the same one, under one number of the kernel's.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fuser::{BackingId, FileHandle, Generation, ReplyCreate, ReplyOpen};
use parking_lot::Mutex;
use tracing::{debug, info};

use super::convert;
use super::errno::{self, Asked};
use super::modes::{Mode, Modes};
use crate::cache::Backing;
use crate::error::{Error, Result};
use crate::fs::{Entry, Fs, Ino, Opened};

/// Which opens the kernel may serve by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passthrough {
    /// Those for reading alone.
    Read,
    /// Also those for writing that allow it.
    All,
    Off,
}

/// Who asks for an open, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub pid: u32,
    pub flags: i32,
}

impl Asker {
    fn reads_only(self) -> bool {
        self.flags & libc::O_ACCMODE == libc::O_RDONLY
    }

    /// Nothing that it writes has to go through the kernel's pages, which it can't read or map: that would be one copy more, and
    /// before the first byte a question for the capabilities of the file.
    fn writes_only(self) -> bool {
        self.flags & libc::O_ACCMODE == libc::O_WRONLY
    }

    fn may_map_for_writing(self) -> bool {
        self.flags & libc::O_ACCMODE == libc::O_RDWR
    }

    /// O_DIRECT asks for alignment below, and each write of O_SYNC for the bucket.
    fn is_special(self) -> bool {
        self.flags & (libc::O_DIRECT | libc::O_DSYNC) != 0
    }
}

/// What the reply to an open says.
struct Chosen {
    mode: Mode,
    id: Option<Arc<BackingId>>,
}

struct Registered {
    id: Arc<BackingId>,
    backing: Backing,
}

#[derive(Default)]
struct Opens {
    modes: Modes,
    backed: HashMap<Ino, Registered>,
    /// Handles by which a thread reads files of this mount, and how many each thread has.
    readers: HashMap<u64, u32>,
    reading: HashMap<u32, u32>,
}

pub(super) struct Passing {
    wanted: Passthrough,
    /// The kernel has not refused yet.
    works: AtomicBool,
    /// Under it only a data file's state is locked, to let go of it.
    opens: Mutex<Opens>,
}

impl Passing {
    pub fn new(wanted: Passthrough) -> Self {
        Self { wanted, works: AtomicBool::new(wanted != Passthrough::Off), opens: Mutex::default() }
    }

    /// The kernel can't do it.
    pub fn turn_off(&self) {
        self.works.store(false, Ordering::Release);
    }

    pub fn answer_open(&self, fs: &Fs, ino: Ino, opened: &Opened, asker: Asker, reply: ReplyOpen) {
        let handle = FileHandle(opened.handle);
        match self.open(fs, ino, opened.handle, asker, |file| reply.open_backing(file)) {
            Ok(Chosen { mode, id: Some(id) }) => reply.opened_passthrough(handle, convert::backed_flags(opened, mode), &id),
            Ok(Chosen { mode, id: None }) => reply.opened(handle, convert::open_flags(opened, mode)),
            Err(error) => {
                fs.release(opened.handle);
                reply.error(errno::log(&Asked::of("open", ino), &error));
            }
        }
    }

    pub fn answer_create(&self, fs: &Fs, found: &Entry, opened: &Opened, asker: Asker, reply: ReplyCreate) {
        let (handle, attr) = (FileHandle(opened.handle), convert::attr(&found.attr));
        match self.open(fs, found.attr.ino, opened.handle, asker, |file| reply.open_backing(file)) {
            Ok(Chosen { mode, id: Some(id) }) => {
                let flags = convert::backed_flags(opened, mode);
                reply.created_passthrough(&found.ttl, &attr, Generation(0), handle, flags, &id);
            }
            Ok(Chosen { mode, id: None }) => reply.created(&found.ttl, &attr, Generation(0), handle, convert::open_flags(opened, mode)),
            Err(error) => {
                fs.release(opened.handle);
                reply.error(errno::log(&Asked::of("create", found.attr.ino), &error));
            }
        }
    }

    /// How to answer an open of `fs`, which is counted from here on. `register` tells the kernel of a file. On an error
    /// nothing is counted.
    fn open(&self, fs: &Fs, ino: Ino, handle: u64, asker: Asker, register: impl FnOnce(&File) -> io::Result<BackingId>) -> Result<Chosen> {
        // Outside the lock: it may read the file.
        let backing = if self.is_wanted(ino, asker) { fs.back(handle) } else { None };
        let mut opens = self.opens.lock();
        let wanted = match backing {
            Some(_) => Mode::Passthrough,
            None if asker.writes_only() => Mode::Direct,
            None => Mode::Cached,
        };
        let mut mode = opens.modes.choose(ino, wanted);
        let id = match mode {
            Mode::Cached | Mode::Direct => None,
            Mode::Passthrough | Mode::PassthroughDirect => self.register(&mut opens, ino, backing, register)?,
        };
        if id.is_none() && mode != Mode::Direct {
            mode = Mode::Cached;
        }
        opens.opened(ino, handle, mode, asker);
        drop(opens);
        let loose = match mode {
            Mode::Passthrough => !asker.reads_only(),
            // Its writes come here, but not what it stores through mmap.
            Mode::PassthroughDirect => asker.may_map_for_writing(),
            Mode::Cached | Mode::Direct => false,
        };
        if loose && let Err(error) = fs.loosen(handle) {
            self.released(handle);
            return Err(error);
        }
        Ok(Chosen { mode, id })
    }

    fn is_wanted(&self, ino: Ino, asker: Asker) -> bool {
        let for_this = if asker.reads_only() { self.wanted != Passthrough::Off } else { self.wanted == Passthrough::All };
        if !for_this || asker.is_special() || !self.works.load(Ordering::Acquire) {
            return false;
        }
        let opens = self.opens.lock();
        if opens.modes.choose(ino, Mode::Passthrough) != Mode::Passthrough {
            return false;
        }
        // Who makes a file while it reads another may be about to copy it with copy_file_range(2), which the bucket does by
        // itself; not into a file that the kernel writes to.
        asker.reads_only() || !opens.reading.contains_key(&asker.pid)
    }

    /// None: the kernel refused, and nothing stands in the way of going without.
    fn register(
        &self,
        opens: &mut Opens,
        ino: Ino,
        backing: Option<Backing>,
        register: impl FnOnce(&File) -> io::Result<BackingId>,
    ) -> Result<Option<Arc<BackingId>>> {
        if let Some(there) = opens.backed.get(&ino) {
            let same = backing.is_none_or(|backing| backing.file().id() == there.backing.file().id());
            return if same { Ok(Some(Arc::clone(&there.id))) } else { Err(Error::Stale) };
        }
        let Some(backing) = backing else { return Ok(None) };
        match register(backing.descriptor()) {
            Ok(id) => {
                let id = Arc::new(id);
                opens.backed.insert(ino, Registered { id: Arc::clone(&id), backing });
                Ok(Some(id))
            }
            Err(error) => {
                self.refused(&error);
                Ok(None)
            }
        }
    }

    fn refused(&self, error: &io::Error) {
        // Out of descriptors or memory: another file may be luckier.
        if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)) {
            return debug!(%error, "the kernel took no backing file");
        }
        self.turn_off();
        info!(%error, "the kernel can't read cached files by itself here; all goes through the daemon, which is slower");
    }

    /// Uncounts an open. The kernel has forgotten it when its RELEASE arrives.
    pub fn released(&self, handle: u64) {
        let gone = self.opens.lock().released(handle);
        // Its file is told outside the lock.
        drop(gone);
    }
}

impl Opens {
    fn opened(&mut self, ino: Ino, handle: u64, mode: Mode, asker: Asker) {
        self.modes.opened(ino, handle, mode);
        if asker.reads_only() {
            self.readers.insert(handle, asker.pid);
            *self.reading.entry(asker.pid).or_default() += 1;
        }
    }

    fn released(&mut self, handle: u64) -> Option<Registered> {
        if let Some(pid) = self.readers.remove(&handle)
            && let Some(count) = self.reading.get_mut(&pid)
        {
            *count -= 1;
            if *count == 0 {
                self.reading.remove(&pid);
            }
        }
        let (ino, _) = self.modes.released(handle)?;
        if self.modes.has_backing(ino) { None } else { self.backed.remove(&ino) }
    }
}
