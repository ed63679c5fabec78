//! `mediafs completions SHELL` and `mediafs man DIR`: what a package puts beside the program, made of its own definition.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command, ValueHint};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Failure, fstab};

const NAME: &str = "mediafs";

pub fn completions_command() -> Command {
    Command::new("completions")
        .about("Print what makes a shell complete commands and options")
        .after_help(
            "bash: mediafs completions bash > /etc/bash_completion.d/mediafs; zsh: … > /usr/local/share/zsh/site-functions/_mediafs; \
             fish: … > ~/.config/fish/completions/mediafs.fish",
        )
        .arg(Arg::new("shell").value_name("SHELL").required(true).value_parser(clap::value_parser!(Shell)))
}

pub fn man_command() -> Command {
    Command::new("man").about("Write the manual pages into a directory").arg(
        Arg::new("directory")
            .value_name("DIR")
            .required(true)
            .value_parser(clap::value_parser!(PathBuf))
            .value_hint(ValueHint::DirPath)
            .help("For man(1): a directory man1, and mount.mediafs.8 beside it in man8"),
    )
}

/// `program` is the whole definition.
pub fn completions(arguments: &ArgMatches, mut program: Command) -> Result<(), Failure> {
    let Some(shell) = arguments.get_one::<Shell>("shell") else { return Ok(()) };
    let mut script = Vec::new();
    clap_complete::generate(*shell, &mut program, NAME, &mut script);
    io::stdout().write_all(&script)?;
    Ok(())
}

/// One page for the program, one for each of its commands, and one for mount(8)'s helper.
pub fn man(arguments: &ArgMatches, mut program: Command) -> Result<(), Failure> {
    let Some(directory) = arguments.get_one::<PathBuf>("directory") else { return Ok(()) };
    let sections = ["man1", "man8"].map(|section| directory.join(section));
    for section in &sections {
        fs::create_dir_all(section).map_err(|error| Failure::Failed(format!("{}: {error}", section.display())))?;
    }
    program.build();
    pages(&program, &sections[0])?;
    write_page(&sections[1], "8", fstab::command())
}

fn pages(command: &Command, directory: &Path) -> Result<(), Failure> {
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help") {
        pages(inner, directory)?;
    }
    write_page(directory, "1", command.clone())
}

fn write_page(directory: &Path, section: &str, command: Command) -> Result<(), Failure> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let path = directory.join(format!("{name}.{section}"));
    let failed = |error: io::Error| Failure::Failed(format!("{}: {error}", path.display()));
    let mut text = Vec::new();
    Man::new(command.disable_help_subcommand(true)).section(section).manual("mediafs").render(&mut text).map_err(failed)?;
    fs::write(&path, text).map_err(failed)
}
