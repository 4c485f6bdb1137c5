//! Which ports the app has asked for, and the fake ones that it has got: pure bookkeeping.

use std::net::{IpAddr, SocketAddr};

use mirrord_protocol::layer::Transport;

/// Each is looked at several times a second.
const MOST: usize = 8192;

/// What one socket of the app asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    pub(crate) transport: Transport,
    pub(crate) address: SocketAddr,
    /// IPV6_V6ONLY.
    pub(crate) v6_only: bool,
}

/// What it got. Sockets that share a port (SO_REUSEPORT) share a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) wanted: Wanted,
    pub(crate) fake: u16,
    /// A bound UDP socket listens.
    pub(crate) listening: bool,
}

/// All claims of a session.
#[derive(Debug, Default)]
pub(crate) struct Claims(Vec<Claim>);

impl Wanted {
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    fn ip(&self) -> IpAddr {
        self.address.ip()
    }

    /// Whether loopback leads here.
    pub(crate) fn covers_loopback(&self) -> bool {
        let ip = self.ip().to_canonical();
        ip.is_unspecified() || ip.is_loopback()
    }

    /// Whether one datagram or connection could be meant for both; bind(2) as ip(7) and ipv6(7)
    /// have it.
    fn overlaps(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.ip().to_canonical(), other.ip().to_canonical());
        let meets = self.transport == other.transport && self.port() == other.port();
        meets
            && match (ours, theirs) {
                (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
                    ours == theirs || ours.is_unspecified() || theirs.is_unspecified()
                }
                (IpAddr::V4(_), IpAddr::V6(v6)) => v6.is_unspecified() && !other.v6_only,
                (IpAddr::V6(v6), IpAddr::V4(_)) => v6.is_unspecified() && !self.v6_only,
            }
    }

    /// How well it suits what came to an address; the kernel prefers the exact one as well.
    fn suits(&self, ip: IpAddr) -> Option<u8> {
        let ours = self.ip().to_canonical();
        let ip = ip.to_canonical();
        match (ours, ip) {
            _ if ours == ip => Some(0),
            (IpAddr::V4(ours), IpAddr::V4(_)) if ours.is_unspecified() => Some(1),
            (IpAddr::V6(ours), IpAddr::V6(_)) if ours.is_unspecified() => Some(1),
            (IpAddr::V6(ours), IpAddr::V4(_)) if ours.is_unspecified() && !self.v6_only => Some(2),
            // Who listens on another address of its own, as on loopback, gets it all the same.
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => Some(3),
            _ => None,
        }
    }
}

impl Claims {
    /// Those of a worker before this one: who listens is seen later. Who asked for all IPv6
    /// addresses beside all IPv4 ones has asked for no more (IPV6_V6ONLY).
    pub(crate) fn recalled(asked: &[(Transport, u16, SocketAddr)]) -> Self {
        let claims = asked.iter().map(|&(transport, fake, address)| {
            let beside = asked.iter().any(|(other, _, theirs)| {
                *other == transport && theirs.is_ipv4() && theirs.port() == address.port()
            });
            let wanted = Wanted { transport, address, v6_only: address.is_ipv6() && beside };
            Claim { wanted, fake, listening: transport == Transport::Udp }
        });
        Self(claims.collect())
    }

    /// Whether there are as many as can be looked after.
    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= MOST
    }

    /// Whether a port is a fake one of ours.
    pub(crate) fn has(&self, transport: Transport, fake: u16) -> bool {
        self.0.iter().any(|claim| claim.fake == fake && claim.wanted.transport == transport)
    }

    /// The fake port of those who asked for the very same.
    pub(crate) fn same(&self, wanted: &Wanted) -> Option<u16> {
        self.0.iter().find(|claim| claim.wanted == *wanted).map(|claim| claim.fake)
    }

    /// The fake ports of others that stand in the way, unless they share.
    pub(crate) fn rivals(&self, wanted: &Wanted) -> Vec<u16> {
        let rivals = self.0.iter().filter(|claim| claim.wanted != *wanted);
        rivals.filter(|claim| claim.wanted.overlaps(wanted)).map(|claim| claim.fake).collect()
    }

    /// Who takes what came to an address of the target.
    pub(crate) fn taker(&self, transport: Transport, at: SocketAddr) -> Option<u16> {
        let listening = self.0.iter().filter(|claim| {
            claim.listening
                && claim.wanted.transport == transport
                && claim.wanted.port() == at.port()
        });
        listening
            .filter_map(|claim| Some((claim.wanted.suits(at.ip())?, claim.fake)))
            .min()
            .map(|(_, fake)| fake)
    }

    pub(crate) fn insert(&mut self, claim: Claim) {
        self.0.retain(|old| {
            old.wanted != claim.wanted
                && (old.fake != claim.fake || old.wanted.transport != claim.wanted.transport)
        });
        self.0.push(claim);
    }

    pub(crate) fn remove(&mut self, wanted: &Wanted) {
        self.0.retain(|claim| claim.wanted != *wanted);
    }

    /// A TCP socket with this fake port listens now, or does not any more.
    pub(crate) fn set_listening(&mut self, transport: Transport, fake: u16, listening: bool) {
        let claims = self.0.iter_mut();
        for claim in claims.filter(|c| c.fake == fake && c.wanted.transport == transport) {
            claim.listening = listening;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Claim> {
        self.0.iter()
    }

    /// Whether a port is a fake one of ours, or one that the app asked for.
    pub(crate) fn knows(&self, transport: Transport, port: u16) -> bool {
        let mut claims = self.0.iter().filter(|claim| claim.wanted.transport == transport);
        claims.any(|claim| claim.fake == port || claim.wanted.port() == port)
    }

    /// The fake port behind a port of loopback, or 0.
    pub(crate) fn on_loopback(&self, transport: Transport, port: u16) -> u16 {
        let mut claims = self.0.iter().rev().filter(|claim| {
            let wanted = &claim.wanted;
            wanted.transport == transport && wanted.port() == port && wanted.covers_loopback()
        });
        let v4 = |claim: &&Claim| !(claim.wanted.address.is_ipv6() && claim.wanted.v6_only);
        let found = claims.clone().find(v4).or_else(|| claims.next());
        found.map_or(0, |claim| claim.fake)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(address: &str, v6_only: bool) -> Wanted {
        let address = address.parse().unwrap();
        Wanted { transport: Transport::Tcp, address, v6_only }
    }

    fn claims(all: &[(&str, bool, u16)]) -> Claims {
        let mut claims = Claims::default();
        for (address, v6_only, fake) in all {
            let wanted = wanted(address, *v6_only);
            claims.insert(Claim { wanted, fake: *fake, listening: true });
        }
        claims
    }

    #[test]
    fn rivals_are_those_that_the_kernel_would_not_tell_apart() {
        let rivals = |old, v6_only_old, new, v6_only| {
            let claims = claims(&[(old, v6_only_old, 40001)]);
            !claims.rivals(&wanted(new, v6_only)).is_empty()
        };
        assert!(rivals("0.0.0.0:80", false, "127.0.0.1:80", false));
        assert!(rivals("127.0.0.1:80", false, "0.0.0.0:80", false));
        assert!(rivals("0.0.0.0:80", false, "[::]:80", false));
        assert!(rivals("[::]:80", false, "10.0.0.1:80", false));
        assert!(rivals("[::]:80", false, "[::1]:80", false));
        assert!(!rivals("0.0.0.0:80", false, "[::]:80", true), "as nginx does");
        assert!(!rivals("0.0.0.0:80", false, "[::1]:80", false));
        assert!(!rivals("127.0.0.1:80", false, "127.0.0.2:80", false));
        assert!(!rivals("0.0.0.0:80", false, "0.0.0.0:81", false));
        assert!(!rivals("0.0.0.0:80", false, "0.0.0.0:80", false), "the same is asked elsewhere");
        let udp = Wanted { transport: Transport::Udp, ..wanted("0.0.0.0:80", false) };
        assert!(claims(&[("127.0.0.1:80", false, 1)]).rivals(&udp).is_empty());
    }

    #[test]
    fn who_suits_best_takes_a_client() {
        let claims = claims(&[
            ("0.0.0.0:80", false, 1),
            ("10.0.0.5:80", false, 2),
            ("[::]:80", true, 3),
            ("127.0.0.1:90", false, 4),
            ("[::]:100", false, 5),
        ]);
        let taker = |at: &str| claims.taker(Transport::Tcp, at.parse().unwrap());
        assert_eq!(taker("10.0.0.5:80"), Some(2));
        assert_eq!(taker("10.0.0.6:80"), Some(1));
        assert_eq!(taker("[2001:db8::1]:80"), Some(3));
        assert_eq!(taker("10.0.0.5:90"), Some(4), "who listens on loopback");
        assert_eq!(taker("10.0.0.5:100"), Some(5));
        assert_eq!(taker("[2001:db8::1]:90"), None, "an IPv4 socket takes no IPv6 client");
        assert_eq!(taker("10.0.0.5:81"), None);
    }

    #[test]
    fn loopback_leads_to_who_covers_it() {
        let claims = claims(&[
            ("[::]:80", true, 3),
            ("0.0.0.0:80", false, 1),
            ("10.0.0.5:81", false, 2),
            ("[::1]:82", false, 4),
        ]);
        let fake = |port| claims.on_loopback(Transport::Tcp, port);
        assert_eq!([fake(80), fake(81), fake(82)], [1, 0, 4]);
        assert!(claims.knows(Transport::Tcp, 2) && claims.knows(Transport::Tcp, 81));
        assert!(!claims.knows(Transport::Udp, 2));
    }

    #[test]
    fn a_fake_port_has_one_claim() {
        let mut claims = claims(&[("0.0.0.0:80", false, 1)]);
        claims.insert(Claim { wanted: wanted("0.0.0.0:81", false), fake: 1, listening: false });
        assert_eq!(claims.same(&wanted("0.0.0.0:80", false)), None);
        claims.remove(&wanted("0.0.0.0:81", false));
        assert_eq!(claims.iter().count(), 0);
    }
}
