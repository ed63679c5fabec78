//! How long an upload is waited for: by its progress and not by the clock, so that a slow line is not taken for a dead one.
//!
//! A body is handed over in small pieces, and each piece that the connection takes is progress. Without any for a while
//! the attempt is given up. What was handed over may still lie in the kernel's buffer, which nobody sees: after the last
//! piece the answer has time for as many bytes as fit there. A line on which that is too short would never be done, each
//! attempt being cut and begun anew; so after such a cut the next ones get twice the time, up to a bound that is low
//! while nothing at all is answered, when the line may as well be dead.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// Small against what a slow line carries in the time of one attempt, large against the cost of a piece.
const PIECE_BYTES: usize = 64 << 10;
/// What the kernel buffers for one connection at the most (`tcp_wmem`).
const BUFFERED_BYTES: u64 = 4 << 20;
/// The slowest line that is waited for from the start.
const SLOWEST_BYTES_PER_SECOND: u64 = 64 << 10;
/// With this, lines of 4 KiB/s get through …
const MOST: u32 = 16;
/// … and with this a dead one is left soon.
const MOST_UNANSWERED: u32 = 2;

/// Shared by all uploads of a store.
#[derive(Debug)]
pub(super) struct Patience {
    /// Longest time without progress, times `factor`.
    stall: Duration,
    factor: AtomicU32,
    /// Requests that the store has answered.
    answers: AtomicU64,
}

/// One upload's: when the connection last took a piece, and whether it was the last one.
#[derive(Debug)]
struct Progress(Mutex<(Instant, bool)>);

struct Pieces {
    left: Bytes,
    progress: Arc<Progress>,
}

impl Patience {
    pub fn new(stall: Duration) -> Self {
        Self { stall, factor: AtomicU32::new(1), answers: AtomicU64::new(0) }
    }

    /// The store said something.
    pub fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// Runs the request that `send` makes of a body. None: it stalled, and was dropped.
    pub async fn upload<T, F: Future<Output = T>>(&self, bytes: Bytes, send: impl FnOnce(ByteStream) -> F) -> Option<T> {
        let (size, answers) = (bytes.len() as u64, self.answers.load(Ordering::Relaxed));
        let progress = Arc::new(Progress(Mutex::new((Instant::now(), size == 0))));
        let body = Pieces { left: bytes, progress: Arc::clone(&progress) };
        let mut request = std::pin::pin!(send(ByteStream::from_body_1_x(body)));
        loop {
            let due = self.due(&progress, size);
            tokio::select! {
                biased;
                answer = &mut request => {
                    self.factor.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |factor| Some((factor / 2).max(1))).ok();
                    return Some(answer);
                }
                () = sleep_until(due) => {
                    if self.due(&progress, size) <= Instant::now() {
                        let alive = self.answers.load(Ordering::Relaxed) > answers;
                        let most = if alive { MOST } else { MOST_UNANSWERED };
                        self.factor.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |factor| Some((factor * 2).min(most.max(factor)))).ok();
                        return None;
                    }
                }
            }
        }
    }

    fn due(&self, progress: &Progress, size: u64) -> Instant {
        let (last, all) = *progress.0.lock();
        let buffered = if all { size.min(BUFFERED_BYTES) / SLOWEST_BYTES_PER_SECOND } else { 0 };
        last + (self.stall + Duration::from_secs(buffered)) * self.factor.load(Ordering::Relaxed)
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.left.len().min(PIECE_BYTES);
        let piece = self.left.split_to(length);
        *self.progress.0.lock() = (Instant::now(), self.left.is_empty());
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    const STALL: Duration = Duration::from_secs(20);
    const PART_BYTES: usize = 16 << 20;

    /// A line that takes a piece every so often, and answers at once after the last.
    async fn slow_line(patience: &Patience, bytes: usize, pause: Duration) -> Option<()> {
        let send = |body: ByteStream| async move {
            let mut body = body;
            while body.next().await.is_some() {
                sleep(pause).await;
            }
        };
        patience.upload(Bytes::from(vec![0; bytes]), send).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_line_has_all_the_time_that_it_needs() {
        let patience = Patience::new(STALL);
        let begun = Instant::now();
        assert!(slow_line(&patience, PART_BYTES, Duration::from_secs(15)).await.is_some());
        assert!(begun.elapsed() > Duration::from_secs(3_600), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_line_is_left_soon() {
        let patience = Patience::new(STALL);
        let begun = Instant::now();
        let silent = patience.upload(Bytes::from(vec![0; PART_BYTES]), |body| async move {
            let _kept = body;
            std::future::pending::<()>().await;
        });
        assert!(silent.await.is_none());
        assert_eq!(begun.elapsed(), STALL);
        for _ in 0..9 {
            let begun = Instant::now();
            assert!(patience.upload(Bytes::new(), |_| std::future::pending::<()>()).await.is_none());
            assert!(begun.elapsed() <= STALL * MOST_UNANSWERED, "{:?}", begun.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_lies_in_a_buffer_is_given_more_time_as_long_as_the_store_is_alive() {
        let patience = Patience::new(STALL);
        // All is taken at once, and arrives at 8 KiB/s: 128 s for a MiB.
        let buffered = |body: ByteStream| async {
            let bytes = body.collect().await.map(|body| body.into_bytes().len()).unwrap_or_default();
            sleep(Duration::from_secs(bytes as u64 / (8 << 10))).await;
        };
        let mut attempts = 0;
        while patience
            .upload(Bytes::from(vec![0; 1 << 20]), |body| async { futures::join!(buffered(body), async { patience.answered() }) })
            .await
            .is_none()
        {
            attempts += 1;
            assert!(attempts < 5, "cut again and again");
        }
        assert!(attempts > 0);
    }
}
