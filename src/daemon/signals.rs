//! The signals that ask the daemon to end, or to read its configuration again.

use std::io::{self, IsTerminal};

use tokio::signal::unix::{Signal, SignalKind, signal};

pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Standard error was one at the start.
    at_terminal: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// By the signal of this name.
    End(&'static str),
    Reload,
}

impl Signals {
    /// From here on none of them ends the process by itself.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            at_terminal: io::stderr().is_terminal(),
        })
    }

    /// What the next one asks for. SIGHUP has the configuration read again, unless it comes because the terminal went: that is
    /// as good a reason to end in order as any.
    pub async fn asked(&mut self) -> Asked {
        match self.next().await {
            "SIGHUP" if !self.at_terminal || io::stderr().is_terminal() => Asked::Reload,
            signal => Asked::End(signal),
        }
    }

    /// The name of the next one, all of which ask to end.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}
