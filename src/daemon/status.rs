//! What `status` shows: one report of the whole mount, as JSON on the attribute `user.mediafs.status` of its root.
//!
//! The names are stable: other programs read them. No secret is in it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::cost::{Billed, Cost, Prices};
use super::history::History;
use super::settings::Settings;
use crate::cache::Cache;
use crate::fs::{Fs, WriteMode};
use crate::store::s3::S3Store;
use crate::store::trace::RequestCounts;
use crate::types::Live;
use crate::writer::{Failed, Writer};

/// Where the status of a mount is read.
pub const STATUS_ATTRIBUTE: &str = "user.mediafs.status";

/// An extended attribute has at most 64 KiB; quoting may double what is listed of the failed files.
const FAILED_BYTES: usize = 24 << 10;
/// Of one of them: names of fields, time, punctuation.
const FAILED_OVERHEAD_BYTES: usize = 80;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub version: String,
    pub pid: u32,
    pub bucket: String,
    pub prefix: String,
    /// Empty for AWS.
    pub endpoint: String,
    pub mountpoint: String,
    pub cache_dir: String,
    /// `back` or `through`.
    pub write_mode: String,
    pub read_only: bool,
    pub uptime_seconds: f64,
    /// Files and bytes that the bucket doesn't have yet.
    pub dirty_files: u64,
    pub dirty_bytes: u64,
    /// Age of the oldest of them.
    pub oldest_dirty_seconds: Option<f64>,
    pub uploading: u64,
    /// As many as have room; `failed_files` counts all.
    pub failed: Vec<FailedFile>,
    pub failed_files: u64,
    pub conflicts: u64,
    /// Keys that no path can show.
    pub hidden_keys: u64,
    /// Of files, directories, and what is known to be missing.
    #[serde(default)]
    pub names_in_memory: u64,
    pub cache_bytes: u64,
    pub cache_limit_bytes: u64,
    /// Times since the mount began that cached bytes were found damaged, and were fetched anew.
    pub damaged_blocks: u64,
    /// Files whose unsent bytes were found damaged since the mount began.
    #[serde(default)]
    pub damaged_files: u64,
    /// Files that crashes of the machine have torn, kept in the folder `damaged` of the cache directory.
    #[serde(default)]
    pub damaged_kept: u64,
    /// By S3 operation, since the mount began; repeated attempts included.
    pub requests: BTreeMap<String, u64>,
    pub request_errors: BTreeMap<String, u64>,
    pub uploaded_bytes: u64,
    pub downloaded_bytes: u64,
    /// Without those that only say what the bucket holds.
    #[serde(default)]
    pub request_failures: BTreeMap<String, u64>,
    /// The same requests by class of the price list.
    #[serde(default)]
    pub billed: Billed,
    /// None where the store's prices aren't known; see `[prices]`.
    #[serde(default)]
    pub cost: Option<Cost>,
    /// None as long as the bucket answers.
    pub degraded: Option<Degraded>,
}

/// A file that won't go up unless somebody does something.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FailedFile {
    pub path: String,
    pub error: String,
    /// RFC 3339, UTC.
    pub since: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Degraded {
    /// RFC 3339, UTC.
    pub since: String,
    pub error: String,
}

/// Everything that a report is made from.
pub struct Sources {
    pub settings: Live<Settings>,
    pub fs: Arc<Fs>,
    pub writer: Arc<Writer>,
    pub cache: Arc<Cache>,
    pub counts: RequestCounts,
    /// Whose credentials can be read again.
    pub s3: Arc<S3Store>,
    pub history: History,
    pub started: Instant,
}

impl Sources {
    pub fn report(&self) -> Report {
        let (settings, backlog, usage, damage) = (&*self.settings, self.writer.backlog(), self.cache.usage(), self.cache.damage());
        let named = |counts: BTreeMap<&'static str, u64>| counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        let degraded = self.fs.degraded().or(backlog.degraded);
        let billed = Billed::of(&self.counts);
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            bucket: settings.bucket.clone(),
            prefix: settings.prefix.clone(),
            endpoint: settings.endpoint_url.clone().unwrap_or_default(),
            mountpoint: settings.mountpoint.display().to_string(),
            cache_dir: settings.cache_dir.display().to_string(),
            write_mode: match settings.write_mode {
                WriteMode::Back => "back".to_owned(),
                WriteMode::Through => "through".to_owned(),
            },
            read_only: settings.read_only,
            uptime_seconds: rounded(self.started.elapsed()),
            dirty_files: backlog.dirty_files,
            dirty_bytes: backlog.dirty_bytes,
            oldest_dirty_seconds: backlog.oldest_seconds,
            uploading: backlog.uploading,
            failed_files: backlog.failed.len() as u64,
            failed: shown(backlog.failed),
            conflicts: backlog.conflicts,
            hidden_keys: self.fs.hidden_keys() as u64,
            names_in_memory: self.fs.names_in_memory() as u64,
            cache_bytes: usage.bytes,
            cache_limit_bytes: usage.limit_bytes,
            damaged_blocks: damage.refetched,
            damaged_files: damage.unsent_files,
            damaged_kept: damage.kept_files,
            requests: named(self.counts.snapshot()),
            request_errors: named(self.counts.errors()),
            uploaded_bytes: self.counts.bytes_up(),
            downloaded_bytes: self.counts.bytes_down(),
            request_failures: named(self.counts.failures()),
            cost: settings.prices.map(|prices| self.cost(&billed, prices)),
            billed,
            degraded: degraded.map(|(since, error)| Degraded { since: rfc3339(since), error }),
        }
    }
}

impl Sources {
    fn cost(&self, billed: &Billed, prices: Prices) -> Cost {
        let month = self.history.months(billed).map(|(lately, times)| lately.dollars(&prices) * times);
        Cost { prices, dollars: billed.dollars(&prices), dollars_a_month: month }
    }
}

impl Degraded {
    /// 0 where `since` is no time.
    pub fn unix_seconds(&self) -> u64 {
        let since = humantime::parse_rfc3339(&self.since).ok();
        since.and_then(|since| since.duration_since(SystemTime::UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs())
    }
}

/// As many as fit.
fn shown(failed: Vec<Failed>) -> Vec<FailedFile> {
    let mut room = FAILED_BYTES;
    let fits = move |failed: &Failed| {
        let bytes = failed.path.len() + failed.error.len() + FAILED_OVERHEAD_BYTES;
        room.checked_sub(bytes).map(|left| room = left).is_some()
    };
    let files = failed.into_iter().take_while(fits);
    files.map(|failed| FailedFile { path: failed.path, error: failed.error, since: rfc3339(failed.since) }).collect()
}

impl Report {
    /// One line for `systemctl status` and the log.
    pub fn line(&self) -> String {
        let waiting = match self.dirty_files {
            0 => "all is in the bucket".to_owned(),
            files => format!("{files} files ({}) to upload", bytes_text(self.dirty_bytes)),
        };
        let failed = if self.failed_files == 0 { String::new() } else { format!(", {} failed", self.failed_files) };
        let degraded = if self.degraded.is_some() { "; the bucket doesn't answer" } else { "" };
        format!("{waiting}{failed}{degraded}")
    }
}

/// `12.3 MiB`.
pub fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{amount:.1} {}", UNITS[unit]) }
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// To the tenth of a second.
fn rounded(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Of a mount that has just begun.
    pub fn report() -> Report {
        Report {
            version: String::new(),
            pid: 1,
            bucket: "b".into(),
            prefix: String::new(),
            endpoint: String::new(),
            mountpoint: "/m".into(),
            cache_dir: "/c".into(),
            write_mode: "back".into(),
            read_only: false,
            uptime_seconds: 0.0,
            dirty_files: 0,
            dirty_bytes: 0,
            oldest_dirty_seconds: None,
            uploading: 0,
            failed: Vec::new(),
            failed_files: 0,
            conflicts: 0,
            hidden_keys: 0,
            names_in_memory: 1,
            cache_bytes: 0,
            cache_limit_bytes: 1,
            damaged_blocks: 0,
            damaged_files: 0,
            damaged_kept: 0,
            requests: BTreeMap::new(),
            request_errors: BTreeMap::new(),
            uploaded_bytes: 0,
            downloaded_bytes: 0,
            request_failures: BTreeMap::new(),
            billed: Billed::default(),
            cost: None,
            degraded: None,
        }
    }

    #[test]
    fn amounts_are_for_people() {
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (10 << 30, "10.0 GiB"), (5 << 50, "5120.0 TiB")] {
            assert_eq!(bytes_text(bytes), text);
        }
    }

    #[test]
    fn a_report_of_many_failures_fits_into_an_attribute() {
        let one = |number: usize| Failed {
            path: format!("{}{number:06}", "\"".repeat(1_000)),
            error: "PutObject: \"AccessDenied\"".repeat(10),
            since: SystemTime::UNIX_EPOCH,
        };
        let few = shown((0..3).map(one).collect());
        assert_eq!(few.len(), 3);
        let many = shown((0..100_000).map(one).collect());
        let bytes = serde_json::to_string(&many).expect("json").len();
        assert!(many.len() > 10 && bytes < 60 << 10, "{} take {bytes} bytes", many.len());
    }

    #[test]
    fn the_line_says_what_matters() {
        let mut report = report();
        assert_eq!(report.line(), "all is in the bucket");
        report.dirty_files = 3;
        report.dirty_bytes = 2048;
        report.failed.push(FailedFile { path: "a".into(), error: "403".into(), since: String::new() });
        report.failed_files = 1;
        report.degraded = Some(Degraded { since: String::new(), error: String::new() });
        assert_eq!(report.line(), "3 files (2.0 KiB) to upload, 1 failed; the bucket doesn't answer");
        let json = serde_json::to_value(&report).expect("json");
        for name in [
            "bucket",
            "prefix",
            "dirty_files",
            "dirty_bytes",
            "uploading",
            "failed",
            "conflicts",
            "cache_bytes",
            "cache_limit_bytes",
            "requests",
            "degraded",
        ] {
            assert!(json.get(name).is_some(), "{name}");
        }
    }
}
