//! socket(2), bind(2) and listen(2): the proxy binds the app's socket to a fake port on loopback, and knows
//! what the app asked for.

use core::net::SocketAddr;

use mirrord_protocol::layer::{Request, Status, Transport};

use super::destination::{Destination, allow_mapped, is_any};
use super::{Call, Kernel, seen, transport};
use crate::address::{Family, given, parse};
use crate::page::{Presence, page, presence};
use crate::proxy;
use crate::settings::settings;
use crate::sys::{self, Errno};

/// What of a socket's type is no flag (linux/net.h).
const SOCK_TYPE_MASK: i32 = 0xf;

/// socket(2): a socket of Multipath TCP would not notice a simultaneous open (Linux 6.18), and is
/// one of plain TCP wherever its peer is.
pub unsafe fn socket<K: Kernel>(kernel: K, mut arguments: [usize; 6]) -> Result<usize, Errno> {
    let [_, kind, protocol, ..] = &mut arguments;
    let is_stream = *kind as i32 & SOCK_TYPE_MASK == libc::SOCK_STREAM;
    if is_stream && *protocol as i32 == libc::IPPROTO_MPTCP && page().is_some() {
        *protocol = libc::IPPROTO_TCP as usize;
    }
    // SAFETY: the caller's promise.
    unsafe { kernel.call(Call::Socket, arguments) }
}

/// bind(2)
pub unsafe fn bind<K: Kernel>(kernel: K, arguments: [usize; 6]) -> Result<usize, Errno> {
    let [fd, address, len, ..] = arguments;
    // SAFETY: the caller's promise.
    match unsafe { given(address, len) }.map(|wanted| take_over(fd as i32, wanted)) {
        Some(Some(result)) => result.map(|()| 0),
        // SAFETY: the caller's promise.
        None | Some(None) => unsafe { kernel.call(Call::Bind, arguments) },
    }
}

/// Lets the proxy bind a socket; `None` if the app is to do it.
fn take_over(fd: i32, (family, wanted): (Family, SocketAddr)) -> Option<Result<(), Errno>> {
    settings()?;
    let transport = transport(fd)?;
    if wanted.port() == 0 {
        // It sends to IPv4 addresses of ours later, and cannot be changed then.
        if transport == Transport::Udp && is_any(wanted.ip()) && page().is_some() {
            allow_mapped(fd, family);
        }
        return None;
    }
    if Destination::of(wanted) == Destination::Link || !is_of(fd, family) {
        return None;
    }
    match presence() {
        Presence::Absent => None,
        Presence::Unreachable(errno) => Some(Err(not_available(errno))),
        Presence::Active(_) => ask(fd, transport, wanted),
    }
}

fn ask(fd: i32, transport: Transport, wanted: SocketAddr) -> Option<Result<(), Errno>> {
    let shares = sys::getsockopt_int(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT);
    let shared = shares.is_ok_and(|value| value != 0);
    let address = SocketAddr::new(wanted.ip().to_canonical(), wanted.port());
    let request = Request::Bind { transport, address, shared };
    match proxy::ask(&request, Some(fd), &mut []).map(|answer| answer.reply) {
        Ok(reply) => match reply.status {
            Status::Done => Some(Ok(())),
            Status::Direct => None,
            Status::Refused => Some(Err(not_available(Errno(reply.value as i32)))),
        },
        Err(errno) => Some(Err(not_available(errno))),
    }
}

/// What bind(2) says when it is not for another reason.
fn not_available(errno: Errno) -> Errno {
    match errno {
        Errno(0) | Errno::UNREACHABLE => Errno(libc::EADDRNOTAVAIL),
        other => other,
    }
}

/// Whether a socket is of the family: the kernel has its own words for one that is not.
fn is_of(fd: i32, family: Family) -> bool {
    let expected = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    sys::getsockopt_int(fd, libc::SOL_SOCKET, libc::SO_DOMAIN) == Ok(expected)
}

/// listen(2)
pub unsafe fn listen<K: Kernel>(kernel: K, arguments: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    let result = unsafe { kernel.call(Call::Listen, arguments) }?;
    let [fd, ..] = arguments;
    if settings().is_some()
        && let Some(fake) = fake_port(fd as i32)
    {
        // It listens: that the proxy does not know is no error of this call.
        let _ = proxy::ask(&Request::Listen { fake }, None, &mut []);
    }
    Ok(result)
}

/// The fake port that a socket is bound to, if it is one.
fn fake_port(fd: i32) -> Option<u16> {
    let (_, local) = parse(sys::getsockname(fd)?.as_bytes())?;
    if !seen::is_door(local.ip()) || transport(fd) != Some(Transport::Tcp) {
        return None;
    }
    page()?.asked(Transport::Tcp, local.port()).map(|_| local.port())
}
