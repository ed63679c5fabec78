//! The machine on which one life of the mount runs: its clock, its chance, its disk, and the instant at which it crashes.
//!
//! A crash is a snapshot: at the chosen instant the cache directory, the bucket and what was acknowledged are copied. What
//! the old life still does goes to a directory and a bucket that nobody looks at, until its driver notices.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mediafs::media::gzip;
use mediafs::simulation::{Event, World};
use mediafs::store::memory::MemoryStore;
use mediafs::types::Key;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::past::Past;
use crate::platters::Platters;

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process dies.
    Kill,
    /// The machine does.
    PowerCut,
}

/// The instant of it: the so-manieth event, of all or of those with this name.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub crash: Crash,
    pub event: Option<&'static str>,
    pub count: u64,
}

/// Everything that one life leaves to the next.
pub struct Remains {
    pub folder: Arc<TempDir>,
    pub bucket: Arc<MemoryStore>,
    pub platters: Platters,
    pub past: Past,
    /// None: an orderly end.
    pub crash: Option<Crash>,
    pub time: SystemTime,
    /// Of the machine, new after each power cut.
    pub boot: u32,
}

pub struct Machine {
    pub folder: Arc<TempDir>,
    pub bucket: Arc<MemoryStore>,
    pub past: RefCell<Past>,
    pub boot: u32,
    /// What must never have happened.
    pub violations: RefCell<Vec<String>>,
    pub fallen: Notify,
    platters: RefCell<Platters>,
    began: (Instant, SystemTime),
    random: RefCell<StdRng>,
    plan: Cell<Option<Plan>>,
    remains: RefCell<Option<Remains>>,
}

thread_local! {
    static MACHINE: RefCell<Option<Rc<Machine>>> = const { RefCell::new(None) };
}

/// Where simulations keep their directories: memory, if there is a file system in it.
pub fn directory() -> Arc<TempDir> {
    let shared_memory = std::path::Path::new("/dev/shm");
    let parent = if shared_memory.is_dir() { shared_memory.to_owned() } else { std::env::temp_dir() };
    Arc::new(tempfile::Builder::new().prefix("mediafs-sim-").tempdir_in(parent).unwrap())
}

/// What any reader gets of an object; nothing that a file was, where it can't be decompressed.
pub fn held(bucket: &MemoryStore, key: &Key) -> Option<Vec<u8>> {
    let (bytes, info) = bucket.object(key)?;
    Some(match gzip::original_size(&info.headers) {
        Some(size) => gzip::inflate(&bytes, size).unwrap_or_else(|why| why.into_bytes()),
        None => bytes.to_vec(),
    })
}

impl Machine {
    /// To be called on the runtime of the life.
    pub fn start(remains: Remains, seed: u64, plan: Option<Plan>) -> Rc<Self> {
        let machine = Rc::new(Self {
            folder: remains.folder,
            bucket: remains.bucket,
            past: RefCell::new(remains.past),
            boot: remains.boot,
            violations: RefCell::default(),
            fallen: Notify::new(),
            platters: RefCell::new(remains.platters),
            began: (Instant::now(), remains.time),
            random: RefCell::new(StdRng::seed_from_u64(seed)),
            plan: Cell::new(plan),
            remains: RefCell::default(),
        });
        MACHINE.set(Some(Rc::clone(&machine)));
        machine
    }

    pub fn current() -> Option<Rc<Self>> {
        MACHINE.with_borrow(Clone::clone)
    }

    pub fn stop() {
        MACHINE.set(None);
    }

    pub fn time(&self) -> SystemTime {
        self.began.1 + self.began.0.elapsed()
    }

    pub fn elapsed(&self) -> Duration {
        self.began.0.elapsed()
    }

    pub fn has_fallen(&self) -> bool {
        self.remains.borrow().is_some()
    }

    /// What the crash left, or what is there now.
    pub fn remains(&self) -> Remains {
        self.remains.borrow_mut().take().unwrap_or_else(|| self.orderly())
    }

    fn orderly(&self) -> Remains {
        Remains {
            folder: Arc::clone(&self.folder),
            bucket: Arc::clone(&self.bucket),
            platters: self.platters.borrow().clone(),
            past: self.past.borrow().clone(),
            crash: None,
            time: self.time(),
            boot: self.boot,
        }
    }

    pub fn violated(&self, what: String) {
        if !self.has_fallen() {
            self.violations.borrow_mut().push(what);
        }
    }

    /// Something happened at which a crash would find another state than before.
    pub fn reach(&self, event: &'static str) {
        let Some(mut plan) = self.plan.get() else { return };
        if plan.event.is_some_and(|wanted| wanted != event) {
            return;
        }
        plan.count -= 1;
        let is_over = plan.count == 0;
        self.plan.set((!is_over).then_some(plan));
        if is_over {
            self.fall(plan.crash);
        }
    }

    /// The crash, now.
    pub fn fall(&self, crash: Crash) {
        self.plan.set(None);
        let to = directory();
        let platters = match crash {
            Crash::Kill => {
                self.platters.borrow().kill(self.folder.path(), to.path());
                self.platters.borrow().clone()
            }
            Crash::PowerCut => {
                self.platters.borrow().cut(self.folder.path(), to.path(), &mut self.random.borrow_mut());
                Platters::of(to.path())
            }
        };
        let boot = self.boot + u32::from(crash == Crash::PowerCut);
        let bucket = Arc::new(self.bucket.fork());
        *self.remains.borrow_mut() = Some(Remains { folder: to, bucket, platters, crash: Some(crash), boot, ..self.orderly() });
        let mut remains = self.remains.borrow_mut();
        if let Some(remains) = remains.as_mut().filter(|_| crash == Crash::PowerCut) {
            remains.past.lose_power();
        }
        drop(remains);
        self.fallen.notify_one();
    }

    /// All that is acknowledged is on the disk.
    pub fn synced(&self) {
        if !self.has_fallen() {
            self.past.borrow_mut().synced();
        }
    }

    fn note_on_disk(&self, event: &Event) {
        let mut platters = self.platters.borrow_mut();
        match event {
            Event::FileSynced(path) => platters.file_synced(path),
            Event::NamesSynced(path) => platters.names_synced(path),
            Event::JournalSynced => platters.journal_synced(self.folder.path()),
            Event::TailSynced => platters.tail_synced(self.folder.path()),
            Event::Written | Event::Removed | Event::Committed => {}
        }
    }
}

impl World for Machine {
    fn saw(&self, event: Event) {
        if self.has_fallen() {
            return;
        }
        self.note_on_disk(&event);
        self.reach(match event {
            Event::Written => "written",
            Event::Removed => "removed",
            Event::Committed => "committed",
            Event::FileSynced(_) => "file synced",
            Event::NamesSynced(_) => "names synced",
            Event::JournalSynced => "journal synced",
            // Which of two records is found is up to chance anyway.
            Event::TailSynced => return,
        });
    }

    fn now(&self) -> SystemTime {
        self.time()
    }

    fn boot(&self) -> String {
        format!("boot {}", self.boot)
    }

    fn chance(&self) -> f64 {
        self.random.borrow_mut().random()
    }
}
