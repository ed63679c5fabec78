//! The program that runs on the mount: random steps, each checked against the model.

use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::Duration;

use mediafs::cache::Backing;
use mediafs::error::{Error, Result};
use mediafs::fs::{RenameFlags, SetAttr, WriteMode};
use mediafs::simulation::{Event, saw};
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use tokio::time::timeout;

use crate::machine::{Machine, held};
use crate::model::{Change, NodeId};
use crate::mount::{Mount, SINGLE_BYTES, Settings, TIMEOUT};
use crate::sight::{Seen, describe, see};
use crate::trace::Trace;
use crate::weather;

const NAMES: [&str; 4] = ["a", "b.jpg", "c", "d"];
/// No step may take longer, whatever the bucket does: each of its requests has a deadline.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Handles kept open over other steps.
const HANDLES: usize = 4;

/// An open file.
pub struct Handle {
    number: u64,
    node: NodeId,
    pub readable: bool,
    pub writable: bool,
    /// The data file, where the kernel has it: it reads and writes there by itself, or asks the daemon.
    kernel: Option<Rc<Backing>>,
}

impl Handle {
    fn new(number: u64, node: NodeId, flags: i32) -> Self {
        let mode = flags & libc::O_ACCMODE;
        Self { number, node, readable: mode != libc::O_WRONLY, writable: mode != libc::O_RDONLY, kernel: None }
    }
}

pub struct Driver {
    pub machine: Rc<Machine>,
    pub mount: Mount,
    pub settings: Settings,
    pub random: StdRng,
    trace: Trace,
    handles: Vec<Handle>,
    /// The bucket fails now and then.
    pub stormy: bool,
}

pub type Checked<T = ()> = std::result::Result<T, String>;

impl Driver {
    pub fn new(machine: Rc<Machine>, mount: Mount, settings: Settings, random: StdRng, trace: Trace) -> Self {
        Self { machine, mount, settings, random, trace, handles: Vec::new(), stormy: false }
    }

    pub fn note(&self, text: String) {
        self.trace.add(self.machine.elapsed(), text);
    }

    /// At most three levels of four names, so that steps meet.
    pub fn path(&mut self) -> String {
        let depth = [1, 1, 2, 2, 2, 3][self.random.random_range(0..6)];
        (0..depth).map(|_| NAMES[self.random.random_range(0..NAMES.len())]).collect::<Vec<_>>().join("/")
    }

    pub fn existing(&mut self, wanted: impl Fn(&crate::model::Node) -> bool) -> Option<String> {
        let past = self.machine.past.borrow();
        let paths: Vec<&String> = past.now.tree.iter().filter(|(_, node)| wanted(node)).map(|(path, _)| path).collect();
        let index = self.random.random_range(0..paths.len().max(1));
        paths.get(index).map(|path| (*path).clone())
    }

    fn file(&mut self) -> Option<String> {
        self.existing(crate::model::Node::is_file)
    }

    /// Number and file of one that is open so.
    pub fn some_handle(&mut self, wanted: impl Fn(&Handle) -> bool) -> Option<(u64, NodeId)> {
        let found: Vec<(u64, NodeId)> =
            self.handles.iter().filter(|handle| wanted(handle)).map(|handle| (handle.number, handle.node)).collect();
        let index = self.random.random_range(0..found.len().max(1));
        found.get(index).copied()
    }

    /// Random bytes, so that no two contents are alike.
    pub fn data(&mut self, longest: usize) -> Vec<u8> {
        let length = self.random.random_range(1..=longest);
        let mut bytes = vec![0; length];
        self.random.fill_bytes(&mut bytes);
        // They compress.
        bytes.iter_mut().for_each(|byte| *byte &= 0x1f);
        bytes
    }

    /// Runs one step that is to make `change`, and holds its outcome against the model.
    pub async fn change<T>(&mut self, change: Change, step: impl AsyncFnOnce(&Mount) -> Result<T>) -> Checked<Option<T>> {
        let allowed = self.machine.past.borrow_mut().begin(&change);
        let done = timeout(PATIENCE, step(&self.mount)).await;
        if self.machine.has_fallen() {
            return Err("fallen".into());
        }
        let text = short(&change);
        let Ok(done) = done else { return Err(format!("{text} hangs")) };
        self.machine.past.borrow_mut().end(done.is_ok());
        self.note(format!("{text}: {}", outcome(&done)));
        match done {
            Ok(_) if !allowed => Err(format!("{text} worked and should not have")),
            Ok(value) => Ok(Some(value)),
            Err(error) if allowed && !self.may_fail(&error) && !is_left_to_the_kernel(&change, &error) => {
                Err(format!("{text} failed: {error}"))
            }
            Err(_) => Ok(None),
        }
    }

    /// A step that changes nothing.
    async fn look<T>(&self, text: String, step: impl Future<Output = Result<T>>) -> Checked<Option<T>> {
        let done = timeout(PATIENCE, step).await;
        if self.machine.has_fallen() {
            return Err("fallen".into());
        }
        let Ok(done) = done else { return Err(format!("{text} hangs")) };
        self.note(format!("{text}: {}", outcome(&done)));
        match done {
            Ok(value) => Ok(Some(value)),
            Err(error) if self.may_fail(&error) => Ok(None),
            Err(error) => Err(format!("{text} failed: {error}")),
        }
    }

    pub fn may_fail(&self, error: &Error) -> bool {
        self.stormy && matches!(error, Error::Store(_) | Error::Timeout | Error::Stale)
    }

    async fn open(&mut self, path: &str, flags: i32) -> Checked {
        if self.handles.len() >= HANDLES {
            self.close_one().await?;
        }
        let node = self.machine.past.borrow().now.tree[path].id;
        let text = format!("open {path} {flags:o}");
        let opened = match flags & libc::O_TRUNC {
            0 => self.look(text, self.mount.world.open(path, flags)).await?,
            _ => self.change(Change::Truncate(node, 0), async |mount| mount.world.open(path, flags).await).await?,
        };
        if let Some(number) = opened {
            self.take(Handle::new(number, node, flags));
        }
        Ok(())
    }

    async fn create(&mut self, path: &str, flags: i32) -> Checked {
        if self.handles.len() >= HANDLES {
            self.close_one().await?;
        }
        let change = Change::Create(path.to_owned(), 0o644);
        let flags = libc::O_RDWR | libc::O_CREAT | flags;
        if let Some(number) = self.change(change, async |mount| mount.world.open(path, flags).await).await? {
            let node = self.machine.past.borrow().now.tree[path].id;
            self.take(Handle::new(number, node, flags));
        }
        Ok(())
    }

    /// An open has worked. The kernel may serve it by itself where the file system allows it.
    fn take(&mut self, mut handle: Handle) {
        if self.random.random() {
            let fs = &self.mount.world.fs;
            let backing = fs.back(handle.number).map(Rc::new);
            handle.kernel = backing.filter(|_| fs.loosen(handle.number).is_ok());
            if handle.kernel.is_some() {
                self.note(format!("#{} is the kernel's", handle.node));
                if handle.writable {
                    self.machine.past.borrow_mut().loose.insert(handle.node, false);
                }
            }
        }
        self.handles.push(handle);
    }

    /// Where a write begins: inside, at the end, or beyond it.
    fn offset(&mut self, size: u64) -> u64 {
        match self.random.random_range(0..5) {
            0 | 1 => size,
            2 | 3 => self.random.random_range(0..=size),
            _ => size + self.random.random_range(0..3000),
        }
    }

    async fn write(&mut self, index: usize) -> Checked {
        let Handle { number, node, writable, .. } = self.handles[index];
        if !writable {
            return Ok(());
        }
        let kernel = self.handles[index].kernel.clone().filter(|_| self.random.random());
        let size = self.machine.past.borrow().now.node(node).map_or(0, |node| node.bytes().len()) as u64;
        let longest = if size > 4 * SINGLE_BYTES { 100 } else { [50, 3000, 3 * SINGLE_BYTES as usize][self.random.random_range(0..3)] };
        let (at, data) = (self.offset(size), self.data(longest));
        let change = Change::Write(node, at, data.clone());
        let write = async |mount: &Mount| match &kernel {
            Some(backing) => {
                backing.descriptor().write_all_at(&data, at)?;
                saw(|| Event::Written);
                Ok(())
            }
            None => mount.world.write(number, at, &data).await,
        };
        self.change(change, write).await.map(drop)
    }

    async fn read(&mut self, index: usize) -> Checked {
        let Handle { number, node, readable, .. } = self.handles[index];
        if !readable {
            return Ok(());
        }
        let expected = self.machine.past.borrow().now.node(node).map(|node| node.bytes().to_vec()).unwrap_or_default();
        let at = self.random.random_range(0..=expected.len());
        let length = self.random.random_range(1..20_000);
        let text = format!("read #{node} {at}+{length}");
        let kernel = self.handles[index].kernel.clone().filter(|_| self.random.random());
        let reading = async {
            let Some(backing) = &kernel else { return self.mount.world.read_handle(number, at as u64, length).await };
            let mut buffer = vec![0; length];
            let read = backing.descriptor().read_at(&mut buffer, at as u64)?;
            buffer.truncate(read);
            Ok(buffer)
        };
        let Some(read) = self.look(text.clone(), reading).await? else { return Ok(()) };
        let wanted = &expected[at..(at + length).min(expected.len())];
        if read == wanted { Ok(()) } else { Err(format!("{text}: {}, not {}", describe(Some(&read)), describe(Some(wanted)))) }
    }

    async fn close_one(&mut self) -> Checked {
        let index = self.random.random_range(0..self.handles.len());
        let Handle { number, node, writable, kernel, .. } = self.handles.swap_remove(index);
        // The edge's deadline.
        let flushed = timeout(TIMEOUT, self.mount.world.fs.flush(number)).await.unwrap_or(Err(Error::Timeout));
        drop(kernel);
        self.mount.world.fs.release(number);
        let is_loose = self.handles.iter().any(|handle| handle.node == node && handle.writable && handle.kernel.is_some());
        if let Some(closed) = self.machine.past.borrow_mut().loose.get_mut(&node) {
            *closed = !is_loose;
        }
        let worked = self.look(format!("close #{node}"), async { flushed }).await?.is_some();
        if worked && writable && self.settings.write_mode == WriteMode::Through {
            self.check_stored(node, "close")?;
        }
        Ok(())
    }

    pub async fn close_all(&mut self) -> Checked {
        while !self.handles.is_empty() {
            self.close_one().await?;
        }
        Ok(())
    }

    async fn fsync(&mut self, index: usize) -> Checked {
        let Handle { number, node, .. } = self.handles[index];
        let synced = timeout(TIMEOUT, self.mount.world.fs.fsync(number));
        let worked = self.look(format!("fsync #{node}"), async { synced.await.unwrap_or(Err(Error::Timeout)) }).await?;
        if worked.is_some() {
            self.check_stored(node, "fsync")?;
            self.machine.past.borrow_mut().promise(node);
        }
        Ok(())
    }

    /// The bucket holds the file as it is.
    fn check_stored(&self, node: NodeId, what: &str) -> Checked {
        let past = self.machine.past.borrow();
        let Some(path) = past.now.path_of(node) else { return Ok(()) };
        let wanted = past.now.node(node).map(|node| node.bytes().to_vec()).unwrap_or_default();
        let held = held(&self.machine.bucket, &path.into());
        match held {
            Some(held) if held == wanted => Ok(()),
            held => Err(format!("after {what} the bucket holds {path} as {}, not {}", describe(held.as_deref()), describe(Some(&wanted)))),
        }
    }

    async fn fsync_directory(&mut self) -> Checked {
        let Some(path) = self.existing(crate::model::Node::is_directory) else { return Ok(()) };
        let text = format!("fsync {path}/");
        let world = &self.mount.world;
        let syncing = timeout(TIMEOUT, async { world.fs.fsyncdir(world.stat(&path).await?.ino).await });
        let worked = self.look(text, async { syncing.await.unwrap_or(Err(Error::Timeout)) }).await?;
        if worked.is_some() {
            let below = format!("{path}/");
            let nodes: Vec<NodeId> = {
                let past = self.machine.past.borrow();
                past.now.files().filter(|(path, _)| path.starts_with(&below)).map(|(_, node)| node.id).collect()
            };
            for node in nodes {
                self.check_stored(node, "fsync of its directory")?;
                self.machine.past.borrow_mut().promise(node);
            }
        }
        Ok(())
    }

    /// Create, write, close: what programs do most.
    async fn save(&mut self) -> Checked {
        let path = self.path();
        let exists = self.machine.past.borrow().now.tree.get(&path).map(|node| !node.is_file());
        match exists {
            Some(true) => return Ok(()),
            Some(false) => self.open(&path, libc::O_WRONLY | libc::O_TRUNC).await?,
            None => {
                let flags = if self.random.random() { libc::O_EXCL } else { libc::O_TRUNC };
                self.create(&path, flags).await?;
            }
        }
        let Some(index) = self.handles.len().checked_sub(1) else { return Ok(()) };
        self.write(index).await?;
        if self.random.random_range(0..4) > 0 { self.close_one().await } else { Ok(()) }
    }

    async fn rename(&mut self) -> Checked {
        let (Some(from), mut to) = (self.existing(|_| true), self.path()) else { return Ok(()) };
        if self.random.random_range(0..5) == 0 {
            to = self.existing(|_| true).unwrap_or(to);
            let flags = RenameFlags { exchange: true, no_replace: false };
            let change = Change::Exchange(from.clone(), to.clone());
            return self.change(change, async |mount| mount.world.rename_with(&from, &to, flags).await).await.map(drop);
        }
        self.change(Change::Rename(from.clone(), to.clone()), async |mount| mount.world.rename(&from, &to).await).await.map(drop)
    }

    async fn truncate(&mut self) -> Checked {
        let Some(path) = self.file() else { return Ok(()) };
        let (node, size) = {
            let past = self.machine.past.borrow();
            (past.now.tree[&path].id, past.now.tree[&path].bytes().len() as u64)
        };
        let size = self.random.random_range(0..=size + 2000);
        let step = async |mount: &Mount| {
            let ino = mount.world.stat(&path).await?.ino;
            mount.world.fs.setattr(ino, SetAttr { size: Some(size), ..SetAttr::default() }).await
        };
        self.change(Change::Truncate(node, size), step).await.map(drop)
    }

    async fn by_path(&mut self) -> Checked {
        let path = if self.random.random() { self.existing(|_| true).unwrap_or_else(|| "a".into()) } else { self.path() };
        match self.random.random_range(0..4) {
            0 => self.change(Change::Mkdir(path.clone()), async |mount| mount.world.mkdir(&path).await).await.map(drop),
            1 => self.change(Change::Unlink(path.clone()), async |mount| mount.world.unlink(&path).await).await.map(drop),
            2 => self.change(Change::Rmdir(path.clone()), async |mount| mount.world.rmdir(&path).await).await.map(drop),
            _ => {
                let mode = [0o600, 0o644, 0o640][self.random.random_range(0..3)];
                let found = self.machine.past.borrow().now.tree.get(&path).map(|node| (node.is_directory(), node.is_link));
                if found.is_some_and(|(_, is_link)| is_link) {
                    return Ok(());
                }
                let mode = if found.is_some_and(|(is_directory, _)| is_directory) { mode | 0o111 } else { mode };
                self.change(Change::Chmod(path.clone(), mode), async |mount| mount.world.chmod(&path, mode).await).await.map(drop)
            }
        }
    }

    async fn list(&mut self) -> Checked {
        let path = self.existing(crate::model::Node::is_directory).unwrap_or_default();
        let text = format!("list {path}/");
        let Some(mut names) = self.look(text.clone(), self.mount.world.names(&path)).await? else { return Ok(()) };
        names.retain(|name| !(path.is_empty() && format!("{name}/") == crate::shared::DIRECTORY));
        names.sort();
        let expected = self.machine.past.borrow().now.names(&path);
        if names == expected { Ok(()) } else { Err(format!("{text}: {names:?}, not {expected:?}")) }
    }

    async fn wait(&mut self) -> Checked {
        let longest = [5, 120, 1500, 15_000][self.random.random_range(0..4)];
        let time = Duration::from_millis(self.random.random_range(0..longest));
        tokio::time::sleep(time).await;
        self.note(format!("wait {time:?}"));
        Ok(())
    }

    pub fn weather(&mut self, calm: bool) {
        let name = if calm { weather::calm(&self.mount.faults) } else { weather::change(&self.mount.faults, &mut self.random) };
        self.stormy |= !calm;
        self.note(format!("weather: {name}"));
    }

    /// Nothing that was sent in bad weather is under way any more.
    pub fn is_calm(&mut self) {
        self.stormy = false;
    }

    pub async fn step(&mut self) -> Checked {
        let open = self.handles.len();
        let index = self.random.random_range(0..open.max(1));
        match self.random.random_range(0..100) {
            0..18 => self.save().await,
            18..34 if open > 0 => self.write(index).await,
            34..40 if open > 0 => self.read(index).await,
            40..47 if open > 0 => self.close_one().await,
            47..51 if open > 0 => self.fsync(index).await,
            51..53 => self.fsync_directory().await,
            53..58 => match self.file() {
                Some(path) => {
                    let flags = [libc::O_RDONLY, libc::O_RDWR, libc::O_WRONLY][self.random.random_range(0..3)];
                    self.open(&path, flags).await
                }
                None => Ok(()),
            },
            58..68 => self.rename().await,
            68..71 => self.truncate().await,
            71..76 => self.rare().await,
            76..84 => self.by_path().await,
            84..88 => self.list().await,
            88..90 => {
                self.weather(false);
                Ok(())
            }
            90..92 => {
                self.weather(true);
                Ok(())
            }
            92..94 => self.race().await,
            _ => self.wait().await,
        }?;
        self.machine.reach("step");
        match self.machine.violations.borrow().first() {
            Some(violation) => Err(violation.clone()),
            None => Ok(()),
        }
    }

    /// For who has to find out what went wrong.
    pub fn note_state(&self) {
        for (path, node) in &self.machine.past.borrow().now.tree {
            self.note(format!("model: {path} #{} {}", node.id, describe(node.content.as_ref().map(|content| &content.bytes[..]))));
        }
        for key in self.machine.bucket.keys() {
            let (bytes, info) = self.machine.bucket.object(&key).unwrap();
            let mode = info.headers.metadata.get("mode").map_or("-", String::as_str);
            self.note(format!("bucket: {key} {} mode {mode} {} {:?}", describe(Some(&bytes)), info.etag.text(), info.last_modified));
        }
        for (key, desired) in self.mount.world.writer.pending_below(&mediafs::types::Key::root()) {
            self.note(format!("wanted: {key} {desired:?}"));
        }
        for row in self.mount.journal.files().unwrap_or_default() {
            self.note(format!("{row:?}"));
        }
        self.note(format!("{:?} {:?}", self.mount.world.writer.backlog(), self.mount.world.cache.usage()));
    }

    /// The whole tree as the mount shows it.
    pub async fn see(&self) -> Checked<Option<Seen>> {
        self.look("see all".into(), async { see(&self.mount.world).await }).await
    }
}

fn outcome<T>(done: &Result<T>) -> String {
    match done {
        Ok(_) => "ok".into(),
        Err(error) => error.to_string(),
    }
}

fn short(change: &Change) -> String {
    match change {
        Change::Write(node, at, data) => format!("write #{node} {at}+{}", data.len()),
        other => format!("{other:?}"),
    }
}

fn is_left_to_the_kernel(change: &Change, error: &Error) -> bool {
    matches!((change, error), (Change::Copy(..), Error::Unsupported))
}
