//! Sockets of the app and of ours on fake ports.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mirrord_protocol::frame::Errno;
use mirrord_protocol::layer::Transport;
use nix::libc;
use socket2::{Domain, Socket, Type};

/// What decides about a bind(2) besides the address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    kind: Type,
    domain: Domain,
    reuse_address: bool,
    reuse_port: bool,
    pub(super) v6_only: bool,
}

impl Shape {
    /// Of a socket of the app that it calls one of this transport.
    pub(super) fn of(socket: &Socket, transport: Transport) -> Result<Self, Errno> {
        let read = || -> io::Result<Self> {
            let domain = socket.domain()?;
            let v6_only = domain == Domain::IPV6 && socket.only_v6()?;
            Ok(Self {
                kind: socket.r#type()?,
                domain,
                reuse_address: socket.reuse_address()?,
                reuse_port: socket.reuse_port()?,
                v6_only,
            })
        };
        let shape = read().map_err(|error| Errno::of(&error))?;
        let fits =
            shape.kind == kind(transport) && matches!(shape.domain, Domain::IPV4 | Domain::IPV6);
        if fits { Ok(shape) } else { Err(Errno(libc::EINVAL)) }
    }

    /// Binds the app's socket to a fake port. The kernel decides who may share it.
    pub(super) fn bind(&self, socket: &Socket, fake: u16) -> Result<(), Errno> {
        self.bind_to(socket, fake).map_err(|error| Errno::of(&error))
    }

    fn bind_to(&self, socket: &Socket, fake: u16) -> io::Result<()> {
        if self.domain == Domain::IPV4 {
            return socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, fake)).into());
        }
        if self.v6_only {
            socket.set_only_v6(false)?;
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), fake));
        let bound = socket.bind(&address.into());
        if bound.is_err() && self.v6_only {
            // As it came; one that was bound before can't be changed, and was not.
            let _ = socket.set_only_v6(true);
        }
        bound
    }

    /// Whether a socket like this could be bound to the fake port of another.
    pub(super) fn try_bind(&self, fake: u16) -> Result<(), Errno> {
        let trial = || -> io::Result<()> {
            let socket = Socket::new(Domain::IPV4, self.kind.cloexec(), None)?;
            socket.set_reuse_address(self.reuse_address)?;
            socket.set_reuse_port(self.reuse_port)?;
            socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, fake)).into())
        };
        trial().map_err(|error| Errno::of(&error))
    }
}

/// Whether an address is one that a process of this machine can be bound to at all.
pub(super) fn check_address(ip: IpAddr) -> Result<(), Errno> {
    let ip = ip.to_canonical();
    if ip.is_unspecified() || ip.is_loopback() {
        return Ok(());
    }
    // A link-local one lacks its link here; let it be.
    if matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()) || ip.is_multicast() {
        return Ok(());
    }
    match std::net::UdpSocket::bind((ip, 0)) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Err(Errno::of(&error)),
        _ => Ok(()),
    }
}

/// A port of loopback that nobody has.
pub(super) fn free_port(transport: Transport) -> Result<u16, Errno> {
    let find = || {
        let socket = bound(transport, 0)?;
        Ok(socket.local_addr()?.as_socket().map_or(0, |address| address.port()))
    };
    find().map_err(|error: io::Error| Errno::of(&error))
}

/// Whether anybody has a port of loopback, be it with a connection alone.
pub(super) fn is_taken(transport: Transport, port: u16) -> bool {
    bound(transport, port).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

fn bound(transport: Transport, port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind(transport).cloexec(), None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    Ok(socket)
}

fn kind(transport: Transport) -> Type {
    match transport {
        Transport::Tcp => Type::STREAM,
        Transport::Udp => Type::DGRAM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(domain: Domain) -> Socket {
        Socket::new(domain, Type::STREAM.cloexec(), None).unwrap()
    }

    #[test]
    fn an_ipv6_socket_gets_a_fake_port_that_ipv4_reaches() {
        let app = socket(Domain::IPV6);
        app.set_only_v6(true).unwrap();
        let shape = Shape::of(&app, Transport::Tcp).unwrap();
        assert!(shape.v6_only);
        let fake = free_port(Transport::Tcp).unwrap();
        shape.bind(&app, fake).unwrap();
        app.listen(1).unwrap();
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, fake)).unwrap();
    }

    #[test]
    fn who_does_not_share_is_told_that_a_port_is_in_use() {
        let (first, second) = (socket(Domain::IPV4), socket(Domain::IPV4));
        let fake = free_port(Transport::Tcp).unwrap();
        let shape = Shape::of(&first, Transport::Tcp).unwrap();
        shape.bind(&first, fake).unwrap();
        assert_eq!(shape.bind(&second, fake).unwrap_err(), Errno(libc::EADDRINUSE));
        assert_eq!(shape.try_bind(fake).unwrap_err(), Errno(libc::EADDRINUSE));
        assert!(is_taken(Transport::Tcp, fake));
        drop(first);
        assert!(!is_taken(Transport::Tcp, fake));
        shape.bind(&second, fake).unwrap();
    }

    #[test]
    fn sockets_that_share_share_a_fake_port() {
        let sockets = [socket(Domain::IPV4), socket(Domain::IPV6)];
        let fake = free_port(Transport::Tcp).unwrap();
        for socket in &sockets {
            socket.set_reuse_port(true).unwrap();
            let shape = Shape::of(socket, Transport::Tcp).unwrap();
            shape.bind(socket, fake).unwrap();
            socket.listen(1).unwrap();
        }
    }

    #[test]
    fn what_is_no_socket_of_that_kind_is_refused() {
        let udp = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        assert_eq!(Shape::of(&udp, Transport::Tcp).unwrap_err(), Errno(libc::EINVAL));
        let unix = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        assert_eq!(Shape::of(&unix, Transport::Tcp).unwrap_err(), Errno(libc::EINVAL));
    }

    #[test]
    fn an_address_of_another_machine_is_not_available() {
        let check = |ip: &str| check_address(ip.parse().unwrap());
        assert_eq!(check("203.0.113.7"), Err(Errno(libc::EADDRNOTAVAIL)));
        for own in ["0.0.0.0", "::", "127.0.0.1", "::1"] {
            assert_eq!(check(own), Ok(()), "{own}");
        }
    }
}
