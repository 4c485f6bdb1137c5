//! Descriptors that travel beside a pipe's bytes, where the pipe is a unix socket.
//!
//! Each belongs to one frame. It leaves with the first byte that is written after it was queued, so
//! that it arrives before its frame does, and in the order of the frames.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// After so many, what was written must leave before the next one is queued.
pub(crate) const AT_ONCE: usize = 64;
/// The most that unix(7) allows in one message; as many may wait for their frames.
const MOST: usize = 253;

/// What waits on one pipe.
#[derive(Debug, Default)]
pub struct Descriptors {
    leaving: RefCell<VecDeque<Rc<OwnedFd>>>,
    arrived: RefCell<VecDeque<OwnedFd>>,
}

impl Descriptors {
    /// The next bytes take it along.
    pub(crate) fn queue(&self, descriptor: Rc<OwnedFd>) {
        self.leaving.borrow_mut().push_back(descriptor);
    }

    /// The one whose frame has come.
    pub(crate) fn take(&self) -> Option<OwnedFd> {
        self.arrived.borrow_mut().pop_front()
    }

    /// Writes bytes, and what is to go along.
    pub(crate) fn write(&self, socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
        let mut leaving = self.leaving.borrow_mut();
        let batch = leaving.len().min(AT_ONCE);
        if batch == 0 {
            return Ok(rustix::io::write(socket, bytes)?);
        }
        let descriptors: Vec<BorrowedFd<'_>> =
            leaving.iter().take(batch).map(|descriptor| descriptor.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(AT_ONCE))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        rights.push(SendAncillaryMessage::ScmRights(&descriptors));
        let sent = sendmsg(socket, &[IoSlice::new(bytes)], &mut rights, SendFlags::NOSIGNAL)?;
        leaving.drain(..batch);
        Ok(sent)
    }

    /// Reads bytes, and what came along.
    pub(crate) fn read(&self, socket: impl AsFd, room: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let message = recvmsg(socket, &mut [IoSliceMut::new(room)], &mut control, flags)?;
        let mut arrived = self.arrived.borrow_mut();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                arrived.extend(descriptors);
            }
        }
        if message.flags.contains(ReturnFlags::CTRUNC) || arrived.len() > MOST {
            // Which of them is missing can't be told: all must come again, over another pipe.
            return Err(io::Error::other("this process has no room for more connections"));
        }
        Ok(message.bytes)
    }
}
