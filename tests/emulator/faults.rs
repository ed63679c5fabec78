//! Each fault, as a client meets it.

use std::time::Duration;

use aws_sdk_s3::error::SdkError;
use mediafs::emulator::{Emulator, Fault, Rule};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{BUCKET, put, refusal, refused, start};

/// One bare request over its own connection; the answer as text, whole or as far as it came.
pub async fn raw(emulator: &Emulator, request_line: &str) -> String {
    let address = emulator.endpoint().strip_prefix("http://").unwrap().to_owned();
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.write_all(format!("{request_line}\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn error_answers() {
    let (emulator, s3) = start().await;
    for (fault, status, code) in [
        (Fault::internal_error(), 500, "InternalError"),
        (Fault::slow_down(), 503, "SlowDown"),
        (Fault::too_many_requests(), 429, "TooManyRequests"),
        (Fault::access_denied(), 403, "AccessDenied"),
    ] {
        emulator.faults().clear();
        emulator.faults().add(Rule::new(fault).operation("PutObject").key("hit/*"));
        // A body that is larger than any socket buffer still gets to read its answer.
        let large = s3.put_object().bucket(BUCKET).key("hit/a").body(vec![0; 20 << 20].into()).send().await;
        assert_eq!(refusal(large), refused(status, code));
        put(&s3, "spared", "x").await;
    }
    assert_eq!(emulator.keys(BUCKET), ["spared"]);
    assert_eq!(emulator.counts()["PutObject"], 8);
}

#[tokio::test]
async fn an_answer_may_say_when_to_come_back() {
    let (emulator, _s3) = start().await;
    emulator.faults().add(Rule::new(Fault::Status { status: 503, code: "SlowDown".into(), retry_after: Some(Duration::from_secs(7)) }));
    let answer = raw(&emulator, "GET /media/a HTTP/1.1").await.to_lowercase();
    assert!(answer.starts_with("http/1.1 503") && answer.contains("retry-after: 7"), "{answer}");
}

#[tokio::test]
async fn a_reset_and_a_lost_reply() {
    let (emulator, s3) = start().await;
    emulator.faults().add(Rule::new(Fault::Reset).key("reset"));
    emulator.faults().add(Rule::new(Fault::LoseReply { reset: true }).key("lost/rst"));
    emulator.faults().add(Rule::new(Fault::LoseReply { reset: false }).key("lost/fin"));
    for key in ["reset", "lost/rst", "lost/fin"] {
        let sent = s3.put_object().bucket(BUCKET).key(key).body(b"x".to_vec().into()).send().await;
        assert!(matches!(sent, Err(SdkError::DispatchFailure(_) | SdkError::ResponseError(_))), "{key}: {sent:?}");
    }
    assert_eq!(emulator.keys(BUCKET), ["lost/fin", "lost/rst"]);
}

#[tokio::test]
async fn a_body_is_cut_at_the_byte() {
    let (emulator, s3) = start().await;
    s3.put_object().bucket(BUCKET).key("a").body(vec![b'x'; 3 << 20].into()).send().await.unwrap();
    for at in [0, 1, 70_000, 2_500_000] {
        emulator.faults().clear();
        emulator.faults().add(Rule::new(Fault::CutBody { at, reset: false }).operation("GetObject"));
        let mut body = s3.get_object().bucket(BUCKET).key("a").send().await.unwrap().body;
        let mut got = 0;
        let end = loop {
            match body.next().await {
                Some(Ok(bytes)) => got += bytes.len() as u64,
                other => break other,
            }
        };
        assert!(matches!(end, Some(Err(_))), "the end must not look like one: {end:?}");
        assert_eq!(got, at);
    }
    emulator.faults().clear();
    emulator.faults().add(Rule::new(Fault::CutBody { at: 2_000_000, reset: true }));
    let reset = s3.get_object().bucket(BUCKET).key("a").send().await;
    // RST may overtake what was sent before it, the headers included.
    if let Ok(answer) = reset {
        assert!(answer.body.collect().await.is_err());
    }
}

#[tokio::test]
async fn a_byte_is_turned_over() {
    let (emulator, s3) = start().await;
    put(&s3, "a", "0123456789").await;
    emulator.faults().add(Rule::new(Fault::FlipByte { at: 3 }).operation("GetObject"));
    let get = |range: Option<&str>| s3.get_object().bucket(BUCKET).key("a").set_range(range.map(str::to_owned)).send();
    let whole = get(None).await.unwrap().body.collect().await.unwrap().to_vec();
    assert_eq!((&whole[..3], whole[3], &whole[4..]), (&b"012"[..], b'3' ^ 0xff, &b"456789"[..]));
    let short = get(Some("bytes=0-1")).await.unwrap().body.collect().await.unwrap().to_vec();
    assert_eq!(short, b"01");
}

#[tokio::test]
async fn hanging_ends_with_the_rule_and_holding_goes_on() {
    let (emulator, s3) = start().await;
    let hang = emulator.faults().add(Rule::new(Fault::Hang).key("hung"));
    let hold = emulator.faults().add(Rule::new(Fault::Hold).key("held"));
    let write = |key: &'static str| tokio::spawn(s3.put_object().bucket(BUCKET).key(key).body(b"x".to_vec().into()).send());
    let (hung, held) = (write("hung"), write("held"));
    emulator.faults().reached(hang, 1).await;
    emulator.faults().reached(hold, 1).await;
    assert!(!hung.is_finished() && !held.is_finished());
    emulator.faults().remove(hold);
    held.await.unwrap().unwrap();
    assert!(!hung.is_finished());
    emulator.faults().remove(hang);
    assert!(hung.await.unwrap().is_err());
    assert_eq!(emulator.keys(BUCKET), ["held"]);
}

#[tokio::test]
async fn latency_delays_and_counts_stop() {
    let (emulator, s3) = start().await;
    let rule = emulator.faults().add(Rule::new(Fault::Latency(Duration::from_millis(60))).times(1));
    let start = tokio::time::Instant::now();
    put(&s3, "a", "x").await;
    assert!(start.elapsed() >= Duration::from_millis(60));
    put(&s3, "a", "x").await;
    assert_eq!(emulator.faults().hits(rule), 1);
}

#[tokio::test]
async fn stopping_releases_what_hangs() {
    let (emulator, s3) = start().await;
    let hang = emulator.faults().add(Rule::new(Fault::Hang));
    let hung = tokio::spawn(s3.head_bucket().bucket(BUCKET).send());
    emulator.faults().reached(hang, 1).await;
    emulator.stop().await;
    assert!(hung.await.unwrap().is_err());
}

#[tokio::test]
async fn a_body_stalls_until_the_fault_is_lifted() {
    let (emulator, s3) = start().await;
    put(&s3, "a", "0123456789").await;
    let rule = emulator.faults().add(Rule::new(Fault::StallBody { at: 4 }).operation("GetObject"));
    let mut body = s3.get_object().bucket(BUCKET).key("a").send().await.unwrap().body;
    assert_eq!(&body.next().await.unwrap().unwrap()[..], b"0123");
    let rest = tokio::spawn(async move { body.next().await });
    tokio::task::yield_now().await;
    assert!(!rest.is_finished());
    emulator.faults().remove(rule);
    assert!(matches!(rest.await.unwrap(), Some(Err(_))));
}

#[tokio::test]
async fn a_clock_that_is_off_refuses_once_and_tells_the_time() {
    let (emulator, s3) = start().await;
    for ahead_seconds in [2_400, -2_400] {
        emulator.faults().clear();
        emulator.faults().add(Rule::new(Fault::Clock { ahead_seconds }));
        let write = || s3.put_object().bucket(BUCKET).key("a").body(b"x".to_vec().into()).send();
        assert_eq!(refusal(write().await), refused(403, "RequestTimeTooSkewed"));
        // The SDK signs the next one by the Date of that answer.
        write().await.unwrap();
        let head = raw(&emulator, "GET / HTTP/1.1").await.to_lowercase();
        assert_eq!(head.matches("\r\ndate: ").count(), 1, "{head}");
    }
}
