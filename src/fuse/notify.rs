//! Tells the kernel what to forget, from a thread of its own.
//!
//! A notification can block: `inval_entry` until a lookup or unlink in that directory was answered, a data invalidation
//! until a read of that inode was. So whoever finds a change only queues it here, and this thread, which holds no lock
//! and answers no request, waits in its place. The queue has no bound but its duplicates fold, so it is never longer than
//! the number of inodes and names that changed.

use std::collections::{HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::thread;

use futures::future::BoxFuture;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;
use tracing::debug;

use super::idle::Idle;
use crate::fs::{IdleName, Ino, Invalidate};

/// What notifications go to: the kernel, or a test.
pub(super) trait Kernel: Send + 'static {
    fn forget_inode(&self, ino: Ino) -> io::Result<()>;
    fn forget_attributes(&self, ino: Ino) -> io::Result<()>;
    fn forget_entry(&self, parent: Ino, name: &OsStr) -> io::Result<()>;
    /// Returns how many of them it was told of, in one stroke.
    fn forget_idle(&self, names: &[IdleName]) -> io::Result<usize>;
}

pub(super) struct Device {
    pub notifier: fuser::Notifier,
    pub idle: Idle,
}

impl Kernel for Device {
    fn forget_inode(&self, ino: Ino) -> io::Result<()> {
        // Offset 0, length 0: the attributes and every page.
        self.notifier.inval_inode(fuser::INodeNo(ino), 0, 0)
    }

    fn forget_attributes(&self, ino: Ino) -> io::Result<()> {
        // A negative offset spares the pages.
        self.notifier.inval_inode(fuser::INodeNo(ino), -1, 0)
    }

    fn forget_entry(&self, parent: Ino, name: &OsStr) -> io::Result<()> {
        self.notifier.inval_entry(fuser::INodeNo(parent), name)
    }

    fn forget_idle(&self, names: &[IdleName]) -> io::Result<usize> {
        self.idle.forget(&self.notifier, names)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Notice {
    Inode(Ino),
    Attributes(Ino),
    Entry(Ino, OsString),
}

/// Names that the kernel is told of in one stroke, where it can be.
const IDLE_BATCH: usize = 512;

/// Notices in the order of their arrival, each once.
#[derive(Default)]
struct Queue {
    order: VecDeque<Notice>,
    waiting: HashSet<Notice>,
    /// What may be forgotten. It comes after all that is wrong, which programs may wait for.
    idle: VecDeque<IdleName>,
    /// On its way to the kernel.
    leaving: Option<Notice>,
    closed: bool,
}

impl Queue {
    fn push(&mut self, notice: Notice) {
        if self.waiting.insert(notice.clone()) {
            self.order.push_back(notice);
        }
    }

    /// Taken out before it is sent: what changes while it is being sent is queued again.
    fn pop(&mut self) -> Option<Notice> {
        let notice = self.order.pop_front()?;
        self.waiting.remove(&notice);
        self.leaving = Some(notice.clone());
        Some(notice)
    }

    fn speaks_of(&self, ino: Ino) -> bool {
        [Notice::Inode(ino), Notice::Attributes(ino)]
            .iter()
            .any(|notice| self.waiting.contains(notice) || self.leaving.as_ref() == Some(notice))
    }
}

#[derive(Default)]
struct Shared {
    /// Held for a push or a pop only.
    queue: Mutex<Queue>,
    arrived: Condvar,
    /// After each notice, once the kernel has it.
    delivered: Notify,
}

/// The sending end; the thread ends when it is dropped.
pub(super) struct Notices(Arc<Shared>);

impl Notices {
    pub fn start(kernel: impl Kernel) -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("mediafs-notify".into()).spawn(move || deliver(&theirs, &kernel))?;
        Ok(Arc::new(Self(shared)))
    }

    fn push(&self, notice: Notice) {
        self.0.queue.lock().push(notice);
        self.0.arrived.notify_one();
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        self.0.queue.lock().closed = true;
        self.0.arrived.notify_one();
    }
}

impl Invalidate for Notices {
    fn inode(&self, ino: Ino) {
        self.push(Notice::Inode(ino));
    }

    fn attributes(&self, ino: Ino) {
        self.push(Notice::Attributes(ino));
    }

    fn entry(&self, parent: Ino, name: &OsStr) {
        self.push(Notice::Entry(parent, name.to_owned()));
    }

    fn idle(&self, names: Vec<IdleName>) {
        self.0.queue.lock().idle.extend(names);
        self.0.arrived.notify_one();
    }

    fn told(&self, ino: Ino) -> Option<BoxFuture<'static, ()>> {
        if !self.0.queue.lock().speaks_of(ino) {
            return None;
        }
        let shared = Arc::clone(&self.0);
        let told = async move {
            loop {
                let mut delivered = pin!(shared.delivered.notified());
                delivered.as_mut().enable();
                if !shared.queue.lock().speaks_of(ino) {
                    return;
                }
                delivered.await;
            }
        };
        Some(Box::pin(told))
    }
}

fn deliver(shared: &Shared, kernel: &impl Kernel) {
    while let Some(turn) = next(shared) {
        let notice = match turn {
            Turn::Notice(notice) => notice,
            Turn::Idle(names) => {
                let told = kernel.forget_idle(&names).unwrap_or_else(|error| {
                    debug!(%error, "the kernel did not take what it may forget");
                    names.len()
                });
                let mut queue = shared.queue.lock();
                names.into_iter().skip(told.max(1)).rev().for_each(|name| queue.idle.push_front(name));
                continue;
            }
        };
        let sent = match &notice {
            Notice::Inode(ino) => kernel.forget_inode(*ino),
            Notice::Attributes(ino) => kernel.forget_attributes(*ino),
            Notice::Entry(parent, name) => kernel.forget_entry(*parent, name),
        };
        if let Err(error) = sent {
            // The kernel forgets all by itself when the mount ends; nothing else fails here but a kernel without the call.
            debug!(?notice, %error, "the kernel did not take a notification");
        }
        shared.queue.lock().leaving = None;
        shared.delivered.notify_waiters();
    }
}

enum Turn {
    Notice(Notice),
    Idle(Vec<IdleName>),
}

fn next(shared: &Shared) -> Option<Turn> {
    let mut queue = shared.queue.lock();
    loop {
        if let Some(notice) = queue.pop() {
            return Some(Turn::Notice(notice));
        }
        if !queue.closed && !queue.idle.is_empty() {
            let batch = queue.idle.len().min(IDLE_BATCH);
            return Some(Turn::Idle(queue.idle.drain(..batch).collect()));
        }
        if queue.closed {
            return None;
        }
        shared.arrived.wait(&mut queue);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// Reports each notification and then waits for leave to go on, like a kernel with a slow lookup.
    struct Slow {
        seen: mpsc::Sender<Notice>,
        leave: Mutex<mpsc::Receiver<()>>,
    }

    impl Slow {
        fn take(&self, notice: Notice) -> io::Result<()> {
            self.seen.send(notice).ok();
            self.leave.lock().recv().ok();
            Ok(())
        }
    }

    impl Kernel for Slow {
        fn forget_inode(&self, ino: Ino) -> io::Result<()> {
            self.take(Notice::Inode(ino))
        }

        fn forget_attributes(&self, ino: Ino) -> io::Result<()> {
            self.take(Notice::Attributes(ino))
        }

        fn forget_entry(&self, parent: Ino, name: &OsStr) -> io::Result<()> {
            self.take(Notice::Entry(parent, name.to_owned()))
        }

        /// Name by name, as a kernel before Linux 6.18.
        fn forget_idle(&self, names: &[IdleName]) -> io::Result<usize> {
            self.take(Notice::Entry(names[0].parent, (*names[0].name).into()))?;
            Ok(1)
        }
    }

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn duplicates_fold_while_they_wait_and_nobody_blocks() {
        let (seen, reports) = mpsc::channel();
        let (go, leave) = mpsc::channel();
        let notices = Notices::start(Slow { seen, leave: Mutex::new(leave) }).expect("thread");
        notices.inode(1);
        assert_eq!(reports.recv_timeout(LONG), Ok(Notice::Inode(1)));
        // The thread is inside the kernel now; all of this only queues.
        for _ in 0..100 {
            notices.inode(1);
            notices.entry(1, OsStr::new("a"));
            notices.inode(2);
        }
        for _ in 0..4 {
            go.send(()).expect("thread lives");
        }
        let after: Vec<Notice> = (0..3).map(|_| reports.recv_timeout(LONG).expect("notice")).collect();
        assert_eq!(after, [Notice::Inode(1), Notice::Entry(1, "a".into()), Notice::Inode(2)]);
        assert_eq!(notices.0.queue.lock().order.len(), 0);
    }

    #[test]
    fn what_is_wrong_comes_before_what_may_be_forgotten() {
        let (seen, reports) = mpsc::channel();
        let (go, leave) = mpsc::channel();
        let notices = Notices::start(Slow { seen, leave: Mutex::new(leave) }).expect("thread");
        let idle = |ino| IdleName { ino, parent: 1, name: Arc::from(ino.to_string()), is_directory: false };
        notices.idle(vec![idle(7), idle(8), idle(9)]);
        assert_eq!(reports.recv_timeout(LONG), Ok(Notice::Entry(1, "7".into())));
        notices.inode(1);
        for _ in 0..4 {
            go.send(()).expect("thread lives");
        }
        let after: Vec<Notice> = (0..3).map(|_| reports.recv_timeout(LONG).expect("notice")).collect();
        assert_eq!(after, [Notice::Inode(1), Notice::Entry(1, "8".into()), Notice::Entry(1, "9".into())]);
    }

    #[tokio::test]
    async fn who_waits_for_the_kernel_to_know_goes_on_when_it_does() {
        let (seen, reports) = mpsc::channel();
        let (go, leave) = mpsc::channel();
        let notices = Notices::start(Slow { seen, leave: Mutex::new(leave) }).expect("thread");
        assert!(notices.told(1).is_none());
        notices.attributes(2);
        assert_eq!(reports.recv_timeout(LONG), Ok(Notice::Attributes(2)));
        notices.inode(1);
        let (first, second) = (notices.told(1).expect("queued"), notices.told(2).expect("under way"));
        let first = tokio::spawn(first);
        go.send(()).expect("thread lives");
        tokio::time::timeout(LONG, second).await.expect("told");
        assert_eq!(reports.recv_timeout(LONG), Ok(Notice::Inode(1)));
        assert!(!first.is_finished() && notices.told(2).is_none() && notices.told(1).is_some());
        go.send(()).expect("thread lives");
        tokio::time::timeout(LONG, first).await.expect("told").expect("no panic");
        assert!(notices.told(1).is_none());
    }

    #[test]
    fn the_thread_ends_with_its_sender_after_what_was_queued() {
        let (seen, reports) = mpsc::channel();
        let (go, leave) = mpsc::channel();
        let notices = Notices::start(Slow { seen, leave: Mutex::new(leave) }).expect("thread");
        notices.inode(1);
        notices.inode(2);
        drop(notices);
        go.send(()).expect("thread lives");
        go.send(()).expect("thread lives");
        assert_eq!(reports.recv_timeout(LONG), Ok(Notice::Inode(1)));
        assert_eq!(reports.recv_timeout(LONG), Ok(Notice::Inode(2)));
        assert_eq!(reports.recv_timeout(LONG), Err(mpsc::RecvTimeoutError::Disconnected));
    }
}
