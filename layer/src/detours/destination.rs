//! Where the app wants to go: to a socket of its own, to this machine, or into the target's
//! network.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mirrord_protocol::layer::Transport;

use crate::address::{Family, SockAddr};
use crate::page::Page;

/// The port of name servers.
const DOMAIN: u16 = 53;
/// Name servers of this machine that only ask others: Docker's and two of systemd-resolved.
const STUBS: [Ipv4Addr; 3] =
    [Ipv4Addr::new(127, 0, 0, 11), Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(127, 0, 0, 54)];

/// Where a remote address leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To a loopback address.
    Loopback,
    /// To where only this machine's network can lead: multicast, broadcast, link-local.
    Link,
    /// Anywhere else: the proxy knows. The address is canonical.
    Network(SocketAddr),
}

impl Destination {
    /// Of an address.
    pub fn of(address: SocketAddr) -> Self {
        let canonical = SocketAddr::new(address.ip().to_canonical(), address.port());
        match canonical.ip() {
            IpAddr::V4(ip) if address.port() == DOMAIN && STUBS.contains(&ip) => {
                Self::Network(canonical)
            }
            ip if ip.is_loopback() || ip.is_unspecified() => Self::Loopback,
            ip if is_of_link(ip) => Self::Link,
            _ => Self::Network(canonical),
        }
    }
}

fn is_of_link(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_multicast() || ip.is_unicast_link_local(),
    }
}

/// Where the app's own socket really is that asked for this loopback address.
pub fn own_socket(
    page: &Page,
    transport: Transport,
    address: SocketAddr,
    family: Family,
) -> Option<SockAddr> {
    let fake = page.fake(transport, address.port())?;
    SockAddr::new(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), fake), family)
}

/// Lets an IPv6 socket speak IPv4, which all addresses of ours are. It has to be unbound.
pub fn allow_mapped(fd: i32, family: Family) {
    if family == Family::V6 {
        let (level, option) = (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY);
        let _ = crate::sys::setsockopt_int(fd, level, option, 0);
    }
}

/// Whether an address is that of every interface.
pub fn is_any(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(Ipv4Addr::UNSPECIFIED) | IpAddr::V6(Ipv6Addr::UNSPECIFIED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lead_to_where_they_belong() {
        let of = |text: &str| Destination::of(text.parse().expect("an address"));
        for text in ["127.0.0.1:80", "0.0.0.0:80", "[::]:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(of(text), Destination::Loopback, "{text}");
        }
        for text in ["224.0.0.1:80", "255.255.255.255:80", "[ff02::1]:1", "[fe80::1]:1"] {
            assert_eq!(of(text), Destination::Link, "{text}");
        }
        for text in ["10.1.2.3:80", "169.254.169.254:80", "[2001:db8::1]:80", "127.0.0.53:53"] {
            assert_eq!(of(text), Destination::Network(text.parse().expect("an address")), "{text}");
        }
        let mapped = Destination::Network("10.1.2.3:80".parse().expect("an address"));
        assert_eq!(of("[::ffff:10.1.2.3]:80"), mapped);
        assert_eq!(of("127.0.0.53:54"), Destination::Loopback);
    }
}
