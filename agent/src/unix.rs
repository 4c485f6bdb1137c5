//! The app's connections to unix sockets of the target.
//!
//! A path is resolved below the target's root, whatever links stand there, and the socket found is
//! connected to by its descriptor: no path of the target is ever walked from our own root, and none
//! can be too long. Abstract names belong to the network namespace, which this thread is in.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mirrord_protocol::frame::Errno;
use mirrord_protocol::unix::{UnixKind, UnixName};
use mirrord_tunnel::Stream;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::stat::{SFlag, fstat};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixStream;
use tracing::debug;

use crate::describe::resolve;

/// A listener whose queue is full is waited for so long; the kernel tells nobody when it has room.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(10);

/// Connects a stream of the app to a unix socket of the target's process.
pub(crate) async fn connect(stream: Stream, pid: Option<u32>, kind: UnixKind, name: UnixName) {
    let connection = tokio::select! {
        connection = dial(pid, kind, &name) => connection,
        () = stream.broken() => return,
    };
    match connection {
        Ok(socket) => {
            stream.accept();
            stream.relay_unix(kind, socket).await;
        }
        Err(error) => {
            debug!(?name, %error, "connecting failed");
            stream.refuse(Errno::of(&error));
        }
    }
}

async fn dial(pid: Option<u32>, kind: UnixKind, name: &UnixName) -> io::Result<UnixStream> {
    let kind = match kind {
        UnixKind::Stream => Type::STREAM,
        UnixKind::Packets => Type::SEQPACKET,
    };
    let socket = Socket::new(Domain::UNIX, kind.nonblocking().cloexec(), None)?;
    let found = match name.abstract_name() {
        Some(_) => None,
        None => Some(find(pid, name)?),
    };
    let address = match &found {
        Some(found) => SockAddr::unix(format!("/proc/self/fd/{}", found.as_raw_fd()))?,
        None => SockAddr::unix(OsStr::from_bytes(name.as_bytes()))?,
    };
    let waiting = async {
        while let Err(error) = socket.connect(&address) {
            if error.kind() != io::ErrorKind::WouldBlock {
                return Err(error);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    };
    let connected = tokio::time::timeout(PATIENCE, waiting).await;
    connected.unwrap_or(Err(io::Error::from_raw_os_error(libc::EAGAIN)))?;
    UnixStream::from_std(StdUnixStream::from(OwnedFd::from(socket)))
}

/// The socket at a path of the target's.
fn find(pid: Option<u32>, name: &UnixName) -> io::Result<OwnedFd> {
    let pid = pid.ok_or_else(|| io::Error::from_raw_os_error(libc::ECONNREFUSED))?;
    let process = PathBuf::from(format!("/proc/{pid}"));
    let path = Path::new(OsStr::from_bytes(name.as_bytes()));
    let found = resolve(&process, path, OFlag::O_PATH)?;
    // What is no socket would be opened as what it is.
    let kind = SFlag::from_bits_truncate(fstat(&found)?.st_mode) & SFlag::S_IFMT;
    if kind != SFlag::S_IFSOCK {
        return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};

    use super::*;

    async fn reach(name: &[u8]) -> Result<UnixStream, i32> {
        let name = UnixName::new(name).expect("a name");
        let dialled = dial(Some(std::process::id()), UnixKind::Stream, &name).await;
        dialled.map_err(|error| error.raw_os_error().unwrap_or(0))
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_found_is_connected_to_and_what_is_not_is_the_kernels_word() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let path = |name: &str| folder.path().join(name).into_os_string().into_encoded_bytes();
        let listens = UnixListener::bind(folder.path().join("listens")).expect("a socket");
        drop(UnixListener::bind(folder.path().join("deaf")).expect("a socket"));
        std::fs::write(folder.path().join("file"), "").expect("a file");
        assert!(reach(&path("listens")).await.is_ok());
        drop(listens);
        for name in ["listens", "deaf", "file", ""] {
            assert_eq!(reach(&path(name)).await.err(), Some(libc::ECONNREFUSED), "{name}");
        }
        assert_eq!(reach(&path("absent")).await.err(), Some(libc::ENOENT));
        assert_eq!(reach(&path("file/x")).await.err(), Some(libc::ENOTDIR));
        let name = format!("mirrord-agent-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        let marked = format!("\0{name}").into_bytes();
        assert_eq!(reach(&marked).await.err(), Some(libc::ECONNREFUSED));
        let _listens = UnixListener::bind_addr(&address).expect("a socket");
        assert!(reach(&marked).await.is_ok());
    }
}
