//! Between the file system's words and fuser's. Pure.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, FopenFlags, INodeNo, RenameFlags, Request, TimeOrNow};

use super::modes::Mode;
use crate::error::{Error, Result};
use crate::fs::{self, Attr, Caller, Kind, Opened, SetTime};

/// What stat calls the preferred size for I/O: one request of the kernel's to the daemon.
const PREFERRED_IO_BYTES: u32 = 128 * 1024;
/// The unit of `st_blocks`, by POSIX.
const STAT_BLOCK_BYTES: u64 = 512;

pub(super) fn attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.size.div_ceil(STAT_BLOCK_BYTES),
        atime: attr.atime,
        mtime: attr.mtime,
        ctime: attr.ctime,
        crtime: attr.ctime,
        kind: kind(attr.kind),
        perm: (attr.mode & 0o7777) as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: 0,
        blksize: PREFERRED_IO_BYTES,
        flags: 0,
    }
}

/// The answer that says "not there, and you may remember it": inode 0.
pub(super) fn no_attr() -> FileAttr {
    let never = SystemTime::UNIX_EPOCH;
    attr(&Attr { ino: 0, kind: Kind::File, mode: 0, nlink: 0, uid: 0, gid: 0, size: 0, atime: never, mtime: never, ctime: never })
}

pub(super) fn kind(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
    }
}

pub(super) fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid() }
}

pub(super) fn time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::SpecificTime(time) => SetTime::To(as_meant(time)),
        TimeOrNow::Now => SetTime::Now,
    }
}

/// A time before 1970 is sent as negative seconds and nanoseconds that count forward from there. fuser 0.18 counts them
/// backward (it does the reverse right), which moves such a time by up to two seconds; here they are turned round.
fn as_meant(time: SystemTime) -> SystemTime {
    match SystemTime::UNIX_EPOCH.duration_since(time) {
        Ok(before) => time + Duration::from_nanos(2 * u64::from(before.subsec_nanos())),
        Err(_) => time,
    }
}

/// RENAME_WHITEOUT and what later kernels may add is refused, never half done.
pub(super) fn rename_flags(flags: RenameFlags) -> Result<fs::RenameFlags> {
    let known = RenameFlags::RENAME_NOREPLACE | RenameFlags::RENAME_EXCHANGE;
    let both = flags.contains(known);
    if both || flags.bits() & !known.bits() != 0 {
        return Err(Error::Invalid);
    }
    Ok(fs::RenameFlags {
        no_replace: flags.contains(RenameFlags::RENAME_NOREPLACE),
        exchange: flags.contains(RenameFlags::RENAME_EXCHANGE),
    })
}

pub(super) fn open_flags(opened: &Opened, mode: Mode) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_DIRECT_IO, mode == Mode::Direct);
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache);
    flags.set(FopenFlags::FOPEN_NOFLUSH, opened.no_flush);
    flags
}

/// Of an open with a backing file: the kernel drops what pages it has of its own, which nobody would keep right.
pub(super) fn backed_flags(opened: &Opened, mode: Mode) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_NOFLUSH, opened.no_flush);
    flags.set(FopenFlags::FOPEN_DIRECT_IO, mode == Mode::PassthroughDirect);
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rename_flags_are_honoured_or_refused() {
        let of = |bits| rename_flags(RenameFlags::from_bits_retain(bits));
        assert!(matches!(of(0), Ok(fs::RenameFlags { no_replace: false, exchange: false })));
        assert!(matches!(of(libc::RENAME_NOREPLACE), Ok(fs::RenameFlags { no_replace: true, exchange: false })));
        assert!(matches!(of(libc::RENAME_EXCHANGE), Ok(fs::RenameFlags { no_replace: false, exchange: true })));
        for bits in [libc::RENAME_WHITEOUT, libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE, 1 << 20] {
            assert!(matches!(of(bits), Err(Error::Invalid)), "{bits}");
        }
    }

    #[test]
    fn nanoseconds_count_forward_before_1970_too() {
        let epoch = SystemTime::UNIX_EPOCH;
        let [half, quarter] = [500, 250].map(Duration::from_millis);
        let five = Duration::from_secs(5);
        for (given, meant) in [(epoch + quarter, epoch + quarter), (epoch - five, epoch - five), (epoch - five - half, epoch - five + half)]
        {
            assert_eq!(as_meant(given), meant);
        }
    }

    #[test]
    fn blocks_are_counted_in_512_bytes() {
        for (size, blocks) in [(0, 0), (1, 1), (512, 1), (513, 2)] {
            let mut given = Attr {
                ino: 2,
                kind: Kind::File,
                mode: 0o644,
                nlink: 1,
                uid: 1,
                gid: 1,
                size,
                atime: SystemTime::UNIX_EPOCH,
                mtime: SystemTime::UNIX_EPOCH,
                ctime: SystemTime::UNIX_EPOCH,
            };
            assert_eq!(attr(&given).blocks, blocks);
            given.mode = 0o104755;
            assert_eq!(attr(&given).perm, 0o4755, "the type is not part of the permissions");
        }
    }
}
