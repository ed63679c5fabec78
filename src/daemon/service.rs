//! Talks to the service manager: `sd_notify`, a datagram to the socket that `NOTIFY_SOCKET` names.
//!
//! Without that variable nothing happens. A manager that doesn't listen is no reason to fail.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use parking_lot::Mutex;
use tracing::debug;

pub struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// The last status text, so that the same one isn't sent twice.
    said: Mutex<String>,
}

impl ServiceManager {
    pub fn from_environment() -> Self {
        let address = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty());
        let socket = address.and_then(|address| match connect(&address) {
            Ok(socket) => Some(socket),
            Err(error) => {
                debug!(%error, "no connection to the service manager");
                None
            }
        });
        Self { socket, said: Mutex::default() }
    }

    /// The mount point answers.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// One line for `systemctl status`.
    pub fn status(&self, text: &str) {
        let mut said = self.said.lock();
        if *said != text {
            text.clone_into(&mut said);
            self.send(&format!("STATUS={text}"));
        }
    }

    /// The end takes so much longer, counted from now.
    pub fn extend_timeout(&self, time: Duration) {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}", time.as_micros()));
    }

    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(message.as_bytes(), address)
        {
            debug!(%error, message, "the service manager did not take a message");
        }
    }
}

fn connect(address: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(address)?,
    };
    Ok((UnixDatagram::unbound()?, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_told_once() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("notify");
        let listener = UnixDatagram::bind(&path).expect("socket");
        let manager = ServiceManager { socket: connect(path.as_os_str()).ok(), said: Mutex::default() };
        manager.ready();
        manager.status("idle");
        manager.status("idle");
        manager.stopping();
        let mut buffer = [0; 64];
        for expected in ["READY=1", "STATUS=idle", "STOPPING=1"] {
            let length = listener.recv(&mut buffer).expect("datagram");
            assert_eq!(std::str::from_utf8(&buffer[..length]), Ok(expected));
        }
    }
}
