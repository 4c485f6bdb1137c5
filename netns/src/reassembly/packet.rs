//! What one captured IP packet says.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    ops::Range,
};

use bytes::Bytes;

use super::{FlowKey, checksum::Sum};

const TCP: u8 = 6;
const UDP: u8 = 17;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// Extension headers of one IPv6 packet that are looked at.
const MAX_EXTENSIONS: usize = 8;

/// The bytes of a packet from its IP header on.
#[derive(Debug)]
pub enum Frame<'a> {
    /// Memory that events may keep a part of; meant for large packets.
    Shared(Bytes),
    /// Memory that is used again for the next packet, so that events copy from it.
    Borrowed(&'a [u8]),
}

impl Frame<'_> {
    /// The whole packet.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Borrowed(bytes) => bytes,
        }
    }

    /// A part of it, to be handed out soon.
    pub(super) fn share(&self, range: Range<usize>) -> Bytes {
        match self {
            Self::Shared(bytes) if range.end <= bytes.len() && range.start <= range.end => {
                bytes.slice(range)
            }
            _ => self.copy(range),
        }
    }

    /// A part of it that may be kept for long without keeping the rest.
    pub(super) fn copy(&self, range: Range<usize>) -> Bytes {
        Bytes::copy_from_slice(self.as_slice().get(range).unwrap_or_default())
    }
}

/// Who answers for the checksum of TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// The kernel or the network card has verified it, or the packet never was on a wire.
    Trusted,
    /// Nobody yet: it is to be verified here.
    Unverified,
}

/// What the kernel says about a packet beside its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Meta {
    /// Who answers for the checksum.
    pub checksum: Checksum,
    /// The size of the datagrams that the kernel carries as one packet (UDP GSO).
    pub segment: Option<NonZeroU16>,
    /// The packet was longer than the memory that it was read into.
    pub truncated: bool,
}

/// A packet that could be read.
#[derive(Debug)]
pub(super) enum Parsed {
    Tcp(Segment),
    Udp(Payload),
    Fragment(Fragment),
}

/// A TCP segment.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) key: FlowKey,
    pub(super) seq: u32,
    pub(super) flags: Flags,
    /// Where in the frame its bytes are.
    pub(super) payload: Range<usize>,
}

/// The flags of TCP that matter to a reader.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flags(u8);

impl Flags {
    pub(super) fn fin(self) -> bool {
        self.0 & 0x01 != 0
    }

    pub(super) fn syn(self) -> bool {
        self.0 & 0x02 != 0
    }

    pub(super) fn rst(self) -> bool {
        self.0 & 0x04 != 0
    }

    pub(super) fn ack(self) -> bool {
        self.0 & 0x10 != 0
    }
}

/// A UDP datagram.
#[derive(Debug)]
pub(super) struct Payload {
    pub(super) key: FlowKey,
    pub(super) range: Range<usize>,
}

/// A part of an IP packet.
#[derive(Debug)]
pub(super) struct Fragment {
    pub(super) whole: Whole,
    pub(super) offset: usize,
    pub(super) more: bool,
    pub(super) range: Range<usize>,
}

/// What the fragments of one packet have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Whole {
    pub(super) between: Hosts,
    pub(super) proto: u8,
    pub(super) id: u32,
}

/// The two addresses of an IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Hosts {
    pub(super) client: IpAddr,
    pub(super) server: IpAddr,
}

/// Why a packet could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    Malformed,
    Unsupported,
    Truncated,
}

/// Reads a packet from its IP header on.
pub(super) fn parse(frame: &[u8], meta: Meta) -> Result<Parsed, Unreadable> {
    match frame.first().map(|byte| byte >> 4) {
        Some(4) => parse_v4(frame, meta),
        Some(6) => parse_v6(frame, meta),
        _ => Err(Unreadable::Malformed),
    }
}

/// Between whom a SYN opens a connection, its sequence number, and the whole of it with TCP's
/// checksum, which the kernel leaves out where there is no wire.
pub(crate) fn syn(frame: &[u8]) -> Option<(FlowKey, u32, Vec<u8>)> {
    let meta = Meta { checksum: Checksum::Trusted, segment: None, truncated: false };
    let Ok(Parsed::Tcp(Segment { key, seq, flags, payload })) = parse(frame, meta) else {
        return None;
    };
    if !flags.syn() || flags.ack() {
        return None;
    }
    let start = if key.client.is_ipv4() { usize::from(frame.first()? & 0x0f) * 4 } else { 40 };
    let mut packet = frame.get(..payload.end)?.to_vec();
    let tcp = packet.get_mut(start..)?;
    tcp.get_mut(16..18)?.fill(0);
    let sum = Sum::default().pseudo_header(key.client.ip(), key.server.ip(), TCP, tcp.len());
    let sum = !sum.add(tcp).folded();
    tcp.get_mut(16..18)?.copy_from_slice(&sum.to_be_bytes());
    Some((key, seq, packet))
}

/// Reads what an IP packet carries; `range` says where in `frame` it is.
pub(super) fn parse_transport(
    frame: &[u8],
    range: Range<usize>,
    hosts: Hosts,
    proto: u8,
    checksum: Checksum,
) -> Result<Parsed, Unreadable> {
    match proto {
        TCP => parse_tcp(frame, range, hosts, checksum).map(Parsed::Tcp),
        UDP => parse_udp(frame, range, hosts, checksum).map(Parsed::Udp),
        _ => Err(Unreadable::Unsupported),
    }
}

fn parse_v4(frame: &[u8], meta: Meta) -> Result<Parsed, Unreadable> {
    let header = frame.first_chunk::<20>().ok_or(Unreadable::Malformed)?;
    let start = usize::from(header[0] & 0x0f) * 4;
    let options = frame.get(20..start).ok_or(Unreadable::Malformed)?;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let end = end_of(frame, total, start, meta)?;
    if total != 0 && !Sum::default().add(header).add(options).is_right() {
        return Err(Unreadable::Malformed);
    }
    let hosts = Hosts {
        client: Ipv4Addr::from([header[12], header[13], header[14], header[15]]).into(),
        server: Ipv4Addr::from([header[16], header[17], header[18], header[19]]).into(),
    };
    let place = u16::from_be_bytes([header[6], header[7]]);
    if place & 0x3fff == 0 {
        return parse_transport(frame, start..end, hosts, header[9], meta.checksum);
    }
    Ok(Parsed::Fragment(Fragment {
        whole: Whole {
            between: hosts,
            proto: header[9],
            id: u16::from_be_bytes([header[4], header[5]]).into(),
        },
        offset: usize::from(place & 0x1fff) * 8,
        more: place & 0x2000 != 0,
        range: start..end,
    }))
}

fn parse_v6(frame: &[u8], meta: Meta) -> Result<Parsed, Unreadable> {
    let header = frame.first_chunk::<40>().ok_or(Unreadable::Malformed)?;
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let total = if len == 0 { 0 } else { 40 + len };
    let end = end_of(frame, total, 40, meta)?;
    let hosts = Hosts {
        client: Ipv6Addr::from(octets(frame, 8)?).into(),
        server: Ipv6Addr::from(octets(frame, 24)?).into(),
    };
    let (mut next, mut at) = (header[6], 40);
    for _ in 0..MAX_EXTENSIONS {
        let extension = frame.get(at..end).and_then(<[u8]>::first_chunk::<8>);
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                let extension = extension.ok_or(Unreadable::Malformed)?;
                at += 8 + usize::from(extension[1]) * 8;
                next = extension[0];
            }
            FRAGMENT => {
                let extension = extension.ok_or(Unreadable::Malformed)?;
                return Ok(fragment_v6(extension, hosts, at + 8..end));
            }
            proto if at <= end => {
                return parse_transport(frame, at..end, hosts, proto, meta.checksum);
            }
            _ => return Err(Unreadable::Malformed),
        }
    }
    Err(Unreadable::Unsupported)
}

fn fragment_v6(header: &[u8; 8], hosts: Hosts, range: Range<usize>) -> Parsed {
    let place = u16::from_be_bytes([header[2], header[3]]);
    Parsed::Fragment(Fragment {
        whole: Whole {
            between: hosts,
            proto: header[0],
            id: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        },
        offset: usize::from(place & 0xfff8),
        more: place & 1 != 0,
        range,
    })
}

/// Where the packet ends, without what the link may have padded it with. A length of zero is that
/// of a packet beyond 64 KiB, which only the kernel itself makes.
fn end_of(frame: &[u8], total: usize, header: usize, meta: Meta) -> Result<usize, Unreadable> {
    if meta.truncated {
        return Err(Unreadable::Truncated);
    }
    let end = if total == 0 { frame.len() } else { total };
    if end < header || end > frame.len() {
        return Err(Unreadable::Malformed);
    }
    Ok(end)
}

fn octets(frame: &[u8], at: usize) -> Result<[u8; 16], Unreadable> {
    let bytes = frame.get(at..).and_then(<[u8]>::first_chunk::<16>);
    bytes.copied().ok_or(Unreadable::Malformed)
}

fn parse_tcp(
    frame: &[u8],
    range: Range<usize>,
    hosts: Hosts,
    checksum: Checksum,
) -> Result<Segment, Unreadable> {
    let segment = frame.get(range.clone()).ok_or(Unreadable::Malformed)?;
    let header = segment.first_chunk::<20>().ok_or(Unreadable::Malformed)?;
    let len = usize::from(header[12] >> 4) * 4;
    if len < 20 || len > segment.len() {
        return Err(Unreadable::Malformed);
    }
    verify(segment, hosts, TCP, checksum)?;
    Ok(Segment {
        key: key(hosts, header),
        seq: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        flags: Flags(header[13]),
        payload: range.start + len..range.end,
    })
}

fn parse_udp(
    frame: &[u8],
    range: Range<usize>,
    hosts: Hosts,
    checksum: Checksum,
) -> Result<Payload, Unreadable> {
    let datagram = frame.get(range.clone()).ok_or(Unreadable::Malformed)?;
    let header = datagram.first_chunk::<8>().ok_or(Unreadable::Malformed)?;
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let datagram = datagram.get(..len).ok_or(Unreadable::Malformed)?;
    if len < 8 {
        return Err(Unreadable::Malformed);
    }
    if header[6..] != [0, 0] {
        verify(datagram, hosts, UDP, checksum)?;
    }
    Ok(Payload { key: key(hosts, header), range: range.start + 8..range.start + len })
}

fn verify(bytes: &[u8], hosts: Hosts, proto: u8, checksum: Checksum) -> Result<(), Unreadable> {
    let right = checksum == Checksum::Trusted
        || Sum::default()
            .pseudo_header(hosts.client, hosts.server, proto, bytes.len())
            .add(bytes)
            .is_right();
    right.then_some(()).ok_or(Unreadable::Malformed)
}

/// The first four bytes of TCP and UDP are the same: the two ports.
fn key<const N: usize>(hosts: Hosts, header: &[u8; N]) -> FlowKey {
    let port = |at: usize| match header.get(at..at + 2) {
        Some(&[high, low]) => u16::from_be_bytes([high, low]),
        _ => 0,
    };
    FlowKey {
        client: SocketAddr::new(hosts.client, port(0)),
        server: SocketAddr::new(hosts.server, port(2)),
    }
}
