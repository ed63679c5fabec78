//! Leaves the caller's terminal once the mount answers. mount(8) waits for its helper: that ends with 0 when the files are
//! there, and with the daemon's error when they never will be.
//!
//! The process is split before it has a second thread or a runtime: what fork copies is all of it. Until the mount answers,
//! the daemon stays in the caller's session, so that Ctrl-C ends both.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::process::ExitCode;

/// Where the process goes on.
pub enum Side {
    /// The daemon is up (0) or has ended: nothing is left to do but to end like this.
    Caller(ExitCode),
    Daemon(Ready),
}

/// The caller's end of the wait.
pub struct Ready(PipeWriter);

/// Splits the process. `lost` is the caller's exit code where the daemon was killed. No other thread may run yet.
pub fn split(lost: u8) -> io::Result<Side> {
    let (reader, writer) = io::pipe()?;
    // SAFETY: no other thread exists, so no lock is held that the child could wait for.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(reader);
            Ok(Side::Daemon(Ready(writer)))
        }
        daemon => {
            drop(writer);
            Ok(Side::Caller(wait(reader, daemon, lost)))
        }
    }
}

fn wait(mut reader: PipeReader, daemon: libc::pid_t, lost: u8) -> ExitCode {
    if reader.read_exact(&mut [0]).is_ok() {
        return ExitCode::SUCCESS;
    }
    let mut status = 0;
    // SAFETY: a child of this process, and an out-pointer that lives during the call.
    let ended = unsafe { libc::waitpid(daemon, &raw mut status, 0) };
    let code = if ended == daemon && libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 0 };
    // Ending with 0 before the mount answered is no success either.
    ExitCode::from(u8::try_from(code).ok().filter(|&code| code != 0).unwrap_or(lost))
}

impl Ready {
    /// Lets the caller go, and everything of its: session, directory, standard files.
    pub fn tell(mut self) -> io::Result<()> {
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
        // SAFETY: no arguments; it fails only for the leader of a group, which a forked process isn't.
        unsafe { libc::setsid() };
        std::env::set_current_dir("/")?;
        for standard in 0..=2 {
            // SAFETY: two descriptors, the first one open; the standard ones are nobody's property.
            if unsafe { libc::dup2(null.as_raw_fd(), standard) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        self.0.write_all(b"!")
    }
}
