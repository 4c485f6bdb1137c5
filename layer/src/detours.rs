//! What is done in place of the socket calls.
//!
//! ```text
//!  socket            no Multipath TCP                                 bind
//!  bind, listen      a fake port in place of the one asked for         bind
//!  connect           a slot's address in place of the far one          connect
//!  SO_ERROR          how that turned out
//!  sendto …          the same for datagrams                            datagrams
//!  connect           the proxy's socket in place of one of the target's  unix
//!  accept …          whom a slot's address stands for                  reported, seen
//! ```
//!
//! The kernel's own call is made in each of them, with other addresses; it is made at once and as
//! it was asked for wherever no address of ours can be concerned.

mod bind;
mod connect;
mod datagrams;
mod destination;
mod reported;
mod seen;
mod unix;

use core::ffi::c_long;

use mirrord_protocol::layer::Transport;

use crate::sys::{self, Errno};

/// The socket calls that are hooked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Call {
    /// socket(2)
    Socket,
    /// bind(2)
    Bind,
    /// listen(2)
    Listen,
    /// connect(2)
    Connect,
    /// accept(2)
    Accept,
    /// accept4(2)
    Accept4,
    /// getsockname(2)
    GetSockName,
    /// getpeername(2)
    GetPeerName,
    /// getsockopt(2)
    GetSockOpt,
    /// sendto(2)
    SendTo,
    /// sendmsg(2)
    SendMsg,
    /// sendmmsg(2)
    SendMmsg,
    /// recvfrom(2)
    RecvFrom,
    /// recvmsg(2)
    RecvMsg,
    /// recvmmsg(2)
    RecvMmsg,
}

impl Call {
    /// All of them, in order.
    pub const ALL: [Self; 15] = [
        Self::Socket,
        Self::Bind,
        Self::Listen,
        Self::Connect,
        Self::Accept,
        Self::Accept4,
        Self::GetSockName,
        Self::GetPeerName,
        Self::GetSockOpt,
        Self::SendTo,
        Self::SendMsg,
        Self::SendMmsg,
        Self::RecvFrom,
        Self::RecvMsg,
        Self::RecvMmsg,
    ];

    /// The number of its system call.
    pub const fn number(self) -> c_long {
        match self {
            Self::Socket => libc::SYS_socket,
            Self::Bind => libc::SYS_bind,
            Self::Listen => libc::SYS_listen,
            Self::Connect => libc::SYS_connect,
            Self::Accept => libc::SYS_accept,
            Self::Accept4 => libc::SYS_accept4,
            Self::GetSockName => libc::SYS_getsockname,
            Self::GetPeerName => libc::SYS_getpeername,
            Self::GetSockOpt => libc::SYS_getsockopt,
            Self::SendTo => libc::SYS_sendto,
            Self::SendMsg => libc::SYS_sendmsg,
            Self::SendMmsg => libc::SYS_sendmmsg,
            Self::RecvFrom => libc::SYS_recvfrom,
            Self::RecvMsg => libc::SYS_recvmsg,
            Self::RecvMmsg => libc::SYS_recvmmsg,
        }
    }

    /// The one with this number.
    pub fn of(number: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|call| call.number() as usize == number)
    }
}

/// Who makes the calls that are hooked, as they would be made without hooks.
pub trait Kernel: Copy {
    /// One call.
    ///
    /// # Errors
    /// The kernel's.
    ///
    /// # Safety
    /// What the kernel does with the arguments is sound.
    unsafe fn call(self, call: Call, arguments: [usize; 6]) -> Result<usize, Errno>;
}

/// System calls.
#[derive(Debug, Clone, Copy)]
pub struct Raw;

impl Kernel for Raw {
    unsafe fn call(self, call: Call, arguments: [usize; 6]) -> Result<usize, Errno> {
        // SAFETY: the caller's promise.
        unsafe { sys::call(call.number(), arguments) }
    }
}

/// Makes one of the calls in the app's place.
///
/// # Errors
/// As the kernel's, of the target's network.
///
/// # Safety
/// The arguments are an app's: what the kernel may touch for them, this may touch.
pub unsafe fn detour<K: Kernel>(
    kernel: K,
    call: Call,
    arguments: [usize; 6],
) -> Result<usize, Errno> {
    // SAFETY: the caller's promise is handed on.
    unsafe {
        match call {
            Call::Socket => bind::socket(kernel, arguments),
            Call::Bind => bind::bind(kernel, arguments),
            Call::Listen => bind::listen(kernel, arguments),
            Call::Connect => connect::connect(kernel, arguments),
            Call::GetSockOpt => connect::getsockopt(kernel, arguments),
            Call::Accept | Call::Accept4 => reported::accept(kernel, call, arguments),
            Call::GetSockName => reported::getsockname(kernel, arguments),
            Call::GetPeerName => reported::getpeername(kernel, arguments),
            Call::SendTo => datagrams::sendto(kernel, arguments),
            Call::SendMsg => datagrams::sendmsg(kernel, arguments),
            Call::SendMmsg => datagrams::sendmmsg(kernel, arguments),
            Call::RecvFrom => reported::recvfrom(kernel, arguments),
            Call::RecvMsg => datagrams::recvmsg(kernel, arguments),
            Call::RecvMmsg => datagrams::recvmmsg(kernel, arguments),
        }
    }
}

/// Makes a system call in the app's place; `None` if it is none of ours.
///
/// # Safety
/// As [`detour`].
pub unsafe fn system_call(number: usize, arguments: [usize; 6]) -> Option<isize> {
    let call = Call::of(number)?;
    // SAFETY: the caller's promise.
    Some(sys::value(unsafe { detour(Raw, call, arguments) }))
}

/// Whether [`system_call`] knows a number.
pub fn is_ours(number: usize) -> bool {
    Call::of(number).is_some()
}

/// What libuv's function of this name does, which makes the system call itself.
///
/// # Safety
/// As [`detour`].
pub unsafe fn uv_accept4(fd: usize, address: usize, len: usize, flags: usize) -> isize {
    // SAFETY: the caller's promise.
    sys::value(unsafe { detour(Raw, Call::Accept4, [fd, address, len, flags, 0, 0]) })
}

/// What a socket transports, if that is hooked.
fn transport(fd: i32) -> Option<Transport> {
    let option = |name| sys::getsockopt_int(fd, libc::SOL_SOCKET, name).ok();
    match (option(libc::SO_PROTOCOL)?, option(libc::SO_TYPE)?) {
        (libc::IPPROTO_TCP | libc::IPPROTO_MPTCP, libc::SOCK_STREAM) => Some(Transport::Tcp),
        (libc::IPPROTO_UDP, libc::SOCK_DGRAM) => Some(Transport::Udp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_known_by_number() {
        for call in Call::ALL {
            assert_eq!(Call::of(call.number() as usize), Some(call));
        }
        assert!(!is_ours(libc::SYS_read as usize) && !is_ours(usize::MAX));
        // SAFETY: it is not made.
        assert_eq!(unsafe { system_call(libc::SYS_exit_group as usize, [0; 6]) }, None);
    }

    #[test]
    fn what_a_socket_transports_is_asked_of_the_kernel() {
        use std::net::{TcpListener, UdpSocket};
        use std::os::fd::AsRawFd;
        use std::os::unix::net::UnixStream;
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let (unix, _other) = UnixStream::pair().expect("a pair");
        assert_eq!(transport(tcp.as_raw_fd()), Some(Transport::Tcp));
        assert_eq!(transport(udp.as_raw_fd()), Some(Transport::Udp));
        assert_eq!(transport(unix.as_raw_fd()), None);
        assert_eq!(transport(-1), None);
    }
}
