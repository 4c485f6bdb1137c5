//! The app's connections before anybody has answered them.
//!
//! ```text
//!   app ── SYN ─► lo ─┬─► sk_lookup ─► a listener whose queue is full: the kernel drops the SYN
//!                     │                and sends it again after 1 s, 2 s, 4 s, as to a far host
//!                     └─► filter (BPF) ─► packet socket ─► Calls::next
//!                         how a steered connection begins        │  the far side is asked
//!          admitted ◄── Plane::admit, the same SYN once more ◄───┤
//!          RST or ICMP ◄── PacketSender::fail ◄──────────────────┘
//! ```
//!
//! So connect(2) succeeds once the far side has accepted, and fails as it would there.

use std::{
    io::{self, Read},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use socket2::{Domain, Socket, Type};

use crate::{
    reassembly::{FlowKey, syn},
    steered::listen,
    sys,
};

/// Room for a SYN: the headers with all their options, and what TCP Fast Open sends along.
const LONGEST: usize = 2048;

/// How a connection of the app's begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    flow: FlowKey,
    sequence: u32,
    packet: Vec<u8>,
}

/// Hears of the app's connections as they begin. Non-blocking.
#[derive(Debug)]
pub struct Calls(Socket);

/// A listener that answers nobody.
#[derive(Debug)]
pub(crate) struct Silent {
    listener: TcpListener,
    /// Fills its queue.
    _only: TcpStream,
}

impl Call {
    /// The app's end.
    #[must_use]
    pub fn app(&self) -> SocketAddr {
        self.flow.client
    }

    /// Where it connects to.
    #[must_use]
    pub fn to(&self) -> SocketAddr {
        self.flow.server
    }

    /// The sequence number of its SYN, by which one that is sent again is known.
    #[must_use]
    pub fn sequence(&self) -> u32 {
        self.sequence
    }

    pub(crate) fn flow(&self) -> FlowKey {
        self.flow
    }

    /// The SYN, from its IP header on.
    pub(crate) fn packet(&self) -> &[u8] {
        &self.packet
    }

    fn read(packet: &[u8]) -> Option<Self> {
        let (flow, sequence, packet) = syn(packet)?;
        Some(Self { flow, sequence, packet })
    }
}

impl Calls {
    /// Opens it in the calling thread's network namespace. Nothing is heard yet.
    pub(crate) fn open() -> io::Result<Self> {
        // Of no protocol, it receives nothing before there is a filter.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking().cloexec(), None)?;
        sys::ignore_outgoing(socket.as_fd())?;
        Ok(Self(socket))
    }

    /// Begins to hear what the filter chooses.
    ///
    /// Of all protocols: what is bound to one of them would have the kernel clone each packet of the
    /// loopback device, since IP itself then has it before us.
    pub(crate) fn start(&self) -> io::Result<()> {
        sys::bind_packets(self.0.as_fd(), libc::ETH_P_ALL as u16, sys::LOOPBACK)
    }

    /// The next one; `WouldBlock` when there is none. What can't be read is left out.
    pub fn next(&self) -> io::Result<Call> {
        let mut packet = [0; LONGEST];
        loop {
            let len = (&self.0).read(&mut packet)?;
            if let Some(call) = packet.get(..len).and_then(Call::read) {
                return Ok(call);
            }
        }
    }
}

impl AsFd for Calls {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Silent {
    /// Listens on loopback, with a queue that is full.
    pub(crate) fn open(domain: Domain) -> io::Result<Self> {
        let listener = listen(domain, 0)?;
        let _only = TcpStream::connect(listener.local_addr()?)?;
        Ok(Self { listener, _only })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl AsFd for Silent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl AsRawFd for Silent {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}
