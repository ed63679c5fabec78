//! `mediafs recover CACHE_DIR list|export|upload|repair`: what a mount left in its cache directory when it ended for good.
//!
//! Exit codes: 0 it was done, and for `export` and `upload` nothing is left behind; 1 something is, and why was said.

mod list;
mod save;
mod send;

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::Failure;
use super::mount::{argument, file_of, read_file, resolve, variable};
use crate::config::{Config, Layer, Layers, OPTIONS, Origin, VfsFlags};
use crate::fs::WriteMode;
use crate::journal::DirectoryLock;
use crate::recover::{Inventory, check, look, repair};
use crate::types::Key;

/// What a mount's options say about the bucket and about sending.
const BUCKET_OPTIONS: [&str; 9] =
    ["endpoint-url", "region", "ca-file", "credentials-file", "profile", "timeout", "on-conflict", "log-level", "log-format"];

pub fn command() -> Command {
    let url = Arg::new("url").value_name("s3://BUCKET[/PREFIX]").help("The bucket; the one that the journal names without it");
    Command::new("recover")
        .about("Read the cache directory of a mount that is gone: list, export or upload what is not in the bucket")
        .after_help(
            "Works on a copy, on another machine too; copy with `cp -a`, since times tell what was changed. A journal that a mount \
             refuses as damaged is read as far as it verifies. `list` and `export` change nothing in CACHE_DIR.",
        )
        .arg(Arg::new("directory").value_name("CACHE_DIR").required(true).value_parser(clap::value_parser!(PathBuf)))
        .subcommand_required(true)
        .subcommand(
            Command::new("list")
                .about("Show what waits, and whether its bytes are those that were written")
                .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("For programs"))
                .arg(Arg::new("quick").long("quick").action(ArgAction::SetTrue).help("Don't read the data to check it")),
        )
        .subcommand(
            bucket_options(Command::new("export"))
                .about("Write each unsent file below DIR; what lacks bytes as NAME.partial, what is damaged as NAME.damaged")
                .arg(Arg::new("target").value_name("DIR").required(true).value_parser(clap::value_parser!(PathBuf)))
                .arg(url.clone())
                .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Report for programs"))
                .arg(Arg::new("force").long("force").action(ArgAction::SetTrue).help("Replace files that are there"))
                .arg(Arg::new("fetch").long("fetch").action(ArgAction::SetTrue).help("Fetch what is missing from the bucket")),
        )
        .subcommand(
            bucket_options(Command::new("upload"))
                .about("Send everything to the bucket, as the next mount would; first repairs a damaged journal")
                .arg(url)
                .arg(Arg::new("copied").long("copied").action(ArgAction::SetTrue).help(
                    "The directory was copied from a machine that did not go down: what was written in its last seconds is complete",
                )),
        )
        .subcommand(Command::new("repair").about("Put a new journal of what verifies in the place of a damaged one, which is kept"))
}

fn bucket_options(command: Command) -> Command {
    let quieter = |option: Arg| option.help("error, warn, info, debug or trace [default: warn]");
    let options = OPTIONS.iter().filter(|option| BUCKET_OPTIONS.contains(&option.name)).map(argument);
    let options = options.map(|option| if option.get_id() == "log-level" { quieter(option) } else { option });
    let config = Arg::new("config").long("config").value_name("FILE").value_parser(clap::value_parser!(PathBuf));
    command.args(options).arg(config.help("A TOML file with options of the mount"))
}

pub fn run(arguments: &ArgMatches) -> Result<(), Failure> {
    let Some(directory) = arguments.get_one::<PathBuf>("directory") else { return Ok(()) };
    // Errors and data files are named by paths that hold wherever they are read.
    let directory = &fs::canonicalize(directory).map_err(|error| Failure::Failed(format!("{}: {error}", directory.display())))?;
    let lock = DirectoryLock::acquire_unchanged(directory).map_err(failed)?;
    let (mut inventory, salvage) = look(directory).map_err(failed)?;
    match arguments.subcommand() {
        Some(("list", arguments)) => {
            let checked = !arguments.get_flag("quick");
            if checked {
                check(directory, &mut inventory);
            }
            list::run(&list::Found { directory, inventory: &inventory, trusted: salvage.is_trusted(), checked }, arguments.get_flag("json"))
        }
        Some(("export", arguments)) => save::run(directory, &inventory, arguments),
        Some(("upload", arguments)) => {
            // The lock that writes, now that something will be written.
            drop(lock);
            let _lock = DirectoryLock::acquire(directory).map_err(failed)?;
            send::run(configure(directory, &inventory, arguments)?, &inventory, arguments.get_flag("copied"))
        }
        Some(("repair", _)) => {
            drop(lock);
            let _lock = DirectoryLock::acquire(directory).map_err(failed)?;
            // Between the two locks a daemon may have been here.
            let (inventory, salvage) = look(directory).map_err(failed)?;
            run_repair(directory, &inventory, salvage)
        }
        _ => Err(Failure::Usage("say what to do with it: list, export, upload or repair; see --help".to_owned())),
    }
}

fn failed(error: crate::error::Error) -> Failure {
    Failure::Failed(error.to_string())
}

/// Settings of a mount of the journal's bucket.
fn configure(directory: &Path, inventory: &Inventory, arguments: &ArgMatches) -> Result<Config, Failure> {
    let named = inventory.bucket.as_deref().and_then(place_of);
    let url = arguments.get_one::<String>("url").cloned().or_else(|| named.as_ref().map(|(url, _)| url.clone()));
    let url = url.ok_or_else(|| {
        Failure::Usage("the journal doesn't say any more which bucket it belongs to: name it, s3://BUCKET/PREFIX".to_owned())
    })?;
    let said = |name: &'static str| Some((name, arguments.get_one::<String>(name)?.clone()));
    let cache_dir = directory.to_str().map(|directory| ("cache-dir", directory.to_owned()));
    let cache_dir = cache_dir.ok_or_else(|| Failure::Usage("the path of the cache directory is not UTF-8: move it".to_owned()))?;
    let mut layers = vec![Layer::new(&Origin::Flag, BUCKET_OPTIONS.into_iter().filter_map(said).chain([cache_dir]))];
    layers.push(Layer::environment(&variable));
    if let Some(path) = file_of(arguments) {
        layers.push(read_file(&path)?);
    }
    let endpoint = named.and_then(|(_, endpoint)| endpoint).map(|endpoint| ("endpoint-url", endpoint));
    // One line for each file is for those who ask for it.
    layers.push(Layer::new(&Origin::Default, endpoint.into_iter().chain([("log-level", "warn".to_owned())])));
    let mut config = resolve(&url, Path::new("/proc/mediafs"), &Layers(layers), VfsFlags::default())?;
    // Through mode gives up what another host was faster with: the caller was told. Nobody is told here.
    config.settings.write_mode = WriteMode::Back;
    match &inventory.bucket {
        Some(ours) if *ours != config.settings.identity => Err(Failure::Failed(format!(
            "{} belongs to {ours}, not to {}: what waits in it goes nowhere else; `export` saves it as files",
            directory.display(),
            config.settings.identity
        ))),
        _ => Ok(config),
    }
}

/// The URL and the endpoint in the name of a bucket: `s3://BUCKET/PREFIX at ENDPOINT`.
fn place_of(bucket: &str) -> Option<(String, Option<String>)> {
    let (url, place) = bucket.rsplit_once(" at ")?;
    Some((url.to_owned(), (place != "AWS").then(|| place.to_owned())))
}

fn run_repair(directory: &Path, inventory: &Inventory, salvage: crate::journal::Salvage) -> Result<(), Failure> {
    let Some(bucket) = inventory.bucket.clone() else {
        return Err(Failure::Failed(
            "the journal doesn't say any more which bucket it belongs to: use `upload s3://BUCKET/PREFIX`".to_owned(),
        ));
    };
    match crate::journal::Journal::open(directory, &bucket) {
        Ok(_) => {
            println!("the journal is not damaged: mount it, or use `upload`");
            return Ok(());
        }
        Err(crate::error::Error::Corrupt(_)) => {}
        Err(error) => return Err(failed(error)),
    }
    list::warn(inventory);
    let (damaged, moved) = repair(directory, inventory, salvage, &bucket).map_err(failed)?;
    println!("the journal is made anew of what verifies; the damaged one is {}", damaged.display());
    if moved > 0 {
        println!("{moved} data files that no row names are in {}/unnamed", directory.display());
    }
    Ok(())
}

/// Names come from other programs: nothing in them may steer the terminal.
fn safe(text: &str) -> String {
    Key::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buckets_name_tells_url_and_endpoint() {
        let place = |text| place_of(text);
        assert_eq!(place("s3://b/p/ at AWS"), Some(("s3://b/p/".into(), None)));
        assert_eq!(place("s3://b/a at b/ at http://h:1"), Some(("s3://b/a at b/".into(), Some("http://h:1".into()))));
        assert_eq!(place("nonsense"), None);
    }
}
