//! What a service says of its network, as the sidecar is told it.

use mirrord_compose::{Joined, Part, Port};
use serde_json::Value;

use crate::docker_run::Rehomed;
use crate::docker_run::network::{self, Attachment};
use crate::docker_run::ports::{ContainerPort, Published, expose};
use crate::docker_run::rehome::RehomeError;
use crate::failure::Failure;

/// Of a definition; its networks have the names of the compose file.
pub fn of(definition: &Value) -> Result<Rehomed, Failure> {
    let wrong = |error: &dyn std::error::Error| {
        Failure::caused_by("compose tells of the service what we do not understand", error)
    };
    let part = Part::of(definition).map_err(|error| wrong(&error))?;
    let networks = match definition.get("network_mode").and_then(Value::as_str) {
        None => part.networks.into_iter().map(attachment).collect(),
        Some(mode) => {
            let networks = vec![of_mode(mode)];
            network::check(&networks).map_err(RehomeError::Network)?;
            networks
        }
    };
    let mut exposed = Vec::new();
    for port in &part.expose {
        exposed.extend(expose(port).map_err(|error| wrong(&error))?);
    }
    Ok(Rehomed {
        published: part.ports.into_iter().map(published).collect(),
        exposed,
        networks,
        hostname: part.hostname,
        domainname: part.domainname,
        dns: part.dns,
        dns_options: part.dns_opt,
        dns_search: part.dns_search,
        hosts: part.extra_hosts,
        sysctls: part.sysctls,
        ..Rehomed::default()
    })
}

fn of_mode(mode: &str) -> Attachment {
    let name = match mode.split_once(':') {
        Some(("service", other)) => format!("container:{other}"),
        _ => mode.to_owned(),
    };
    Attachment { name, ..Attachment::default() }
}

fn published(port: Port) -> Published {
    Published {
        container: ContainerPort { number: port.target, protocol: port.protocol },
        host_ip: port.host_ip,
        host_port: port.published,
    }
}

fn attachment(network: Joined) -> Attachment {
    Attachment {
        name: network.key,
        aliases: network.aliases,
        links: Vec::new(),
        ip: network.ipv4,
        ip6: network.ipv6,
        mac: network.mac,
        link_local: network.link_local,
        driver_options: network.driver_opts.into_iter().collect(),
        gateway_priority: network.gw_priority,
    }
}
