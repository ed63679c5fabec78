//! From what was said on the command line, in the environment and in a file to checked settings.
//!
//! ```text
//! options        the list of all options
//! layers         flag > -o > environment > file > default
//! mount_options  -o as in fstab
//! rules          headers by path pattern
//! prices         what requests cost
//! check          a file by itself, and an example of one
//! target         bucket URLs and endpoints
//! values         sizes, times, switches
//! users          names of users and groups
//! ```
//!
//! Pure but for `users`: whatever a check needs to know of the machine comes in as [`Surroundings`]. Each error is one
//! line that names the option, where it was set, and what a right value looks like.

mod check;
mod layers;
mod mount_options;
mod options;
mod prices;
mod rules;
mod target;
mod users;
mod values;

use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

pub use check::{example, mistakes};
pub use layers::{Given, Layer, Layers, Origin};
pub use mount_options::{MountOptionWords, VfsFlags, parse as parse_mount_options, remount};
pub use options::{OPTIONS, OptionSpec};
pub use target::{BucketUrl, Endpoint, bucket_url};
pub use users::{account, group_id, user_id};
pub use values::Floor;

use crate::daemon::{Account, FreeSpaceFloor, LogFormat, LogSettings, Settings};
use crate::fs::WriteMode;
use crate::fuse::Passthrough;
use crate::writer::OnConflict;

/// A mistake in what was asked for. The text is the whole message.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ConfigError(String);

fn error(text: String) -> ConfigError {
    ConfigError(text)
}

/// What the settings depend on beside the options.
pub struct Surroundings<'a> {
    /// Looks an environment variable up.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Of the caller.
    pub uid: u32,
    pub gid: u32,
    /// Numbers of users and groups by name.
    pub user: &'a dyn Fn(&str) -> Option<u32>,
    pub group: &'a dyn Fn(&str) -> Option<u32>,
    /// Who a process can become, by name or number.
    pub account: &'a dyn Fn(&str) -> Option<Account>,
    /// What relative paths are relative to.
    pub directory: &'a Path,
}

/// Checked settings, and what the user should know about them.
#[derive(Debug)]
pub struct Config {
    pub settings: Settings,
    pub log: LogSettings,
    pub warnings: Vec<String>,
}

/// The smallest cache that still holds a block for each of a few readers.
const SMALLEST_CACHE_BYTES: u64 = 1 << 20;
/// The program itself and one part of an upload.
const SMALLEST_MEMORY_BYTES: u64 = 64 << 20;
/// Below this every hiccup of the network would be an error.
const SHORTEST_TIMEOUT: Duration = Duration::from_secs(1);

/// Builds the settings of `mount URL MOUNTPOINT`.
pub fn resolve(url: &str, mountpoint: &Path, words: &Layers, flags: VfsFlags, around: &Surroundings) -> Result<Config, ConfigError> {
    let target = bucket_url(url)?;
    let reader = Reader(words);
    let endpoint = endpoint(&reader, &target, around)?;
    let r2 = target.r2 || endpoint.as_ref().is_some_and(Endpoint::is_r2);
    let mut warnings = Vec::new();
    if let Some(endpoint) = endpoint.as_ref().filter(|endpoint| endpoint.is_exposed()) {
        warnings.push(format!("{} is not encrypted: whoever is on the way can read and change the files", endpoint.url));
    }
    let metrics = reader.parsed("metrics", values::listen_address)?;
    if let Some(address) = metrics.filter(|address| !address.ip().is_loopback()) {
        warnings.push(format!("--metrics {address}: whoever reaches this address can read names and amounts"));
    }
    let prices = words.prices().or_else(|| prices::listed(r2, endpoint.is_some()));
    if reader.switch("unsafe-symlinks")? {
        let what = "whoever writes to the bucket can make programs here open any file that those may read, /etc/passwd too";
        warnings.push(format!("--unsafe-symlinks: {what}; never on a mount that a web server serves"));
    }
    let identity = identity(endpoint.as_ref(), &target);
    let run_as = reader.account(around)?;
    let cache_dir = cache_dir(&reader, &target.bucket, &identity, run_as.is_some(), around)?;
    let (own_uid, own_gid) = run_as.as_ref().map_or((around.uid, around.gid), |account| (account.uid, account.gid));
    let mountpoint = around.directory.join(mountpoint);
    check_apart(&cache_dir, &mountpoint)?;
    let settings = Settings {
        source: target.source(),
        identity,
        bucket: target.bucket,
        prefix: target.prefix,
        region: reader.text("region").or_else(|| r2.then(|| "auto".to_owned())),
        endpoint_url: endpoint.map(|endpoint| endpoint.url),
        r2,
        ca_file: reader.path("ca-file"),
        credentials_file: reader.path("credentials-file").map(|path| around.directory.join(path)),
        profile: reader.text("profile"),
        credentials: None,
        mountpoint,
        allow_other: reader.switch("allow-other")?,
        no_exec: flags.no_exec,
        no_access_times: flags.no_access_times,
        cache_dir,
        cache_size_bytes: reader.cache_size()?,
        memory_limit_bytes: reader.memory_limit()?,
        free_space_floor: reader.floor()?,
        write_mode: reader.choice("write-mode", &[("back", WriteMode::Back), ("through", WriteMode::Through)])?,
        ttl: reader.time("ttl")?,
        negative_ttl: reader.time("negative-ttl")?,
        exclusive: reader.switch("exclusive")?,
        passthrough: reader.choice("passthrough", &[("read", Passthrough::Read), ("all", Passthrough::All), ("off", Passthrough::Off)])?,
        read_only: reader.switch("read-only")?,
        run_as,
        uid: reader.id("uid", own_uid, around.user)?,
        gid: reader.id("gid", own_gid, around.group)?,
        umask: reader.parsed("umask", values::umask)?.unwrap_or(0o022),
        posix_metadata: reader.switch("posix-metadata")?,
        timeout: reader.timeout()?,
        drain_timeout: reader.time("drain-timeout")?,
        on_conflict: reader.choice(
            "on-conflict",
            &[("keep-both", OnConflict::KeepBoth), ("overwrite", OnConflict::Overwrite), ("hold", OnConflict::Hold)],
        )?,
        unsafe_symlinks: reader.switch("unsafe-symlinks")?,
        public_url_base: reader.public_url_base()?,
        rules: words.rules(),
        metrics,
        prices,
    };
    Ok(Config { settings, log: log_settings(words)?, warnings })
}

/// How to log; needed before anything else can be said.
pub fn log_settings(words: &Layers) -> Result<LogSettings, ConfigError> {
    let reader = Reader(words);
    let level = reader.choice("log-level", &["error", "warn", "info", "debug", "trace"].map(|level| (level, level)))?;
    let format = reader.choice("log-format", &[("text", LogFormat::Text), ("json", LogFormat::Json)])?;
    Ok(LogSettings { level: level.to_owned(), format, file: reader.path("log-file") })
}

fn endpoint(reader: &Reader, target: &BucketUrl, around: &Surroundings) -> Result<Option<Endpoint>, ConfigError> {
    if let Some(given) = reader.parsed("endpoint-url", target::endpoint)? {
        return Ok(Some(given));
    }
    let variable = |name: &str| (around.variable)(name).filter(|value| !value.is_empty());
    if target.r2 {
        let advice = || error(format!("r2://{} needs the account: set R2_ACCOUNT_ID, or give --endpoint-url", target.bucket));
        return target::r2_endpoint(&variable("R2_ACCOUNT_ID").ok_or_else(advice)?).map(Some);
    }
    for name in ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"] {
        if let Some(url) = variable(name) {
            return target::endpoint(&url).map(Some).map_err(|advice| error(format!("{name}={url}: {advice}")));
        }
    }
    Ok(None)
}

/// Names what a cache directory belongs to: another endpoint, bucket or prefix must not use it.
fn identity(endpoint: Option<&Endpoint>, target: &BucketUrl) -> String {
    let place = endpoint.map_or("AWS", |endpoint| endpoint.url.as_str());
    format!("s3://{}/{} at {place}", target.bucket, target.prefix)
}

/// What was said, else one directory for each identity, so that two mounts never meet in one. `for_service`: root begins it,
/// whoever goes on.
fn cache_dir(reader: &Reader, bucket: &str, identity: &str, for_service: bool, around: &Surroundings) -> Result<PathBuf, ConfigError> {
    if let Some(directory) = reader.path("cache-dir") {
        return Ok(around.directory.join(directory));
    }
    let variable = |name: &str| (around.variable)(name).filter(|value| value.starts_with('/')).map(PathBuf::from);
    let base = if around.uid == 0 || for_service {
        Some(PathBuf::from("/var/cache"))
    } else {
        variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")))
    };
    let base = base.ok_or_else(|| error("no place for the cache: set HOME or XDG_CACHE_HOME, or give --cache-dir".to_owned()))?;
    use md5::Digest;
    let hash = md5::Md5::digest(identity.as_bytes());
    let short: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    Ok(base.join("mediafs").join(format!("{bucket}-{short}")))
}

/// A cache inside its own mount would wait for itself.
fn check_apart(cache_dir: &Path, mountpoint: &Path) -> Result<(), ConfigError> {
    if cache_dir.starts_with(mountpoint) || mountpoint.starts_with(cache_dir) {
        let (cache, mount) = (cache_dir.display(), mountpoint.display());
        return Err(error(format!("--cache-dir {cache} and the mount point {mount} lie in each other; choose another --cache-dir")));
    }
    Ok(())
}

/// Reads one option after the other, as values.
struct Reader<'a>(&'a Layers);

impl Reader<'_> {
    fn text(&self, name: &'static str) -> Option<String> {
        self.0.get(name).map(|given| given.text)
    }

    fn path(&self, name: &'static str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    fn parsed<T>(&self, name: &'static str, parse: impl Fn(&str) -> Result<T, &'static str>) -> Result<Option<T>, ConfigError> {
        let Some(given) = self.0.get(name) else { return Ok(None) };
        parse(&given.text).map(Some).map_err(|advice| error(format!("{given}: {advice}")))
    }

    fn switch(&self, name: &'static str) -> Result<bool, ConfigError> {
        Ok(self.parsed(name, values::switch)?.unwrap_or(false))
    }

    fn time(&self, name: &'static str) -> Result<Duration, ConfigError> {
        Ok(self.parsed(name, values::time)?.unwrap_or_default())
    }

    fn timeout(&self) -> Result<Duration, ConfigError> {
        let long_enough =
            |text: &str| values::time(text).and_then(|time| if time < SHORTEST_TIMEOUT { Err("at least 1s") } else { Ok(time) });
        Ok(self.parsed("timeout", long_enough)?.unwrap_or(SHORTEST_TIMEOUT))
    }

    fn cache_size(&self) -> Result<u64, ConfigError> {
        let large_enough =
            |text: &str| values::size(text).and_then(|size| if size < SMALLEST_CACHE_BYTES { Err("at least 1MiB") } else { Ok(size) });
        Ok(self.parsed("cache-size", large_enough)?.unwrap_or(SMALLEST_CACHE_BYTES))
    }

    fn memory_limit(&self) -> Result<u64, ConfigError> {
        let large_enough =
            |text: &str| values::size(text).and_then(|size| if size < SMALLEST_MEMORY_BYTES { Err("at least 64MiB") } else { Ok(size) });
        Ok(self.parsed("memory-limit", large_enough)?.unwrap_or(SMALLEST_MEMORY_BYTES))
    }

    fn floor(&self) -> Result<FreeSpaceFloor, ConfigError> {
        Ok(match self.parsed("free-space-floor", values::floor)? {
            Some(Floor::Bytes(bytes)) => FreeSpaceFloor::Bytes(bytes),
            Some(Floor::Percent(percent)) => FreeSpaceFloor::Percent(percent),
            None => FreeSpaceFloor::Default,
        })
    }

    fn choice<T: Copy>(&self, name: &'static str, choices: &[(&str, T)]) -> Result<T, ConfigError> {
        let given = self.0.get(name);
        let chosen = given.as_ref().and_then(|given| choices.iter().find(|(text, _)| *text == given.text));
        chosen.map(|(_, value)| *value).ok_or_else(|| {
            let texts: Vec<&str> = choices.iter().map(|(text, _)| *text).collect();
            let said = given.map_or_else(|| format!("--{name}"), |given| given.to_string());
            error(format!("{said}: write one of {}", texts.join(", ")))
        })
    }

    fn id(&self, name: &'static str, own: u32, by_name: &dyn Fn(&str) -> Option<u32>) -> Result<u32, ConfigError> {
        let Some(given) = self.0.get(name) else { return Ok(own) };
        let id = given.text.parse().ok().or_else(|| by_name(&given.text));
        id.ok_or_else(|| {
            error(format!("{given}: there is no {} of that name; write a name or a number", if name == "uid" { "user" } else { "group" }))
        })
    }

    fn account(&self, around: &Surroundings) -> Result<Option<Account>, ConfigError> {
        let Some(given) = self.0.get("run-as") else { return Ok(None) };
        let found = (around.account)(&given.text);
        found.map(Some).ok_or_else(|| error(format!("{given}: there is no such user; make one (useradd --system), or name another")))
    }

    fn public_url_base(&self) -> Result<Option<String>, ConfigError> {
        let is_url = |text: &str| match text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) {
            Some(rest) if !rest.is_empty() && !rest.contains(char::is_whitespace) => Ok(text.trim_end_matches('/').to_owned()),
            _ => Err("write a URL like https://media.example.com"),
        };
        self.parsed("public-url-base", is_url)
    }
}

#[cfg(test)]
mod tests;
