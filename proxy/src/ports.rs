//! What the app listens on: found as it appears and disappears, subscribed and given back.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mirrord_netns::Proto;
use mirrord_netns::listeners::{Listening, Scanner, SocketCounts, ephemeral_ports};
use mirrord_netns::plane::DOCKER_DNS;
use mirrord_protocol::control::{Incoming, IncomingMode, PortMapping, Protocol};

use crate::link::Link;

/// How often the number of sockets is looked at, which takes some 2 µs: the app's port is found so soon.
const PERIOD: Duration = Duration::from_millis(4);
/// How often the sockets are looked at though their number is the same.
const DOUBT: Duration = Duration::from_millis(50);

/// Watches the app's sockets as long as the process lives.
pub(crate) async fn watch(
    link: Rc<Link>,
    mut scanner: Scanner,
    own_sockets: Vec<u64>,
) -> anyhow::Error {
    if link.config.incoming.mode == IncomingMode::Off {
        return std::future::pending().await;
    }
    let rules = Rules::new(&link.config.incoming, own_sockets);
    let mut known = BTreeMap::new();
    let mut counts = match SocketCounts::open() {
        Ok(counts) => counts,
        Err(error) => return anyhow::Error::new(error).context("counting the app's sockets"),
    };
    let mut scanned: Option<Instant> = None;
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        // An unreadable count is no reason to miss a port.
        let changed = counts.changed().unwrap_or(true);
        if !changed && scanned.is_some_and(|scanned| scanned.elapsed() < DOUBT) {
            continue;
        }
        scanned = Some(Instant::now());
        let listening = match scanner.scan() {
            Ok(listening) => rules.of_the_app(&listening),
            Err(error) => {
                return anyhow::Error::new(error).context("looking for the app's sockets");
            }
        };
        update(&link, &rules, &known, &listening);
        known = listening;
    }
}

type Ports = BTreeMap<(Protocol, u16), Vec<SocketAddr>>;

fn update(link: &Link, rules: &Rules, known: &Ports, now: &Ports) {
    if known == now {
        return;
    }
    for (&(protocol, port), at) in now {
        if known.get(&(protocol, port)) == Some(at) {
            continue;
        }
        link.set_listening(protocol, port, at.clone());
        if !known.contains_key(&(protocol, port))
            && let Some(mapping) = rules.mapping(protocol, port)
        {
            link.subscribe(mapping);
        }
    }
    for &(protocol, port) in known.keys().filter(|key| !now.contains_key(key)) {
        link.set_listening(protocol, port, Vec::new());
        if let Some(mapping) = rules.mapping(protocol, port) {
            link.unsubscribe(mapping);
        }
    }
}

/// Which ports count, and for which port of the target each stands.
pub(crate) struct Rules {
    incoming: Incoming,
    own_sockets: HashSet<u64>,
    ephemeral: RangeInclusive<u16>,
}

impl Rules {
    pub(crate) fn new(incoming: &Incoming, own_sockets: Vec<u64>) -> Self {
        Self {
            incoming: incoming.clone(),
            own_sockets: own_sockets.into_iter().collect(),
            ephemeral: ephemeral_ports().unwrap_or(32768..=60999),
        }
    }

    fn of_the_app(&self, sockets: &[Listening]) -> Ports {
        let mut ports = Ports::new();
        for socket in sockets {
            let ours = self.own_sockets.contains(&socket.cookie);
            if ours || socket.address.ip() == DOCKER_DNS {
                continue;
            }
            let key = (protocol(socket.proto), socket.address.port());
            let at = ports.entry(key).or_default();
            if !at.contains(&socket.address) {
                at.push(socket.address);
            }
        }
        ports.values_mut().for_each(|at| at.sort());
        ports
    }

    /// The port of the target for one of the app's; `None` if it is not to be subscribed.
    pub(crate) fn mapping(&self, protocol: Protocol, local: u16) -> Option<PortMapping> {
        let named = &self.incoming.ports;
        let mapping = match named.iter().find(|m| m.protocol == protocol && m.local == local) {
            Some(mapping) => *mapping,
            None if !named.is_empty() => return None,
            // Every UDP client has such a socket; that it is a server can't be seen from here.
            None if protocol == Protocol::Udp && self.ephemeral.contains(&local) => return None,
            None => PortMapping { protocol, local, remote: local },
        };
        (!self.incoming.ignore_ports.contains(&mapping.remote)).then_some(mapping)
    }
}

fn protocol(proto: Proto) -> Protocol {
    match proto {
        Proto::Tcp => Protocol::Tcp,
        Proto::Udp => Protocol::Udp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(ports: &[(u16, u16)], ignore_ports: &[u16]) -> Rules {
        let protocol = Protocol::Tcp;
        let ports =
            ports.iter().map(|&(local, remote)| PortMapping { protocol, local, remote }).collect();
        let ignore_ports = ignore_ports.to_vec();
        let incoming = Incoming { mode: IncomingMode::Steal, ports, ignore_ports };
        Rules { incoming, own_sockets: HashSet::from([7]), ephemeral: 32768..=60999 }
    }

    fn remote(rules: &Rules, protocol: Protocol, local: u16) -> Option<u16> {
        rules.mapping(protocol, local).map(|mapping| mapping.remote)
    }

    #[test]
    fn every_port_counts_unless_told_otherwise() {
        let rules = rules(&[], &[9000]);
        assert_eq!(remote(&rules, Protocol::Tcp, 80), Some(80));
        assert_eq!(remote(&rules, Protocol::Tcp, 50051), Some(50051));
        assert_eq!(remote(&rules, Protocol::Tcp, 9000), None, "ignored");
        assert_eq!(remote(&rules, Protocol::Udp, 53), Some(53));
        assert_eq!(remote(&rules, Protocol::Udp, 40000), None, "a client's socket");
    }

    #[test]
    fn named_ports_are_the_only_ones_and_may_differ_on_the_two_sides() {
        let rules = rules(&[(8080, 80), (9000, 9000)], &[9000]);
        assert_eq!(remote(&rules, Protocol::Tcp, 8080), Some(80));
        assert_eq!(remote(&rules, Protocol::Tcp, 80), None);
        assert_eq!(remote(&rules, Protocol::Tcp, 9000), None, "what is ignored stays so");
    }

    #[test]
    fn our_own_sockets_and_dockers_name_server_are_not_the_apps() {
        let socket = |address: &str, cookie| Listening {
            proto: Proto::Tcp,
            address: address.parse().unwrap(),
            inode: 0,
            cookie,
            uid: 0,
        };
        let sockets = [
            socket("127.0.0.1:41000", 7),
            socket("127.0.0.11:35353", 8),
            socket("0.0.0.0:80", 9),
            socket("[::]:80", 10),
        ];
        let ports = rules(&[], &[]).of_the_app(&sockets);
        let at = vec!["0.0.0.0:80".parse().unwrap(), "[::]:80".parse().unwrap()];
        assert_eq!(ports, Ports::from([((Protocol::Tcp, 80), at)]));
    }
}
