//! SIGHUP: what of the configuration can change while the mount goes on, and what has to wait for the next one.
//!
//! What the kernel, the cache directory or the connection was set up with stays. Credentials are read anew from their
//! files or services whatever else changed; those of the environment can't change in a process that runs.

use std::sync::Arc;

use tracing::{error, info, warn};

use super::layers;
use super::settings::Settings;
use super::status::Sources;

/// Reads the configuration again: what a mount that begins now would have. Err: a line that says what is wrong. What
/// concerns the log it changes by itself.
pub type Reread = Arc<dyn Fn() -> Result<Settings, String> + Send + Sync>;

/// What became of a new configuration.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    /// Options that hold from now on.
    taken: Vec<&'static str>,
    /// Options that hold from the next mount on.
    waiting: Vec<&'static str>,
}

pub async fn reload(sources: &Sources, reread: Option<&Reread>) {
    let Some(reread) = reread else { return };
    match reread() {
        Ok(settings) => take(sources, &settings),
        Err(mistake) => error!("SIGHUP: {mistake}; everything stays as it was"),
    }
    match sources.s3.renew_credentials().await {
        Ok(source) => info!("SIGHUP: credentials were read again, from {source}"),
        Err(failure) => error!(error = failure.message, "SIGHUP: no credentials can be had, so those in use stay"),
    }
}

fn take(sources: &Sources, new: &Settings) {
    let old: &Settings = &sources.settings;
    let changes = compare(old, new);
    let merged = merge(old, new);
    sources.fs.reconfigure(layers::fs_config(&merged));
    sources.writer.reconfigure(layers::writer_config(&merged));
    sources.settings.replace(merged);
    match &changes.taken[..] {
        [] => info!("SIGHUP: the configuration was read again, nothing to take over"),
        taken => info!("SIGHUP: from now on holds what was changed of {}", taken.join(", ")),
    }
    if !changes.waiting.is_empty() {
        warn!("SIGHUP: {} can't change while mounted: unmount, and mount again", changes.waiting.join(", "));
    }
}

/// The old ones with what can change of the new.
fn merge(old: &Settings, new: &Settings) -> Settings {
    Settings {
        ttl: new.ttl,
        negative_ttl: new.negative_ttl,
        drain_timeout: new.drain_timeout,
        on_conflict: new.on_conflict,
        unsafe_symlinks: new.unsafe_symlinks,
        public_url_base: new.public_url_base.clone(),
        prices: new.prices,
        rules: if can_take_rules(old, new) { Arc::clone(&new.rules) } else { Arc::clone(&old.rules) },
        ..old.clone()
    }
}

/// Whether bodies are decompressed was decided when the connection was made.
fn can_take_rules(old: &Settings, new: &Settings) -> bool {
    old.posix_metadata || old.rules.has_gzip() || !new.rules.has_gzip()
}

fn compare(old: &Settings, new: &Settings) -> Changes {
    let rules = format!("{:?}", old.rules) != format!("{:?}", new.rules);
    let taken = [
        ("ttl", old.ttl != new.ttl),
        ("negative-ttl", old.negative_ttl != new.negative_ttl),
        ("drain-timeout", old.drain_timeout != new.drain_timeout),
        ("on-conflict", old.on_conflict != new.on_conflict),
        ("unsafe-symlinks", old.unsafe_symlinks != new.unsafe_symlinks),
        ("public-url-base", old.public_url_base != new.public_url_base),
        ("[prices]", old.prices != new.prices),
        ("the headers by path", rules && can_take_rules(old, new)),
    ];
    let waiting = [
        ("[gzip] beside posix-metadata = \"off\"", rules && !can_take_rules(old, new)),
        ("endpoint-url", old.endpoint_url != new.endpoint_url),
        ("region", old.region != new.region),
        ("ca-file", old.ca_file != new.ca_file),
        ("credentials-file", old.credentials_file != new.credentials_file),
        ("profile", old.profile != new.profile),
        ("cache-dir", old.cache_dir != new.cache_dir),
        ("cache-size", old.cache_size_bytes != new.cache_size_bytes),
        ("free-space-floor", old.free_space_floor != new.free_space_floor),
        ("memory-limit", old.memory_limit_bytes != new.memory_limit_bytes),
        ("write-mode", old.write_mode != new.write_mode),
        ("exclusive", old.exclusive != new.exclusive),
        ("passthrough", old.passthrough != new.passthrough),
        ("read-only", old.read_only != new.read_only),
        ("allow-other", old.allow_other != new.allow_other),
        ("run-as", old.run_as != new.run_as),
        ("uid", old.uid != new.uid),
        ("gid", old.gid != new.gid),
        ("umask", old.umask != new.umask),
        ("posix-metadata", old.posix_metadata != new.posix_metadata),
        ("timeout", old.timeout != new.timeout),
        ("metrics", old.metrics != new.metrics),
    ];
    let named = |list: &[(&'static str, bool)]| list.iter().filter(|(_, changed)| *changed).map(|(name, _)| *name).collect();
    Changes { taken: named(&taken), waiting: named(&waiting) }
}
