//! What a daemon needs to know, checked and without any trace of where it came from.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::cost::Prices;
use crate::fs::WriteMode;
use crate::fuse::Passthrough;
use crate::media::Rules;
use crate::store::s3::StaticCredentials;
use crate::writer::OnConflict;

/// Space to leave free on the cache's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeSpaceFloor {
    /// The smaller of 1 GiB and 5 % of the disk.
    Default,
    Bytes(u64),
    Percent(u8),
}

/// A user whom the daemon can become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    /// Its own group.
    pub gid: u32,
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// How the mount is named: `s3://BUCKET/PREFIX`.
    pub source: String,
    /// What the cache directory belongs to: endpoint, bucket and prefix.
    pub identity: String,
    pub bucket: String,
    /// Empty, or ends in a slash.
    pub prefix: String,
    pub endpoint_url: Option<String>,
    pub region: Option<String>,
    pub r2: bool,
    pub ca_file: Option<PathBuf>,
    /// Where keys are, instead of the usual chain.
    pub credentials_file: Option<PathBuf>,
    pub profile: Option<String>,
    /// None: one of these two, else the usual chain.
    pub credentials: Option<StaticCredentials>,
    pub mountpoint: PathBuf,
    pub allow_other: bool,
    pub no_exec: bool,
    /// Reading moves no access time.
    pub no_access_times: bool,
    pub cache_dir: PathBuf,
    pub cache_size_bytes: u64,
    /// The most that the daemon plans to use.
    pub memory_limit_bytes: u64,
    pub free_space_floor: FreeSpaceFloor,
    pub write_mode: WriteMode,
    pub ttl: Duration,
    pub negative_ttl: Duration,
    pub exclusive: bool,
    pub passthrough: Passthrough,
    pub read_only: bool,
    /// Who the daemon becomes, beginning as root.
    pub run_as: Option<Account>,
    pub uid: u32,
    pub gid: u32,
    pub umask: u32,
    pub posix_metadata: bool,
    /// Longest wait for the bucket in one operation.
    pub timeout: Duration,
    /// Longest wait for uploads at the end.
    pub drain_timeout: Duration,
    pub on_conflict: OnConflict,
    pub unsafe_symlinks: bool,
    pub public_url_base: Option<String>,
    /// Headers by path pattern.
    pub rules: Arc<Rules>,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// None: nobody knows what this store costs.
    pub prices: Option<Prices>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// `error` to `trace`.
    pub level: String,
    pub format: LogFormat,
    /// None: standard error.
    pub file: Option<PathBuf>,
}
