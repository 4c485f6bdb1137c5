//! Answers to echo requests, RFC 792.

use super::ip;
use crate::calls::Echo;

const ICMP: u8 = libc::IPPROTO_ICMP as u8;
const REPLY: u8 = 0;

/// The whole packet that answers a request of this number as whom it was sent to.
pub(super) fn reply(echo: &Echo, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let (id, sequence) = (echo.id.to_be_bytes(), sequence.to_be_bytes());
    let mut icmp = [&[REPLY, 0, 0, 0], &id[..], &sequence, payload].concat();
    let sum = !ip::folded(ip::sum_words(&icmp));
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = ip::header(echo.to.into(), echo.app.into(), ICMP, icmp.len());
    packet.extend(icmp);
    packet
}
