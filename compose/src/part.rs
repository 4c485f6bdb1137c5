//! What of a service's definition belongs to the network that its container is in.

use serde_json::{Map, Value};

/// The keys of a service that the owner of a network has, and no container that joins it.
pub const KEYS: &[&str] = &[
    "dns",
    "dns_opt",
    "dns_search",
    "domainname",
    "expose",
    "extra_hosts",
    "hostname",
    "mac_address",
    "networks",
    "ports",
];

/// The networks, addresses, ports and names of a service, as compose resolves them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// Its networks, the first one first.
    pub networks: Vec<Joined>,
    /// Its published ports.
    pub ports: Vec<Port>,
    /// Its exposed ports: `80` or `53/udp`.
    pub expose: Vec<String>,
    /// Its host name.
    pub hostname: Option<String>,
    /// Its domain name.
    pub domainname: Option<String>,
    /// Its name servers.
    pub dns: Vec<String>,
    /// Options of its resolver.
    pub dns_opt: Vec<String>,
    /// Domains that its resolver tries.
    pub dns_search: Vec<String>,
    /// Names and addresses for its hosts file.
    pub extra_hosts: Vec<(String, String)>,
    /// Its kernel parameters of the network.
    pub sysctls: Vec<(String, String)>,
}

/// A network that a service is in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Joined {
    /// The network, as the project names it.
    pub key: String,
    /// Its names there.
    pub aliases: Vec<String>,
    /// Its address there.
    pub ipv4: Option<String>,
    /// Its IPv6 address there.
    pub ipv6: Option<String>,
    /// Its hardware address there.
    pub mac: Option<String>,
    /// Its link-local addresses there.
    pub link_local: Vec<String>,
    /// Options of the network's driver.
    pub driver_opts: Vec<(String, String)>,
    /// Which network's gateway is the default one.
    pub gw_priority: Option<i64>,
}

/// A published port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Port {
    /// The port inside.
    pub target: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The host's address; empty for all of them.
    pub host_ip: String,
    /// The host's port, a range to choose from, or empty for any.
    pub published: String,
}

/// Why a definition cannot be read: it is not one that compose resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} must be {expected}")]
pub struct PartError {
    /// The key.
    pub key: &'static str,
    /// What it may be.
    pub expected: &'static str,
}

impl Part {
    /// Of a service, as `docker compose config` or compose's protocol for providers tells it.
    ///
    /// # Errors
    /// A value is not of the kind that compose gives it.
    pub fn of(service: &Value) -> Result<Self, PartError> {
        let mut networks = networks(service)?;
        let mac = text(service, "mac_address")?;
        if let Some(first) = networks.first_mut() {
            first.mac = first.mac.take().or(mac);
        }
        Ok(Self {
            networks,
            ports: ports(service)?,
            expose: list(service, "expose")?,
            hostname: text(service, "hostname")?,
            domainname: text(service, "domainname")?,
            dns: list(service, "dns")?,
            dns_opt: list(service, "dns_opt")?,
            dns_search: list(service, "dns_search")?,
            extra_hosts: hosts(service)?,
            sysctls: sysctls(service)?,
        })
    }
}

/// The key's value, unless there is none.
fn get<'a>(service: &'a Value, key: &str) -> Option<&'a Value> {
    service.get(key).filter(|value| !value.is_null())
}

/// A string, or a number that stands for one.
fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn text(service: &Value, key: &'static str) -> Result<Option<String>, PartError> {
    let Some(value) = get(service, key) else { return Ok(None) };
    let text = word(value).ok_or(PartError { key, expected: "a string" })?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

fn list(service: &Value, key: &'static str) -> Result<Vec<String>, PartError> {
    let wrong = PartError { key, expected: "a list of strings" };
    match get(service, key) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => {
            items.iter().map(|item| word(item).ok_or_else(|| wrong.clone())).collect()
        }
        Some(one) => word(one).map(|one| vec![one]).ok_or(wrong),
    }
}

/// Pairs, as a map or as words with `=` (or `:`) in them.
fn pairs(service: &Value, key: &'static str) -> Result<Vec<(String, String)>, PartError> {
    let wrong = || PartError { key, expected: "a map of strings" };
    match get(service, key) {
        None => Ok(Vec::new()),
        Some(Value::Object(map)) => map
            .iter()
            .map(|(name, value)| word(value).map(|value| (name.clone(), value)).ok_or_else(wrong))
            .collect(),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| {
                let (name, value) = item.as_str()?.split_once(['=', ':'])?;
                Some((name.to_owned(), value.to_owned()))
            })
            .map(|pair| pair.ok_or_else(wrong))
            .collect(),
        Some(_) => Err(wrong()),
    }
}

/// Several addresses of one name are a list in a map.
fn hosts(service: &Value) -> Result<Vec<(String, String)>, PartError> {
    let Some(Value::Object(map)) = get(service, "extra_hosts") else {
        return pairs(service, "extra_hosts");
    };
    let mut hosts = Vec::new();
    for (name, addresses) in map {
        let one = serde_json::json!({"extra_hosts": addresses});
        let addresses = list(&one, "extra_hosts")?;
        hosts.extend(addresses.into_iter().map(|address| (name.clone(), address)));
    }
    Ok(hosts)
}

fn sysctls(service: &Value) -> Result<Vec<(String, String)>, PartError> {
    let all = pairs(service, "sysctls")?;
    Ok(all.into_iter().filter(|(name, _)| is_of_the_network(name)).collect())
}

/// Whether a kernel parameter is a network's own.
pub fn is_of_the_network(sysctl: &str) -> bool {
    sysctl.starts_with("net.")
}

fn networks(service: &Value) -> Result<Vec<Joined>, PartError> {
    let key = "networks";
    let expected = "a map of networks, or a list of their names";
    let mut joined = match get(service, key) {
        None => Vec::new(),
        Some(Value::Array(names)) => {
            let names: Option<Vec<_>> = names.iter().map(word).collect();
            let names = names.ok_or(PartError { key, expected })?;
            names.into_iter().map(|key| (0, Joined { key, ..Joined::default() })).collect()
        }
        Some(Value::Object(map)) => {
            map.iter().map(|(name, value)| network(name, value)).collect::<Result<Vec<_>, _>>()?
        }
        Some(_) => return Err(PartError { key, expected }),
    };
    joined.sort_by(|(a, one), (b, other)| b.cmp(a).then_with(|| one.key.cmp(&other.key)));
    Ok(joined.into_iter().map(|(_, joined)| joined).collect())
}

/// A network and how much it is to be the first.
fn network(name: &str, value: &Value) -> Result<(i64, Joined), PartError> {
    let number = |key: &str| get(value, key).and_then(Value::as_i64);
    let mut driver_opts = pairs(value, "driver_opts")?;
    if let Some(name) = text(value, "interface_name")? {
        driver_opts.push(("com.docker.network.endpoint.ifname".to_owned(), name));
    }
    let joined = Joined {
        key: name.to_owned(),
        aliases: list(value, "aliases")?,
        ipv4: text(value, "ipv4_address")?,
        ipv6: text(value, "ipv6_address")?,
        mac: text(value, "mac_address")?,
        link_local: list(value, "link_local_ips")?,
        driver_opts,
        gw_priority: number("gw_priority"),
    };
    Ok((number("priority").unwrap_or_default(), joined))
}

fn ports(service: &Value) -> Result<Vec<Port>, PartError> {
    let wrong = || PartError { key: "ports", expected: "a list of ports in the long form" };
    match get(service, "ports") {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => {
            items.iter().map(|item| item.as_object().and_then(port).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}

fn port(map: &Map<String, Value>) -> Option<Port> {
    let word = |key: &str| map.get(key).and_then(word).unwrap_or_default();
    let protocol = Some(word("protocol")).filter(|protocol| !protocol.is_empty());
    Some(Port {
        target: map.get("target")?.as_u64()?.try_into().ok()?,
        protocol: protocol.unwrap_or_else(|| "tcp".to_owned()),
        host_ip: word("host_ip"),
        published: word("published"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_compose_tells_of_a_service_is_read() {
        let service = json!({
            "image": "x", "command": null, "hostname": "h", "domainname": "",
            "dns": ["1.1.1.1"], "dns_opt": ["ndots:1"], "mac_address": "02:42:ac:11:00:aa",
            "extra_hosts": ["a=1.2.3.4", "b=::1"], "expose": ["99"],
            "sysctls": {"net.core.somaxconn": "100", "kernel.shmmax": 1},
            "networks": {
                "default": {"aliases": ["orders"]},
                "back": {"ipv4_address": "10.77.0.9", "priority": 5, "interface_name": "eth7"},
                "side": null,
            },
            "ports": [
                {"mode": "ingress", "host_ip": "127.0.0.1", "target": 80, "published": "8080", "protocol": "tcp"},
                {"mode": "ingress", "target": 53, "protocol": "udp"},
            ],
        });
        let part = Part::of(&service).expect("a part");
        let keys: Vec<_> = part.networks.iter().map(|network| network.key.as_str()).collect();
        assert_eq!(keys, ["back", "default", "side"]);
        assert_eq!(part.networks[0].mac.as_deref(), Some("02:42:ac:11:00:aa"));
        assert_eq!(part.networks[0].driver_opts[0].1, "eth7");
        assert_eq!(part.networks[1].aliases, ["orders"]);
        assert_eq!(
            (part.ports[0].published.as_str(), part.ports[1].published.as_str()),
            ("8080", "")
        );
        assert_eq!(part.extra_hosts[1], ("b".to_owned(), "::1".to_owned()));
        assert_eq!(part.sysctls.len(), 1, "the others are the container's own");
        assert_eq!((part.hostname.as_deref(), part.domainname), (Some("h"), None));
    }

    #[test]
    fn a_service_that_says_nothing_has_nothing() {
        assert_eq!(Part::of(&json!({"image": "x"})), Ok(Part::default()));
        assert_eq!(Part::of(&Value::Null), Ok(Part::default()));
    }

    #[test]
    fn what_compose_would_not_say_is_named() {
        let error = |service: Value| Part::of(&service).expect_err("wrong").to_string();
        assert_eq!(
            error(json!({"networks": 5})),
            "networks must be a map of networks, or a list of their names"
        );
        assert_eq!(
            error(json!({"ports": ["80:80"]})),
            "ports must be a list of ports in the long form"
        );
        assert_eq!(error(json!({"dns": {}})), "dns must be a list of strings");
    }
}
