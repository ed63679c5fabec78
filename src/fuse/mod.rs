//! The edge to the kernel: fuser's trait on one side, [`Fs`] on the other. The only module that names fuser or an errno.
//!
//! ```text
//! adapter     unpacks each request, asks fs, packs the answer
//! answer      polls an operation inline, moves it to the runtime with a deadline where it waits
//! directory   fills the kernel's buffer for readdir and readdirplus
//! xattr       the size protocol of extended attributes
//! convert     attributes, times, flags: pure
//! errno       Error -> errno, in one exhaustive match; the one place that logs failed operations
//! modes       how each inode is open in the kernel: pure
//! passthrough which opens the kernel serves by itself
//! sweep       who removes one name after the other: pure
//! notify      tells the kernel what to forget, from its own thread
//! mountpoint  what has to hold before mounting; clears what a crash left
//! mount       mount(2) or fusermount3, and the lazy unmount
//! ```
//!
//! fuser is given the device only, never the mount: its own unmounting (0.18.0) can take a mount that lies below ours, or
//! that came after it.

mod adapter;
mod answer;
mod convert;
mod directory;
mod errno;
mod fusermount;
mod idle;
mod modes;
mod mount;
mod mountinfo;
mod mountpoint;
mod notify;
mod passthrough;
mod quiet;
mod sweep;
mod xattr;

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fuser::{Config, Session, SessionACL};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

pub use answer::Progress;
pub use modes::{Mode, Modes};
pub use mount::{MountOptions, remount};
pub use mountinfo::{MountEntry, mount_of};
pub use mountpoint::{MountError, MountPoint, prepare};
pub use passthrough::Passthrough;

use crate::fs::Fs;

/// The kernel's limit of one request's data (256 pages).
pub(crate) const MAX_REQUEST_BYTES: usize = 1024 * 1024;

/// Fewer than two threads and a long copy stalls the mount; more than four only contend.
const THREADS: std::ops::RangeInclusive<usize> = 2..=4;

/// How the edge serves requests.
pub struct EdgeOptions {
    /// Longest time a request waits for the bucket.
    pub deadline: Duration,
    /// Moves while uploads do: a wait for an upload lasts as long as this changes.
    pub progress: Progress,
    /// Nobody else writes the prefix: the kernel may keep directory listings.
    pub keep_listings: bool,
    /// Which opens the kernel may serve by itself.
    pub passthrough: Passthrough,
    /// The cache directory is on a file system that lies on another one (overlayfs).
    pub stacked: bool,
}

/// A mount that is being served.
pub struct Mounted {
    mount: mount::Mount,
    ended: oneshot::Receiver<io::Result<()>>,
}

/// Mounts `fs` and serves it. Returns when the mount point answers.
pub fn serve(fs: &Arc<Fs>, point: &MountPoint, mount_options: &MountOptions, options: EdgeOptions) -> Result<Mounted, MountError> {
    let (mount, device) = mount::attach(point, mount_options)?;
    match start(fs, device, options) {
        Ok(ended) => {
            mount.widen_readahead();
            Ok(Mounted { mount, ended })
        }
        Err(error) => {
            mount.detach();
            Err(MountError::System { what: "starting the FUSE session", error })
        }
    }
}

fn start(fs: &Arc<Fs>, device: std::os::fd::OwnedFd, options: EdgeOptions) -> io::Result<oneshot::Receiver<io::Result<()>>> {
    // One deadline above fs's own, so that its more exact error wins where it has one.
    let deadline = options.deadline + Duration::from_secs(1);
    let answers = answer::Answers::new(Handle::current(), deadline, options.progress);
    let adapter = adapter::Adapter::new(Arc::clone(fs), answers, options.keep_listings, options.passthrough, options.stacked);
    let mut config = Config::default();
    let cores = thread::available_parallelism().map_or(*THREADS.start(), usize::from);
    config.n_threads = Some(cores.clamp(*THREADS.start(), *THREADS.end()));
    config.clone_fd = true;
    let idle = idle::Idle::new(device.try_clone()?);
    // Who may use the mount is the kernel's to judge (allow_other): fuser's own filter also refuses what it needn't.
    let session = Session::from_fd(adapter, device, SessionACL::All, config)?;
    fs.start(notify::Notices::start(notify::Device { notifier: session.notifier(), idle })?);
    let (send, ended) = oneshot::channel();
    thread::Builder::new().name("mediafs-session".into()).spawn(move || {
        // Nobody listens any more when the daemon is ending by itself.
        send.send(session.run()).ok();
    })?;
    Ok(ended)
}

impl Mounted {
    /// Resolves when the kernel has ended the session: after an unmount, once nothing is open any more.
    pub async fn ended(&mut self) -> io::Result<()> {
        (&mut self.ended).await.unwrap_or_else(|_| Err(io::Error::other("the session's thread is gone")))
    }

    /// Takes the mount out of the tree, unless that has happened. What is open stays usable until it is closed.
    pub fn detach(&self) {
        self.mount.detach();
    }
}
