//! Signals, taken as data: they are blocked and read from a descriptor, which also tells who sent
//! them.

use std::fs;
use std::io;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::unix::AsyncFd;

/// What docker hands on to the container, so that we hand it on to docker.
const FORWARDED: &[Signal] = &[
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGTERM,
    Signal::SIGTSTP,
    Signal::SIGWINCH,
];

/// Signals that were sent to this process.
pub struct Signals {
    source: AsyncFd<SignalFd>,
}

/// One signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Which one.
    pub signal: Signal,
    /// Whether the terminal sent it, and with it to every process in front of it.
    pub from_terminal: bool,
}

/// The signals that are blocked from here on, in this thread and those that it starts.
pub struct Blocked(SigSet);

/// Blocks the signals that are to be forwarded; those that are ignored stay so.
pub fn block() -> io::Result<Blocked> {
    let ignored = ignored();
    let mut set = SigSet::empty();
    for signal in FORWARDED {
        if ignored & (1 << (*signal as u64 - 1)) == 0 {
            set.add(*signal);
        }
    }
    set.thread_block()?;
    Ok(Blocked(set))
}

/// The mask of ignored signals, as the kernel tells it.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

impl Signals {
    /// Those that are blocked.
    pub fn of(blocked: &Blocked) -> io::Result<Self> {
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        // Deprecated for descriptors that may be closed under it; this one is owned by it.
        #[expect(deprecated)]
        let source = AsyncFd::new(SignalFd::with_flags(&blocked.0, flags)?)?;
        Ok(Self { source })
    }

    /// The next one. Can be cancelled without loss.
    pub async fn next(&mut self) -> io::Result<Received> {
        loop {
            let mut ready = self.source.readable().await?;
            let Some(info) = ready.get_inner().read_signal()? else {
                ready.clear_ready();
                continue;
            };
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            if let Ok(signal) = Signal::try_from(number) {
                return Ok(Received { signal, from_terminal: info.ssi_code > 0 });
            }
        }
    }
}

/// Whether a signal ends a command that waits for its session.
pub fn ends(signal: Signal) -> bool {
    matches!(signal, Signal::SIGHUP | Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTERM)
}
