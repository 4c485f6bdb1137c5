//! Two descriptors, one for each direction, as a tunnel's pipe.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// What the kernel is asked to hold of each direction: its default limit for a pipe.
const ROOM: i32 = 1 << 20;

/// Two descriptors that can be polled: the standard input and output of a process, mostly.
#[derive(Debug)]
pub struct HandedPipe {
    reader: AsyncFd<OwnedFd>,
    writer: Option<AsyncFd<OwnedFd>>,
}

impl HandedPipe {
    /// Takes the descriptors over. They become non-blocking for whoever else has them.
    ///
    /// # Errors
    /// They can't be made non-blocking, or can't be polled: one is a file.
    pub fn new(reader: OwnedFd, writer: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            reader: watch(reader, Interest::READABLE)?,
            writer: Some(watch(writer, Interest::WRITABLE)?),
        })
    }
}

fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = OFlag::from_bits_truncate(fcntl(&descriptor, FcntlArg::F_GETFL)?);
    fcntl(&descriptor, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    // A socket has no such room, and a user's pipes may have used theirs up.
    let _ = fcntl(&descriptor, FcntlArg::F_SETPIPE_SZ(ROOM));
    // Its replacement is unsafe only for types that may swap their descriptor: not `OwnedFd`.
    #[allow(deprecated)]
    AsyncFd::with_interest(descriptor, interest)
}

impl super::Carrier for HandedPipe {}

impl AsyncRead for HandedPipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.reader.poll_read_ready(cx))?;
            let room = buffer.initialize_unfilled();
            match nix::unistd::read(self.reader.get_ref().as_fd(), room) {
                Ok(len) => {
                    // Less than asked for: there is no more, and the next event says when there is.
                    if 0 < len && len < room.len() {
                        ready.clear_ready();
                    }
                    buffer.advance(len);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

impl AsyncWrite for HandedPipe {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(writer) = &self.writer else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        loop {
            let mut ready = ready!(writer.poll_write_ready(cx))?;
            match nix::unistd::write(writer.get_ref().as_fd(), bytes) {
                Ok(len) => return Poll::Ready(Ok(len)),
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer = None;
        Poll::Ready(Ok(()))
    }
}
