//! What runs in the target's place, as our child: the docker client, or the process itself.

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitStatus;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use super::signals::Received;

/// Our child, running.
pub struct App {
    child: Child,
    shares_terminal: bool,
    // Open until the child has read them.
    _files: Vec<OwnedFd>,
}

impl App {
    /// Starts it; outside our process group unless it shares the terminal.
    pub fn start(
        mut command: Command,
        shares_terminal: bool,
        files: Vec<OwnedFd>,
    ) -> io::Result<Self> {
        if !shares_terminal {
            command.process_group(0);
        }
        Ok(Self { child: command.spawn()?, shares_terminal, _files: files })
    }

    /// Waits for its end. Can be cancelled without loss.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Hands a signal on, unless it has had it from the terminal.
    pub fn forward(&self, received: Received) {
        if !(received.from_terminal && self.shares_terminal) {
            self.signal(received.signal);
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}
