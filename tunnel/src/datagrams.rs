//! Datagram sockets on the tunnel's thread.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UdpSocket;
use tokio::task::consume_budget;

thread_local! {
    /// One buffer for every socket of the thread: nobody holds it over a wait.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The largest datagram that IP carries, in bytes.
const LARGEST: usize = 64 << 10;

/// Tells when a socket has something to read. It watches a duplicate of the descriptor, so the
/// socket itself may live elsewhere.
#[derive(Debug)]
pub struct Readiness(AsyncFd<OwnedFd>);

impl Readiness {
    /// Watches a socket.
    ///
    /// # Errors
    /// No descriptor is left, or it can't be polled.
    pub fn of(socket: &impl AsFd) -> io::Result<Self> {
        let duplicate = socket.as_fd().try_clone_to_owned()?;
        // Its replacement is unsafe only for types that may swap their descriptor: not `OwnedFd`.
        #[allow(deprecated)]
        AsyncFd::new(duplicate).map(Self)
    }

    /// Waits until the socket may have something, then has `take` look; again until `take`
    /// returns anything but [`io::ErrorKind::WouldBlock`].
    ///
    /// # Errors
    /// What `take` fails with.
    pub async fn take<T>(&self, mut take: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            // A sender who is faster than we are would keep the thread for itself.
            consume_budget().await;
            if let Ok(result) = self.0.readable().await?.try_io(|_| take()) {
                return result;
            }
        }
    }

    /// As [`Readiness::take`], with the thread's buffer to receive into.
    ///
    /// # Errors
    /// What `take` fails with.
    pub async fn receive<T>(
        &self,
        mut take: impl FnMut(&mut [u8]) -> io::Result<T>,
    ) -> io::Result<T> {
        self.take(|| with_buffer(&mut take)).await
    }
}

/// A socket that speaks to `to` alone, from the address that the kernel chooses; `prepare` sets
/// what must be set before it does.
///
/// # Errors
/// What socket(2), bind(2), connect(2) or `prepare` fail with.
pub fn connected(
    to: SocketAddr,
    prepare: impl FnOnce(&std::net::UdpSocket) -> io::Result<()>,
) -> io::Result<UdpSocket> {
    let any = match to {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    prepare(&socket)?;
    socket.set_nonblocking(true)?;
    socket.connect(to)?;
    UdpSocket::from_std(socket)
}

/// Waits for a datagram and hands it to `act`.
///
/// # Errors
/// What recv(2) fails with, an ICMP error about an earlier datagram among it.
pub async fn receive(socket: &UdpSocket, mut act: impl FnMut(&[u8])) -> io::Result<()> {
    loop {
        consume_budget().await;
        // An error alone makes a socket of datagrams unreadable.
        if socket.ready(Interest::READABLE | Interest::ERROR).await?.is_error() {
            let error = || socket.take_error()?.map_or(Err(io::ErrorKind::WouldBlock.into()), Err);
            match socket.try_io::<()>(Interest::ERROR, error) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
        let received = with_buffer(|buffer| socket.try_recv(buffer).map(|len| act(&buffer[..len])));
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

fn with_buffer<T>(act: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(LARGEST, 0);
        act(buffer)
    })
}
