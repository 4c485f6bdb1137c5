//! Policy routing rules, as values that can be compared with what the kernel has.

use std::net::IpAddr;

use netlink_packet_route::{
    AddressFamily, IpProtocol,
    route::RouteProtocol,
    rule::{RuleAction, RuleAttribute, RuleMessage},
};

use super::{OWNER, SHOWN, TABLE, subnet::Subnet};

/// The kernel's main table.
const MAIN: u32 = libc::RT_TABLE_MAIN as u32;

/// What the kernel reports for a rule that suppresses nothing.
const NOT_SUPPRESSED: u32 = u32::MAX;

/// Whom a rule belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(super) fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(super) fn number(self) -> AddressFamily {
        match self {
            Self::V4 => AddressFamily::Inet,
            Self::V6 => AddressFamily::Inet6,
        }
    }
}

/// What happens to what a rule selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Action {
    /// Routed by the main table.
    Main,
    /// Routed by the main table, its default route aside.
    Connected,
    /// Delivered here.
    Steer,
    /// Sent to the loopback device, where it is seen, and dropped.
    Show,
    /// Refused with "network is unreachable".
    Unreachable,
}

/// One rule. What is absent is not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Rule {
    pub(super) family: Family,
    pub(super) preference: u32,
    pub(super) mark: Option<u32>,
    pub(super) from: Option<IpAddr>,
    pub(super) to: Option<Subnet>,
    pub(super) protocol: Option<u8>,
    pub(super) action: Action,
}

impl Rule {
    pub(super) fn new(family: Family, preference: u32, action: Action) -> Self {
        Self { family, preference, mark: None, from: None, to: None, protocol: None, action }
    }

    /// The rule as the kernel wants it.
    pub(super) fn to_message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = self.family.number();
        message.header.action = match self.action {
            Action::Unreachable => RuleAction::Unreachable,
            _ => RuleAction::ToTable,
        };
        if let Some(ip) = self.from {
            message.header.src_len = Subnet::host(ip).prefix;
        }
        if let Some(to) = self.to {
            message.header.dst_len = to.prefix;
        }
        message.attributes = self.attributes();
        message
    }

    fn attributes(&self) -> Vec<RuleAttribute> {
        let mut attributes = vec![
            RuleAttribute::Priority(self.preference),
            RuleAttribute::Protocol(RouteProtocol::Other(OWNER)),
        ];
        match self.action {
            Action::Main => attributes.push(RuleAttribute::Table(MAIN)),
            Action::Connected => {
                attributes.push(RuleAttribute::Table(MAIN));
                attributes.push(RuleAttribute::SuppressPrefixLen(0));
            }
            Action::Steer => attributes.push(RuleAttribute::Table(TABLE)),
            Action::Show => attributes.push(RuleAttribute::Table(SHOWN)),
            Action::Unreachable => {}
        }
        attributes.extend(self.mark.map(RuleAttribute::FwMark));
        attributes.extend(self.from.map(RuleAttribute::Source));
        attributes.extend(self.to.map(|to| RuleAttribute::Destination(to.address)));
        attributes.extend(
            self.protocol.map(|number| RuleAttribute::IpProtocol(IpProtocol::from(number))),
        );
        attributes
    }

    /// A rule of ours as the kernel lists it; nothing for somebody else's.
    pub(super) fn from_message(message: &RuleMessage) -> Option<Self> {
        let family = match message.header.family {
            AddressFamily::Inet => Family::V4,
            AddressFamily::Inet6 => Family::V6,
            _ => return None,
        };
        let mut rule = Self::new(family, 0, Action::Unreachable);
        let (mut ours, mut table, mut suppressed) = (false, 0, NOT_SUPPRESSED);
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Protocol(owner) => ours = *owner == RouteProtocol::Other(OWNER),
                RuleAttribute::Table(number) => table = *number,
                RuleAttribute::SuppressPrefixLen(length) => suppressed = *length,
                attribute => rule.select(attribute, message.header.dst_len),
            }
        }
        if message.header.action == RuleAction::ToTable {
            rule.action = match (table, suppressed) {
                (TABLE, _) => Action::Steer,
                (SHOWN, _) => Action::Show,
                (_, NOT_SUPPRESSED) => Action::Main,
                _ => Action::Connected,
            };
        }
        ours.then_some(rule)
    }

    fn select(&mut self, attribute: &RuleAttribute, prefix: u8) {
        match attribute {
            RuleAttribute::Priority(number) => self.preference = *number,
            RuleAttribute::FwMark(mark) => self.mark = Some(*mark),
            RuleAttribute::Source(ip) => self.from = Some(*ip),
            RuleAttribute::Destination(address) => {
                self.to = Some(Subnet { address: *address, prefix })
            }
            RuleAttribute::IpProtocol(protocol) => self.protocol = Some(u8::from(*protocol)),
            _ => {}
        }
    }
}
