//! Asks the kernel to let go of names that nobody uses there, so that they may leave the daemon's memory too.
//!
//! Since Linux 6.18 there is a notification for that, FUSE_NOTIFY_PRUNE, which fuser 0.18 doesn't know: it drops the entries
//! of these inodes that are not in use, and nothing else. A kernel before that is told that the names are old, one by one, of
//! files alone: of a directory in which a program stands it would take the name away.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use fuser::{INodeNo, Notifier};

use crate::fs::{IdleName, Ino};

/// From `linux/fuse.h`, FUSE 7.45.
const FUSE_NOTIFY_PRUNE: i32 = 9;

/// Of `fuse_out_header` and of `fuse_notify_prune_out`.
const HEADER_BYTES: usize = 16;
const PRUNE_BYTES: usize = 16;

pub(super) struct Idle {
    device: File,
    is_known: AtomicBool,
}

impl Idle {
    pub fn new(device: OwnedFd) -> Self {
        Self { device: device.into(), is_known: AtomicBool::new(true) }
    }

    /// All of `names` at once, or the first one alone: telling of one name may take as long as a look-up in its directory does,
    /// and other notices wait meanwhile. Returns how many it was.
    pub fn forget(&self, notifier: &Notifier, names: &[IdleName]) -> io::Result<usize> {
        if self.is_known.load(Ordering::Relaxed) {
            let inodes: Vec<Ino> = names.iter().map(|idle| idle.ino).collect();
            match self.send(&inodes) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.is_known.store(false, Ordering::Relaxed),
                sent => return sent.map(|()| names.len()),
            }
        }
        let Some(idle) = names.first() else { return Ok(0) };
        if !idle.is_directory {
            notifier.inval_entry(INodeNo(idle.parent), (*idle.name).as_ref())?;
        }
        Ok(1)
    }

    fn send(&self, inodes: &[Ino]) -> io::Result<()> {
        let message = message(inodes);
        let sent = (&self.device).write_vectored(&[IoSlice::new(&message)])?;
        if sent == message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

/// In the machine's byte order, as all that goes through that device.
fn message(inodes: &[Ino]) -> Vec<u8> {
    let length = HEADER_BYTES + PRUNE_BYTES + size_of_val(inodes);
    let mut message = Vec::with_capacity(length);
    // The length of it all, the notification in the place of an error, and no request that it answers.
    message.extend((length as u32).to_ne_bytes());
    message.extend(FUSE_NOTIFY_PRUNE.to_ne_bytes());
    message.extend(0u64.to_ne_bytes());
    // How many inodes, and room for what is to come.
    message.extend((inodes.len() as u32).to_ne_bytes());
    message.extend([0; 12]);
    inodes.iter().for_each(|ino| message.extend(ino.to_ne_bytes()));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_the_kernel_reads_it() {
        let message = message(&[7, 9]);
        let word = |at: usize| u32::from_ne_bytes(message[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_ne_bytes(message[at..at + 8].try_into().expect("eight bytes"));
        assert_eq!((message.len(), word(0), word(4), long(8)), (48, 48, 9, 0));
        assert_eq!((word(16), word(20), long(24), long(32), long(40)), (2, 0, 0, 7, 9));
    }
}
