//! Makes the namespace the target's: steering, then names; then the capabilities that did it go.

use std::fs;
use std::net::IpAddr;
use std::rc::Rc;

use anyhow::Context;
use mirrord_netns::addresses::addresses;
use mirrord_netns::listeners::Scanner;
use mirrord_netns::plane::DOCKER_DNS;
use mirrord_netns::privileges::{Capability, keep_only, marks_need_net_admin};
use mirrord_netns::spoof::UdpSender;
use mirrord_netns::{MARK_DIRECT, MARK_TO_APP, Plan, Plane, Subnet};
use mirrord_protocol::control::ProxyConfig;
use mirrord_protocol::frame::Description;

use crate::names::{self, Names};

/// What stands once the namespace is the target's.
pub(crate) struct Applied {
    /// Redirects as long as it lives.
    pub(crate) plane: Plane,
    /// To the app, as whoever sent it.
    pub(crate) sender: UdpSender,
    /// To the clients of published ports.
    pub(crate) direct: UdpSender,
    /// This namespace's own addresses, those of loopback left out.
    pub(crate) own: Vec<IpAddr>,
    pub(crate) names: Rc<Names>,
}

/// Sets up everything that the app must find when it starts.
pub(crate) async fn apply(
    config: &ProxyConfig,
    description: &Description,
) -> anyhow::Result<(Applied, Scanner)> {
    let mut scanner = Scanner::open().context("looking for listening sockets")?;
    let sockets = scanner.scan().context("looking for listening sockets")?;
    let embedded = sockets.iter().any(|socket| socket.address.ip() == DOCKER_DNS);
    let nameservers = match config.remote_dns {
        true => names::nameservers(&String::from_utf8_lossy(&description.resolv_conf)),
        false => Vec::new(),
    };
    let names = Rc::new(Names { nameservers, embedded });
    let own = addresses().context("looking for our own addresses")?;
    let own = own.into_iter().filter(|address| !address.loopback).map(|own| own.ip).collect();
    let plane =
        plan(config, description, &names).apply().await.context("steering the app's traffic")?;
    if config.remote_dns && !description.resolv_conf.is_empty() {
        write("/etc/resolv.conf", &description.resolv_conf)?;
    }
    write("/etc/hosts", &names::hosts(&config.hosts, &description.hosts))?;
    let sender = UdpSender::open(MARK_TO_APP).context("opening a raw socket")?;
    let direct = UdpSender::open(MARK_DIRECT).context("opening a raw socket")?;
    give_up_capabilities()?;
    Ok((Applied { plane, sender, direct, own, names }, scanner))
}

fn plan(config: &ProxyConfig, description: &Description, names: &Names) -> Plan {
    let addresses = &description.addresses;
    let mut identity_subnets: Vec<Subnet> =
        addresses.iter().map(|&(address, prefix)| Subnet { address, prefix }).collect();
    // A name server of the target may have an address that is connected here.
    identity_subnets.extend(
        names
            .nameservers
            .iter()
            .filter(|ip| !ip.is_loopback())
            .map(|&address| Subnet { address, prefix: if address.is_ipv4() { 32 } else { 128 } }),
    );
    Plan {
        identity: addresses.iter().map(|(address, _)| *address).collect(),
        identity_subnets,
        loopback_nameservers: names
            .nameservers
            .iter()
            .copied()
            .filter(|ip| ip.is_loopback())
            .collect(),
        steer_tcp: config.outgoing_tcp,
        // The app's answers to the tunnel's clients come this way as well.
        steer_udp: true,
    }
}

/// In place: the engine has mounted these very files into the app as well.
fn write(path: &str, content: &[u8]) -> anyhow::Result<()> {
    fs::write(path, content).with_context(|| format!("writing {path}"))
}

fn give_up_capabilities() -> anyhow::Result<()> {
    let mut keep = vec![Capability::NetRaw];
    if marks_need_net_admin() {
        keep.push(Capability::NetAdmin);
    }
    keep_only(&keep).context("giving up capabilities")
}
