//! The app's connections and datagrams, from the target's namespace on.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mirrord_protocol::frame::Errno;
use mirrord_tunnel::datagrams::receive;
use mirrord_tunnel::{Answers, Stream};
use socket2::SockRef;
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::task::TaskTracker;
use tracing::debug;

/// A flow that carries nothing for so long is over; nf_conntrack forgets UDP streams after 120 s.
const UDP_IDLE: Duration = Duration::from_secs(120);

/// Connects a stream of the app to where it was going.
pub(crate) async fn connect(stream: Stream, to: SocketAddr) {
    let connected = tokio::select! {
        connected = TcpStream::connect(to) => connected,
        () = stream.broken() => return,
    };
    match connected {
        Ok(socket) => {
            stream.accept();
            stream.relay(socket, Answers::Sent).await;
        }
        Err(error) => {
            debug!(%to, %error, "connecting failed");
            stream.refuse(errno(&error));
        }
    }
}

/// Sends a flow of the app's datagrams to where they were going, and what comes back.
pub(crate) fn datagrams(tasks: &TaskTracker, stream: Stream, to: SocketAddr) {
    let socket = match udp_socket(to) {
        Ok(socket) => Rc::new(socket),
        Err(error) => return stream.refuse(errno(&error)),
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
    tasks.spawn_local(async move {
        tokio::select! {
            () = answers(&socket, &stream, &used) => {}
            () = stream.broken() => {}
        }
    });
}

/// Ends when nothing went either way for a while.
async fn answers(socket: &UdpSocket, stream: &Stream, used: &Cell<Instant>) {
    loop {
        let received = receive(socket, |payload| {
            stream.send_datagram(payload);
        });
        match tokio::time::timeout(UDP_IDLE, received).await {
            Ok(Ok(())) => used.set(Instant::now()),
            // An ICMP error about an earlier datagram.
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(_) if used.get().elapsed() < UDP_IDLE => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

fn udp_socket(to: SocketAddr) -> io::Result<UdpSocket> {
    let any = match to {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(to)?;
    UdpSocket::from_std(socket)
}

fn errno(error: &io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(nix::libc::EIO))
}
