//! When to look for packets.
//!
//! Waking a sleeping reader is work for whoever delivers the packet, which is the target's side.
//! So only the first packet after a silence wakes the reader; while packets keep coming it looks
//! for them by the clock, and the sockets stay unarmed.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};

/// How often packets are looked for while they come. Where the target has no core to spare, each
/// look delays what it does at that moment: so rarely that this is not among the worst hundredth
/// of its answers.
const SLOW: Duration = Duration::from_millis(8);

/// How often when they come in such a stream that the sockets' buffers are soon full.
const FAST: Duration = Duration::from_millis(1);

/// Bytes in one tick from which on it is such a stream.
const STREAM: usize = 256 << 10;

/// Ticks without a packet after which the next packet wakes the reader again.
const QUIET: u32 = 5;

/// Becomes readable when it is time to look for packets.
#[derive(Debug)]
pub(super) struct Pace {
    epoll: Epoll,
    timer: TimerFd,
    ticking: Option<Duration>,
    quiet: u32,
}

impl Pace {
    /// Sockets are added with [`Pace::add`].
    pub(super) fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        Ok(Self { epoll, timer, ticking: None, quiet: 0 })
    }

    /// Adds a socket whose next packet wakes the reader.
    pub(super) fn add(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        Ok(self.epoll.add(socket, armed())?)
    }

    /// Takes note that the reader is awake: no packet wakes it again until [`Pace::rest`].
    pub(super) fn awake(&self) -> io::Result<()> {
        if self.ticking.is_some() {
            return self.clear_timer();
        }
        let mut events = [EpollEvent::empty(); 4];
        self.epoll.wait(&mut events, EpollTimeout::ZERO)?;
        self.clear_timer()
    }

    /// Takes note that there is nothing to read at the moment, and how many bytes were since it
    /// last rested.
    pub(super) fn rest<'a>(
        &mut self,
        bytes: usize,
        sockets: impl Iterator<Item = BorrowedFd<'a>>,
    ) -> io::Result<()> {
        self.quiet = if bytes > 0 { 0 } else { self.quiet.saturating_add(1) };
        if self.quiet < QUIET {
            return self.tick_every(if bytes < STREAM { SLOW } else { FAST });
        }
        if self.ticking.take().is_some() {
            self.timer.unset()?;
        }
        for socket in sockets {
            self.epoll.modify(socket, &mut armed())?;
        }
        Ok(())
    }

    /// Has the reader look at the next tick, whether a packet comes or not.
    pub(super) fn tick(&mut self) -> io::Result<()> {
        self.tick_every(self.ticking.unwrap_or(FAST))
    }

    fn tick_every(&mut self, time: Duration) -> io::Result<()> {
        if self.ticking != Some(time) {
            let every = Expiration::Interval(time.into());
            self.timer.set(every, TimerSetTimeFlags::empty())?;
            self.ticking = Some(time);
        }
        Ok(())
    }

    fn clear_timer(&self) -> io::Result<()> {
        match self.timer.wait() {
            Ok(()) | Err(nix::Error::EAGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Pace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

/// Wakes once.
fn armed() -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, 1)
}
