//! Copies between two connected sockets, without the tunnel between them: the kernel moves the
//! bytes from one to the other (splice(2)), and none of them is copied.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;

use crate::awake;
use crate::relay::{Near, Outcome, not_connected};

/// What moves at once, at most.
const CHUNK: usize = 1 << 20;
/// A read of fewer bytes than the pipe has slots has taken all that there was.
const SURELY_ALL: usize = 16;
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
        // Whoever has enlarged too many already keeps the 64 KiB that it has.
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
    ended: bool,
    shut: bool,
}

impl Half {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &mut TcpStream,
    ) -> Poll<io::Result<()>> {
        for _ in 0..TURN {
            ready!(self.poll_write(cx, to))?;
            if self.ended {
                return self.poll_shut(cx, to);
            }
            ready!(self.poll_read(cx, from))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, from: &TcpStream) -> Poll<io::Result<()>> {
        loop {
            ready!(from.poll_read_ready(cx))?;
            let between = Between::take()?;
            let mut moved = None;
            let read = from.try_io(Interest::READABLE, || {
                let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
                let len = splice(from, None, &between.to, None, CHUNK, flags)?;
                moved = Some(len);
                // The next event says when there is more.
                if (1..SURELY_ALL).contains(&len) {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(())
            });
            match (moved, read) {
                (Some(0), _) => {
                    self.ended = true;
                    between.give_back();
                    return Poll::Ready(Ok(()));
                }
                (Some(len), _) => {
                    awake::passed(len);
                    self.between = Some((between, len));
                    return Poll::Ready(Ok(()));
                }
                (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    between.give_back();
                }
                (None, result) => {
                    between.give_back();
                    return Poll::Ready(result);
                }
            }
        }
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
        Poll::Ready(Ok(()))
    }

    fn poll_shut(&mut self, cx: &mut Context<'_>, to: &mut TcpStream) -> Poll<io::Result<()>> {
        if !self.shut {
            ready!(std::pin::Pin::new(&mut *to).poll_shutdown(cx)).or_else(not_connected)?;
            to.close_as_end();
            self.shut = true;
        }
        Poll::Ready(Ok(()))
    }
}

/// Carries bytes between `near` and `far` until both directions have ended, or one of them is
/// reset, which the other then is as well; `sent` is called when all that `near` sent, to its end,
/// has been handed to `far`.
pub(crate) async fn bridge(
    mut near: TcpStream,
    mut far: TcpStream,
    sent: impl FnOnce(),
) -> Outcome {
    for socket in [&near, &far] {
        socket.hurry();
        socket.close_as_reset();
    }
    let (mut up, mut down, mut sent) = (Half::default(), Half::default(), Some(sent));
    poll_fn(|cx| {
        let upwards = up.poll(cx, &near, &mut far);
        let downwards = down.poll(cx, &far, &mut near);
        if upwards.is_ready()
            && let Some(sent) = sent.take()
        {
            sent();
        }
        match (upwards, downwards) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => {
                near.close_as_reset();
                far.close_as_reset();
                Poll::Ready(Outcome::ResetHere)
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Outcome::Finished),
            _ => Poll::Pending,
        }
    })
    .await
}
