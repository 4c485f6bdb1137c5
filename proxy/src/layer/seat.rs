//! Where a socket of the app connects from: its slot's local address, unless the app has bound it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;

use mirrord_protocol::frame::Errno;
use mirrord_protocol::layer::Slot;
use nix::libc;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use nix::sys::socket::{getsockopt, setsockopt};
use socket2::Socket;

/// Binds a socket that is about to connect through a slot, unless it is bound; gives where it is.
///
/// # Errors
/// Those of bind(2); ENETUNREACH if it is bound where nothing of ours can be reached from.
pub(super) fn take(socket: OwnedFd, slot: Slot) -> Result<SocketAddrV4, Errno> {
    let socket = Socket::from(socket);
    let bound = address(&socket)?;
    let is_free = bound.port() == 0 || Slot::of_local(bound.ip()).is_some();
    let seat = if is_free { bind(&socket, bound, slot)? } else { bound };
    local(seat).ok_or(Errno(libc::ENETUNREACH))
}

fn bind(socket: &Socket, bound: SocketAddr, slot: Slot) -> Result<SocketAddr, Errno> {
    let bind = || -> io::Result<()> {
        let ip = if bound.is_ipv4() {
            IpAddr::V4(slot.local())
        } else {
            // Anything of ours is IPv4.
            socket.set_only_v6(false)?;
            IpAddr::V6(slot.local().to_ipv6_mapped())
        };
        // The port has to be known before the connection is, and is not kept otherwise.
        let is_late = getsockopt(socket, IpBindAddressNoPort).unwrap_or(false);
        if is_late {
            setsockopt(socket, IpBindAddressNoPort, &false)?;
        }
        let result = socket.bind(&SocketAddr::new(ip, 0).into());
        if is_late {
            setsockopt(socket, IpBindAddressNoPort, &true)?;
        }
        result
    };
    match bind() {
        Ok(()) => address(socket),
        // Bound otherwise after all: any address will do.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => address(socket),
        Err(error) => Err(Errno::of(&error)),
    }
}

fn address(socket: &Socket) -> Result<SocketAddr, Errno> {
    let address = socket.local_addr().map_err(|error| Errno::of(&error))?;
    address.as_socket().ok_or(Errno(libc::EAFNOSUPPORT))
}

/// Where a socket that the app has bound connects to loopback from.
fn local(address: SocketAddr) -> Option<SocketAddrV4> {
    let ip = match address.ip().to_canonical() {
        ip if ip.is_unspecified() => Ipv4Addr::LOCALHOST,
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => return None,
    };
    Some(SocketAddrV4::new(ip, address.port()))
}
