//! `mediafs mount s3://BUCKET[/PREFIX] MOUNTPOINT`: stays in the foreground until it is unmounted or told to end. SIGHUP has
//! the configuration and the credentials read again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Arg, ArgAction, ArgMatches, Command};
use tracing::warn;

use super::{Failure, logging, secrets};
use crate::config::{self, Config, Layer, Layers, MountOptionWords, OPTIONS, OptionSpec, Origin, Surroundings, VfsFlags};
use crate::daemon::{self, Daemon, Reread};

pub fn command() -> Command {
    Command::new("mount")
        .about("Mount a bucket; ends when it is unmounted, or with SIGTERM once everything is uploaded")
        .after_help(
            "Options can also be set in the environment (MEDIAFS_CACHE_SIZE=…) and in the file (cache-size = \"…\"). \
             Credentials come from the usual AWS sources, for R2 also from R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY.",
        )
        .arg(
            Arg::new("url").value_name("s3://BUCKET[/PREFIX]").required(true).help("What to mount; r2://BUCKET[/PREFIX] for Cloudflare R2"),
        )
        .arg(
            Arg::new("mountpoint")
                .value_name("MOUNTPOINT")
                .required(true)
                .value_parser(clap::value_parser!(PathBuf))
                .help("An empty directory"),
        )
        .args(OPTIONS.iter().map(argument))
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("A TOML file with options"),
        )
        .arg(
            Arg::new("o")
                .short('o')
                .value_name("OPTION,…")
                .action(ArgAction::Append)
                .help("The same options in the style of fstab: -o ro,allow_other,uid=33"),
        )
}

pub(super) fn argument(option: &'static OptionSpec) -> Arg {
    let default = if option.default.is_empty() { String::new() } else { format!(" [default: {}]", option.default) };
    let argument = Arg::new(option.name).long(option.name).action(ArgAction::Set).help(format!("{}{default}", option.help));
    match option.value {
        Some(value) => argument.value_name(value),
        None => argument.value_name("on|off").num_args(0..=1).require_equals(true).default_missing_value("on"),
    }
}

pub fn run(arguments: &ArgMatches) -> Result<(), Failure> {
    let config = configured(arguments)?;
    logging::start(&config.log)?;
    for warning in &config.warnings {
        warn!("{warning}");
    }
    daemon::run_as(&config.settings)?;
    let runtime = daemon::runtime()?;
    runtime.block_on(async {
        let arguments = arguments.clone();
        let daemon = Daemon::mount(config.settings).await?.rereading(rereading(move || configured(&arguments)));
        // How many files wait was logged; they go up with the next mount, so this is no failure.
        daemon.serve().await;
        Ok::<(), Failure>(())
    })?;
    // A program that holds a file open must not keep the process: what counts is done.
    runtime.shutdown_background();
    Ok(())
}

/// The configuration again, for a daemon that runs: what is said of the log holds at once.
pub(super) fn rereading(configured: impl Fn() -> Result<Config, Failure> + Send + Sync + 'static) -> Reread {
    Arc::new(move || {
        let config = configured().map_err(|failure| failure.to_string())?;
        logging::renew(&config.log);
        for warning in &config.warnings {
            warn!("{warning}");
        }
        Ok(config.settings)
    })
}

fn configured(arguments: &ArgMatches) -> Result<Config, Failure> {
    let words = arguments.get_many::<String>("o").into_iter().flatten().map(String::as_str);
    let mut words = config::parse_mount_options(words)?;
    words.file = arguments.get_one::<PathBuf>("config").cloned().or(words.file);
    let flags = OPTIONS.iter().filter_map(|option| Some((option.name, arguments.get_one::<String>(option.name)?.clone())));
    let url = arguments.get_one::<String>("url").map(String::as_str).unwrap_or_default();
    let mountpoint = arguments.get_one::<PathBuf>("mountpoint").map(PathBuf::as_path).unwrap_or(Path::new(""));
    configure(url, mountpoint, words, vec![Layer::new(&Origin::Flag, flags)])
}

/// `stronger` goes before the words of `-o`, the environment and the file behind them.
pub(super) fn configure(url: &str, mountpoint: &Path, words: MountOptionWords, stronger: Vec<Layer>) -> Result<Config, Failure> {
    let mut layers = stronger;
    layers.extend([words.layer, Layer::environment(&variable)]);
    if let Some(path) = words.file.or_else(|| variable("MEDIAFS_CONFIG").map(PathBuf::from)) {
        layers.push(read_file(&path)?);
    }
    resolve(url, mountpoint, &Layers(layers), words.flags)
}

/// The configuration file that was named.
pub(super) fn file_of(arguments: &ArgMatches) -> Option<PathBuf> {
    arguments.get_one::<PathBuf>("config").cloned().or_else(|| variable("MEDIAFS_CONFIG").map(PathBuf::from))
}

pub(super) fn read_file(path: &Path) -> Result<Layer, Failure> {
    let text = fs::read_to_string(path).map_err(|error| Failure::Usage(format!("--config {}: can't read it: {error}", path.display())))?;
    Ok(Layer::file(&path.display().to_string(), &text)?)
}

/// With this machine, user and environment around it.
pub(super) fn resolve(url: &str, mountpoint: &Path, layers: &Layers, flags: VfsFlags) -> Result<Config, Failure> {
    let directory = std::env::current_dir()?;
    // SAFETY: neither call has arguments or can fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let around = Surroundings {
        variable: &variable,
        uid,
        gid,
        user: &config::user_id,
        group: &config::group_id,
        account: &config::account,
        directory: &directory,
    };
    let mut config = config::resolve(url, mountpoint, layers, flags, &around)?;
    config.warnings.extend(secrets::exposed(&variable, config.settings.credentials_file.as_deref()));
    Ok(config)
}

pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> ArgMatches {
        let arguments = ["mount", "s3://media", "/srv/media"].iter().chain(arguments);
        command().try_get_matches_from(arguments).expect("valid")
    }

    #[test]
    fn switches_take_no_word_after_them() {
        let config = configured(&parsed(&["--exclusive", "--read-only=off", "--allow-other"])).expect("valid");
        assert!(config.settings.exclusive && config.settings.allow_other && !config.settings.read_only);
    }

    #[test]
    fn a_flag_wins_over_o_and_o_over_the_file() {
        let directory = tempfile::tempdir().expect("directory");
        let file = directory.path().join("m.toml");
        fs::write(&file, "ttl = '3s'\nnegative-ttl = '3s'\ntimeout = '3s'\n").expect("file");
        let path = file.to_str().expect("path");
        let config =
            configured(&parsed(&["--config", path, "-o", "ttl=2s,negative_ttl=2s", "-o", "noexec", "--ttl", "1s"])).expect("valid");
        let seconds = |time: std::time::Duration| time.as_secs();
        let settings = config.settings;
        assert_eq!((seconds(settings.ttl), seconds(settings.negative_ttl), seconds(settings.timeout)), (1, 2, 3));
        assert!(settings.no_exec);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = configured(&parsed(&["--config", "/no/such/file"])).expect_err("refused").to_string();
        assert!(error.starts_with("--config /no/such/file: can't read it"), "{error}");
    }
}
