//! The agent's side: new connections to the target's ports are handed to the agent.

mod table;
mod words;

use std::{io, net::TcpListener};

use crate::{
    Proto,
    privileges::{Capability, Missing, require},
    sk_lookup::{AddressKey, EndpointKey, Lookup, SkLookupError, Sockets},
    steered::SteeredUdp,
    target::{AGENT_SOURCE, TargetNet},
};

use table::Table;

static PROGRAM: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steal.o"));

/// Why stealing could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StealError {
    /// The rights do not suffice.
    #[error(transparent)]
    NotAllowed(#[from] Missing),
    /// The program or its sockets.
    #[error("cannot take the target's incoming traffic")]
    Program(#[from] SkLookupError),
    /// The rules that stand in for the program, or their sockets.
    #[error("cannot take the target's incoming traffic without BPF")]
    Table(#[source] io::Error),
}

/// What it takes.
const NEEDS: [Capability; 3] = [Capability::NetAdmin, Capability::NetRaw, Capability::Bpf];

/// The entry of `options` that has the program take what a mesh's proxy brings.
const MESH: u32 = 0;

/// Takes the target's new connections. Dropping it, or the death of the process, gives them back:
/// the target itself serves the very next one.
///
/// A connection that was open before a port was added stays with the target. An accepted socket's
/// local address is the address and port that the client connected to.
#[derive(Debug)]
pub struct Steal {
    sockets: Sockets,
    way: Way,
}

/// Who chooses what is taken.
#[derive(Debug)]
enum Way {
    Program(Box<Lookup>),
    Table(Table),
}

impl Steal {
    /// Attaches the program to the calling thread's network namespace; nothing is taken until a
    /// port is added. What comes from the target's own addresses, or from a loopback address, is
    /// the target talking to itself, and is left alone; unless a mesh stands before the target,
    /// whose proxy does not look different.
    pub fn attach(target: &TargetNet) -> Result<Self, StealError> {
        require(&NEEDS)?;
        match Self::by_program(target) {
            // In a user namespace the capability for BPF is worth nothing.
            Err(StealError::Program(SkLookupError::Program(error)))
                if error.is_forbidden() && !target.mesh =>
            {
                Self::by_table(target)
            }
            attached => attached,
        }
    }

    /// The same without a BPF program, where none may be loaded, by rules that go with us. A mesh
    /// can't stand before the target.
    pub fn by_table(target: &TargetNet) -> Result<Self, StealError> {
        let sockets = Sockets::open(&[Proto::Tcp, Proto::Udp]).map_err(StealError::Table)?;
        let table = Table::make(&target.own, &sockets).map_err(StealError::Table)?;
        Ok(Self { sockets, way: Way::Table(table) })
    }

    fn by_program(target: &TargetNet) -> Result<Self, StealError> {
        let sockets = Sockets::open(&[Proto::Tcp, Proto::Udp]).map_err(SkLookupError::Sockets)?;
        let mut lookup = Lookup::load(PROGRAM, &sockets, &target.own)?;
        let spared = target.spared.iter().copied().chain([AGENT_SOURCE.into()]);
        for ip in spared {
            lookup.insert("spared", AddressKey::from(ip), 1).map_err(SkLookupError::from)?;
        }
        if target.mesh {
            lookup.insert("options", MESH, 1).map_err(SkLookupError::from)?;
        }
        lookup.attach("steal")?;
        Ok(Self { sockets, way: Way::Program(Box::new(lookup)) })
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
        match &mut self.way {
            Way::Program(lookup) => {
                let added = lookup.insert("ports", EndpointKey::new(proto, port), 1);
                added.map_err(io::Error::other)
            }
            Way::Table(table) => table.add(proto, port),
        }
    }

    /// Gives a port back; what is open stays with the agent.
    pub fn remove(&mut self, proto: Proto, port: u16) -> io::Result<()> {
        match &mut self.way {
            Way::Program(lookup) => {
                let removed = lookup.remove("ports", EndpointKey::new(proto, port));
                removed.map_err(io::Error::other)
            }
            Way::Table(table) => table.remove(proto, port),
        }
    }
}
