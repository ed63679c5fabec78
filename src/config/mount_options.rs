//! `-o` in the style of fstab: `-o allow_other,uid=1000,_netdev`. Pure.
//!
//! fstab lines carry words for other programs (systemd, mount itself, network scripts): they are accepted and ignored.
//! Anything else that is unknown is refused, since it would silently do nothing.

use std::path::PathBuf;

use super::layers::{Layer, Origin, nearest};
use super::options::own_name;
use super::{ConfigError, error};

/// Words that mean nothing to us, or what holds anyway.
const IGNORED: &[&str] = &[
    "defaults",
    "rw",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "exec",
    "relatime",
    "norelatime",
    "nodiratime",
    "diratime",
    "strictatime",
    "lazytime",
    "nolazytime",
    "async",
    "dev",
    "nodev",
    "suid",
    "nosuid",
    "default_permissions",
    "silent",
    "loud",
];
const IGNORED_BEGINNINGS: &[&str] = &["x-", "X-", "comment=", "fsname=", "subtype="];

/// What a file system's users ask of any file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VfsFlags {
    /// Programs on the mount can't be run.
    pub no_exec: bool,
    /// Reading moves no access time.
    pub no_access_times: bool,
}

/// What `-o` said.
#[derive(Clone, Debug, Default)]
pub struct MountOptionWords {
    pub layer: Layer,
    /// The configuration file, of `config=FILE`.
    pub file: Option<PathBuf>,
    pub flags: VfsFlags,
}

/// `words` are the arguments of every `-o`, in order; a later word wins.
pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<MountOptionWords, ConfigError> {
    let mut parsed = MountOptionWords::default();
    for word in words.into_iter().flat_map(split) {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word.as_str(), None),
        };
        match name {
            "ro" | "rw" | "exec" | "noexec" | "atime" | "noatime" if value.is_some() => {
                return Err(error(format!("-o {name} takes no value: -o {name}")));
            }
            "ro" => parsed.set("read-only", "true"),
            "rw" => parsed.set("read-only", "false"),
            "noexec" => parsed.flags.no_exec = true,
            "exec" => parsed.flags.no_exec = false,
            "noatime" => parsed.flags.no_access_times = true,
            "atime" => parsed.flags.no_access_times = false,
            "config" => {
                parsed.file = Some(PathBuf::from(value.ok_or_else(|| error("-o config needs a value: -o config=FILE".to_owned()))?))
            }
            _ if IGNORED.contains(&name) || IGNORED_BEGINNINGS.iter().any(|beginning| word.starts_with(beginning)) => {}
            _ => parsed.option(name, value)?,
        }
    }
    Ok(parsed)
}

/// What a remount can change: flags that the kernel keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remount {
    pub read_only: bool,
    pub no_exec: bool,
}

/// What to change, where the words ask for a remount. Everything else in them stands in fstab or in the table of mounts, from
/// which mount(8) repeats it: a running daemon keeps its options.
pub fn remount(words: &[&str]) -> Option<Remount> {
    let mut change = Remount::default();
    let mut asked = false;
    for word in words.iter().flat_map(|words| split(words)) {
        match word.as_str() {
            "remount" => asked = true,
            "ro" => change.read_only = true,
            "rw" => change.read_only = false,
            "noexec" => change.no_exec = true,
            "exec" => change.no_exec = false,
            _ => {}
        }
    }
    asked.then_some(change)
}

impl MountOptionWords {
    fn set(&mut self, name: &'static str, text: &str) {
        self.layer.set(name, text.to_owned(), Origin::MountOption);
    }

    fn option(&mut self, name: &str, value: Option<&str>) -> Result<(), ConfigError> {
        let known = own_name(&name.replace('_', "-"));
        let known = known.ok_or_else(|| error(format!("-o {name}: there is no such option{}", nearest(name))))?;
        let takes_value = super::options::find(known).is_some_and(|option| option.value.is_some());
        match value {
            Some(value) => self.set(known, value),
            None if takes_value => return Err(error(format!("-o {name} needs a value: -o {name}=…"))),
            None => self.set(known, "true"),
        }
        Ok(())
    }
}

/// At commas; `\,` is a comma in a value.
fn split(words: &str) -> Vec<String> {
    let mut split = vec![String::new()];
    let mut rest = words.chars();
    while let Some(c) = rest.next() {
        let word = split.last_mut();
        match (c, word) {
            (',', _) => split.push(String::new()),
            ('\\', Some(word)) => word.push(rest.next().unwrap_or('\\')),
            (c, Some(word)) => word.push(c),
            (_, None) => {}
        }
    }
    split.retain(|word| !word.is_empty());
    split
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(words: &[&str], name: &str) -> Option<String> {
        let parsed = parse(words.iter().copied()).expect("valid");
        parsed.layer.get(name).map(|given| given.text.clone())
    }

    #[test]
    fn words_become_options() {
        for (words, name, expected) in [
            (&["allow_other"][..], "allow-other", Some("true")),
            (&["uid=www-data,umask=027"], "uid", Some("www-data")),
            (&["ro"], "read-only", Some("true")),
            (&["ro", "rw"], "read-only", Some("false")),
            (&["cache_dir=/a\\,b,ttl=1s"], "cache-dir", Some("/a,b")),
            (&["cache-size=1GiB"], "cache-size", Some("1GiB")),
            (&["ttl=1s", "ttl=2s"], "ttl", Some("2s")),
            (&["endpoint_url=http://h:1/?a=b"], "endpoint-url", Some("http://h:1/?a=b")),
            (&["_netdev,,nofail"], "ttl", None),
        ] {
            assert_eq!(text(words, name).as_deref(), expected, "{words:?}");
        }
    }

    #[test]
    fn words_for_others_are_ignored() {
        let line = "rw,nosuid,nodev,_netdev,nofail,noatime,x-systemd.automount,x-systemd.idle-timeout=60,comment=hi,auto,dev,suid";
        assert!(parse([line]).is_ok());
    }

    #[test]
    fn noexec_and_noatime_are_honoured() {
        for (words, no_exec, no_access_times) in [
            ("rw", false, false),
            ("noexec", true, false),
            ("noexec,exec", false, false),
            ("noatime", false, true),
            ("noatime,atime", false, false),
        ] {
            assert_eq!(parse([words]).expect("valid").flags, VfsFlags { no_exec, no_access_times }, "{words}");
        }
    }

    #[test]
    fn the_file_of_options_can_be_named() {
        assert_eq!(parse(["rw,config=/etc/mediafs/m.toml"]).expect("valid").file, Some(PathBuf::from("/etc/mediafs/m.toml")));
    }

    #[test]
    fn a_remount_changes_flags_alone() {
        let change = |read_only, no_exec| Some(Remount { read_only, no_exec });
        for (words, expected) in [
            (&["rw,uid=33"][..], None),
            (&["rw,remount"], change(false, false)),
            (&["remount,ro"], change(true, false)),
            (&["ro,nosuid,nodev,user_id=0,noexec,remount", "rw"], change(false, true)),
        ] {
            assert_eq!(remount(words), expected, "{words:?}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (words, part) in [
            ("alow_other", "did you mean allow-other?"),
            ("uid", "-o uid needs a value"),
            ("config", "-o config=FILE"),
            ("frobnicate", "no such option"),
            ("ro=off", "-o ro takes no value"),
        ] {
            let error = parse([words]).expect_err("refused").to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
