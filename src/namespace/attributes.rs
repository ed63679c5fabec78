//! POSIX attributes ↔ object metadata, in the form that s3fs and rclone already read.
//!
//! Pure. What comes from the bucket is another program's text: whatever doesn't parse, or is absurd, counts as absent,
//! and nothing from there makes a device, or a setuid or setgid file. Only what differs from the mount's defaults is
//! written, so that an ordinary object carries no metadata but its mtime. Metadata that isn't ours is left alone.
//!
//! The names are `mode`, `uid`, `gid` and `mtime`. s3fs writes the mode as the whole `st_mode` in decimal (`33188`) and
//! reads it as C's `strtoll` of base 0 does, so a leading zero means octal. rclone writes it in octal without one
//! (`100644`) and reads every number as octal, s3fs's decimals too. So ours is octal with a leading zero (`0100644`), which
//! both read right; how theirs are told apart, see `parse_mode`. Owner and group are written together, since rclone takes
//! the owner's number for the group where none is given. `mtime` is seconds with nine decimals (nine, because s3fs
//! takes the decimals for a count of nanoseconds), negative before 1970 as a number is.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::media::DIRECTORY_TYPE;
pub use crate::types::MTIME;
use crate::types::{ObjectHeaders, PackedHeaders};

pub const MODE: &str = "mode";
pub const UID: &str = "uid";
pub const GID: &str = "gid";
/// The target of a symlink, percent-encoded, so that a HEAD tells it; the body holds it too, which s3fs reads.
pub const SYMLINK: &str = "mediafs-symlink";
/// rclone's MD5 of the whole body, in base64; it is wrong once the body changes.
const RCLONE_MD5: &str = "md5chksum";

/// Longest target kept in metadata: S3 allows 2,048 bytes of metadata in all. A longer one is in the body alone.
const SYMLINK_LIMIT_BYTES: usize = 1024;

/// Linux's PATH_MAX without its NUL.
const TARGET_LIMIT_BYTES: usize = 4095;

/// The end of the year 9999: a later time is milliseconds or nonsense.
const LAST_SECOND: u64 = 253_402_300_799;

/// uid and gid -1 mean "leave it" to chown(2), so nobody has them.
const NO_ID: u32 = u32::MAX;

/// Permission bits that are kept. Setuid and setgid on a file would let a bucket's writer give rights on this host;
/// setgid on a directory carries its group to new files.
pub const FILE_BITS: u32 = 0o777;
pub const DIRECTORY_BITS: u32 = 0o3777;

/// Percent-encoded in a symlink's target: what a header can't carry, or a proxy might trim or fold.
const NOT_PLAIN: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'"').add(b',').add(b'=').add(b'?').add(b'\\');

/// What kind of file the metadata says that an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    File,
    Directory,
    Symlink,
}

impl FileType {
    fn type_bits(self) -> u32 {
        match self {
            Self::File => libc::S_IFREG,
            Self::Directory => libc::S_IFDIR,
            Self::Symlink => libc::S_IFLNK,
        }
    }

    fn of_mode(mode: u32) -> Option<Self> {
        match mode & libc::S_IFMT {
            libc::S_IFREG => Some(Self::File),
            libc::S_IFDIR => Some(Self::Directory),
            libc::S_IFLNK => Some(Self::Symlink),
            _ => None,
        }
    }
}

/// The attributes that an object's metadata carries. None: it says nothing, the mount's default holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Posix {
    /// A hint: the key decides between file and directory.
    pub kind: Option<FileType>,
    /// Permission bits without type: 0777, with setgid and sticky for directories.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mtime: Option<SystemTime>,
    /// The target. None for a symlink: it is the body.
    pub symlink: Option<String>,
}

/// What the mount shows where metadata says nothing; modes are permission bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    pub uid: u32,
    pub gid: u32,
    pub file_mode: u32,
    pub dir_mode: u32,
}

/// What an object's headers say. Never fails: what can't be understood is absent.
pub fn decode(headers: &ObjectHeaders) -> Posix {
    let text = |name: &str| headers.metadata.get(name).map(|text| text.trim());
    let symlink = text(SYMLINK).and_then(decode_target);
    let mode = text(MODE).and_then(parse_mode);
    let kind = mode.and_then(FileType::of_mode).or_else(|| match headers.content_type.as_deref() {
        _ if symlink.is_some() => Some(FileType::Symlink),
        Some(kind) if kind.starts_with(DIRECTORY_TYPE) => Some(FileType::Directory),
        _ => None,
    });
    Posix {
        kind,
        mode: mode.map(|mode| permissions(mode, kind)),
        uid: text(UID).and_then(parse_id),
        gid: text(GID).and_then(parse_id),
        mtime: text(MTIME).and_then(parse_time),
        // A target on what says that it is no symlink is somebody else's metadata.
        symlink: symlink.filter(|_| kind == Some(FileType::Symlink)),
    }
}

/// True where the metadata makes the object a symbolic link.
pub fn is_symlink(headers: &ObjectHeaders) -> bool {
    decode(headers).kind == Some(FileType::Symlink)
}

/// The metadata that says `posix`: the reverse of [`decode`] on a mount with these defaults. A kind of None is a file.
pub fn encode(posix: &Posix, defaults: &Defaults) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::new();
    let mut set = |name: &str, value: String| metadata.insert(name.to_owned(), value);
    let kind = posix.kind.unwrap_or(FileType::File);
    let plain = match kind {
        FileType::File => Some(defaults.file_mode),
        FileType::Directory => Some(defaults.dir_mode),
        // Always written: the mode is what makes the object a symlink.
        FileType::Symlink => None,
    };
    let mode = if kind == FileType::Symlink { Some(0o777) } else { posix.mode.map(|mode| permissions(mode, Some(kind))) };
    if let Some(mode) = mode.filter(|mode| Some(*mode) != plain) {
        set(MODE, format!("0{:o}", kind.type_bits() | mode));
    }
    if posix.uid.is_some_and(|uid| uid != defaults.uid) || posix.gid.is_some_and(|gid| gid != defaults.gid) {
        for (name, id) in [(UID, posix.uid), (GID, posix.gid)] {
            if let Some(id) = id {
                set(name, id.to_string());
            }
        }
    }
    if let Some(text) = posix.mtime.and_then(format_time) {
        set(MTIME, text);
    }
    if let Some(target) = posix.symlink.as_deref().filter(|_| kind == FileType::Symlink) {
        let text = utf8_percent_encode(target, NOT_PLAIN).to_string();
        if text.len() <= SYMLINK_LIMIT_BYTES {
            set(SYMLINK, text);
        }
    }
    metadata
}

/// Metadata that carries an attribute of the file: ours, and the times that s3fs and rclone keep beside it.
pub fn is_metadata(name: &str) -> bool {
    matches!(name, MODE | UID | GID | MTIME | SYMLINK | "atime" | "ctime" | "btime")
}

/// Room that a file's own attributes may take of what the store allows for metadata: four names with their prefix and the
/// longest of their values.
pub const ROOM_BYTES: usize = (11 + 4 + 7) + 2 * (11 + 3 + 10) + (11 + 5 + 23);

/// Makes `headers` say `posix`, and nothing older of ours; all other metadata and headers stay.
pub fn update(headers: &mut ObjectHeaders, posix: &Posix, defaults: &Defaults) {
    for name in [MODE, UID, GID, MTIME, SYMLINK] {
        headers.metadata.remove(name);
    }
    headers.metadata.extend(encode(posix, defaults));
}

/// False: there is nothing for [`forget_content`] to remove.
pub(super) fn describes_content(headers: &PackedHeaders) -> bool {
    headers.may_say(RCLONE_MD5)
}

/// Removes metadata that describes the bytes, for headers that go on to carry other bytes: rclone would take the file
/// for damaged.
pub fn forget_content(headers: &mut ObjectHeaders) {
    headers.metadata.remove(RCLONE_MD5);
}

fn permissions(mode: u32, kind: Option<FileType>) -> u32 {
    mode & if kind == Some(FileType::Directory) { DIRECTORY_BITS } else { FILE_BITS }
}

/// A whole `st_mode`, or bare permission bits.
///
/// A leading zero is octal. Else s3fs's decimal is tried: it must be the mode of a file or a directory, or the one mode
/// that symlinks have. Files in rclone's octal (`100644`) are too big for that, and its directories (`40755`, `41777`,
/// `42755`) read in decimal as no type or as symlinks of odd modes. What is left is octal where its digits are, for a
/// number without a type is a chmod's (`644`); else decimal. Devices, pipes and sockets are ignored.
fn parse_mode(text: &str) -> Option<u32> {
    if text.is_empty() || text.len() > 10 || !text.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let octal = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o177_777);
    let decimal = text.parse().ok().filter(|mode| *mode <= 0o177_777);
    let s3fs = decimal.filter(|mode| match FileType::of_mode(*mode) {
        Some(FileType::Symlink) => *mode == libc::S_IFLNK | 0o777,
        Some(_) => true,
        None => false,
    });
    let mode = if text.starts_with('0') { octal } else { s3fs.or(octal).or(decimal) }?;
    let has_type = mode & libc::S_IFMT != 0;
    if has_type && FileType::of_mode(mode).is_none() { None } else { Some(mode) }
}

fn parse_id(text: &str) -> Option<u32> {
    if !text.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|id| *id != NO_ID)
}

/// Seconds since 1970 as a decimal number; more than nine decimals are cut.
fn parse_time(text: &str) -> Option<SystemTime> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let seconds = whole.parse().ok().filter(|seconds| *seconds <= LAST_SECOND)?;
    let nanos = fraction.bytes().chain(std::iter::repeat(b'0')).take(9).fold(0, |sum, c| sum * 10 + u32::from(c - b'0'));
    let distance = Duration::new(seconds, nanos);
    if negative { SystemTime::UNIX_EPOCH.checked_sub(distance) } else { SystemTime::UNIX_EPOCH.checked_add(distance) }
}

/// None for a time that [`parse_time`] would not take back.
fn format_time(time: SystemTime) -> Option<String> {
    let (sign, distance) = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => ("", after),
        Err(before) => ("-", before.duration()),
    };
    (distance.as_secs() <= LAST_SECOND).then(|| format!("{sign}{}.{:09}", distance.as_secs(), distance.subsec_nanos()))
}

fn decode_target(text: &str) -> Option<String> {
    let target = percent_decode_str(text).decode_utf8().ok()?;
    let usable = !target.is_empty() && target.len() <= TARGET_LIMIT_BYTES && !target.contains('\0');
    usable.then(|| target.into_owned())
}

#[cfg(test)]
mod tests;
