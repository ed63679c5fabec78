//! Answers one request: at once where the answer is in memory, from a task with a deadline where it has to wait.
//!
//! Every operation of `fs` is a future that doesn't await when it has all it needs. It is polled once on fuser's thread:
//! a hop to the runtime costs more than most answers. What is still pending moves to the runtime together with its reply,
//! so that fuser's few threads never wait.
//!
//! INVARIANTS
//! - Each reply is sent exactly once, whatever happens: an error, a deadline or a panic (a bug is one `EIO` and a log
//!   line, never the end of the mount).
//! - No request is unanswered for ever: the kernel can't kill a process whose request is.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fuser::Errno;
use futures::FutureExt;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tracing::{Instrument, Level, Span, enabled, error};

use super::errno::{self, Asked};
use crate::error::{Error, Result};

/// Counts what gets done in the bucket. A wait for an upload goes on as long as it moves.
pub type Progress = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How long an operation may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// To the deadline.
    Deadline,
    /// Until nothing was done in the bucket for a whole deadline: for what waits for uploads of any size.
    WhileMoving,
}

#[derive(Clone)]
pub(super) struct Answers {
    runtime: Handle,
    deadline: Duration,
    progress: Progress,
}

impl Answers {
    pub fn new(runtime: Handle, deadline: Duration, progress: Progress) -> Self {
        Self { runtime, deadline, progress }
    }

    /// Runs `operation` and hands its result to `reply`, now or later.
    pub fn answer<T, F, R>(&self, asked: Asked, patience: Patience, operation: F, reply: R)
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
        R: FnOnce(std::result::Result<T, Errno>) + Send + 'static,
    {
        let mut operation = Box::pin(operation);
        let span = asked.span();
        let within = span.enter();
        // Operations spawn tasks and make timers: both need to know the runtime.
        let _inside = self.runtime.enter();
        match catch_unwind(AssertUnwindSafe(|| poll_once(operation.as_mut()))) {
            Ok(Poll::Ready(result)) => reply(result.map_err(|error| errno::log(&asked, &error))),
            Ok(Poll::Pending) => {
                let answers = self.clone();
                drop(within);
                self.runtime.spawn(async move { reply(answers.wait(&asked, patience, operation).await) }.instrument(span));
            }
            Err(panic) => reply(Err(bug(&asked, panic.as_ref()))),
        }
    }

    /// Runs what never waits. `None` means that it has to after all.
    pub fn now<T>(
        &self,
        asked: impl Fn() -> Asked,
        operation: impl FnOnce() -> Option<Result<T>>,
    ) -> Option<std::result::Result<T, Errno>> {
        let _inside = self.runtime.enter();
        let span = if enabled!(Level::DEBUG) { asked().span() } else { Span::none() };
        let _within = span.enter();
        match catch_unwind(AssertUnwindSafe(operation)) {
            Ok(result) => result.map(|result| result.map_err(|error| errno::log(&asked(), &error))),
            Err(panic) => Some(Err(bug(&asked(), panic.as_ref()))),
        }
    }

    /// Runs what neither waits nor fails.
    pub fn certain<T>(&self, asked: impl Fn() -> Asked, operation: impl FnOnce() -> T) -> std::result::Result<T, Errno> {
        let _inside = self.runtime.enter();
        catch_unwind(AssertUnwindSafe(operation)).map_err(|panic| bug(&asked(), panic.as_ref()))
    }

    async fn wait<T, F>(&self, asked: &Asked, patience: Patience, operation: Pin<Box<F>>) -> std::result::Result<T, Errno>
    where
        F: Future<Output = Result<T>> + Send,
    {
        match AssertUnwindSafe(self.within(patience, operation)).catch_unwind().await {
            Ok(result) => result.map_err(|error| errno::log(asked, &error)),
            Err(panic) => Err(bug(asked, panic.as_ref())),
        }
    }

    async fn within<T, F>(&self, patience: Patience, mut operation: Pin<Box<F>>) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let mut done_before = (self.progress)();
        loop {
            if let Ok(result) = timeout(self.deadline, operation.as_mut()).await {
                return result;
            }
            let done = (self.progress)();
            if patience == Patience::Deadline || done == done_before {
                return Err(Error::Timeout);
            }
            done_before = done;
        }
    }
}

/// The waker does nothing: who is pending is polled again by the runtime at once, with a real one.
fn poll_once<F: Future + ?Sized>(operation: Pin<&mut F>) -> Poll<F::Output> {
    operation.poll(&mut Context::from_waker(Waker::noop()))
}

fn bug(asked: &Asked, panic: &(dyn Any + Send)) -> Errno {
    let text =
        panic.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    error!(operation = asked.operation, ino = asked.ino, panic = text, "a bug in mediafs: this request failed");
    Errno::EIO
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::sync::oneshot;
    use tokio::time::{Instant, sleep};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(60);

    fn answers(done: &Arc<AtomicU64>) -> Answers {
        let done = Arc::clone(done);
        Answers::new(Handle::current(), DEADLINE, Arc::new(move || done.load(Ordering::Relaxed)))
    }

    fn run<T: Send + 'static>(
        answers: &Answers,
        patience: Patience,
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) -> oneshot::Receiver<std::result::Result<T, i32>> {
        let (send, receive) = oneshot::channel();
        answers.answer(Asked::of("test", 1), patience, operation, move |result| {
            send.send(result.map_err(Errno::code)).ok();
        });
        receive
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_memory_is_answered_on_the_callers_thread() {
        let mut answer = run(&answers(&Arc::default()), Patience::Deadline, async { Ok(7) });
        assert_eq!(answer.try_recv(), Ok(Ok(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_answered_later() {
        let mut answer = run(&answers(&Arc::default()), Patience::Deadline, async {
            sleep(Duration::from_secs(5)).await;
            Ok(7)
        });
        assert!(answer.try_recv().is_err());
        assert_eq!(answer.await, Ok(Ok(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_waits_past_the_deadline() {
        let start = Instant::now();
        let answer = run::<()>(&answers(&Arc::default()), Patience::Deadline, std::future::pending());
        assert_eq!(answer.await, Ok(Err(libc::EIO)));
        assert_eq!(start.elapsed(), DEADLINE);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_may_take_as_long_as_it_moves() {
        let done = Arc::new(AtomicU64::new(0));
        let start = Instant::now();
        let answer = run::<()>(&answers(&done), Patience::WhileMoving, std::future::pending());
        for _ in 0..3 {
            sleep(DEADLINE / 2).await;
            done.fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!(answer.await, Ok(Err(libc::EIO)));
        assert_eq!(start.elapsed(), 3 * DEADLINE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bug_is_one_failed_request() {
        let at_once = run::<()>(&answers(&Arc::default()), Patience::Deadline, async { panic!("first poll") });
        assert_eq!(at_once.await, Ok(Err(libc::EIO)));
        let later = run::<()>(&answers(&Arc::default()), Patience::Deadline, async {
            sleep(Duration::from_secs(1)).await;
            panic!("second poll")
        });
        assert_eq!(later.await, Ok(Err(libc::EIO)));
        let now = answers(&Arc::default()).now::<()>(|| Asked::of("test", 1), || panic!("inline"));
        assert_eq!(now.map(|result| result.map_err(Errno::code)), Some(Err(libc::EIO)));
    }
}
