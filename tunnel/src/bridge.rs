//! Copies between two connected sockets, without the tunnel between them. Of a flow the kernel moves
//! the bytes from one to the other (splice(2)), and none of them is copied; for a few bytes it is
//! less work to read and write them.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::awake;
use crate::relay::{Near, Outcome, not_connected};

/// What moves at once, at most.
const CHUNK: usize = 256 << 10;
/// What is copied at once. Whoever has more to say is part of a flow.
const COPIED: usize = 8 << 10;
/// After so many chunks others have their turn.
const TURN: usize = 4;
/// So many pipes are kept for the next bytes.
const SPARE: usize = 16;

thread_local! {
    static SPARES: RefCell<Vec<Between>> = const { RefCell::new(Vec::new()) };
}

/// A pipe(2): a direction has one while bytes are under way.
struct Between {
    from: OwnedFd,
    to: OwnedFd,
}

impl Between {
    fn take() -> io::Result<Self> {
        if let Some(spare) = SPARES.with_borrow_mut(Vec::pop) {
            return Ok(spare);
        }
        let (from, to) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Whoever has enlarged too many already gets smaller ones (pipe(7), pipe-user-pages-soft).
        let _ = fcntl_setpipe_size(&to, CHUNK);
        Ok(Self { from, to })
    }

    /// It is empty.
    fn give_back(self) {
        SPARES.with_borrow_mut(|spares| {
            if spares.len() < SPARE {
                spares.push(self);
            }
        });
    }
}

/// One direction.
#[derive(Default)]
struct Half {
    /// Bytes under way.
    between: Option<(Between, usize)>,
    /// Bytes behind them that were copied.
    copied: Bytes,
    /// Whether the next bytes are moved: there were many before them.
    flows: bool,
    /// What comes after them.
    end: Option<io::Result<()>>,
    shut: bool,
}

impl Half {
    /// `reset` says that one of the sockets is; what it has sent before is carried on as far as the
    /// other one takes it at once.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
        reset: bool,
    ) -> Poll<io::Result<()>> {
        for _ in 0..TURN {
            match self.poll_write(cx, to)? {
                Poll::Pending if reset => {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => {}
            }
            match self.end.take() {
                Some(Ok(())) => return Poll::Ready(self.shut(to)),
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => ready!(self.poll_read(cx, from))?,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, from: &TcpStream) -> Poll<io::Result<()>> {
        loop {
            ready!(from.poll_read_ready(cx))?;
            let read = from.try_io(Interest::READABLE, || {
                let moved = if self.flows { self.take_pipe(from)? } else { 0 };
                if moved > 0 { Ok(moved) } else { self.take_some(from) }
            });
            match read {
                Ok(0) => self.end = Some(Ok(())),
                Ok(len) => awake::passed(len),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => self.end = Some(Err(error)),
            }
            return Poll::Ready(Ok(()));
        }
    }

    /// What has come already, whether the reactor knows or not, is carried on as far as the other
    /// side takes it at once.
    fn drain(&mut self, cx: &mut Context<'_>, from: &TcpStream, to: &TcpStream) {
        while let Poll::Ready(Ok(())) = self.poll_write(cx, to) {
            if self.end.is_some() || !self.take_some(from).is_ok_and(|len| len > 0) {
                return;
            }
        }
    }

    /// Moves what there is into a pipe. 0 where splice(2) does not move: at the end, before a byte
    /// that was sent as urgent, and without a pipe.
    fn take_pipe(&mut self, from: &TcpStream) -> io::Result<usize> {
        let Ok(between) = Between::take() else { return Ok(0) };
        match move_to(from, &between) {
            Ok(len) if len > 0 => {
                self.flows = len >= COPIED;
                self.between = Some((between, len));
                Ok(len)
            }
            moved => {
                between.give_back();
                moved
            }
        }
    }

    /// Copies what comes next; 0 at the end.
    fn take_some(&mut self, from: &TcpStream) -> io::Result<usize> {
        let mut buffer = [0; COPIED];
        let (len, _) = recv(from, &mut buffer, RecvFlags::DONTWAIT)?;
        self.copied = Bytes::copy_from_slice(&buffer[..len]);
        self.flows = len == COPIED;
        Ok(len)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<()>> {
        while let Some((between, left)) = &mut self.between {
            ready!(to.poll_write_ready(cx))?;
            let written = to.try_io(Interest::WRITABLE, || {
                let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
                Ok(splice(&between.from, None, to, None, *left, flags)?)
            });
            match written {
                Ok(len) => *left -= len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            if *left == 0
                && let Some((between, _)) = self.between.take()
            {
                between.give_back();
            }
        }
        while !self.copied.is_empty() {
            ready!(to.poll_write_ready(cx))?;
            match to.try_write(&self.copied) {
                Ok(len) => self.copied.advance(len),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn shut(&mut self, to: &TcpStream) -> io::Result<()> {
        self.end = Some(Ok(()));
        if !self.shut {
            shutdown(to, Shutdown::Write).map_err(io::Error::from).or_else(not_connected)?;
            to.close_as_end();
            self.shut = true;
        }
        Ok(())
    }
}

/// Moves what there is into an empty pipe; 0 where there is nothing, and before an urgent byte.
fn move_to(from: &TcpStream, between: &Between) -> io::Result<usize> {
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    match splice(from, None, &between.to, None, CHUNK, flags) {
        Err(Errno::AGAIN) => Ok(0),
        moved => Ok(moved?),
    }
}

/// Carries bytes between `near` and `far` until both directions have ended, or one of them is
/// reset, which the other then is as well; `sent` is called when all that `near` sent, to its end,
/// has been handed to `far`. Whoever handed `far` over has set what it does with small pieces, and
/// that closing it is a reset.
pub(crate) async fn bridge(near: TcpStream, far: TcpStream, sent: impl FnOnce()) -> Outcome {
    near.hurry();
    near.close_as_reset();
    let (mut up, mut down, mut sent) = (Half::default(), Half::default(), Some(sent));
    // Heard of here also where nobody reads, since the other side is full.
    let mut resets = [pin!(near.ready(Interest::ERROR)), pin!(far.ready(Interest::ERROR))];
    let mut reset = [false; 2];
    poll_fn(|cx| {
        for (reset, heard) in reset.iter_mut().zip(&mut resets) {
            *reset = *reset || heard.as_mut().poll(cx).is_ready();
        }
        let upwards = up.poll(cx, &near, &far, reset[0]);
        if upwards.is_ready()
            && let Some(sent) = sent.take()
        {
            sent();
        }
        // Where one direction has failed, the other would take what is left of it for an end.
        let downwards = match upwards {
            Poll::Ready(Err(_)) => Poll::Pending,
            _ => down.poll(cx, &far, &near, reset[1]),
        };
        let ended = |half: &Poll<io::Result<()>>| matches!(half, Poll::Ready(Ok(())));
        if ended(&upwards) && ended(&downwards) {
            return Poll::Ready(Outcome::Finished);
        }
        // Whose end has been read is not read any more: its reset is only heard.
        let broken = |half: &Poll<io::Result<()>>, reset| match half {
            Poll::Ready(Ok(())) => reset,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        if broken(&upwards, reset[0]) || broken(&downwards, reset[1]) {
            up.drain(cx, &near, &far);
            down.drain(cx, &far, &near);
            near.close_as_reset();
            far.close_as_reset();
            return Poll::Ready(Outcome::ResetHere);
        }
        Poll::Pending
    })
    .await
}
