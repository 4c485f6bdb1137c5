//! Sorts the flags of a `docker run` line: what docker gets, and what the sidecar gets instead.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

use super::network::{self, Attachment, NetworkError};
use super::parse::{DockerRun, Flag};
use super::ports::{self, ContainerPort, PortError, Published};
use super::table::{FlagSpec, Place};
use super::values;
use crate::failure::Failure;

/// The flags that belong to the namespace's owner.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehomed {
    /// `-p`.
    pub published: Vec<Published>,
    /// `-P`.
    pub publish_all: bool,
    /// `--expose`.
    pub exposed: Vec<ContainerPort>,
    /// `--name`, by which peers know the container on networks that somebody made.
    pub name: Option<String>,
    /// `--network` with its aliases and addresses; empty for docker's own choice.
    pub networks: Vec<Attachment>,
    /// `--link` on docker's default network.
    pub links: Vec<String>,
    /// `--hostname`.
    pub hostname: Option<String>,
    /// `--domainname`.
    pub domainname: Option<String>,
    /// `--dns`.
    pub dns: Vec<String>,
    /// `--dns-option`.
    pub dns_options: Vec<String>,
    /// `--dns-search`.
    pub dns_search: Vec<String>,
    /// `--add-host`, as `NAME:ADDRESS`.
    pub hosts: Vec<(String, String)>,
    /// `--sysctl net.*`.
    pub sysctls: Vec<(String, String)>,
}

impl Rehomed {
    /// Names and aliases of containers that docker would write into /etc/hosts: `--link` on its own
    /// network. On others its name server knows them.
    pub fn hosts_by_link(&self) -> impl Iterator<Item = (&str, &str)> {
        let served = self.networks.first().is_some_and(Attachment::user_defined);
        let links = self.links.iter().filter(move |_| !served);
        links.map(|link| link.split_once(':').unwrap_or((link, link)))
    }
}

/// Why a line cannot run in a target's place.
#[derive(Debug, thiserror::Error)]
pub enum RehomeError {
    /// A flag that has no place here.
    #[error("--{flag}: {reason}")]
    Refused {
        /// Its long name.
        flag: &'static str,
        /// Why.
        reason: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// `--publish` or `--expose`.
    #[error("invalid argument {value:?} for --{flag}")]
    Port {
        /// Its long name.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        source: PortError,
    },
    /// `--network` and what goes with it.
    #[error(transparent)]
    Network(NetworkError),
    /// A value that docker's client refuses as it reads it.
    #[error("invalid argument {value:?} for \"{flag}\" flag: {cause}")]
    Argument {
        /// The flag's names.
        flag: String,
        /// What was given.
        value: String,
        /// What is wrong with it.
        cause: String,
    },
}

impl RehomeError {
    /// Whether docker would have taken the line.
    #[cfg(test)]
    pub fn is_ours(&self) -> bool {
        use NetworkError::{Container, Host, None};
        matches!(self, Self::Refused { .. } | Self::Network(Host | None | Container(_)))
    }
}

impl From<RehomeError> for Failure {
    fn from(error: RehomeError) -> Self {
        let hint = match &error {
            RehomeError::Refused { instead, .. } => instead,
            RehomeError::Network(error) => error.hint(),
            _ => "see 'docker run --help'",
        };
        let failure = Failure::new(error.to_string()).hint(hint);
        match std::error::Error::source(&error) {
            Some(cause) => failure.because(cause.to_string()),
            None => failure,
        }
    }
}

/// Sorts the flags of a line: the sidecar's, and docker's as words.
pub fn rehome(run: &DockerRun) -> Result<(Rehomed, Vec<OsString>), RehomeError> {
    let mut rehomed = Rehomed::default();
    let mut legacy = Legacy::default();
    let mut docker = Vec::new();
    for flag in &run.flags {
        match flag.spec.place {
            Place::Pass => docker.push(flag.word()),
            Place::Handled(_) => handled(flag, &mut rehomed, &mut docker)?,
            Place::Sidecar(_) => sidecar(flag, run, &mut rehomed, &mut legacy)?,
            Place::Refused(reason, instead) => {
                return Err(RehomeError::Refused { flag: flag.spec.long, reason, instead });
            }
        }
    }
    rehomed.name = run.values("name").last().filter(|name| !name.is_empty());
    rehomed.publish_all = run.switch("publish-all");
    legacy.apply(&mut rehomed, run.client.default_network).map_err(RehomeError::Network)?;
    network::check(&rehomed.networks).map_err(RehomeError::Network)?;
    Ok((rehomed, docker))
}

fn handled(
    flag: &Flag,
    rehomed: &mut Rehomed,
    docker: &mut Vec<OsString>,
) -> Result<(), RehomeError> {
    let text = flag.text();
    if flag.spec.long == "sysctl" {
        let pair = values::sysctl(&text).map_err(|error| argument(flag, &error))?;
        if pair.0.starts_with("net.") {
            rehomed.sysctls.push(pair);
            return Ok(());
        }
    }
    docker.push(flag.word());
    Ok(())
}

fn argument(flag: &Flag, cause: &dyn std::error::Error) -> RehomeError {
    let FlagSpec { long, short, .. } = flag.spec;
    let flag_names = match short {
        Some(short) => format!("-{short}, --{long}"),
        None => format!("--{long}"),
    };
    RehomeError::Argument { flag: flag_names, value: flag.text(), cause: cause.to_string() }
}

fn sidecar(
    flag: &Flag,
    run: &DockerRun,
    rehomed: &mut Rehomed,
    legacy: &mut Legacy,
) -> Result<(), RehomeError> {
    let long = flag.spec.long;
    let text = flag.text();
    let port = |source| RehomeError::Port { flag: long, value: text.clone(), source };
    let bad = |cause: values::ValueError| argument(flag, &cause);
    match long {
        "publish" => rehomed.published.extend(ports::publish(&text).map_err(port)?),
        "expose" => rehomed.exposed.extend(ports::expose(&text).map_err(port)?),
        "network" | "net" => {
            let networks = (run.client.networks)(&text).map_err(|cause| argument(flag, &cause))?;
            rehomed.networks.extend(networks);
        }
        "network-alias" | "net-alias" => legacy.aliases.push(text),
        "ip" => legacy.ip = filled(text),
        "ip6" => legacy.ip6 = filled(text),
        "mac-address" => legacy.mac = filled(text),
        "link-local-ip" => legacy.link_local.push(text),
        "link" => legacy.links.push(values::link(&text).map_err(bad)?),
        "hostname" => rehomed.hostname = filled(text),
        "domainname" => rehomed.domainname = filled(text),
        "dns" => rehomed.dns.push(values::dns_server(&text).map_err(bad)?),
        "dns-option" | "dns-opt" => rehomed.dns_options.push(text),
        "dns-search" => rehomed.dns_search.push(values::dns_search(&text).map_err(bad)?),
        "add-host" => rehomed.hosts.push(values::add_host(&text).map_err(bad)?),
        _ => {}
    }
    Ok(())
}

fn filled(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Flags of the time when a container had one network: they are the first network's.
#[derive(Default)]
struct Legacy {
    aliases: Vec<String>,
    links: Vec<String>,
    ip: Option<String>,
    ip6: Option<String>,
    mac: Option<String>,
    link_local: Vec<String>,
}

impl Legacy {
    fn is_silent(&self) -> bool {
        let addressed = self.ip.is_some() || self.ip6.is_some() || self.mac.is_some();
        !addressed && self.aliases.is_empty() && self.link_local.is_empty()
    }

    fn apply(self, rehomed: &mut Rehomed, default: &str) -> Result<(), NetworkError> {
        rehomed.links.clone_from(&self.links);
        if rehomed.networks.is_empty() {
            if self.is_silent() {
                return Ok(());
            }
            rehomed.networks.push(Attachment { name: default.to_owned(), ..Default::default() });
        }
        let first = &mut rehomed.networks[0];
        let both = |flag, own, twice: bool| {
            if twice { Err(NetworkError::Both(flag, own)) } else { Ok(()) }
        };
        let twice = |ours: &Option<String>, own: &Option<String>| ours.is_some() && own.is_some();
        let many = |ours: &[String], own: &[String]| !ours.is_empty() && !own.is_empty();
        both("network-alias", "alias", many(&self.aliases, &first.aliases))?;
        both("ip", "IPv4 address", twice(&self.ip, &first.ip))?;
        both("ip6", "IPv6 address", twice(&self.ip6, &first.ip6))?;
        both("mac-address", "MAC address", twice(&self.mac, &first.mac))?;
        let linked = many(&self.link_local, &first.link_local);
        both("link-local-ip", "link-local IP addresses", linked)?;
        first.aliases.extend(self.aliases);
        first.link_local.extend(self.link_local);
        first.ip = first.ip.take().or(self.ip);
        first.ip6 = first.ip6.take().or(self.ip6);
        first.mac = first.mac.take().or(self.mac);
        if first.user_defined() {
            first.links.extend(self.links);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "rehome_tests.rs"]
mod tests;
