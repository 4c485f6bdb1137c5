//! One packet socket: what comes in of one IP version, as frames.

use std::{
    io,
    num::NonZeroU16,
    os::fd::{AsFd, BorrowedFd},
};

use bytes::{Buf, Bytes, BytesMut};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockFilter, Socket, Type};

use crate::reassembly::{Checksum, Frame, Meta};

use super::sys::{self, BATCH, Received};
use crate::sys::{LOOPBACK, bind_packets};

/// The receive buffer that is asked for; the kernel doubles it.
const RECEIVE_BUFFER: usize = 16 << 20;

/// Room for a packet: the largest that usual interfaces make, and its headers.
const SLOT: usize = 68 << 10;

/// The largest packet that room is made for.
const MAX_SLOT: usize = 1 << 20;

/// From this length on, events share a packet's memory instead of copying from it.
const SHARED: usize = 16 << 10;

/// The length of a `virtio_net_hdr`.
const VIRTIO_HEADER: usize = 10;

/// A protocol that nobody speaks over an interface that is not looked at: to receive nothing.
const NOTHING: u16 = libc::ETH_P_LOOP as u16;

/// A version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V4,
    V6,
}

/// A packet socket.
///
/// It is of the raw kind and never asks for "all protocols": so the kernel has nothing to do with
/// it for packets that go out, and says of each that comes in how it is segmented.
#[derive(Debug)]
pub(super) struct PacketSocket {
    socket: Socket,
    version: Version,
    /// Packets that could not be read, since that was last asked.
    failed: u64,
}

/// Memory that packets are read into.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<BytesMut>,
    size: usize,
}

impl PacketSocket {
    /// A socket that receives nothing yet.
    pub(super) fn open(version: Version) -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), None)?;
        sys::ask_for_virtio_header(socket.as_fd())?;
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        Ok(Self { socket, version, failed: 0 })
    }

    /// Which packets it is for.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// Has a program of the older kind choose what it receives.
    pub(super) fn filter(&self, program: &[SockFilter]) -> io::Result<()> {
        self.socket.attach_filter(program)
    }

    /// Begins to receive, from all interfaces.
    pub(super) fn start(&self) -> io::Result<()> {
        let ethertype = match self.version {
            Version::V4 => libc::ETH_P_IP,
            Version::V6 => libc::ETH_P_IPV6,
        };
        bind_packets(self.socket.as_fd(), ethertype as u16, 0)
    }

    /// Receives nothing any more. What has come already can be read.
    pub(super) fn stop(&self) -> io::Result<()> {
        bind_packets(self.socket.as_fd(), NOTHING, LOOPBACK)
    }

    /// Packets that found no room or could not be read, since the last call.
    pub(super) fn dropped(&mut self) -> io::Result<u64> {
        let failed = std::mem::take(&mut self.failed);
        Ok(failed + sys::dropped(self.socket.as_fd())?)
    }

    /// Reads a batch of packets; says how many bytes, none if there was no packet.
    pub(super) fn read(
        &mut self,
        slots: &mut Slots,
        take: &mut impl FnMut(Frame<'_>, Meta),
    ) -> io::Result<usize> {
        let mut answers = [Received { len: 0, hardware: 0 }; BATCH];
        let slots_now = slots.prepare();
        let answers = match sys::receive(self.socket.as_fd(), slots_now, &mut answers) {
            Ok(answers) => answers,
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR) => return Ok(0),
                // A packet whose segmentation this kernel cannot describe; it is gone.
                Some(libc::EINVAL) => {
                    self.failed += 1;
                    return Ok(1);
                }
                _ => return Err(error),
            },
        };
        for (index, answer) in answers.iter().enumerate() {
            slots.take(index, *answer, take);
        }
        Ok(answers.iter().map(|answer| answer.len).sum())
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Slots {
    /// Memory is taken as packets need it.
    pub(super) fn new() -> Self {
        Self { slots: (0..BATCH).map(|_| BytesMut::new()).collect(), size: SLOT }
    }

    fn prepare(&mut self) -> &mut [BytesMut] {
        for slot in &mut self.slots {
            slot.clear();
            slot.reserve(self.size);
        }
        &mut self.slots
    }

    fn take(&mut self, index: usize, answer: Received, take: &mut impl FnMut(Frame<'_>, Meta)) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let truncated = answer.len > slot.len();
        if truncated {
            self.size = self.size.max(answer.len.next_multiple_of(4096)).min(MAX_SLOT);
        }
        let Some(meta) = meta(slot, truncated) else {
            return;
        };
        let link = VIRTIO_HEADER + link_header(answer.hardware);
        if slot.len() >= SHARED && slot.len() >= link {
            let mut packet: Bytes = slot.split().freeze();
            packet.advance(link);
            take(Frame::Shared(packet), meta);
        } else if let Some(packet) = slot.get(link..) {
            take(Frame::Borrowed(packet), meta);
        }
    }
}

/// What the `virtio_net_hdr` says.
fn meta(slot: &[u8], truncated: bool) -> Option<Meta> {
    const NEEDS_CHECKSUM: u8 = 1;
    const CHECKSUM_VALID: u8 = 2;
    const UDP_SEGMENTS: u8 = 5;
    let header = slot.first_chunk::<VIRTIO_HEADER>()?;
    let known = header[0] & (NEEDS_CHECKSUM | CHECKSUM_VALID) != 0;
    let size = u16::from_ne_bytes([header[4], header[5]]);
    Some(Meta {
        checksum: if known { Checksum::Trusted } else { Checksum::Unverified },
        segment: NonZeroU16::new(size).filter(|_| header[1] & 0x7f == UDP_SEGMENTS),
        truncated,
    })
}

/// The length of the header that the interface puts before IP.
fn link_header(hardware: u16) -> usize {
    match hardware {
        libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => libc::ETH_HLEN as usize,
        _ => 0,
    }
}
