//! Keys of the programs' maps, as `sk_lookup.h` lays them out.

use std::net::IpAddr;

use aya::Pod;

use crate::{Proto, reassembly::FlowKey};

/// An address: IPv6, or IPv4 in its mapped form.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct AddressKey([u8; 16]);

/// A connection as it is on the wire: both addresses, both ports.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct ConnectionKey([u8; 36]);

/// A protocol and a port.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct EndpointKey {
    protocol: u16,
    port: u16,
}

impl From<IpAddr> for AddressKey {
    fn from(ip: IpAddr) -> Self {
        Self(match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        })
    }
}

impl From<FlowKey> for ConnectionKey {
    fn from(FlowKey { client, server }: FlowKey) -> Self {
        let mut key = [0; 36];
        for (index, end) in [client, server].into_iter().enumerate() {
            key[16 * index..][..16].copy_from_slice(&AddressKey::from(end.ip()).0);
            key[32 + 2 * index..][..2].copy_from_slice(&end.port().to_be_bytes());
        }
        Self(key)
    }
}

impl EndpointKey {
    /// The key of a port.
    pub(crate) fn new(proto: Proto, port: u16) -> Self {
        let protocol = proto.number().into();
        Self { protocol, port }
    }
}

// SAFETY: bytes without padding; every pattern is valid.
unsafe impl Pod for AddressKey {}
// SAFETY: bytes without padding; every pattern is valid.
unsafe impl Pod for ConnectionKey {}
// SAFETY: two integers without padding; every pattern is valid.
unsafe impl Pod for EndpointKey {}
