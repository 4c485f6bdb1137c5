//! The namespace as the targets' place: steering, then names; then the capabilities that did it go,
//! but for those with which it can follow a target that moves.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::rc::{Rc, Weak};

use anyhow::Context;
use mirrord_netns::addresses::addresses;
use mirrord_netns::calls::{Call, Heard};
use mirrord_netns::listeners::Scanner;
use mirrord_netns::plane::DOCKER_DNS;
use mirrord_netns::privileges::{Capability, has, keep_only, marks_need_net_admin};
use mirrord_netns::spoof::PacketSender;
use mirrord_netns::{Datagram, MARK_DIRECT, MARK_TO_APP, Plan, Plane, Subnet};
use mirrord_protocol::control::{Agents, ProxyConfig};
use mirrord_protocol::frame::Description;
use mirrord_tunnel::datagrams::Readiness;
use tokio::task::JoinSet;
use tracing::warn;

use super::Files;
use crate::datagrams::Datagrams;
use crate::limits;
use crate::link::Link;
use crate::names::{Names, nameservers};
use crate::outgoing::Outgoing;
use crate::ports;

/// What stands once the namespace is the targets'.
pub(crate) struct Netns {
    /// Redirects as long as it lives.
    plane: RefCell<Plane>,
    plan: RefCell<Plan>,
    names: RefCell<Rc<Names>>,
    files: RefCell<Files>,
    /// To the app, as whoever sent it.
    pub(crate) sender: PacketSender,
    /// To the clients of published ports.
    pub(crate) direct: PacketSender,
    /// This namespace's own addresses, those of loopback left out.
    pub(crate) own: Vec<IpAddr>,
}

impl Netns {
    /// Steers the app's traffic, and serves it in `tasks`.
    pub(crate) async fn take(
        link: &Rc<Link>,
        targets: &[&Description],
        tasks: &mut JoinSet<anyhow::Error>,
    ) -> anyhow::Result<Rc<Self>> {
        let (place, scanner) = Self::set_up(&link.config, targets).await?;
        let place = Rc::new(place);
        place.clone().start(link, scanner, tasks)?;
        Ok(place)
    }

    async fn set_up(
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
        let sender = PacketSender::open(MARK_TO_APP).context("opening a raw socket")?;
        let direct = PacketSender::open(MARK_DIRECT).context("opening a raw socket")?;
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

    fn start(
        self: Rc<Self>,
        link: &Rc<Link>,
        scanner: Scanner,
        tasks: &mut JoinSet<anyhow::Error>,
    ) -> anyhow::Result<()> {
        let outgoing = Outgoing::new(link.clone(), self.clone());
        for listener in self.listeners()? {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tasks.spawn_local(outgoing.clone().accept(listener));
        }
        if let Some(calls) = self.plane.borrow().calls() {
            link.tasks.spawn_local(limits::watch());
            tasks.spawn_local(outgoing.hear(Readiness::of(calls)?));
        }
        let datagrams = Datagrams::new(link.clone(), self.clone());
        let reception: Weak<Datagrams> = Rc::downgrade(&datagrams);
        link.set_reception(reception);
        for (index, readiness) in self.readiness()?.into_iter().enumerate() {
            tasks.spawn_local(datagrams.clone().receive(index, readiness));
        }
        tasks.spawn_local(datagrams.expire());
        tasks.spawn_local(ports::watch(link.clone(), scanner, self.own_sockets()));
        Ok(())
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

    /// The app's next connection, as it begins, or echo request.
    pub(crate) fn next_call(&self) -> io::Result<Heard> {
        self.plane.borrow().calls().ok_or(io::ErrorKind::Unsupported)?.next()
    }

    /// Lets the app be connected: the far side is.
    pub(crate) fn admit(&self, call: &Call) -> anyhow::Result<()> {
        self.plane.borrow_mut().admit(call)?;
        Ok(self.sender.repeat(call)?)
    }

    /// It is, or has given up.
    pub(crate) fn settle(&self, call: &Call) {
        if let Err(error) = self.plane.borrow_mut().settle(call) {
            warn!(%error, "a connection of the app stays admitted");
        }
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

fn give_up_capabilities(agents: Agents, plane: &mut Plane) -> anyhow::Result<()> {
    let mut keep = vec![Capability::NetRaw];
    let moves = matches!(agents, Agents::Handed(_));
    if moves || marks_need_net_admin() {
        keep.push(Capability::NetAdmin);
    }
    if (moves || plane.calls().is_some()) && plane.changes_need_bpf() {
        let knows_bpf = has(Capability::Bpf);
        keep.push(if knows_bpf { Capability::Bpf } else { Capability::SysAdmin });
    }
    keep_only(&keep).context("giving up capabilities")
}
