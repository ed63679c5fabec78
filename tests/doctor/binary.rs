//! The program: what it prints, how it ends, where it takes its options from.

use std::process::{Command, Output};

use mediafs::emulator::Emulator;
use serde_json::Value;

use crate::{BUCKET, emulator};

/// Nothing of this machine's own configuration reaches the program.
fn doctor(emulator: &Emulator, shell: &str, keys: bool, arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["60", "sh", "-c", shell, env!("CARGO_BIN_EXE_mediafs"), "doctor"]).args(arguments);
    command.env_clear().env("HOME", "/nonexistent").env("AWS_EC2_METADATA_DISABLED", "true").env("PATH", "/usr/bin:/bin");
    command.env("MEDIAFS_ENDPOINT_URL", emulator.endpoint());
    if keys {
        command.env("AWS_ACCESS_KEY_ID", "mediafs").env("AWS_SECRET_ACCESS_KEY", "mediafs-secret");
    }
    command
}

const PLAIN: &str = "exec \"$0\" \"$@\"";

async fn output(mut command: Command) -> (Output, String) {
    let output = tokio::task::spawn_blocking(move || command.output().expect("runs")).await.expect("joined");
    let text = String::from_utf8(output.stdout.clone()).expect("UTF-8");
    (output, text)
}

/// The step `name` of a JSON report: its outcome, and its text with its fix.
fn step(report: &Value, name: &str) -> (String, String) {
    let steps = report["steps"].as_array().expect("steps");
    let found = steps.iter().find(|step| step["step"] == name).expect(name);
    (found["outcome"].as_str().unwrap_or_default().to_owned(), format!("{} {}", found["text"], found["fix"]))
}

#[tokio::test]
async fn json_for_programs_and_text_for_people() {
    let emulator = emulator().await;
    let directory = tempfile::tempdir().expect("directory");
    let cache = directory.path().join("cache");
    let cache = cache.to_str().expect("UTF-8");
    let arguments = ["s3://media/site", "--cache-dir", cache, "--cache-size", "260MiB"];
    let (ended, text) = output(doctor(&emulator, PLAIN, true, &[&arguments[..], &["--json"]].concat())).await;
    let report: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(ended.status.code(), Some(i32::from(!report["ok"].as_bool().expect("ok"))));
    for name in ["credentials", "list", "put", "copy", "multipart", "delete", "conditional writes", "checksums"] {
        assert_eq!(step(&report, name).0, "passed", "{name}: {text}");
    }
    assert!(step(&report, "credentials").1.contains("the environment (AWS_ACCESS_KEY_ID)"));
    assert!(report["grant"]["iam_policy"]["Statement"].is_array() && !text.contains("mediafs-secret"));
    let (_, text) = output(doctor(&emulator, PLAIN, true, &arguments)).await;
    for part in ["mediafs doctor s3://media/site\n", "\nrights\n", "  ✓ put ", "\"s3:ListBucket\""] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "no colour where there is no terminal");
    assert!(emulator.keys(BUCKET).is_empty() && !std::path::Path::new(cache).exists(), "nothing is made");
}

#[tokio::test]
async fn missing_keys_and_low_limits_end_with_one() {
    let emulator = emulator().await;
    let directory = tempfile::tempdir().expect("directory");
    let cache = directory.path().join("cache");
    let arguments = ["s3://media", "--json", "--cache-dir", cache.to_str().expect("UTF-8")];
    let (ended, text) = output(doctor(&emulator, &format!("ulimit -n 100; {PLAIN}"), false, &arguments)).await;
    assert_eq!(ended.status.code(), Some(1));
    let report: Value = serde_json::from_str(&text).expect("JSON");
    for (name, outcome, words) in [
        ("credentials", "failed", ["no credentials found", "AWS_ACCESS_KEY_ID"]),
        ("list", "skipped", ["no credentials", ""]),
        ("open files", "failed", ["the limit of open files is 100", "LimitNOFILE"]),
    ] {
        let (found, said) = step(&report, name);
        assert!(found == outcome && words.iter().all(|word| said.contains(word)), "{name}: {found} {said}");
    }
    let (ended, _) = output(doctor(&emulator, PLAIN, true, &["media"])).await;
    assert_eq!(ended.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("s3://BUCKET"));
}
