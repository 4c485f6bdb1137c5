//! UDP datagrams as whole IP packets.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use super::ip::{self, V4_HEADER};

/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;

/// The protocol number of UDP.
const UDP: u8 = libc::IPPROTO_UDP as u8;

/// The flag of a fragment that others follow.
const MORE_FRAGMENTS: u16 = 0x2000;

/// One datagram between two addresses of one family.
pub(super) struct Packet<'a> {
    source: IpAddr,
    destination: IpAddr,
    udp: [u8; UDP_HEADER],
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// A datagram; nothing when the families differ, EMSGSIZE when it is longer than IP can carry.
    pub(super) fn new(
        from: SocketAddr,
        to: SocketAddr,
        payload: &'a [u8],
    ) -> Option<io::Result<Self>> {
        if from.is_ipv4() != to.is_ipv4() {
            return None;
        }
        let ip_header = if from.is_ipv4() { V4_HEADER } else { 0 };
        let length = UDP_HEADER + payload.len();
        if length + ip_header > usize::from(u16::MAX) {
            return Some(Err(io::Error::from_raw_os_error(libc::EMSGSIZE)));
        }
        let mut udp = [0; UDP_HEADER];
        udp[..2].copy_from_slice(&from.port().to_be_bytes());
        udp[2..4].copy_from_slice(&to.port().to_be_bytes());
        udp[4..6].copy_from_slice(&(length as u16).to_be_bytes());
        let mut packet = Self { source: from.ip(), destination: to.ip(), udp, payload };
        let checksum = packet.checksum();
        packet.udp[6..].copy_from_slice(&checksum.to_be_bytes());
        Some(Ok(packet))
    }

    /// The IP and UDP headers of the whole packet.
    pub(super) fn header(&self) -> Vec<u8> {
        let mut header = self.ip_header(self.length());
        header.extend_from_slice(&self.udp);
        header
    }

    /// The application's bytes.
    pub(super) fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The packet in IPv4 fragments that each carry `room` bytes, a multiple of eight.
    pub(super) fn fragments(&self, room: usize, id: u16) -> impl Iterator<Item = Vec<u8>> {
        let body = [&self.udp, self.payload].concat();
        let total = body.len();
        (0..total).step_by(room).map(move |offset| {
            let end = total.min(offset + room);
            let more = if end < total { MORE_FRAGMENTS } else { 0 };
            let mut fragment = self.ip_header(end - offset);
            fragment[4..6].copy_from_slice(&id.to_be_bytes());
            fragment[6..8].copy_from_slice(&((offset / 8) as u16 | more).to_be_bytes());
            fragment.extend_from_slice(&body[offset..end]);
            fragment
        })
    }

    /// Bytes of UDP header and payload.
    fn length(&self) -> usize {
        UDP_HEADER + self.payload.len()
    }

    fn ip_header(&self, length: usize) -> Vec<u8> {
        ip::header(self.source, self.destination, UDP, length)
    }

    /// The checksum over pseudo header, UDP header and payload; never 0, which means "none".
    fn checksum(&self) -> u16 {
        match ip::checksum(self.source, self.destination, UDP, &[&self.udp, self.payload]) {
            0 => u16::MAX,
            checksum => checksum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(payload: &[u8]) -> Packet<'_> {
        let (from, to) = ("10.0.0.1:53".parse(), "10.0.0.2:4000".parse());
        let packet = Packet::new(from.expect("an address"), to.expect("an address"), payload);
        packet.expect("one family").expect("short enough")
    }

    #[test]
    fn the_checksum_makes_the_sum_all_ones() {
        for payload in [&b"even"[..], b"odd", b""] {
            let packet = packet(payload);
            let parts = [&packet.udp[..], payload];
            let sum = ip::checksum(packet.source, packet.destination, UDP, &parts);
            assert_eq!(sum, 0, "{payload:?}");
        }
    }

    #[test]
    fn fragments_join_to_the_whole() {
        let payload = [7; 100];
        let fragments: Vec<_> = packet(&payload).fragments(48, 9).collect();
        let offsets: Vec<u16> =
            fragments.iter().map(|f| u16::from_be_bytes([f[6], f[7]])).collect();
        assert_eq!(offsets, [MORE_FRAGMENTS, 6 | MORE_FRAGMENTS, 12]);
        let joined: Vec<u8> = fragments.iter().flat_map(|f| &f[V4_HEADER..]).copied().collect();
        assert_eq!(joined[UDP_HEADER..], payload);
    }

    #[test]
    fn two_families_or_too_much_are_refused() {
        let v4 = SocketAddr::from(([10, 0, 0, 1], 1));
        let v6 = SocketAddr::from(([0; 8], 1));
        assert!(Packet::new(v4, v6, b"").is_none());
        assert!(matches!(Packet::new(v4, v4, &[0; 65_508]), Some(Err(_))));
        assert!(matches!(Packet::new(v4, v4, &[0; 65_507]), Some(Ok(_))));
    }
}
