//! What a host says of a connection to a port where nobody listens: RST, RFC 9293 section 3.10.7.1.

use std::net::SocketAddr;

use super::ip;

const TCP: u8 = libc::IPPROTO_TCP as u8;
const HEADER: usize = 20;
/// Its length in words of 32 bits, as the upper half of a byte.
const OFFSET: u8 = 0x50;
const RST_ACK: u8 = 0x14;

/// The whole packet that refuses, as `from`, the SYN of `to` with that sequence number.
pub(super) fn reset(from: SocketAddr, to: SocketAddr, sequence: u32) -> Vec<u8> {
    let mut tcp = [0; HEADER];
    tcp[..2].copy_from_slice(&from.port().to_be_bytes());
    tcp[2..4].copy_from_slice(&to.port().to_be_bytes());
    tcp[8..12].copy_from_slice(&sequence.wrapping_add(1).to_be_bytes());
    tcp[12..14].copy_from_slice(&[OFFSET, RST_ACK]);
    let sum = ip::checksum(from.ip(), to.ip(), TCP, &[&tcp]);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut packet = ip::header(from.ip(), to.ip(), TCP, HEADER);
    packet.extend(tcp);
    packet
}
