//! `recover … upload`: the writer does the work, this shows how far it is.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::interval;

use super::{Failure, list, safe};
use crate::cli::logging;
use crate::config::Config;
use crate::daemon::{self, bytes_text};
use crate::recover::{Inventory, Uploading};
use crate::writer::Backlog;

/// Often enough to look alive; a line to a log less often.
const BAR: Duration = Duration::from_millis(200);
const LINE: Duration = Duration::from_secs(5);

pub fn run(config: Config, inventory: &Inventory, copied: bool) -> Result<(), Failure> {
    logging::start(&config.log)?;
    list::warn(inventory);
    let runtime = daemon::runtime()?;
    let settings = config.settings;
    let (sent, left) = runtime.block_on(async {
        let uploading = Uploading::start(&settings, copied).await?;
        if let Some(damaged) = &uploading.damaged {
            eprintln!("the journal was made anew of what verifies; the damaged one is {}", damaged.display());
        }
        let before = uploading.backlog();
        let left = watch(&uploading, &before).await;
        uploading.end().await?;
        Ok::<_, Failure>((before.dirty_files.saturating_sub(left.dirty_files), left))
    })?;
    runtime.shutdown_background();
    for failed in &left.failed {
        eprintln!("failed   {}: {}", safe(&failed.path), safe(&failed.error));
    }
    if left.dirty_files == 0 {
        println!("{sent} changes went up: all is in {}", settings.source);
        return Ok(());
    }
    let why = match &left.degraded {
        Some((_, error)) => format!("the bucket doesn't answer: {}", safe(error)),
        None => "see above".to_owned(),
    };
    Err(Failure::Failed(format!("{sent} changes went up, {} ({}) are left: {why}", left.dirty_files, bytes_text(left.dirty_bytes))))
}

async fn watch(uploading: &Uploading, before: &Backlog) -> Backlog {
    let bar = if io::stderr().is_terminal() { ProgressBar::new(before.dirty_bytes) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {binary_bytes} of {binary_total_bytes} {binary_bytes_per_sec} {msg}") {
        bar.set_style(style);
    }
    let shown = async {
        let mut ticks = interval(if bar.is_hidden() { LINE } else { BAR });
        // The first one is at once.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let now = uploading.backlog();
            if bar.is_hidden() {
                eprintln!("{} changes ({}) left", now.dirty_files, bytes_text(now.dirty_bytes));
            }
            let total = bar.length().unwrap_or_default().max(now.dirty_bytes);
            bar.set_length(total);
            bar.set_position(total - now.dirty_bytes);
            bar.set_message(format!("{} changes left", now.dirty_files));
        }
    };
    let left = tokio::select! {
        left = uploading.wait() => left,
        () = shown => uploading.backlog(),
    };
    bar.finish_and_clear();
    left
}
