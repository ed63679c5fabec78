//! HTTP: connections, and what surrounds the S3 service on each request: counting, faults, R2's refusals.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::body::Incoming;
use hyper::header::RETRY_AFTER;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use parking_lot::Mutex;
use s3s::service::S3Service;
use s3s::{Body, S3Error, S3Result, s3_error};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber;

use super::clock;
use super::connection::{Damage, DamagedBody, RequestBody, Socket, Switch};
use super::faults::{Fault, Faults};
use super::lies;
use super::operation::Target;
use super::r2;

/// Requests under way at `stop` get this long.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// How long accepting rests after it failed, which it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What all connections share.
pub struct Server {
    pub service: S3Service,
    pub faults: Arc<Faults>,
    pub counts: Mutex<BTreeMap<String, u64>>,
    pub r2: bool,
    /// The one region that signatures may name; None takes any.
    pub region: Option<String>,
}

/// Takes connections until `stop` says so; then lets the requests under way finish.
pub async fn serve(server: Arc<Server>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let watcher = graceful.watcher();
                    let server = server.clone();
                    connections.spawn(async move { connection(server, stream, watcher).await });
                }
                Err(error) => {
                    tracing::warn!("emulator: accept: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            _ = stop.changed() => break,
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    // Hanging and held requests hang on their rules.
    server.faults.clear();
    let _ = tokio::time::timeout(STOP_PATIENCE, graceful.shutdown()).await;
    connections.shutdown().await;
}

async fn connection(server: Arc<Server>, stream: TcpStream, watcher: hyper_util::server::graceful::Watcher) {
    // Small answers must not wait for the client's acknowledgement.
    let _ = stream.set_nodelay(true);
    let switch = Arc::new(Switch::default());
    let io = TokioIo::new(Socket::new(stream, switch.clone()));
    let shared = switch.clone();
    let service = service_fn(move |request| answer(server.clone(), shared.clone(), request));
    let connection = http1::Builder::new().serve_connection(io, service);
    tokio::select! {
        _ = watcher.watch(connection) => {}
        () = switch.pulled() => {}
    }
}

/// One request from counting to the answer.
async fn answer(server: Arc<Server>, switch: Arc<Switch>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let target = Target::of(request.method(), request.uri(), request.headers());
    *server.counts.lock().entry(target.operation.to_owned()).or_default() += 1;
    let verdict = server.faults.judge(&target);
    if !verdict.latency.is_zero() {
        tokio::time::sleep(verdict.latency).await;
    }
    let Some((rule, fault)) = verdict.fault else { return Ok(respond(&server, &target, request).await) };
    Ok(match fault {
        // A latency is never the one other fault.
        Fault::Latency(_) => respond(&server, &target, request).await,
        Fault::Hold => {
            server.faults.removed(rule).await;
            respond(&server, &target, request).await
        }
        Fault::Hang => {
            server.faults.removed(rule).await;
            broken(&switch, true).await
        }
        Fault::Reset => broken(&switch, true).await,
        Fault::Status { status, code, retry_after } => {
            RequestBody::new(request.into_body()).drain().await;
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut response = refuse(r2::error(&code, status, "A fault was asked for"));
            if let Some(time) = retry_after {
                response.headers_mut().insert(RETRY_AFTER, time.as_secs().into());
            }
            response
        }
        Fault::LoseReply { reset } => {
            respond(&server, &target, request).await;
            broken(&switch, reset).await
        }
        Fault::CutBody { at, reset } => damaged(respond(&server, &target, request).await, Damage::Cut { at, reset, switch }),
        Fault::StallBody { at } => {
            let faults = server.faults.clone();
            let lifted = async move { faults.removed(rule).await };
            damaged(respond(&server, &target, request).await, Damage::Stall { at, lifted: Box::pin(lifted), switch })
        }
        Fault::Clock { ahead_seconds } => clock::answer(&server, &target, request, ahead_seconds).await,
        Fault::Lie(lie) => {
            let uri = request.uri().clone();
            lies::tell(lie, &uri, respond(&server, &target, request).await).await
        }
        Fault::FlipByte { at } => damaged(respond(&server, &target, request).await, Damage::Flip { at }),
    })
}

/// Never answers: the connection's task drops this with the connection.
async fn broken(switch: &Switch, reset: bool) -> Response<Body> {
    switch.pull(reset);
    std::future::pending().await
}

fn damaged(response: Response<Body>, damage: Damage) -> Response<Body> {
    response.map(|body| Body::http_body(DamagedBody::new(body, damage)))
}

/// The honest answer, after the request's body has been read to its end.
async fn respond(server: &Server, target: &Target, request: Request<Incoming>) -> Response<Body> {
    respond_at(server, target, request, crate::clock::now()).await
}

/// The same at another time by the store's clock.
pub(super) async fn respond_at(server: &Server, target: &Target, request: Request<Incoming>, now: SystemTime) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = RequestBody::new(body);
    let response = match clock::check(&head.headers, now).and_then(|()| admit(server, target, &head.uri, &head.headers)) {
        Err(error) => refuse(error),
        Ok(()) => {
            let request = Request::from_parts(head, Body::http_body(body.clone()));
            // The S3 crate logs every refusal as an error, and a missing object is none: the client says what matters.
            let answered = server.service.call(request).with_subscriber(Dispatch::none()).await;
            answered.unwrap_or_else(|error| refuse(s3_error!(InternalError, "{error:?}")))
        }
    };
    body.drain().await;
    response
}

fn refuse(error: S3Error) -> Response<Body> {
    error.to_http_response().unwrap_or_else(|_| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

fn admit(server: &Server, target: &Target, uri: &Uri, headers: &HeaderMap) -> S3Result<()> {
    let region = signed_region(uri, headers);
    if server.r2 {
        r2::check_region(region.as_deref().unwrap_or_default())?;
        return r2::check_request(target, headers);
    }
    match (region, &server.region) {
        (Some(region), Some(expected)) if region != *expected => Err(wrong_region(&region, expected)),
        _ => Ok(()),
    }
}

fn wrong_region(region: &str, expected: &str) -> S3Error {
    let text = "The authorization header is malformed; the region";
    let mut error = s3_error!(AuthorizationHeaderMalformed, "{text} '{region}' is wrong; expecting '{expected}'");
    if let Ok(value) = expected.parse() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-bucket-region", value);
        error.set_headers(headers);
    }
    error
}

/// The region in the credential's scope, `KEY/DATE/REGION/s3/aws4_request`, of a header or a presigned URL.
fn signed_region(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let from_header = || {
        let header = headers.get("authorization")?.to_str().ok()?;
        header.split_once("Credential=").map(|(_, rest)| rest.split(',').next().unwrap_or_default().to_owned())
    };
    let from_query = || {
        let pair = uri.query()?.split('&').find_map(|pair| pair.strip_prefix("X-Amz-Credential="))?;
        Some(percent_encoding::percent_decode_str(pair).decode_utf8_lossy().into_owned())
    };
    let scope = from_header().or_else(from_query)?;
    scope.rsplit('/').nth(2).map(str::to_owned)
}
