//! The program that chooses packets in the kernel, and its maps.

use std::{net::IpAddr, os::fd::AsFd};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Array, HashMap, Map, MapError},
    programs::{ProgramError, SocketFilter},
};

use crate::{
    Proto,
    reassembly::{FlowKey, Verdict},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/capture.o"));

/// What the program knows of a connection.
const OPENING: u32 = 1;
const IGNORED: u32 = 2;

/// Why the filter could not be loaded or changed.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// Its code or its maps.
    #[error("cannot load the capture's filter")]
    Load(#[source] Box<EbpfError>),
    /// The verifier or the socket.
    #[error("cannot attach the capture's filter")]
    Attach(#[source] Box<ProgramError>),
    /// The content of a map.
    #[error("cannot change the capture filter's map {map}")]
    Map {
        /// The map's name.
        map: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<MapError>,
    },
    /// The embedded object lacks a part.
    #[error("the embedded object has no {0}")]
    Missing(&'static str),
}

/// The loaded program. Sockets that it is attached to keep it.
#[derive(Debug)]
pub(super) struct Filter {
    ebpf: Ebpf,
}

/// A connection as the program knows it: both addresses, both ports.
type Flow = [u8; 36];

impl Filter {
    /// Loads the program for the target's addresses; it lets nothing through yet.
    pub(super) fn load(own: &[IpAddr]) -> Result<Self, FilterError> {
        let ebpf = EbpfLoader::new()
            .load(OBJECT)
            .map_err(|error| FilterError::Load(Box::new(error)))?;
        let mut filter = Self { ebpf };
        let map = filter.map("own")?;
        let mut map: HashMap<_, [u8; 16], u32> = open("own", HashMap::try_from(map))?;
        for address in own {
            open("own", map.insert(mapped(*address), 1, 0))?;
        }
        let program: &mut SocketFilter = filter.program()?;
        program.load().map_err(attach_error)?;
        Ok(filter)
    }

    /// Has the program decide what a socket receives.
    pub(super) fn attach(&mut self, socket: impl AsFd) -> Result<(), FilterError> {
        self.program()?.attach(socket).map_err(attach_error)
    }

    /// Lets a port's packets through, or no longer.
    pub(super) fn set(&mut self, proto: Proto, port: u16, on: bool) -> Result<(), FilterError> {
        let map = self.map("ports")?;
        let mut map: Array<_, u64> = open("ports", Array::try_from(map))?;
        let first = match proto {
            Proto::Tcp => 0,
            Proto::Udp => 1024,
        };
        let (word, bit) = (first + u32::from(port / 64), 1 << (port % 64));
        let bits = open("ports", map.get(&word, 0))?;
        let bits = if on { bits | bit } else { bits & !bit };
        open("ports", map.set(word, bits, 0))
    }

    /// Leaves a connection's packets out from now on, or lets them through again.
    pub(super) fn decide(&mut self, verdict: Verdict) -> Result<(), FilterError> {
        let (key, state) = match verdict {
            Verdict::Ignore(key) => (key, IGNORED),
            Verdict::Follow(key) => (key, OPENING),
        };
        let map = self.map("flows")?;
        let mut map: HashMap<_, Flow, u32> = open("flows", HashMap::try_from(map))?;
        open("flows", map.insert(flow(key), state, 0))
    }

    fn map(&mut self, name: &'static str) -> Result<&mut Map, FilterError> {
        self.ebpf.map_mut(name).ok_or(FilterError::Missing(name))
    }

    fn program(&mut self) -> Result<&mut SocketFilter, FilterError> {
        let program = self.ebpf.program_mut("capture");
        let program = program.ok_or(FilterError::Missing("capture"))?;
        program.try_into().map_err(attach_error)
    }
}

fn flow(key: FlowKey) -> Flow {
    let mut flow = [0; 36];
    let parts = [key.client, key.server].map(|end| (mapped(end.ip()), end.port().to_be_bytes()));
    for (index, (address, port)) in parts.iter().enumerate() {
        flow[16 * index..16 * index + 16].copy_from_slice(address);
        flow[32 + 2 * index..34 + 2 * index].copy_from_slice(port);
    }
    flow
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn open<T>(map: &'static str, result: Result<T, MapError>) -> Result<T, FilterError> {
    result.map_err(|source| FilterError::Map {
        map,
        source: Box::new(source),
    })
}

fn attach_error(error: ProgramError) -> FilterError {
    FilterError::Attach(Box::new(error))
}
