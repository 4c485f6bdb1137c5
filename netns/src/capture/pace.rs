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

/// How often packets are looked for while they come.
const TICK: Duration = Duration::from_millis(1);

/// Ticks without a packet after which the next packet wakes the reader again.
const QUIET: u32 = 10;

/// Becomes readable when it is time to look for packets.
#[derive(Debug)]
pub(super) struct Pace {
    epoll: Epoll,
    timer: TimerFd,
    ticking: bool,
    quiet: u32,
}

impl Pace {
    /// Sockets are added with [`Pace::add`].
    pub(super) fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        Ok(Self {
            epoll,
            timer,
            ticking: false,
            quiet: 0,
        })
    }

    /// Adds a socket whose next packet wakes the reader.
    pub(super) fn add(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        Ok(self.epoll.add(socket, armed())?)
    }

    /// Takes note that the reader is awake: no packet wakes it again until [`Pace::rest`].
    pub(super) fn awake(&self) -> io::Result<()> {
        if self.ticking {
            return self.clear_timer();
        }
        let mut events = [EpollEvent::empty(); 4];
        self.epoll.wait(&mut events, EpollTimeout::ZERO)?;
        self.clear_timer()
    }

    /// Takes note that there is nothing to read at the moment. `came` says whether packets came
    /// since the last time.
    pub(super) fn rest<'a>(
        &mut self,
        came: bool,
        sockets: impl Iterator<Item = BorrowedFd<'a>>,
    ) -> io::Result<()> {
        self.quiet = if came { 0 } else { self.quiet + 1 };
        if self.quiet < QUIET {
            return self.tick();
        }
        if self.ticking {
            self.timer.unset()?;
            self.ticking = false;
        }
        for socket in sockets {
            self.epoll.modify(socket, &mut armed())?;
        }
        Ok(())
    }

    /// Has the reader look at the next tick, whether a packet comes or not.
    pub(super) fn tick(&mut self) -> io::Result<()> {
        if !self.ticking {
            let every = Expiration::Interval(TICK.into());
            self.timer.set(every, TimerSetTimeFlags::empty())?;
            self.ticking = true;
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
