//! Talks to the service manager: `sd_notify`, a datagram to the socket that `NOTIFY_SOCKET` names; and its watchdog, which
//! hears of us only as long as the file system answers.
//!
//! Without that variable nothing happens. A manager that doesn't listen is no reason to fail.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::interval;
use tracing::debug;

use super::status::Sources;

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

    /// Until the next `ready`.
    pub fn reloading(&self) {
        self.send("RELOADING=1");
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

/// Tells the watchdog that the mount is alive, twice in the time that it allows. Returns at once where there is none.
///
/// What is asked takes the locks that every look-up takes, on a thread of the pool: a daemon that hangs in any of them says
/// nothing more, and is killed and started anew, which loses nothing. The bucket has no part in it.
pub async fn watch(service: Arc<ServiceManager>, sources: Arc<Sources>) {
    let variable = |name: &str| std::env::var(name).ok();
    let Some(allowed) = watchdog_time(&variable, std::process::id()) else { return };
    let mut ticks = interval(allowed / 2);
    loop {
        ticks.tick().await;
        let theirs = Arc::clone(&sources);
        let alive = spawn_blocking(move || (theirs.fs.statfs(), theirs.writer.backlog(), theirs.cache.usage())).await;
        if alive.is_ok() {
            service.send("WATCHDOG=1");
        }
    }
}

/// From `WATCHDOG_USEC`, where it is meant for this process.
fn watchdog_time(variable: &dyn Fn(&str) -> Option<String>, own: u32) -> Option<Duration> {
    let is_ours = variable("WATCHDOG_PID").is_none_or(|pid| pid.parse() == Ok(own));
    let micros: u64 = variable("WATCHDOG_USEC")?.parse().ok()?;
    (is_ours && micros > 0).then(|| Duration::from_micros(micros))
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
    fn the_watchdog_is_ours_or_nobodys() {
        let of = |usec: &'static str, pid: Option<&'static str>| {
            let variable = move |name: &str| if name == "WATCHDOG_USEC" { Some(usec.to_owned()) } else { pid.map(str::to_owned) };
            watchdog_time(&variable, 7)
        };
        assert_eq!(of("30000000", None), Some(Duration::from_secs(30)));
        assert_eq!(of("30000000", Some("7")), Some(Duration::from_secs(30)));
        for (usec, pid) in [("30000000", Some("8")), ("0", None), ("x", None)] {
            assert_eq!(of(usec, pid), None);
        }
        assert_eq!(watchdog_time(&|_| None, 7), None);
    }

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
