//! Packets as they are on the wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::checksum::Sum;

pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub(super) const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
pub(super) const SERVER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

/// A TCP segment from port 40000 to port 80.
#[derive(Debug, Clone)]
pub(super) struct Tcp {
    pub(super) seq: u32,
    pub(super) flags: u8,
    pub(super) data: Vec<u8>,
    pub(super) client_port: u16,
}

impl Tcp {
    pub(super) fn at(seq: u32) -> Self {
        Self { seq, flags: 0, data: Vec::new(), client_port: 40_000 }
    }

    pub(super) fn plus(&self, by: u32) -> Self {
        Self { seq: self.seq.wrapping_add(by), ..self.clone() }
    }

    pub(super) fn port(self, client_port: u16) -> Self {
        Self { client_port, ..self }
    }

    pub(super) fn syn(&self) -> Self {
        self.with(0x02)
    }

    pub(super) fn ack(&self) -> Self {
        self.with(0x10)
    }

    pub(super) fn fin(&self) -> Self {
        self.with(0x11)
    }

    pub(super) fn rst(&self) -> Self {
        self.with(0x04)
    }

    pub(super) fn carrying(&self, data: &[u8]) -> Self {
        Self { data: data.to_vec(), ..self.clone() }
    }

    pub(super) fn data(&self, data: &[u8]) -> Self {
        self.with(0x18).carrying(data)
    }

    fn with(&self, flag: u8) -> Self {
        Self { flags: self.flags | flag, ..self.clone() }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; 20];
        bytes[0..2].copy_from_slice(&self.client_port.to_be_bytes());
        bytes[2..4].copy_from_slice(&80_u16.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.seq.to_be_bytes());
        bytes[12] = 5 << 4;
        bytes[13] = self.flags;
        bytes.extend_from_slice(&self.data);
        bytes
    }
}

pub(super) fn packet(tcp: &Tcp) -> Vec<u8> {
    ipv4(6, &tcp.bytes())
}

/// A UDP datagram from port 5000 to port 53, with its checksum.
pub(super) fn udp(payload: &[u8]) -> Vec<u8> {
    udp_between(CLIENT.into(), SERVER.into(), payload)
}

pub(super) fn udp_between(client: IpAddr, server: IpAddr, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    bytes[0..2].copy_from_slice(&5000_u16.to_be_bytes());
    bytes[2..4].copy_from_slice(&53_u16.to_be_bytes());
    bytes[4..6].copy_from_slice(&(8 + payload.len() as u16).to_be_bytes());
    bytes.extend_from_slice(payload);
    let sum = Sum::default().pseudo_header(client, server, 17, bytes.len()).add(&bytes);
    let checksum = sum.complement();
    bytes[6..8].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

pub(super) fn ipv4(proto: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_part(proto, payload, 0, false, &[])
}

/// A part of a packet, or with `at` 0 and no `more` the whole of it.
pub(super) fn ipv4_part(proto: u8, payload: &[u8], at: u16, more: bool, options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    bytes.extend_from_slice(options);
    bytes[0] = 0x40 | (bytes.len() / 4) as u8;
    let total = (bytes.len() + payload.len()) as u16;
    bytes[2..4].copy_from_slice(&total.to_be_bytes());
    bytes[4..6].copy_from_slice(&7_u16.to_be_bytes());
    bytes[6..8].copy_from_slice(&((at / 8) | (u16::from(more) << 13)).to_be_bytes());
    bytes[8] = 64;
    bytes[9] = proto;
    bytes[12..16].copy_from_slice(&CLIENT.octets());
    bytes[16..20].copy_from_slice(&SERVER.octets());
    let checksum = Sum::default().add(&bytes).complement();
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// An IPv6 packet; `next` is what the header says comes next.
pub(super) fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 40];
    bytes[0] = 0x60;
    bytes[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    bytes[6] = next;
    bytes[7] = 64;
    bytes[8..24].copy_from_slice(&CLIENT6.octets());
    bytes[24..40].copy_from_slice(&SERVER6.octets());
    bytes.extend_from_slice(payload);
    bytes
}

impl Sum {
    /// The value that makes the sum right; never the zero that stands for "none" in UDP.
    fn complement(self) -> u16 {
        match !self.folded() {
            0 => 0xffff,
            checksum => checksum,
        }
    }
}
