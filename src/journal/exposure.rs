//! Who besides its user could put files of his own into a cache directory, or another directory in its place.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    pub what: String,
    pub fix: String,
    /// No mount takes such a directory. The rest may be meant so: whoever could do it may be trusted.
    pub is_refused: bool,
}

const ONLY_YOURS: &str = "give a --cache-dir that is only yours";
/// In directories with this bit, as /tmp has it, everybody's own stays his own.
const STICKY: u32 = 0o1000;

/// None where only `user` and root can. A directory that is not there yet is judged by the nearest one above it that is, an
/// empty one as if its mode were closed: a mount makes it so.
pub fn exposure(directory: &Path, user: u32) -> io::Result<Option<Exposure>> {
    let refused = |what: String, fix: String| Ok(Some(Exposure { what, fix, is_refused: true }));
    let only_yours = || format!("whoever that is could put files of his own there; {ONLY_YOURS}");
    let shown = directory.display();
    if let Ok(link) = fs::symlink_metadata(directory) {
        let facts = fs::metadata(directory)?;
        if link.file_type().is_symlink() && ![0, user].contains(&link.uid()) {
            return refused(format!("{shown} is a link that user {} made", link.uid()), only_yours());
        }
        if facts.uid() != user {
            let owner = facts.uid();
            let fix = format!("run this as that user (sudo -u '#{owner}'; a mount by root: --run-as {owner}), or {ONLY_YOURS}");
            return refused(format!("{shown} belongs to user {owner}, and this is user {user}"), fix);
        }
        if facts.mode() & 0o022 != 0 && fs::read_dir(directory).is_ok_and(|mut names| names.next().is_some()) {
            return refused(format!("others may write into {shown} (mode 0{:o})", facts.mode() & 0o7777), only_yours());
        }
    }
    let Some(there) = directory.ancestors().find(|place| place.exists()) else { return Ok(None) };
    let real = fs::canonicalize(there)?;
    let mut noted = None;
    for above in real.ancestors().skip(usize::from(there == directory)) {
        let facts = fs::metadata(above)?;
        let (mode, place) = (facts.mode() & 0o7777, above.display());
        if mode & (STICKY | 0o002) == 0o002 {
            let what = format!("everybody may replace {shown}, because of the mode of {place} (0{mode:o})");
            return refused(what, only_yours());
        }
        if ![0, user].contains(&facts.uid()) {
            let what = format!("user {} may replace {shown}, as the owner of {place}", facts.uid());
            noted.get_or_insert((what, format!("trust that user, or {ONLY_YOURS}")));
        }
        if mode & (STICKY | 0o020) == 0o020 && facts.gid() != 0 {
            let what = format!("group {} may replace {shown}, because of the mode of {place} (0{mode:o})", facts.gid());
            noted.get_or_insert((what, format!("chmod g-w {place}, or {ONLY_YOURS}")));
        }
    }
    Ok(noted.map(|(what, fix)| Exposure { what, fix, is_refused: false }))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn found(directory: &Path, user: u32) -> Option<(String, bool)> {
        exposure(directory, user).unwrap().map(|found| (found.what, found.is_refused))
    }

    #[test]
    fn what_others_may_do_above_it_is_told() {
        let parent = tempfile::tempdir().unwrap();
        let me = fs::metadata(parent.path()).unwrap().uid();
        let above = parent.path().join("above");
        let directory = above.join("cache");
        fs::create_dir(&above).unwrap();
        // There or not makes no difference to who may replace it.
        for exists in [false, true] {
            if exists {
                fs::create_dir(&directory).unwrap();
            }
            for (mode, refused) in [(0o755, None), (0o1777, None), (0o1775, None), (0o777, Some(true)), (0o772, Some(true))] {
                set(&above, mode);
                assert_eq!(found(&directory, me).map(|(_, refused)| refused), refused, "{mode:o}, there: {exists}");
            }
        }
        if me == 0 {
            chown(&above, Some(0), Some(65534)).unwrap();
            set(&above, 0o775);
            let (what, refused) = found(&directory, 0).unwrap();
            assert!(what.contains("group 65534 may replace") && !refused, "{what}");
            chown(&above, Some(65534), Some(0)).unwrap();
            set(&above, 0o755);
            let (what, refused) = found(&directory, 0).unwrap();
            assert!(what.contains("user 65534 may replace") && !refused, "{what}");
        }
    }

    #[test]
    fn an_empty_one_is_about_to_be_closed() {
        let directory = tempfile::tempdir().unwrap();
        let me = fs::metadata(directory.path()).unwrap().uid();
        set(directory.path(), 0o777);
        assert_eq!(found(directory.path(), me), None);
        fs::write(directory.path().join("other"), "").unwrap();
        assert!(found(directory.path(), me).is_some_and(|(what, refused)| refused && what.contains("others may write into")));
    }

    #[test]
    fn of_another_user_it_is_that_users() {
        let directory = tempfile::tempdir().unwrap();
        let me = fs::metadata(directory.path()).unwrap().uid();
        let found = exposure(directory.path(), me + 7).unwrap().unwrap();
        assert!(found.is_refused && found.what.contains(&format!("belongs to user {me}")), "{found:?}");
        assert!(found.fix.contains(&format!("--run-as {me}")) && found.fix.contains("--cache-dir"), "{found:?}");
    }
}
