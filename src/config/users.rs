//! Users and groups by name, from wherever the system keeps them (files, LDAP, systemd).

use std::ffi::{CStr, CString};
use std::mem;
use std::ptr;

use crate::daemon::Account;

/// Enough for any entry; glibc itself suggests 1 KiB, directory services send more.
const BUFFER_BYTES: usize = 64 * 1024;

pub fn user_id(name: &str) -> Option<u32> {
    by_name(name).map(|account| account.uid)
}

/// A user with the group that is its own, by name or by number.
pub fn account(text: &str) -> Option<Account> {
    by_name(text).or_else(|| by_number(text.parse().ok()?))
}

fn by_name(name: &str) -> Option<Account> {
    let name = CString::new(name).ok()?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut found = ptr::null_mut();
    // SAFETY: an all-zero passwd is valid (null pointers and zeros).
    let mut entry: libc::passwd = unsafe { mem::zeroed() };
    // SAFETY: a NUL-terminated name, a buffer with its true length, and two out-pointers that live during the call.
    let code = unsafe { libc::getpwnam_r(name.as_ptr(), &raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found) };
    (code == 0 && !found.is_null()).then(|| known(&entry))
}

fn by_number(uid: u32) -> Option<Account> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut found = ptr::null_mut();
    // SAFETY: an all-zero passwd is valid (null pointers and zeros).
    let mut entry: libc::passwd = unsafe { mem::zeroed() };
    // SAFETY: a buffer with its true length, and two out-pointers that live during the call.
    let code = unsafe { libc::getpwuid_r(uid, &raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found) };
    (code == 0 && !found.is_null()).then(|| known(&entry))
}

/// Of an entry that was filled in, and whose buffer still lives.
fn known(entry: &libc::passwd) -> Account {
    // SAFETY: the name of an entry that was found is NUL-terminated and lies in its buffer.
    let name = unsafe { CStr::from_ptr(entry.pw_name) };
    Account { name: name.to_string_lossy().into_owned(), uid: entry.pw_uid, gid: entry.pw_gid }
}

pub fn group_id(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut found = ptr::null_mut();
    // SAFETY: an all-zero group is valid (null pointers and zeros).
    let mut entry: libc::group = unsafe { mem::zeroed() };
    // SAFETY: a NUL-terminated name, a buffer with its true length, and two out-pointers that live during the call.
    let code = unsafe { libc::getgrnam_r(name.as_ptr(), &raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found) };
    (code == 0 && !found.is_null()).then_some(entry.gr_gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_number_zero() {
        assert_eq!(user_id("root"), Some(0));
        assert_eq!(group_id("root"), Some(0));
        assert_eq!(user_id("no such user"), None);
        assert_eq!(group_id("no\0group"), None);
        let root = Account { name: "root".into(), uid: 0, gid: 0 };
        assert_eq!((account("root"), account("0")), (Some(root.clone()), Some(root)));
        assert_eq!((account("no such user"), account("4000000001")), (None, None));
    }
}
