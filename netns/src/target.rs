//! What there is to know of a target's namespace before its traffic is taken or copied.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage},
};

use crate::{
    Proto,
    addresses::{AddressError, addresses},
    listeners::Scanner,
    netlink::Netlink,
};

/// Where the proxy of a service mesh has the target's incoming connections redirected to: Istio's
/// inbound and outbound listeners, and Linkerd's inbound one.
const MESH_PORTS: [u16; 3] = [15006, 15001, 4143];

/// Where the agent's own connections over the target's loopback device come from, so that they
/// are told from those of a mesh's proxy.
pub const AGENT_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 13);

/// A target's network namespace, as far as it matters to who takes or copies its traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetNet {
    /// Its addresses. What comes from them is the target talking to itself.
    pub own: Vec<IpAddr>,
    /// Whether the proxy of a service mesh stands before the target. It brings the target's
    /// clients over the loopback device; what comes by others is meant for it, and encrypted.
    pub mesh: bool,
    /// Whose new connections and datagrams are never taken.
    pub spared: Vec<IpAddr>,
}

impl TargetNet {
    /// Looks around in the calling thread's network namespace. `nodes` are the addresses of the
    /// target's node, if its probes are to be spared; the default gateway, which is where the
    /// probes of most clusters come from, counts as one of them.
    ///
    /// Where the kernel does not tell what listens there is no mesh.
    pub fn look(nodes: Option<&[IpAddr]>) -> Result<Self, AddressError> {
        let own = addresses()?.into_iter().map(|address| address.ip).collect();
        let mesh = Scanner::open().and_then(|mut scanner| has_mesh(&mut scanner)).unwrap_or(false);
        let mut spared = nodes.unwrap_or_default().to_vec();
        if nodes.is_some() {
            spared.extend(gateways()?);
        }
        Ok(Self { own, mesh, spared })
    }
}

fn has_mesh(scanner: &mut Scanner) -> io::Result<bool> {
    let listening = scanner.scan()?;
    Ok(listening.iter().any(|listening| {
        listening.proto == Proto::Tcp && MESH_PORTS.contains(&listening.address.port())
    }))
}

/// The gateways of the namespace's default routes.
fn gateways() -> io::Result<Vec<IpAddr>> {
    let mut netlink = Netlink::open()?;
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        let routes = netlink.dump(RouteNetlinkMessage::GetRoute(message))?;
        found.extend(routes.iter().filter_map(gateway));
    }
    Ok(found)
}

fn gateway(message: &RouteNetlinkMessage) -> Option<IpAddr> {
    let RouteNetlinkMessage::NewRoute(route) = message else {
        return None;
    };
    if route.header.destination_prefix_length != 0 {
        return None;
    }
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(ip)) => Some(IpAddr::from(*ip)),
        RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => Some(IpAddr::from(*ip)),
        _ => None,
    })
}
