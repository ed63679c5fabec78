//! mount(8)'s helper: `mount -t mediafs s3://BUCKET /srv/media -o …`, a line of /etc/fstab, `mount -o remount,ro`.
//!
//! Called as `mount.mediafs` or `mount.fuse.mediafs` (links to the program in /sbin), or by mount.fuse3 with the bucket as
//! its first argument. The daemon goes to the background when the mount answers. There is no terminal then: the log goes to
//! `log_file=…`, else to the journal of systemd where there is one.
//!
//! Exit codes are mount(8)'s own: 1 the words are wrong, 32 the mount failed.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::background::{self, Side};
use super::{Failure, logging, mount};
use crate::config::{self, Config};
use crate::daemon::{self, Daemon, Reread};
use crate::fuse;

const WRONG_WORDS: u8 = 1;
const MOUNT_FAILED: u8 = 32;
const NAMES: [&str; 2] = ["mount.mediafs", "mount.fuse.mediafs"];

/// Whether these arguments (the program's name first) are mount(8)'s.
pub fn is_meant(arguments: &[OsString]) -> bool {
    let name = arguments.first().and_then(|path| Path::new(path).file_name());
    let first = arguments.get(1).map(|word| word.to_string_lossy()).unwrap_or_default();
    name.is_some_and(|name| NAMES.iter().any(|ours| name == OsStr::new(ours))) || first.starts_with("s3://") || first.starts_with("r2://")
}

pub(super) fn command() -> Command {
    let flag = |name: &'static str| Arg::new(name).short(name.chars().next()).action(ArgAction::SetTrue);
    Command::new("mount.mediafs")
        .version(env!("CARGO_PKG_VERSION"))
        .about("What mount(8) calls for `mount -t mediafs`, and for lines of /etc/fstab with that type")
        .arg(Arg::new("url").value_name("s3://BUCKET[/PREFIX]").required(true))
        .arg(Arg::new("mountpoint").value_name("MOUNTPOINT").required(true).value_parser(clap::value_parser!(PathBuf)))
        .arg(
            Arg::new("o").short('o').value_name("OPTION,…").action(ArgAction::Append).help(
                "ro, noexec, noatime, config=FILE, every option of mediafs-mount(1) as cache_size=20GiB, and what fstab has for others",
            ),
        )
        // Nothing is mounted, everything is checked.
        .arg(flag("f").help("Check everything, mount nothing"))
        // mount(8) may also say: write no mtab, tolerate unknown words (autofs; ours would do nothing unseen, so they are
        // refused all the same), say more, and the type.
        .args(["n", "s", "v"].map(|name| flag(name).hide(true)))
        .arg(Arg::new("t").short('t').value_name("TYPE").hide(true))
}

pub fn run(arguments: &[OsString]) -> ExitCode {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) if !error.use_stderr() => {
            error.print().ok();
            return ExitCode::SUCCESS;
        }
        Err(error) => return tell(&Failure::Usage(super::one_line(&error.render().to_string()))),
    };
    carry_out(&matches).unwrap_or_else(|failure| tell(&failure))
}

fn tell(failure: &Failure) -> ExitCode {
    eprintln!("mount.mediafs: {}", failure.to_string().replace(['\n', '\r'], " "));
    match failure {
        Failure::Usage(_) => ExitCode::from(WRONG_WORDS),
        Failure::Failed(_) => ExitCode::from(MOUNT_FAILED),
    }
}

fn carry_out(arguments: &ArgMatches) -> Result<ExitCode, Failure> {
    let words: Vec<&str> = arguments.get_many::<String>("o").into_iter().flatten().map(String::as_str).collect();
    let url = arguments.get_one::<String>("url").map(String::as_str).unwrap_or_default();
    let mountpoint = arguments.get_one::<PathBuf>("mountpoint").map(PathBuf::as_path).unwrap_or(Path::new(""));
    if let Some(change) = config::remount(&words) {
        fuse::remount(mountpoint, change.read_only, change.no_exec)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut parsed = config::parse_mount_options(without_default(&words))?;
    // Read again, the daemon's directory is another.
    parsed.file = parsed.file.map(std::path::absolute).transpose()?;
    let (url, mountpoint) = (url.to_owned(), std::path::absolute(mountpoint)?);
    let configured = move || mount::configure(&url, &mountpoint, parsed.clone(), Vec::new());
    let config = configured()?;
    if arguments.get_flag("f") {
        return Ok(ExitCode::SUCCESS);
    }
    match background::split(MOUNT_FAILED)? {
        Side::Caller(code) => Ok(code),
        Side::Daemon(ready) => serve(config, ready, mount::rereading(configured)),
    }
}

/// mount(8) puts `rw` in front of every line that doesn't say `ro`: nobody's wish, which must not go before the file's.
fn without_default<'a>(words: &[&'a str]) -> Vec<&'a str> {
    words.iter().map(|words| words.strip_prefix("rw,").unwrap_or(words)).filter(|words| *words != "rw").collect()
}

fn serve(config: Config, ready: background::Ready, reread: Reread) -> Result<ExitCode, Failure> {
    logging::start_unseen(&config)?;
    daemon::run_as(&config.settings)?;
    let runtime = daemon::runtime()?;
    runtime.block_on(async {
        let daemon = Daemon::mount(config.settings).await?.rereading(reread);
        // Without its caller, who was told by a signal that it shall end, the mount goes on.
        ready.tell().ok();
        daemon.serve().await;
        Ok::<(), Failure>(())
    })?;
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_by_its_name_or_by_a_bucket_without_a_command() {
        for (arguments, expected) in [
            (&["/sbin/mount.mediafs"][..], true),
            (&["/usr/sbin/mount.fuse.mediafs", "s3://b", "/m"], true),
            (&["mediafs", "s3://b", "/m", "-o", "rw"], true),
            (&["mediafs", "r2://b", "/m"], true),
            (&["mediafs", "mount", "s3://b", "/m"], false),
            (&["mediafs"], false),
            (&[], false),
        ] {
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            assert_eq!(is_meant(&arguments), expected, "{arguments:?}");
        }
    }

    #[test]
    fn the_words_of_mount_are_understood() {
        command().debug_assert();
        for words in ["s3://b /m -o rw,_netdev", "s3://b /m -sfnv -o ro -t fuse.mediafs", "-n s3://b /m"] {
            let arguments = ["mount.mediafs"].into_iter().chain(words.split(' '));
            assert!(command().try_get_matches_from(arguments).is_ok(), "{words}");
        }
    }

    #[test]
    fn the_rw_that_mount_puts_in_front_is_nobodys_wish() {
        for (words, expected) in [(&["rw"][..], &[][..]), (&["rw,uid=3"], &["uid=3"]), (&["ro,rw"], &["ro,rw"]), (&["ro"], &["ro"])] {
            assert_eq!(without_default(words), expected);
        }
    }
}
