//! Bounds how much of the log failed operations may fill: when the network is down, every program that goes on makes one
//! line a request, all with the same cause.
//!
//! In each stretch of time the first ones are told in full, the others counted; the count is told with the first one of the
//! next stretch.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Enough to see who is hit.
const LINES: u32 = 20;
const STRETCH: Duration = Duration::from_secs(10);

pub(super) struct Quiet(Mutex<State>);

struct State {
    /// Of the stretch.
    begun: Option<Instant>,
    told: u32,
    withheld: u64,
}

/// Whether to tell of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub tell: bool,
    /// So many before it were not told of.
    pub withheld: u64,
}

impl Quiet {
    pub const fn new() -> Self {
        Self(Mutex::new(State { begun: None, told: 0, withheld: 0 }))
    }

    pub fn ask(&self, now: Instant) -> Word {
        let mut state = self.0.lock();
        let mut withheld = 0;
        if state.begun.is_none_or(|begun| now.saturating_duration_since(begun) >= STRETCH) {
            withheld = state.withheld;
            *state = State { begun: Some(now), told: 0, withheld: 0 };
        }
        let tell = state.told < LINES;
        if tell {
            state.told += 1;
        } else {
            state.withheld += 1;
        }
        Word { tell, withheld }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_are_told_and_the_rest_counted() {
        let quiet = Quiet::new();
        let told = (0..1_000).filter(|_| quiet.ask(Instant::now()).tell).count();
        assert_eq!(told, LINES as usize);
        tokio::time::advance(STRETCH).await;
        assert_eq!(quiet.ask(Instant::now()), Word { tell: true, withheld: 980 });
        assert_eq!(quiet.ask(Instant::now()), Word { tell: true, withheld: 0 });
    }
}
