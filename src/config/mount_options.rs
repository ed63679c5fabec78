//! `-o` in the style of fstab: `-o allow_other,uid=1000,_netdev`. Pure.
//!
//! fstab lines carry words for other programs (systemd, mount itself, network scripts): they are accepted and ignored.
//! Anything else that is unknown is refused, since it would silently do nothing.

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
    "atime",
    "noatime",
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

/// What `-o` said.
#[derive(Clone, Debug, Default)]
pub struct MountOptionWords {
    pub layer: Layer,
    /// Programs on the mount can't be run.
    pub no_exec: bool,
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
            "ro" | "rw" | "exec" | "noexec" if value.is_some() => return Err(error(format!("-o {name} takes no value: -o {name}"))),
            "ro" => parsed.set("read-only", "true"),
            "rw" => parsed.set("read-only", "false"),
            "noexec" => parsed.no_exec = true,
            "exec" => parsed.no_exec = false,
            _ if IGNORED.contains(&name) || IGNORED_BEGINNINGS.iter().any(|beginning| word.starts_with(beginning)) => {}
            _ => parsed.option(name, value)?,
        }
    }
    Ok(parsed)
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
    fn noexec_is_honoured() {
        assert!(parse(["noexec"]).expect("valid").no_exec);
        assert!(!parse(["noexec,exec"]).expect("valid").no_exec);
    }

    #[test]
    fn mistakes_are_named() {
        for (words, part) in [
            ("alow_other", "did you mean allow-other?"),
            ("uid", "-o uid needs a value"),
            ("frobnicate", "no such option"),
            ("ro=off", "-o ro takes no value"),
        ] {
            let error = parse([words]).expect_err("refused").to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
