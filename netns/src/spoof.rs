//! Sockets and datagrams that carry somebody else's address.

mod datagram;
mod echo;
mod ip;
mod reset;
mod unreachable;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    sync::atomic::{AtomicU32, Ordering},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    MARK_TO_APP,
    calls::{Call, Echo},
    steered::{carry_all, transparent},
    sys,
};
use datagram::Packet;
use ip::{V4_HEADER, V6_FRAGMENT, V6_HEADER, host};
use reset::reset;
use unreachable::unreachable;

/// Starts a connection to the app that comes from the client's address and port, so that the
/// app's `accept` reports the real client.
///
/// The socket is non-blocking and may still be connecting. Where the client's port cannot be had
/// (the app itself holds it, or this very pair of addresses is connected already) the connection
/// comes from the client's address and another port.
pub fn connect_as(client: SocketAddr, app: SocketAddr) -> io::Result<Socket> {
    if client.is_ipv4() != app.is_ipv4() {
        return Err(mixed_families());
    }
    match try_connect_as(client, app) {
        Err(error) if is_taken(&error) => try_connect_as(SocketAddr::new(client.ip(), 0), app),
        result => result,
    }
}

fn try_connect_as(client: SocketAddr, app: SocketAddr) -> io::Result<Socket> {
    let socket = transparent(Domain::for_address(app), Type::STREAM)?;
    socket.set_reuse_address(true)?;
    socket.set_mark(MARK_TO_APP)?;
    socket.set_tcp_nodelay(true)?;
    carry_all(&socket)?;
    socket.bind(&client.into())?;
    match socket.connect(&app.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

fn mixed_families() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the two addresses are not of one family")
}

/// Sends datagrams from any address and port, and what networks say of connections.
///
/// It writes whole packets to a raw socket, and so never takes a port that the app has or wants.
#[derive(Debug)]
pub struct PacketSender {
    v4: Socket,
    v6: Option<Socket>,
    mark: u32,
    next_id: AtomicU32,
}

impl PacketSender {
    /// Opens the raw sockets; what they send carries `mark`, unless that is 0.
    pub fn open(mark: u32) -> io::Result<Self> {
        Ok(Self {
            v4: raw(Domain::IPV4, mark)?,
            v6: raw(Domain::IPV6, mark).ok(),
            mark,
            next_id: AtomicU32::new(1),
        })
    }

    /// Sends one datagram; `WouldBlock` when the socket's buffer is full.
    ///
    /// What is larger than the device's MTU leaves in fragments.
    pub fn send(&self, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> io::Result<()> {
        let packet = Packet::new(from, to, payload).ok_or_else(mixed_families)??;
        let sent = self.send_whole(&packet, to);
        match sent {
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                self.send_fragments(&packet, to)
            }
            sent => sent,
        }
    }

    /// Says to the app, as `from`, that its datagrams to there fail with this error number: the
    /// app's socket learns it if it is connected. What cannot be said is not.
    pub fn refuse(&self, from: SocketAddr, app: SocketAddr, errno: i32) -> io::Result<()> {
        let datagram = Packet::new(app, from, b"").ok_or_else(mixed_families)??.header();
        match unreachable(app.ip(), &datagram, errno) {
            Some(packet) => self.write(&packet, app.ip()),
            None => Ok(()),
        }
    }

    /// Sends the SYN of one of the app's connections once more.
    pub fn repeat(&self, call: &Call) -> io::Result<()> {
        self.write(call.packet(), call.to().ip())
    }

    /// Has a connection of the app's fail with this error number, as if the network had said so. What
    /// no network says (`EACCES` over IPv4, `EADDRNOTAVAIL`…) becomes `EHOSTUNREACH`. `ETIMEDOUT` is
    /// said by saying nothing: the app's own kernel gives up in its time.
    pub fn fail(&self, call: &Call, errno: i32) -> io::Result<()> {
        let app = call.app();
        let packet = match errno {
            libc::ETIMEDOUT => return Ok(()),
            libc::ECONNREFUSED => reset(call.to(), app, call.sequence()),
            errno => {
                let said = |errno| unreachable(app.ip(), call.packet(), errno);
                said(errno)
                    .or_else(|| said(libc::EHOSTUNREACH))
                    .ok_or(io::ErrorKind::InvalidData)?
            }
        };
        self.write(&packet, app.ip())
    }

    /// Answers the request of this number, or another one of the same socket to the same address, as
    /// whom it was sent to.
    pub fn echo(&self, echo: &Echo, sequence: u16, payload: &[u8]) -> io::Result<()> {
        self.write(&echo::reply(echo, sequence, payload), echo.app.into())
    }

    /// Says to the app that an echo request arrives nowhere. What no network says becomes
    /// `EHOSTUNREACH`.
    pub fn fail_echo(&self, echo: &Echo, errno: i32) -> io::Result<()> {
        let said = |errno| unreachable(echo.app.into(), echo.packet(), errno);
        let packet = said(errno).or_else(|| said(libc::EHOSTUNREACH));
        self.write(&packet.ok_or(io::ErrorKind::InvalidData)?, echo.app.into())
    }

    fn write(&self, packet: &[u8], to: IpAddr) -> io::Result<()> {
        self.raw(to)?.send_to(packet, &host(to)).map(drop)
    }

    fn raw(&self, to: IpAddr) -> io::Result<&Socket> {
        match to {
            IpAddr::V4(_) => Ok(&self.v4),
            IpAddr::V6(_) => self.v6.as_ref().ok_or_else(|| io::ErrorKind::Unsupported.into()),
        }
    }

    fn send_whole(&self, packet: &Packet<'_>, to: SocketAddr) -> io::Result<()> {
        let header = packet.header();
        let parts = [io::IoSlice::new(&header), io::IoSlice::new(packet.payload())];
        self.raw(to.ip())?.send_to_vectored(&parts, &host(to.ip())).map(drop)
    }

    fn send_fragments(&self, packet: &Packet<'_>, to: SocketAddr) -> io::Result<()> {
        let headers = if to.is_ipv4() { V4_HEADER } else { V6_HEADER + V6_FRAGMENT };
        let room = self.route_mtu(to)?.saturating_sub(headers) & !7;
        if room == 0 {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let socket = self.raw(to.ip())?;
        for fragment in packet.fragments(room, id) {
            socket.send_to(&fragment, &host(to.ip()))?;
        }
        Ok(())
    }

    /// The MTU of the way to an address, as a socket of the same mark sees it.
    fn route_mtu(&self, to: SocketAddr) -> io::Result<usize> {
        let probe = Socket::new(Domain::for_address(to), Type::DGRAM.cloexec(), None)?;
        if self.mark != 0 {
            probe.set_mark(self.mark)?;
        }
        probe.connect(&to.into())?;
        let (level, option) = match to {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
        };
        let mtu = sys::option(probe.as_fd(), level, option)?;
        usize::try_from(mtu).map_err(|_| io::ErrorKind::InvalidData.into())
    }
}

/// A raw socket to which packets are written with their IP header. It receives nothing.
fn raw(domain: Domain, mark: u32) -> io::Result<Socket> {
    let protocol = Protocol::from(libc::IPPROTO_RAW);
    let socket = Socket::new(domain, Type::RAW.nonblocking().cloexec(), Some(protocol))?;
    if mark != 0 {
        socket.set_mark(mark)?;
    }
    Ok(socket)
}
