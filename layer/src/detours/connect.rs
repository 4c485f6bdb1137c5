//! connect(2), and how it turned out.
//!
//! The socket really connects to its slot's address, where nobody accepts: it waits as it would for
//! a distant host, blocking or not, until the proxy completes the connection from the other side
//! (simultaneous open, RFC 9293 section 3.5). If the far end has refused, the proxy says so in the
//! slot first, and then breaks the connection off.

use core::net::{IpAddr, SocketAddr};

use mirrord_protocol::layer::{Reply, Request, Slot, Status, Transport};

use super::destination::{Destination, allow_mapped, own_socket};
use super::{Call, Kernel, datagrams, transport, unix};
use crate::address::{self, Family, SockAddr, parse};
use crate::page::{Outcome, Page, Presence, page, presence};
use crate::proxy;
use crate::settings::settings;
use crate::sys::{self, Errno};

/// TCP_CLOSE of tcp_states.h: not connected, or not any more.
const CLOSED: u8 = 7;

/// connect(2)
pub unsafe fn connect<K: Kernel>(kernel: K, arguments: [usize; 6]) -> Result<usize, Errno> {
    let [fd, address, len, ..] = arguments;
    let fd = fd as i32;
    // SAFETY: the caller's promise.
    let bytes = unsafe { address::bytes(address, len) }.filter(|_| settings().is_some());
    // SAFETY: the caller's promise.
    let original = || unsafe { kernel.call(Call::Connect, arguments) };
    if let Some(wanted) = bytes.and_then(|bytes| unix::wanted(fd, bytes)) {
        return unix::connect(kernel, fd, wanted, original);
    }
    let given = bytes.and_then(parse);
    let wanted = given.and_then(|(family, address)| Some((family, address, transport(fd)?)));
    let Some((family, address, transport)) = wanted else {
        return original();
    };
    let connecting = Connecting { kernel, fd, family, transport };
    connecting.go(address, original).map(|()| 0)
}

/// A socket that is to be connected.
struct Connecting<K> {
    kernel: K,
    fd: i32,
    family: Family,
    transport: Transport,
}

impl<K: Kernel> Connecting<K> {
    /// Connects to where the address leads; `original` connects to the address itself.
    fn go(
        &self,
        address: SocketAddr,
        original: impl FnOnce() -> Result<usize, Errno>,
    ) -> Result<(), Errno> {
        let page = match presence() {
            Presence::Absent => return original().map(drop),
            Presence::Unreachable(errno) => match Destination::of(address) {
                Destination::Network(_) => return Err(errno),
                Destination::Loopback | Destination::Link => return original().map(drop),
            },
            Presence::Active(page) => page,
        };
        if self.transport == Transport::Tcp
            && let Some(result) = self.go_on(page)
        {
            return match result {
                Ok(slot) => judge(page, self.fd, slot, original().map(drop)),
                Err(errno) => Err(errno),
            };
        }
        match (Destination::of(address), self.transport) {
            (Destination::Link, _) => original().map(drop),
            (Destination::Loopback, transport) => {
                match own_socket(page, transport, address, self.family) {
                    Some(own) => {
                        allow_mapped(self.fd, self.family);
                        self.really(&own)
                    }
                    None => original().map(drop),
                }
            }
            (Destination::Network(remote), Transport::Udp) => {
                match datagrams::peer(page, remote)? {
                    Some((slot, port)) => {
                        allow_mapped(self.fd, self.family);
                        self.really_to(slot, port)
                    }
                    None => original().map(drop),
                }
            }
            (Destination::Network(remote), Transport::Tcp) => {
                let asked = Request::Dial { remote };
                let reply = proxy::ask(&asked, Some(self.fd), &mut [])?.reply;
                match reply.status {
                    Status::Done => {
                        let result = self.really_to(reply.slot(), reply.port);
                        judge(page, self.fd, Some(reply.slot()), result)
                    }
                    Status::Direct => original().map(drop),
                    Status::Refused => Err(refused(&reply)),
                }
            }
        }
    }

    /// What a socket that was connected before does next: the kernel's next call on it (and how to
    /// judge that), an error that was not reported yet, or, `None`, a new connection.
    fn go_on(&self, page: &Page) -> Option<Result<Option<Slot>, Errno>> {
        let slot = own_slot(self.fd);
        match (sys::tcp_state(self.fd), slot) {
            (0 | CLOSED, None) => None,
            (0 | CLOSED, Some(slot)) => match disconnect(self.fd) {
                0 => None,
                error => Some(Err(match page.outcome(slot) {
                    Outcome::Failed(errno) => errno,
                    _ => Errno(error),
                })),
            },
            (_, slot) => Some(Ok(slot)),
        }
    }

    fn really_to(&self, slot: Slot, port: u16) -> Result<(), Errno> {
        let address = SocketAddr::new(IpAddr::V4(slot.remote()), port);
        self.really(&SockAddr::new(address, self.family).ok_or(Errno::UNREACHABLE)?)
    }

    fn really(&self, address: &SockAddr) -> Result<(), Errno> {
        let bytes = address.as_bytes();
        let arguments = [self.fd as usize, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0];
        // SAFETY: the bytes are read.
        unsafe { self.kernel.call(Call::Connect, arguments) }.map(drop)
    }
}

/// What the proxy's refusal says.
pub fn refused(reply: &Reply) -> Errno {
    if reply.value == 0 { Errno::UNREACHABLE } else { Errno(reply.value as i32) }
}

/// The truth about what the kernel says of a connection through a slot.
fn judge(page: &Page, fd: i32, slot: Option<Slot>, result: Result<(), Errno>) -> Result<(), Errno> {
    if let Err(Errno(libc::EINPROGRESS | libc::EALREADY | libc::EINTR | libc::EISCONN)) = result {
        return result;
    }
    match slot.map(|slot| page.outcome(slot)) {
        Some(Outcome::Failed(errno)) => {
            if result.is_ok() {
                disconnect(fd);
            }
            Err(errno)
        }
        _ => result,
    }
}

/// Makes a socket one that was never connected; gives the error that it had.
fn disconnect(fd: i32) -> i32 {
    let error = sys::getsockopt_int(fd, libc::SOL_SOCKET, libc::SO_ERROR).unwrap_or(0);
    let nobody = [0; 16];
    let _ = sys::connect(fd, &nobody);
    let _ = sys::getsockopt_int(fd, libc::SOL_SOCKET, libc::SO_ERROR);
    error
}

/// Where a socket is, as the kernel has it; loopback if it is everywhere.
fn own_address(fd: i32) -> Result<SocketAddr, Errno> {
    let name = sys::getsockname(fd).ok_or(Errno(libc::EBADF))?;
    let (_, address) = parse(name.as_bytes()).ok_or(Errno(libc::EAFNOSUPPORT))?;
    let ip = address.ip().to_canonical();
    if ip.is_unspecified() {
        return Ok(SocketAddr::new(IpAddr::V4(core::net::Ipv4Addr::LOCALHOST), address.port()));
    }
    Ok(SocketAddr::new(ip, address.port()))
}

/// The slot through which a socket is connected, or was to be.
fn own_slot(fd: i32) -> Option<Slot> {
    own_address(fd).ok().and_then(|address| Slot::of_local(address.ip()))
}

/// getsockopt(2): SO_ERROR tells what the far end has answered.
pub unsafe fn getsockopt<K: Kernel>(kernel: K, arguments: [usize; 6]) -> Result<usize, Errno> {
    let [fd, level, option, place, len, _] = arguments;
    let (fd, place, len) = (fd as i32, place as *mut i32, len as *const u32);
    let is_error = (level as i32, option as i32) == (libc::SOL_SOCKET, libc::SO_ERROR);
    let is_error = is_error && settings().is_some();
    // A reset may come at any time: one that the kernel has not told of yet is told of by us.
    let was_open = is_error && sys::tcp_state(fd) != CLOSED;
    // SAFETY: the caller's promise.
    let result = unsafe { kernel.call(Call::GetSockOpt, arguments) }?;
    // SAFETY: the kernel has just written both.
    if is_error && unsafe { len.read_unaligned() } == 4 {
        // SAFETY: as above.
        let raw = unsafe { place.read_unaligned() };
        if let Some(errno) = failure(fd, raw != 0 || was_open) {
            // SAFETY: as above.
            unsafe { place.write_unaligned(errno.0) };
            // The reset may be on its way still: who has heard of it is not connected any more.
            if sys::tcp_state(fd) != CLOSED {
                disconnect(fd);
            }
        }
    }
    Ok(result)
}

/// What the far end has answered, unless it was reported before.
fn failure(fd: i32, is_news: bool) -> Option<Errno> {
    let slot = own_slot(fd).filter(|_| is_news)?;
    match page()?.outcome(slot) {
        Outcome::Failed(errno) => Some(errno),
        _ => None,
    }
}
