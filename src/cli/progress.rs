//! How far a long command is: a bar on a terminal, elsewhere a plain line every few seconds. Both on standard error.

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::daemon::bytes_text;

/// Often enough to look alive.
pub const POLL: Duration = Duration::from_millis(200);
/// Where nobody looks on, but a log grows.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// The rate is that of about so long.
const RATE_OVER: Duration = Duration::from_secs(10);

pub struct Progress {
    bar: Option<ProgressBar>,
    rate: Rate,
    told: Instant,
}

impl Progress {
    pub fn new(total_bytes: u64) -> Self {
        let bar = io::stderr().is_terminal().then(|| ProgressBar::new(total_bytes));
        // A template that can't be read leaves indicatif's own, which does as well.
        if let (Some(bar), Ok(style)) = (&bar, ProgressStyle::with_template("{bar:30} {msg}")) {
            bar.set_style(style);
        }
        let now = Instant::now();
        Self { bar, rate: Rate::new(now), told: now }
    }

    /// So much of so much, and what else there is to say.
    pub fn update(&mut self, done_bytes: u64, total_bytes: u64, note: &str) {
        let now = Instant::now();
        let rate = self.rate.update(done_bytes, now);
        let text = || line(done_bytes, total_bytes, rate, note);
        match &self.bar {
            Some(bar) => {
                bar.set_length(total_bytes);
                bar.set_position(done_bytes.min(total_bytes));
                bar.set_message(text());
            }
            None if now - self.told >= LINE_EVERY => {
                self.told = now;
                eprintln!("{}", text());
            }
            None => {}
        }
    }

    /// A line that stays, above the bar.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Bytes a second over the last while: old seconds count less and less.
struct Rate {
    at: Instant,
    done_bytes: u64,
    bytes_per_second: Option<f64>,
}

impl Rate {
    fn new(now: Instant) -> Self {
        Self { at: now, done_bytes: 0, bytes_per_second: None }
    }

    fn update(&mut self, done_bytes: u64, now: Instant) -> Option<f64> {
        let seconds = (now - self.at).as_secs_f64();
        if seconds < POLL.as_secs_f64() / 2.0 {
            return self.bytes_per_second;
        }
        let current = done_bytes.saturating_sub(self.done_bytes) as f64 / seconds;
        let kept = (-seconds / RATE_OVER.as_secs_f64()).exp();
        (self.at, self.done_bytes) = (now, done_bytes);
        self.bytes_per_second = Some(self.bytes_per_second.map_or(current, |before| before * kept + current * (1.0 - kept)));
        self.bytes_per_second
    }
}

/// `1.0 MiB of 4.0 MiB (25 %), 512.0 KiB/s, 6s left; 3 of 12 files`.
fn line(done_bytes: u64, total_bytes: u64, bytes_per_second: Option<f64>, note: &str) -> String {
    let percent = (done_bytes * 100).checked_div(total_bytes).unwrap_or(100).min(100);
    let mut text = format!("{} of {} ({percent} %)", bytes_text(done_bytes), bytes_text(total_bytes));
    if let Some(rate) = bytes_per_second {
        // Writing to a String can't fail.
        let _ = write!(text, ", {}/s", bytes_text(rate as u64));
        let left = total_bytes.saturating_sub(done_bytes) as f64 / rate;
        if rate >= 1.0 && left >= 1.0 {
            let _ = write!(text, ", {} left", humantime::format_duration(Duration::from_secs(left as u64)));
        }
    }
    if !note.is_empty() {
        let _ = write!(text, "; {note}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_much_how_fast_and_how_long() {
        for (done, total, rate, note, expected) in [
            (0, 0, None, "", "0 B of 0 B (100 %)"),
            (1 << 20, 4 << 20, None, "", "1.0 MiB of 4.0 MiB (25 %)"),
            (1 << 20, 4 << 20, Some(524_288.0), "3 of 12 files", "1.0 MiB of 4.0 MiB (25 %), 512.0 KiB/s, 6s left; 3 of 12 files"),
            (4 << 20, 4 << 20, Some(1024.0), "", "4.0 MiB of 4.0 MiB (100 %), 1.0 KiB/s"),
            (5, 4, Some(0.0), "", "5 B of 4 B (100 %), 0 B/s"),
        ] {
            assert_eq!(line(done, total, rate, note), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_follows_the_last_seconds() {
        let mut rate = Rate::new(Instant::now());
        assert_eq!(rate.update(0, Instant::now()), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(rate.update(1000, Instant::now()), Some(1000.0));
        tokio::time::advance(Duration::from_secs(100)).await;
        assert!(rate.update(1000, Instant::now()).is_some_and(|rate| rate < 1.0), "it has stopped");
    }
}
