//! The cache directory: whose it is, and whether its disk is fit for it.
//!
//! `look` reads, `judge` is pure. Must not: change anything in the directory, make it, or take the lock that a mount
//! needs for longer than a look. The probe's file has no name, so that nothing is left whatever happens.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::{ffi::CString, mem, os::unix::ffi::OsStrExt};

use tokio::time::Instant;

use super::report::{Sheet, Step};
use crate::daemon::{REACHED, bytes_text};
use crate::journal::{DirectoryLock, Exposure, exposure, salvage};

pub const STEPS: [Step; 6] =
    [Step::CacheOwner, Step::CacheExposure, Step::CacheDirectory, Step::CacheFileSystem, Step::CacheSpeed, Step::CacheSpace];

/// Written and synced several times, as the journal is; the middle one counts.
const SYNCS: usize = 5;
const SYNC_BYTES: usize = 4096;
/// A save waits for one or two of these.
const SLOW_MILLIS: f64 = 50.0;
/// A cache that can't hold a few parts of an upload and blocks for some readers is fetched again and again.
const SMALL_CACHE_BYTES: u64 = 256 << 20;

/// Whose the directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// It isn't there yet, or is empty.
    Nobody,
    /// Files of somebody else.
    Strangers,
    Bucket(String),
    /// A daemon runs on it: what holds it, and its bucket.
    Running {
        text: String,
        bucket: Option<String>,
    },
    /// The journal says nothing, or nothing certain.
    Damaged(String),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    pub directory: PathBuf,
    /// The directory, or the nearest one above it that exists.
    pub place: PathBuf,
    pub owner: Owner,
    /// Who else could put files of his own there.
    pub exposure: Option<Exposure>,
    /// Of the probe: the time of a sync in milliseconds.
    pub sync: Result<f64, String>,
    pub file_system: String,
    pub free_bytes: u64,
    /// What the cache holds already.
    pub used_bytes: u64,
}

/// `run_as`: the user that a mount becomes; this one without it.
pub fn look(directory: &Path, run_as: Option<u32>) -> io::Result<Facts> {
    let place = directory.ancestors().find(|place| place.is_dir()).unwrap_or(Path::new("/")).to_owned();
    let exists = place == directory;
    let (file_system, free_bytes) = file_system(&place)?;
    Ok(Facts {
        owner: if exists { owner(directory) } else { Owner::Nobody },
        exposure: exposure(directory, user_of(directory, run_as))?,
        sync: probe(&place).map_err(|error| error.to_string()),
        used_bytes: if exists { used(directory) } else { 0 },
        directory: directory.to_owned(),
        place,
        file_system,
        free_bytes,
    })
}

/// Whose the directory will be: one of root's that is empty goes to the user whom root becomes.
fn user_of(directory: &Path, run_as: Option<u32>) -> u32 {
    // SAFETY: geteuid has no arguments and can't fail.
    let me = unsafe { libc::geteuid() };
    let is_given = fs::metadata(directory).is_ok_and(|facts| facts.uid() == 0) && names(directory) == 0;
    run_as.filter(|_| !is_given).unwrap_or(me)
}

fn names(directory: &Path) -> usize {
    fs::read_dir(directory).map(|entries| entries.filter_map(Result::ok).count()).unwrap_or_default()
}

fn owner(directory: &Path) -> Owner {
    match DirectoryLock::acquire_unchanged(directory) {
        // Free again at once: a mount that starts meanwhile must not be refused.
        Ok(lock) => {
            if lock.is_none() {
                return if names(directory) == 0 { Owner::Nobody } else { Owner::Strangers };
            }
        }
        Err(error) => {
            let bucket = fs::read_to_string(directory.join(REACHED)).ok();
            return Owner::Running { text: error.to_string(), bucket };
        }
    }
    match salvage(directory) {
        Ok(found) => match (found.bucket(), found.damage.first()) {
            (Some(bucket), None) => Owner::Bucket(bucket.to_owned()),
            (None, None) => Owner::Nobody,
            // A lock alone is what a mount that never reached its bucket leaves.
            (None, Some(_)) if names(directory) <= 1 => Owner::Nobody,
            (_, Some(damage)) => Owner::Damaged(damage.clone()),
        },
        Err(error) => Owner::Damaged(error.to_string()),
    }
}

/// The middle one of a few syncs, in milliseconds.
fn probe(place: &Path) -> io::Result<f64> {
    let mut file = unnamed(place)?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        file.write_all(&[b'.'; SYNC_BYTES])?;
        let begun = Instant::now();
        file.sync_data()?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[SYNCS / 2])
}

fn unnamed(place: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    match options.clone().custom_flags(libc::O_TMPFILE).open(place) {
        // File systems that have no files without a name.
        Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::IsADirectory | io::ErrorKind::InvalidInput) => {
            let path = place.join(format!(".mediafs-doctor-{:016x}", rand::random::<u64>()));
            let file = options.create_new(true).open(&path)?;
            fs::remove_file(&path)?;
            Ok(file)
        }
        opened => opened,
    }
}

/// Its name, and the bytes that this user may still write.
fn file_system(place: &Path) -> io::Result<(String, u64)> {
    let path = CString::new(place.as_os_str().as_bytes())?;
    // SAFETY: an all-zero statfs is valid (numbers only).
    let mut facts: libc::statfs = unsafe { mem::zeroed() };
    // SAFETY: a NUL-terminated path and an out-pointer that live during the call.
    let done = unsafe { libc::statfs(path.as_ptr(), &raw mut facts) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    let block = u64::try_from(facts.f_bsize).unwrap_or_default();
    let kind = facts.f_type;
    let name = match kind & 0xffff_ffff {
        0x794c_7630 => "overlay".to_owned(),
        0x0102_1994 => "tmpfs".to_owned(),
        0x8584_58f6 => "ramfs".to_owned(),
        0x6969 => "nfs".to_owned(),
        0x6573_5546 => "fuse".to_owned(),
        0xff53_4d42 | 0xfe53_4d42 => "smb".to_owned(),
        0xef53 => "ext4".to_owned(),
        0x5846_5342 => "xfs".to_owned(),
        0x9123_683e => "btrfs".to_owned(),
        0x2fc1_2fc1 => "zfs".to_owned(),
        other => format!("type {other:#x}"),
    };
    Ok((name, facts.f_bavail.saturating_mul(block)))
}

/// Blocks of everything below, without following links.
fn used(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(facts) if facts.is_dir() => used(&entry.path()),
        Ok(facts) => facts.blocks() * 512,
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(bytes).sum()
}

/// `identity` is what a mount would call its bucket; the floor is what it leaves free.
pub fn judge(facts: &Facts, identity: &str, cache_bytes: u64, floor_bytes: u64, sheet: &mut Sheet<'_>) {
    owner_judged(facts, identity, sheet);
    match &facts.exposure {
        None => sheet.pass(Step::CacheExposure, "only this user and root can write there"),
        Some(found) if found.is_refused => sheet.fail(Step::CacheExposure, &found.what, &found.fix),
        Some(found) => sheet.warn(Step::CacheExposure, &found.what, &found.fix),
    }
    let place = facts.place.display();
    match &facts.sync {
        Ok(_) => sheet.pass(Step::CacheDirectory, format!("{}", facts.directory.display())),
        Err(error) => {
            let what = format!("this user can't write to {place}: {error}");
            sheet.fail(Step::CacheDirectory, what, "give a --cache-dir on a local disk that this user may write to");
        }
    }
    file_system_judged(facts, sheet);
    match facts.sync {
        Err(_) => sheet.skip(Step::CacheSpeed, "it can't be written to"),
        Ok(millis) if millis < SLOW_MILLIS => sheet.pass(Step::CacheSpeed, format!("{millis:.1} ms for a sync")),
        Ok(millis) => {
            let what = format!("{millis:.0} ms for a sync: each save waits for it");
            sheet.warn(Step::CacheSpeed, what, "give a --cache-dir on an SSD, or look at what else keeps this disk busy");
        }
    }
    space(facts, cache_bytes, floor_bytes, sheet);
}

fn owner_judged(facts: &Facts, identity: &str, sheet: &mut Sheet<'_>) {
    let directory = facts.directory.display();
    let other = |theirs: &str, sheet: &mut Sheet<'_>| {
        let what = format!("{directory} belongs to another bucket: {theirs}, not to {identity}");
        sheet.fail(Step::CacheOwner, what, "give each bucket and prefix its own --cache-dir");
    };
    match &facts.owner {
        Owner::Nobody => sheet.pass(Step::CacheOwner, "it is new"),
        Owner::Bucket(ours) if ours == identity => sheet.pass(Step::CacheOwner, "a mount of this bucket has used it"),
        Owner::Bucket(theirs) | Owner::Running { bucket: Some(theirs), .. } if theirs != identity => other(theirs, sheet),
        Owner::Bucket(_) => sheet.pass(Step::CacheOwner, "a mount of this bucket has used it"),
        Owner::Running { text, .. } => {
            let fix = "nothing to do where that is this bucket's mount; a second mount needs its own --cache-dir";
            sheet.warn(Step::CacheOwner, text, fix);
        }
        Owner::Strangers => {
            let what = format!("{directory} holds files that are not of a cache");
            sheet.warn(Step::CacheOwner, what, "give an empty or new directory as --cache-dir");
        }
        Owner::Damaged(damage) => {
            let what = format!("the journal in {directory} is damaged: {damage}");
            let fix = format!("see what is not in the bucket yet: mediafs recover {directory} list");
            sheet.fail(Step::CacheOwner, what, fix);
        }
    }
}

fn file_system_judged(facts: &Facts, sheet: &mut Sheet<'_>) {
    let name = &facts.file_system;
    let fix = "give a --cache-dir on a local disk (ext4, xfs, btrfs); in a container: on a volume";
    let drawback = match name.as_str() {
        "tmpfs" | "ramfs" => "lies in memory: what is not uploaded yet is lost with the machine, and the cache takes its memory",
        "overlay" => "is the container's own layer: what is not uploaded yet goes with the container",
        "nfs" | "smb" | "fuse" => "is a network or FUSE file system: slow, and its locks and syncs may not hold",
        _ => return sheet.pass(Step::CacheFileSystem, name),
    };
    sheet.warn(Step::CacheFileSystem, format!("{name} {drawback}"), fix);
}

fn space(facts: &Facts, cache_bytes: u64, floor_bytes: u64, sheet: &mut Sheet<'_>) {
    let room = facts.free_bytes.saturating_add(facts.used_bytes).saturating_sub(floor_bytes);
    let (free, size) = (bytes_text(facts.free_bytes), bytes_text(cache_bytes));
    if room < SMALL_CACHE_BYTES.min(cache_bytes) {
        let what = format!("the disk is full: {free} free, of which {} stay free (--free-space-floor)", bytes_text(floor_bytes));
        return sheet.fail(Step::CacheSpace, what, "make room on that disk, or give a --cache-dir on another one");
    }
    if room < cache_bytes {
        let what = format!("{free} free: the cache can't grow to its {size}");
        return sheet.warn(Step::CacheSpace, what, format!("nothing has to be done; or make room, or give --cache-size {}", whole(room)));
    }
    if cache_bytes < SMALL_CACHE_BYTES {
        let what = format!("a cache of {size} is tiny: files are fetched again and again, and uploads have to wait for each other");
        return sheet.warn(Step::CacheSpace, what, "give a larger --cache-size, such as 10GiB");
    }
    sheet.pass(Step::CacheSpace, format!("{free} free, the cache takes up to {size}"));
}

/// As an option's value: whole MiB.
fn whole(bytes: u64) -> String {
    format!("{}MiB", bytes >> 20)
}
