//! What a host says of a datagram that came to nobody: ICMP, RFC 792.

use std::net::SocketAddr;

use super::datagram::{Packet, V4_HEADER, sum_words};

/// The protocol number of ICMP.
const ICMP: u8 = libc::IPPROTO_ICMP as u8;
const DESTINATION_UNREACHABLE: u8 = 3;
const HEADER: usize = 8;

/// The whole packet that says to `app` why its datagrams to `peer` arrive nowhere; none where it is
/// not IPv4, or that is no such reason (icmp_err_convert of the kernel's icmp.c). It comes from the
/// app's own address: no rule lets ICMP in from elsewhere, and what counts is the datagram in it.
pub(super) fn unreachable(peer: SocketAddr, app: SocketAddr, errno: i32) -> Option<Vec<u8>> {
    let code = match errno {
        libc::ENETUNREACH => 0,
        libc::EHOSTUNREACH => 1,
        libc::ECONNREFUSED => 3,
        _ => return None,
    };
    if !app.is_ipv4() {
        return None;
    }
    let datagram = Packet::new(app, peer, b"")?.ok()?.header();
    let mut packet = Packet::new(app, app, b"")?.ok()?.header();
    packet.truncate(V4_HEADER);
    let length = u16::try_from(V4_HEADER + HEADER + datagram.len()).ok()?;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[9] = ICMP;
    let mut icmp = vec![DESTINATION_UNREACHABLE, code, 0, 0, 0, 0, 0, 0];
    icmp.extend(datagram);
    let sum = sum_words(&icmp);
    let folded = (sum & 0xffff) + (sum >> 16);
    icmp[2..4].copy_from_slice(&(!(folded + (folded >> 16)) as u16).to_be_bytes());
    packet.extend(icmp);
    Some(packet)
}
