//! `--metrics ADDRESS`: `/metrics` for Prometheus, `/healthz` for whoever decides what gets traffic.
//!
//! `/healthz` is 200 while the bucket answers and 503 while it doesn't; the mount itself goes on in both. What is served
//! has no secret in it, but tells of names and amounts: nothing listens unless asked, and on loopback only requests to
//! loopback's own names are answered, so that a web page can't have a browser fetch them under a name of its own.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::status::{Report, Sources};
use crate::metrics::{self, Page};

/// One scraper, one health check and somebody who looks.
const CONNECTIONS: usize = 8;
/// A whole exchange; whoever is slower comes again.
const EXCHANGE: Duration = Duration::from_secs(5);
/// How long accepting rests after it failed, which it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, sources: Arc<Sources>) {
    let checked = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let sources = Arc::clone(&sources);
                tokio::spawn(async move {
                    let _ = timeout(EXCHANGE, exchange(stream, &sources, checked)).await;
                    drop(place);
                });
            }
            Err(error) => {
                debug!(%error, "no connection for metrics");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn exchange(stream: TcpStream, sources: &Sources, checked: bool) {
    let answering = service_fn(|request| async move { Ok::<_, Infallible>(answer(&request, sources, checked)) });
    if let Err(error) = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), answering).await {
        debug!(%error, "a request for metrics broke");
    }
}

fn answer(request: &Request<Incoming>, sources: &Sources, checked: bool) -> Response<Full<Bytes>> {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if checked && !is_loopback_name(host) {
        return text(StatusCode::MISDIRECTED_REQUEST, "ask by the address that --metrics names\n".to_owned());
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned());
    }
    match request.uri().path() {
        "/metrics" => text(StatusCode::OK, page(&sources.report())),
        "/healthz" => {
            let report = sources.report();
            let status = if report.degraded.is_some() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
            text(status, format!("{}\n", report.line()))
        }
        _ => text(StatusCode::NOT_FOUND, "/metrics and /healthz are here\n".to_owned()),
    }
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    response
}

/// `localhost`, or an address of loopback; with or without a port.
fn is_loopback_name(host: &str) -> bool {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let name = host.rsplit_once(':').map_or(host, |(name, port)| if port.parse::<u16>().is_ok() { name } else { host });
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// The names are stable: dashboards and alarms use them.
fn page(report: &Report) -> String {
    let mut page = Page::default();
    let labels = [("version", report.version.as_str()), ("bucket", &report.bucket), ("prefix", &report.prefix)];
    page.info("mediafs_info", "What is mounted.", &labels);
    page.gauge("mediafs_uptime_seconds", "Since the mount began.", report.uptime_seconds);
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
    let requests = report.requests.iter().map(|(operation, count)| (operation.as_str(), *count));
    page.counters("mediafs_requests_total", "Requests, repeated attempts included.", "operation", requests);
    let errors = report.request_errors.iter().map(|(operation, count)| (operation.as_str(), *count));
    page.counters("mediafs_request_errors_total", "Failed ones, \"not found\" included.", "operation", errors);
    page.counter("mediafs_uploaded_bytes_total", "Bytes of objects sent.", report.uploaded_bytes);
    page.counter("mediafs_downloaded_bytes_total", "Bytes of objects received.", report.downloaded_bytes);
    page.gauge("mediafs_cache_bytes", "Held in the cache directory.", report.cache_bytes);
    page.gauge("mediafs_cache_limit_bytes", "Most that it may hold.", report.cache_limit_bytes);
    page.counter("mediafs_damaged_blocks_total", "Blocks of the cache that were found damaged and not served.", report.damaged_blocks);
    page.gauge("mediafs_hidden_keys", "Keys that no path can show.", report.hidden_keys);
    page.into_text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_another_name_is_not_answered() {
        for own in ["localhost", "LOCALHOST:9464", "127.0.0.1", "127.0.0.1:9464", "[::1]:9464", "[::1]"] {
            assert!(is_loopback_name(own), "{own}");
        }
        for foreign in ["", "evil.example", "127.0.0.1.evil.example:80", "localhost.evil.example", "10.0.0.1:9464", "localhost:x"] {
            assert!(!is_loopback_name(foreign), "{foreign}");
        }
    }
}
