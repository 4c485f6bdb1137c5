//! Descriptors that this process was born with.

use std::{
    io,
    net::TcpListener,
    os::fd::{OwnedFd, RawFd},
};

use nix::sys::socket::{getsockopt, sockopt::AcceptConn};

use crate::sys;

/// The listening TCP socket that whoever started this process left open at `fd`; non-blocking,
/// and no child's.
pub fn listener(fd: RawFd) -> io::Result<TcpListener> {
    let listener = TcpListener::from(sys::duplicate(fd)?);
    if !getsockopt(&listener, AcceptConn)? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket does not listen"));
    }
    listener.local_addr()?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// What whoever started this process left open at `fd`; no child's.
pub fn descriptor(fd: RawFd) -> io::Result<OwnedFd> {
    sys::duplicate(fd)
}
