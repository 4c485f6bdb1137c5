//! Between the preload layer in a process and the session's proxy: requests on a unix socket, and
//! memory that the proxy writes and the layer reads.
//!
//! Nothing is remembered by descriptor: the kernel's own socket addresses are the key. The proxy
//! gives what is behind each of them a *slot*, and the slot's number stands in the address, so that
//! accept(2) and getpeername(2) need no question, and whatever duplicates, passes or inherits a
//! descriptor needs no hook.
//!
//! ```text
//!   127.64.0.0  + slot   stands for the remote end: a client of the app, or whom the app connected
//!   127.128.0.0 + slot   stands for the app's end of a connection that it made
//! ```
//!
//! This module needs neither a standard library nor an allocator.

pub mod golang;
mod message;
pub mod page;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use message::{
    Cause, DecodeError, MAX_NAME, MAX_PAYLOAD, Name, REPLY_LEN, REQUEST_LEN, Reply, Request, Status,
};

/// The variable that says where the proxy is: the name of an abstract unix socket (unix(7)), and,
/// where others can reach it, a colon and the key in hexadecimal digits.
pub const LAYER_VARIABLE: &str = "MIRRORD_LAYER";
/// The preload library's file name.
pub const LAYER_FILE: &str = "libmirrord_layer.so";
/// Bytes that a [`unix_stand_in`] has behind the name of the proxy's socket.
pub const UNIX_SUFFIX: usize = 9;
/// Bytes of the key that every request shows; zeros where the socket's namespace is the fence.
pub const KEY_LEN: usize = 16;
/// Slots of a session.
pub const SLOTS: u32 = 1 << 18;

const REMOTE_BASE: u32 = 0x7f40_0000;
const LOCAL_BASE: u32 = 0x7f80_0000;

/// One connection, or one remote address of datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

impl Slot {
    /// The address that stands for the remote end.
    pub const fn remote(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(REMOTE_BASE + self.0 % SLOTS)
    }

    /// The address that stands for the app's end of a connection that it made.
    pub const fn local(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(LOCAL_BASE + self.0 % SLOTS)
    }

    /// The slot whose remote end an address stands for, also if it is mapped into IPv6.
    pub fn of_remote(ip: IpAddr) -> Option<Self> {
        Self::above(REMOTE_BASE, ip)
    }

    /// The slot whose local end an address stands for, also if it is mapped into IPv6.
    pub fn of_local(ip: IpAddr) -> Option<Self> {
        Self::above(LOCAL_BASE, ip)
    }

    fn above(base: u32, ip: IpAddr) -> Option<Self> {
        let IpAddr::V4(ip) = ip.to_canonical() else { return None };
        let slot = ip.to_bits().checked_sub(base)?;
        (slot < SLOTS).then_some(Self(slot))
    }
}

/// The transport protocols that are hooked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Transport {
    /// SOCK_STREAM.
    Tcp = 0,
    /// SOCK_DGRAM.
    Udp = 1,
}

/// What stands behind the name of the proxy's own socket in that of the socket through which a
/// process gets to a unix socket of the target: a point and the number in hexadecimal digits.
pub fn unix_stand_in(number: u32) -> [u8; UNIX_SUFFIX] {
    let mut suffix = [b'.'; UNIX_SUFFIX];
    for (at, byte) in suffix.iter_mut().skip(1).enumerate() {
        let digit = number.rotate_left(4 * (at as u32 + 1)) & 15;
        *byte = char::from_digit(digit, 16).map_or(b'0', |digit| digit as u8);
    }
    suffix
}

/// The number in a [`unix_stand_in`].
pub fn unix_number(suffix: &[u8]) -> Option<u32> {
    let digits: &[u8; UNIX_SUFFIX - 1] = suffix.strip_prefix(b".")?.try_into().ok()?;
    digits
        .iter()
        .try_fold(0u32, |number, digit| Some(number << 4 | char::from(*digit).to_digit(16)?))
}

/// Bytes of an encoded address.
pub const ADDRESS_LEN: usize = 20;

/// An address as bytes: IPv6 or mapped into it, the port, and whether there is one at all (4 or 6).
pub fn encode_address(address: Option<SocketAddr>) -> [u8; ADDRESS_LEN] {
    let mut bytes = [0; ADDRESS_LEN];
    let Some(address) = address else { return bytes };
    let (ip, family) = match address.ip() {
        IpAddr::V4(ip) => (ip.to_ipv6_mapped(), 4u16),
        IpAddr::V6(ip) => (ip, 6),
    };
    let fields = ip.octets().into_iter().chain(address.port().to_le_bytes());
    for (byte, value) in bytes.iter_mut().zip(fields.chain(family.to_le_bytes())) {
        *byte = value;
    }
    bytes
}

/// What [`encode_address`] made; `None` for no address, and for what it never makes.
pub fn decode_address(bytes: &[u8; ADDRESS_LEN]) -> Option<SocketAddr> {
    let (ip, rest) = bytes.split_first_chunk::<16>()?;
    let &[port_low, port_high, family_low, family_high] = rest else { return None };
    let ip = Ipv6Addr::from(*ip);
    let ip = match u16::from_le_bytes([family_low, family_high]) {
        4 => IpAddr::V4(ip.to_ipv4_mapped()?),
        6 => IpAddr::V6(ip),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_le_bytes([port_low, port_high])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_read_from_its_addresses() {
        let slot = Slot(SLOTS - 1);
        assert_eq!(slot.remote().to_string(), "127.67.255.255");
        assert_eq!(slot.local().to_string(), "127.131.255.255");
        assert_eq!(Slot::of_remote(slot.remote().into()), Some(slot));
        assert_eq!(Slot::of_remote(slot.remote().to_ipv6_mapped().into()), Some(slot));
        assert_eq!(Slot::of_local(slot.local().into()), Some(slot));
        for other in ["127.0.0.1", "127.68.0.0", "127.63.255.255", "10.0.0.1", "::1"] {
            assert_eq!(Slot::of_remote(other.parse().expect("an address")), None, "{other}");
        }
    }

    #[test]
    fn a_number_is_read_from_its_stand_in() {
        assert_eq!(&unix_stand_in(0x0123_abcd), b".0123abcd");
        for number in [0, 1, 0x0123_abcd, u32::MAX] {
            assert_eq!(unix_number(&unix_stand_in(number)), Some(number));
        }
        assert_eq!(unix_number(b".0123abc"), None);
        assert_eq!(unix_number(b".0123abcg"), None);
    }

    #[test]
    fn addresses_survive_being_encoded() {
        for text in ["0.0.0.0:0", "10.1.2.3:65535", "[::]:80", "[2001:db8::1]:443"] {
            let address = text.parse().expect("an address");
            assert_eq!(decode_address(&encode_address(Some(address))), Some(address));
        }
        assert_eq!(decode_address(&encode_address(None)), None);
        let mut odd = encode_address("[2001:db8::1]:443".parse().ok());
        odd[18] = 4;
        assert_eq!(decode_address(&odd), None, "not an IPv4 address");
    }
}
