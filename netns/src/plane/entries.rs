//! What the steering program knows: the addresses that are not steered, and those that are though
//! they are loopback's.

use std::net::IpAddr;

use super::{DOCKER_DNS, Plan};
use crate::{
    addresses::InterfaceAddress,
    bpf::BpfError,
    sk_lookup::{AddressKey, Lookup},
};

/// The port of DNS.
const DNS: u16 = 53;

/// Entries of the program's maps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entries {
    own: Vec<IpAddr>,
    nameservers: Vec<IpAddr>,
}

impl Plan {
    /// What the program must know, beside the addresses of our own links.
    pub(super) fn entries(&self, present: &[InterfaceAddress]) -> Entries {
        let ours = present.iter().filter(|address| !address.loopback);
        let ours = ours.map(|address| address.ip);
        Entries {
            own: self.identity.iter().copied().chain(ours).collect(),
            nameservers: self.loopback_nameservers.clone(),
        }
    }
}

impl Entries {
    /// Those that are not among others.
    pub(super) fn without(&self, others: &Self) -> Self {
        let missing = |ours: &[IpAddr], theirs: &[IpAddr]| {
            ours.iter().copied().filter(|ip| !theirs.contains(ip)).collect()
        };
        Self {
            own: missing(&self.own, &others.own),
            nameservers: missing(&self.nameservers, &others.nameservers),
        }
    }

    /// Tells the program.
    pub(super) fn insert(&self, lookup: &mut Lookup) -> Result<(), BpfError> {
        for ip in &self.own {
            lookup.insert("own", AddressKey::from(*ip), 1)?;
        }
        for server in &self.nameservers {
            let port = if *server == DOCKER_DNS { 0 } else { DNS };
            lookup.insert("nameservers", AddressKey::from(*server), port.into())?;
        }
        Ok(())
    }

    /// Has the program forget.
    pub(super) fn remove(&self, lookup: &mut Lookup) -> Result<(), BpfError> {
        for ip in &self.own {
            lookup.remove("own", AddressKey::from(*ip))?;
        }
        for server in &self.nameservers {
            lookup.remove("nameservers", AddressKey::from(*server))?;
        }
        Ok(())
    }
}
