//! Numbers of users and groups by name, from wherever the system keeps them (files, LDAP, systemd).

use std::ffi::CString;
use std::mem;
use std::ptr;

/// Enough for any entry; glibc itself suggests 1 KiB, directory services send more.
const BUFFER_BYTES: usize = 64 * 1024;

pub fn user_id(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut found = ptr::null_mut();
    // SAFETY: an all-zero passwd is valid (null pointers and zeros).
    let mut entry: libc::passwd = unsafe { mem::zeroed() };
    // SAFETY: a NUL-terminated name, a buffer with its true length, and two out-pointers that live during the call.
    let code = unsafe { libc::getpwnam_r(name.as_ptr(), &raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found) };
    (code == 0 && !found.is_null()).then_some(entry.pw_uid)
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
    }
}
