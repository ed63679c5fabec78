//! `mediafs url PATH [--expires 1h]`: a link to the file's object, as the mount makes it: under its `--public-url-base`, else
//! signed with its credentials, which this command never sees.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command};

use super::{Failure, attribute};

/// The longest that S3 lets a signature be valid.
const LONGEST_SECONDS: u64 = 7 * 24 * 3600;

pub fn command() -> Command {
    Command::new("url")
        .about("Print a link to a file: public where the mount has --public-url-base, else signed")
        .arg(Arg::new("path").value_name("PATH").required(true).value_parser(clap::value_parser!(PathBuf)))
        .arg(
            Arg::new("expires")
                .long("expires")
                .value_name("TIME")
                .default_value("1h")
                .help("How long a signed link works, to 7 days; temporary credentials may end it earlier"),
        )
}

pub fn run(arguments: &ArgMatches) -> Result<(), Failure> {
    let Some(path) = arguments.get_one::<PathBuf>("path") else { return Ok(()) };
    let seconds = seconds(arguments.get_one::<String>("expires").map(String::as_str).unwrap_or_default())?;
    attribute::mount_root(path)?;
    let failed = |error: io::Error| {
        let text = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => error.to_string(),
            _ => format!("there is no link to it, which only regular files have ({error})"),
        };
        Failure::Failed(format!("{}: {text}", path.display()))
    };
    let url = attribute::read(path, &format!("user.mediafs.url.{seconds}")).map_err(failed)?;
    if attribute::read(path, "user.mediafs.state").is_ok_and(|state| matches!(state.as_str(), "dirty" | "uploading" | "failed")) {
        eprintln!("mediafs: {} is not in the bucket yet, so the link is not of what was saved last; see mediafs flush", path.display());
    }
    writeln!(io::stdout(), "{url}")?;
    Ok(())
}

fn seconds(text: &str) -> Result<u64, Failure> {
    let seconds = text.parse().ok().or_else(|| humantime::parse_duration(text).ok().map(|time| time.as_secs()));
    let wrong = || Failure::Usage(format!("--expires {text}: write a time from 1s to 7d, like 15m or 1d"));
    seconds.filter(|seconds| (1..=LONGEST_SECONDS).contains(seconds)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_seconds_up_to_a_week() {
        for (text, expected) in [("1h", 3600), ("90", 90), ("7d", LONGEST_SECONDS), ("1m 30s", 90)] {
            assert_eq!(seconds(text).ok(), Some(expected), "{text}");
        }
        for text in ["", "0", "500ms", "8d", "soon", "-1h"] {
            let error = seconds(text).expect_err(text).to_string();
            assert!(error.contains("--expires") && error.contains("7d"), "{error}");
        }
    }
}
