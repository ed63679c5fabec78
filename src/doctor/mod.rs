//! Whether a mount of a bucket would work, and if not, why not and what to change: step by step, before anything is mounted.
//!
//! - `step`, `report`: steps, findings, their text and JSON. `cause`: from a store's error to cause and fix. `grant`: the least
//!   rights. All pure.
//! - `network`, `rights`, `behaviour`: what is asked of the store. `scratch`: the throw-away keys that it takes.
//! - `machine`, `disk`: what is read of this machine, and, apart from that, what is to be thought of it.
//!
//! Invariants:
//! - Every step is reported once: passed, failed, a warning, or skipped with the reason. None counts as passed that was
//!   not tried.
//! - In the bucket nothing is touched but keys below one random name; they are taken away at the end, an interrupted
//!   one too, and what can't be is named.
//! - In the cache directory nothing is changed. Each step has a deadline. No secret is shown.
//!
//! Must not: know where the settings came from, or write to a terminal.

mod behaviour;
mod cause;
mod disk;
mod grant;
mod machine;
mod network;
mod report;
mod rights;
mod scratch;
mod step;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use cause::{About, cause};
use report::Sheet;
use scratch::Scratch;

pub use grant::Grant;
pub use machine::Places;
pub use report::{Finding, Outcome, Report};
pub use step::Step;

use crate::clock;
use crate::daemon::{Settings, floor_bytes, store_config};
use crate::store::Store;
use crate::store::prefix::PrefixStore;
use crate::store::s3::{self, S3Config, credentials_origin};
use crate::store::trace::RequestCounts;

/// The most that one step may take.
const STEP_TIME: Duration = Duration::from_secs(10);
/// Credentials that end within this time end while the mount is young.
const SOON: Duration = Duration::from_secs(3600);

/// Looks at everything that a mount of `settings` needs. `tell` hears of each finding at once; `stop` ends the
/// examination early, and what it has made in the bucket is still taken away.
pub async fn examine(
    settings: &Settings,
    places: &Places,
    tell: &mut (dyn FnMut(&Finding) + Send),
    stop: impl Future<Output = ()>,
) -> Report {
    let mut sheet = Sheet::new(tell);
    let bench = Bench::set_up(settings).await;
    let interrupted = tokio::select! {
        biased;
        () = stop => true,
        () = steps(&bench, settings, places, &mut sheet) => false,
    };
    let mut left_behind = Vec::new();
    if let Some(scratch) = &bench.scratch {
        if scratch.has_made_any() {
            rights::clean(scratch, &bench.about, &mut sheet).await;
        }
        left_behind = scratch.left();
    }
    sheet.skip_rest(&Step::ALL, if interrupted { "interrupted" } else { "the bucket can't be asked" });
    let About { bucket, prefix, region, r2, .. } = &bench.about;
    Report {
        source: settings.source.clone(),
        endpoint: bench.about.endpoint.clone(),
        grant: Grant::new(bucket, prefix, region, *r2, settings.read_only),
        findings: sheet.findings,
        left_behind,
    }
}

/// What the steps work on.
struct Bench {
    config: S3Config,
    about: About,
    /// None: the configuration can't be used, and why.
    scratch: Option<Scratch>,
    error: Option<crate::store::StoreError>,
}

impl Bench {
    /// Makes the client; no request goes to the bucket.
    async fn set_up(settings: &Settings) -> Self {
        let config = S3Config { attempt_timeout: STEP_TIME, ..store_config(settings, &RequestCounts::new()) };
        let given = settings.endpoint_url.clone().unwrap_or_else(|| "AWS".to_owned());
        let mut about = About {
            bucket: settings.bucket.clone(),
            prefix: settings.prefix.clone(),
            endpoint: given,
            region: settings.region.clone().unwrap_or_else(|| "us-east-1".to_owned()),
            r2: settings.r2,
        };
        match scratch::within(s3::connect(config.clone())).await {
            Ok(store) => {
                store.endpoint().clone_into(&mut about.endpoint);
                store.region().clone_into(&mut about.region);
                let store: Store = Arc::new(PrefixStore::new(Arc::new(store), &settings.prefix));
                Self { config, scratch: Some(Scratch::new(store, settings.r2)), about, error: None }
            }
            Err(error) => Self { config, scratch: None, about, error: Some(error) },
        }
    }
}

async fn steps(bench: &Bench, settings: &Settings, places: &Places, sheet: &mut Sheet<'_>) {
    let reached = network::examine(&bench.config, &bench.about, sheet).await;
    let known = credentials(bench, sheet).await;
    match (&bench.scratch, reached, known) {
        (Some(scratch), true, true) => remote(bench, scratch, settings, places, sheet).await,
        (Some(_), false, _) => sheet.skip_rest(&rights::STEPS, "the store can't be reached"),
        (Some(_), true, false) => sheet.skip_rest(&rights::STEPS, "there are no credentials to ask with"),
        (None, ..) => {
            if let Some(error) = &bench.error {
                let found = cause(Step::Bucket, error, &bench.about);
                sheet.fail(Step::Bucket, found.what, found.fix);
            }
        }
    }
    sheet.skip_rest(&[Step::PublicUrl, Step::Cors], "it is tried with an object of ours");
    local(settings, places, sheet).await;
}

async fn remote(bench: &Bench, scratch: &Scratch, settings: &Settings, places: &Places, sheet: &mut Sheet<'_>) {
    let about = &bench.about;
    let Some(listed) = rights::bucket(scratch, about, sheet).await else { return };
    if settings.read_only {
        return rights::read_only(scratch, listed.as_ref(), about, sheet).await;
    }
    let written = rights::examine(scratch, listed.as_ref(), about, sheet).await;
    behaviour::examine(scratch, written.as_ref(), settings.exclusive, about, sheet).await;
    let base = settings.public_url_base.as_deref();
    behaviour::public_url(&bench.config, base, written.as_ref(), about, sheet).await;
    behaviour::cors(scratch, &bench.config, base, places.cors_origin.as_deref(), written.as_ref(), sheet).await;
    rights::clean(scratch, about, sheet).await;
}

/// True where there are some.
async fn credentials(bench: &Bench, sheet: &mut Sheet<'_>) -> bool {
    match scratch::within(credentials_origin(&bench.config)).await {
        Ok(origin) => {
            let left = origin.expires.and_then(|end| end.duration_since(clock::now()).ok());
            let text = format!("key {}… from {}", origin.key_begins, origin.source);
            match (origin.expires, left) {
                (Some(_), None) => {
                    sheet.fail(Step::Credentials, format!("{text}: expired"), "get new ones, or use a source that renews them")
                }
                (Some(_), Some(left)) => {
                    let ends = humantime::format_duration(Duration::from_secs(left.as_secs()));
                    sheet.pass(Step::Credentials, format!("{text}; they end in {ends} and are renewed by their source"));
                }
                (None, _) if origin.temporary && left.is_none_or(|left| left < SOON) => {
                    let fix = "a mount outlives them: use a permanent key, a role, or a credential_process";
                    sheet.warn(Step::Credentials, format!("{text}, with a session token that nobody renews"), fix);
                }
                (None, _) => sheet.pass(Step::Credentials, text),
            }
            true
        }
        Err(error) => {
            let found = cause(Step::Credentials, &error, &bench.about);
            sheet.fail(Step::Credentials, found.what, found.fix);
            false
        }
    }
}

async fn local(settings: &Settings, places: &Places, sheet: &mut Sheet<'_>) {
    let (places, directory) = (places.clone(), settings.cache_dir.clone());
    let run_as = settings.run_as.as_ref().map(|account| account.uid);
    match timeout(STEP_TIME, spawn_blocking(move || machine::look(&places))).await {
        Ok(Ok(facts)) => machine::judge(&facts, settings.allow_other, sheet),
        _ => sheet.skip_rest(&machine::STEPS, "this machine did not answer in time"),
    }
    match timeout(STEP_TIME, spawn_blocking(move || disk::look(&directory, run_as))).await {
        Ok(Ok(Ok(facts))) => {
            let floor = floor_bytes(settings.free_space_floor, &facts.place).unwrap_or_default();
            disk::judge(&facts, &settings.identity, settings.cache_size_bytes, floor, sheet);
        }
        Ok(Ok(Err(error))) => unusable(&settings.cache_dir, &error.to_string(), sheet),
        _ => unusable(&settings.cache_dir, "its disk did not answer within 10 seconds", sheet),
    }
}

fn unusable(directory: &Path, why: &str, sheet: &mut Sheet<'_>) {
    let fix = "give a --cache-dir on a local disk that works";
    sheet.fail(Step::CacheDirectory, format!("{}: {why}", directory.display()), fix);
    sheet.skip_rest(&disk::STEPS, "the cache directory can't be used");
}
