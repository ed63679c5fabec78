//! `--metrics ADDRESS`: a page at `/` for people, `/metrics` for Prometheus, `/healthz` for whoever decides what gets traffic.
//!
//! `/healthz` is 200 while the bucket answers and 503 while it doesn't; the mount itself goes on in both. What is served
//! has no secret in it, but tells of names and amounts: nothing listens unless asked, and on loopback only requests to
//! loopback's own names are answered, so that a web page can't have a browser fetch them under a name of its own. Where
//! others may ask, the page is for addresses and names of the inside; numbers and health are for every name.
//!
//! The page has its parts from here alone, and may not load anything else.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::status::Sources;
use super::{exposition, process};
use crate::metrics;

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
    let path = request.uri().path();
    let is_known = match path {
        "/metrics" | "/healthz" => !checked || is_loopback_name(host),
        _ => is_loopback_name(host) || !checked && is_inside_name(host, &process::host_name()),
    };
    if !is_known {
        return text(StatusCode::MISDIRECTED_REQUEST, "ask by the address that --metrics names\n".to_owned());
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned());
    }
    match path {
        "/" => part(include_str!("page/index.html"), "text/html; charset=utf-8"),
        "/page.css" => part(include_str!("page/page.css"), "text/css; charset=utf-8"),
        "/page.js" => part(include_str!("page/page.js"), "text/javascript; charset=utf-8"),
        "/status.json" => part(status(sources), "application/json"),
        "/metrics" => text(StatusCode::OK, exposition::page(&sources.report(), &sources.counts)),
        "/healthz" => {
            let report = sources.report();
            let status = if report.degraded.is_some() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
            text(status, format!("{}\n", report.line()))
        }
        _ => text(StatusCode::NOT_FOUND, "/, /status.json, /metrics and /healthz are here\n".to_owned()),
    }
}

/// What `status --json` shows, and the last hour.
fn status(sources: &Sources) -> String {
    serde_json::json!({ "status": sources.report(), "history": sources.history.series() }).to_string()
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    answer_of(status, text, metrics::CONTENT_TYPE)
}

fn part(text: impl Into<Bytes>, kind: &'static str) -> Response<Full<Bytes>> {
    answer_of(StatusCode::OK, text, kind)
}

fn answer_of(status: StatusCode, body: impl Into<Bytes>, kind: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                  frame-ancestors 'none'";
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, policy),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The name of a Host header, without its port and the brackets of an address.
fn name_of(host: &str) -> &str {
    let name = host.rsplit_once(':').map_or(host, |(name, port)| if port.parse::<u16>().is_ok() { name } else { host });
    name.trim_start_matches('[').trim_end_matches(']')
}

/// An address, this machine's name, or one that nobody can have on the internet: what a stranger's web page isn't called.
fn is_inside_name(host: &str, own: &str) -> bool {
    let name = name_of(host);
    let inside = [".local", ".lan", ".internal", ".home.arpa", ".localhost"].iter().any(|end| name.to_ascii_lowercase().ends_with(end));
    !name.is_empty() && (name.parse::<IpAddr>().is_ok() || !name.contains('.') || name.eq_ignore_ascii_case(own) || inside)
}

/// `localhost`, or an address of loopback; with or without a port.
fn is_loopback_name(host: &str) -> bool {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let name = name_of(host);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
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
    #[test]
    fn where_others_may_ask_the_page_is_for_names_of_the_inside() {
        for own in ["10.0.0.5:9464", "[fd00::1]:9464", "web1:9464", "web1", "web1.example.com", "web1.internal:80", "nas.local"] {
            assert!(is_inside_name(own, "web1.example.com"), "{own}");
        }
        for foreign in ["", "evil.example", "web1.example.com.evil.example:9464", "10.0.0.5.evil.example"] {
            assert!(!is_inside_name(foreign, "web1.example.com"), "{foreign}");
        }
    }

    #[test]
    fn the_page_has_all_its_parts_from_here() {
        let page = [include_str!("page/index.html"), include_str!("page/page.css"), include_str!("page/page.js")].concat();
        for outside in ["https://", "//cdn", "@import", "url(", "innerHTML", "eval(", " style=", "onclick"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert_eq!(page.matches("http://").count(), 1, "the name of SVG's namespace alone");
    }
}
