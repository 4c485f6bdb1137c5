//! The agent's side: new connections to the target's ports are handed to the agent.

use std::{
    io,
    net::{IpAddr, TcpListener},
};

use crate::{
    Proto,
    sk_lookup::{EndpointKey, Lookup, SkLookupError, Sockets},
    steered::SteeredUdp,
};

static PROGRAM: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steal.o"));

/// Why stealing could not begin.
#[derive(Debug, thiserror::Error)]
#[error("cannot take the target's incoming traffic")]
pub struct StealError(#[from] SkLookupError);

/// Takes the target's new connections. Dropping it, or the death of the process, gives them back:
/// the target itself serves the very next one.
///
/// A connection that was open before a port was added stays with the target. An accepted socket's
/// local address is the address and port that the client connected to.
#[derive(Debug)]
pub struct Steal {
    sockets: Sockets,
    lookup: Lookup,
}

impl Steal {
    /// Attaches the program to the calling thread's network namespace; nothing is taken until a
    /// port is added. `own` are the namespace's addresses: what comes from them, or from a
    /// loopback address, is the target talking to itself, and is left alone.
    pub fn attach(own: &[IpAddr]) -> Result<Self, StealError> {
        let sockets = Sockets::open(&[Proto::Tcp, Proto::Udp]).map_err(SkLookupError::Sockets)?;
        let mut lookup = Lookup::load(PROGRAM, &sockets, own)?;
        lookup.attach("steal")?;
        Ok(Self { sockets, lookup })
    }

    /// The listeners that receive stolen TCP connections.
    pub fn tcp(&self) -> &[TcpListener] {
        &self.sockets.tcp
    }

    /// The sockets that receive stolen UDP datagrams.
    pub fn udp(&self) -> &[SteeredUdp] {
        &self.sockets.udp
    }

    /// Begins to take what is new at a port.
    pub fn add(&mut self, proto: Proto, port: u16) -> io::Result<()> {
        let added = self.lookup.insert("ports", EndpointKey::new(proto, port), 1);
        added.map_err(io::Error::other)
    }

    /// Gives a port back; what is open stays with the agent.
    pub fn remove(&mut self, proto: Proto, port: u16) -> io::Result<()> {
        let removed = self.lookup.remove("ports", EndpointKey::new(proto, port));
        removed.map_err(io::Error::other)
    }
}
