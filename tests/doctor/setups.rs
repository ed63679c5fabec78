//! One set-up after the other, in the process.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use mediafs::doctor::{Grant, Outcome, Report, Step};
use mediafs::emulator::{Emulator, EmulatorConfig, Fault, Rule};
use mediafs::journal::{DirectoryLock, Journal};
use mediafs::types::ObjectHeaders;

use crate::{BUCKET, Setup, assert_finding, emulator, emulator_with, failed, of};

fn assert_clean(emulator: &Emulator) {
    assert!(emulator.keys(BUCKET).is_empty() && emulator.uploads(BUCKET).is_empty(), "{:?}", emulator.keys(BUCKET));
}

/// Exactly this step failed, in these words.
fn assert_only(report: &Report, step: Step, what: &str, fix: &str) {
    assert_eq!(failed(report), [step], "{:#?}", report.findings);
    assert_finding(report, step, Outcome::Failed, what, fix);
}

#[tokio::test]
async fn where_all_is_well_nothing_fails_and_nothing_stays() {
    let emulator = emulator().await;
    let report = Setup::new(&emulator.endpoint()).examined().await;
    assert!(report.is_healthy(), "{:#?}", report.findings);
    assert_clean(&emulator);
    assert!(report.left_behind.is_empty() && matches!(&report.grant, Grant::Policy(_)));
    for (step, what) in [
        (Step::Conditions, "honoured"),
        (Step::Checksums, "the ETag is the MD5"),
        (Step::Rules, "not R2"),
        (Step::Delete, "are gone"),
        (Step::CacheOwner, "new"),
        (Step::CacheExposure, "only this user"),
    ] {
        assert_finding(&report, step, Outcome::Passed, what, "");
    }
    assert_eq!(of(&report, Step::Credentials).text, "key medi… from the program");
    assert!(!format!("{}{}", report.json(), report.closing()).contains("mediafs-secret"), "no secret is shown");
    assert!(!emulator.counts().contains_key("Unknown"), "{:?}", emulator.counts());
}

#[tokio::test]
async fn on_r2_its_rules_are_kept_and_seen() {
    let emulator = emulator_with(EmulatorConfig { r2: true, ..EmulatorConfig::default() }).await;
    let report = Setup::with("r2://media/site", &emulator.endpoint(), &[]).examined().await;
    assert!(report.is_healthy(), "{:#?}", report.findings);
    assert_finding(&report, Step::Rules, Outcome::Passed, "R2: one write a second", "");
    assert!(matches!(&report.grant, Grant::Token(words) if words.contains("Object Read & Write")));
    assert_clean(&emulator);
    // Taken for S3, it is recognised.
    let report = Setup::new(&emulator.endpoint()).examined().await;
    assert_finding(&report, Step::Rules, Outcome::Failed, "as R2 does", "r2://media");
    assert_clean(&emulator);
}

#[tokio::test]
async fn keys_buckets_and_regions() {
    let emulator = emulator_with(EmulatorConfig { region: Some("eu-central-1".into()), ..EmulatorConfig::default() }).await;
    let endpoint = emulator.endpoint();
    let here = [("region", "eu-central-1")];
    let setup = || Setup::with("s3://media/site", &endpoint, &here);
    for (setup, step, what, fix) in [
        (setup().keys("stranger", "mediafs-secret"), Step::Key, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        (setup().keys("mediafs", "wrong"), Step::Key, "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
        (Setup::with("s3://nobodys", &endpoint, &here), Step::Bucket, "no bucket \"nobodys\"", "check the name"),
        (Setup::with("s3://media", &endpoint, &[("region", "us-west-2")]), Step::Bucket, "eu-central-1", "--region eu-central-1"),
    ] {
        let report = setup.examined().await;
        assert_only(&report, step, what, fix);
        for later in [Step::Put, Step::Delete, Step::Conditions, Step::PublicUrl] {
            assert_eq!(of(&report, later).outcome, Outcome::Skipped, "{later:?} after {step:?}");
        }
        assert_eq!(of(&report, Step::CacheSpace).outcome, Outcome::Passed, "this machine is looked at all the same");
    }
    assert!(setup().examined().await.is_healthy());
}

#[tokio::test]
async fn endpoints_that_do_not_answer() {
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("port");
    for (endpoint, step, what, fix) in [
        (format!("http://{closed}"), Step::Tcp, "refuses connections", "check the port in --endpoint-url"),
        ("http://no-such-host.invalid".to_owned(), Step::Dns, "no-such-host.invalid can't be resolved", "check the host in --endpoint-url"),
    ] {
        let report = Setup::new(&endpoint).examined().await;
        assert_only(&report, step, what, fix);
        for later in [Step::Clock, Step::List, Step::Delete] {
            assert_eq!(of(&report, later).outcome, Outcome::Skipped, "{later:?}");
        }
        assert_eq!(of(&report, Step::Credentials).outcome, Outcome::Passed);
    }
}

#[tokio::test]
async fn clocks_that_differ() {
    let emulator = emulator().await;
    for (ahead_seconds, what) in [(2_400, "40m behind"), (-2_400, "ahead of the store's")] {
        emulator.faults().clear();
        emulator.faults().add(Rule::new(Fault::Clock { ahead_seconds }));
        let report = Setup::new(&emulator.endpoint()).examined().await;
        assert_only(&report, Step::Clock, what, "timedatectl set-ntp true");
        assert_clean(&emulator);
    }
}

#[tokio::test]
async fn each_right_that_is_missing() {
    let emulator = emulator().await;
    for (operation, step, right) in [
        ("ListObjectsV2", Step::List, "s3:ListBucket"),
        ("PutObject", Step::Put, "s3:PutObject"),
        ("HeadObject", Step::Head, "s3:GetObject"),
        ("GetObject", Step::Get, "s3:GetObject"),
        ("CopyObject", Step::Copy, "s3:PutObject"),
        ("CreateMultipartUpload", Step::Multipart, "s3:PutObject"),
        ("UploadPart", Step::Multipart, "s3:PutObject"),
        ("ListMultipartUploads", Step::Uploads, "s3:ListBucketMultipartUploads"),
    ] {
        emulator.faults().clear();
        emulator.faults().add(Rule::new(Fault::access_denied()).operation(operation));
        let report = Setup::new(&emulator.endpoint()).examined().await;
        assert_eq!(failed(&report).first(), Some(&step), "{operation}: {:#?}", report.findings);
        assert_finding(&report, step, Outcome::Failed, right, &format!("allow {right}").replace("allow s3:PutObject", "s3:PutObject"));
        assert!(failed(&report).iter().all(|failed| [step, Step::Conditions].contains(failed)), "{operation}: {:?}", failed(&report));
        assert!(report.left_behind.is_empty());
        assert_clean(&emulator);
    }
}

#[tokio::test]
async fn what_may_not_be_deleted_is_named() {
    let emulator = emulator().await;
    emulator.faults().add(Rule::new(Fault::access_denied()).operation("DeleteObject"));
    let report = Setup::new(&emulator.endpoint()).examined().await;
    assert_only(&report, Step::Delete, "left behind", "allow s3:DeleteObject on arn:aws:s3:::media/site/*");
    let mut left = report.left_behind.clone();
    left.sort();
    assert_eq!(left, emulator.keys(BUCKET));
    assert!(!left.is_empty() && left.iter().all(|key| key.starts_with("site/.mediafs-doctor-")), "{left:?}");
    assert!(report.closing().contains(&left[0]));
    // Uploads that may not be aborted, too.
    let second = crate::emulator().await;
    second.faults().add(Rule::new(Fault::access_denied()).operation("AbortMultipartUpload"));
    let report = Setup::new(&second.endpoint()).examined().await;
    assert_finding(&report, Step::Uploads, Outcome::Failed, "s3:AbortMultipartUpload", "allow s3:ListBucketMultipartUploads");
    assert!(report.left_behind.iter().any(|left| left.contains("unfinished upload")), "{:?}", report.left_behind);
    assert_eq!(report.left_behind.len(), second.uploads(BUCKET).len());
}

#[tokio::test]
async fn interrupted_it_cleans_up_too() {
    let emulator = emulator().await;
    let held = emulator.faults().add(Rule::new(Fault::Hold).operation("CopyObject"));
    let setup = Setup::new(&emulator.endpoint());
    let report = setup.examined_until(emulator.faults().reached(held, 1)).await;
    assert_clean(&emulator);
    assert_finding(&report, Step::Put, Outcome::Passed, "allowed", "");
    assert_finding(&report, Step::Delete, Outcome::Passed, "are gone", "");
    for step in [Step::Copy, Step::Multipart, Step::Fuse] {
        assert_finding(&report, step, Outcome::Skipped, "interrupted", "");
    }
    // Before anything is made, nothing is asked.
    emulator.reset_counts();
    let report = setup.examined_until(async {}).await;
    assert!(report.findings.iter().all(|finding| finding.text == "interrupted") && emulator.counts().is_empty());
}

#[tokio::test]
async fn a_read_only_mount_needs_no_right_to_write() {
    let emulator = emulator().await;
    emulator.put_raw(BUCKET, "site/a.jpg", "x", ObjectHeaders::default()).expect("object");
    let report = Setup::with("s3://media/site", &emulator.endpoint(), &[("read-only", "on")]).examined().await;
    assert!(report.is_healthy(), "{:#?}", report.findings);
    assert_finding(&report, Step::Put, Outcome::Skipped, "--read-only", "");
    assert_finding(&report, Step::Get, Outcome::Passed, "allowed", "");
    let writes = ["PutObject", "DeleteObject", "CreateMultipartUpload", "CopyObject"];
    assert!(writes.iter().all(|operation| !emulator.counts().contains_key(*operation)), "{:?}", emulator.counts());
}

#[tokio::test]
async fn public_addresses() {
    let emulator = emulator().await;
    let endpoint = emulator.endpoint();
    // The emulator refuses strangers, as a private bucket does.
    let base = format!("{endpoint}/{BUCKET}/site");
    let report = Setup::with("s3://media/site", &endpoint, &[("public-url-base", &base)]).examined().await;
    assert_only(&report, Step::PublicUrl, "refuses strangers", "make the bucket public");
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("port");
    let base = format!("http://{closed}");
    let report = Setup::with("s3://media/site", &endpoint, &[("public-url-base", &base)]).examined().await;
    assert_only(&report, Step::PublicUrl, "refuses the connection", "--public-url-base");
}

#[tokio::test]
async fn pages_of_other_sites() {
    let emulator = emulator().await;
    let mut setup = Setup::new(&emulator.endpoint());
    assert_finding(&setup.examined().await, Step::Cors, Outcome::Skipped, "--cors", "");
    // The emulator knows no CORS, as a new bucket doesn't.
    setup.places.cors_origin = Some("https://shop.example".to_owned());
    assert_only(&setup.examined().await, Step::Cors, "no page of https://shop.example", "put-bucket-cors");
}

#[tokio::test]
async fn cache_directories_of_others() {
    let emulator = emulator().await;
    let setup = Setup::new(&emulator.endpoint());
    let cache = setup.path("cache");
    let lock = DirectoryLock::acquire(&cache).expect("lock");
    drop(Journal::open(&cache, "s3://another/ at AWS").expect("journal"));
    let before = fs::read(cache.join("journal.sqlite3")).ok();
    assert_finding(&setup.examined().await, Step::CacheOwner, Outcome::Warning, "in use by mediafs process", "--cache-dir");
    assert!(DirectoryLock::acquire(&cache).is_err(), "the lock of a running mount holds");
    drop(lock);
    assert_only(&setup.examined().await, Step::CacheOwner, "s3://another/ at AWS", "its own --cache-dir");
    assert_eq!(fs::read(cache.join("journal.sqlite3")).ok(), before, "the journal stays as it is");
    // Of this very bucket.
    let ours = Setup::new(&emulator.endpoint());
    let lock = DirectoryLock::acquire(&ours.path("cache")).expect("lock");
    drop(Journal::open(&ours.path("cache"), &ours.settings.identity).expect("journal"));
    drop(lock);
    assert_finding(&ours.examined().await, Step::CacheOwner, Outcome::Passed, "this bucket", "");
}

#[tokio::test]
async fn cache_directories_that_others_may_write_to() {
    let emulator = emulator().await;
    let setup = Setup::new(&emulator.endpoint());
    let cache = setup.path("cache");
    fs::create_dir(&cache).expect("directory");
    fs::write(cache.join("planted"), "").expect("file");
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).expect("mode");
    assert_finding(&setup.examined().await, Step::CacheExposure, Outcome::Failed, "others may write into", "--cache-dir");
}

#[tokio::test]
async fn this_machine() {
    let emulator = emulator().await;
    let mut setup = Setup::with("s3://media", &emulator.endpoint(), &[("cache-size", "1MiB"), ("cache-dir", "/proc/none/cache")]);
    setup.places.fuse_device = setup.path("missing");
    fs::write(&setup.places.updatedb_conf, "PRUNEFS=\"NFS tmpfs\"\n").expect("file");
    let report = setup.examined().await;
    assert_finding(&report, Step::Fuse, Outcome::Failed, "there is no /dev/fuse", "modprobe fuse");
    assert_finding(&report, Step::Updatedb, Outcome::Warning, "PRUNEFS", "add fuse.mediafs to PRUNEFS");
    assert_finding(&report, Step::CacheDirectory, Outcome::Failed, "/proc", "--cache-dir");
    assert_finding(&report, Step::CacheSpeed, Outcome::Skipped, "can't be written", "");
    let tiny = Setup::with("s3://media", &emulator.endpoint(), &[("cache-size", "1MiB")]).examined().await;
    assert_finding(&tiny, Step::CacheSpace, Outcome::Warning, "tiny", "--cache-size");
    let full = Setup::with("s3://media", &emulator.endpoint(), &[("free-space-floor", "1000TiB")]).examined().await;
    assert_only(&full, Step::CacheSpace, "the disk is full", "make room");
}
