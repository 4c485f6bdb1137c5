//! What the keeper hears from outside.

use std::io;
use std::os::fd::AsFd;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::session::plan::{Command, Plan};

/// The front's end of the pipe, and signals from elsewhere.
pub struct Front {
    lines: Lines<BufReader<pipe::Receiver>>,
    gone: bool,
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

/// What the keeper hears from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// What the front says.
    Command(Command),
    /// The front is gone.
    Gone,
    /// A signal to end.
    Told,
}

impl Front {
    /// Of this process's standard input.
    pub fn new() -> io::Result<Self> {
        Self::of(pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?)
    }

    /// Of a pipe.
    pub fn of(pipe: pipe::Receiver) -> io::Result<Self> {
        Ok(Self {
            lines: BufReader::new(pipe).lines(),
            gone: false,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The plan, which is the first thing that it says.
    pub async fn plan(&mut self) -> io::Result<Option<Plan>> {
        let line = self.lines.next_line().await?;
        Ok(line.map(|line| serde_json::from_str(&line)).transpose()?)
    }

    /// What is heard next; the end of the pipe is heard once. Can be cancelled without loss.
    pub async fn next(&mut self) -> Heard {
        loop {
            tokio::select! {
                line = self.lines.next_line(), if !self.gone => match line {
                    Ok(Some(line)) => if let Ok(command) = serde_json::from_str(&line) {
                        return Heard::Command(command);
                    },
                    Ok(None) | Err(_) => {
                        self.gone = true;
                        return Heard::Gone;
                    }
                },
                _ = self.terminate.recv() => return Heard::Told,
                _ = self.interrupt.recv() => return Heard::Told,
                _ = self.hang_up.recv() => return Heard::Told,
            }
        }
    }
}
