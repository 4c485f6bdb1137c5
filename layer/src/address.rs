//! Socket addresses in the kernel's form (ip(7), ipv6(7)).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of the largest socket address of any family: sockaddr_storage.
pub const LARGEST: usize = 128;
/// Bytes of a sockaddr_in.
const LEN_V4: usize = 16;
/// Bytes of a sockaddr_in6.
const LEN_V6: usize = 28;
/// Bytes of it that the kernel insists on (SIN6_LEN_RFC2133).
const LEN_V6_SHORT: usize = 24;

/// The families that are hooked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// AF_INET.
    V4,
    /// AF_INET6.
    V6,
}

/// Bytes of a sockaddr_un.
const LEN_UNIX: usize = 110;

/// A sockaddr_in, sockaddr_in6 or sockaddr_un.
#[derive(Debug, Clone, Copy)]
pub struct SockAddr {
    bytes: [u8; LEN_UNIX + 1],
    len: usize,
}

impl SockAddr {
    /// An address for a socket of a family; `None` if that cannot express it.
    pub fn new(address: SocketAddr, family: Family) -> Option<Self> {
        let ip = address.ip().to_canonical();
        match (family, ip) {
            (Family::V4, IpAddr::V4(ip)) => Some(Self::v4(ip, address.port())),
            (Family::V4, IpAddr::V6(_)) => None,
            (Family::V6, IpAddr::V4(ip)) => Some(Self::v6(ip.to_ipv6_mapped(), address.port())),
            (Family::V6, IpAddr::V6(ip)) => Some(Self::v6(ip, address.port())),
        }
    }

    fn v4(ip: Ipv4Addr, port: u16) -> Self {
        let family = (libc::AF_INET as u16).to_ne_bytes();
        let fields = family.into_iter().chain(port.to_be_bytes()).chain(ip.octets());
        Self::of(fields, LEN_V4)
    }

    fn v6(ip: Ipv6Addr, port: u16) -> Self {
        let family = (libc::AF_INET6 as u16).to_ne_bytes();
        let flow = [0; 4];
        let fields = family.into_iter().chain(port.to_be_bytes()).chain(flow).chain(ip.octets());
        Self::of(fields, LEN_V6)
    }

    /// A unix socket's, whose name is these parts together; what is too long is cut.
    pub fn unix(parts: &[&[u8]]) -> Self {
        let family = (libc::AF_UNIX as u16).to_ne_bytes();
        let name = parts.iter().copied().flatten().copied();
        let len = parts.iter().fold(2usize, |len, part| len.wrapping_add(part.len()));
        Self::of(family.into_iter().chain(name), len.min(LEN_UNIX + 1))
    }

    fn of(fields: impl Iterator<Item = u8>, len: usize) -> Self {
        let mut bytes = [0; LEN_UNIX + 1];
        bytes.iter_mut().zip(fields).for_each(|(byte, value)| *byte = value);
        Self { bytes, len }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// The address that these bytes are, if its family is hooked; mapped ones stay as they are.
pub fn parse(bytes: &[u8]) -> Option<(Family, SocketAddr)> {
    let (family, rest) = bytes.split_first_chunk::<2>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET if bytes.len() >= LEN_V4 => {
            let ip = Ipv4Addr::from(*rest.first_chunk::<4>()?);
            Some((Family::V4, SocketAddr::new(IpAddr::V4(ip), port)))
        }
        libc::AF_INET6 if bytes.len() >= LEN_V6_SHORT => {
            let ip = Ipv6Addr::from(*rest.get(4..)?.first_chunk::<16>()?);
            Some((Family::V6, SocketAddr::new(IpAddr::V6(ip), port)))
        }
        _ => None,
    }
}

/// The address that a caller hands to a system call.
///
/// # Safety
/// A pointer that is not null has so many readable bytes.
pub unsafe fn bytes<'a>(address: usize, len: usize) -> Option<&'a [u8]> {
    // The length is an int; longer ones than the largest the kernel refuses.
    if address == 0 || len > LARGEST {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { core::slice::from_raw_parts(address as *const u8, len) })
}

/// The same, if its family is hooked.
///
/// # Safety
/// As [`bytes`].
pub unsafe fn given(address: usize, len: usize) -> Option<(Family, SocketAddr)> {
    // SAFETY: the caller's promise.
    unsafe { bytes(address, len) }.and_then(parse)
}

/// The port alone changed.
pub fn with_port(address: SocketAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.ip(), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn addresses_survive_the_kernels_form() {
        for (text, family) in
            [("10.1.2.3:80", Family::V4), ("[2001:db8::1]:443", Family::V6), ("[::]:0", Family::V6)]
        {
            let made = SockAddr::new(address(text), family).expect("fits");
            assert_eq!(parse(made.as_bytes()), Some((family, address(text))));
        }
    }

    #[test]
    fn a_socket_of_ipv6_says_ipv4_addresses_mapped() {
        let made = SockAddr::new(address("10.1.2.3:80"), Family::V6).expect("fits");
        assert_eq!(parse(made.as_bytes()), Some((Family::V6, address("[::ffff:10.1.2.3]:80"))));
        let back = SockAddr::new(address("[::ffff:10.1.2.3]:80"), Family::V4).expect("fits");
        assert_eq!(parse(back.as_bytes()), Some((Family::V4, address("10.1.2.3:80"))));
        assert!(SockAddr::new(address("[2001:db8::1]:443"), Family::V4).is_none());
    }

    #[test]
    fn short_and_foreign_addresses_are_none() {
        let made = SockAddr::new(address("10.1.2.3:80"), Family::V4).expect("fits");
        assert_eq!(parse(made.as_bytes().split_at(15).0), None);
        assert_eq!(parse(&[1, 0, b'/', b'x']), None);
        assert_eq!(parse(&[]), None);
    }
}
