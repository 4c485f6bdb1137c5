//! The sidecar's side: what leaves by the default route is delivered to the proxy instead.
//!
//! ```text
//! pref  500  fwmark 2                        lookup T       the app's replies to what the proxy connected
//! pref  510  fwmark 1                        lookup main    the proxy's own direct sockets
//! pref  520  from OWN                        lookup main    replies to peers and through published ports
//! pref  540  ipproto tcp|udp to SHARED       lookup T       subnets connected here and at the target
//! pref  890  to MULTICAST                    lookup main    multicast and broadcast stay on our own links
//! pref  900  lookup main suppress_prefixlength 0            connected subnets stay direct
//! pref 1000  ipproto tcp|udp                 lookup T       the rest
//! pref 1010  ipproto icmp                    lookup S       echo requests are seen, and not answered
//!                                                           here; of IPv6: unreachable
//! pref 1020                                  unreachable    no other protocol is carried
//! table T    local default dev lo src IDENTITY
//! table S    default dev lo
//! ```
//!
//! Only lookups that name TCP or UDP reach T, so that the kernel does not take an ARP request for
//! any address as one for its own. Were ICMP left to T, every ping would be answered by this very
//! namespace; were it left to main, errors about the target's connections would leave from here with
//! the target's address. A packet that S sends to the loopback device comes back, is seen by
//! [`Calls`], and goes nowhere, since its route is none that is delivered.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, TcpListener},
    os::fd::AsFd,
};

use socket2::{Domain, SockRef};

use crate::{
    BpfError, Proto,
    addresses::{self, InterfaceAddress},
    calls::{Call, Calls, Silent},
    sk_lookup::{AddressKey, ConnectionKey, Lookup, SkLookupError, Sockets, is_missing_family},
    steered::SteeredUdp,
};

mod change;
mod entries;
mod live;
mod objects;
mod rule;
mod subnet;

pub use change::ChangeError;
use change::{Change, Kernel, Object, Undo};
use entries::Entries;
pub use subnet::Subnet;

/// Source address of the proxy's own queries to Docker's embedded DNS server; never steered.
pub const PROXY_DNS_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 12);

/// Namespaced settings that the sidecar's container must be created with, because `/proc/sys` is
/// read-only inside it.
pub const SIDECAR_SYSCTLS: &[(&str, &str)] = &[
    // An accepted socket keeps the mark of its SYN: rule 500 finds the app's replies.
    ("net.ipv4.tcp_fwmark_accept", "1"),
    // So does a reset by a port that nobody listens on.
    ("net.ipv4.fwmark_reflect", "1"),
    // The target's address, which stands on lo, is never answered for on our own links...
    ("net.ipv4.conf.all.arp_ignore", "1"),
    // ... nor named in our requests.
    ("net.ipv4.conf.all.arp_announce", "2"),
];

/// Table T.
pub const TABLE: u32 = 28_018;

/// Table S.
const SHOWN: u32 = 28_019;

/// The protocol number by which our rules and routes are known.
const OWNER: u8 = 109;

/// The label by which our addresses are known.
const LABEL: &str = "lo:mirrord";

/// Docker's embedded DNS server. Docker rewrites its port 53 to that of a socket which dockerd itself
/// opens in the namespace: a scan finds that socket too, and it is not the app's.
pub const DOCKER_DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

static PROGRAM: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steer.o"));

/// What the namespace shall look like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The target's addresses: put on `lo`; the first of a family is what the app's connections
    /// come from.
    pub identity: Vec<IpAddr>,
    /// The target's connected subnets. Where ours overlap with them, the tunnel wins.
    pub identity_subnets: Vec<Subnet>,
    /// The target's name servers in 127/8: their port 53 is steered as well, unless the packet
    /// comes from [`PROXY_DNS_SOURCE`].
    pub loopback_nameservers: Vec<IpAddr>,
    /// Whether TCP is steered; otherwise it goes out directly.
    pub steer_tcp: bool,
    /// Whether UDP is steered; otherwise it goes out directly, the app's replies to datagrams
    /// from the tunnel included.
    pub steer_udp: bool,
}

/// Why a plan could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// There is nobody to stand in for.
    #[error("the target has no address")]
    NoIdentity,
    /// An address that no target can have.
    #[error("{0} cannot be the target's address")]
    BadIdentity(IpAddr),
    /// The sidecar's own network uses the target's address.
    #[error("the target's address {0} is also an address of the sidecar's own network")]
    AddressInUse(IpAddr),
    /// A prefix longer than its address.
    #[error("{}/{} is not a subnet", .0.address, .0.prefix)]
    BadSubnet(Subnet),
    /// A name server that is reached by routing and needs no exception.
    #[error("{0} is not a loopback address")]
    BadNameserver(IpAddr),
    /// The container was created without a setting of [`SIDECAR_SYSCTLS`].
    #[error("{name} is {found} and must be {expected}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What it is.
        found: String,
        /// What it must be.
        expected: &'static str,
    },
    /// The namespace could not be read.
    #[error("cannot read the network namespace")]
    Read(#[source] io::Error),
    /// The namespace could not be changed.
    #[error("cannot redirect the network namespace")]
    Change(#[from] ChangeError),
    /// The program could not be attached.
    #[error("cannot steer the app's connections")]
    Steer(#[from] SkLookupError),
    /// A plane's sockets are what they were made for.
    #[error("the protocols that are steered cannot change")]
    Protocols,
    /// It failed, and so did taking back what was done.
    #[error("cannot redirect the network namespace, and {} changes remain", .left.len())]
    NotUndone {
        /// The first failure.
        #[source]
        source: Box<PlaneError>,
        /// What could not be taken back.
        left: Vec<ChangeError>,
    },
}

/// An applied plan.
///
/// Rules, routes and addresses stay with the namespace; the program and the sockets are owned
/// here, and the kernel detaches them when this is dropped or the process dies. Until the next
/// plane is applied, the app's connections then wait: nobody answers them, nor do they reach an
/// app that listens on every address, because it cannot answer for an address which is not ours.
#[derive(Debug)]
pub struct Plane {
    sockets: Sockets,
    calls: Option<Calls>,
    _silent: Vec<Silent>,
    own_sockets: Vec<u64>,
    lookup: Lookup,
    entries: Entries,
    steered: Vec<Proto>,
}

impl Plan {
    /// Makes the calling thread's network namespace look like this, or leaves it as it was.
    ///
    /// What a killed predecessor left is kept where it fits and replaced where it does not.
    pub async fn apply(&self) -> Result<Plane, PlaneError> {
        let mut kernel = Kernel::open().map_err(PlaneError::Read)?;
        let present = addresses::list(&mut kernel.netlink).map_err(PlaneError::Read)?;
        self.validate(&present)?;
        let mut undo = Undo::default();
        match self.apply_to(&mut kernel, &present, &mut undo) {
            Ok(plane) => Ok(plane),
            Err(error) => {
                let left = undo.roll_back(&mut kernel);
                if left.is_empty() {
                    return Err(error);
                }
                Err(PlaneError::NotUndone { source: Box::new(error), left })
            }
        }
    }

    fn apply_to(
        &self,
        kernel: &mut Kernel,
        present: &[InterfaceAddress],
        undo: &mut Undo,
    ) -> Result<Plane, PlaneError> {
        let found = kernel.list().map_err(PlaneError::Read)?;
        let wanted = self.objects(present);
        let (stale_addresses, stale): (Vec<_>, Vec<_>) = found
            .iter()
            .filter(|object| !wanted.contains(object))
            .cloned()
            .partition(|object| matches!(object, Object::Address(_)));
        let missing = wanted.into_iter().filter(|object| !found.contains(object));
        let (rules, base): (Vec<_>, Vec<_>) =
            missing.partition(|object| matches!(object, Object::Rule(_)));
        for object in stale {
            undo.make(Change::Remove(object), kernel)?;
        }
        for object in base {
            undo.make(Change::Add(object), kernel)?;
        }
        let plane = self.steer(present)?;
        for object in rules {
            undo.make(Change::Add(object), kernel)?;
        }
        for object in stale_addresses {
            undo.make(Change::Remove(object), kernel)?;
        }
        Ok(plane)
    }

    /// Attaches the program. Until the rules stand, nothing reaches it.
    fn steer(&self, present: &[InterfaceAddress]) -> Result<Plane, SkLookupError> {
        let steered = self.steered();
        let sockets = Sockets::open(&steered).map_err(SkLookupError::Sockets)?;
        let silent = silent(&sockets)?;
        let cookies = silent.iter().map(|listener| SockRef::from(listener).cookie());
        let cookies = sockets
            .cookies()
            .and_then(|own| Ok([own, cookies.collect::<io::Result<_>>()?].concat()));
        let own_sockets = cookies.map_err(SkLookupError::Sockets)?;
        let entries = self.entries(present);
        let mut lookup = Lookup::load(PROGRAM, &sockets, &[])?;
        lookup.insert("exempt", AddressKey::from(IpAddr::from(PROXY_DNS_SOURCE)), 1)?;
        entries.insert(&mut lookup)?;
        for listener in &silent {
            lookup.silence_with(listener)?;
            lookup.filter("stray", listener.as_fd())?;
        }
        let calls = match silent.is_empty() {
            true => None,
            false => Some(hear(&lookup)?),
        };
        lookup.attach("steer")?;
        Ok(Plane { sockets, calls, _silent: silent, own_sockets, lookup, entries, steered })
    }

    fn steered(&self) -> Vec<Proto> {
        let tcp = self.steer_tcp.then_some(Proto::Tcp);
        let udp = self.steer_udp.then_some(Proto::Udp);
        tcp.into_iter().chain(udp).collect()
    }

    fn validate(&self, present: &[InterfaceAddress]) -> Result<(), PlaneError> {
        if self.identity.is_empty() {
            return Err(PlaneError::NoIdentity);
        }
        for ip in &self.identity {
            if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
                return Err(PlaneError::BadIdentity(*ip));
            }
            if present.iter().any(|address| address.ip == *ip && !address.loopback) {
                return Err(PlaneError::AddressInUse(*ip));
            }
        }
        if let Some(subnet) = self.identity_subnets.iter().find(|subnet| !subnet.is_valid()) {
            return Err(PlaneError::BadSubnet(*subnet));
        }
        if let Some(ip) = self.loopback_nameservers.iter().find(|ip| !ip.is_loopback()) {
            return Err(PlaneError::BadNameserver(*ip));
        }
        SIDECAR_SYSCTLS.iter().try_for_each(|(name, expected)| check_setting(name, expected))
    }
}

impl Plane {
    /// How the app's TCP connections begin, if they are steered. Each is to be admitted, or failed by
    /// [`PacketSender::fail`](crate::spoof::PacketSender::fail); until then the app waits.
    pub fn calls(&self) -> Option<&Calls> {
        self.calls.as_ref()
    }

    /// Has a connection go to the listeners, of which the far side has answered: its SYN must come
    /// again, by [`PacketSender::repeat`](crate::spoof::PacketSender::repeat).
    ///
    /// # Errors
    /// Too many are admitted, or the kernel wants [`Capability::Bpf`](crate::privileges::Capability)
    /// for it (see [`Plane::changes_need_bpf`]).
    pub fn admit(&mut self, call: &Call) -> Result<(), BpfError> {
        self.lookup.insert("admitted", ConnectionKey::from(call.flow()), 0)
    }

    /// Forgets that a connection was admitted, once it is accepted or given up.
    ///
    /// # Errors
    /// As [`Plane::admit`].
    pub fn settle(&mut self, call: &Call) -> Result<(), BpfError> {
        self.lookup.remove("admitted", ConnectionKey::from(call.flow()))
    }

    /// The listeners that receive the app's TCP connections, one per family. An accepted socket's
    /// peer is the app, its local address is where the app connected to.
    ///
    /// They cannot be reached by their own address: the program refuses that.
    pub fn tcp(&self) -> &[TcpListener] {
        &self.sockets.tcp
    }

    /// The sockets that receive the app's UDP datagrams, one per family.
    pub fn udp(&self) -> &[SteeredUdp] {
        &self.sockets.udp
    }

    /// Cookies of the sockets above, by which a scan tells them from the app's.
    pub fn own_sockets(&self) -> &[u64] {
        &self.own_sockets
    }
}

/// A listener that answers nobody beside each of those that do; for IPv6 only where loopback has it:
/// elsewhere nobody connects by it.
fn silent(sockets: &Sockets) -> Result<Vec<Silent>, SkLookupError> {
    let mut all = Vec::new();
    for listener in &sockets.tcp {
        let silent = listener.local_addr().map(Domain::for_address).and_then(Silent::open);
        match silent {
            Err(error) if is_missing_family(&error) => {}
            silent => all.push(silent.map_err(SkLookupError::Sockets)?),
        }
    }
    Ok(all)
}

/// From now on the app's connections are heard of.
fn hear(lookup: &Lookup) -> Result<Calls, SkLookupError> {
    let calls = Calls::open().map_err(SkLookupError::Sockets)?;
    lookup.filter("call", calls.as_fd())?;
    calls.start().map_err(SkLookupError::Sockets)?;
    Ok(calls)
}

fn check_setting(name: &'static str, expected: &'static str) -> Result<(), PlaneError> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    let found = fs::read_to_string(path).map_err(PlaneError::Read)?;
    if found.trim() == expected {
        return Ok(());
    }
    Err(PlaneError::Setting { name, found: found.trim().to_owned(), expected })
}
