//! Every option of a mount, once: its name, what it takes, its default and its help.
//!
//! The command line, the environment, the configuration file, `-o` and the README's table all come from this list. An
//! option `a-b` is `--a-b` as a flag, `MEDIAFS_A_B` in the environment, `a-b = …` in the file and `a_b=…` in `-o`.

/// One option.
#[derive(Debug)]
pub struct OptionSpec {
    pub name: &'static str,
    /// What the value is called in the help. None: a switch, which may also be given as `=true` or `=false`.
    pub value: Option<&'static str>,
    /// As it is shown; empty where there is none.
    pub default: &'static str,
    pub help: &'static str,
}

impl OptionSpec {
    pub fn environment(&self) -> String {
        format!("MEDIAFS_{}", self.name.replace('-', "_").to_uppercase())
    }
}

const fn takes(name: &'static str, value: &'static str, default: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec { name, value: Some(value), default, help }
}

const fn switch(name: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec { name, value: None, default: "", help }
}

pub const OPTIONS: &[OptionSpec] = &[
    takes("endpoint-url", "URL", "", "Where the bucket is served; AWS, or R2 by R2_ACCOUNT_ID, without it"),
    takes("region", "REGION", "", "The bucket's region; `auto` on R2"),
    takes("ca-file", "FILE", "", "PEM certificates to trust beside the system's"),
    takes("credentials-file", "FILE", "", "Keys in the form of ~/.aws/credentials; nothing else is asked for any then"),
    takes("profile", "NAME", "", "Which profile of that file, or of AWS' own files"),
    takes("cache-dir", "DIR", "", "Where cached and unsent data lies; one directory for each bucket and prefix"),
    takes("cache-size", "SIZE", "10GiB", "Most that the cache directory may hold"),
    takes("free-space-floor", "SIZE|PERCENT", "", "Free space to leave on its disk; the smaller of 1 GiB and 5 % without it"),
    takes("memory-limit", "SIZE", "128MiB", "Most memory that the daemon plans with"),
    takes("write-mode", "back|through", "back", "close() returns when data is safe locally (back) or in the bucket (through)"),
    takes("ttl", "TIME", "10s", "How long names and attributes are believed before the bucket is asked again"),
    takes("negative-ttl", "TIME", "1s", "The same for names that were not there"),
    switch("exclusive", "Nobody else writes this prefix: what is known never expires"),
    takes(
        "passthrough",
        "read|all|off",
        "read",
        "Which files the kernel reads (all: and writes) by itself, at the local disk's speed; what is being written has no checksums then",
    ),
    switch("read-only", "Refuse every change"),
    switch("allow-other", "Let other users than the one who mounts use the files"),
    takes("run-as", "USER", "", "Become this user, by name or number, who keeps the right to mount and no other; takes root"),
    takes("uid", "USER", "", "Owner of files that carry none, by name or number; the caller without it"),
    takes("gid", "GROUP", "", "Group of files that carry none, by name or number; the caller's without it"),
    takes("umask", "OCTAL", "022", "Permissions taken from files and directories that carry none"),
    takes("posix-metadata", "on|off", "on", "Keep mode, owner, times and symlinks with the objects"),
    takes("timeout", "TIME", "60s", "Longest wait for the bucket before an operation fails"),
    takes("drain-timeout", "TIME", "5m", "At the end, longest wait until everything is uploaded"),
    takes("on-conflict", "keep-both|overwrite|hold", "keep-both", "What becomes of a file that another host has changed too"),
    switch("unsafe-symlinks", "Follow symlinks from the bucket that lead out of the mount"),
    takes("public-url-base", "URL", "", "Where the bucket is public, for the attribute user.mediafs.url"),
    takes("metrics", "ADDRESS", "", "Serve a status page, /metrics (Prometheus) and /healthz there: a port of loopback, or HOST:PORT"),
    takes("log-level", "LEVEL", "info", "error, warn, info, debug or trace"),
    takes("log-format", "text|json", "text", "How log lines look"),
    takes("log-file", "FILE", "", "Where the log goes on; to standard error without it, of mount(8) to the journal"),
];

pub fn find(name: &str) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|option| option.name == name)
}

/// The list's own `name`, for keys of maps.
pub(super) fn own_name(name: &str) -> Option<&'static str> {
    find(name).map(|option| option.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_can_be_written_everywhere() {
        for (index, option) in OPTIONS.iter().enumerate() {
            assert!(option.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", option.name);
            assert!(OPTIONS[..index].iter().all(|other| other.name != option.name), "{} is there twice", option.name);
            assert!(!option.help.is_empty() && !option.help.ends_with('.'));
        }
        assert_eq!(find("cache-size").map(OptionSpec::environment), Some("MEDIAFS_CACHE_SIZE".to_owned()));
    }
}
