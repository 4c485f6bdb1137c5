//! What a host says of a packet that came to nobody: ICMP, RFC 792 and RFC 4443.

use std::net::IpAddr;

use super::ip::{self, V6_HEADER};

/// The protocol numbers of ICMP.
const ICMP: u8 = libc::IPPROTO_ICMP as u8;
const ICMP6: u8 = libc::IPPROTO_ICMPV6 as u8;
const UNREACHABLE: u8 = 3;
const UNREACHABLE6: u8 = 1;
/// What of a transport's header must be quoted: ports, and TCP's sequence number.
const QUOTED: usize = 8;

/// The whole packet that says to `app` why what it has sent, `packet`, arrives nowhere; none where
/// that is no such reason. It comes from the app's own address: no rule lets ICMP in from elsewhere,
/// and what counts is the packet in it.
pub(super) fn unreachable(app: IpAddr, packet: &[u8], errno: i32) -> Option<Vec<u8>> {
    let (kind, protocol, code, header) = match app {
        IpAddr::V4(_) => (UNREACHABLE, ICMP, code(errno)?, usize::from(packet.first()? & 15) * 4),
        IpAddr::V6(_) => (UNREACHABLE6, ICMP6, code6(errno)?, V6_HEADER),
    };
    let quoted = packet.get(..header + QUOTED)?;
    let mut icmp = [&[kind, code, 0, 0, 0, 0, 0, 0], quoted].concat();
    let sum = match app {
        IpAddr::V4(_) => !ip::folded(ip::sum_words(&icmp)),
        IpAddr::V6(_) => ip::checksum(app, app, protocol, &[&icmp]),
    };
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut whole = ip::header(app, app, protocol, icmp.len());
    whole.extend(icmp);
    Some(whole)
}

/// The reverse of icmp_err_convert in the kernel's icmp.c.
fn code(errno: i32) -> Option<u8> {
    Some(match errno {
        libc::ENETUNREACH => 0,
        libc::EHOSTUNREACH => 1,
        libc::ECONNREFUSED => 3,
        _ => return None,
    })
}

/// The reverse of tab_unreach in the kernel's icmp.c of IPv6.
fn code6(errno: i32) -> Option<u8> {
    Some(match errno {
        libc::ENETUNREACH => 0,
        libc::EACCES => 1,
        libc::EHOSTUNREACH => 3,
        libc::ECONNREFUSED => 4,
        _ => return None,
    })
}
