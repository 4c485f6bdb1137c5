//! Where tunnels come from: a socket on the volume that both sides mount, or a listener that the
//! agent was born with.

use std::fs;
use std::io;
use std::net::TcpStream as StdTcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdUnixStream;

use anyhow::Context;
use mirrord_netns::inherited;
use mirrord_protocol::control::{self, AGENT_SOCKET, LISTENER_FD};
use mirrord_tunnel::{Pipe, UnixPipe};
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
            control::Door::Socket { .. } => listen(AGENT_SOCKET).map(Self::Socket),
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

fn listen(path: &str) -> anyhow::Result<UnixListener> {
    // Bound under another name first: who finds the socket can connect to it.
    let unready = format!("{path}.new");
    let _ = fs::remove_file(&unready);
    let listener = UnixListener::bind(&unready).with_context(|| format!("listening on {path}"))?;
    fs::set_permissions(&unready, fs::Permissions::from_mode(0o600))?;
    fs::rename(&unready, path).with_context(|| format!("listening on {path}"))?;
    Ok(listener)
}
