//! The app's connections and datagrams, from the target's namespace on.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mirrord_netns::steered::carry_all;
use mirrord_protocol::frame::Errno;
use mirrord_tunnel::datagrams::{connected, receive};
use mirrord_tunnel::{Stream, Tunnel, stands};
use nix::libc::EINPROGRESS;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::UdpSocket;
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

/// So many sockets are given at once, at most.
const MOST_GIVEN: u8 = 32;

/// Gives the proxy sockets that it connects itself.
pub(crate) fn give(tunnel: &Tunnel, v6: bool, count: u8) {
    let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
    for _ in 0..count.min(MOST_GIVEN) {
        match socket(domain) {
            Ok(socket) => tunnel.give(v6, socket.into()),
            Err(error) => return debug!(%error, "there is no socket to give"),
        }
    }
}

fn socket(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), None)?;
    carry_all(&socket)?;
    Ok(socket)
}

async fn dial(source: Option<Ipv4Addr>, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(Domain::for_address(to))?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() == Some(EINPROGRESS) => {}
        connected => connected?,
    }
    stands(socket.into()).await
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
