//! The namespace owner's flags in the engine's own words.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, NetworkingConfig,
    PortBinding, PortMap,
};
use mirrord_protocol::control::DNS_VIA_PROXY;

use crate::docker_run::Rehomed;
use crate::docker_run::network::Attachment;
use crate::docker_run::ports::ContainerPort;

/// Puts the flags into the body that creates the sidecar.
pub fn apply(
    rehomed: &Rehomed,
    image_ports: &[String],
    remote_dns: bool,
    body: &mut ContainerCreateBody,
) {
    let mut exposed: Vec<String> = rehomed
        .published
        .iter()
        .map(|published| &published.container)
        .chain(&rehomed.exposed)
        .map(ContainerPort::to_string)
        .chain(image_ports.iter().cloned())
        .collect();
    exposed.sort();
    exposed.dedup();
    body.exposed_ports = (!exposed.is_empty()).then_some(exposed);
    body.domainname = rehomed.domainname.clone().or(body.domainname.take());
    body.hostname = rehomed.hostname.clone().or(body.hostname.take());
    let host = body.host_config.get_or_insert_default();
    apply_to_host(rehomed, remote_dns, host);
    let mut endpoints: HashMap<String, EndpointSettings> = HashMap::new();
    for network in &rehomed.networks {
        endpoints.insert(network.name.clone(), endpoint(network, rehomed.name.as_ref()));
    }
    if !endpoints.is_empty() {
        body.networking_config = Some(NetworkingConfig { endpoints_config: Some(endpoints) });
    }
}

fn apply_to_host(rehomed: &Rehomed, remote_dns: bool, host: &mut HostConfig) {
    let filled = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    host.port_bindings = bindings(rehomed);
    host.publish_all_ports = rehomed.publish_all.then_some(true);
    host.network_mode = Some(
        rehomed.networks.first().map_or_else(|| "default".to_owned(), |first| first.name.clone()),
    );
    host.links = filled(&rehomed.links);
    host.dns = filled(&dns(rehomed, remote_dns));
    host.dns_options = filled(&rehomed.dns_options);
    host.dns_search = filled(&rehomed.dns_search);
    let hosts: Vec<String> =
        rehomed.hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect();
    host.extra_hosts = filled(&hosts);
    host.sysctls.get_or_insert_default().extend(rehomed.sysctls.iter().cloned());
}

/// On a network that somebody made, Docker's own server answers its names and hands the others
/// on: to the proxy, unless the user named servers or wants none of the target's.
fn dns(rehomed: &Rehomed, remote_dns: bool) -> Vec<String> {
    let embedded = rehomed.networks.iter().any(Attachment::user_defined);
    match rehomed.dns.as_slice() {
        [] if embedded && remote_dns => vec![DNS_VIA_PROXY.to_string()],
        servers => servers.to_vec(),
    }
}

fn bindings(rehomed: &Rehomed) -> Option<PortMap> {
    let mut bindings = PortMap::new();
    for published in &rehomed.published {
        let binding = PortBinding {
            host_ip: Some(published.host_ip.clone()),
            host_port: Some(published.host_port.clone()),
        };
        let list = bindings.entry(published.container.to_string()).or_default();
        list.get_or_insert_default().push(binding);
    }
    (!bindings.is_empty()).then_some(bindings)
}

/// One network's settings. Where docker serves names, the container's own is the sidecar's too.
pub fn endpoint(network: &Attachment, name: Option<&String>) -> EndpointSettings {
    let filled = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let addressed = network.ip.is_some() || network.ip6.is_some() || !network.link_local.is_empty();
    let name = name.filter(|_| network.user_defined());
    let aliases: Vec<String> = network.aliases.iter().chain(name).cloned().collect();
    let options: HashMap<String, String> = network.driver_options.clone().into_iter().collect();
    EndpointSettings {
        ipam_config: addressed.then(|| EndpointIpamConfig {
            ipv4_address: network.ip.clone(),
            ipv6_address: network.ip6.clone(),
            link_local_ips: filled(&network.link_local),
        }),
        links: filled(&network.links),
        mac_address: network.mac.clone(),
        aliases: filled(&aliases),
        driver_opts: (!options.is_empty()).then_some(options),
        gw_priority: network.gateway_priority,
        ..EndpointSettings::default()
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::docker_run::parse::{self, Line};
    use crate::docker_run::rehome;

    fn body(line: &str) -> serde_json::Value {
        body_with(line, true)
    }

    fn body_with(line: &str, remote_dns: bool) -> serde_json::Value {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let Ok(Line::Run(run)) = parse::line(&crate::docker_run::client::DOCKER, &words) else {
            panic!("{line}")
        };
        let (rehomed, _) = rehome::rehome(&run).expect(line);
        let mut body = ContainerCreateBody::default();
        apply(&rehomed, &["7000/tcp".to_owned()], remote_dns, &mut body);
        serde_json::to_value(body).expect("JSON")
    }

    #[test]
    fn ports_are_bound_and_exposed() {
        let body = body("run -p 8080:80 -p 127.0.0.1::53/udp --expose 9 img");
        let host = &body["HostConfig"];
        assert_eq!(host["PortBindings"]["80/tcp"][0]["HostPort"], "8080");
        assert_eq!(host["PortBindings"]["53/udp"][0]["HostIp"], "127.0.0.1");
        for port in ["80/tcp", "53/udp", "9/tcp", "7000/tcp"] {
            assert!(body["ExposedPorts"][port].is_object(), "{port}: {body}");
        }
        assert_eq!(host["NetworkMode"], "default");
    }

    #[test]
    fn dockers_own_names_lead_to_the_proxy_for_the_rest() {
        let dns = |line: &str| body(line)["HostConfig"]["Dns"].clone();
        assert_eq!(dns("run --network shop img")[0], DNS_VIA_PROXY.to_string());
        assert_eq!(dns("run --network shop --dns 1.1.1.1 img")[0], "1.1.1.1");
        assert!(dns("run img").is_null());
        assert!(dns("run --network bridge img").is_null());
    }

    #[test]
    fn without_remote_dns_the_users_servers_or_dockers_own_are_asked() {
        let dns = |line: &str| body_with(line, false)["HostConfig"]["Dns"].clone();
        assert!(dns("run --network shop img").is_null());
        assert_eq!(dns("run --network shop --dns 1.1.1.1 img")[0], "1.1.1.1");
    }

    #[test]
    fn networks_keep_their_order_and_settings() {
        let body = body("run --network shop --network-alias web --ip 10.1.0.9 --network back img");
        assert_eq!(body["HostConfig"]["NetworkMode"], "shop");
        let endpoints = &body["NetworkingConfig"]["EndpointsConfig"];
        assert_eq!(endpoints["shop"]["Aliases"][0], "web");
        assert_eq!(endpoints["shop"]["IPAMConfig"]["IPv4Address"], "10.1.0.9");
        assert!(endpoints["back"].is_object());
    }
}
