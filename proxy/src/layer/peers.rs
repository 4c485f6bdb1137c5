//! The remote addresses of datagrams, each behind a slot of its own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mirrord_protocol::frame::Errno;
use mirrord_protocol::layer::{SLOTS, Slot};

use super::base::{Base, written};
use super::memory::Ends;
use super::slots::Lease;

/// So many are remembered; connections need slots as well.
const MOST: usize = SLOTS as usize / 2;
/// Who is silent for so long may be forgotten when there are too many: a socket that is connected
/// to it then speaks to nobody.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// Those that the app has spoken to or heard of.
#[derive(Debug, Default)]
pub(super) struct Peers {
    by_address: HashMap<SocketAddr, Peer>,
    by_slot: HashMap<Slot, SocketAddr>,
}

#[derive(Debug)]
struct Peer {
    lease: Lease,
    used: Instant,
}

impl Peers {
    /// Those of a worker before this one.
    pub(super) fn recalled(known: &[(SocketAddr, Slot)], leases: Vec<Lease>) -> Self {
        let known: HashMap<Slot, SocketAddr> =
            known.iter().map(|&(remote, slot)| (slot, remote)).collect();
        let mut peers = Self::default();
        for lease in leases {
            if let Some(remote) = known.get(&lease.slot()) {
                peers.insert(*remote, lease);
            }
        }
        peers
    }

    fn insert(&mut self, remote: SocketAddr, lease: Lease) {
        self.by_slot.insert(lease.slot(), remote);
        self.by_address.insert(remote, Peer { lease, used: Instant::now() });
    }

    /// Whether an address has a slot.
    pub(super) fn knows(&self, remote: SocketAddr) -> bool {
        self.by_address.contains_key(&remote)
    }

    /// The slot of an address, a new one if need be.
    pub(super) fn slot(&mut self, base: &Base, remote: SocketAddr) -> Result<Slot, Errno> {
        if let Some(peer) = self.by_address.get_mut(&remote) {
            peer.used = Instant::now();
            return Ok(peer.lease.slot());
        }
        if self.by_address.len() >= MOST {
            self.forget(base)?;
        }
        let ends = Ends { remote: Some(remote), local: base.own_address(remote, 0) };
        let lease = base.lease(ends)?;
        let slot = lease.slot();
        written(base.memory.index(remote, slot))?;
        self.insert(remote, lease);
        Ok(slot)
    }

    /// Who is behind a slot.
    pub(super) fn remote(&mut self, slot: Slot) -> Option<SocketAddr> {
        let remote = *self.by_slot.get(&slot)?;
        if let Some(peer) = self.by_address.get_mut(&remote) {
            peer.used = Instant::now();
        }
        Some(remote)
    }

    fn forget(&mut self, base: &Base) -> Result<(), Errno> {
        let silent = |peer: &Peer| peer.used.elapsed() > FORGOTTEN;
        for (remote, peer) in self.by_address.extract_if(|_, peer| silent(peer)) {
            self.by_slot.remove(&peer.lease.slot());
            written(base.memory.unindex(remote, peer.lease.slot()))?;
        }
        match self.by_address.len() < MOST {
            true => Ok(()),
            false => Err(Errno(nix::libc::ENOBUFS)),
        }
    }
}
