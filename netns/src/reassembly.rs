//! Packets in, streams out: puts together again what clients sent to a target.
//!
//! ```text
//!   packet ─► parse ─┬─► fragments ─┐
//!                    │◄─────────────┘
//!                    ├─► UDP ───────────────────────────────────────► Datagram ─┐
//!                    └─► TCP ─► opening (SYN seen) ─► Opened ───────────────────┤
//!                               └────► stream (in order, each byte once) ─► Data├─► queue ─► next
//!                                                                     Fin Reset │
//!                                                                     Lost ─────┘
//! ```
//!
//! Only the client's side is looked at: what the target answers is nobody's business here. A
//! connection that was open before the capture began is skipped. Nothing here reads a clock or a
//! socket; every packet is untrusted, and whatever is kept has a limit in [`Limits`].

mod aged;
mod checksum;
mod flows;
mod fragments;
mod opening;
mod packet;
mod queue;
mod stream;

#[cfg(test)]
mod tests;

use std::{collections::HashSet, net::SocketAddr, time::Duration};

use bytes::Bytes;

use crate::Proto;

pub use flows::Flows;
pub(crate) use packet::syn;
pub use packet::{Checksum, Frame, Meta};

/// Names one connection of a client for as long as the process lives; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(u64);

/// The two ends of a connection or of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Who sent it.
    pub client: SocketAddr,
    /// The target's address and port.
    pub server: SocketAddr,
}

/// What was learnt from the packets, in the order in which it happened on each flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A client's handshake is complete: its SYN was followed by its ACK.
    Opened {
        /// The new flow.
        flow: FlowId,
        /// Who connected.
        client: SocketAddr,
        /// The target's address and port.
        server: SocketAddr,
    },
    /// The next bytes of a flow, in order, none of them twice.
    Data {
        /// The flow.
        flow: FlowId,
        /// The bytes.
        bytes: Bytes,
    },
    /// The client has sent all that it will send; it may still read.
    Fin {
        /// The flow.
        flow: FlowId,
    },
    /// The client reset the connection; the flow is over. Can follow [`Event::Fin`].
    Reset {
        /// The flow.
        flow: FlowId,
    },
    /// The rest of the flow cannot be had any more (a hole that nobody fills, too much kept, its
    /// port no longer wanted); the flow is over.
    Lost {
        /// The flow.
        flow: FlowId,
    },
    /// One UDP datagram.
    Datagram {
        /// Who sent it.
        client: SocketAddr,
        /// The target's address and port.
        server: SocketAddr,
        /// What it carries, which may be nothing.
        payload: Bytes,
    },
}

impl Event {
    /// The flow that the event is about; a datagram has none.
    #[must_use]
    pub fn flow(&self) -> Option<FlowId> {
        match self {
            Self::Opened { flow, .. }
            | Self::Data { flow, .. }
            | Self::Fin { flow }
            | Self::Reset { flow }
            | Self::Lost { flow } => Some(*flow),
            Self::Datagram { .. } => None,
        }
    }
}

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Flows that are followed at the same time; further ones are refused.
    pub flows: usize,
    /// Handshakes under way; beyond it the oldest is forgotten.
    pub opening: usize,
    /// Bytes of one flow that wait behind a hole; beyond it the flow is lost.
    pub waiting_per_flow: usize,
    /// Bytes of all flows that wait behind holes; beyond it the flow that wants more is lost.
    pub waiting: usize,
    /// Bytes in events that nobody has taken yet; beyond it flows are lost, datagrams dropped.
    pub queued: usize,
    /// Bytes of IP fragments whose rest has not come; beyond it the oldest are forgotten.
    pub fragments: usize,
    /// How long a hole may stay open.
    pub hole: Duration,
    /// How long a client may take for its handshake.
    pub handshake: Duration,
    /// How long a flow whose client has sent all is still watched for a reset.
    pub linger: Duration,
    /// How long a flow may be silent; then it is lost.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: 65_536,
            opening: 4096,
            waiting_per_flow: 4 << 20,
            waiting: 16 << 20,
            queued: 8 << 20,
            fragments: 1 << 20,
            hole: Duration::from_secs(5),
            handshake: Duration::from_secs(60),
            linger: Duration::from_secs(60),
            idle: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// What happened so far, and what is kept at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Flows that were opened.
    pub opened: u64,
    /// Flows of which the rest was lost.
    pub lost: u64,
    /// Connections that were not followed because they were open before the capture began, or
    /// because their handshake was forgotten.
    pub skipped: u64,
    /// Connections that were not followed for want of room.
    pub refused: u64,
    /// Datagrams that were handed out.
    pub datagrams: u64,
    /// Datagrams that were dropped for want of room.
    pub datagrams_dropped: u64,
    /// Packets whose shape is not supported (unknown IPv6 extension headers, too long).
    pub unsupported: u64,
    /// Packets that are not what they claim to be, a wrong checksum included.
    pub malformed: u64,
    /// Packets of which the capture kept only a part.
    pub truncated: u64,
    /// IP fragments that were dropped because the rest did not come, did not fit or overlapped.
    pub fragments_dropped: u64,
    /// Flows that are followed now.
    pub flows: usize,
    /// Handshakes that are under way now.
    pub opening: usize,
    /// Bytes that wait behind holes now.
    pub waiting: usize,
    /// Bytes in events that nobody has taken yet.
    pub queued: usize,
}

/// What the capture may do with packets of a connection from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Leave them out, which saves the copying.
    Ignore(FlowKey),
    /// Copy them again: a new connection begins between the same ends.
    Follow(FlowKey),
}

/// The ports of the target that are copied.
#[derive(Debug, Clone, Default)]
pub struct Ports(HashSet<(Proto, u16)>);

impl Ports {
    /// No port.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a port; false if it was there.
    pub fn insert(&mut self, proto: Proto, port: u16) -> bool {
        self.0.insert((proto, port))
    }

    /// Takes a port out; false if it was not there.
    pub fn remove(&mut self, proto: Proto, port: u16) -> bool {
        self.0.remove(&(proto, port))
    }

    /// Whether the port is copied.
    #[must_use]
    pub fn contains(&self, proto: Proto, port: u16) -> bool {
        self.0.contains(&(proto, port))
    }

    /// Whether nothing is copied.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
