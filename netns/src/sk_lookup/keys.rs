//! Keys of the programs' maps, as `sk_lookup.h` lays them out.

use std::net::IpAddr;

use aya::Pod;

use crate::Proto;

/// An address: IPv6, or IPv4 in its mapped form.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct AddressKey([u8; 16]);

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

impl EndpointKey {
    /// The key of a port.
    pub(crate) fn new(proto: Proto, port: u16) -> Self {
        let protocol = proto.number().into();
        Self { protocol, port }
    }
}

// SAFETY: bytes without padding; every pattern is valid.
unsafe impl Pod for AddressKey {}
// SAFETY: two integers without padding; every pattern is valid.
unsafe impl Pod for EndpointKey {}
