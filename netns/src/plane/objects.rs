//! What a plan puts into the namespace.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    Plan,
    change::Object,
    rule::{Action, Family, Rule},
    subnet::Subnet,
};
use crate::{MARK_DIRECT, MARK_TO_APP, addresses::InterfaceAddress};

impl Plan {
    /// Everything that must be in the namespace, in the order in which it is added.
    pub(super) fn objects(&self, present: &[InterfaceAddress]) -> Vec<Object> {
        let mut objects: Vec<_> = self.identity.iter().copied().map(Object::Address).collect();
        for family in Family::ALL {
            let source = self.identity.iter().find(|ip| Family::of(**ip) == family);
            let Some(source) = source else { continue };
            objects.push(Object::Route(*source));
            if self.shows_icmp(family) {
                objects.push(Object::Shown);
            }
            objects.extend(self.rules(family, present).into_iter().map(Object::Rule));
        }
        objects
    }

    fn rules(&self, family: Family, present: &[InterfaceAddress]) -> Vec<Rule> {
        let rule = |preference, action| Rule::new(family, preference, action);
        let per_protocol = |rule: Rule| {
            let steered = self.steered().into_iter();
            steered.map(move |proto| Rule { protocol: Some(proto.number()), ..rule.clone() })
        };
        let own: Vec<Subnet> = connected(present, family);
        let mut rules = vec![
            Rule { mark: Some(MARK_TO_APP), ..rule(500, Action::Steer) },
            Rule { mark: Some(MARK_DIRECT), ..rule(510, Action::Main) },
        ];
        rules.extend(
            own.iter().map(|subnet| Rule { from: Some(subnet.address), ..rule(520, Action::Main) }),
        );
        for shared in self.shared(&own) {
            rules.extend(per_protocol(Rule { to: Some(shared), ..rule(540, Action::Steer) }));
        }
        rules.extend(multicast(family).map(|to| Rule { to: Some(to), ..rule(890, Action::Main) }));
        rules.push(rule(900, Action::Connected));
        rules.extend(per_protocol(rule(1000, Action::Steer)));
        let shown = if self.shows_icmp(family) { Action::Show } else { Action::Unreachable };
        if self.steer_tcp || self.steer_udp {
            rules.push(Rule { protocol: Some(icmp(family)), ..rule(1010, shown) });
        }
        if self.steer_tcp {
            rules.push(rule(1020, Action::Unreachable));
        }
        rules
    }

    /// Whether echo requests are seen. The kernel makes a route of IPv6 to the loopback device one
    /// that refuses (fib6_is_reject in net/ipv6/route.c).
    fn shows_icmp(&self, family: Family) -> bool {
        self.steer_tcp && family == Family::V4
    }

    /// Subnets that are connected here and at the target.
    fn shared(&self, own: &[Subnet]) -> Vec<Subnet> {
        let pairs =
            own.iter().flat_map(|own| self.identity_subnets.iter().map(move |their| (own, their)));
        let mut shared: Vec<_> = pairs.filter_map(|(own, their)| own.overlap(their)).collect();
        shared.sort_unstable();
        shared.dedup();
        shared
    }
}

/// The addresses of our own links, with their subnets.
fn connected(present: &[InterfaceAddress], family: Family) -> Vec<Subnet> {
    let links = present.iter().filter(|address| !address.loopback);
    let addresses = links.map(|address| Subnet { address: address.ip, prefix: address.prefix });
    addresses.filter(|subnet| Family::of(subnet.address) == family).collect()
}

/// Multicast and broadcast, which no tunnel carries.
fn multicast(family: Family) -> impl Iterator<Item = Subnet> {
    let groups = match family {
        Family::V4 => Subnet { address: Ipv4Addr::new(224, 0, 0, 0).into(), prefix: 4 },
        Family::V6 => Subnet { address: IpAddr::from([0xff00, 0, 0, 0, 0, 0, 0, 0]), prefix: 8 },
    };
    let broadcast = (family == Family::V4).then(|| Subnet::host(Ipv4Addr::BROADCAST.into()));
    broadcast.into_iter().chain([groups])
}

fn icmp(family: Family) -> u8 {
    match family {
        Family::V4 => libc::IPPROTO_ICMP as u8,
        Family::V6 => libc::IPPROTO_ICMPV6 as u8,
    }
}
