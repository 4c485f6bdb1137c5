//! How a pipe comes from one process to another: two descriptors and a line that says whose they
//! are, over a unix socket.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use mirrord_protocol::control::TargetIndex;
use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::handshake::is_container;

/// A header is at most so long, its line end included.
const MAX_HEADER: usize = 512;
/// What the sender hears when its pipe was taken.
const TAKEN: &[u8] = b"\n";
/// Who connects and then says nothing is turned away.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whose pipe it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Which of the session's targets it leads to.
    pub target: TargetIndex,
    /// The target's container, by the id that the agent knows it by; none: the agent's own place.
    pub container: Option<String>,
    /// Whether it is a connection to the agent's own socket, with nobody between.
    #[serde(default)]
    pub direct: bool,
}

/// A pipe that was handed over.
#[derive(Debug)]
pub struct Handover {
    /// Whose it is.
    pub header: Header,
    /// Where its bytes come from.
    pub reader: OwnedFd,
    /// Where its bytes go to.
    pub writer: OwnedFd,
}

/// Why a pipe was not handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The socket failed.
    #[error("handing a pipe over failed")]
    Socket(#[source] io::Error),
    /// It was closed before all was said.
    #[error("the handover broke off")]
    Cut,
    /// Nothing came in time.
    #[error("the handover said nothing for {} s", PATIENCE.as_secs())]
    Silent,
    /// The line is no header.
    #[error("the handover's header makes no sense")]
    Header(#[source] serde_json::Error),
    /// The line does not end.
    #[error("the handover's header is longer than {MAX_HEADER} bytes")]
    TooLong,
    /// Bytes follow the header.
    #[error("the handover says more than its header")]
    TooMuch,
    /// Not two descriptors.
    #[error("a handover has two descriptors, not {0}")]
    Descriptors(usize),
    /// The other end closed the socket at once.
    #[error("the pipe was not taken")]
    NotTaken,
    /// The container's id can't travel in a request.
    #[error("the container's id is none")]
    Container,
}

/// Hands a pipe over.
///
/// # Errors
/// The socket fails, or the header can't be one.
pub fn send(
    to: &StdUnixStream,
    header: &Header,
    reader: BorrowedFd<'_>,
    writer: BorrowedFd<'_>,
) -> Result<(), HandoverError> {
    if !header.container.as_deref().is_none_or(is_container) {
        return Err(HandoverError::Container);
    }
    let mut line = serde_json::to_vec(header).map_err(HandoverError::Header)?;
    line.push(b'\n');
    let descriptors = [reader, writer];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    rights.push(SendAncillaryMessage::ScmRights(&descriptors));
    let sent = sendmsg(to, &[IoSlice::new(&line)], &mut rights, SendFlags::NOSIGNAL)
        .map_err(|error| HandoverError::Socket(error.into()))?;
    if sent < line.len() { Err(HandoverError::Cut) } else { Ok(()) }
}

/// Waits until the other end lets go of a pipe that was sent.
///
/// # Errors
/// It had not taken the pipe.
pub fn released(mut by: &StdUnixStream) -> Result<(), HandoverError> {
    let (mut taken, mut answer) = (false, [0; 8]);
    loop {
        match by.read(&mut answer) {
            Ok(0) => break,
            Ok(_) => taken = true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(HandoverError::Socket(error)),
        }
    }
    if taken { Ok(()) } else { Err(HandoverError::NotTaken) }
}

/// Takes a pipe over, and says so: its sender is released when `from` is closed. Descriptors of
/// what is refused are closed.
///
/// # Errors
/// What comes is no header with two descriptors, or does not come within 5 s.
pub async fn receive(from: &UnixStream) -> Result<Handover, HandoverError> {
    let parts = tokio::time::timeout(PATIENCE, receive_parts(from));
    let (line, descriptors) = parts.await.map_err(|_| HandoverError::Silent)??;
    let header: Header = serde_json::from_slice(&line).map_err(HandoverError::Header)?;
    if !header.container.as_deref().is_none_or(is_container) {
        return Err(HandoverError::Container);
    }
    let [reader, writer] = <[OwnedFd; 2]>::try_from(descriptors)
        .map_err(|found| HandoverError::Descriptors(found.len()))?;
    from.writable().await.and_then(|()| from.try_write(TAKEN)).map_err(HandoverError::Socket)?;
    Ok(Handover { header, reader, writer })
}

async fn receive_parts(from: &UnixStream) -> Result<(Vec<u8>, Vec<OwnedFd>), HandoverError> {
    let (mut line, mut descriptors) = (Vec::new(), Vec::new());
    loop {
        let received = from.async_io(Interest::READABLE, || receive_some(from)).await;
        let part = received.map_err(HandoverError::Socket)?;
        if part.truncated {
            return Err(HandoverError::Descriptors(part.descriptors.len() + 1));
        }
        descriptors.extend(part.descriptors);
        if descriptors.len() > 2 {
            return Err(HandoverError::Descriptors(descriptors.len()));
        }
        if part.bytes.is_empty() {
            return Err(HandoverError::Cut);
        }
        line.extend(part.bytes);
        match line.iter().position(|byte| *byte == b'\n') {
            Some(end) if end + 1 == line.len() => return Ok((line, descriptors)),
            Some(_) => return Err(HandoverError::TooMuch),
            None if line.len() >= MAX_HEADER => return Err(HandoverError::TooLong),
            None => {}
        }
    }
}

struct Part {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// More descriptors came than there was room for; the kernel has closed them.
    truncated: bool,
}

fn receive_some(from: impl AsFd) -> io::Result<Part> {
    let mut bytes = [0; MAX_HEADER];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = recvmsg(from, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok(Part {
        bytes: bytes[..message.bytes].to_vec(),
        descriptors: rights.flatten().collect(),
        truncated: message.flags.contains(ReturnFlags::CTRUNC),
    })
}
