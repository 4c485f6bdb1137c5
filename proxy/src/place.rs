//! Makes the namespace the targets' place: steering, then names; then the capabilities that did it
//! go, but for those with which it can follow a target that moves.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::rc::Rc;

use anyhow::Context;
use bytes::Bytes;
use mirrord_netns::addresses::addresses;
use mirrord_netns::listeners::Scanner;
use mirrord_netns::plane::DOCKER_DNS;
use mirrord_netns::privileges::{Capability, has, keep_only, marks_need_net_admin};
use mirrord_netns::spoof::UdpSender;
use mirrord_netns::{Datagram, MARK_DIRECT, MARK_TO_APP, Plan, Plane, Subnet};
use mirrord_protocol::control::{Agents, ProxyConfig};
use mirrord_protocol::frame::Description;
use mirrord_tunnel::datagrams::Readiness;

use crate::names::{self, Names};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// What stands once the namespace is the targets'.
pub(crate) struct Place {
    /// Redirects as long as it lives.
    plane: RefCell<Plane>,
    plan: RefCell<Plan>,
    names: RefCell<Rc<Names>>,
    files: RefCell<Files>,
    /// To the app, as whoever sent it.
    pub(crate) sender: UdpSender,
    /// To the clients of published ports.
    pub(crate) direct: UdpSender,
    /// This namespace's own addresses, those of loopback left out.
    pub(crate) own: Vec<IpAddr>,
}

/// What the app's resolver reads; what is absent stays as the engine made it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Files {
    resolv_conf: Option<Bytes>,
    hosts: Vec<u8>,
}

impl Place {
    /// Sets up everything that the app must find when it starts. The first target's addresses are
    /// where the app's connections come from, and its names are the app's.
    pub(crate) async fn take(
        config: &ProxyConfig,
        targets: &[&Description],
    ) -> anyhow::Result<(Self, Scanner)> {
        let mut scanner = Scanner::open().context("looking for listening sockets")?;
        let sockets = scanner.scan().context("looking for listening sockets")?;
        let embedded = sockets.iter().any(|socket| socket.address.ip() == DOCKER_DNS);
        let names = Names { nameservers: nameservers(config, targets), embedded };
        let own = addresses().context("looking for our own addresses")?;
        let own = own.into_iter().filter(|address| !address.loopback).map(|own| own.ip).collect();
        let plan = plan(config, targets, &names);
        let mut plane = plan.apply().await.context("steering the app's traffic")?;
        let files = Files::of(config, targets);
        files.write(None)?;
        let sender = UdpSender::open(MARK_TO_APP).context("opening a raw socket")?;
        let direct = UdpSender::open(MARK_DIRECT).context("opening a raw socket")?;
        give_up_capabilities(config.agents, &mut plane)?;
        let place = Self {
            plane: plane.into(),
            plan: plan.into(),
            names: RefCell::new(Rc::new(names)),
            files: files.into(),
            sender,
            direct,
            own,
        };
        Ok((place, scanner))
    }

    /// Follows targets that have moved, or that are new; nothing if they are as before.
    pub(crate) fn change(
        &self,
        config: &ProxyConfig,
        targets: &[&Description],
    ) -> anyhow::Result<()> {
        let embedded = self.names().embedded;
        let names = Names { nameservers: nameservers(config, targets), embedded };
        let plan = plan(config, targets, &names);
        if *self.plan.borrow() != plan {
            self.plane.borrow_mut().change(&plan).context("steering the app's traffic")?;
            self.plan.replace(plan);
        }
        self.names.replace(Rc::new(names));
        let files = Files::of(config, targets);
        files.write(Some(&self.files.borrow()))?;
        self.files.replace(files);
        Ok(())
    }

    /// Who answers for names now.
    pub(crate) fn names(&self) -> Rc<Names> {
        self.names.borrow().clone()
    }

    /// The sockets that take the app's connections.
    pub(crate) fn listeners(&self) -> io::Result<Vec<TcpListener>> {
        self.plane.borrow().tcp().iter().map(TcpListener::try_clone).collect()
    }

    /// What tells that the app has sent datagrams; one for each socket, in their order.
    pub(crate) fn readiness(&self) -> io::Result<Vec<Readiness>> {
        self.plane.borrow().udp().iter().map(Readiness::of).collect()
    }

    /// The app's next datagram from one of the sockets.
    pub(crate) fn receive(&self, socket: usize, buffer: &mut [u8]) -> io::Result<Datagram> {
        self.plane.borrow().udp()[socket].recv(buffer)
    }

    /// Cookies of our sockets, by which a scan tells them from the app's.
    pub(crate) fn own_sockets(&self) -> Vec<u64> {
        self.plane.borrow().own_sockets().to_vec()
    }
}

fn nameservers(config: &ProxyConfig, targets: &[&Description]) -> Vec<IpAddr> {
    match targets.first() {
        Some(first) if config.remote_dns => {
            names::nameservers(&String::from_utf8_lossy(&first.resolv_conf))
        }
        _ => Vec::new(),
    }
}

fn plan(config: &ProxyConfig, targets: &[&Description], names: &Names) -> Plan {
    let addresses = || targets.iter().flat_map(|target| &target.addresses);
    let mut identity: Vec<IpAddr> = Vec::new();
    for (address, _) in addresses() {
        if !identity.contains(address) {
            identity.push(*address);
        }
    }
    let mut identity_subnets: Vec<Subnet> =
        addresses().map(|&(address, prefix)| Subnet { address, prefix }).collect();
    let (loopback, others): (Vec<IpAddr>, Vec<IpAddr>) =
        names.nameservers.iter().partition(|ip| ip.is_loopback());
    // A name server of the target may have an address that is connected here.
    identity_subnets.extend(others.into_iter().map(Subnet::host));
    Plan {
        identity,
        identity_subnets,
        loopback_nameservers: loopback,
        steer_tcp: config.outgoing_tcp,
        // The app's answers to the tunnel's clients come this way as well.
        steer_udp: true,
    }
}

impl Files {
    fn of(config: &ProxyConfig, targets: &[&Description]) -> Self {
        let Some(first) = targets.first() else { return Self::default() };
        let wanted = config.remote_dns && !first.resolv_conf.is_empty();
        Self {
            resolv_conf: wanted.then(|| first.resolv_conf.clone()),
            hosts: names::hosts(&config.hosts, &first.hosts),
        }
    }

    /// Writes what differs. In place: the engine has mounted these very files into the app as well.
    fn write(&self, before: Option<&Self>) -> anyhow::Result<()> {
        if let Some(resolv_conf) = &self.resolv_conf
            && before.is_none_or(|before| before.resolv_conf != self.resolv_conf)
        {
            fs::write(RESOLV_CONF, resolv_conf)
                .with_context(|| format!("writing {RESOLV_CONF}"))?;
        }
        if before.is_none_or(|before| before.hosts != self.hosts) {
            fs::write(HOSTS, &self.hosts).with_context(|| format!("writing {HOSTS}"))?;
        }
        Ok(())
    }
}

fn give_up_capabilities(agents: Agents, plane: &mut Plane) -> anyhow::Result<()> {
    let mut keep = vec![Capability::NetRaw];
    let moves = matches!(agents, Agents::Handed(_));
    if moves || marks_need_net_admin() {
        keep.push(Capability::NetAdmin);
    }
    if moves && plane.changes_need_bpf() {
        let knows_bpf = has(Capability::Bpf);
        keep.push(if knows_bpf { Capability::Bpf } else { Capability::SysAdmin });
    }
    keep_only(&keep).context("giving up capabilities")
}
