//! Where tunnels come from: a socket on the volume that both sides mount, or a listener that the
//! agent was born with.

use std::io;
use std::net::TcpStream as StdTcpStream;
use std::os::unix::net::UnixStream as StdUnixStream;

use anyhow::Context;
use mirrord_netns::inherited;
use mirrord_protocol::control::{self, AGENT_SOCKET, LISTENER_FD};
use mirrord_tunnel::{Pipe, UnixPipe, listen};
use tokio::net::{TcpListener, TcpStream, UnixListener};

/// What new tunnels come through.
pub(crate) enum Door {
    Socket(UnixListener),
    Listener(TcpListener),
}

/// Somebody at the door, of no thread yet.
#[derive(Debug)]
pub(crate) enum Caller {
    Unix(StdUnixStream),
    Tcp(StdTcpStream),
}

impl Door {
    pub(crate) fn open(door: control::Door) -> anyhow::Result<Self> {
        match door {
            control::Door::Socket { .. } => listen(AGENT_SOCKET)
                .map(Self::Socket)
                .with_context(|| format!("listening on {AGENT_SOCKET}")),
            control::Door::Listener => {
                let listener =
                    inherited::listener(LISTENER_FD).context("taking the listener over")?;
                Ok(Self::Listener(TcpListener::from_std(listener)?))
            }
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Caller> {
        match self {
            Self::Socket(listener) => Ok(Caller::Unix(listener.accept().await?.0.into_std()?)),
            Self::Listener(listener) => Ok(Caller::Tcp(listener.accept().await?.0.into_std()?)),
        }
    }
}

impl Caller {
    /// A pipe on the calling thread's runtime; several may follow each other, on any threads.
    pub(crate) fn pipe(&self) -> io::Result<Pipe> {
        match self {
            Self::Unix(socket) => Ok(UnixPipe::new(socket.try_clone()?)?.into()),
            Self::Tcp(socket) => Pipe::tcp(TcpStream::from_std(socket.try_clone()?)?),
        }
    }
}
