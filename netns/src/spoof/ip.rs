//! IP headers of whole packets, and the sums that they and what they carry need.

use std::net::{IpAddr, SocketAddr};

use socket2::SockAddr;

/// Bytes of an IPv4 header without options.
pub(super) const V4_HEADER: usize = 20;

/// Bytes of an IPv6 header.
pub(super) const V6_HEADER: usize = 40;

/// Bytes of the header that a fragment has behind its IPv6 header.
pub(super) const V6_FRAGMENT: usize = 8;

/// `IPPROTO_FRAGMENT`: the protocol number of that header.
const FRAGMENT: u8 = 44;

/// The flag of an IPv4 fragment that others follow.
const MORE_FRAGMENTS: u16 = 0x2000;

/// The hop limit, or time to live.
const HOPS: u8 = 64;

/// A header before `length` bytes of a protocol, both addresses of one family. The kernel fills in
/// IPv4's checksum, and an id where there is none.
pub(super) fn header(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut header = Vec::with_capacity(V6_HEADER + length);
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.extend_from_slice(&[0x45, 0]);
            header.extend_from_slice(&((V4_HEADER + length) as u16).to_be_bytes());
            header.extend_from_slice(&[0, 0, 0, 0, HOPS, protocol, 0, 0]);
            header.extend_from_slice(&from.octets());
            header.extend_from_slice(&to.octets());
        }
        (from, to) => {
            header.extend_from_slice(&[0x60, 0, 0, 0]);
            header.extend_from_slice(&(length as u16).to_be_bytes());
            header.extend_from_slice(&[protocol, HOPS]);
            header.extend(octets(from));
            header.extend(octets(to));
        }
    }
    header
}

/// Which part of a packet a fragment is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// Where it begins: a multiple of eight.
    pub(super) offset: usize,
    /// Whether others follow.
    pub(super) more: bool,
    /// Whose it is.
    pub(super) id: u32,
}

/// The headers of a fragment before `length` bytes of a protocol, both addresses of one family.
pub(super) fn fragment(
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    length: usize,
    part: Part,
) -> Vec<u8> {
    let Part { offset, more, id } = part;
    if from.is_ipv4() {
        let mut header = header(from, to, protocol, length);
        let flags = if more { MORE_FRAGMENTS } else { 0 };
        // The kernel would put one of its own in the place of 0, another for each fragment.
        header[4..6].copy_from_slice(&(id as u16).max(1).to_be_bytes());
        header[6..8].copy_from_slice(&((offset / 8) as u16 | flags).to_be_bytes());
        return header;
    }
    let mut header = header(from, to, FRAGMENT, V6_FRAGMENT + length);
    header.extend_from_slice(&[protocol, 0]);
    header.extend_from_slice(&(offset as u16 | u16::from(more)).to_be_bytes());
    header.extend_from_slice(&id.to_be_bytes());
    header
}

/// The internet checksum over the pseudo header of these addresses and `parts`, each of which but
/// the last has an even length.
pub(super) fn checksum(from: IpAddr, to: IpAddr, protocol: u8, parts: &[&[u8]]) -> u16 {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut sum = u64::from(protocol) + length as u64;
    sum += sum_words(&octets(from)) + sum_words(&octets(to));
    sum += parts.iter().map(|part| sum_words(part)).sum::<u64>();
    !folded(sum)
}

/// A sum of words, as one word.
pub(super) fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The sum of big-endian 16-bit words; an odd last byte counts as the upper half of a word.
pub(super) fn sum_words(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(2);
    let whole: u64 =
        words.by_ref().map(|word| u64::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let odd = words.remainder().first().map_or(0, |byte| u64::from(*byte) << 8);
    whole + odd
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// A raw socket's destination has no port.
pub(super) fn host(ip: IpAddr) -> SockAddr {
    SocketAddr::new(ip, 0).into()
}
