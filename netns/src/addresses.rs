//! The addresses of the namespace, by rtnetlink.

use std::{io, net::IpAddr};

use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkMessage},
};

use crate::netlink::Netlink;

/// One address of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface's name.
    pub name: String,
    /// The interface's index.
    pub index: u32,
    /// The address.
    pub ip: IpAddr,
    /// How many leading bits the connected subnet has.
    pub prefix: u8,
    /// Whether the interface is a loopback device.
    pub loopback: bool,
    /// The address's label, for IPv4.
    pub label: Option<String>,
}

/// Why the addresses could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot list the addresses of the network namespace")]
pub struct AddressError(#[from] io::Error);

/// Lists the addresses of the calling thread's network namespace.
pub fn addresses() -> Result<Vec<InterfaceAddress>, AddressError> {
    Ok(list(&mut Netlink::open()?)?)
}

/// Lists the namespace's addresses in an open conversation.
pub(crate) fn list(netlink: &mut Netlink) -> io::Result<Vec<InterfaceAddress>> {
    let links: Vec<Link> = netlink
        .dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?
        .into_iter()
        .filter_map(Link::from_message)
        .collect();
    let found = netlink.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    Ok(found.into_iter().filter_map(|message| interface_address(message, &links)).collect())
}

struct Link {
    index: u32,
    name: String,
    loopback: bool,
}

impl Link {
    fn from_message(message: RouteNetlinkMessage) -> Option<Self> {
        let RouteNetlinkMessage::NewLink(link) = message else {
            return None;
        };
        let name = link.attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        })?;
        Some(Self {
            index: link.header.index,
            name,
            loopback: link.header.flags.contains(LinkFlags::Loopback),
        })
    }
}

fn interface_address(message: RouteNetlinkMessage, links: &[Link]) -> Option<InterfaceAddress> {
    let RouteNetlinkMessage::NewAddress(address) = message else {
        return None;
    };
    let link = links.iter().find(|link| link.index == address.header.index)?;
    let (mut local, mut peer, mut label) = (None, None, None);
    for attribute in address.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(ip),
            AddressAttribute::Address(ip) => peer = Some(ip),
            AddressAttribute::Label(text) => label = Some(text),
            _ => {}
        }
    }
    Some(InterfaceAddress {
        name: link.name.clone(),
        index: link.index,
        ip: local.or(peer)?,
        prefix: address.header.prefix_len,
        loopback: link.loopback,
        label,
    })
}
