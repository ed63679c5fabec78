//! A second GET for one that is slow to answer.
//!
//! Stores answer nearly all GETs in about the same time and a few of them very late, for reasons of their own: a second
//! request then mostly comes first. It is sent once the first took longer than all but one in a hundred of the last ones,
//! so that one request in a hundred is what it costs. Only the beginning of an answer is hedged; a body that stalls is
//! resumed by the store's own layers.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::store::{ObjectBody, StoreError};

/// What the store did before that says little of what it does now.
const REMEMBERED: usize = 200;
/// With fewer there is no telling what is slow.
const ENOUGH: usize = 50;
/// On a fast store the scheduler's whims are the slowest hundredth: a second GET gains nothing there.
const LEAST: Duration = Duration::from_millis(20);

/// How long the last answers took to begin.
#[derive(Debug, Default)]
pub struct Answers {
    times: Mutex<VecDeque<Duration>>,
}

impl Answers {
    fn note(&self, time: Duration) {
        let mut times = self.times.lock();
        if times.len() == REMEMBERED {
            times.pop_front();
        }
        times.push_back(time);
    }

    /// After this a GET counts as slow; None: too few are known.
    fn patience(&self) -> Option<Duration> {
        let times = self.times.lock();
        if times.len() < ENOUGH {
            return None;
        }
        let mut sorted: Vec<Duration> = times.iter().copied().collect();
        drop(times);
        let at = sorted.len() * 99 / 100;
        Some((*sorted.select_nth_unstable(at).1).max(LEAST))
    }

    /// The first good answer of `ask`, asked a second time where it is slow; else the last error.
    pub async fn first<F: Future<Output = Result<ObjectBody, StoreError>>>(&self, ask: impl Fn() -> F) -> Result<ObjectBody, StoreError> {
        let begun = Instant::now();
        let answer = match self.patience() {
            None => ask().await,
            Some(patience) => hedged(patience, ask).await,
        };
        if answer.is_ok() {
            self.note(begun.elapsed());
        }
        answer
    }
}

async fn hedged<T, F: Future<Output = Result<T, StoreError>>>(patience: Duration, ask: impl Fn() -> F) -> Result<T, StoreError> {
    let mut first = std::pin::pin!(ask());
    tokio::select! {
        biased;
        answer = &mut first => return answer,
        () = sleep(patience) => {}
    }
    let mut second = std::pin::pin!(ask());
    tokio::select! {
        biased;
        answer = &mut first => match answer {
            Err(_) => second.await,
            good => good,
        },
        answer = &mut second => match answer {
            Err(_) => first.await,
            good => good,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::store::ErrorKind;

    fn failure() -> StoreError {
        StoreError::new(ErrorKind::Unavailable, "GetObject", "", "as told")
    }

    #[tokio::test(start_paused = true)]
    async fn the_faster_of_two_good_answers_is_taken() {
        let ms = Duration::from_millis;
        // What the first and the second take and whether they are good; the answer, its time, and how many were asked.
        for (first, second, expected, after, asked) in [
            ((10, true), (0, true), Some(0), 10, 1),
            ((10, false), (0, true), None, 10, 1),
            ((1000, true), (10, true), Some(1), 60, 2),
            ((70, true), (500, true), Some(0), 70, 2),
            ((1000, true), (10, false), Some(0), 1000, 2),
            ((70, false), (100, true), Some(1), 150, 2),
            ((1000, false), (10, false), None, 1000, 2),
        ] {
            let (begun, count) = (Instant::now(), AtomicUsize::new(0));
            let answer = hedged(ms(50), || {
                let number = count.fetch_add(1, Ordering::Relaxed);
                let (takes, good) = if number == 0 { first } else { second };
                async move {
                    sleep(ms(takes)).await;
                    if good { Ok(number) } else { Err(failure()) }
                }
            })
            .await;
            assert_eq!((answer.ok(), begun.elapsed(), count.into_inner()), (expected, ms(after), asked), "{first:?} {second:?}");
        }
    }

    #[test]
    fn slow_is_what_one_in_a_hundred_takes() {
        let answers = Answers::default();
        for _ in 1..ENOUGH {
            answers.note(Duration::from_millis(30));
        }
        assert_eq!(answers.patience(), None);
        answers.note(Duration::from_secs(1));
        assert_eq!(answers.patience(), Some(Duration::from_secs(1)));
        for _ in 0..REMEMBERED {
            answers.note(Duration::from_micros(300));
        }
        assert_eq!(answers.patience(), Some(LEAST));
    }
}
