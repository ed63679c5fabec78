//! From root to a user of its own, who keeps one right: to mount, which is to unmount and to register files for passthrough,
//! too. It is done before there is a second thread: capabilities are each thread's own, and later threads inherit them.

use std::ffi::CString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, lchown};
use std::path::Path;

use super::settings::{Account, Settings};
use crate::journal::make_above;

/// The number of CAP_SYS_ADMIN.
const SYS_ADMIN: libc::c_ulong = 21;
/// More than the kernel has capabilities: what it doesn't know it refuses.
const CAPABILITIES: libc::c_ulong = 64;
/// _LINUX_CAPABILITY_VERSION_3: two words of 32 capabilities for each set.
const VERSION: u32 = 0x2008_0522;

/// capget(2)'s and capset(2)'s first argument.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// Their second, for 32 capabilities.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Becomes the user of `--run-as`, where one is named, with a cache directory that is that user's. An error says what to change.
pub fn run_as(settings: &Settings) -> io::Result<()> {
    let Some(account) = &settings.run_as else { return Ok(()) };
    // SAFETY: geteuid has no arguments and can't fail.
    match unsafe { libc::geteuid() } {
        0 => {}
        me if me == account.uid => return Ok(()),
        me => {
            let text = format!("--run-as {}: user {me} can't become another one; start it as root, or leave that out", account.name);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
    }
    let named = |what: &str, error: io::Error| io::Error::new(error.kind(), format!("--run-as {}: {what}: {error}", account.name));
    give_directory(account, &settings.cache_dir).map_err(|error| named("the cache directory", error))?;
    become_user(account).map_err(|error| named("can't become that user", error))
}

/// Makes the directory, or takes an empty one, for the user. One that is in use is not given away unseen.
fn give_directory(account: &Account, directory: &Path) -> io::Result<()> {
    let shown = directory.display();
    if fs::metadata(directory).is_ok_and(|facts| facts.uid() == account.uid) {
        return Ok(());
    }
    if let Ok(facts) = fs::symlink_metadata(directory) {
        let is_empty = facts.is_dir() && fs::read_dir(directory)?.next().is_none();
        if !is_empty || facts.uid() != 0 {
            let text = format!(
                "{shown} belongs to user {}; with nothing mounted from it: chown -R {} {shown}, or give another --cache-dir",
                facts.uid(),
                account.name
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
    } else {
        make_above(directory)?;
        DirBuilder::new().mode(0o700).create(directory)?;
    }
    // A link that somebody put there meanwhile leads nowhere.
    lchown(directory, Some(account.uid), Some(account.gid))
}

fn become_user(account: &Account) -> io::Result<()> {
    let kept = permitted()?.permitted & (1 << SYS_ADMIN);
    // Before the right to do so is gone. What the kernel doesn't know, it refuses.
    for capability in (0..CAPABILITIES).filter(|capability| *capability != SYS_ADMIN || kept == 0) {
        // SAFETY: prctl with this operation takes one number.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
    let name = CString::new(account.name.as_str())?;
    // SAFETY: prctl with this operation takes one number.
    done(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) })?;
    // SAFETY: a NUL-terminated name that lives during the call, and a number.
    done(unsafe { libc::initgroups(name.as_ptr(), account.gid) })?;
    // SAFETY: three numbers.
    done(unsafe { libc::setresgid(account.gid, account.gid, account.gid) })?;
    // SAFETY: three numbers.
    done(unsafe { libc::setresuid(account.uid, account.uid, account.uid) })?;
    set(Sets { effective: kept, permitted: kept, inheritable: 0 })?;
    // fusermount3, which mounts for who may not, is setuid.
    if kept != 0 {
        // SAFETY: prctl with this operation takes four numbers.
        done(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    }
    Ok(())
}

/// This thread's first 32 capabilities.
fn permitted() -> io::Result<Sets> {
    let header = Header { version: VERSION, pid: 0 };
    let mut sets = [Sets::default(); 2];
    // SAFETY: a header of the version whose answer has two parts, and an out-pointer to two that live during the call.
    let code = unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) };
    done(code).map(|()| sets[0])
}

/// Gives this thread these of the first 32, and none of the others.
fn set(first: Sets) -> io::Result<()> {
    let header = Header { version: VERSION, pid: 0 };
    let sets = [first, Sets::default()];
    // SAFETY: a header of the version that takes two parts, and a pointer to two that live during the call.
    done(unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) })
}

fn done(code: impl Into<i64>) -> io::Result<()> {
    if code.into() < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(uid: u32) -> Account {
        Account { name: "media".into(), uid, gid: uid }
    }

    #[test]
    fn a_directory_is_made_for_the_user_and_a_used_one_not_given_away() {
        // SAFETY: geteuid has no arguments and can't fail.
        if unsafe { libc::geteuid() } != 0 {
            return;
        }
        let parent = tempfile::tempdir().unwrap();
        let facts = |path: &Path| fs::metadata(path).map(|facts| (facts.uid(), facts.mode() & 0o777)).unwrap();
        let made = parent.path().join("var/cache/x");
        give_directory(&account(65_534), &made).unwrap();
        assert_eq!((facts(&made), facts(made.parent().unwrap())), ((65_534, 0o700), (0, 0o711)));
        give_directory(&account(65_534), &made).unwrap();
        let empty = parent.path().join("empty");
        fs::create_dir(&empty).unwrap();
        give_directory(&account(65_534), &empty).unwrap();
        assert_eq!(facts(&empty).0, 65_534);
        let used = parent.path().join("used");
        fs::create_dir(&used).unwrap();
        fs::write(used.join("journal"), "").unwrap();
        for directory in [&used, &made] {
            let error = give_directory(&account(1), directory).unwrap_err().to_string();
            assert!(error.contains("chown -R media"), "{error}");
        }
        assert_eq!(facts(&used).0, 0);
    }

    #[test]
    fn this_thread_has_what_proc_says() {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:\t")).unwrap();
        let all = u64::from_str_radix(line, 16).unwrap();
        assert_eq!(u64::from(permitted().unwrap().permitted), all & u64::from(u32::MAX));
    }
}
