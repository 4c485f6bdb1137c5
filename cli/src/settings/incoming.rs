//! What is asked for of the target's traffic.

use mirrord_protocol::control::{Incoming, IncomingMode, PortMapping, Protocol};

use crate::args::Options;
use crate::config::{self, Config, Node};
use crate::failure::Failure;

const OPTION: &str = "--port";
const PORTS: &str = "feature.network.incoming.ports";
const MAPPING: &str = "feature.network.incoming.port_mapping";
const FILTER: &str = "feature.network.incoming.http_filter";

/// Why an option cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
enum IncomingError {
    /// Two that exclude each other.
    #[error("{0} and {1} contradict each other")]
    Contradiction(&'static str, &'static str),
    /// `--port`.
    #[error("invalid value {0:?} for --port: it is not LOCAL[:REMOTE][/udp]")]
    Port(String),
    /// `--ignore-ports`.
    #[error("invalid value {0:?} for --ignore-ports: it is not a port or a range of ports")]
    IgnorePorts(String),
    /// The same local port twice.
    #[error("{0} names the local port {1} twice")]
    PortTwice(&'static str, u16),
    /// The same remote port twice.
    #[error("{0} names the remote port {1} twice")]
    RemotePortTwice(&'static str, u16),
}

impl IncomingError {
    fn hint(&self) -> &'static str {
        match self {
            Self::Contradiction(..) => "give one of them",
            Self::Port(_) => "for example --port 3000:80",
            Self::IgnorePorts(_) => "for example --ignore-ports 9090,9100-9109",
            Self::PortTwice(..) | Self::RemotePortTwice(..) => {
                "one local port stands for one remote port"
            }
        }
    }
}

impl From<IncomingError> for Failure {
    fn from(error: IncomingError) -> Self {
        Self::new(error.to_string()).hint(error.hint())
    }
}

/// What the options and the configuration file say.
pub fn settings(options: &Options, config: &Config) -> Result<Incoming, Failure> {
    let mode = mode_of_options(options)?.unwrap_or_else(|| mode_of_file(config));
    // All requests would be taken, of everybody.
    if mode == IncomingMode::Steal && config.get(FILTER).is_some_and(selects) {
        let message = "not supported yet, and without it all requests would be stolen".to_owned();
        let hint = "mirror instead, or remove it to take all of them".to_owned();
        return Err(config.wrong(FILTER, message, Some(hint)).into());
    }
    let ignore_ports = match options.ignore_ports.as_slice() {
        [] => ports(config, "feature.network.incoming.ignore_ports"),
        given => ignored(given)?,
    };
    let ports = match options.ports.as_slice() {
        [] => ports_of_file(config)?,
        given => ports_of_options(given)?,
    };
    Ok(Incoming { mode, ports, ignore_ports })
}

fn mode_of_options(options: &Options) -> Result<Option<IncomingMode>, IncomingError> {
    let given = [
        (options.steal, "--steal", IncomingMode::Steal),
        (options.mirror, "--mirror", IncomingMode::Mirror),
        (options.no_incoming, "--no-incoming", IncomingMode::Off),
    ];
    let mut given = given.into_iter().filter(|(given, ..)| *given);
    match (given.next(), given.next()) {
        (Some((_, one, _)), Some((_, other, _))) => Err(IncomingError::Contradiction(one, other)),
        (first, _) => Ok(first.map(|(.., mode)| mode)),
    }
}

fn mode_of_file(config: &Config) -> IncomingMode {
    let off = |key: &str| config.flag(key) == Some(false);
    if off("feature.network") || off("feature.network.incoming") {
        return IncomingMode::Off;
    }
    let word = config.text("feature.network.incoming");
    match word.or_else(|| config.text("feature.network.incoming.mode")) {
        Some("steal") => IncomingMode::Steal,
        Some("off") => IncomingMode::Off,
        _ => IncomingMode::Mirror,
    }
}

fn selects(filter: &Node) -> bool {
    filter.flag().unwrap_or(!filter.entries().is_empty())
}

fn ports(config: &Config, key: &str) -> Vec<u16> {
    config.get(key).map(Node::items).unwrap_or_default().iter().filter_map(Node::port).collect()
}

fn ports_of_options(given: &[String]) -> Result<Vec<PortMapping>, IncomingError> {
    let ports = given.iter().map(|port| port_mapping(port)).collect::<Result<Vec<_>, _>>()?;
    once_each(OPTION, ports)
}

fn ports_of_file(config: &Config) -> Result<Vec<PortMapping>, Failure> {
    let pairs = config.get(MAPPING).map(Node::items).unwrap_or_default();
    let mapping = pairs.iter().filter_map(config::pair).map(|(local, remote)| tcp(local, remote));
    let wrong = |key, error: IncomingError| -> Failure {
        config.wrong(key, error.to_string(), Some(error.hint().to_owned())).into()
    };
    let mapping = once_each("it", mapping.collect()).map_err(|error| wrong(MAPPING, error))?;
    if config.get(PORTS).is_none() {
        return Ok(mapping);
    }
    let mapped = |port| {
        mapping.iter().find(|pair| pair.local == port).copied().unwrap_or_else(|| tcp(port, port))
    };
    let ports = ports(config, PORTS).into_iter().map(mapped).collect();
    once_each("it", ports).map_err(|error| wrong(PORTS, error))
}

fn tcp(local: u16, remote: u16) -> PortMapping {
    PortMapping { protocol: Protocol::Tcp, local, remote }
}

/// Refuses ports that stand twice, which `whose` is to blame for.
fn once_each(
    whose: &'static str,
    ports: Vec<PortMapping>,
) -> Result<Vec<PortMapping>, IncomingError> {
    for (at, port) in ports.iter().enumerate() {
        let mut before = ports[..at].iter().filter(|other| other.protocol == port.protocol);
        if before.clone().any(|other| other.local == port.local) {
            return Err(IncomingError::PortTwice(whose, port.local));
        }
        if before.any(|other| other.remote == port.remote) {
            return Err(IncomingError::RemotePortTwice(whose, port.remote));
        }
    }
    Ok(ports)
}

fn ignored(given: &[String]) -> Result<Vec<u16>, IncomingError> {
    let mut ports = Vec::new();
    for text in given.iter().filter(|text| !text.is_empty()) {
        let (first, last) =
            port_range(text).ok_or_else(|| IncomingError::IgnorePorts(text.clone()))?;
        ports.extend(first..=last);
    }
    Ok(ports)
}

fn port_mapping(text: &str) -> Result<PortMapping, IncomingError> {
    let invalid = || IncomingError::Port(text.to_owned());
    let (ports, protocol) = match text.split_once('/') {
        None | Some((_, "tcp")) => (text.trim_end_matches("/tcp"), Protocol::Tcp),
        Some((ports, "udp")) => (ports, Protocol::Udp),
        Some(_) => return Err(invalid()),
    };
    let (local, remote) = ports.split_once(':').unwrap_or((ports, ports));
    let port = |text: &str| text.parse().ok().filter(|port| *port > 0).ok_or_else(invalid);
    Ok(PortMapping { protocol, local: port(local)?, remote: port(remote)? })
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ports: &[&str], ignored: &[&str]) -> Result<Incoming, Failure> {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let options =
            Options { ports: owned(ports), ignore_ports: owned(ignored), ..Options::default() };
        settings(&options, &Config::none())
    }

    #[test]
    fn ports_are_local_then_remote() {
        let incoming =
            of(&["3000:80", "53/udp", "8080/tcp"], &["9", "20-22"]).expect("good options");
        let shape: Vec<_> =
            incoming.ports.iter().map(|port| (port.local, port.remote, port.protocol)).collect();
        assert_eq!(
            shape,
            [(3000, 80, Protocol::Tcp), (53, 53, Protocol::Udp), (8080, 8080, Protocol::Tcp)]
        );
        assert_eq!(incoming.ignore_ports, [9, 20, 21, 22]);
        assert_eq!(incoming.mode, IncomingMode::Mirror);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for bad in ["", "x", "80:", "80:x", "80/sctp", "0", "70000"] {
            let failure = of(&[bad], &[]).expect_err(bad);
            assert!(failure.sentence.contains("--port"), "{bad}: {failure}");
        }
        let failure = of(&["80", "80:81"], &[]).expect_err("twice");
        assert_eq!(failure.sentence, "--port names the local port 80 twice");
        let failure = of(&["3000:80", "3001:80/tcp"], &[]).expect_err("twice");
        assert_eq!(failure.sentence, "--port names the remote port 80 twice");
        assert!(of(&["3000:80", "3000:80/udp"], &[]).is_ok());
        let failure = of(&[], &["9-3"]).expect_err("a range backwards");
        assert!(failure.sentence.contains("--ignore-ports"));
    }

    #[test]
    fn options_on_both_sides_may_not_contradict_each_other() {
        let options = Options { steal: true, no_incoming: true, ..Options::default() };
        let failure = settings(&options, &Config::none()).expect_err("a contradiction");
        assert_eq!(failure.sentence, "--steal and --no-incoming contradict each other");
    }
}
