//! `mediafs config check FILE` and `mediafs config example`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command, ValueHint};

use super::Failure;
use crate::config::{self, Surroundings};

pub fn command() -> Command {
    let check = Command::new("check")
        .about("Look for mistakes in a configuration file; nothing is mounted or asked")
        .after_help("Ends with 0 if there is none, with 2 if there are: each is one line that says what to write.")
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .required(true)
                .value_parser(clap::value_parser!(PathBuf))
                .value_hint(ValueHint::FilePath)
                .help("What --config of mediafs mount names"),
        );
    Command::new("config")
        .about("Check a configuration file, or print one with every option")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(check)
        .subcommand(Command::new("example").about("Print a configuration file with every option, its meaning and its default"))
}

pub fn run(arguments: &ArgMatches) -> Result<(), Failure> {
    match arguments.subcommand() {
        Some(("check", arguments)) => check(arguments.get_one::<PathBuf>("file").map(PathBuf::as_path).unwrap_or(Path::new(""))),
        _ => Ok(io::stdout().write_all(config::example().as_bytes())?),
    }
}

fn check(path: &Path) -> Result<(), Failure> {
    let shown = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|error| Failure::Usage(format!("{shown}: can't read it: {error}")))?;
    // The file's own words: nothing of this shell's environment takes part.
    let none = |_: &str| None;
    let around = Surroundings {
        variable: &none,
        uid: 0,
        gid: 0,
        user: &config::user_id,
        group: &config::group_id,
        account: &config::account,
        directory: Path::new("/"),
    };
    let mut mistakes = config::mistakes(&shown, &text, &around);
    let Some(last) = mistakes.pop() else {
        writeln!(io::stdout(), "{shown}: no mistake found")?;
        return Ok(());
    };
    for mistake in mistakes {
        eprintln!("mediafs: {mistake}");
    }
    Err(last.into())
}
