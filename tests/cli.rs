//! What a newcomer gets wrong: each mistake ends the program within five seconds with one line that says what to change.
//! Nothing here needs FUSE, a network or MinIO: every one of these is found before anything is mounted.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use mediafs::emulator::{Emulator, EmulatorConfig};
use mediafs::journal::{DirectoryLock, Journal};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(5);

/// A place to mount on, and a cache directory.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("directory");
        fs::create_dir(directory.path().join("mnt")).expect("mount point");
        Self { directory }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    /// `mount URL mnt` on this place, with valid keys.
    fn mount(&self, url: &str, options: &[&str]) -> Run {
        let mut arguments = vec!["mount".to_owned(), url.to_owned(), self.path("mnt"), "--cache-dir".to_owned(), self.path("cache")];
        arguments.extend(options.iter().map(|option| (*option).to_owned()));
        Run { keys: Some(("mediafs", "mediafs-secret")), ..Run::new(arguments) }
    }
}

struct Run {
    arguments: Vec<String>,
    keys: Option<(&'static str, &'static str)>,
    variables: Vec<(&'static str, String)>,
}

impl Run {
    fn new(arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { arguments: arguments.into_iter().map(Into::into).collect(), keys: None, variables: Vec::new() }
    }

    /// Nothing of this machine's own configuration reaches the program.
    fn output(&self) -> Output {
        let mut command = Command::new("timeout");
        command.arg("20").arg(env!("CARGO_BIN_EXE_mediafs")).args(&self.arguments);
        command.env_clear().env("HOME", "/nonexistent").env("AWS_EC2_METADATA_DISABLED", "true").env("RUST_BACKTRACE", "1");
        if let Some((id, secret)) = self.keys {
            command.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value))).output().expect("runs")
    }

    /// The one line on standard error, without its beginning.
    fn refusal(&self, code: i32) -> String {
        let begun = Instant::now();
        let output = self.output();
        let took = begun.elapsed();
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(code), "{:?}: {said}", self.arguments);
        assert!(took < SOON, "{:?} took {took:?}: {said}", self.arguments);
        assert_eq!(said.lines().count(), 1, "one line: {said}");
        said.strip_prefix("mediafs: ").expect("names the program").trim_end().to_owned()
    }
}

fn assert_says(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{part:?} is missing in: {line}");
    }
}

/// A bucket `media` that answers, for as long as the value lives.
struct Bucket {
    runtime: Runtime,
    emulator: Emulator,
}

impl Bucket {
    fn start(region: Option<&str>) -> Self {
        let runtime = Runtime::new().expect("runtime");
        let config = EmulatorConfig { buckets: vec!["media".into()], region: region.map(Into::into), ..EmulatorConfig::default() };
        let emulator = runtime.block_on(Emulator::start(config)).expect("emulator");
        Self { runtime, emulator }
    }

    fn endpoint(&self) -> String {
        let _inside = self.runtime.enter();
        self.emulator.endpoint()
    }
}

/// A server that sends `answer` to whatever it is asked, or nothing at all.
fn stranger(answer: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port");
    let address = listener.local_addr().expect("address");
    thread::spawn(move || {
        let mut open = Vec::new();
        for mut connection in listener.incoming().map_while(Result::ok) {
            if let Some(answer) = answer {
                let mut request = [0; 4096];
                let _ = connection.read(&mut request);
                let _ = connection.write_all(answer.as_bytes());
            } else {
                open.push(connection);
            }
        }
    });
    address
}

#[test]
fn without_credentials_it_says_which_to_set() {
    let (place, bucket) = (Place::new(), Bucket::start(None));
    let mut run = place.mount("s3://media", &["--endpoint-url", &bucket.endpoint()]);
    run.keys = None;
    assert_says(&run.refusal(1), &["AWS_ACCESS_KEY_ID", "R2_ACCESS_KEY_ID"]);
}

/// What a machine in a cloud, or behind a careful proxy, finds at the addresses where keys are given out.
#[test]
fn a_source_of_credentials_that_fails_is_no_busy_store() {
    let (place, bucket) = (Place::new(), Bucket::start(None));
    let forbidden = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    for answer in [Some(forbidden), None] {
        let source = format!("http://{}", stranger(answer));
        for variables in [
            vec![("AWS_EC2_METADATA_DISABLED", "false".to_owned()), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", source.clone())],
            vec![("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{source}/keys"))],
        ] {
            let run = place.mount("s3://media", &["--endpoint-url", &bucket.endpoint()]);
            let line = Run { keys: None, variables, ..run }.refusal(1);
            assert_says(&line, &["no credentials", "AWS_ACCESS_KEY_ID"]);
            assert!(!line.contains("busy"), "{line}");
        }
    }
}

#[test]
fn wrong_keys_are_told_from_a_wrong_bucket() {
    let (place, bucket) = (Place::new(), Bucket::start(None));
    for keys in [("mediafs", "wrong"), ("stranger", "mediafs-secret")] {
        let mut run = place.mount("s3://media", &["--endpoint-url", &bucket.endpoint()]);
        run.keys = Some(keys);
        assert_says(&run.refusal(1), &["check the access key"]);
    }
    let run = place.mount("s3://nobodys", &["--endpoint-url", &bucket.endpoint()]);
    assert_says(&run.refusal(1), &["no bucket \"nobodys\"", "check the bucket's name"]);
}

#[test]
fn a_mistake_does_not_bind_the_cache_directory() {
    let (place, bucket) = (Place::new(), Bucket::start(None));
    place.mount("s3://nobodys", &["--endpoint-url", &bucket.endpoint()]).refusal(1);
    let line = place.mount("s3://nobody-else", &["--endpoint-url", &bucket.endpoint()]).refusal(1);
    assert_says(&line, &["no bucket \"nobody-else\""]);
}

#[test]
fn a_wrong_region_names_the_option() {
    let (place, bucket) = (Place::new(), Bucket::start(Some("eu-central-1")));
    let run = place.mount("s3://media", &["--endpoint-url", &bucket.endpoint(), "--region", "us-west-2"]);
    assert_says(&run.refusal(1), &["eu-central-1", "--region"]);
}

#[test]
fn endpoints_that_are_no_s3_are_named() {
    let place = Place::new();
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("port");
    let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 20\r\nconnection: close\r\n\r\n<html>welcome</html>";
    let forbidden = "HTTP/1.1 403 Forbidden\r\ncontent-type: text/html\r\ncontent-length: 15\r\nconnection: close\r\n\r\n<html>no</html>";
    for (address, parts) in [
        (closed, &["refuses the connection", "--endpoint-url"][..]),
        (stranger(Some(page)), &["--endpoint-url", "S3 API"]),
        (stranger(Some(forbidden)), &["403", "--endpoint-url", "not the S3 API"]),
        (stranger(Some("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")), &["404", "--endpoint-url", "S3 API"]),
        (stranger(Some("SSH-2.0-OpenSSH_9.9\r\n")), &["does not speak HTTP", "--endpoint-url"]),
        (stranger(None), &["no answer", "--endpoint-url"]),
    ] {
        let run = place.mount("s3://media", &["--endpoint-url", &format!("http://{address}")]);
        assert_says(&run.refusal(1), parts);
    }
}

#[test]
fn names_and_certificates_are_checked() {
    let (place, bucket) = (Place::new(), Bucket::start(None));
    let mount = |endpoint: &str| place.mount("s3://media", &["--endpoint-url", endpoint]).refusal(1);
    assert_says(&mount("https://no-such-host.invalid"), &["no-such-host.invalid", "--endpoint-url"]);
    let tls_to_plain = bucket.endpoint().replace("http:", "https:");
    assert_says(&mount(&tls_to_plain), &["does not speak TLS", "http://"]);
    let run = place.mount("s3://media", &["--endpoint-url", &bucket.endpoint(), "--ca-file", "/nonexistent.pem"]);
    assert_says(&run.refusal(1), &["--ca-file /nonexistent.pem", "PEM"]);
}

#[test]
fn the_mount_point_must_be_an_empty_directory() {
    let place = Place::new();
    fs::write(place.path("mnt/file"), "x").expect("file");
    assert_says(&place.mount("s3://media", &[]).refusal(1), &["is not empty"]);
    fs::remove_file(place.path("mnt/file")).expect("remove");
    fs::remove_dir(place.path("mnt")).expect("remove");
    assert_says(&place.mount("s3://media", &[]).refusal(1), &["no such directory", "mkdir -p"]);
    fs::write(place.path("mnt"), "x").expect("file");
    assert_says(&place.mount("s3://media", &[]).refusal(1), &["is not a directory"]);
}

#[test]
fn the_cache_directory_must_be_ours_alone() {
    let (place, bucket) = (Place::new(), Bucket::start(None));
    let run = place.mount("s3://media", &["--endpoint-url", &bucket.endpoint()]);
    let cache = place.path("cache");
    let lock = DirectoryLock::acquire(Path::new(&cache)).expect("lock");
    assert_says(&run.refusal(1), &[&cache, "in use", "--cache-dir"]);
    drop(lock);
    drop(Journal::open(Path::new(&cache), "s3://another/ at AWS").expect("journal"));
    assert_says(&run.refusal(1), &[&cache, "s3://another/", "--cache-dir"]);
}

#[test]
fn a_cache_directory_that_cant_be_written_to_is_named() {
    let place = Place::new();
    let mut run = place.mount("s3://media", &["--endpoint-url", "http://127.0.0.1:1"]);
    run.arguments[4] = "/dev/null/cache".to_owned();
    assert_says(&run.refusal(1), &["/dev/null/cache", "--cache-dir"]);
}

#[test]
fn options_are_checked_before_anything_else() {
    let place = Place::new();
    for (options, parts) in [
        (&["--ttl", "soon"][..], &["--ttl soon", "10s"][..]),
        (&["--cache-sise", "1GiB"], &["--cache-size"]),
        (&["-o", "alow_other"], &["allow-other"]),
        (&["--config", "/nonexistent.toml"], &["--config /nonexistent.toml"]),
        (&["--endpoint-url", "localhost:9000"], &["http://127.0.0.1:9000"]),
    ] {
        assert_says(&place.mount("s3://media", options).refusal(2), parts);
    }
    assert_says(&place.mount("media", &[]).refusal(2), &["s3://BUCKET"]);
    assert_says(&place.mount("r2://media", &[]).refusal(2), &["R2_ACCOUNT_ID"]);
}

#[test]
fn what_asks_a_mount_wants_one() {
    let place = Place::new();
    for command in ["status", "flush", "url", "warm", "ls-conflicts"] {
        let run = |path: String| Run::new([command.to_owned(), path]);
        assert_says(&run(place.path("mnt")).refusal(1), &["is not on a mediafs mount"]);
        assert_says(&run(place.path("missing")).refusal(1), &["missing"]);
    }
}

#[test]
fn recover_wants_a_cache_directory_that_nobody_uses() {
    let place = Place::new();
    let run = |path: String, arguments: &[&str]| {
        let words = ["recover".to_owned(), path].into_iter().chain(arguments.iter().map(|argument| (*argument).to_owned()));
        Run { keys: Some(("mediafs", "mediafs-secret")), ..Run::new(words) }
    };
    assert_says(&run(place.path("missing"), &["list"]).refusal(1), &["missing"]);
    assert_says(&run(place.path("mnt"), &["list"]).refusal(1), &["not a cache directory", "--cache-dir"]);
    assert_says(&run(place.path("mnt"), &[]).refusal(2), &["--help"]);
    let cache = place.path("cache");
    let lock = DirectoryLock::acquire(Path::new(&cache)).expect("lock");
    drop(Journal::open(Path::new(&cache), "s3://media/ at http://127.0.0.1:1").expect("journal"));
    for what in [&["list"][..], &["export", "/tmp/never"], &["upload"], &["repair"]] {
        assert_says(&run(cache.clone(), what).refusal(1), &[&cache, "in use", "mediafs flush"]);
    }
    drop(lock);
    assert_says(&run(cache.clone(), &["upload", "s3://another"]).refusal(1), &["s3://media/", "s3://another/", "export"]);
    assert_says(&run(cache.clone(), &["upload"]).refusal(1), &["http://127.0.0.1:1"]);
    assert_says(&run(cache.clone(), &["export", &format!("{cache}/inside")]).refusal(2), &["another place"]);
    let listed = run(cache, &["list"]).output();
    assert!(listed.status.success() && String::from_utf8_lossy(&listed.stdout).contains("Nothing waits"), "{listed:?}");
}

#[test]
fn a_configuration_file_is_checked_without_a_mount() {
    let place = Place::new();
    let check = |text: &str| {
        fs::write(place.path("m.toml"), text).expect("file");
        Run::new(["config".to_owned(), "check".to_owned(), place.path("m.toml")])
    };
    assert!(check("ttl = '5s'\n").output().status.success());
    assert_says(&check("ttl = '5s'\ncache-sise = 1").refusal(2), &["m.toml", "did you mean cache-size?"]);
    assert_says(&Run::new(["config".to_owned(), "check".to_owned(), place.path("missing")]).refusal(2), &["missing", "can't read it"]);
    let example = Run::new(["config", "example"]).output();
    let text = String::from_utf8(example.stdout).expect("UTF-8");
    assert!(check(&text).output().status.success() && text.contains("# cache-size = \"10GiB\""), "{text}");
}

#[test]
fn shells_and_man_learn_every_command() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = String::from_utf8(Run::new(["completions", shell]).output().stdout).expect("UTF-8");
        assert!(script.contains("ls-conflicts") && script.contains("cache-size"), "{shell}");
    }
    assert_says(&Run::new(["completions", "tcl"]).refusal(2), &["tcl", "bash"]);
    let written = Run::new(["man".to_owned(), place.path("man")]).output();
    assert!(written.status.success(), "{written:?}");
    for (page, part) in [
        ("man1/mediafs.1", "mediafs\\-warm(1)"),
        ("man1/mediafs-mount.1", "cache\\-size"),
        ("man1/mediafs-recover-export.1", ".TH"),
        ("man8/mount.mediafs.8", "config=FILE"),
    ] {
        let text = fs::read_to_string(place.path(&format!("man/{page}"))).expect(page);
        assert!(text.contains(part), "{page} lacks {part}:\n{text}");
    }
    assert!(!place.directory.path().join("man/man1/mediafs-emulator.1").exists(), "what is for tests has no page");
}

#[test]
fn what_a_flag_of_a_command_means_is_checked_first() {
    for (arguments, parts) in [
        (&["status", "/", "--watch", "--interval", "soon"][..], &["--interval soon"][..]),
        (&["status", "/", "--watch", "--json"], &["--json"]),
        (&["warm", "/", "--jobs", "0"], &["--jobs"]),
        (&["resolve", "/", "--keep", "all"], &["copy, name, both"]),
        (&["warm"], &["PATH"]),
    ] {
        let run = Run::new(arguments.iter().copied());
        let output = run.output();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(parts.iter().all(|part| said.contains(part)) || said.contains("is not on a mediafs mount"), "{arguments:?}: {said}");
    }
}

#[test]
fn help_and_version_are_no_failures() {
    for (arguments, part) in
        [(&["--help"][..], "mount"), (&["--version"], env!("CARGO_PKG_VERSION")), (&["mount", "--help"], "--cache-size")]
    {
        let output = Run::new(arguments.iter().copied()).output();
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains(part), "{arguments:?}");
    }
}
