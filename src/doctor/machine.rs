//! This machine: FUSE and the right to mount, limits, and programs that would walk through the mount.
//!
//! `look` reads, `judge` is pure. Must not: mount, or change anything.

use std::fs::{self, OpenOptions};
use std::io;
use std::mem;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::report::{Sheet, Step};

pub const STEPS: [Step; 6] = [Step::Fuse, Step::Fusermount, Step::AllowOther, Step::Passthrough, Step::OpenFiles, Step::Updatedb];

/// Connections, the journal and the cache's files need some hundreds …
const LEAST_OPEN_FILES: u64 = 512;
/// … and each file that a program has open one or two more.
const GOOD_OPEN_FILES: u64 = 8192;
/// The first kernel with passthrough.
const PASSTHROUGH_KERNEL: (u32, u32) = (6, 9);
/// The bit of CAP_SYS_ADMIN.
const SYS_ADMIN: u64 = 1 << 21;

/// Where to look; the default is where things are.
#[derive(Clone, Debug)]
pub struct Places {
    pub fuse_device: PathBuf,
    pub fuse_conf: PathBuf,
    pub updatedb_conf: PathBuf,
    /// Changes of the service that runs it, as our package brings one.
    pub updatedb_drop_ins: Vec<PathBuf>,
    pub process_status: PathBuf,
    pub kernel_release: PathBuf,
    /// Where programs are looked for.
    pub programs: Vec<PathBuf>,
    /// The site whose pages shall read the objects, where that is asked.
    pub cors_origin: Option<String>,
}

impl Default for Places {
    fn default() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Self {
            fuse_device: "/dev/fuse".into(),
            fuse_conf: "/etc/fuse.conf".into(),
            updatedb_conf: "/etc/updatedb.conf".into(),
            updatedb_drop_ins: ["/etc", "/usr/lib"]
                .map(|base| format!("{base}/systemd/system/plocate-updatedb.service.d/mediafs.conf").into())
                .into(),
            process_status: "/proc/self/status".into(),
            kernel_release: "/proc/sys/kernel/osrelease".into(),
            programs: std::env::split_paths(&path).collect(),
            cors_origin: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub root: bool,
    /// None: it can be opened.
    pub fuse_error: Option<(io::ErrorKind, String)>,
    /// The program that mounts for others than root, and whether it may.
    pub fusermount: Option<(PathBuf, bool)>,
    /// Of /etc/fuse.conf.
    pub user_allow_other: bool,
    pub sys_admin: bool,
    pub kernel: String,
    /// The most that this process may have.
    pub open_files: u64,
    /// The line PRUNEFS, where there is an updatedb.
    pub prune_fs: Option<String>,
}

pub fn look(places: &Places) -> Facts {
    let text = |path: &PathBuf| fs::read_to_string(path).unwrap_or_default();
    let fuse = OpenOptions::new().read(true).write(true).open(&places.fuse_device);
    let program = |name: &str| {
        places.programs.iter().map(|folder| folder.join(name)).find_map(|path| Some((fs::metadata(&path).ok()?.permissions().mode(), path)))
    };
    let updatedb = fs::read_to_string(&places.updatedb_conf);
    let added = if places.updatedb_drop_ins.iter().any(|path| text(path).contains(PRUNED)) { " fuse.mediafs" } else { "" };
    Facts {
        // SAFETY: geteuid has no arguments and can't fail.
        root: unsafe { libc::geteuid() == 0 },
        fuse_error: fuse.err().map(|error| (error.kind(), error.to_string())),
        fusermount: program("fusermount3").map(|(mode, path)| (path, mode & 0o4000 != 0)),
        user_allow_other: text(&places.fuse_conf).lines().any(|line| line.trim() == "user_allow_other"),
        sys_admin: effective_capabilities(&text(&places.process_status)) & SYS_ADMIN != 0,
        kernel: text(&places.kernel_release).trim().to_owned(),
        open_files: open_files(),
        prune_fs: updatedb.ok().map(|text| prune_fs(&text) + added),
    }
}

fn effective_capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default()
}

/// The value without its quotes; the last line counts.
fn prune_fs(text: &str) -> String {
    let value = |line: &str| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == "PRUNEFS").then(|| value.trim().trim_matches('"').to_owned())
    };
    text.lines().filter_map(value).next_back().unwrap_or_default()
}

fn open_files() -> u64 {
    // SAFETY: an all-zero rlimit is valid (numbers only).
    let mut limit: libc::rlimit = unsafe { mem::zeroed() };
    // SAFETY: a valid resource and an out-pointer that lives during the call.
    let done = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if done == 0 { limit.rlim_max } else { u64::MAX }
}

pub fn judge(facts: &Facts, allow_other: bool, sheet: &mut Sheet<'_>) {
    fuse(facts, sheet);
    right_to_mount(facts, sheet);
    match (allow_other, facts.root || facts.user_allow_other) {
        (false, _) => sheet.skip(Step::AllowOther, "not asked for"),
        (true, true) => sheet.pass(Step::AllowOther, "allowed"),
        (true, false) => {
            let what = "/etc/fuse.conf does not let this user mount with --allow-other";
            sheet.fail(Step::AllowOther, what, "add the line user_allow_other to /etc/fuse.conf, or mount as root");
        }
    }
    passthrough(facts, sheet);
    limit(facts, sheet);
    updatedb(facts, sheet);
}

fn fuse(facts: &Facts, sheet: &mut Sheet<'_>) {
    let Some((kind, text)) = &facts.fuse_error else { return sheet.pass(Step::Fuse, "is there and can be opened") };
    match kind {
        io::ErrorKind::NotFound => {
            let fix = "modprobe fuse; in a container give the device: docker run --device /dev/fuse --cap-add SYS_ADMIN";
            sheet.fail(
                Step::Fuse,
                "there is no /dev/fuse: the kernel's FUSE module is not loaded, or the container has no such device",
                fix,
            );
        }
        io::ErrorKind::PermissionDenied => {
            let fix = "chmod 666 /dev/fuse (what udev makes it); in a container: --device /dev/fuse, and no device rule that denies it";
            sheet.fail(Step::Fuse, "this user may not open /dev/fuse", fix);
        }
        _ => sheet.fail(Step::Fuse, format!("/dev/fuse can't be opened: {text}"), "modprobe fuse"),
    }
}

fn right_to_mount(facts: &Facts, sheet: &mut Sheet<'_>) {
    match (&facts.fusermount, facts.root) {
        (_, true) if facts.sys_admin => sheet.pass(Step::Fusermount, "root with CAP_SYS_ADMIN"),
        (_, true) => {
            let what = "root without CAP_SYS_ADMIN may not mount: this is a container";
            sheet.fail(Step::Fusermount, what, "docker run --cap-add SYS_ADMIN --security-opt apparmor=unconfined");
        }
        (Some((path, true)), false) => sheet.pass(Step::Fusermount, format!("{} mounts for this user", path.display())),
        (Some((path, false)), false) => {
            let what = format!("{} is not setuid root, so it can't mount for this user", path.display());
            sheet.fail(Step::Fusermount, what, format!("chown root {0} && chmod 4755 {0}", path.display()));
        }
        (None, false) => {
            sheet.fail(Step::Fusermount, "fusermount3 is not found, and only root mounts without it", "apt install fuse3, or run as root")
        }
    }
}

fn passthrough(facts: &Facts, sheet: &mut Sheet<'_>) {
    let numbers: Vec<u32> = facts.kernel.split(['.', '-']).map_while(|part| part.parse().ok()).collect();
    let version = (numbers.first().copied().unwrap_or_default(), numbers.get(1).copied().unwrap_or_default());
    match (version >= PASSTHROUGH_KERNEL, facts.sys_admin) {
        (true, true) => sheet.pass(Step::Passthrough, format!("possible: kernel {}, CAP_SYS_ADMIN", facts.kernel)),
        (false, _) => {
            sheet.skip(Step::Passthrough, format!("kernel {} has none (6.9 does): cached files are read through the daemon", facts.kernel))
        }
        (true, false) => sheet.skip(Step::Passthrough, "it takes CAP_SYS_ADMIN: cached files are read through the daemon"),
    }
}

fn limit(facts: &Facts, sheet: &mut Sheet<'_>) {
    let fix = "raise it: LimitNOFILE=65536 in the systemd unit, or nofile in /etc/security/limits.conf (ulimit -Hn shows it)";
    match facts.open_files {
        few if few < LEAST_OPEN_FILES => {
            sheet.fail(Step::OpenFiles, format!("the limit of open files is {few}: too low for connections, journal and cache"), fix)
        }
        some if some < GOOD_OPEN_FILES => {
            let what = format!("the limit of open files is {some}: programs that hold many files open at once get errors");
            sheet.warn(Step::OpenFiles, what, fix);
        }
        many => sheet.pass(Step::OpenFiles, format!("up to {many}")),
    }
}

/// The type that updatedb shall leave alone.
const PRUNED: &str = "fuse.mediafs";

fn updatedb(facts: &Facts, sheet: &mut Sheet<'_>) {
    let Some(types) = &facts.prune_fs else { return sheet.pass(Step::Updatedb, "there is none that would walk through the mount") };
    if types.split_whitespace().any(|kind| kind.eq_ignore_ascii_case(PRUNED)) {
        return sheet.pass(Step::Updatedb, "passes mounts of mediafs by");
    }
    let what = "PRUNEFS in /etc/updatedb.conf lacks fuse.mediafs: every night updatedb lists the whole bucket";
    sheet.warn(Step::Updatedb, what, "add fuse.mediafs to PRUNEFS in /etc/updatedb.conf");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_files_say() {
        assert_eq!(effective_capabilities("CapPrm:\t0\nCapEff:\t0000000000200000\n"), SYS_ADMIN);
        assert_eq!(effective_capabilities(""), 0);
        assert_eq!(prune_fs("# x\nPRUNEFS = \"NFS nfs\"\nPRUNEPATHS=\"/tmp\"\n"), "NFS nfs");
        assert_eq!(prune_fs(""), "");
    }

    #[test]
    fn look_reads_the_places_that_it_is_given() {
        let directory = tempfile::tempdir().expect("directory");
        let at = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).expect("file");
            path
        };
        let places = Places {
            fuse_device: directory.path().join("none"),
            fuse_conf: at("fuse.conf", "#x\nuser_allow_other\n"),
            updatedb_conf: at("updatedb.conf", "PRUNEFS=\"nfs\""),
            updatedb_drop_ins: vec![at("drop-in", "ExecStart=updatedb --add-prunefs fuse.mediafs\n")],
            process_status: at("status", "CapEff: 0\n"),
            kernel_release: at("release", "6.12.1-x\n"),
            programs: vec![directory.path().to_owned()],
            cors_origin: None,
        };
        at("fusermount3", "");
        let facts = look(&places);
        assert_eq!(facts.fuse_error.as_ref().map(|(kind, _)| *kind), Some(io::ErrorKind::NotFound));
        assert!(facts.fusermount.as_ref().is_some_and(|(_, setuid)| !setuid) && facts.user_allow_other && !facts.sys_admin);
        assert_eq!((facts.kernel.as_str(), facts.prune_fs.as_deref()), ("6.12.1-x", Some("nfs fuse.mediafs")));
        assert!(facts.open_files > 0);
    }
}
