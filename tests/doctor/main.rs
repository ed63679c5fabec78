//! `mediafs doctor`: broken set-ups, each of which must be named with its cause and its fix. No network, no FUSE: the
//! store is the emulator, and this machine is what a folder of files says.

mod binary;
mod setups;
mod tls;

use std::fs;
use std::future::{Future, pending};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mediafs::config::{self, Layer, Layers, Origin, Surroundings, VfsFlags};
use mediafs::daemon::Settings;
use mediafs::doctor::{Finding, Outcome, Places, Report, Step, examine};
use mediafs::emulator::{Emulator, EmulatorConfig};
use mediafs::store::s3::StaticCredentials;
use tempfile::TempDir;

pub const BUCKET: &str = "media";

pub async fn emulator() -> Emulator {
    emulator_with(EmulatorConfig::default()).await
}

pub async fn emulator_with(config: EmulatorConfig) -> Emulator {
    Emulator::start(EmulatorConfig { buckets: vec![BUCKET.to_owned()], ..config }).await.expect("emulator")
}

/// A machine on which all is well, and settings of a mount on it. Tests break what they are about.
pub struct Setup {
    directory: TempDir,
    pub settings: Settings,
    pub places: Places,
}

impl Setup {
    pub fn new(endpoint: &str) -> Self {
        Self::with(&format!("s3://{BUCKET}/site"), endpoint, &[])
    }

    pub fn with(url: &str, endpoint: &str, options: &[(&'static str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let cache = directory.path().join("cache");
        let given = [("endpoint-url", endpoint), ("cache-dir", cache.to_str().expect("UTF-8")), ("cache-size", "260MiB")];
        let given = given.into_iter().filter(|(name, _)| options.iter().all(|(other, _)| other != name)).chain(options.iter().copied());
        let words = Layers(vec![Layer::new(&Origin::Flag, given)]);
        let none = |_: &str| None;
        let around = Surroundings {
            variable: &none,
            uid: 0,
            gid: 0,
            user: &|_| None,
            group: &|_| None,
            account: &|_| None,
            directory: Path::new("/"),
        };
        let mut settings =
            config::resolve(url, Path::new("/proc/mediafs"), &words, VfsFlags::default(), &around).expect("settings").settings;
        settings.credentials = Some(StaticCredentials::new("mediafs", "mediafs-secret"));
        let places = places(directory.path());
        Self { directory, settings, places }
    }

    pub fn keys(mut self, id: &str, secret: &str) -> Self {
        self.settings.credentials = Some(StaticCredentials::new(id, secret));
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub async fn examined(&self) -> Report {
        self.examined_until(pending()).await
    }

    pub async fn examined_until(&self, stop: impl Future<Output = ()>) -> Report {
        let mut told = 0;
        let report = examine(&self.settings, &self.places, &mut |_| told += 1, stop).await;
        assert_eq!(told, report.findings.len(), "each finding is told once");
        for step in Step::ALL {
            assert_eq!(report.findings.iter().filter(|finding| finding.step == step).count(), 1, "{step:?} is reported once");
        }
        let wordless = report.findings.iter().find(|finding| finding.outcome == Outcome::Failed && finding.fix.is_empty());
        assert!(wordless.is_none(), "a failure without a fix: {wordless:?}");
        report
    }
}

/// A machine of files, on which nothing is wrong.
fn places(directory: &Path) -> Places {
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::write(&path, text).expect("file");
        path
    };
    let fusermount = file("fusermount3", "");
    fs::set_permissions(fusermount, fs::Permissions::from_mode(0o4755)).expect("mode");
    Places {
        fuse_device: file("fuse", ""),
        fuse_conf: file("fuse.conf", "user_allow_other\n"),
        updatedb_drop_ins: Vec::new(),
        cors_origin: None,
        updatedb_conf: file("updatedb.conf", "PRUNEFS=\"NFS fuse.mediafs\"\n"),
        process_status: file("status", "CapEff:\t000001ffffffffff\n"),
        kernel_release: file("osrelease", "6.12.0\n"),
        programs: vec![directory.to_owned()],
    }
}

pub fn of(report: &Report, step: Step) -> &Finding {
    report.findings.iter().find(|finding| finding.step == step).expect("a finding")
}

/// The steps that failed, in the order in which they were found.
pub fn failed(report: &Report) -> Vec<Step> {
    report.findings.iter().filter(|finding| finding.outcome == Outcome::Failed).map(|finding| finding.step).collect()
}

/// `step` has this outcome, and cause and fix say these words.
pub fn assert_finding(report: &Report, step: Step, outcome: Outcome, what: &str, fix: &str) {
    let finding = of(report, step);
    let says = finding.outcome == outcome && finding.text.contains(what) && finding.fix.contains(fix);
    assert!(says, "{step:?} should be {outcome:?} with {what:?} and {fix:?}:\n{:#?}", report.findings);
}
