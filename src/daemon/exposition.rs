//! The numbers of a mount for Prometheus. The names are stable: dashboards and alarms use them.

use super::status::Report;
use crate::metrics::Page;
use crate::store::Operation;
use crate::store::timing::{BOUNDS_MS, Times};
use crate::store::trace::RequestCounts;

const MILLIS: f64 = 1e3;
const MICROS: f64 = 1e6;

pub fn page(report: &Report, counts: &RequestCounts) -> String {
    let mut page = Page::default();
    let labels = [("version", report.version.as_str()), ("bucket", &report.bucket), ("prefix", &report.prefix)];
    page.info("mediafs_info", "What is mounted.", &labels);
    page.gauge("mediafs_uptime_seconds", "Since the mount began.", report.uptime_seconds);
    waiting(&mut page, report);
    requests(&mut page, report, counts);
    page.gauge("mediafs_cache_bytes", "Held in the cache directory.", report.cache_bytes);
    page.gauge("mediafs_cache_limit_bytes", "Most that it may hold.", report.cache_limit_bytes);
    page.counter("mediafs_damaged_blocks_total", "Blocks of the cache that were found damaged and not served.", report.damaged_blocks);
    page.counter("mediafs_damaged_files_total", "Files whose unsent bytes were found damaged.", report.damaged_files);
    page.gauge("mediafs_hidden_keys", "Keys that no path can show.", report.hidden_keys);
    page.gauge("mediafs_names_in_memory", "Files, directories, and names known to be missing.", report.names_in_memory);
    page.into_text()
}

fn waiting(page: &mut Page, report: &Report) {
    page.gauge("mediafs_dirty_files", "Changes that the bucket doesn't have yet.", report.dirty_files);
    page.gauge("mediafs_dirty_bytes", "Bytes of them.", report.dirty_bytes);
    let oldest = report.oldest_dirty_seconds.unwrap_or_default();
    page.gauge("mediafs_oldest_dirty_seconds", "Age of the oldest of them, 0 without any.", oldest);
    page.gauge("mediafs_uploading", "Changes on their way to the bucket.", report.uploading);
    page.gauge("mediafs_failed_files", "Changes that the bucket refuses; status names them.", report.failed_files);
    page.counter("mediafs_conflicts_total", "Files that another host changed too.", report.conflicts);
    page.gauge("mediafs_degraded", "1 while the bucket doesn't answer.", u8::from(report.degraded.is_some()));
    let since = report.degraded.as_ref().map_or(0, |degraded| degraded.unix_seconds());
    page.gauge("mediafs_degraded_since_timestamp_seconds", "Since when, in Unix time; 0 while it answers.", since);
}

fn requests(page: &mut Page, report: &Report, counts: &RequestCounts) {
    fn named(counts: &std::collections::BTreeMap<String, u64>) -> impl Iterator<Item = (&str, u64)> {
        counts.iter().map(|(operation, count)| (operation.as_str(), *count))
    }
    page.counters("mediafs_requests_total", "Requests, repeated attempts included.", "operation", named(&report.requests));
    page.counters("mediafs_request_errors_total", "Failed ones, \"not found\" included.", "operation", named(&report.request_errors));
    let help = "Failed ones without those that only say what the bucket holds.";
    page.counters("mediafs_request_failures_total", help, "operation", named(&report.request_failures));
    let bounds = BOUNDS_MS.map(|millis| millis as f64 / MILLIS);
    let asked = Operation::ALL.into_iter().map(|operation| (operation.name(), counts.times(operation)));
    let asked = asked.filter(|(_, times)| times.total() > 0);
    let series = asked.map(|(name, Times { counts, sum_micros })| (name, counts.to_vec(), sum_micros as f64 / MICROS));
    page.histograms("mediafs_request_duration_seconds", "Time to the head of the answer.", "operation", &bounds, series);
    let billed = [("write", report.billed.writes), ("read", report.billed.reads), ("free", report.billed.free)];
    page.counters("mediafs_billed_requests_total", "Requests by class of the price list.", "class", billed);
    if let Some(cost) = &report.cost {
        page.amount("mediafs_cost_dollars_total", "What requests and traffic cost so far.", cost.dollars);
    }
    page.counter("mediafs_uploaded_bytes_total", "Bytes of objects sent.", report.uploaded_bytes);
    page.counter("mediafs_downloaded_bytes_total", "Bytes of objects received.", report.downloaded_bytes);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::daemon::status::tests::report;
    use crate::daemon::{Cost, Prices};

    fn whole_page() -> String {
        let (mut report, counts) = (report(), RequestCounts::new());
        report.cost = Some(Cost { prices: Prices { write: 5.0, read: 0.4, sent: 0.0 }, dollars: 1.5, dollars_a_month: None });
        counts.count_time(Operation::GetObject, Duration::from_millis(8));
        page(&report, &counts)
    }

    /// Words that begin like a metric of ours.
    fn names(text: &str) -> BTreeSet<String> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let words = text.split(|c: char| !is_part(c)).filter(|word| word.starts_with("mediafs_"));
        words.map(str::to_owned).collect()
    }

    #[test]
    fn dashboard_and_alarms_ask_for_what_there_is() {
        let served = names(&whole_page());
        for file in ["grafana-dashboard.json", "prometheus-alerts.yml"] {
            let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(file)).expect(file);
            let asked = names(&text);
            assert!(asked.len() > 5, "{file} asks for {asked:?}");
            let missing: Vec<_> = asked.difference(&served).collect();
            assert!(missing.is_empty(), "{file} asks for {missing:?}, which nobody serves");
        }
    }

    #[test]
    fn the_readme_names_what_there_is() {
        let served = names(&whole_page());
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("README");
        let missing: Vec<_> = names(&text).difference(&served).cloned().collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn a_request_lies_in_its_bucket_and_all_above() {
        let text = whole_page();
        for line in [
            "mediafs_request_duration_seconds_bucket{operation=\"GetObject\",le=\"0.005\"} 0",
            "mediafs_request_duration_seconds_bucket{operation=\"GetObject\",le=\"0.01\"} 1",
            "mediafs_request_duration_seconds_bucket{operation=\"GetObject\",le=\"+Inf\"} 1",
            "mediafs_request_duration_seconds_sum{operation=\"GetObject\"} 0.008",
            "mediafs_request_duration_seconds_count{operation=\"GetObject\"} 1",
            "mediafs_cost_dollars_total 1.5",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is missing in\n{text}");
        }
    }
}
