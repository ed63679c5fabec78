//! `mediafs status MOUNTPOINT --watch`: the status as a live screen, until Ctrl-C. Where standard output is no terminal, a
//! line each time instead.

use std::collections::VecDeque;
use std::fmt::Write;
use std::io::{self, IsTerminal, Write as _};
use std::path::Path;
use std::time::Duration;

use console::Term;
use tokio::runtime::Builder;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Failure, attribute, status};
use crate::clock;
use crate::daemon::{Report, Signals, bytes_text};

/// Columns of the little plots.
const STEPS: usize = 60;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Home, and what is below and behind is cleared line by line: the screen doesn't flicker.
const HOME: &str = "\u{1b}[H";
const TO_LINE_END: &str = "\u{1b}[K";
const TO_SCREEN_END: &str = "\u{1b}[J";
const ALTERNATE: &str = "\u{1b}[?1049h";
const ORDINARY: &str = "\u{1b}[?1049l";

pub fn run(root: &Path, every: Duration) -> Result<(), Failure> {
    let terminal = io::stdout().is_terminal();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let screen = Screen::open(terminal)?;
    let result = runtime.block_on(watch(root, every, terminal));
    drop(screen);
    result
}

/// The terminal's other screen, as editors use it; what was there before comes back.
struct Screen(Option<Term>);

impl Screen {
    fn open(terminal: bool) -> Result<Self, Failure> {
        let screen = Self(terminal.then(Term::stdout));
        if let Some(terminal) = &screen.0 {
            terminal.hide_cursor()?;
            terminal.write_str(ALTERNATE)?;
        }
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(terminal) = &self.0 {
            terminal.write_str(ORDINARY).and_then(|()| terminal.show_cursor()).ok();
        }
    }
}

async fn watch(root: &Path, every: Duration, terminal: bool) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rates = Rates::default();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = signals.next() => return Ok(()),
        }
        // A daemon that is gone ends this with its message.
        let (_, report) = attribute::report(root)?;
        rates.add(&report, Instant::now());
        let text = if terminal { screen(&report, &rates, Term::stdout().size()) } else { line(&report, &rates) };
        let mut output = io::stdout().lock();
        if output.write_all(text.as_bytes()).and_then(|()| output.flush()).is_err() {
            return Ok(());
        }
    }
}

/// Bytes and requests a second between one look and the next.
#[derive(Default)]
struct Rates {
    last: Option<(Instant, u64, u64, u64)>,
    up: VecDeque<u64>,
    down: VecDeque<u64>,
    requests: VecDeque<u64>,
}

impl Rates {
    fn add(&mut self, report: &Report, now: Instant) {
        let (up, down, requests) = (report.uploaded_bytes, report.downloaded_bytes, report.requests.values().sum());
        if let Some((before, old_up, old_down, old_requests)) = self.last.replace((now, up, down, requests)) {
            let seconds = (now - before).as_secs_f64().max(0.001);
            let rate = |old: u64, new: u64| (new.saturating_sub(old) as f64 / seconds).round() as u64;
            for (row, value) in [
                (&mut self.up, rate(old_up, up)),
                (&mut self.down, rate(old_down, down)),
                (&mut self.requests, rate(old_requests, requests)),
            ] {
                row.push_back(value);
                if row.len() > STEPS {
                    row.pop_front();
                }
            }
        }
    }
}

/// One bar for each value, the largest the highest; only zero has none.
fn plot(values: &VecDeque<u64>) -> String {
    let most = values.iter().copied().max().unwrap_or_default().max(1);
    let bar = |value: &u64| match *value {
        0 => ' ',
        value => BARS[(value as f64 / most as f64 * (BARS.len() - 1) as f64) as usize],
    };
    values.iter().map(bar).collect()
}

fn line(report: &Report, rates: &Rates) -> String {
    let latest = |row: &VecDeque<u64>| row.back().copied().unwrap_or_default();
    let (up, down) = (bytes_text(latest(&rates.up)), bytes_text(latest(&rates.down)));
    let time = humantime::format_rfc3339_seconds(clock::now());
    format!("{time} {}; {up}/s up, {down}/s down, {} requests/s\n", report.line(), latest(&rates.requests))
}

/// `size` is rows and columns: what doesn't fit is left out at the end.
fn screen(report: &Report, rates: &Rates, (rows, columns): (u16, u16)) -> String {
    let latest = |row: &VecDeque<u64>| row.back().copied().unwrap_or_default();
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = writeln!(text, "mediafs {}, {}; Ctrl-C ends this\n", report.version, humantime::format_rfc3339_seconds(clock::now()));
    for (name, row, amount) in [
        ("up", &rates.up, format!("{}/s", bytes_text(latest(&rates.up)))),
        ("down", &rates.down, format!("{}/s", bytes_text(latest(&rates.down)))),
        ("requests", &rates.requests, format!("{}/s", latest(&rates.requests))),
    ] {
        let _ = writeln!(text, "{name:<10} {amount:>12}  {}", plot(row));
    }
    text.push('\n');
    text.push_str(&status::table(report));
    let (rows, columns) = (usize::from(rows).saturating_sub(1).max(1), usize::from(columns).max(20));
    let lines = text.lines().take(rows).map(|line| line.chars().take(columns).collect::<String>());
    let mut shown = HOME.to_owned();
    for line in lines {
        shown.push_str(&line);
        shown.push_str(TO_LINE_END);
        shown.push_str("\r\n");
    }
    shown.push_str(TO_SCREEN_END);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_are_as_high_as_their_values() {
        assert_eq!(plot(&VecDeque::from([0, 1, 50, 100])), " ▁▄█");
        assert_eq!(plot(&VecDeque::new()), "");
        assert_eq!(plot(&VecDeque::from([u64::MAX])), "█", "no overflow");
    }

    #[tokio::test(start_paused = true)]
    async fn rates_are_between_two_looks_and_the_screen_fits() {
        let mut report = status::tests::report();
        let mut rates = Rates::default();
        rates.add(&report, Instant::now());
        tokio::time::advance(Duration::from_secs(2)).await;
        report.uploaded_bytes += 4096;
        rates.add(&report, Instant::now());
        assert_eq!(rates.up, [2048]);
        assert!(line(&report, &rates).contains("2 files (1.5 KiB) to upload, 1 failed; 2.0 KiB/s up, 0 B/s down"));
        let whole = screen(&report, &rates, (50, 120));
        assert!(whole.contains("2.0 KiB/s") && whole.contains("s3://b/p at AWS"), "{whole}");
        let small = screen(&report, &rates, (5, 30));
        assert_eq!(small.matches("\r\n").count(), 4);
        let widest = small.split("\r\n").map(|line| line.replace(TO_LINE_END, "").replace(HOME, "").chars().count()).max();
        assert!(widest <= Some(30), "{small:?}");
        for _ in 0..2 * STEPS {
            tokio::time::advance(Duration::from_secs(1)).await;
            rates.add(&report, Instant::now());
        }
        assert_eq!(rates.up.len(), STEPS);
    }
}
