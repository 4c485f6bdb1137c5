//! Changes to the namespace that can be taken back.

use std::{fmt, io, net::IpAddr};

use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
    rule::RuleMessage,
};

use super::{
    LABEL, OWNER, SHOWN, TABLE,
    rule::{Family, Rule},
    subnet::Subnet,
};
use crate::{bpf::BpfError, netlink::Netlink};

/// Something of ours in the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Object {
    /// An address of the target on the loopback device.
    Address(IpAddr),
    /// The default route of table T: everything is local, and leaves from this address.
    Route(IpAddr),
    /// The default route of the table of what is shown: to the loopback device, where nobody takes it.
    Shown,
    /// A rule.
    Rule(Rule),
}

/// An object that comes or goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Add(Object),
    Remove(Object),
    /// The local default route leaves from another address, without a moment in between.
    Reroute {
        from: IpAddr,
        to: IpAddr,
    },
}

/// A change that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {change}")]
pub struct ChangeError {
    change: String,
    #[source]
    source: io::Error,
}

impl ChangeError {
    /// A change of what the program knows that the kernel refused.
    pub(super) fn of_program(error: BpfError) -> Self {
        Self { change: "tell the program".to_owned(), source: io::Error::other(error) }
    }
}

/// Applied changes, the latest last.
#[derive(Debug, Default)]
pub(super) struct Undo(Vec<Change>);

impl Undo {
    /// Makes a change. What is there already, or gone already, is as good.
    pub(super) fn make(&mut self, change: Change, kernel: &mut Kernel) -> Result<(), ChangeError> {
        if kernel.make(&change)? {
            self.0.push(change);
        }
        Ok(())
    }

    /// Takes everything back, the latest first, and says what could not be.
    pub(super) fn roll_back(self, kernel: &mut Kernel) -> Vec<ChangeError> {
        let inverses = self.0.into_iter().rev().map(Change::inverse);
        inverses.filter_map(|change| kernel.make(&change).err()).collect()
    }
}

impl Change {
    fn inverse(self) -> Self {
        match self {
            Self::Add(object) => Self::Remove(object),
            Self::Remove(object) => Self::Add(object),
            Self::Reroute { from, to } => Self::Reroute { from: to, to: from },
        }
    }
}

/// The kernel's tables of one namespace.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) netlink: Netlink,
    loopback: u32,
}

impl Kernel {
    /// Opens those of the calling thread's namespace.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { netlink: Netlink::open()?, loopback: nix::net::if_::if_nametoindex("lo")? })
    }

    /// What of ours is there: rules and routes carry our protocol number, addresses our label.
    pub(super) fn list(&mut self) -> io::Result<Vec<Object>> {
        let mut found = Vec::new();
        for family in Family::ALL {
            let mut rules = RuleMessage::default();
            rules.header.family = family.number();
            found.extend(self.netlink.dump(RouteNetlinkMessage::GetRule(rules))?);
            let mut routes = RouteMessage::default();
            routes.header.address_family = family.number();
            found.extend(self.netlink.dump(RouteNetlinkMessage::GetRoute(routes))?);
        }
        let addresses = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        found.extend(self.netlink.dump(addresses)?);
        let loopback = self.loopback;
        Ok(found.iter().filter_map(|message| object(message, loopback)).collect())
    }

    /// Makes one change; false when there was nothing to do.
    fn make(&mut self, change: &Change) -> Result<bool, ChangeError> {
        use io::ErrorKind::{AddrNotAvailable, AlreadyExists, NotFound};
        let made = match change {
            Change::Add(object) => self.add(object),
            Change::Remove(object) => self.remove(object),
            Change::Reroute { to, .. } => {
                let message = RouteNetlinkMessage::NewRoute(self.route(*to));
                self.netlink.replace(message)
            }
        };
        match (made, change) {
            (Ok(()), _) => Ok(true),
            (Err(error), Change::Add(Object::Address(_) | Object::Rule(_)))
                if error.kind() == AlreadyExists =>
            {
                Ok(false)
            }
            (Err(error), Change::Remove(_))
                if matches!(error.kind(), NotFound | AddrNotAvailable)
                    || error.raw_os_error() == Some(libc::ESRCH) =>
            {
                Ok(false)
            }
            (Err(source), change) => Err(ChangeError { change: change.to_string(), source }),
        }
    }

    fn add(&mut self, object: &Object) -> io::Result<()> {
        let message = match object {
            Object::Address(ip) => RouteNetlinkMessage::NewAddress(self.address(*ip)),
            Object::Route(source) => RouteNetlinkMessage::NewRoute(self.route(*source)),
            Object::Shown => RouteNetlinkMessage::NewRoute(self.shown()),
            Object::Rule(rule) => RouteNetlinkMessage::NewRule(rule.to_message()),
        };
        self.netlink.create(message)
    }

    fn remove(&mut self, object: &Object) -> io::Result<()> {
        let message = match object {
            Object::Address(ip) => RouteNetlinkMessage::DelAddress(self.address(*ip)),
            Object::Route(source) => RouteNetlinkMessage::DelRoute(self.route(*source)),
            Object::Shown => RouteNetlinkMessage::DelRoute(self.shown()),
            Object::Rule(rule) => RouteNetlinkMessage::DelRule(rule.to_message()),
        };
        self.netlink.execute(message)
    }

    fn address(&self, ip: IpAddr) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = Family::of(ip).number();
        message.header.prefix_len = Subnet::host(ip).prefix;
        message.header.scope = AddressScope::Universe;
        message.header.index = self.loopback;
        message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
        if ip.is_ipv4() {
            message.attributes.push(AddressAttribute::Label(LABEL.to_owned()));
        } else {
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        message
    }

    fn route(&self, source: IpAddr) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = Family::of(source).number();
        message.header.protocol = RouteProtocol::Other(OWNER);
        message.header.scope =
            if source.is_ipv4() { RouteScope::Host } else { RouteScope::Universe };
        message.header.kind = RouteType::Local;
        message.attributes = vec![
            RouteAttribute::Table(TABLE),
            RouteAttribute::Oif(self.loopback),
            RouteAttribute::PrefSource(RouteAddress::from(source)),
        ];
        message
    }

    fn shown(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = Family::V4.number();
        message.header.protocol = RouteProtocol::Other(OWNER);
        message.header.scope = RouteScope::Link;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![RouteAttribute::Table(SHOWN), RouteAttribute::Oif(self.loopback)];
        message
    }
}

/// An object of ours as the kernel lists it.
fn object(message: &RouteNetlinkMessage, loopback: u32) -> Option<Object> {
    match message {
        RouteNetlinkMessage::NewRule(rule) => Rule::from_message(rule).map(Object::Rule),
        RouteNetlinkMessage::NewRoute(route) if is_shown(route) => Some(Object::Shown),
        RouteNetlinkMessage::NewRoute(route) => route_source(route).map(Object::Route),
        RouteNetlinkMessage::NewAddress(address) if address.header.index == loopback => {
            labelled(address).map(Object::Address)
        }
        _ => None,
    }
}

fn is_shown(route: &RouteMessage) -> bool {
    let ours = route.header.protocol == RouteProtocol::Other(OWNER);
    ours && route.attributes.contains(&RouteAttribute::Table(SHOWN))
}

fn route_source(route: &RouteMessage) -> Option<IpAddr> {
    let in_table = route.attributes.contains(&RouteAttribute::Table(TABLE));
    let ours = in_table && route.header.protocol == RouteProtocol::Other(OWNER);
    route.attributes.iter().filter(|_| ours).find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(RouteAddress::Inet(ip)) => Some((*ip).into()),
        RouteAttribute::PrefSource(RouteAddress::Inet6(ip)) => Some((*ip).into()),
        _ => None,
    })
}

/// An IPv6 address has no label: on the loopback device, each but `::1` is ours.
fn labelled(address: &AddressMessage) -> Option<IpAddr> {
    let label = AddressAttribute::Label(LABEL.to_owned());
    let labelled = address.attributes.contains(&label);
    address.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) if labelled => Some(*ip),
        AddressAttribute::Address(IpAddr::V6(ip)) if !ip.is_loopback() => Some((*ip).into()),
        _ => None,
    })
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(object) => write!(f, "add {object}"),
            Self::Remove(object) => write!(f, "remove {object}"),
            Self::Reroute { from, to } => {
                write!(f, "give the local default route the source {to} instead of {from}")
            }
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(ip) => write!(f, "the target's address {ip}"),
            Self::Route(source) => write!(f, "the local default route with source {source}"),
            Self::Shown => write!(f, "the default route of what is shown"),
            Self::Rule(rule) => write!(f, "the routing rule {}", rule.preference),
        }
    }
}
