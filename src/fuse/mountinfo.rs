//! What is mounted where, from `/proc/self/mountinfo`. Reading it touches no mounted file system, so it can't hang.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The type under which we mount.
pub(super) const FS_TYPE: &str = "fuse.mediafs";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    pub point: PathBuf,
    /// `MAJOR:MINOR`, different for each mounted file system.
    pub device: String,
    pub fs_type: String,
    /// What was mounted: for ours `s3://BUCKET/PREFIX`.
    pub source: String,
}

impl MountEntry {
    pub fn is_ours(&self) -> bool {
        self.fs_type == FS_TYPE
    }
}

/// The uppermost mount at exactly this path.
pub(super) fn at(point: &Path) -> io::Result<Option<MountEntry>> {
    Ok(topmost(&fs::read("/proc/self/mountinfo")?, |entry| entry == point))
}

/// The mount that `path` (absolute, without symlinks) lies on.
pub fn mount_of(path: &Path) -> io::Result<Option<MountEntry>> {
    let table = fs::read("/proc/self/mountinfo")?;
    Ok(path.ancestors().find_map(|ancestor| topmost(&table, |entry| entry == ancestor)))
}

/// A later line lies over an earlier one.
fn topmost(table: &[u8], matches: impl Fn(&Path) -> bool) -> Option<MountEntry> {
    table.split(|&byte| byte == b'\n').filter_map(parse).rfind(|entry| matches(&entry.point))
}

/// One line: `ID PARENT MAJ:MIN ROOT POINT OPTIONS [TAGS...] - TYPE SOURCE SUPER_OPTIONS`.
fn parse(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|&byte| byte == b' ');
    let device = fields.nth(2)?;
    let point = fields.nth(1)?;
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let (fs_type, source) = (fields.next()?, fields.next()?);
    let text = |field| String::from_utf8_lossy(&unescape(field)).into_owned();
    Some(MountEntry {
        point: PathBuf::from(OsString::from_vec(unescape(point))),
        device: text(device),
        fs_type: text(fs_type),
        source: text(source),
    })
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut at = 0;
    while at < field.len() {
        let code = field.get(at + 1..at + 4).filter(|_| field[at] == b'\\').and_then(octal);
        plain.push(code.unwrap_or(field[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    plain
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:33 / /srv/my\\040media rw,nosuid,nodev,relatime shared:9 master:2 - fuse.mediafs s3://b/p rw,user_id=0
31 22 0:40 / /srv/two rw - tmpfs tmpfs rw
32 31 0:41 / /srv/two rw - fuse.mediafs s3://other rw
";

    fn find(point: &str) -> Option<MountEntry> {
        topmost(TABLE, |entry| entry == Path::new(point))
    }

    #[test]
    fn points_are_unescaped_and_tags_skipped() {
        let entry = find("/srv/my media").expect("entry");
        assert_eq!((entry.device.as_str(), entry.source.as_str()), ("0:33", "s3://b/p"));
        assert!(entry.is_ours());
        assert_eq!(find("/srv"), None);
    }

    #[test]
    fn the_last_mount_at_a_point_is_the_one_that_is_seen() {
        assert_eq!(find("/srv/two").map(|entry| entry.device), Some("0:41".to_owned()));
    }

    #[test]
    fn broken_escapes_and_lines_do_no_harm() {
        assert_eq!(unescape(b"a\\04"), b"a\\04");
        assert_eq!(unescape(b"a\\999b"), b"a\\999b");
        assert_eq!(unescape(b"\\134x"), b"\\x");
        assert_eq!(parse(b"22 1"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn this_machines_own_table_has_a_root() {
        let root = mount_of(Path::new("/no/such/path")).expect("readable").expect("something is mounted at /");
        assert_eq!(root.point, Path::new("/"));
    }
}
