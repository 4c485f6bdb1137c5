//! The program that chooses packets in the kernel, and its maps.

use std::os::fd::{AsFd, OwnedFd};

use aya::maps::{Array, HashMap, MapData, MapError};

use crate::{
    Proto, TargetNet,
    bpf::{BpfError, Object, SOCKET_FILTER, map_error},
    reassembly::{FlowKey, Verdict},
    sk_lookup::{AddressKey, ConnectionKey},
    sys::attach_filter,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/capture.o"));

/// What the program knows of a connection.
const OPENING: u32 = 1;
const IGNORED: u32 = 2;
const FOLLOWED: u32 = 3;

/// The entry of `options` that says whether a mesh stands before the target.
const MESH: u32 = 0;

/// The entries of `admission`: connections that may still begin, and those that were left out.
const LEFT: u32 = 0;
const LEFT_OUT: u32 = 1;

/// The loaded program. Sockets that it is attached to keep it.
#[derive(Debug)]
pub(super) struct Filter {
    object: Object,
    program: OwnedFd,
}

/// Its state, and the sequence number after its last byte.
type Known = [u32; 2];

impl Filter {
    /// Loads the program for a target; it lets nothing through yet.
    pub(super) fn load(target: &TargetNet) -> Result<Self, BpfError> {
        let mut object = Object::load(OBJECT)?;
        let mut map: HashMap<_, AddressKey, u32> = open("own", object.map("own")?.try_into())?;
        for address in &target.own {
            open("own", map.insert(AddressKey::from(*address), 1, 0))?;
        }
        let mut options: Array<_, u32> = open("options", object.map("options")?.try_into())?;
        open("options", options.set(MESH, u32::from(target.mesh), 0))?;
        let program = object.program("capture", SOCKET_FILTER)?;
        let mut filter = Self { object, program };
        filter.admit(None)?;
        Ok(filter)
    }

    /// Lets so many connections begin until the next call; none is no limit.
    pub(super) fn admit(&mut self, connections: Option<u32>) -> Result<(), BpfError> {
        let left = connections.map_or(i64::MAX, i64::from);
        open("admission", self.admission()?.set(LEFT, left, 0))
    }

    /// Connections that were left out since the program was loaded.
    pub(super) fn left_out(&mut self) -> Result<u64, BpfError> {
        Ok(open("admission", self.admission()?.get(&LEFT_OUT, 0))?.unsigned_abs())
    }

    fn admission(&mut self) -> Result<Array<&mut MapData, i64>, BpfError> {
        open("admission", self.object.map("admission")?.try_into())
    }

    /// Has the program decide what a socket receives.
    pub(super) fn attach(&self, socket: impl AsFd) -> Result<(), BpfError> {
        let attached = attach_filter(socket.as_fd(), self.program.as_fd());
        attached.map_err(BpfError::Attach)
    }

    /// Lets a port's packets through, or no longer.
    pub(super) fn set(&mut self, proto: Proto, port: u16, on: bool) -> Result<(), BpfError> {
        let map = self.object.map("ports")?;
        let mut map: Array<_, u64> = open("ports", map.try_into())?;
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
    pub(super) fn decide(&mut self, verdict: Verdict) -> Result<(), BpfError> {
        let (key, state) = match verdict {
            Verdict::Ignore(key) => (key, IGNORED),
            Verdict::Follow(key) => (key, OPENING),
        };
        let map = self.object.map("flows")?;
        let mut map: HashMap<_, ConnectionKey, Known> = open("flows", map.try_into())?;
        open("flows", map.insert(ConnectionKey::from(key), [state, 0], 0))
    }

    /// The sequence number after the last byte that the program let through, of connections of
    /// which it still knows it.
    pub(super) fn ends(
        &mut self,
        keys: impl Iterator<Item = FlowKey>,
    ) -> Result<Vec<(FlowKey, u32)>, BpfError> {
        let map = self.object.map("flows")?;
        let map: HashMap<_, ConnectionKey, Known> = open("flows", map.try_into())?;
        let end = |key| match map.get(&ConnectionKey::from(key), 0) {
            Ok([FOLLOWED, end]) => Some((key, end)),
            _ => None,
        };
        Ok(keys.filter_map(end).collect())
    }
}

fn open<T>(map: &'static str, result: Result<T, MapError>) -> Result<T, BpfError> {
    result.map_err(|source| map_error(map, source))
}
