//! The command line: one file a subcommand. Exit codes: 0 all went well, 1 it did not, 2 the command line is wrong. Called
//! by mount(8), the program is another one: see `fstab`.
//!
//! Whatever goes wrong is one line on standard error, `mediafs: …`, that says what to change. Results go to standard
//! output, logs to standard error.

mod attribute;
mod background;
mod check;
mod conflicts;
mod demo;
mod doctor;
mod emulator;
mod flush;
mod fstab;
mod logging;
mod manual;
mod mount;
mod progress;
mod recover;
mod secrets;
mod status;
mod url;
mod warm;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgMatches, Command};
use thiserror::Error;

use crate::config::ConfigError;
use crate::daemon::DaemonError;
use crate::fuse::MountError;

/// Why a command failed.
#[derive(Debug, Error)]
enum Failure {
    /// The command line, the environment or the configuration file is wrong.
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Failed(String),
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<crate::emulator::Error> for Failure {
    fn from(error: crate::emulator::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

fn command() -> Command {
    Command::new("mediafs")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Mounts an S3 or Cloudflare R2 bucket as a local media directory")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .max_term_width(110)
        .subcommand(mount::command())
        .subcommand(demo::command())
        .subcommand(status::command())
        .subcommand(flush::command())
        .subcommand(warm::command())
        .subcommand(url::command())
        .subcommand(conflicts::list_command())
        .subcommand(conflicts::resolve_command())
        .subcommand(recover::command())
        .subcommand(doctor::command())
        .subcommand(check::command())
        .subcommand(manual::completions_command())
        .subcommand(manual::man_command())
        .subcommand(emulator::command())
}

/// Runs what `arguments` ask for. For the first thread of a process, as long as it is the only one.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    secrets::hide();
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if fstab::is_meant(&arguments) {
        return fstab::run(&arguments);
    }
    let result = match command().try_get_matches_from(arguments) {
        Ok(matches) => dispatch(&matches),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // A reader that went away, as in `mediafs --help | head -1`, is no failure.
            error.print().ok();
            return ExitCode::SUCCESS;
        }
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            error.print().ok();
            return ExitCode::from(2);
        }
        Err(error) => Err(Failure::Usage(one_line(&error.render().to_string()))),
    };
    let Err(failure) = result else { return ExitCode::SUCCESS };
    eprintln!("mediafs: {}", failure.to_string().replace(['\n', '\r'], " "));
    match failure {
        Failure::Usage(_) => ExitCode::from(2),
        Failure::Failed(_) => ExitCode::FAILURE,
    }
}

fn dispatch(matches: &ArgMatches) -> Result<(), Failure> {
    match matches.subcommand() {
        Some(("mount", arguments)) => mount::run(arguments),
        Some(("demo", arguments)) => demo::run(arguments),
        Some(("status", arguments)) => status::run(arguments),
        Some(("flush", arguments)) => flush::run(arguments),
        Some(("warm", arguments)) => warm::run(arguments),
        Some(("url", arguments)) => url::run(arguments),
        Some(("ls-conflicts", arguments)) => conflicts::list(arguments),
        Some(("resolve", arguments)) => conflicts::resolve(arguments),
        Some(("recover", arguments)) => recover::run(arguments),
        Some(("doctor", arguments)) => doctor::run(arguments),
        Some(("config", arguments)) => check::run(arguments),
        Some(("completions", arguments)) => manual::completions(arguments, command()),
        Some(("man", arguments)) => manual::man(arguments, command()),
        Some(("emulator", arguments)) => emulator::run(arguments),
        _ => Err(Failure::Usage("say what to do: mediafs --help".to_owned())),
    }
}

/// clap's paragraphs as one line, without the usage that `--help` shows.
fn one_line(message: &str) -> String {
    let said = message.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let said: Vec<&str> = said.filter(|line| !line.is_empty()).collect();
    format!("{}; see --help", said.join(" ").trim_start_matches("error: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn a_wrong_command_line_is_told_in_one_line() {
        for (arguments, part) in [
            (&["mediafs", "mount"][..], "were not provided"),
            (&["mediafs", "mount", "s3://b", "/m", "--cache-sise", "1"], "--cache-size"),
            (&["mediafs", "frobnicate"], "frobnicate"),
            (&["mediafs", "mount", "s3://b", "/m", "--ttl"], "--ttl"),
        ] {
            let error = command().try_get_matches_from(arguments).expect_err("wrong");
            let line = one_line(&error.render().to_string());
            assert!(line.contains(part) && line.ends_with("; see --help") && !line.contains('\n'), "{line}");
        }
    }
}
