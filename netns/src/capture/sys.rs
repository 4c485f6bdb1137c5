//! The packet socket's system calls that no safe crate offers.

use std::{
    ffi::c_int,
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use bytes::BytesMut;

use crate::sys::{check, set_option};

/// Packets that one call takes at most.
pub(super) const BATCH: usize = 32;

/// `PACKET_VNET_HDR`: every packet is preceded by the header that virtual machines use.
const PACKET_VNET_HDR: c_int = 15;

/// What the kernel says about a packet that was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received {
    /// Its length, which is more than was read if that did not fit.
    pub(super) len: usize,
    /// `ARPHRD_…`: what kind of header it begins with.
    pub(super) hardware: u16,
}

/// Asks for a `virtio_net_hdr` before every packet.
pub(super) fn ask_for_virtio_header(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SOL_PACKET, PACKET_VNET_HDR, 1)
}

/// Packets that found no room since the last call.
pub(super) fn dropped(socket: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: tpacket_stats consists of integers; all zeroes is a value of it.
    let mut statistics: libc::tpacket_stats = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `statistics`, which has that size.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut len,
        )
    })?;
    Ok(statistics.tp_drops.into())
}

/// Reads packets into the slots, one each, without waiting; slots hold what was read, nothing
/// else. The answers say how many came, and what is known about each.
pub(super) fn receive<'a>(
    socket: BorrowedFd<'_>,
    slots: &mut [BytesMut],
    answers: &'a mut [Received; BATCH],
) -> io::Result<&'a [Received]> {
    let count = slots.len().min(BATCH);
    // SAFETY: an iovec consists of a pointer and an integer; all zeroes is a value of it.
    let mut parts: [libc::iovec; BATCH] = unsafe { std::mem::zeroed() };
    // SAFETY: sockaddr_ll consists of integers; all zeroes is a value of it.
    let mut names: [libc::sockaddr_ll; BATCH] = unsafe { std::mem::zeroed() };
    // SAFETY: mmsghdr consists of pointers and integers; all zeroes is a value of it.
    let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    for (index, slot) in slots.iter_mut().take(count).enumerate() {
        slot.clear();
        let room = slot.spare_capacity_mut();
        parts[index].iov_base = room.as_mut_ptr().cast();
        parts[index].iov_len = room.len();
        let header = &mut messages[index].msg_hdr;
        header.msg_iov = &raw mut parts[index];
        header.msg_iovlen = 1;
        header.msg_name = (&raw mut names[index]).cast();
        header.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    // SAFETY: the first `count` messages point to a name and a part each, which live on this stack
    // frame, and each part to the spare capacity of a slot that is borrowed for this call.
    let got = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            count as libc::c_uint,
            flags,
            std::ptr::null_mut(),
        )
    };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    for (index, slot) in slots.iter_mut().take(got).enumerate() {
        let len = messages[index].msg_len as usize;
        // SAFETY: the kernel has written `msg_len` bytes, or the whole part if that is shorter.
        unsafe { slot.set_len(len.min(parts[index].iov_len)) };
        answers[index] = Received { len, hardware: names[index].sll_hatype };
    }
    Ok(&answers[..got])
}
