//! UDP datagrams as whole IP packets.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use super::ip::{self, Part, V4_HEADER};

/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;

/// The protocol number of UDP.
const UDP: u8 = libc::IPPROTO_UDP as u8;

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

    /// The packet in fragments that each carry `room` bytes, a multiple of eight.
    pub(super) fn fragments(&self, room: usize, id: u32) -> impl Iterator<Item = Vec<u8>> {
        let body = [&self.udp, self.payload].concat();
        let total = body.len();
        (0..total).step_by(room).map(move |offset| {
            let end = total.min(offset + room);
            let part = Part { offset, more: end < total, id };
            let mut fragment = ip::fragment(self.source, self.destination, UDP, end - offset, part);
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
    use super::super::ip::{V6_FRAGMENT, V6_HEADER};
    use super::*;

    fn packet(payload: &[u8]) -> Packet<'_> {
        between("10.0.0.1:53", "10.0.0.2:4000", payload)
    }

    fn between<'a>(from: &str, to: &str, payload: &'a [u8]) -> Packet<'a> {
        let (from, to) = (from.parse(), to.parse());
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
        assert_eq!(
            offsets,
            [0x2000, 6 | 0x2000, 12],
            "in words of eight bytes, and whether others follow"
        );
        let joined: Vec<u8> = fragments.iter().flat_map(|f| &f[V4_HEADER..]).copied().collect();
        assert_eq!(joined[UDP_HEADER..], payload);
    }

    #[test]
    fn fragments_of_ipv6_have_a_header_of_their_own() {
        let payload = [7; 100];
        let packet = between("[2001:db8::1]:53", "[2001:db8::2]:4000", &payload);
        let fragments: Vec<_> = packet.fragments(48, 9).collect();
        let headers: Vec<_> = fragments.iter().map(|f| &f[V6_HEADER..][..V6_FRAGMENT]).collect();
        for (header, place) in headers.iter().zip([1, 48 | 1, 96]) {
            assert_eq!(*header, [UDP, 0, 0, place, 0, 0, 0, 9]);
        }
        let carried = fragments.iter().flat_map(|f| &f[V6_HEADER + V6_FRAGMENT..]);
        let joined: Vec<u8> = carried.copied().collect();
        assert_eq!(joined[UDP_HEADER..], payload);
        assert!(fragments.iter().all(|f| usize::from(f[5]) == f.len() - V6_HEADER && f[6] == 44));
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
