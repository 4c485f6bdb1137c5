//! A unix socket as a tunnel's pipe.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixListener;

use super::Carrier;
use crate::descriptors::Descriptors;

/// A unix socket that asks for write events only while it is full.
///
/// The kernel reports such a socket as writable each time its peer has read something
/// (`unix_write_space` in net/unix/af_unix.c): with a standing interest in that, every message
/// wakes its sender once more, for nothing.
#[derive(Debug)]
pub struct UnixPipe {
    reader: AsyncFd<UnixStream>,
    full: Option<AsyncFd<UnixStream>>,
    descriptors: Rc<Descriptors>,
    takes: bool,
}

impl UnixPipe {
    /// Takes a connected socket over.
    ///
    /// # Errors
    /// It can't be made non-blocking, or can't be polled.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let reader = watch(socket, Interest::READABLE)?;
        Ok(Self { reader, full: None, descriptors: Rc::default(), takes: false })
    }

    /// Takes descriptors as well that come along; otherwise the kernel closes them.
    #[must_use]
    pub fn taking(self) -> Self {
        Self { takes: true, ..self }
    }

    /// As [`UnixPipe::new`], from tokio's own type.
    ///
    /// # Errors
    /// As there.
    pub fn from_tokio(socket: tokio::net::UnixStream) -> io::Result<Self> {
        Self::new(socket.into_std()?)
    }
}

/// Listens on a path for this user alone, in the place of whoever did before.
///
/// # Errors
/// The folder is not there, or not ours to write.
pub fn listen(path: &str) -> io::Result<UnixListener> {
    // Bound under another name first: who finds the socket can connect to it.
    let unready = format!("{path}.new");
    let _ = fs::remove_file(&unready);
    let listener = UnixListener::bind(&unready)?;
    fs::set_permissions(&unready, Permissions::from_mode(0o600))?;
    fs::rename(&unready, path)?;
    Ok(listener)
}

fn watch(socket: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    // Its replacement is unsafe only for types that may swap their descriptor: not `UnixStream`.
    #[allow(deprecated)]
    AsyncFd::with_interest(socket, interest)
}

impl Carrier for UnixPipe {
    fn descriptors(&self) -> Option<&Rc<Descriptors>> {
        Some(&self.descriptors)
    }

    fn takes_descriptors(&self) -> bool {
        self.takes
    }
}

impl AsyncRead for UnixPipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.reader.poll_read_ready(cx))?;
            let room = buffer.initialize_unfilled();
            let mut socket = self.reader.get_ref();
            let read = match self.takes {
                true => self.descriptors.read(socket, room),
                false => socket.read(room),
            };
            match read {
                Ok(len) => {
                    // Less than asked for: there is no more, and the next event says when there is.
                    // But what comes with descriptors comes apart.
                    if 0 < len && len < room.len() && !self.takes {
                        ready.clear_ready();
                    }
                    buffer.advance(len);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for UnixPipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(full) = &self.full {
                ready!(full.poll_write_ready(cx))?.clear_ready();
            }
            match self.descriptors.write(self.reader.get_ref(), bytes) {
                Ok(len) => {
                    self.full = None;
                    return Poll::Ready(Ok(len));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.full.is_none() {
                        let socket = self.reader.get_ref().try_clone()?;
                        self.full = Some(watch(socket, Interest::WRITABLE)?);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.reader.get_ref().shutdown(std::net::Shutdown::Write))
    }
}
