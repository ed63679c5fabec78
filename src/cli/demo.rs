//! `mediafs demo [DIR]`: a bucket on this machine, mounted, without any account. Everything stays below DIR.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command};
use tracing::warn;

use super::{Failure, logging, mount};
use crate::config::{Config, Layer, Layers, Origin, VfsFlags};
use crate::daemon::{self, Daemon};
use crate::emulator::{Emulator, EmulatorConfig};
use crate::fuse::{self, MountError};
use crate::store::s3::StaticCredentials;

const BUCKET: &str = "media";
/// Kept in the user's data directory where there is one.
const FOLDER: &str = "mediafs-demo";

pub fn command() -> Command {
    Command::new("demo")
        .about("Try it without an account: a bucket on this machine, mounted; ends with Ctrl-C")
        .arg(
            Arg::new("directory")
                .value_name("DIR")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Where everything is kept [default: ~/.local/share/mediafs-demo]"),
        )
        .arg(Arg::new("log-level").long("log-level").value_name("LEVEL").default_value("warn").help("error, warn, info, debug or trace"))
}

pub fn run(arguments: &ArgMatches) -> Result<(), Failure> {
    let directory = directory(arguments)?;
    let media = directory.join("media");
    make(&directory)?;
    prepare_mountpoint(&media)?;
    let runtime = daemon::runtime()?;
    runtime.block_on(async {
        let config =
            EmulatorConfig { folder: Some(directory.join("bucket")), buckets: vec![BUCKET.to_owned()], ..EmulatorConfig::default() };
        let keys = StaticCredentials::new(config.access_key.as_str(), config.secret_key.as_str());
        let emulator = Emulator::start(config).await?;
        let level = arguments.get_one::<String>("log-level").map_or("warn", String::as_str);
        let Config { mut settings, log, warnings } = settings(&emulator.endpoint(), &directory, &media, level)?;
        logging::start(&log)?;
        for warning in warnings {
            warn!("{warning}");
        }
        // The port differs each time, the bucket is the same.
        settings.identity = format!("the demo's bucket in {}", directory.display());
        settings.credentials = Some(keys.clone());
        let daemon = Daemon::mount(settings).await?;
        introduce(&media, &emulator.endpoint(), &keys)?;
        let waiting = daemon.serve().await;
        emulator.stop().await;
        println!("Ended. Everything is kept in {}; the same command goes on with it.", directory.display());
        if waiting > 0 { Err(Failure::Failed(format!("{waiting} files are not in the bucket yet"))) } else { Ok(()) }
    })?;
    runtime.shutdown_background();
    Ok(())
}

fn directory(arguments: &ArgMatches) -> Result<PathBuf, Failure> {
    let given = arguments.get_one::<PathBuf>("directory").cloned();
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
    let directory = given.or_else(|| home().map(|data| data.join(FOLDER))).unwrap_or_else(|| PathBuf::from(FOLDER));
    Ok(std::path::absolute(directory)?)
}

fn make(directory: &Path) -> Result<(), Failure> {
    fs::create_dir_all(directory)
        .map_err(|error| Failure::Failed(format!("can't make {}: {error}; give another directory: mediafs demo DIR", directory.display())))
}

/// A mount that a killed demo left is cleared before anything else touches the path.
fn prepare_mountpoint(media: &Path) -> Result<(), Failure> {
    match fuse::prepare(media) {
        Ok(_) => Ok(()),
        Err(MountError::Missing(_)) => make(media),
        Err(error) => Err(error.into()),
    }
}

fn settings(endpoint: &str, directory: &Path, media: &Path, level: &str) -> Result<Config, Failure> {
    let cache = directory.join("cache").display().to_string();
    let options =
        [("endpoint-url", endpoint), ("region", "us-east-1"), ("cache-dir", &cache), ("cache-size", "1GiB"), ("log-level", level)];
    mount::resolve(&format!("s3://{BUCKET}"), media, &Layers(vec![Layer::new(&Origin::Flag, options)]), VfsFlags::default())
}

fn introduce(media: &Path, endpoint: &str, keys: &StaticCredentials) -> io::Result<()> {
    let media = media.display();
    let StaticCredentials { access_key_id, secret_access_key, .. } = keys;
    let mut output = io::stdout().lock();
    write!(
        output,
        "\
A bucket on this machine is mounted at {media}: every file there is one object in it.

Django's settings, with the stock FileSystemStorage:
    MEDIA_ROOT = \"{media}\"
    MEDIA_URL = \"/media/\"

The link of one file, as a browser or a CDN would fetch it:
    python3 -c 'import os; print(os.getxattr(\"{media}/FILE\", \"user.mediafs.url\").decode())'

The same bucket with any S3 client:
    AWS_ACCESS_KEY_ID={access_key_id} AWS_SECRET_ACCESS_KEY={secret_access_key} \\
        aws --endpoint-url {endpoint} --region us-east-1 s3 ls s3://{BUCKET}/

What waits and what was uploaded:  mediafs status {media}
To end it: Ctrl-C
"
    )?;
    output.flush()
}
