//! What a tunnel goes over: two ways for bytes.

mod handed;
mod unix;

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::descriptors::Descriptors;
pub use handed::HandedPipe;
pub use unix::{UnixPipe, listen};

/// What carries a tunnel's bytes, and perhaps descriptors beside them.
pub trait Carrier: AsyncRead + AsyncWrite + Unpin {
    /// Those that leave and arrive, if it can carry any.
    fn descriptors(&self) -> Option<&Rc<Descriptors>> {
        None
    }

    /// Whether this end takes those that come.
    fn takes_descriptors(&self) -> bool {
        false
    }
}

impl Carrier for TcpStream {}

/// Both ends in one process, for tests.
impl Carrier for tokio::io::DuplexStream {}

/// All that a tunnel can go over.
#[derive(Debug)]
pub enum Pipe {
    /// A unix socket: both ends share an engine.
    Unix(UnixPipe),
    /// A TCP connection: what a port-forward leads to.
    Tcp(TcpStream),
    /// Two descriptors that another process has handed over.
    Handed(HandedPipe),
}

impl Pipe {
    /// Takes a TCP connection over; what is written leaves at once.
    ///
    /// # Errors
    /// The connection is gone already.
    pub fn tcp(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        Ok(Self::Tcp(socket))
    }
}

impl From<UnixPipe> for Pipe {
    fn from(pipe: UnixPipe) -> Self {
        Self::Unix(pipe)
    }
}

impl From<HandedPipe> for Pipe {
    fn from(pipe: HandedPipe) -> Self {
        Self::Handed(pipe)
    }
}

macro_rules! each {
    ($pipe:expr, $inner:ident => $call:expr) => {
        match $pipe.get_mut() {
            Pipe::Unix($inner) => $call,
            Pipe::Tcp($inner) => $call,
            Pipe::Handed($inner) => $call,
        }
    };
}

impl Carrier for Pipe {
    fn descriptors(&self) -> Option<&Rc<Descriptors>> {
        match self {
            Self::Unix(pipe) => pipe.descriptors(),
            Self::Tcp(_) | Self::Handed(_) => None,
        }
    }

    fn takes_descriptors(&self) -> bool {
        matches!(self, Self::Unix(pipe) if pipe.takes_descriptors())
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, inner => Pin::new(inner).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }
}
