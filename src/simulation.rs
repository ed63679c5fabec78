//! What a simulated world puts in the place of the real one: the time of day, chance, threads; and what it is told.
//!
//! A test installs a [`World`] on its thread and runs everything on that thread, so that one seed is one history
//! (`tests/simulation`). In production none is installed: each question costs one look at a thread-local, and a report
//! isn't even made. A world learns at which instants a crash would find the disk in another state than before; what it
//! does with them is its own affair.
//!
//! Must not: know what is simulated, or be asked for anything that a real world doesn't have.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::SystemTime;

#[cfg(test)]
pub mod tests;

/// What has just happened to the cache directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes of a data file changed, and no row says so yet.
    Written,
    /// A data file was removed.
    Removed,
    /// A transaction of the journal: it outlives the process, and not yet a power cut.
    Committed,
    /// The data file at this path is on the disk as it is now; its name may not be.
    FileSynced(PathBuf),
    /// So are the names in this directory.
    NamesSynced(PathBuf),
    /// So is all that was committed.
    JournalSynced,
    /// So is the record of how far the journal reaches.
    TailSynced,
}

/// A world in which the mount runs.
pub trait World {
    /// Called at the very instant, with locks held: it must not call back.
    fn saw(&self, event: Event);
    fn now(&self) -> SystemTime;
    /// The machine's name for its present run.
    fn boot(&self) -> String;
    /// From 0 (inclusive) to 1 (exclusive).
    fn chance(&self) -> f64;
}

thread_local! {
    static WORLD: RefCell<Option<Rc<dyn World>>> = const { RefCell::new(None) };
}

/// The thread is back in the real world when this is dropped.
#[must_use]
pub struct Installed(());

impl Drop for Installed {
    fn drop(&mut self) {
        WORLD.with_borrow_mut(|world| *world = None);
    }
}

/// From now on this thread lives in `world`.
pub fn install(world: Rc<dyn World>) -> Installed {
    WORLD.with_borrow_mut(|installed| *installed = Some(world));
    Installed(())
}

/// The simulated world, if there is one. A thread that is ending has none.
fn world() -> Option<Rc<dyn World>> {
    WORLD.try_with(|world| world.borrow().clone()).ok().flatten()
}

/// Everything runs on this thread: work that would block elsewhere is done here and now.
pub fn is_on() -> bool {
    world().is_some()
}

/// Brings the names in a directory to the disk. The world hears of it here and nowhere else, so that a sync that is left
/// out is one that a simulated power cut finds.
pub fn sync_names(directory: &File, event: impl FnOnce() -> Event) -> io::Result<()> {
    directory.sync_all()?;
    saw(event);
    Ok(())
}

/// The same for the bytes of a file.
pub fn sync_data(file: &File, event: impl FnOnce() -> Event) -> io::Result<()> {
    file.sync_data()?;
    saw(event);
    Ok(())
}

/// Tells the world what happened.
pub fn saw(event: impl FnOnce() -> Event) {
    if let Some(world) = world() {
        world.saw(event());
    }
}

pub(crate) fn now() -> Option<SystemTime> {
    world().map(|world| world.now())
}

pub(crate) fn boot() -> Option<String> {
    world().map(|world| world.boot())
}

/// A random number from 0 (inclusive) to 1 (exclusive): the only chance that decides what the mount does.
pub fn chance() -> f64 {
    world().map_or_else(rand::random, |world| world.chance())
}
