//! `mediafs doctor s3://BUCKET[/PREFIX] [--json]`: whether a mount would work, step by step, and what to change if not.
//!
//! Exit codes: 0 nothing failed, 1 something did or it was interrupted, 2 the command line or the configuration is wrong.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::mount::{argument, file_of, read_file, resolve, variable};
use super::{Failure, logging};
use crate::config::{Layer, Layers, OPTIONS, Origin, VfsFlags};
use crate::daemon::{self, Signals};
use crate::doctor::{Finding, Outcome, Places, Report, examine};

/// What a mount's options say about the bucket, the cache directory and this machine.
const DOCTOR_OPTIONS: [&str; 15] = [
    "endpoint-url",
    "region",
    "ca-file",
    "credentials-file",
    "profile",
    "cache-dir",
    "cache-size",
    "free-space-floor",
    "exclusive",
    "read-only",
    "allow-other",
    "timeout",
    "public-url-base",
    "log-level",
    "log-format",
];

/// There is no mount point yet; nothing can lie in this one.
const NO_MOUNT_POINT: &str = "/proc/mediafs";

pub fn command() -> Command {
    let options = OPTIONS.iter().filter(|option| DOCTOR_OPTIONS.contains(&option.name)).map(argument);
    let options = options.map(|option| match option.get_id() == "log-level" {
        true => option.help("error, warn, info, debug or trace [default: error]"),
        false => option,
    });
    Command::new("doctor")
        .about("Try everything that a mount of this bucket needs, and say what to change")
        .after_help(
            "Give it the options, the environment and the user of the mount. It writes a few small objects below one random name in the \
             bucket and takes them away again; nothing else is changed.",
        )
        .arg(Arg::new("url").value_name("s3://BUCKET[/PREFIX]").required(true).help("r2://BUCKET[/PREFIX] for Cloudflare R2"))
        .args(options)
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_parser(clap::value_parser!(std::path::PathBuf))
                .help("A TOML file with options of the mount"),
        )
        .arg(
            Arg::new("cors")
                .long("cors")
                .value_name("ORIGIN")
                .help("Also whether pages of this site, like https://shop.example, may read the objects from a browser"),
        )
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("For programs"))
}

pub fn run(arguments: &ArgMatches) -> Result<(), Failure> {
    let said = |name: &'static str| Some((name, arguments.get_one::<String>(name)?.clone()));
    let mut layers = vec![Layer::new(&Origin::Flag, DOCTOR_OPTIONS.into_iter().filter_map(said)), Layer::environment(&variable)];
    if let Some(path) = file_of(arguments) {
        layers.push(read_file(&path)?);
    }
    // What the store's client would warn of is told here, with its fix.
    layers.push(Layer::new(&Origin::Default, [("log-level", "error")]));
    let url = arguments.get_one::<String>("url").map(String::as_str).unwrap_or_default();
    let config = resolve(url, Path::new(NO_MOUNT_POINT), &Layers(layers), VfsFlags::default())?;
    logging::start(&config.log)?;
    let json = arguments.get_flag("json");
    let places = Places { cors_origin: arguments.get_one::<String>("cors").cloned(), ..Places::default() };
    let runtime = daemon::runtime()?;
    let report = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let stop = async {
            let signal = signals.next().await;
            eprintln!("{signal}: taking the throw-away keys away");
        };
        let mut shown = Shown::new(json);
        if !json {
            shown.say(&format!("mediafs doctor {}\n", config.settings.source));
        }
        Ok::<Report, Failure>(examine(&config.settings, &places, &mut |finding| shown.finding(finding), stop).await)
    })?;
    // A disk that doesn't answer must not keep the process.
    runtime.shutdown_background();
    let text = if json { format!("{:#}\n", report.json()) } else { report.closing() };
    io::stdout().write_all(text.as_bytes())?;
    let interrupted = report.findings.iter().any(|finding| finding.outcome == Outcome::Skipped && finding.text == "interrupted");
    match (report.is_healthy(), interrupted) {
        (true, false) => Ok(()),
        (true, true) => Err(Failure::Failed(format!("{} was not looked at to the end: interrupted", report.source))),
        (false, _) => Err(Failure::Failed(format!("a mount of {} would not work as it should: see above", report.source))),
    }
}

/// Findings on standard output as they come, under their headings.
struct Shown {
    silent: bool,
    colour: bool,
    heading: &'static str,
}

impl Shown {
    fn new(silent: bool) -> Self {
        let colour = io::stdout().is_terminal() && variable("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { silent, colour, heading: "" }
    }

    fn finding(&mut self, finding: &Finding) {
        if self.silent {
            return;
        }
        let heading = finding.step.names().0;
        if heading != self.heading {
            self.heading = heading;
            self.say(&format!("{heading}\n"));
        }
        self.say(&finding.shown(self.colour));
    }

    /// A reader that went away is no reason to leave keys in the bucket.
    fn say(&self, text: &str) {
        let mut output = io::stdout().lock();
        output.write_all(text.as_bytes()).and_then(|()| output.flush()).ok();
    }
}
