//! The way back, from an address to its name: getnameinfo(3), gethostbyaddr(3).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mirrord_protocol::layer::{MAX_NAME, MAX_PAYLOAD};

use super::HostError;
use super::host::{Buffer, Hosted, write};
use super::hostent::{Family, Host};
use super::memory::Pages;
use super::message::{self, PTR};
use super::query::{Asked, Wish, query};
use crate::page::{self, Presence};
use crate::sys::Errno;

/// The longest name that stands for an address (RFC 3596, section 2.5).
const LONGEST: usize = 72;
/// CLASS of the Internet.
const IN: i32 = 1;

/// An address's fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reversed<'a> {
    /// It is the C library's.
    Direct,
    /// It has a name.
    Found(&'a [u8]),
    /// It has none.
    Missing(HostError),
    /// The proxy could not be asked.
    Failed(Errno),
}

/// Whether an address may be one of the target's network.
fn is_remote(ip: IpAddr) -> bool {
    if matches!(page::presence(), Presence::Absent) || ip.is_multicast() {
        return false;
    }
    match ip.to_canonical() {
        IpAddr::V4(ip) => !(ip.is_loopback() || ip.is_unspecified() || ip.is_link_local()),
        IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local()),
    }
}

/// Asks for an address's name.
pub fn reverse(ip: IpAddr, name: &mut [u8; MAX_NAME]) -> Reversed<'_> {
    if !is_remote(ip) {
        return Reversed::Direct;
    }
    let mut pages = match Pages::new(MAX_PAYLOAD) {
        Ok(pages) => pages,
        Err(errno) => return Reversed::Failed(errno),
    };
    let room = pages.bytes();
    let mut text = [0; LONGEST];
    let kind = PTR.into();
    let wish = Wish { name: stand_in(ip, &mut text), domain: b"", class: IN, kind, search: false };
    match query(wish, room) {
        Asked::Direct => Reversed::Direct,
        Asked::Missing(error) => Reversed::Missing(error),
        Asked::Failed(errno) => Reversed::Failed(errno),
        Asked::Answer(len) => {
            let answer = room.get(..len).unwrap_or_default();
            message::pointer(answer, name)
                .map_or(Reversed::Missing(HostError::NoData), Reversed::Found)
        }
    }
}

/// The name that stands for an address.
fn stand_in(ip: IpAddr, text: &mut [u8; LONGEST]) -> &[u8] {
    match ip.to_canonical() {
        IpAddr::V4(ip) => of_v4(ip, text),
        IpAddr::V6(ip) => of_v6(ip, text),
    }
}

fn of_v4(ip: Ipv4Addr, text: &mut [u8; LONGEST]) -> &[u8] {
    let digits = |byte: u8| {
        let all = [byte / 100, byte / 10 % 10, byte % 10].map(|digit| b'0' | digit);
        let zeros = usize::from(byte < 100).wrapping_add(usize::from(byte < 10));
        all.into_iter().skip(zeros).chain([b'.'])
    };
    put(ip.octets().into_iter().rev().flat_map(digits).chain(*b"in-addr.arpa"), text)
}

fn of_v6(ip: Ipv6Addr, text: &mut [u8; LONGEST]) -> &[u8] {
    let digit =
        |nibble: u8| if nibble < 10 { b'0' | nibble } else { nibble.wrapping_add(b'a' - 10) };
    let nibbles = |byte: u8| [digit(byte & 15), b'.', digit(byte >> 4), b'.'];
    put(ip.octets().into_iter().rev().flat_map(nibbles).chain(*b"ip6.arpa"), text)
}

fn put(bytes: impl Iterator<Item = u8>, text: &mut [u8; LONGEST]) -> &[u8] {
    let mut len = 0usize;
    for (to, from) in text.iter_mut().zip(bytes) {
        *to = from;
        len = len.wrapping_add(1);
    }
    text.get(..len).unwrap_or_default()
}

/// Looks the host of an address up.
///
/// # Safety
/// The buffer is the caller's to write.
pub unsafe fn host_of(ip: IpAddr, buffer: Buffer) -> Hosted {
    let mut room = [0; MAX_NAME];
    let name = match reverse(ip, &mut room) {
        Reversed::Direct => return Hosted::Direct,
        Reversed::Found(name) => name,
        Reversed::Missing(error) => return Hosted::Missing(error),
        Reversed::Failed(errno) => return Hosted::Failed(errno),
    };
    let family = if ip.is_ipv4() { Family::V4 } else { Family::V6 };
    let host = Host { name, asked: name, family, addresses: core::iter::once(ip) };
    // SAFETY: the caller's.
    unsafe { write(host, buffer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(ip: &str) -> String {
        let mut room = [0; LONGEST];
        let name = stand_in(ip.parse().expect("an address"), &mut room);
        String::from_utf8(name.to_vec()).expect("text")
    }

    #[test]
    fn an_address_is_a_name_read_backwards() {
        assert_eq!(text("10.0.20.213"), "213.20.0.10.in-addr.arpa");
        assert_eq!(text("255.255.255.255"), "255.255.255.255.in-addr.arpa");
        assert_eq!(text("::ffff:10.0.0.1"), "1.0.0.10.in-addr.arpa");
        assert_eq!(
            text("2001:db8::567:89ab"),
            "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
        );
    }

    #[test]
    fn without_a_layer_the_c_library_knows() {
        let ip = "10.0.0.1".parse().expect("an address");
        assert_eq!(reverse(ip, &mut [0; MAX_NAME]), Reversed::Direct);
    }
}
