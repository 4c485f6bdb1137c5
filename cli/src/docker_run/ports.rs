//! `--publish` and `--expose`, as docker reads them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A container's port, as the engine writes it: `80/tcp`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerPort {
    /// Its number.
    pub number: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

impl std::fmt::Display for ContainerPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol)
    }
}

/// One port of the container and where the host offers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Inside.
    pub container: ContainerPort,
    /// The host's address; empty for all of them.
    pub host_ip: String,
    /// The host's port, a range to choose from, or empty for any.
    pub host_port: String,
}

/// Why a port cannot be understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PortError {
    /// No container port.
    #[error("no port specified: {0}<empty>")]
    Missing(String),
    /// Not a port or a range of ports.
    #[error("invalid containerPort: {0}")]
    Container(String),
    /// Not a port or a range of ports.
    #[error("invalid hostPort: {0}")]
    Host(String),
    /// Something else than tcp, udp and sctp.
    #[error("invalid proto: {0}")]
    Protocol(String),
    /// Not an address.
    #[error("invalid IP address: {0}")]
    Address(String),
    /// Ranges of different lengths.
    #[error("invalid ranges specified for container and host Ports: {0} and {1}")]
    Ranges(String, String),
    /// `--publish a=b` with something that is no `name=value`.
    #[error("invalid publish opts format (should be name=value but got '{0}')")]
    Long(String),
    /// `--expose` with an address or a host port.
    #[error("invalid port format for --expose: {0}")]
    Expose(String),
    /// `--expose` without a port or a range of ports.
    #[error("invalid range format for --expose: {0}, error: it is neither a port nor a range")]
    Range(String),
}

/// Reads a value of `--publish`; a range gives several ports.
pub fn publish(value: &str) -> Result<Vec<Published>, PortError> {
    let short = if value.contains('=') { short_form(value)? } else { value.to_owned() };
    let (host_ip, host, container) = split_parts(&short);
    let (container, protocol) = split_protocol(container);
    let host_ip = address(host_ip)?;
    if container.is_empty() {
        return Err(PortError::Missing(short));
    }
    let (first, last) =
        range(container).ok_or_else(|| PortError::Container(container.to_owned()))?;
    let host_range = match host {
        "" => None,
        host => Some(range(host).ok_or_else(|| PortError::Host(host.to_owned()))?),
    };
    let protocol = protocol.to_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(PortError::Protocol(protocol));
    }
    let one_of_many = first == last;
    if let Some((host_first, host_last)) = host_range
        && !one_of_many
        && host_last - host_first != last - first
    {
        return Err(PortError::Ranges(container.to_owned(), host.to_owned()));
    }
    let published = (first..=last).map(|number| Published {
        container: ContainerPort { number, protocol: protocol.clone() },
        host_ip: host_ip.clone(),
        host_port: match host_range {
            None => String::new(),
            Some((from, to)) if one_of_many && from != to => format!("{from}-{to}"),
            Some((from, _)) => (from + (number - first)).to_string(),
        },
    });
    Ok(published.collect())
}

/// Reads a value of `--expose`.
pub fn expose(value: &str) -> Result<Vec<ContainerPort>, PortError> {
    if value.contains(':') {
        return Err(PortError::Expose(value.to_owned()));
    }
    let (ports, protocol) = split_protocol(value);
    let (first, last) = range(ports).ok_or_else(|| PortError::Range(value.to_owned()))?;
    let port = |number| ContainerPort { number, protocol: protocol.to_owned() };
    let ports = (first..=last).map(port);
    Ok(ports.collect())
}

/// `published=8080,target=80,protocol=tcp` in the short form.
fn short_form(value: &str) -> Result<String, PortError> {
    let (mut published, mut target, mut protocol) = ("", "", "tcp");
    for part in value.split(',') {
        match part.split_once('=') {
            Some(("published", value)) => published = value,
            Some(("target", value)) => target = value,
            Some(("protocol", value)) => protocol = value,
            Some((name, _)) if !name.is_empty() => {}
            _ => return Err(PortError::Long(part.to_owned())),
        }
    }
    Ok(format!("{published}:{target}/{protocol}"))
}

fn split_protocol(value: &str) -> (&str, &str) {
    let mut parts = value.split('/');
    let port = parts.next().unwrap_or_default();
    (port, parts.next().filter(|protocol| !protocol.is_empty()).unwrap_or("tcp"))
}

/// `[IP:][HOST:]CONTAINER`, where an IPv6 address may stand in brackets.
fn split_parts(value: &str) -> (&str, &str, &str) {
    match value.rsplit_once(':') {
        None => ("", "", value),
        Some((rest, container)) => match rest.rsplit_once(':') {
            None => ("", rest, container),
            Some((ip, host)) => (ip, host, container),
        },
    }
}

fn address(text: &str) -> Result<String, PortError> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match bare {
        "" => Ok(String::new()),
        bare if bare.parse::<IpAddr>().is_ok() => Ok(bare.to_owned()),
        _ => Err(PortError::Address(text.to_owned())),
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(value: &str) -> String {
        match publish(value) {
            Ok(ports) => ports
                .iter()
                .map(|port| format!("{}|{}|{}", port.host_ip, port.host_port, port.container))
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn publish_is_read_as_docker_does() {
        for (value, expected) in [
            ("80", "||80/tcp"),
            ("8080:80", "|8080|80/tcp"),
            ("8080:80/udp", "|8080|80/udp"),
            ("8080:80/UDP", "|8080|80/udp"),
            ("127.0.0.1:8080:80", "127.0.0.1|8080|80/tcp"),
            ("127.0.0.1::80", "127.0.0.1||80/tcp"),
            ("[::1]:8080:80", "::1|8080|80/tcp"),
            ("::1:8080:80", "::1|8080|80/tcp"),
            ("7000-7001:80-81", "|7000|80/tcp |7001|81/tcp"),
            ("7000-7009:80", "|7000-7009|80/tcp"),
            ("80-81", "||80/tcp ||81/tcp"),
            ("0", "||0/tcp"),
            ("0:80", "|0|80/tcp"),
            ("published=8080,target=80,protocol=udp", "|8080|80/udp"),
            ("target=80", "||80/tcp"),
        ] {
            assert_eq!(shape(value), expected, "{value}");
        }
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        for value in [
            "",
            "a:80",
            "8080:",
            "80/xyz",
            "1.2.3:1:80",
            "7000-7001:80-82",
            "70000:80",
            "81-80",
            "x=1,y",
        ] {
            assert!(shape(value).starts_with("error: "), "{value}: {}", shape(value));
        }
    }

    #[test]
    fn expose_takes_ports_and_ranges() {
        let text = |value| {
            let ports = expose(value).map_err(|error| error.to_string())?;
            Ok::<_, String>(ports.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(text("80"), Ok(vec!["80/tcp".to_owned()]));
        assert_eq!(text("80-81/udp"), Ok(vec!["80/udp".to_owned(), "81/udp".to_owned()]));
        assert!(text("80:80").is_err());
        assert!(text("x").is_err());
    }
}
