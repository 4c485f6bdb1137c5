//! What is around the app's processes on this machine.

use std::fs;
use std::net::IpAddr;

use anyhow::Context;
use mirrord_netns::Subnet;
use mirrord_netns::addresses::{InterfaceAddress, addresses};
use mirrord_netns::listeners::Scanner;
use mirrord_netns::plane::DOCKER_DNS;
use mirrord_protocol::control::LayerConfig;

use crate::names::listed;

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What is here whoever the target is.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    /// Whether Docker's embedded name server is in this namespace.
    pub(crate) embedded: bool,
    /// The name servers of this machine: to the app they are the target's.
    pub(crate) replaced: Vec<IpAddr>,
    /// What this namespace reaches by itself.
    pub(crate) near: Vec<Subnet>,
}

impl Surroundings {
    /// Looks around.
    pub(crate) fn find(config: &LayerConfig, scanner: &mut Scanner) -> anyhow::Result<Self> {
        let sockets = scanner.scan().context("looking for listening sockets")?;
        let replaced = match config.owns_etc {
            true => Vec::new(),
            false => fs::read_to_string(RESOLV_CONF).map_or(Vec::new(), |text| listed(&text)),
        };
        let addresses = addresses().context("looking for our own addresses")?;
        Ok(Self {
            embedded: config.owns_etc
                && sockets.iter().any(|socket| socket.address.ip() == DOCKER_DNS),
            replaced,
            near: near(&addresses, config.owns_etc),
        })
    }
}

/// A session's own namespace is connected to the app's peers alone; a machine is to much that may
/// mean something else at the target, and is itself only where its addresses are.
fn near(addresses: &[InterfaceAddress], own_namespace: bool) -> Vec<Subnet> {
    let links = addresses.iter().filter(|address| !address.loopback);
    let subnets = links.map(|address| match own_namespace {
        true => Subnet { address: address.ip, prefix: address.prefix },
        false => Subnet::host(address.ip),
    });
    subnets.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_near_in_a_namespace_of_ones_own_and_a_machine_is_only_itself() {
        let address = |ip: &str, loopback| InterfaceAddress {
            name: "x".into(),
            index: 1,
            ip: ip.parse().unwrap(),
            prefix: 16,
            loopback,
            label: None,
        };
        let addresses = [address("127.0.0.1", true), address("172.18.0.9", false)];
        let ip = "172.18.0.9".parse().unwrap();
        assert_eq!(near(&addresses, true), [Subnet { address: ip, prefix: 16 }]);
        assert_eq!(near(&addresses, false), [Subnet::host(ip)]);
    }
}
