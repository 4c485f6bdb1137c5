//! What the parts of the layer's server share.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use mirrord_netns::Subnet;
use mirrord_protocol::control::{Protocol, ProxyConfig, ProxyEvent};
use mirrord_protocol::frame::{Description, Errno};
use mirrord_protocol::layer::{Slot, Transport};
use mirrord_tunnel::Tunnel;
use nix::libc;
use tracing::warn;

use super::memory::{Ends, Memory, MemoryError};
use super::slots::{Lease, Slots};
use super::surroundings::Surroundings;
use crate::link::Link;
use crate::names::{Names, nameservers};
use crate::report::say;

/// What waits for a tunnel waits so long.
const GRACE: Duration = Duration::from_secs(30);

/// The tunnels, the shared memory, its slots, and whose place it is.
pub(crate) struct Base {
    pub(crate) link: Rc<Link>,
    pub(crate) memory: Memory,
    pub(crate) slots: Slots,
    /// Whether Docker's embedded name server is in this namespace.
    embedded: bool,
    /// The name servers of this machine: to the app they are the target's.
    replaced: Vec<IpAddr>,
    /// What this namespace reaches by itself.
    near: Vec<Subnet>,
    names: RefCell<Rc<Names>>,
    /// The targets' addresses.
    identity: RefCell<Vec<IpAddr>>,
    /// Where these are.
    homes: RefCell<Vec<Subnet>>,
    told: Cell<bool>,
}

impl Base {
    pub(crate) fn new(link: Rc<Link>, memory: Memory, slots: Slots, place: Surroundings) -> Self {
        let Surroundings { embedded, replaced, near } = place;
        Self {
            link,
            memory,
            slots,
            embedded,
            replaced,
            near,
            names: RefCell::default(),
            identity: RefCell::default(),
            homes: RefCell::default(),
            told: Cell::new(false),
        }
    }

    /// Takes the place of these targets from now on.
    pub(crate) fn become_like(&self, config: &ProxyConfig, targets: &[&Description]) {
        let nameservers = nameservers(config, targets);
        let embedded = self.embedded && config.remote_dns;
        self.names.replace(Rc::new(Names { nameservers, embedded }));
        let mut identity: Vec<IpAddr> = Vec::new();
        for (ip, _) in targets.iter().flat_map(|target| &target.addresses) {
            if !identity.contains(ip) {
                identity.push(*ip);
            }
        }
        self.identity.replace(identity);
        let homes = targets.iter().flat_map(|target| &target.addresses);
        self.homes.replace(homes.map(|&(address, prefix)| Subnet { address, prefix }).collect());
    }

    /// Who answers for names now.
    pub(crate) fn names(&self) -> Rc<Names> {
        self.names.borrow().clone()
    }

    /// Whether an address is a target's.
    pub(crate) fn is_targets(&self, ip: IpAddr) -> bool {
        self.identity.borrow().contains(&ip)
    }

    /// The app's own address towards somebody.
    pub(crate) fn own_address(&self, towards: SocketAddr, port: u16) -> Option<SocketAddr> {
        let identity = self.identity.borrow();
        let own = identity.iter().find(|own| own.is_ipv4() == towards.is_ipv4())?;
        Some(SocketAddr::new(*own, port))
    }

    /// Whether what the app sends there goes through the tunnel.
    pub(crate) fn takes(&self, transport: Transport, to: SocketAddr) -> bool {
        let config = &self.link.config;
        let wanted = match transport {
            Transport::Tcp => config.outgoing_tcp,
            Transport::Udp => config.outgoing_udp,
        };
        self.asks(to) || (wanted && !self.is_near(to.ip()))
    }

    /// Whether this namespace leads there itself, and the target's does not.
    fn is_near(&self, ip: IpAddr) -> bool {
        let within = |subnets: &[Subnet]| subnets.iter().any(|subnet| subnet.contains(ip));
        ip.is_loopback() || (within(&self.near) && !within(&self.homes.borrow()))
    }

    /// Whether the target answers for names there.
    pub(crate) fn asks(&self, to: SocketAddr) -> bool {
        let names = self.names();
        names.answers_at(to) || self.replaces(&names, to)
    }

    /// Whether a name server of this machine is there, for which the target's answers.
    pub(crate) fn stands_in(&self, to: SocketAddr) -> bool {
        self.replaces(&self.names(), to)
    }

    /// Where the agent shall send what the app sends to `to`.
    pub(crate) fn remote(&self, to: SocketAddr) -> SocketAddr {
        let names = self.names();
        match names.nameservers.first() {
            Some(first) if self.replaces(&names, to) => SocketAddr::new(*first, to.port()),
            _ => names.remote(to),
        }
    }

    fn replaces(&self, names: &Names, to: SocketAddr) -> bool {
        to.port() == crate::names::DNS_PORT
            && !names.nameservers.is_empty()
            && !names.nameservers.contains(&to.ip())
            && self.replaced.contains(&to.ip())
    }

    /// The tunnel that the app's traffic takes, within a while.
    pub(crate) async fn tunnel(&self) -> Option<Tunnel> {
        tokio::time::timeout(GRACE, self.link.tunnel()).await.ok()?
    }

    /// A slot for these two; an errno if none can be had.
    pub(crate) fn lease(&self, ends: Ends) -> Result<Lease, Errno> {
        self.lease_with(|_| Ok((ends, ()))).map(|(lease, ())| lease)
    }

    /// The same where the ends depend on the slot; gives what `ends` found as well.
    pub(crate) fn lease_with<T>(
        &self,
        ends: impl FnOnce(Slot) -> Result<(Ends, T), Errno>,
    ) -> Result<(Lease, T), Errno> {
        let Some(lease) = self.slots.take() else {
            if !self.told.replace(true) {
                let message = "the app has more connections than the layer can tell apart: \
                               the next ones are refused";
                say(&ProxyEvent::Warning { message: message.to_owned() });
            }
            return Err(Errno(libc::EADDRNOTAVAIL));
        };
        let (ends, found) = ends(lease.slot())?;
        written(self.memory.set_slot(lease.slot(), ends))?;
        Ok((lease, found))
    }
}

/// A write to the shared memory as the app sees it.
pub(crate) fn written<T>(result: Result<T, MemoryError>) -> Result<T, Errno> {
    result.map_err(|error| {
        warn!(error = format!("{:#}", anyhow::Error::new(error)), "the shared memory is full");
        Errno(libc::ENOMEM)
    })
}

/// As the tunnel names it.
pub(crate) fn protocol(transport: Transport) -> Protocol {
    match transport {
        Transport::Tcp => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
    }
}
