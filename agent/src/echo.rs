//! Echo requests of the app, asked again from the target's namespace.
//!
//! A ping socket is asked for first, which needs no right where the namespace's
//! `net.ipv4.ping_group_range` has our group (icmp(7)); then a raw one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use mirrord_protocol::frame::Errno;
use mirrord_tunnel::Stream;
use mirrord_tunnel::datagrams::receive;
use nix::sys::socket::{setsockopt, sockopt::Ipv4RecvErr};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;
use tokio_util::task::TaskTracker;

/// Whoever asks nothing for so long is forgotten.
const IDLE: Duration = Duration::from_secs(60);
const HEADER: usize = 8;
const REQUEST: u8 = 8;
const REPLY: u8 = 0;
/// Of a request, before what is to come back.
const SEQUENCE: usize = 2;

/// Asks `to` what comes through the stream, and sends back what it answers.
pub(crate) fn ask(tasks: &TaskTracker, stream: Stream, to: SocketAddr) {
    let SocketAddr::V4(to) = to else { return stream.refuse(Errno(nix::libc::EAFNOSUPPORT)) };
    let asker = match Asker::open(*to.ip()) {
        Ok(asker) => Rc::new(asker),
        Err(error) => return stream.refuse(Errno::of(&error)),
    };
    let asked = asker.clone();
    // What the kernel can't take is lost, as on any network.
    stream.on_datagram(move |request| drop(asked.send(&request)));
    stream.accept();
    tasks.spawn_local(async move {
        let ended = tokio::select! {
            ended = asker.answers(&stream) => ended,
            () = stream.broken() => None,
        };
        if let Some(errno) = ended {
            stream.refuse(errno);
        }
    });
}

struct Asker {
    socket: UdpSocket,
    /// The id of requests through a raw socket; a ping socket has its own.
    raw: Option<u16>,
}

impl Asker {
    fn open(to: Ipv4Addr) -> io::Result<Self> {
        let open = |kind: Type| {
            let kind = kind.nonblocking().cloexec();
            Socket::new(Domain::IPV4, kind, Some(Protocol::ICMPV4))
        };
        let (socket, is_raw) = match open(Type::DGRAM) {
            Ok(socket) => (socket, false),
            Err(_) => (open(Type::RAW)?, true),
        };
        // Otherwise it hears of no host that can't be reached (ip(7), IP_RECVERR).
        setsockopt(&socket, Ipv4RecvErr, &true)?;
        socket.connect(&SocketAddr::from((to, 0)).into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        // Any number that others are not likely to have.
        let raw = is_raw.then(|| std::os::fd::AsRawFd::as_raw_fd(&socket) as u16 ^ 0x6d69);
        Ok(Self { socket, raw })
    }

    fn send(&self, request: &[u8]) -> io::Result<usize> {
        let (sequence, payload) =
            request.split_at_checked(SEQUENCE).ok_or(io::ErrorKind::InvalidData)?;
        let id = self.raw.unwrap_or_default().to_be_bytes();
        let mut packet = [&[REQUEST, 0, 0, 0], &id[..], sequence, payload].concat();
        // For a ping socket the kernel fills it in.
        if self.raw.is_some() {
            let sum = checksum(&packet);
            packet[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        SockRef::from(&self.socket).send(&packet)
    }

    /// Ends when nothing came for a while, or an ICMP error has come.
    async fn answers(&self, stream: &Stream) -> Option<Errno> {
        loop {
            let received = receive(&self.socket, |packet| {
                if let Some(answer) = self.read(packet) {
                    stream.send_datagram(&answer);
                }
            });
            match tokio::time::timeout(IDLE, received).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Some(Errno::of(&error)),
                Err(_) => return None,
            }
        }
    }

    /// Sequence number and payload of an answer to us.
    fn read(&self, packet: &[u8]) -> Option<Bytes> {
        // A raw socket has the IP header before it.
        let start = match self.raw {
            Some(_) => usize::from(packet.first()? & 0x0f) * 4,
            None => 0,
        };
        let icmp = packet.get(start..)?;
        let head = icmp.first_chunk::<HEADER>()?;
        let ours = self.raw.is_none_or(|id| head[4..6] == id.to_be_bytes());
        (head[0] == REPLY && ours).then(|| Bytes::copy_from_slice(&icmp[6..]))
    }
}

/// The internet checksum, RFC 1071.
fn checksum(packet: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = packet.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
