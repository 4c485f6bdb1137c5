//! What a tunnel goes over: two ways for bytes.

mod handed;
mod unix;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

pub use handed::HandedPipe;
pub use unix::{UnixPipe, listen};

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
