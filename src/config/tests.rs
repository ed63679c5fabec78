use std::collections::HashMap;

use super::*;

/// Resolves with these flags, environment variables and caller.
fn with(url: &str, flags: &[(&'static str, &str)], environment: &[(&str, &str)], uid: u32) -> Result<Config, ConfigError> {
    let environment: HashMap<String, String> = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let variable = |name: &str| environment.get(name).cloned();
    let by_name = |name: &str| (name == "www-data").then_some(33);
    let account = |name: &str| (name == "media").then(|| Account { name: name.into(), uid: 990, gid: 991 });
    let around = Surroundings {
        variable: &variable,
        uid,
        gid: uid,
        user: &by_name,
        group: &by_name,
        account: &account,
        directory: Path::new("/home/u"),
    };
    let layers = Layers(vec![Layer::new(&Origin::Flag, flags.iter().copied()), Layer::environment(&variable)]);
    resolve(url, Path::new("/srv/media"), &layers, VfsFlags::default(), &around)
}

fn settings(url: &str, flags: &[(&'static str, &str)], environment: &[(&str, &str)]) -> Settings {
    with(url, flags, environment, 0).expect("valid").settings
}

fn refusal(flags: &[(&'static str, &str)]) -> String {
    with("s3://media", flags, &[], 0).expect_err("refused").to_string()
}

#[test]
fn the_defaults_are_those_of_the_table() {
    let settings = settings("s3://media", &[], &[]);
    assert_eq!((settings.cache_size_bytes, settings.memory_limit_bytes), (10 << 30, 128 << 20));
    assert_eq!(settings.write_mode, WriteMode::Back);
    assert_eq!((settings.ttl, settings.negative_ttl), (Duration::from_secs(10), Duration::from_secs(1)));
    assert_eq!((settings.timeout, settings.drain_timeout), (Duration::from_secs(60), Duration::from_secs(300)));
    assert_eq!((settings.uid, settings.gid, settings.umask), (0, 0, 0o022));
    assert!(settings.posix_metadata && !settings.exclusive && !settings.read_only && !settings.allow_other);
    assert_eq!(settings.on_conflict, OnConflict::KeepBoth);
    assert_eq!(settings.free_space_floor, FreeSpaceFloor::Default);
    assert_eq!(settings.endpoint_url, None);
}

#[test]
fn every_option_can_be_set() {
    let flags = [
        ("endpoint-url", "http://127.0.0.1:9000/"),
        ("region", "eu-central-1"),
        ("ca-file", "/etc/ca.pem"),
        ("credentials-file", "keys"),
        ("profile", "media"),
        ("cache-dir", "/var/lib/c"),
        ("cache-size", "1GiB"),
        ("free-space-floor", "5%"),
        ("memory-limit", "256MiB"),
        ("write-mode", "through"),
        ("ttl", "1m"),
        ("negative-ttl", "0s"),
        ("exclusive", "true"),
        ("passthrough", "all"),
        ("read-only", "yes"),
        ("allow-other", "on"),
        ("run-as", "media"),
        ("uid", "www-data"),
        ("gid", "1000"),
        ("umask", "077"),
        ("posix-metadata", "off"),
        ("timeout", "5s"),
        ("drain-timeout", "10s"),
        ("on-conflict", "hold"),
        ("unsafe-symlinks", "1"),
        ("public-url-base", "https://cdn.example.com/"),
        ("metrics", "9464"),
        ("log-level", "debug"),
        ("log-format", "json"),
        ("log-file", "/var/log/mediafs.log"),
    ];
    assert_eq!(flags.map(|(name, _)| name).to_vec(), OPTIONS.iter().map(|option| option.name).collect::<Vec<_>>(), "all of them");
    let config = with("s3://media/p", &flags, &[], 0).expect("valid");
    let settings = config.settings;
    assert_eq!(settings.endpoint_url.as_deref(), Some("http://127.0.0.1:9000"));
    assert_eq!(settings.region.as_deref(), Some("eu-central-1"));
    assert_eq!((settings.credentials_file, settings.profile.as_deref()), (Some(PathBuf::from("/home/u/keys")), Some("media")));
    assert_eq!((settings.uid, settings.gid, settings.umask), (33, 1000, 0o077));
    assert!(settings.exclusive && settings.read_only && settings.allow_other && settings.unsafe_symlinks && !settings.posix_metadata);
    assert_eq!(settings.free_space_floor, FreeSpaceFloor::Percent(5));
    assert_eq!(settings.passthrough, crate::fuse::Passthrough::All);
    assert_eq!(settings.public_url_base.as_deref(), Some("https://cdn.example.com"));
    assert_eq!(settings.metrics, "127.0.0.1:9464".parse().ok());
    assert_eq!(settings.identity, "s3://media/p/ at http://127.0.0.1:9000");
    assert_eq!((config.log.level.as_str(), config.log.format), ("debug", LogFormat::Json));
    assert_eq!(config.log.file, Some(PathBuf::from("/var/log/mediafs.log")));
}

#[test]
fn endpoints_come_from_flag_then_environment() {
    let aws = [("AWS_ENDPOINT_URL", "https://a.example"), ("AWS_ENDPOINT_URL_S3", "https://b.example")];
    let of = |flags: &[(&'static str, &str)], environment: &[(&str, &str)]| settings("s3://media", flags, environment).endpoint_url;
    assert_eq!(of(&[("endpoint-url", "https://f.example")], &aws).as_deref(), Some("https://f.example"));
    assert_eq!(of(&[], &aws).as_deref(), Some("https://b.example"));
    assert_eq!(of(&[], &aws[..1]).as_deref(), Some("https://a.example"));
    assert_eq!(
        of(&[], &[("AWS_ENDPOINT_URL", "https://a.example"), ("MEDIAFS_ENDPOINT_URL", "https://m.example")]).as_deref(),
        Some("https://m.example")
    );
    let error = with("s3://media", &[], &[("AWS_ENDPOINT_URL", "nonsense")], 0).expect_err("refused").to_string();
    assert!(error.starts_with("AWS_ENDPOINT_URL=nonsense: write a URL"), "{error}");
}

#[test]
fn r2_implies_endpoint_region_and_rules() {
    let r2 = settings("r2://media", &[], &[("R2_ACCOUNT_ID", "0123abcd"), ("AWS_ENDPOINT_URL", "https://other.example")]);
    assert_eq!(r2.endpoint_url.as_deref(), Some("https://0123abcd.r2.cloudflarestorage.com"));
    assert_eq!(r2.region.as_deref(), Some("auto"));
    assert!(r2.r2);
    let by_host = settings("s3://media", &[("endpoint-url", "https://0123abcd.r2.cloudflarestorage.com")], &[]);
    assert!(by_host.r2 && by_host.region.as_deref() == Some("auto"));
    let emulated = settings("r2://media", &[("endpoint-url", "http://127.0.0.1:1")], &[]);
    assert!(emulated.r2 && emulated.endpoint_url.as_deref() == Some("http://127.0.0.1:1"));
    assert!(!settings("s3://media", &[], &[]).r2);
    let error = with("r2://media", &[], &[], 0).expect_err("refused").to_string();
    assert!(error.contains("R2_ACCOUNT_ID"), "{error}");
}

#[test]
fn each_bucket_and_prefix_has_its_own_cache_directory() {
    let of = |url: &str, uid: u32| with(url, &[], &[("HOME", "/home/u")], uid).expect("valid").settings.cache_dir;
    let whole = of("s3://media", 0);
    assert!(whole.to_string_lossy().starts_with("/var/cache/mediafs/media-"), "{whole:?}");
    assert_ne!(whole, of("s3://media/p", 0));
    assert!(of("s3://media", 1000).starts_with("/home/u/.cache/mediafs"));
    let xdg = with("s3://media", &[], &[("HOME", "/home/u"), ("XDG_CACHE_HOME", "/c")], 1000).expect("valid").settings.cache_dir;
    assert!(xdg.starts_with("/c/mediafs"));
    assert!(with("s3://media", &[], &[], 1000).expect_err("refused").to_string().contains("--cache-dir"));
}

#[test]
fn mistakes_name_the_option_its_source_and_a_right_value() {
    for (flags, parts) in [
        (&[("cache-size", "10XB")][..], ["--cache-size 10XB", "10GiB"]),
        (&[("cache-size", "10")], ["--cache-size 10", "at least 1MiB"]),
        (&[("memory-limit", "10MiB")], ["--memory-limit 10MiB", "at least 64MiB"]),
        (&[("ttl", "soon")], ["--ttl soon", "10s"]),
        (&[("timeout", "10ms")], ["--timeout 10ms", "at least 1s"]),
        (&[("write-mode", "fast")], ["--write-mode fast", "back, through"]),
        (&[("on-conflict", "x")], ["--on-conflict x", "keep-both, overwrite, hold"]),
        (&[("uid", "nobody-here")], ["--uid nobody-here", "no user of that name"]),
        (&[("gid", "x")], ["--gid x", "no group of that name"]),
        (&[("umask", "999")], ["--umask 999", "022"]),
        (&[("exclusive", "maybe")], ["--exclusive maybe", "on or off"]),
        (&[("log-level", "loud")], ["--log-level loud", "error, warn, info, debug, trace"]),
        (&[("public-url-base", "cdn")], ["--public-url-base cdn", "https://"]),
        (&[("endpoint-url", "localhost:9000")], ["--endpoint-url localhost:9000", "http://127.0.0.1:9000"]),
        (&[("cache-dir", "/srv/media/cache")], ["--cache-dir /srv/media/cache", "/srv/media"]),
        (&[("cache-dir", "/srv")], ["--cache-dir /srv", "/srv/media"]),
    ] {
        let error = refusal(flags);
        assert!(parts.iter().all(|part| error.contains(part)) && !error.contains('\n'), "{flags:?}: {error}");
    }
    let error = with("s3://media", &[], &[("MEDIAFS_TTL", "x")], 0).expect_err("refused").to_string();
    assert!(error.starts_with("MEDIAFS_TTL=x: "), "{error}");
}

#[test]
fn an_unencrypted_endpoint_is_warned_of() {
    let warnings = |url: &str| with("s3://media", &[("endpoint-url", url)], &[], 0).expect("valid").warnings.len();
    assert_eq!(warnings("http://minio.lan:9000"), 1);
    assert_eq!(warnings("http://127.0.0.1:9000"), 0);
    assert_eq!(warnings("https://s3.example.com"), 0);
}
