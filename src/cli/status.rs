//! `mediafs status MOUNTPOINT [--json|--watch]`: what waits, what failed, what the cache holds, what was asked of the bucket.

use std::fmt::Write;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{Failure, attribute, watch};
use crate::daemon::{Cost, Report, bytes_text};
use crate::types::Key;

/// Failed files that are listed one by one.
const FAILED_SHOWN: usize = 20;

pub fn command() -> Command {
    Command::new("status")
        .about("Show what a mount has still to upload, what failed, and what it asked of the bucket")
        .arg(Arg::new("mountpoint").value_name("MOUNTPOINT").required(true).value_parser(clap::value_parser!(PathBuf)))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("For programs"))
        .arg(
            Arg::new("watch")
                .long("watch")
                .short('w')
                .action(ArgAction::SetTrue)
                .conflicts_with("json")
                .help("A live screen until Ctrl-C; lines where the output is no terminal"),
        )
        .arg(Arg::new("interval").long("interval").value_name("TIME").default_value("1s").requires("watch").help("How often --watch looks"))
}

pub fn run(arguments: &ArgMatches) -> Result<(), Failure> {
    let Some(path) = arguments.get_one::<PathBuf>("mountpoint") else { return Ok(()) };
    let root = attribute::mount_root(path)?;
    if arguments.get_flag("watch") {
        return watch::run(&root, interval(arguments.get_one::<String>("interval").map(String::as_str).unwrap_or_default())?);
    }
    let (text, report) = attribute::report(&root)?;
    let shown = if arguments.get_flag("json") { format!("{text}\n") } else { table(&report) };
    io::stdout().write_all(shown.as_bytes())?;
    Ok(())
}

fn interval(text: &str) -> Result<Duration, Failure> {
    let time = text.parse().ok().map(Duration::from_secs).or_else(|| humantime::parse_duration(text).ok());
    let wrong = || Failure::Usage(format!("--interval {text}: write a time from 100ms to 1h, like 5s"));
    time.filter(|time| (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(time)).ok_or_else(wrong)
}

/// One line for each thing.
pub(super) fn table(report: &Report) -> String {
    let mut lines: Vec<(&str, String)> = Vec::new();
    let endpoint = if report.endpoint.is_empty() { "AWS" } else { report.endpoint.as_str() };
    let prefix = report.prefix.trim_end_matches('/');
    let slash = if prefix.is_empty() { "" } else { "/" };
    lines.push(("bucket", format!("s3://{}{slash}{} at {endpoint}", report.bucket, safe(prefix))));
    let mode = if report.read_only { "read-only" } else { report.write_mode.as_str() };
    let uptime = humantime::format_duration(Duration::from_secs(report.uptime_seconds as u64));
    lines.push(("mount", format!("{}, write mode {mode}, up {uptime}", report.mountpoint)));
    lines.push(("to upload", to_upload(report)));
    if report.conflicts > 0 {
        lines.push(("conflicts", report.conflicts.to_string()));
    }
    for failed in report.failed.iter().take(FAILED_SHOWN) {
        lines.push(("failed", format!("{}: {} (since {})", safe(&failed.path), safe(&failed.error), failed.since)));
    }
    let more = report.failed_files.saturating_sub(report.failed.len().min(FAILED_SHOWN) as u64);
    if more > 0 {
        lines.push(("failed", format!("… and {more} more")));
    }
    if report.hidden_keys > 0 {
        lines.push(("hidden", format!("{} keys that can't be paths", report.hidden_keys)));
    }
    let (used, limit) = (bytes_text(report.cache_bytes), bytes_text(report.cache_limit_bytes));
    lines.push(("cache", format!("{used} of {limit} in {}", report.cache_dir)));
    lines.push(("requests", requests(report)));
    lines.push(("billed", format!("{} writes, {} reads, {} free", report.billed.writes, report.billed.reads, report.billed.free)));
    lines.extend(report.cost.as_ref().map(|cost| ("cost", dollars(cost))));
    lines.push(("moved", format!("{} up, {} down", bytes_text(report.uploaded_bytes), bytes_text(report.downloaded_bytes))));
    match &report.degraded {
        Some(degraded) => {
            lines.push(("DEGRADED", format!("the bucket doesn't answer since {}: {}", degraded.since, safe(&degraded.error))))
        }
        None => lines.push(("health", "the bucket answers".to_owned())),
    }
    let mut table = String::new();
    for (name, value) in lines {
        // Writing to a String can't fail.
        let _ = writeln!(table, "{name:<10} {value}");
    }
    table
}

fn to_upload(report: &Report) -> String {
    if report.dirty_files == 0 {
        return "nothing: all is in the bucket".to_owned();
    }
    let mut text = format!("{} files, {}", report.dirty_files, bytes_text(report.dirty_bytes));
    if let Some(age) = report.oldest_dirty_seconds {
        let age = humantime::format_duration(Duration::from_secs(age.max(0.0) as u64));
        let _ = write!(text, ", the oldest since {age}");
    }
    let _ = write!(text, "; {} on the way", report.uploading);
    text
}

fn requests(report: &Report) -> String {
    let one = |(name, count): (&String, &u64)| match report.request_failures.get(name) {
        Some(failed) => format!("{name} {count} ({failed} failed)"),
        None => format!("{name} {count}"),
    };
    let all: Vec<String> = report.requests.iter().map(one).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

/// Requests and traffic; what is stored costs beside.
fn dollars(cost: &Cost) -> String {
    let month = match cost.dollars_a_month {
        Some(dollars) => format!(", ${dollars:.2} a month at the rate of the last hour"),
        None => String::new(),
    };
    format!("${:.4} so far{month}, without storage", cost.dollars)
}

/// Names come from other programs: nothing in them may steer the terminal.
fn safe(text: &str) -> String {
    Key::from(text).to_string()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn report() -> Report {
        let json = serde_json::json!({
            "version": "0.1.0", "pid": 1, "bucket": "b", "prefix": "p/", "endpoint": "", "mountpoint": "/m", "cache_dir": "/c",
            "write_mode": "back", "read_only": false, "uptime_seconds": 61.5, "dirty_files": 2, "dirty_bytes": 1536,
            "oldest_dirty_seconds": 3.2, "uploading": 1,
            "failed": [{"path": "a\u{1b}[31m", "error": "403", "since": "2026-01-01T00:00:00Z"}],
            "failed_files": 1, "conflicts": 0, "hidden_keys": 0, "cache_bytes": 0, "cache_limit_bytes": 1024, "damaged_blocks": 0,
            "requests": {"PutObject": 3, "HeadObject": 1}, "request_errors": {"PutObject": 1, "HeadObject": 1}, "request_failures": {"PutObject": 1},
            "uploaded_bytes": 0, "downloaded_bytes": 0, "billed": {"writes": 3, "reads": 1, "free": 0, "sent_bytes": 0},
            "cost": {"prices": {"write": 5.0, "read": 0.4, "sent": 0.0}, "dollars": 0.0000154, "dollars_a_month": 1.234},
            "degraded": null
        });
        serde_json::from_value(json).expect("report")
    }

    #[test]
    fn the_table_says_what_waits_and_what_failed() {
        let table = table(&report());
        for part in [
            "s3://b/p at AWS",
            "2 files, 1.5 KiB, the oldest since 3s; 1 on the way",
            "HeadObject 1, PutObject 3 (1 failed)",
            "up 1m 1s",
            "3 writes, 1 reads, 0 free",
            "$0.0000 so far, $1.23 a month",
            "the bucket answers",
        ] {
            assert!(table.contains(part), "{part} is missing in\n{table}");
        }
        assert!(!table.contains('\u{1b}'), "no escape reaches the terminal");
    }

    #[test]
    fn an_interval_is_a_time_between_a_blink_and_an_hour() {
        assert_eq!(interval("2").ok(), Some(Duration::from_secs(2)));
        assert_eq!(interval("500ms").ok(), Some(Duration::from_millis(500)));
        for text in ["0", "soon", "2h"] {
            assert!(interval(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_report_of_an_older_daemon_is_understood() {
        let mut json = serde_json::to_value(report()).expect("json");
        for name in ["billed", "cost", "request_failures"] {
            json.as_object_mut().expect("object").remove(name);
        }
        let old: Report = serde_json::from_value(json).expect("a report");
        assert!(!table(&old).contains("cost"));
    }

    #[test]
    fn a_clean_mount_says_so() {
        let mut report = report();
        report.dirty_files = 0;
        report.failed.clear();
        report.failed_files = 0;
        assert!(table(&report).contains("all is in the bucket"));
    }
}
