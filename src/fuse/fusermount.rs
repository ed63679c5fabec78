//! Mounting without being root: the setuid program fusermount3 mounts, and hands the descriptor over a socket.
//!
//! It is run directly instead of by fuser, whose session would then own the mount and unmount it by path at its end.

use std::io::{self, Read};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use super::MAX_REQUEST_BYTES;
use super::mount::MountOptions;
use super::mountpoint::MountError;

const PROGRAM: &str = "fusermount3";

pub(super) fn mount(point: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let system = |what| move |error| MountError::System { what, error };
    let (ours, theirs) = UnixStream::pair().map_err(system("making a socket for fusermount3"))?;
    // The socket is the child's standard input, descriptor 0, so nothing has to be kept open across exec by hand.
    let mut child = program()
        .arg("-o")
        .arg(option_text(options))
        .arg("--")
        .arg(point)
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(
            |error| if error.kind() == io::ErrorKind::NotFound { MountError::NoFusermount } else { system("running fusermount3")(error) },
        )?;
    let received = receive_descriptor(&ours);
    drop(ours);
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        // What can't be read is missing from the message, no more.
        stderr.read_to_string(&mut said).ok();
    }
    let status = child.wait().map_err(system("waiting for fusermount3"))?;
    match received {
        Ok(descriptor) if status.success() => Ok(descriptor),
        _ => Err(refusal(&said)),
    }
}

/// Of our surroundings it gets the way to itself: what else is there can be a secret.
fn program() -> Command {
    let mut command = Command::new(PROGRAM);
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command
}

pub(super) fn unmount(point: &Path) -> io::Result<()> {
    let output = program().args(["-u", "-z", "-q", "--"]).arg(point).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(first_line(&String::from_utf8_lossy(&output.stderr)).to_owned()))
}

fn option_text(options: &MountOptions) -> String {
    // fusermount3 splits at commas that have no backslash before them.
    let source = options.source.replace('\\', "\\\\").replace(',', "\\,");
    let mut text = format!("fsname={source},subtype=mediafs,nosuid,nodev,default_permissions,max_read={MAX_REQUEST_BYTES}");
    for (wanted, name) in [
        (options.allow_other, ",allow_other"),
        (options.read_only, ",ro"),
        (options.no_exec, ",noexec"),
        (options.no_access_times, ",noatime"),
    ] {
        if wanted {
            text.push_str(name);
        }
    }
    text
}

fn refusal(said: &str) -> MountError {
    if said.contains("user_allow_other") {
        MountError::AllowOtherDenied
    } else if said.contains("/dev/fuse") && said.contains("No such file") || said.contains("device not found") {
        MountError::NoDevice
    } else if said.contains("/dev/fuse") {
        MountError::DeviceDenied
    } else if said.contains("could not determine username") {
        MountError::NoUserName
    } else if said.contains("mount failed: Operation not permitted") {
        MountError::FusermountPowerless
    } else {
        MountError::Fusermount(first_line(said).trim_start_matches("fusermount3: ").to_owned())
    }
}

fn first_line(said: &str) -> &str {
    said.lines().find(|line| !line.trim().is_empty()).unwrap_or("failed without saying why")
}

/// Room for one control message with one descriptor, aligned as the kernel wants it.
#[repr(C, align(8))]
struct ControlRoom([u8; 64]);

/// One byte of data comes with one descriptor (SCM_RIGHTS).
fn receive_descriptor(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0u8; 1];
    let mut control = ControlRoom([0; 64]);
    let mut vector = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
    // SAFETY: an all-zero msghdr is valid: no name, no data, no control message.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    // SAFETY: the header points to one vector of one byte and to the control room, all alive during the call.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    if received <= 0 {
        return Err(if received < 0 { io::Error::last_os_error() } else { io::ErrorKind::UnexpectedEof.into() });
    }
    // SAFETY: recvmsg filled the header in; CMSG_FIRSTHDR checks the length, and the fields are read only where the
    // kernel says that a descriptor is there, which is ours alone from here on.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if header.is_null() || (*header).cmsg_level != libc::SOL_SOCKET || (*header).cmsg_type != libc::SCM_RIGHTS {
            return Err(io::Error::other("fusermount3 sent no descriptor"));
        }
        let descriptor = libc::CMSG_DATA(header).cast::<i32>().read_unaligned();
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_a_prefix_stays_in_the_source() {
        let options =
            MountOptions { source: "s3://b/a,b".into(), allow_other: true, read_only: true, no_exec: false, no_access_times: false };
        let text = option_text(&options);
        assert!(text.starts_with("fsname=s3://b/a\\,b,subtype=mediafs,"), "{text}");
        assert!(text.ends_with(",allow_other,ro"), "{text}");
    }

    #[test]
    fn what_fusermount_says_becomes_advice() {
        for (said, part) in [
            ("fusermount3: option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf\n", "/etc/fuse.conf"),
            ("fusermount3: fuse device not found, try 'modprobe fuse' first\n", "modprobe"),
            ("fusermount3: failed to open /dev/fuse: Permission denied\n", "no right to open"),
            ("fusermount3: could not determine username\n", "/etc/passwd"),
            ("fusermount3: mount failed: Operation not permitted\n", "NoNewPrivileges"),
            ("fusermount3: user has no write access to mountpoint /x\n", "fusermount3: user has no write access"),
            ("", "failed without"),
        ] {
            let error = refusal(said).to_string();
            assert!(error.contains(part) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_peer_that_goes_without_a_descriptor_is_an_error() {
        let (ours, theirs) = UnixStream::pair().expect("socket");
        drop(theirs);
        assert!(receive_descriptor(&ours).is_err());
    }
}
