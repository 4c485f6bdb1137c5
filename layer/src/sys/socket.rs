//! Sockets.

use core::ffi::c_long;

use super::{Errno, Fd, call};
use crate::address::LARGEST;

/// Room for a socket address of any family.
#[derive(Debug, Clone, Copy)]
pub struct NameBuffer {
    bytes: [u8; LARGEST],
    /// What the kernel is told to be there, and then says to have written.
    pub len: u32,
}

impl NameBuffer {
    /// An empty one.
    #[allow(clippy::new_without_default, reason = "it is large, and nobody else makes one")]
    pub const fn new() -> Self {
        Self { bytes: [0; LARGEST], len: LARGEST as u32 }
    }

    /// The address that the kernel wrote.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len as usize).unwrap_or(&self.bytes)
    }

    /// Where the kernel writes it.
    pub fn place(&mut self) -> usize {
        self.bytes.as_mut_ptr() as usize
    }
}

/// A new socket that is closed on execution.
///
/// # Errors
/// The kernel's.
pub fn socket(domain: i32, kind: i32) -> Result<Fd, Errno> {
    let arguments = [domain as usize, (kind | libc::SOCK_CLOEXEC) as usize, 0];
    // SAFETY: no pointer.
    Fd::adopt(unsafe { call(libc::SYS_socket, arguments) }?)
}

/// Binds a socket.
///
/// # Errors
/// The kernel's.
pub fn bind(fd: i32, address: &[u8]) -> Result<(), Errno> {
    // SAFETY: the slice is read.
    unsafe { call(libc::SYS_bind, [fd as usize, address.as_ptr() as usize, address.len()]) }
        .map(drop)
}

/// Connects a socket.
///
/// # Errors
/// The kernel's.
pub fn connect(fd: i32, address: &[u8]) -> Result<(), Errno> {
    // SAFETY: the slice is read.
    unsafe { call(libc::SYS_connect, [fd as usize, address.as_ptr() as usize, address.len()]) }
        .map(drop)
}

/// The address that a socket is bound to, as the kernel has it.
pub fn getsockname(fd: i32) -> Option<NameBuffer> {
    name(libc::SYS_getsockname, fd)
}

/// The address that a socket is connected to, as the kernel has it.
pub fn getpeername(fd: i32) -> Option<NameBuffer> {
    name(libc::SYS_getpeername, fd)
}

fn name(number: c_long, fd: i32) -> Option<NameBuffer> {
    let mut buffer = NameBuffer::new();
    let mut len = buffer.len;
    // SAFETY: the buffer has so many bytes.
    unsafe { call(number, [fd as usize, buffer.place(), (&raw mut len) as usize]) }.ok()?;
    buffer.len = len;
    Some(buffer)
}

/// An option of a socket that is an int.
///
/// # Errors
/// The kernel's.
pub fn getsockopt_int(fd: i32, level: i32, option: i32) -> Result<i32, Errno> {
    let (mut value, mut len) = (0i32, size_of::<i32>() as u32);
    let places = [(&raw mut value) as usize, (&raw mut len) as usize];
    let arguments = [fd as usize, level as usize, option as usize, places[0], places[1]];
    // SAFETY: the kernel writes at most the int.
    unsafe { call(libc::SYS_getsockopt, arguments) }.map(|_| value)
}

/// Sets an option of a socket that is an int.
///
/// # Errors
/// The kernel's.
pub fn setsockopt_int(fd: i32, level: i32, option: i32, value: i32) -> Result<(), Errno> {
    let place = (&raw const value) as usize;
    let arguments = [fd as usize, level as usize, option as usize, place, size_of::<i32>()];
    // SAFETY: the kernel reads the int.
    unsafe { call(libc::SYS_setsockopt, arguments) }.map(drop)
}

/// How long a call on a socket of ours may take.
///
/// # Errors
/// The kernel's.
pub fn set_patience(fd: &Fd, seconds: i64) -> Result<(), Errno> {
    let time = [seconds, 0i64];
    for option in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
        let place = (&raw const time) as usize;
        let socket = libc::SOL_SOCKET as usize;
        let arguments = [fd.number() as usize, socket, option as usize, place, size_of_val(&time)];
        // SAFETY: the kernel reads a timeval, which is two such numbers.
        unsafe { call(libc::SYS_setsockopt, arguments) }?;
    }
    Ok(())
}

/// The state of a TCP socket (tcpi_state of TCP_INFO, tcp(7)); 0 if it is none.
pub fn tcp_state(fd: i32) -> u8 {
    let (mut state, mut len) = (0u8, 1u32);
    let places = [(&raw mut state) as usize, (&raw mut len) as usize];
    let (level, option) = (libc::IPPROTO_TCP as usize, libc::TCP_INFO as usize);
    // SAFETY: the kernel writes at most the byte.
    let _ =
        unsafe { call(libc::SYS_getsockopt, [fd as usize, level, option, places[0], places[1]]) };
    state
}

/// A control message with one descriptor (cmsg(3)), as on every 64-bit machine.
#[repr(C, align(8))]
#[derive(Default)]
struct Control {
    len: usize,
    level: i32,
    kind: i32,
    fd: i32,
    padding: i32,
}

impl Control {
    /// Bytes of the head and one descriptor.
    const LEN: usize = 20;
}

fn message(part: &mut libc::iovec, control: Option<&mut Control>) -> libc::msghdr {
    // SAFETY: a msghdr of zeros is valid.
    let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    if let Some(control) = control {
        message.msg_controllen = size_of::<Control>();
        message.msg_control = (&raw mut *control).cast();
    }
    message
}

/// Sends some bytes, and a descriptor with them.
///
/// # Errors
/// The kernel's, but never EINTR.
pub fn send_with(socket: &Fd, bytes: &[u8], passed: Option<i32>) -> Result<usize, Errno> {
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = passed.map(|fd| Control {
        len: Control::LEN,
        level: libc::SOL_SOCKET,
        kind: libc::SCM_RIGHTS,
        fd,
        padding: 0,
    });
    let message = message(&mut part, control.as_mut());
    let flags = libc::MSG_NOSIGNAL as usize;
    loop {
        let arguments = [socket.number() as usize, (&raw const message) as usize, flags];
        // SAFETY: all that the message points to is here, and is read.
        match unsafe { call(libc::SYS_sendmsg, arguments) } {
            Err(Errno(libc::EINTR)) => {}
            done => return done,
        }
    }
}

/// Receives some bytes, and a descriptor if one comes with them.
///
/// # Errors
/// The kernel's, but never EINTR; EMFILE if a descriptor came that cannot be had.
pub fn receive(socket: &Fd, bytes: &mut [u8]) -> Result<(usize, Option<Fd>), Errno> {
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = Control::default();
    let mut message = message(&mut part, Some(&mut control));
    let flags = libc::MSG_CMSG_CLOEXEC as usize;
    let received = loop {
        let arguments = [socket.number() as usize, (&raw mut message) as usize, flags];
        // SAFETY: all that the message points to is here, and ours to write.
        match unsafe { call(libc::SYS_recvmsg, arguments) } {
            Err(Errno(libc::EINTR)) => {}
            done => break done?,
        }
    };
    let carries = message.msg_controllen >= Control::LEN
        && (control.level, control.kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS);
    if !carries {
        let lost = message.msg_flags & libc::MSG_CTRUNC != 0;
        return if lost { Err(Errno(libc::EMFILE)) } else { Ok((received, None)) };
    }
    Ok((received, Some(Fd::adopt(control.fd as usize)?)))
}
