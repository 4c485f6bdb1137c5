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
    cell::RefCell,
    io::{self, Read},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use socket2::{Domain, Socket, Type};

use crate::{
    reassembly::{FlowKey, syn},
    steered::listen,
    sys,
};

/// The largest packet.
const LONGEST: usize = 64 << 10;

/// Bytes of an ICMP header.
const ICMP_HEADER: usize = 8;

/// The type of echo requests.
const ECHO: u8 = 8;

/// How a connection of the app's begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    flow: FlowKey,
    sequence: u32,
    packet: Vec<u8>,
}

/// An echo request of the app's to somewhere else (RFC 792).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Echo {
    /// The app's address.
    pub app: Ipv4Addr,
    /// Who is to answer.
    pub to: Ipv4Addr,
    /// Which of the app's sockets it is of.
    pub id: u16,
    /// Which of that socket's requests it is.
    pub sequence: u16,
    /// What comes back with the answer.
    pub payload: Vec<u8>,
    packet: Vec<u8>,
}

/// What is heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A connection begins.
    Call(Call),
    /// Somebody is asked whether it is there.
    Echo(Echo),
}

/// Hears of the app's connections as they begin, and of echo requests. Non-blocking.
#[derive(Debug)]
pub struct Calls {
    socket: Socket,
    buffer: RefCell<Vec<u8>>,
}

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

impl Echo {
    /// The request, from its IP header on.
    pub(crate) fn packet(&self) -> &[u8] {
        &self.packet
    }

    fn read(packet: &[u8]) -> Option<Self> {
        let ip = packet.first_chunk::<20>()?;
        let icmp = packet.get(usize::from(ip[0] & 0x0f) * 4..)?;
        let head = icmp.first_chunk::<ICMP_HEADER>()?;
        if ip[0] >> 4 != 4 || i32::from(ip[9]) != libc::IPPROTO_ICMP || head[0] != ECHO {
            return None;
        }
        let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
        let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        Some(Self {
            app: address(12),
            to: address(16),
            id: word(4),
            sequence: word(6),
            payload: icmp[ICMP_HEADER..].to_vec(),
            packet: packet.to_vec(),
        })
    }
}

impl Calls {
    /// Opens it in the calling thread's network namespace. Nothing is heard yet.
    pub(crate) fn open() -> io::Result<Self> {
        // Of no protocol, it receives nothing before there is a filter.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking().cloexec(), None)?;
        sys::ignore_outgoing(socket.as_fd())?;
        Ok(Self { socket, buffer: RefCell::new(vec![0; LONGEST]) })
    }

    /// Begins to hear what the filter chooses.
    ///
    /// Of all protocols: what is bound to one of them would have the kernel clone each packet of the
    /// loopback device, since IP itself then has it before us.
    pub(crate) fn start(&self) -> io::Result<()> {
        sys::bind_packets(self.socket.as_fd(), libc::ETH_P_ALL as u16, sys::LOOPBACK)
    }

    /// The next one; `WouldBlock` when there is none. What can't be read is left out.
    pub fn next(&self) -> io::Result<Heard> {
        let mut buffer = self.buffer.borrow_mut();
        loop {
            let len = (&self.socket).read(&mut buffer)?;
            let packet = &buffer[..len];
            let call = Call::read(packet).map(Heard::Call);
            if let Some(heard) = call.or_else(|| Echo::read(packet).map(Heard::Echo)) {
                return Ok(heard);
            }
        }
    }
}

impl AsFd for Calls {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
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
