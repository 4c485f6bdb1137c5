//! What the app sees in place of an address of ours.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mirrord_protocol::layer::{Slot, Transport};

use crate::address::with_port;
use crate::page::Page;

/// Where the app's own sockets are that have fake ports.
const DOOR: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Whether it may be an address of ours, and the page has to be asked.
pub fn may_be_ours(address: SocketAddr) -> bool {
    address.port() != 0 && {
        let ip = address.ip();
        is_door(ip) || Slot::of_remote(ip).is_some() || Slot::of_local(ip).is_some()
    }
}

/// Whether sockets with fake ports have this address.
pub fn is_door(ip: IpAddr) -> bool {
    ip.to_canonical() == DOOR
}

/// Whom an address stands for that the kernel says is remote; `None` if it is as it seems.
pub fn remote(page: &Page, transport: Transport, told: SocketAddr) -> Option<SocketAddr> {
    match Slot::of_remote(told.ip()) {
        Some(slot) => page.remote(slot),
        None if is_door(told.ip()) => own(page, transport, told),
        None => None,
    }
}

/// What stands behind an address that the kernel says is the socket's own, which is connected to
/// `peer` or not at all; `None` if it is as it seems.
pub fn local(
    page: &Page,
    transport: Transport,
    told: SocketAddr,
    peer: Option<SocketAddr>,
) -> Option<SocketAddr> {
    let slot = Slot::of_local(told.ip()).or_else(|| Slot::of_remote(peer?.ip()));
    let asked = if is_door(told.ip()) { page.asked(transport, told.port()) } else { None };
    let Some(slot) = slot else {
        return if peer.is_some() { asked.map(reached) } else { asked };
    };
    let port = asked.map_or(told.port(), |asked| asked.port());
    match page.local(slot) {
        Some(local) if local.port() == 0 => Some(with_port(local, port)),
        Some(local) => Some(local),
        None => asked,
    }
}

/// How the app's own socket behind a fake port is reached by its likes.
fn own(page: &Page, transport: Transport, told: SocketAddr) -> Option<SocketAddr> {
    page.asked(transport, told.port()).map(reached)
}

/// An address that may be none in particular, as one that was connected to.
fn reached(asked: SocketAddr) -> SocketAddr {
    let ip = match asked.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => DOOR,
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    };
    SocketAddr::new(ip, asked.port())
}

#[cfg(test)]
mod tests {
    use mirrord_protocol::layer::page as layout;

    use super::*;
    use crate::page::tests::Memory;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    /// Slot 1: a client of the app's port 80; slot 2: a connection that the app made.
    fn memory() -> Memory {
        let mut memory = Memory::new();
        memory.write_address(layout::asked(Transport::Tcp, 40_000), "0.0.0.0:80");
        memory.write_address(layout::asked(Transport::Tcp, 40_001), "[::]:81");
        memory.write_address(layout::asked(Transport::Udp, 40_000), "127.0.0.5:53");
        memory.write_address(layout::remote(Slot(1)), "10.0.0.9:4711");
        memory.write_address(layout::local(Slot(1)), "10.0.0.2:80");
        memory.write_address(layout::remote(Slot(2)), "[2001:db8::9]:443");
        memory.write_address(layout::local(Slot(2)), "10.0.0.2:0");
        memory
    }

    #[test]
    fn a_client_is_who_its_slot_stands_for() {
        let memory = memory();
        let seen = |text| remote(memory.page(), Transport::Tcp, address(text));
        assert_eq!(seen("127.64.0.1:999"), Some(address("10.0.0.9:4711")));
        assert_eq!(seen("[::ffff:127.64.0.1]:999"), Some(address("10.0.0.9:4711")));
        assert_eq!(seen("127.64.0.3:999"), None, "nobody");
        assert_eq!(seen("127.0.0.1:40000"), Some(address("127.0.0.1:80")));
        assert_eq!(seen("[::ffff:127.0.0.1]:40001"), Some(address("[::1]:81")));
        assert_eq!(seen("127.0.0.1:5000"), None);
        assert_eq!(seen("10.0.0.1:40000"), None);
    }

    #[test]
    fn a_listener_has_the_port_that_it_asked_for() {
        let memory = memory();
        let seen = |transport, text| local(memory.page(), transport, address(text), None);
        assert_eq!(seen(Transport::Tcp, "127.0.0.1:40000"), Some(address("0.0.0.0:80")));
        assert_eq!(seen(Transport::Tcp, "[::ffff:127.0.0.1]:40001"), Some(address("[::]:81")));
        assert_eq!(seen(Transport::Udp, "127.0.0.1:40000"), Some(address("127.0.0.5:53")));
        assert_eq!(seen(Transport::Tcp, "10.0.0.1:40000"), None);
        assert_eq!(seen(Transport::Tcp, "127.0.0.1:40002"), None);
    }

    #[test]
    fn an_accepted_socket_has_the_address_that_its_client_connected_to() {
        let memory = memory();
        let seen =
            |told, peer| local(memory.page(), Transport::Tcp, address(told), Some(address(peer)));
        assert_eq!(seen("127.0.0.1:40000", "127.64.0.1:5"), Some(address("10.0.0.2:80")));
        assert_eq!(seen("127.0.0.1:40000", "127.0.0.1:5"), Some(address("127.0.0.1:80")));
        assert_eq!(seen("127.0.0.1:41000", "127.0.0.1:5"), None);
    }

    #[test]
    fn a_connected_socket_has_the_targets_address() {
        let memory = memory();
        let seen = |told, peer: Option<&str>| {
            local(memory.page(), Transport::Tcp, address(told), peer.map(address))
        };
        assert_eq!(seen("127.128.0.2:1234", None), Some(address("10.0.0.2:1234")));
        let peer = Some("127.64.0.2:9");
        assert_eq!(seen("127.128.0.2:1234", peer), Some(address("10.0.0.2:1234")));
        assert_eq!(seen("127.0.0.1:1234", peer), Some(address("10.0.0.2:1234")));
        assert_eq!(seen("127.0.0.1:40000", peer), Some(address("10.0.0.2:80")));
        assert_eq!(seen("127.128.0.9:1234", None), None);
    }
}
