//! `mediafs ls-conflicts PATH` and `mediafs resolve PATH --keep …`: files that two hosts changed at the same time.
//!
//! There are two kinds. With `--on-conflict keep-both` the other version lies beside the name, as
//! `NAME.conflict-HOST-TIME.EXT`; it is found by that name, whichever host made it. With `hold` it is kept on this host under
//! the name itself, and the mount's status lists it as failed.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint};

use super::{Failure, attribute};
use crate::error::Error;
use crate::types::Key;

const MARK: &str = ".conflict-";
/// `YYYYMMDDTHHMMSS`.
const STAMP_DIGITS: usize = 15;
/// Set on a held file, it gives the version of this host up.
const RESOLVE_ATTRIBUTE: &str = "user.mediafs.resolve";

pub fn list_command() -> Command {
    Command::new("ls-conflicts")
        .about("List files that two hosts changed at the same time, below a directory")
        .after_help("Ends with 0, whether there are any or not.")
        .arg(
            Arg::new("path")
                .value_name("PATH")
                .required(true)
                .value_parser(clap::value_parser!(PathBuf))
                .value_hint(ValueHint::DirPath)
                .help("A directory on a mount"),
        )
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("For programs: one object a line"))
}

pub fn resolve_command() -> Command {
    Command::new("resolve")
        .about("Decide which version of a conflict stays")
        .arg(
            Arg::new("path")
                .value_name("PATH")
                .required(true)
                .value_parser(clap::value_parser!(PathBuf))
                .value_hint(ValueHint::FilePath)
                .help("As ls-conflicts shows it: NAME.conflict-HOST-TIME.EXT, or a file that is held"),
        )
        .arg(Arg::new("keep").long("keep").value_name("copy|name|both").required(true).value_parser(["copy", "name", "both"]).help(
            "copy: the version that was put aside, or is held here, gets the name; name: what the bucket has under the name stays; \
                 both: the version put aside becomes a file of its own",
        ))
}

/// What a conflict copy's name says.
#[derive(Debug, PartialEq, Eq)]
struct CopyName {
    /// The name that both wanted.
    original: String,
    /// `HOST-TIME`, unique beside that name.
    tag: String,
}

impl CopyName {
    /// None: an ordinary name.
    fn parse(name: &str) -> Option<Self> {
        let at = name.rfind(MARK)?;
        let (stem, rest) = (&name[..at], &name[at + MARK.len()..]);
        let stamp = (0..rest.len()).find(|&at| rest[..at].ends_with('-') && is_stamp(rest.get(at..at + STAMP_DIGITS)))?;
        let after = &rest[stamp + STAMP_DIGITS..];
        let number = after.strip_prefix('-').map_or(0, |digits| 1 + digits.bytes().take_while(u8::is_ascii_digit).count());
        let extension = &after[number..];
        let whole = extension.is_empty() || extension.starts_with('.');
        let host = &rest[..stamp - 1];
        (whole && !stem.is_empty() && !host.is_empty())
            .then(|| Self { original: format!("{stem}{extension}"), tag: rest[..stamp + STAMP_DIGITS + number].to_owned() })
    }

    /// As a file of its own: `NAME-HOST-TIME.EXT`.
    fn own_name(&self) -> String {
        let dot = self.original.rfind('.').filter(|&dot| dot > 0).unwrap_or(self.original.len());
        let (stem, extension) = self.original.split_at(dot);
        format!("{stem}-{}{extension}", self.tag)
    }
}

fn is_stamp(text: Option<&str>) -> bool {
    text.is_some_and(|text| text.bytes().enumerate().all(|(at, byte)| if at == 8 { byte == b'T' } else { byte.is_ascii_digit() }))
}

pub fn list(arguments: &ArgMatches) -> Result<(), Failure> {
    let Some(path) = arguments.get_one::<PathBuf>("path") else { return Ok(()) };
    let root = attribute::mount_root(path)?;
    let top = fs::canonicalize(path)?;
    let json = arguments.get_flag("json");
    let mut output = io::stdout().lock();
    let mut say = |kind: &str, path: &Path, name: &Path| {
        let (shown, shown_name) = (path.display().to_string(), name.display().to_string());
        if json {
            let kind = kind.to_owned();
            return writeln!(output, "{}", serde_json::json!({ "kind": kind, "path": shown, "name": shown_name }));
        }
        let safe = |text: &str| Key::from(text).to_string();
        match kind {
            "held" => writeln!(output, "{}  held here: the bucket has another version", safe(&shown)),
            _ => writeln!(output, "{}  beside {}", safe(&shown), safe(&shown_name)),
        }
    };
    for held in held(&root)?.iter().filter(|held| held.starts_with(&top)) {
        say("held", held, held)?;
    }
    let mut directories = vec![top];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory).map_err(|error| Failure::Failed(format!("{}: {error}", directory.display())))?;
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else if let Some(copy) = entry.file_name().to_str().and_then(CopyName::parse) {
                say("copy", &entry.path(), &directory.join(copy.original))?;
            }
        }
    }
    Ok(())
}

/// Files of which this host has a version that the bucket refused for another one.
fn held(root: &Path) -> Result<Vec<PathBuf>, Failure> {
    let (_, report) = attribute::report(root)?;
    let conflicts = [Error::Exists.to_string(), Error::Stale.to_string()];
    Ok(report.failed.into_iter().filter(|failed| conflicts.contains(&failed.error)).map(|failed| root.join(failed.path)).collect())
}

pub fn resolve(arguments: &ArgMatches) -> Result<(), Failure> {
    let Some(path) = arguments.get_one::<PathBuf>("path") else { return Ok(()) };
    let keep = arguments.get_one::<String>("keep").map(String::as_str).unwrap_or_default();
    let root = attribute::mount_root(path)?;
    let path = fs::canonicalize(path)?;
    let failed = |error: io::Error| Failure::Failed(format!("{}: {error}", path.display()));
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if let Some(copy) = CopyName::parse(name) {
        return keep_copy(&path, &copy, keep).map_err(failed);
    }
    if !held(&root)?.contains(&path) {
        let text =
            format!("{} is no conflict: neither a copy NAME.conflict-HOST-TIME nor held here; see mediafs ls-conflicts", path.display());
        return Err(Failure::Failed(text));
    }
    keep_held(&path, keep).map_err(failed)
}

fn keep_copy(path: &Path, copy: &CopyName, keep: &str) -> io::Result<()> {
    let original = path.with_file_name(&copy.original);
    match keep {
        "copy" => {
            fs::rename(path, &original)?;
            eprintln!("{} is now what the copy was", original.display());
        }
        "name" => {
            // Were the name gone, this would be the last version.
            fs::symlink_metadata(&original)?;
            fs::remove_file(path)?;
            eprintln!("{} stays as it is, the copy is gone", original.display());
        }
        _ => {
            let own = path.with_file_name(copy.own_name());
            rename_new(path, &own)?;
            eprintln!("{} stays as it is, the copy is now {}", original.display(), own.display());
        }
    }
    Ok(())
}

/// Never over another file.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} is there already", to.display())));
    }
    fs::rename(from, to)
}

fn keep_held(path: &Path, keep: &str) -> io::Result<()> {
    let beside = |word: &str| {
        let (stem, extension) = (path.file_stem().unwrap_or_default(), path.extension());
        let mut name = stem.to_owned();
        name.push(format!("-{word}-{}", std::process::id()));
        extension.into_iter().for_each(|extension| name.extend([std::ffi::OsStr::new("."), extension]));
        path.with_file_name(name)
    };
    match keep {
        // A file that is renamed over a name replaces whatever the bucket has there.
        "copy" => {
            let temporary = beside("resolving");
            copy_whole(path, &temporary)?;
            fs::rename(&temporary, path)?;
            eprintln!("{} replaces what the bucket has", path.display());
        }
        "name" => {
            attribute::set(path, RESOLVE_ATTRIBUTE, "name")?;
            eprintln!("{} is what the bucket has", path.display());
        }
        _ => {
            let own = beside("held");
            copy_whole(path, &own)?;
            attribute::set(path, RESOLVE_ATTRIBUTE, "name")?;
            eprintln!("{} is what the bucket has, the version of this host is now {}", path.display(), own.display());
        }
    }
    Ok(())
}

/// Content and mode; on the disk before the original may go.
fn copy_whole(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = fs::File::open(from)?;
    let mut copy = fs::OpenOptions::new().write(true).create_new(true).open(to)?;
    let done = io::copy(&mut source, &mut copy).and_then(|_| copy.set_permissions(source.metadata()?.permissions()));
    if done.is_err() {
        fs::remove_file(to).ok();
    }
    done
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::writer::conflict_key;

    #[test]
    fn names_of_copies_are_read_as_they_are_made() {
        let time = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for (name, host, attempt, tag) in [
            ("b.jpg", "web 1.local", 1, "web-1-local-20231114T221320"),
            ("b", "h", 2, "h-20231114T221320-2"),
            (".profile", "h", 1, "h-20231114T221320"),
            ("a.tar.gz", "h", 12, "h-20231114T221320-12"),
        ] {
            let key = conflict_key(&Key::from(name), host, time, attempt);
            let copy = CopyName::parse(key.as_str()).expect("a copy");
            assert_eq!((copy.original.as_str(), copy.tag.as_str()), (name, tag));
        }
        for name in
            ["b.jpg", "a.conflict-x", "a.conflict-h-20231114T22132.jpg", ".conflict-h-20231114T221320", "a.conflict-h-20231114T221320x"]
        {
            assert_eq!(CopyName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn each_choice_keeps_what_it_says() {
        for (keep, expected) in [
            ("copy", &[("a.jpg", "copy")][..]),
            ("name", &[("a.jpg", "name")]),
            ("both", &[("a-web-20231114T221320.jpg", "copy"), ("a.jpg", "name")]),
        ] {
            let directory = tempfile::tempdir().expect("directory");
            let copy = directory.path().join("a.conflict-web-20231114T221320.jpg");
            fs::write(&copy, "copy").expect("file");
            fs::write(directory.path().join("a.jpg"), "name").expect("file");
            let name = CopyName::parse(copy.file_name().and_then(|name| name.to_str()).expect("name")).expect("a copy");
            keep_copy(&copy, &name, keep).expect("resolved");
            let mut left: Vec<_> = fs::read_dir(directory.path()).expect("list").map(|entry| entry.expect("entry").path()).collect();
            left.sort();
            let left: Vec<_> = left
                .iter()
                .map(|path| (path.file_name().expect("name").to_str().expect("UTF-8").to_owned(), fs::read_to_string(path).expect("text")))
                .collect();
            assert_eq!(left, expected.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect::<Vec<_>>(), "{keep}");
        }
    }

    #[test]
    fn the_last_version_is_not_removed() {
        let directory = tempfile::tempdir().expect("directory");
        let copy = directory.path().join("a.conflict-web-20231114T221320.jpg");
        fs::write(&copy, "copy").expect("file");
        let name = CopyName::parse("a.conflict-web-20231114T221320.jpg").expect("a copy");
        assert!(keep_copy(&copy, &name, "name").is_err() && copy.exists());
    }
}
