//! From the endpoint's name to an answer in HTTP: DNS, TCP, TLS, clock, and whether it is the right endpoint at all.
//!
//! Must not: sign anything. Nobody needs to trust the other side yet.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::STEP_TIME;
use super::cause::{About, cause, certificate};
use super::report::{Sheet, Step};
use super::scratch::within;
use crate::store::s3::{BareAnswer, S3Config, fetch};

/// S3 refuses requests that are signed a quarter of an hour off; a clock that is this far off is on its way there.
const CLOCK_OFF_SECONDS: u64 = 5 * 60;

/// All that needs the network.
pub const STEPS: [Step; 5] = [Step::Dns, Step::Tcp, Step::Tls, Step::Clock, Step::Endpoint];

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    url: String,
    host: String,
    port: u16,
    tls: bool,
}

impl Place {
    /// The endpoint's, or AWS's own in this region.
    fn of(about: &About) -> Self {
        let url = match about.endpoint.contains("://") {
            true => about.endpoint.clone(),
            false => {
                let end = if about.region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
                format!("https://s3.{}.{end}", about.region)
            }
        };
        let tls = url.starts_with("https://");
        let authority = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest).split('/').next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
            _ => (authority, None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        Self { host, port: port.unwrap_or(if tls { 443 } else { 80 }), tls, url }
    }

    fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    fn is_local(&self) -> bool {
        self.host == "localhost" || self.host.ends_with(".localhost") || self.address().is_some_and(|address| address.is_loopback())
    }

    /// The region in one of AWS's own names.
    fn region_in_name(&self) -> Option<&str> {
        let name = self.host.strip_suffix(".amazonaws.com").or_else(|| self.host.strip_suffix(".amazonaws.com.cn"))?;
        let region = name.rsplit_once("s3.").or_else(|| name.rsplit_once("s3-"))?.1;
        let region = region.trim_start_matches("dualstack.");
        (region.matches('-').count() >= 2).then_some(region)
    }
}

/// True where an S3 request has a chance.
pub async fn examine(config: &S3Config, about: &About, sheet: &mut Sheet<'_>) -> bool {
    let place = Place::of(about);
    let done = reach(config, about, &place, sheet).await;
    if done.is_none() {
        sheet.skip_rest(&STEPS, "there is no connection");
    }
    done.is_some()
}

async fn reach(config: &S3Config, about: &About, place: &Place, sheet: &mut Sheet<'_>) -> Option<()> {
    let addresses = resolve(place, sheet).await?;
    connect(place, &addresses, sheet).await?;
    let url = format!("{}/{}", place.url, about.bucket);
    let answer = within(fetch(config, &url, true, None)).await;
    match answer {
        Ok(answer) => {
            transport(place, sheet);
            clock(&answer, sheet);
            endpoint(&answer, place, about, sheet)
        }
        Err(error) if error.message.starts_with("TLS: ") => {
            sheet.fail(Step::Tls, &error.message, certificate(&error.message));
            None
        }
        // Certificates are read before the first byte goes out.
        Err(error) if error.message.starts_with("--ca-file") => {
            sheet.fail(Step::Tls, &error.message, "give --ca-file a file of PEM certificates that this user may read");
            None
        }
        Err(error) => {
            let found = cause(Step::Endpoint, &error, about);
            sheet.fail(Step::Endpoint, found.what, found.fix);
            None
        }
    }
}

async fn resolve(place: &Place, sheet: &mut Sheet<'_>) -> Option<Vec<SocketAddr>> {
    if let Some(address) = place.address() {
        sheet.skip(Step::Dns, format!("{address} is an address, no name"));
        return Some(vec![SocketAddr::new(address, place.port)]);
    }
    let found = timeout(STEP_TIME, lookup_host((place.host.as_str(), place.port))).await;
    let failed = match found {
        Ok(Ok(addresses)) => {
            let addresses: Vec<_> = addresses.collect();
            if let Some(first) = addresses.first() {
                sheet.pass(Step::Dns, format!("{} is {} ({} addresses)", place.host, first.ip(), addresses.len()));
                return Some(addresses);
            }
            "it has no address".to_owned()
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} seconds", STEP_TIME.as_secs()),
    };
    let fix = "check the host in --endpoint-url for a typing error, and this machine's name server (/etc/resolv.conf)";
    sheet.fail(Step::Dns, format!("the name {} can't be resolved: {failed}", place.host), fix);
    None
}

async fn connect(place: &Place, addresses: &[SocketAddr], sheet: &mut Sheet<'_>) -> Option<()> {
    let at_most = STEP_TIME / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for address in addresses {
        let connected = timeout(at_most.max(Duration::from_secs(1)), TcpStream::connect(address)).await;
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(_) => {
                sheet.pass(Step::Tcp, format!("{address} takes connections"));
                return Some(());
            }
            Err(error) => last = error,
        }
    }
    let Place { host, port, .. } = place;
    let (what, fix) = match last.kind() {
        io::ErrorKind::ConnectionRefused => (
            format!("{host} refuses connections on port {port}: nothing listens there"),
            "check the port in --endpoint-url, and that the store is running",
        ),
        io::ErrorKind::TimedOut => (
            format!("{host} does not answer on port {port}"),
            "check the port in --endpoint-url, and firewalls and security groups on the way (outgoing TCP to that port)",
        ),
        _ => (format!("no connection to {host} on port {port}: {last}"), "check this machine's network and routes, and --endpoint-url"),
    };
    sheet.fail(Step::Tcp, what, fix);
    None
}

fn transport(place: &Place, sheet: &mut Sheet<'_>) {
    match (place.tls, place.is_local()) {
        (true, _) => sheet.pass(Step::Tls, "the certificate is trusted and names this host"),
        (false, true) => sheet.skip(Step::Tls, "plain HTTP, within this machine"),
        (false, false) => {
            let what = "plain HTTP: whoever is on the way can read and change the files";
            sheet.warn(Step::Tls, what, "use https:// in --endpoint-url where the network is not yours");
        }
    }
}

fn clock(answer: &BareAnswer, sheet: &mut Sheet<'_>) {
    let Some(ahead) = answer.ahead_seconds else {
        return sheet.skip(Step::Clock, "the answer has no Date");
    };
    let apart = humantime::format_duration(Duration::from_secs(ahead.unsigned_abs()));
    let word = if ahead < 0 { "ahead of" } else { "behind" };
    if ahead.unsigned_abs() < CLOCK_OFF_SECONDS {
        return sheet.pass(
            Step::Clock,
            format!("agrees with the store's (to within {})", if ahead == 0 { "1s".to_owned() } else { apart.to_string() }),
        );
    }
    let what = format!("this machine's clock is {apart} {word} the store's; S3 refuses requests that are 15 minutes off");
    sheet.fail(Step::Clock, what, "set the clock and keep it set: timedatectl set-ntp true (or chrony)");
}

/// What of the answer, of the endpoint's name and of the settings does not go together.
fn endpoint(answer: &BareAnswer, place: &Place, about: &About, sheet: &mut Sheet<'_>) -> Option<()> {
    let found = mismatch(answer, place, about);
    match &found {
        Some((what, fix)) => sheet.fail(Step::Endpoint, what, fix),
        None => {
            let server = answer.server.as_ref().map_or(String::new(), |server| format!(", {server}"));
            sheet.pass(Step::Endpoint, format!("{} (region {}{server})", place.url, about.region));
        }
    }
    // A page is no store, whatever is asked of it; the rest the store itself will say.
    (found.is_none() || !is_page(answer)).then_some(())
}

fn is_page(answer: &BareAnswer) -> bool {
    answer.content_type.as_deref().is_some_and(|kind| kind.starts_with("text/html"))
}

fn mismatch(answer: &BareAnswer, place: &Place, about: &About) -> Option<(String, String)> {
    let About { bucket, region, r2, .. } = about;
    let begins = format!("{}.", bucket.to_ascii_lowercase());
    if let Some(right) = answer.region.as_ref().filter(|right| *right != region) {
        return Some((format!("bucket {bucket:?} is in region {right:?}, not in {region:?}"), format!("give --region {right}")));
    }
    if let Some(named) = place.region_in_name().filter(|named| named != region) {
        let what = format!("the endpoint {} is of region {named:?}, requests are signed for {region:?}", place.url);
        return Some((what, format!("give --region {named}, or leave --endpoint-url out")));
    }
    if place.address().is_none() && place.host.starts_with(&begins) {
        let fix = format!("leave the bucket's name out of --endpoint-url: {}", place.url.replacen(&begins, "", 1));
        return Some((format!("the bucket's name is in the endpoint {}, and is added again to each request", place.url), fix));
    }
    if *r2 && !matches!(region.as_str(), "auto" | "us-east-1") {
        return Some((format!("R2 has no region {region:?}"), "leave --region out, or give --region auto".to_owned()));
    }
    if is_page(answer) {
        let what = format!("{} answers with a web page (status {}), not with S3", place.url, answer.status);
        return Some((what, "give the URL of the S3 API in --endpoint-url, not a console's, a web site's or a CDN's".to_owned()));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(endpoint: &str, region: &str, r2: bool) -> About {
        About { bucket: "media".into(), prefix: String::new(), endpoint: endpoint.into(), region: region.into(), r2 }
    }

    #[test]
    fn places() {
        let place = |endpoint: &str| Place::of(&about(endpoint, "eu-west-1", false));
        let aws = place("AWS in eu-west-1");
        assert_eq!(
            (aws.host.as_str(), aws.port, aws.tls, aws.region_in_name()),
            ("s3.eu-west-1.amazonaws.com", 443, true, Some("eu-west-1"))
        );
        let local = place("http://[::1]:9000/path");
        assert_eq!((local.host.as_str(), local.port, local.tls, local.is_local()), ("::1", 9000, false, true));
        assert_eq!(place("https://s3.dualstack.us-west-2.amazonaws.com").region_in_name(), Some("us-west-2"));
        assert_eq!(place("https://s3.example.com:8443").region_in_name(), None);
        assert!(!place("http://minio.lan").is_local());
    }

    #[test]
    fn what_does_not_go_together_is_told() {
        let page = BareAnswer { content_type: Some("text/html; charset=utf-8".into()), status: 200, ..BareAnswer::default() };
        let elsewhere = BareAnswer { region: Some("eu-central-1".into()), status: 301, ..BareAnswer::default() };
        let plain = BareAnswer { status: 403, ..BareAnswer::default() };
        for (answer, endpoint, region, r2, what, fix) in [
            (&elsewhere, "AWS", "us-east-1", false, "is in region \"eu-central-1\"", "--region eu-central-1"),
            (&plain, "https://s3.eu-west-1.amazonaws.com", "us-east-1", false, "of region \"eu-west-1\"", "--region eu-west-1"),
            (&plain, "https://media.s3.example.com", "x", false, "the bucket's name is in the endpoint", "https://s3.example.com"),
            (&plain, "https://1.r2.cloudflarestorage.com", "eu-west-1", true, "R2 has no region", "--region auto"),
            (&page, "https://console.example.com", "x", false, "web page", "S3 API"),
        ] {
            let about = about(endpoint, region, r2);
            let (found, advice) = mismatch(answer, &Place::of(&about), &about).expect(what);
            assert!(found.contains(what) && advice.contains(fix), "{found} / {advice}");
        }
        let about = about("http://127.0.0.1:9000", "us-east-1", false);
        assert_eq!(mismatch(&plain, &Place::of(&about), &about), None);
    }

    #[test]
    fn a_clock_that_is_off_is_a_failure() {
        for (ahead, failed) in [(Some(2), false), (Some(-299), false), (Some(2_400), true), (Some(-2_400), true), (None, false)] {
            let mut tell = |_: &_| {};
            let mut sheet = Sheet::new(&mut tell);
            clock(&BareAnswer { ahead_seconds: ahead, ..BareAnswer::default() }, &mut sheet);
            assert_eq!(!sheet.findings[0].fix.is_empty(), failed, "{ahead:?}");
        }
    }
}
