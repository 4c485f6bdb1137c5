//! Sockets that receive what was meant for somebody else.

use std::{
    io::{self, IoSliceMut},
    net::{
        IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, UdpSocket,
    },
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt,
    sockopt::{Ipv4OrigDstAddr, Ipv6OrigDstAddr},
};
use socket2::{Domain, SockRef, Socket, Type};

/// Connections that wait to be accepted.
pub(crate) const BACKLOG: i32 = 4096;

/// Bytes of datagrams that wait to be received.
const UDP_BUFFER: usize = 4 << 20;

/// A UDP socket that receives datagrams for any address and port. Non-blocking.
#[derive(Debug)]
pub struct SteeredUdp(UdpSocket);

/// One received datagram; its bytes are in the buffer given to [`SteeredUdp::recv`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    /// How many bytes of the buffer it fills.
    pub len: usize,
    /// Who sent it.
    pub from: SocketAddr,
    /// Where its sender sent it to.
    pub to: SocketAddr,
}

impl SteeredUdp {
    /// Binds the socket to a loopback address, where only steering reaches it.
    pub(crate) fn bind(domain: Domain) -> io::Result<Self> {
        let socket = transparent(domain, Type::DGRAM)?;
        if domain == Domain::IPV4 {
            setsockopt(&socket, Ipv4OrigDstAddr, &true)?;
        } else {
            setsockopt(&socket, Ipv6OrigDstAddr, &true)?;
        }
        socket.set_recv_buffer_size(UDP_BUFFER)?;
        socket.bind(&loopback(domain).into())?;
        Ok(Self(socket.into()))
    }

    /// Receives one datagram; `WouldBlock` when there is none. What does not fit is cut off.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<Datagram> {
        let mut control = nix::cmsg_space!(libc::sockaddr_in6);
        let mut parts = [IoSliceMut::new(buf)];
        let message = recvmsg::<SockaddrStorage>(
            self.0.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::empty(),
        )?;
        let from = message.address.as_ref().and_then(socket_address);
        let to = message.cmsgs()?.find_map(original_destination);
        let (Some(from), Some(to)) = (from, to) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a datagram came without its addresses",
            ));
        };
        Ok(Datagram { len: message.bytes, from, to })
    }

    /// The address that the socket itself is bound to.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl AsFd for SteeredUdp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for SteeredUdp {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

/// Listens on a loopback address for connections to any address and port, of which `backlog` and one
/// more may wait to be accepted.
pub(crate) fn listen(domain: Domain, backlog: i32) -> io::Result<TcpListener> {
    let socket = transparent(domain, Type::STREAM)?;
    // What it accepts inherits this: while such a connection stands at a port, a server that is
    // started anew can bind that port again.
    socket.set_reuse_address(true)?;
    carry_all(&socket)?;
    socket.bind(&loopback(domain).into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// Prepares a TCP socket whose bytes are carried on, or a listener for such sockets. Urgent bytes
/// come in their place among the others. A peer that is gone without a word is noticed in the time
/// of this namespace's `net.ipv4.tcp_keepalive_*`: what the app asks of its own socket ends at us.
///
/// # Errors
/// The kernel does not know an option.
pub fn carry_all(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_out_of_band_inline(true)?;
    socket.set_keepalive(true)
}

/// A non-blocking socket that may answer for addresses which are not the namespace's.
pub(crate) fn transparent(domain: Domain, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(domain, kind.nonblocking().cloexec(), None)?;
    if domain == Domain::IPV4 {
        socket.set_ip_transparent_v4(true)?;
    } else {
        socket.set_ip_transparent_v6(true)?;
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn loopback(domain: Domain) -> SocketAddr {
    let ip: IpAddr = if domain == Domain::IPV4 {
        Ipv4Addr::LOCALHOST.into()
    } else {
        Ipv6Addr::LOCALHOST.into()
    };
    SocketAddr::new(ip, 0)
}

fn socket_address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|v4| SocketAddrV4::from(*v4).into());
    v4.or_else(|| storage.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6).into()))
}

fn original_destination(message: ControlMessageOwned) -> Option<SocketAddr> {
    match message {
        ControlMessageOwned::Ipv4OrigDstAddr(to) => {
            let ip = Ipv4Addr::from(to.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(ip.into(), u16::from_be(to.sin_port)))
        }
        ControlMessageOwned::Ipv6OrigDstAddr(to) => {
            let ip = Ipv6Addr::from(to.sin6_addr.s6_addr);
            Some(SocketAddr::new(ip.into(), u16::from_be(to.sin6_port)))
        }
        _ => None,
    }
}
