//! What is made of facts that no machine here has, and of a store that ignores conditions.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::cause::About;
use super::report::{Finding, Outcome, Sheet, Step};
use super::scratch::Scratch;
use super::{behaviour, disk, machine, rights};
use crate::journal::Exposure;
use crate::store::fault::{Fault, FaultStore, Faults, Rule};
use crate::store::memory::MemoryStore;
use crate::store::{
    Body, Condition, ListPage, ListRequest, ObjectBody, ObjectStore, Part, PendingUpload, Receipt, Result, Store, UploadId,
};
use crate::types::{ETag, Key, ObjectHeaders, ObjectInfo, Span, Version};

fn findings(make: impl FnOnce(&mut Sheet<'_>)) -> Vec<Finding> {
    let mut tell = |_: &Finding| {};
    let mut sheet = Sheet::new(&mut tell);
    make(&mut sheet);
    sheet.findings
}

fn assert_says(findings: &[Finding], step: Step, outcome: Outcome, what: &str, fix: &str) {
    let finding = findings.iter().find(|finding| finding.step == step).expect("a finding");
    assert!(finding.outcome == outcome && finding.text.contains(what) && finding.fix.contains(fix), "{what} / {fix}: {finding:?}");
}

fn good_machine() -> machine::Facts {
    machine::Facts {
        root: false,
        fuse_error: None,
        fusermount: Some(("/usr/bin/fusermount3".into(), true)),
        user_allow_other: true,
        sys_admin: true,
        kernel: "6.12.1-amd64".into(),
        open_files: 65_536,
        prune_fs: None,
    }
}

#[test]
fn each_fault_of_the_machine_has_its_fix() {
    let good = findings(|sheet| machine::judge(&good_machine(), true, sheet));
    assert!(good.iter().all(|finding| finding.outcome == Outcome::Passed) && good.len() == machine::STEPS.len(), "{good:?}");
    let missing = (io::ErrorKind::NotFound, String::new());
    let denied = (io::ErrorKind::PermissionDenied, String::new());
    type Change = fn(&mut machine::Facts);
    let changes: [(Change, Step, Outcome, &str, &str); 11] = [
        (|facts| facts.fusermount = None, Step::Fusermount, Outcome::Failed, "fusermount3 is not found", "apt install fuse3"),
        (|facts| facts.fusermount = Some(("/f".into(), false)), Step::Fusermount, Outcome::Failed, "not setuid", "chmod 4755 /f"),
        (|facts| (facts.root, facts.sys_admin) = (true, false), Step::Fusermount, Outcome::Failed, "CAP_SYS_ADMIN", "--cap-add"),
        (|facts| facts.user_allow_other = false, Step::AllowOther, Outcome::Failed, "/etc/fuse.conf", "user_allow_other"),
        (|facts| facts.kernel = "6.8.12".into(), Step::Passthrough, Outcome::Skipped, "kernel 6.8.12 has none", ""),
        (|facts| facts.kernel = "10.1".into(), Step::Passthrough, Outcome::Passed, "possible", ""),
        (|facts| facts.sys_admin = false, Step::Passthrough, Outcome::Skipped, "CAP_SYS_ADMIN", ""),
        (|facts| facts.open_files = 256, Step::OpenFiles, Outcome::Failed, "open files is 256", "LimitNOFILE"),
        (|facts| facts.open_files = 1024, Step::OpenFiles, Outcome::Warning, "open files is 1024", "LimitNOFILE"),
        (|facts| facts.prune_fs = Some("NFS nfs".into()), Step::Updatedb, Outcome::Warning, "lists the whole bucket", "fuse.mediafs"),
        (|facts| facts.prune_fs = Some("NFS FUSE.mediafs".into()), Step::Updatedb, Outcome::Passed, "", ""),
    ];
    for (change, step, outcome, what, fix) in changes {
        let mut facts = good_machine();
        change(&mut facts);
        assert_says(&findings(|sheet| machine::judge(&facts, true, sheet)), step, outcome, what, fix);
    }
    for (error, what, fix) in [(missing, "there is no /dev/fuse", "modprobe fuse"), (denied, "may not open", "chmod 666")] {
        let facts = machine::Facts { fuse_error: Some(error), ..good_machine() };
        assert_says(&findings(|sheet| machine::judge(&facts, false, sheet)), Step::Fuse, Outcome::Failed, what, fix);
    }
}

const GIB: u64 = 1 << 30;
const OURS: &str = "s3://b/p/ at AWS";

fn good_disk() -> disk::Facts {
    disk::Facts {
        directory: PathBuf::from("/c/x"),
        place: PathBuf::from("/c"),
        owner: disk::Owner::Nobody,
        exposure: None,
        sync: Ok(0.8),
        file_system: "ext4".into(),
        free_bytes: 100 * GIB,
        used_bytes: 0,
    }
}

#[test]
fn each_fault_of_the_cache_directory_has_its_fix() {
    use disk::Owner;
    let good = findings(|sheet| disk::judge(&good_disk(), OURS, 10 * GIB, GIB, sheet));
    assert!(good.iter().all(|finding| finding.outcome == Outcome::Passed) && good.len() == disk::STEPS.len(), "{good:?}");
    type Change = fn(&mut disk::Facts);
    let running = |bucket: &str| Owner::Running { text: "in use by mediafs process 7".into(), bucket: Some(bucket.into()) };
    let changes: [(Change, Step, Outcome, &str, &str); 11] = [
        (|facts| facts.owner = Owner::Bucket(OURS.into()), Step::CacheOwner, Outcome::Passed, "this bucket", ""),
        (
            |facts| facts.owner = Owner::Bucket("s3://o/ at AWS".into()),
            Step::CacheOwner,
            Outcome::Failed,
            "s3://o/ at AWS",
            "its own --cache-dir",
        ),
        (|facts| facts.owner = Owner::Strangers, Step::CacheOwner, Outcome::Warning, "not of a cache", "--cache-dir"),
        (
            |facts| facts.owner = Owner::Damaged("cut".into()),
            Step::CacheOwner,
            Outcome::Failed,
            "damaged: cut",
            "mediafs recover /c/x list",
        ),
        (|facts| facts.sync = Err("read-only".into()), Step::CacheDirectory, Outcome::Failed, "write to /c: read-only", "--cache-dir"),
        (|facts| facts.sync = Ok(120.0), Step::CacheSpeed, Outcome::Warning, "120 ms", "SSD"),
        (|facts| facts.file_system = "tmpfs".into(), Step::CacheFileSystem, Outcome::Warning, "in memory", "local disk"),
        (|facts| facts.file_system = "overlay".into(), Step::CacheFileSystem, Outcome::Warning, "container", "volume"),
        (|facts| facts.free_bytes = GIB, Step::CacheSpace, Outcome::Failed, "the disk is full", "make room"),
        (|facts| facts.free_bytes = 5 * GIB, Step::CacheSpace, Outcome::Warning, "5.0 GiB free", "--cache-size 4096MiB"),
        (|facts| (facts.free_bytes, facts.used_bytes) = (GIB, 10 * GIB), Step::CacheSpace, Outcome::Passed, "1.0 GiB free", ""),
    ];
    for (change, step, outcome, what, fix) in changes {
        let mut facts = good_disk();
        change(&mut facts);
        assert_says(&findings(|sheet| disk::judge(&facts, OURS, 10 * GIB, GIB, sheet)), step, outcome, what, fix);
    }
    let exposed = |is_refused| Some(Exposure { what: "user 7 may".into(), fix: "give a --cache-dir".into(), is_refused });
    for (is_refused, outcome) in [(true, Outcome::Failed), (false, Outcome::Warning)] {
        let facts = disk::Facts { exposure: exposed(is_refused), ..good_disk() };
        let found = findings(|sheet| disk::judge(&facts, OURS, 10 * GIB, GIB, sheet));
        assert_says(&found, Step::CacheExposure, outcome, "user 7 may", "--cache-dir");
    }
    let tiny = findings(|sheet| disk::judge(&good_disk(), OURS, 1 << 20, GIB, sheet));
    assert_says(&tiny, Step::CacheSpace, Outcome::Warning, "tiny", "--cache-size");
    for (bucket, outcome, what) in [(OURS, Outcome::Warning, "process 7"), ("s3://o/ at AWS", Outcome::Failed, "another bucket")] {
        let facts = disk::Facts { owner: running(bucket), ..good_disk() };
        assert_says(&findings(|sheet| disk::judge(&facts, OURS, 10 * GIB, GIB, sheet)), Step::CacheOwner, outcome, what, "--cache-dir");
    }
}

/// A store that takes every condition and looks at none.
struct Unconditional(MemoryStore);

#[async_trait]
impl ObjectStore for Unconditional {
    fn now(&self) -> SystemTime {
        self.0.now()
    }
    async fn head(&self, key: &Key) -> Result<ObjectInfo> {
        self.0.head(key).await
    }
    async fn get(&self, key: &Key, span: Option<Span>, if_match: Option<&ETag>) -> Result<ObjectBody> {
        self.0.get(key, span, if_match).await
    }
    async fn put(&self, key: &Key, body: Body, headers: &ObjectHeaders, _: &Condition) -> Result<Receipt> {
        self.0.put(key, body, headers, &Condition::Any).await
    }
    async fn copy(&self, from: &Version, to: &Key, headers: Option<&ObjectHeaders>) -> Result<Receipt> {
        self.0.copy(from, to, headers).await
    }
    async fn delete(&self, key: &Key) -> Result<()> {
        self.0.delete(key).await
    }
    async fn delete_many(&self, keys: &[Key]) -> Result<Vec<Result<()>>> {
        self.0.delete_many(keys).await
    }
    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.0.list(request).await
    }
    async fn create_upload(&self, key: &Key, headers: &ObjectHeaders) -> Result<UploadId> {
        self.0.create_upload(key, headers).await
    }
    async fn upload_part(&self, key: &Key, upload: &UploadId, number: u32, body: Body) -> Result<Part> {
        self.0.upload_part(key, upload, number, body).await
    }
    async fn copy_part(&self, key: &Key, upload: &UploadId, number: u32, from: &Key, tag: Option<&ETag>, span: Span) -> Result<Part> {
        self.0.copy_part(key, upload, number, from, tag, span).await
    }
    async fn complete_upload(&self, key: &Key, upload: &UploadId, parts: &[Part], _: &Condition) -> Result<Receipt> {
        self.0.complete_upload(key, upload, parts, &Condition::Any).await
    }
    async fn abort_upload(&self, key: &Key, upload: &UploadId) -> Result<()> {
        self.0.abort_upload(key, upload).await
    }
    async fn list_uploads(&self) -> Result<Vec<PendingUpload>> {
        self.0.list_uploads().await
    }
    async fn presign_get(&self, key: &Key, expires: Duration) -> Result<String> {
        self.0.presign_get(key, expires).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_ignores_conditions_is_told() {
    let about = About { bucket: "b".into(), prefix: String::new(), endpoint: "h".into(), region: "x".into(), r2: false };
    for (exclusive, outcome) in [(false, Outcome::Failed), (true, Outcome::Warning)] {
        let store: Store = Arc::new(Unconditional(MemoryStore::new()));
        let scratch = Scratch::new(Arc::clone(&store), false);
        let mut tell = |_: &Finding| {};
        let mut sheet = Sheet::new(&mut tell);
        let written = rights::examine(&scratch, None, &about, &mut sheet).await;
        behaviour::examine(&scratch, written.as_ref(), exclusive, &about, &mut sheet).await;
        rights::clean(&scratch, &about, &mut sheet).await;
        assert_says(&sheet.findings, Step::Conditions, outcome, "ignores If-None-Match: *, If-Match, ", "--exclusive");
        assert_says(&sheet.findings, Step::Delete, Outcome::Passed, "allowed", "");
        assert!(store.list(&ListRequest::default()).await.is_ok_and(|page| page.objects.is_empty()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_store_is_not_waited_for() {
    let about = About { bucket: "b".into(), prefix: String::new(), endpoint: "h".into(), region: "x".into(), r2: false };
    let faults = Faults::new(1);
    faults.add(Rule::any().fault(Fault::Hang));
    let store: Store = Arc::new(FaultStore::new(Arc::new(MemoryStore::new()), faults));
    let scratch = Scratch::new(store, false);
    let mut tell = |_: &Finding| {};
    let mut sheet = Sheet::new(&mut tell);
    let begun = tokio::time::Instant::now();
    let written = rights::examine(&scratch, None, &about, &mut sheet).await;
    assert!(written.is_none() && begun.elapsed() <= 4 * super::STEP_TIME, "{:?}", begun.elapsed());
    for step in [Step::Put, Step::Head, Step::Get, Step::Multipart] {
        assert_says(&sheet.findings, step, Outcome::Failed, "no answer within 10 seconds", "network");
    }
    rights::clean(&scratch, &about, &mut sheet).await;
    assert!(scratch.left().len() == 1, "what may have been written is named: {:?}", scratch.left());
}
