//! The app's connections and datagrams, from the target's namespace on.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mirrord_netns::steered::carry_all;
use mirrord_protocol::frame::Errno;
use mirrord_tunnel::Stream;
use mirrord_tunnel::datagrams::{connected, receive};
use nix::libc::EINPROGRESS;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::task::TaskTracker;
use tracing::debug;

/// A flow that carries nothing for so long is over; nf_conntrack forgets UDP streams after 120 s.
const UDP_IDLE: Duration = Duration::from_secs(120);

/// Connects a stream of the app to where it was going, from `source` if there is one.
pub(crate) async fn connect(stream: Stream, source: Option<Ipv4Addr>, to: SocketAddr) {
    let connection = tokio::select! {
        connection = dial(source, to) => connection,
        () = stream.broken() => return,
    };
    match connection {
        Ok(socket) => {
            stream.lead_to(socket).await;
        }
        Err(error) => {
            debug!(%to, %error, "connecting failed");
            stream.refuse(Errno::of(&error));
        }
    }
}

async fn dial(source: Option<Ipv4Addr>, to: SocketAddr) -> io::Result<std::net::TcpStream> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(to), kind, None)?;
    carry_all(&socket)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() == Some(EINPROGRESS) => {}
        connected => connected?,
    }
    let socket = std::net::TcpStream::from(socket);
    // To a neighbour on the same machine the kernel has done it all within connect(2).
    if socket.peer_addr().is_ok() {
        return Ok(socket);
    }
    let socket = TcpStream::from_std(socket)?;
    socket.writable().await?;
    match socket.take_error()? {
        None => socket.into_std(),
        Some(error) => Err(error),
    }
}

/// Sends a flow of the app's datagrams to where they were going, and what comes back.
pub(crate) fn datagrams(tasks: &TaskTracker, stream: Stream, to: SocketAddr) {
    let socket = match connected(to, |_| Ok(())) {
        Ok(socket) => Rc::new(socket),
        Err(error) => return stream.refuse(Errno::of(&error)),
    };
    let used = Rc::new(Cell::new(Instant::now()));
    let (sender, sent) = (socket.clone(), used.clone());
    // The first datagram is right behind the frame that opened the stream: the handler must stand
    // before the next frame is read. (`try_send` would drop it: the socket was never polled.) What
    // the kernel can't take is lost, as on any network.
    stream.on_datagram(move |payload| {
        sent.set(Instant::now());
        let _ = SockRef::from(&*sender).send(&payload);
    });
    stream.accept();
    tasks.spawn_local(async move {
        let refused = tokio::select! {
            refused = answers(&socket, &stream, &used) => refused,
            () = stream.broken() => None,
        };
        if let Some(errno) = refused {
            stream.refuse(errno);
        }
    });
}

/// Ends when nothing went either way for a while, or, as the error says, nobody is there: an ICMP
/// error about an earlier datagram.
async fn answers(socket: &UdpSocket, stream: &Stream, used: &Cell<Instant>) -> Option<Errno> {
    loop {
        let received = receive(socket, |payload| {
            stream.send_datagram(payload);
        });
        match tokio::time::timeout(UDP_IDLE, received).await {
            Ok(Ok(())) => used.set(Instant::now()),
            Ok(Err(error)) => return Some(Errno::of(&error)),
            Err(_) if used.get().elapsed() < UDP_IDLE => {}
            Err(_) => return None,
        }
    }
}
