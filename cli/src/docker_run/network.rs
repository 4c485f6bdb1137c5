//! `--network` and the flags that go with it, as docker reads them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One network that the container is attached to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The network's name or id; `default` for docker's own choice.
    pub name: String,
    /// Further names of the container there.
    pub aliases: Vec<String>,
    /// `--link`: names of other containers.
    pub links: Vec<String>,
    /// The address asked for.
    pub ip: Option<String>,
    /// The IPv6 address asked for.
    pub ip6: Option<String>,
    /// The hardware address asked for.
    pub mac: Option<String>,
    /// Link-local addresses.
    pub link_local: Vec<String>,
    /// Options of the network's driver.
    pub driver_options: BTreeMap<String, String>,
    /// Which network's gateway is the default one.
    pub gateway_priority: Option<i64>,
}

/// Why a network cannot be joined.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NetworkError {
    /// `--network name=…,key=value` with an unknown key or none.
    #[error("invalid field {0} in --network")]
    Field(String),
    /// The long form without a name.
    #[error("network name must be specified: {0}")]
    NoName(String),
    /// `--network host`.
    #[error(
        "--network host gives the container this machine's own network, which no target can stand in for"
    )]
    Host,
    /// `--network none`.
    #[error("--network none gives the container no network, so nothing could reach the target's")]
    None,
    /// `--network container:X`.
    #[error(
        "--network container:{0} is another container's network, and a container can only join one"
    )]
    Container(String),
    /// The same network twice.
    #[error("network {0:?} is specified multiple times")]
    Twice(String),
    /// An option that only one network can have, given both ways.
    #[error("conflicting options: cannot specify both --{0} and per-network {0}")]
    Both(&'static str),
    /// A network mode that has no networks beside it.
    #[error(
        "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
    )]
    Mixed,
}

impl NetworkError {
    /// What the user can do instead.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Host => "leave --network out and publish ports with -p",
            Self::None => "leave --network out",
            Self::Container(_) => {
                "give both containers a network of their own: docker network create"
            }
            _ => "see 'docker run --help'",
        }
    }
}

/// Reads a value of `--network`.
pub fn attachment(value: &str) -> Result<Attachment, NetworkError> {
    let mut attachment = Attachment::default();
    if !value.contains('=') {
        attachment.name = value.to_owned();
    } else {
        for field in value.split(',') {
            set_field(&mut attachment, field)?;
        }
    }
    match attachment.name.as_str() {
        "" => Err(NetworkError::NoName(value.to_owned())),
        "host" => Err(NetworkError::Host),
        "none" => Err(NetworkError::None),
        name => match name.strip_prefix("container:") {
            Some(other) => Err(NetworkError::Container(other.to_owned())),
            None => Ok(attachment),
        },
    }
}

fn set_field(attachment: &mut Attachment, field: &str) -> Result<(), NetworkError> {
    let invalid = || NetworkError::Field(field.to_owned());
    let (key, value) = field.split_once('=').ok_or_else(invalid)?;
    let value = value.trim().to_owned();
    match key.trim().to_lowercase().as_str() {
        "name" => attachment.name = value,
        "alias" => attachment.aliases.push(value),
        "ip" => attachment.ip = Some(value),
        "ip6" => attachment.ip6 = Some(value),
        "mac-address" => attachment.mac = Some(value),
        "link-local-ip" => attachment.link_local.push(value),
        "gw-priority" => {
            attachment.gateway_priority = Some(value.parse().map_err(|_| invalid())?);
        }
        "driver-opt" => {
            let (name, option) = value.split_once('=').ok_or_else(invalid)?;
            attachment.driver_options.insert(name.to_lowercase(), option.to_owned());
        }
        _ => return Err(invalid()),
    }
    Ok(())
}

impl Attachment {
    /// Whether somebody made this network, so that docker's names are served there.
    pub fn user_defined(&self) -> bool {
        !matches!(self.name.as_str(), "default" | "bridge" | "host" | "none" | "nat")
    }
}

/// Checks all networks of one container together.
pub fn check(networks: &[Attachment]) -> Result<(), NetworkError> {
    for (at, network) in networks.iter().enumerate() {
        if networks[..at].iter().any(|other| other.name == network.name) {
            return Err(NetworkError::Twice(network.name.clone()));
        }
    }
    if networks.len() > 1 && networks.iter().any(|network| network.name == "default") {
        return Err(NetworkError::Mixed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_network_are_read() {
        let plain = attachment("shop").expect("a name");
        assert_eq!(plain.name, "shop");
        assert!(plain.user_defined());
        assert!(!attachment("bridge").expect("a name").user_defined());
        let long =
            "name=shop,alias=web,alias=w,ip=10.0.0.9,driver-opt=com.docker.mtu=1400,gw-priority=2";
        let long = attachment(long).expect("the long form");
        assert_eq!((long.name.as_str(), long.aliases.len()), ("shop", 2));
        assert_eq!(long.ip.as_deref(), Some("10.0.0.9"));
        assert_eq!(long.driver_options["com.docker.mtu"], "1400");
        assert_eq!(long.gateway_priority, Some(2));
    }

    #[test]
    fn networks_without_a_place_for_the_target_are_refused() {
        assert_eq!(attachment("host"), Err(NetworkError::Host));
        assert_eq!(attachment("none"), Err(NetworkError::None));
        assert_eq!(attachment("container:db"), Err(NetworkError::Container("db".to_owned())));
        assert!(matches!(attachment("alias=x"), Err(NetworkError::NoName(_))));
        assert!(matches!(attachment("name=x,nope=1"), Err(NetworkError::Field(_))));
    }

    #[test]
    fn the_same_network_is_not_joined_twice() {
        let twice = [attachment("a").expect("a"), attachment("a").expect("a")];
        assert_eq!(check(&twice), Err(NetworkError::Twice("a".to_owned())));
    }
}
