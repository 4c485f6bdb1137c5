//! `--network` and the flags that go with it, as docker reads them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::values::is_mac;

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

/// Why a value of `--network` cannot be read, in docker's words.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FieldError {
    /// No comma-separated values.
    #[error("parse error: extraneous or missing \" in quoted-field")]
    Quotes,
    /// A field that is no pair.
    #[error("invalid field {0}")]
    Field(String),
    /// A field that docker does not have.
    #[error("invalid field key {0}")]
    Key(String),
    /// The long form without a name.
    #[error("network name/id is not specified")]
    NoName,
    /// `gw-priority` that is no number.
    #[error("invalid gw-priority ({0}): invalid syntax")]
    Priority(String),
    /// `driver-opt` that is no pair.
    #[error("invalid key value pair format in driver options")]
    DriverOption,
}

/// Why networks cannot be joined; docker's own words where docker refuses it too.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NetworkError {
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
    /// An empty name.
    #[error("no name set for network")]
    NoName,
    /// The same network twice.
    #[error("network {0:?} is specified multiple times")]
    Twice(String),
    /// An option that only one network can have, given both ways.
    #[error("conflicting options: cannot specify both --{0} and per-network {1}")]
    Both(&'static str, &'static str),
    /// A network mode that has no networks beside it.
    #[error(
        "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
    )]
    Mixed,
    /// Names where docker serves none.
    #[error("network-scoped aliases are only supported for user-defined networks")]
    Aliases,
    /// A hardware address that is none.
    #[error("{0} is not a valid mac address")]
    Mac(String),
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
            Self::Aliases => "name a network of yours with --network",
            _ => "see 'docker run --help'",
        }
    }
}

/// Reads a value of docker's `--network`.
pub fn of_docker(value: &str) -> Result<Vec<Attachment>, FieldError> {
    Ok(vec![attachment(value)?])
}

/// Reads a value of podman's `--network`: `NAME,NAME`, `NAME:key=value,…` or a mode.
pub fn of_podman(value: &str) -> Result<Vec<Attachment>, FieldError> {
    let (names, fields) = value.split_once(':').unwrap_or((value, ""));
    match names {
        "container" | "ns" => return Ok(vec![named(&format!("container:{fields}"))]),
        "pod" => return Ok(vec![named("container:POD")]),
        // A mode keeps its options.
        "slirp4netns" | "pasta" | "private" => return Ok(vec![named(value)]),
        _ => {}
    }
    let mut attachments: Vec<Attachment> = names.split(',').map(named).collect();
    for field in fields.split(',').filter(|field| !field.is_empty()) {
        let field = match field.split_once('=') {
            Some(("mac", value)) => format!("mac-address={value}"),
            Some(("alias" | "ip" | "ip6", _)) => field.to_owned(),
            _ => return Err(FieldError::Field(field.to_owned())),
        };
        let [attachment] = &mut *attachments else {
            return Err(FieldError::Field(field));
        };
        set_field(attachment, &field)?;
    }
    Ok(attachments)
}

fn named(name: &str) -> Attachment {
    Attachment { name: name.to_owned(), ..Attachment::default() }
}

fn attachment(value: &str) -> Result<Attachment, FieldError> {
    let mut attachment = Attachment::default();
    if !is_long(value) {
        attachment.name = value.to_owned();
        return Ok(attachment);
    }
    for field in fields(value).ok_or(FieldError::Quotes)? {
        set_field(&mut attachment, &field)?;
    }
    match attachment.name.as_str() {
        "" => Err(FieldError::NoName),
        _ => Ok(attachment),
    }
}

/// Whether there is a `key=value` in it.
fn is_long(value: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    value.as_bytes().windows(3).any(|three| word(three[0]) && three[1] == b'=' && word(three[2]))
}

/// Comma-separated values (RFC 4180), some perhaps in quotes.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = Some(line);
    while let Some(text) = rest {
        let (field, behind) = match text.strip_prefix('"') {
            Some(quoted) => match quoted.split_once('"')? {
                (field, "") => (field, None),
                (field, behind) => (field, Some(behind.strip_prefix(',')?)),
            },
            None => match text.split_once(',') {
                Some((field, behind)) => (field, Some(behind)),
                None => (text, None),
            },
        };
        fields.push(field.to_owned());
        rest = behind;
    }
    Some(fields)
}

fn set_field(attachment: &mut Attachment, field: &str) -> Result<(), FieldError> {
    let lower = field.to_lowercase();
    let pair = lower.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) = pair.ok_or_else(|| FieldError::Field(field.to_owned()))?;
    let value = value.trim().to_owned();
    match key.trim() {
        "name" => attachment.name = value,
        "alias" => attachment.aliases.push(value),
        "ip" => attachment.ip = Some(value),
        "ip6" => attachment.ip6 = Some(value),
        "mac-address" => attachment.mac = Some(value),
        "link-local-ip" => attachment.link_local.push(value),
        "gw-priority" => {
            let priority = value.parse().map_err(|_| FieldError::Priority(value))?;
            attachment.gateway_priority = Some(priority);
        }
        "driver-opt" => {
            let (name, option) = value.split_once('=').ok_or(FieldError::DriverOption)?;
            let pair = (name.trim().to_owned(), option.trim().to_owned());
            attachment.driver_options.extend([pair]);
        }
        key => return Err(FieldError::Key(key.to_owned())),
    }
    Ok(())
}

impl Attachment {
    /// Whether somebody made this network, so that docker's names are served there.
    pub fn user_defined(&self) -> bool {
        !matches!(self.name.as_str(), "default" | "bridge" | "host" | "none")
            && !self.name.starts_with("container:")
    }

    fn check(&self) -> Result<(), NetworkError> {
        match (self.name.trim(), self.mac.as_deref()) {
            ("", _) => Err(NetworkError::NoName),
            _ if !self.user_defined() && !self.aliases.is_empty() => Err(NetworkError::Aliases),
            (_, Some(mac)) if !mac.is_empty() && !is_mac(mac) => {
                Err(NetworkError::Mac(mac.to_owned()))
            }
            ("host", _) => Err(NetworkError::Host),
            ("none", _) => Err(NetworkError::None),
            (name, _) => match name.strip_prefix("container:") {
                Some(other) => Err(NetworkError::Container(other.to_owned())),
                None => Ok(()),
            },
        }
    }
}

/// Checks all networks of one container together.
pub fn check(networks: &[Attachment]) -> Result<(), NetworkError> {
    let user_defined = networks.iter().filter(|network| network.user_defined()).count();
    if user_defined > 0 && user_defined < networks.len() {
        return Err(NetworkError::Mixed);
    }
    for (at, network) in networks.iter().enumerate() {
        network.check()?;
        if networks[..at].iter().any(|other| other.name == network.name) {
            return Err(NetworkError::Twice(network.name.clone()));
        }
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
    fn podmans_networks_are_read_as_podman_does() {
        let names = |value: &str| {
            let read = of_podman(value).expect(value).into_iter();
            read.map(|network| network.name).collect::<Vec<_>>()
        };
        assert_eq!(names("shop,back"), ["shop", "back"]);
        assert_eq!(
            names("slirp4netns:mtu=1500,port_handler=x"),
            ["slirp4netns:mtu=1500,port_handler=x"]
        );
        let long = of_podman("shop:alias=web,ip=10.0.0.9,mac=02:00:00:00:00:01").expect("a form");
        assert_eq!((long[0].aliases[0].as_str(), long[0].ip.as_deref()), ("web", Some("10.0.0.9")));
        assert_eq!(long[0].mac.as_deref(), Some("02:00:00:00:00:01"));
        let refused = |value: &str| check(&of_podman(value).expect("a mode"));
        assert_eq!(refused("host"), Err(NetworkError::Host));
        for mode in ["container:db", "ns:db"] {
            assert_eq!(refused(mode), Err(NetworkError::Container("db".to_owned())));
        }
        assert!(matches!(of_podman("shop:nope=1"), Err(FieldError::Field(_))));
        assert!(matches!(of_podman("a,b:ip=10.0.0.9"), Err(FieldError::Field(_))));
    }

    #[test]
    fn networks_without_a_place_for_the_target_are_refused() {
        let refused = |value: &str| check(&[attachment(value).expect("a name")]);
        assert_eq!(refused("host"), Err(NetworkError::Host));
        assert_eq!(refused("none"), Err(NetworkError::None));
        assert_eq!(refused("container:db"), Err(NetworkError::Container("db".to_owned())));
        assert_eq!(refused(""), Err(NetworkError::NoName));
        assert_eq!(attachment("alias=x"), Err(FieldError::NoName));
        assert_eq!(attachment("name=x,nope=1"), Err(FieldError::Key("nope".to_owned())));
    }

    #[test]
    fn a_field_may_stand_in_quotes() {
        let quoted = attachment(r#""name=a","alias=b,c",alias=d"#).expect("three fields");
        assert_eq!(quoted.aliases, ["b,c", "d"]);
        assert_eq!(attachment(r#"name=a,"alias=b"#), Err(FieldError::Quotes));
        assert_eq!(fields("a=b,"), Some(vec!["a=b".to_owned(), String::new()]));
    }

    #[test]
    fn the_same_network_is_not_joined_twice() {
        let twice = [attachment("a").expect("a"), attachment("a").expect("a")];
        assert_eq!(check(&twice), Err(NetworkError::Twice("a".to_owned())));
    }
}
