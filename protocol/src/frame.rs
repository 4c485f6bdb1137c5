//! The messages between proxy and agent: one frame is one binary WebSocket message.
//!
//! A frame is a kind byte and its fields, integers big-endian. Kinds are never renumbered or
//! reused. Everything here comes from the other side of a pipe, so every length is checked before
//! it is believed, and a frame that does not decode to its very end is an error.

mod codec;

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;

use crate::control::Protocol;
use crate::unix::{UnixKind, UnixName};
pub use codec::{DATA_HEADER, DecodeError, data_header};

/// Asked for in the handshake as the WebSocket subprotocol; the two ends must agree on it.
pub const SUBPROTOCOL: &str = "mirrord.1";
/// The most bytes that one frame may have, in any direction.
pub const MAX_FRAME: usize = 1 << 20;
/// The most bytes of a stream that one [`Frame::Data`] may carry: a UDP datagram fits as well.
pub const MAX_DATA: usize = 64 << 10;
/// The most bytes of text in an error that crosses the tunnel.
pub const MAX_REASON: usize = 1024;
/// What each side may send on a new stream before it hears of a window: bytes.
pub const INITIAL_WINDOW: u64 = 128 << 10;

/// Names a stream for the life of a tunnel: odd if the proxy opened it, even if the agent did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u32);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// Tells the tunnels apart that a session has to one target, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelId(pub u64);

/// A Linux error number, as errno(3) names them on x86_64 and aarch64 alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// The number behind an error of a system call; EIO (5) for one that has none.
    pub fn of(error: &std::io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(5))
    }
}

/// One message of the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A new stream.
    Open(StreamId, Open),
    /// The stream's far end is connected.
    Opened(StreamId),
    /// The stream's far end is connected, and is the socket that comes beside this frame: the
    /// stream is over, and the connection is not.
    Handed(StreamId),
    /// What [`Frame::Open`] says, of a connection whose socket comes beside this frame: there is no
    /// stream.
    Brought(Open),
    /// Whether more sockets are wanted beside frames: each takes descriptors, which may run out.
    Hand(bool),
    /// Asks for TCP sockets of the target's namespace, which are not connected yet.
    Want {
        /// Whether they are for IPv6.
        v6: bool,
        /// How many.
        count: u8,
    },
    /// One of them comes beside this frame.
    Spare {
        /// Whether it is for IPv6.
        v6: bool,
    },
    /// The stream's far end could not be connected; the stream is over.
    Refused(StreamId, Errno),
    /// Bytes of a stream, the first of which has this offset.
    Data(StreamId, u64, Bytes),
    /// A datagram of a UDP stream.
    Datagram(StreamId, Bytes),
    /// The receiver has consumed `consumed` bytes and takes bytes below the offset `limit`.
    Window {
        /// The stream that the other side sends on.
        stream: StreamId,
        /// Acknowledges every byte below this offset.
        consumed: u64,
        /// Never decreases.
        limit: u64,
    },
    /// The sender will send nothing past this offset: half-close.
    Fin(StreamId, u64),
    /// The stream is over at once, in both directions.
    Reset(StreamId),
    /// Asks for the target's traffic to a port.
    Subscribe(Port, Delivery),
    /// Answers [`Frame::Subscribe`]: nothing, or why it could not be done.
    Subscribed(Port, Option<String>),
    /// Gives a port back.
    Unsubscribe(Port),
    /// Asks who the target is, and for its environment if so wanted.
    Describe {
        /// Whether the environment is wanted.
        env: bool,
    },
    /// Answers [`Frame::Describe`].
    Description(Box<Description>),
    /// A heartbeat, answered by [`Frame::Pong`].
    Ping(u64),
    /// Answers the [`Frame::Ping`] of the same number.
    Pong(u64),
    /// The first words on a pipe: which tunnel goes over it, and how many of its numbered frames
    /// (see [`Frame::is_numbered`]) have come here; none where that tunnel is not known.
    Hello {
        /// Which tunnel.
        tunnel: TunnelId,
        /// How many of its frames.
        received: Option<u64>,
        /// Whether descriptors are taken that come beside frames: the pipe is a unix socket.
        descriptors: bool,
    },
    /// So many numbered frames have come here: the other side need not keep them any longer.
    Received(u64),
    /// What the mirror could not copy since the last such frame.
    MirrorLoss {
        /// Packets that the kernel dropped on their way to the agent.
        packets: u64,
        /// Connections of which no whole copy could be had.
        connections: u64,
    },
}

impl Frame {
    /// Whether it belongs to the tunnel, and comes once and in its turn however often the pipe
    /// breaks; the others belong to one pipe, and are lost with it.
    pub fn is_numbered(&self) -> bool {
        !matches!(self, Self::Ping(_) | Self::Pong(_) | Self::Hello { .. } | Self::Received(_))
    }

    /// Whether a descriptor comes beside it.
    pub fn has_descriptor(&self) -> bool {
        matches!(self, Self::Handed(_) | Self::Brought(_) | Self::Spare { .. })
    }
}

/// What a new stream is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Open {
    /// Proxy to agent: connect to this address from the target's namespace.
    Connect(Protocol, OrigDst),
    /// Proxy to agent: connect to this unix socket of the target.
    ConnectUnix(UnixKind, UnixName),
    /// Proxy to agent: ask this address, whose port says nothing, for echoes. Each datagram of the
    /// stream is a sequence number of two bytes and what is to come back with it.
    Echo(OrigDst),
    /// Agent to proxy: a client of the target has come.
    Incoming {
        /// TCP or UDP.
        protocol: Protocol,
        /// Whether it is a copy whose answers go nowhere.
        delivery: Delivery,
        /// Who it is.
        client: ClientAddr,
        /// Which address of the target it came to.
        server: OrigDst,
    },
}

/// Where a connection was going before it was redirected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OrigDst(pub SocketAddr);

/// Who opened a connection to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddr(pub SocketAddr);

/// A port of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The number that the target's clients use.
    pub number: u16,
}

/// How the target's traffic is had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// A copy.
    Mirror,
    /// The traffic itself.
    Steal,
}

/// What the agent knows of the target.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Description {
    /// Its host name.
    pub hostname: String,
    /// Its addresses with their prefix lengths, those of loopback left out.
    pub addresses: Vec<(std::net::IpAddr, u8)>,
    /// Its /etc/resolv.conf.
    pub resolv_conf: Bytes,
    /// Its /etc/hosts.
    pub hosts: Bytes,
    /// Its environment as /proc/PID/environ has it: `NAME=value` ended by NUL; a secret.
    pub environ: Bytes,
}

impl fmt::Debug for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Description")
            .field("hostname", &self.hostname)
            .field("addresses", &self.addresses)
            .field("environ", &format_args!("{} bytes", self.environ.len()))
            .finish_non_exhaustive()
    }
}
