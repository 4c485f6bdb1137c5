//! Sorts the flags of a `docker run` line: what docker gets, and what the sidecar gets instead.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

use super::network::{self, Attachment, NetworkError};
use super::parse::{DockerRun, Flag};
use super::ports::{self, ContainerPort, PortError, Published};
use super::table::Place;
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

/// Why a line cannot run in a target's place.
#[derive(Debug, thiserror::Error)]
pub enum RehomeError {
    /// A flag that is not supported.
    #[error("--{flag}: {reason}")]
    Refused {
        /// Its long name.
        flag: &'static str,
        /// Why.
        reason: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// `--restart` with a policy.
    #[error("--restart {0}: a restarted container would come back without its session")]
    Restart(String),
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
    /// `--add-host` that is no pair.
    #[error("bad format for add-host: {0:?}")]
    AddHost(String),
    /// `--sysctl` that is no pair.
    #[error("invalid argument {0:?} for --sysctl: it is not KEY=VALUE")]
    Sysctl(String),
}

impl From<RehomeError> for Failure {
    fn from(error: RehomeError) -> Self {
        let hint = match &error {
            RehomeError::Refused { instead, .. } => instead,
            RehomeError::Restart(_) => "leave --restart out",
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
            Place::Handled(_) => handled(flag, run, &mut rehomed, &mut docker)?,
            Place::Refused(reason, instead) if is_on(flag, run) => {
                return Err(RehomeError::Refused { flag: flag.spec.long, reason, instead });
            }
            Place::Refused(..) => {}
            Place::Sidecar => sidecar(flag, &mut rehomed, &mut legacy)?,
        }
    }
    rehomed.publish_all = run.switch("publish-all");
    legacy.apply(&mut rehomed).map_err(RehomeError::Network)?;
    network::check(&rehomed.networks).map_err(RehomeError::Network)?;
    Ok((rehomed, docker))
}

fn is_on(flag: &Flag, run: &DockerRun) -> bool {
    flag.spec.takes == super::table::Takes::Value || run.switch(flag.spec.long)
}

fn handled(
    flag: &Flag,
    run: &DockerRun,
    rehomed: &mut Rehomed,
    docker: &mut Vec<OsString>,
) -> Result<(), RehomeError> {
    let text = flag.text();
    match flag.spec.long {
        "restart" => match run.values("restart").last() {
            Some(policy) if !matches!(policy.as_str(), "" | "no") => {
                return Err(RehomeError::Restart(policy));
            }
            _ => {}
        },
        "sysctl" if text.starts_with("net.") => {
            let pair = text.split_once('=').ok_or_else(|| RehomeError::Sysctl(text.clone()))?;
            rehomed.sysctls.push((pair.0.to_owned(), pair.1.to_owned()));
            return Ok(());
        }
        _ => {}
    }
    docker.push(flag.word());
    Ok(())
}

fn sidecar(flag: &Flag, rehomed: &mut Rehomed, legacy: &mut Legacy) -> Result<(), RehomeError> {
    let long = flag.spec.long;
    let text = flag.text();
    let port = |source| RehomeError::Port { flag: long, value: text.clone(), source };
    match long {
        "publish" => rehomed.published.extend(ports::publish(&text).map_err(port)?),
        "expose" => rehomed.exposed.extend(ports::expose(&text).map_err(port)?),
        "network" | "net" => {
            let network = network::attachment(&text).map_err(RehomeError::Network)?;
            rehomed.networks.push(network);
        }
        "network-alias" | "net-alias" => legacy.aliases.push(text),
        "ip" => legacy.ip = Some(text),
        "ip6" => legacy.ip6 = Some(text),
        "mac-address" => legacy.mac = Some(text),
        "link-local-ip" => legacy.link_local.push(text),
        "link" => legacy.links.push(text),
        "hostname" => rehomed.hostname = Some(text),
        "domainname" => rehomed.domainname = Some(text),
        "dns" => rehomed.dns.push(text),
        "dns-option" | "dns-opt" => rehomed.dns_options.push(text),
        "dns-search" => rehomed.dns_search.push(text),
        "add-host" => rehomed.hosts.push(add_host(&text)?),
        _ => {}
    }
    Ok(())
}

/// `NAME:ADDRESS` or `NAME=ADDRESS`, the address perhaps in brackets.
fn add_host(text: &str) -> Result<(String, String), RehomeError> {
    let pair = text.split_once('=').or_else(|| text.split_once(':'));
    let (name, address) = pair.ok_or_else(|| RehomeError::AddHost(text.to_owned()))?;
    let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']'));
    let address = bare.unwrap_or(address);
    if name.is_empty() || address.is_empty() {
        return Err(RehomeError::AddHost(text.to_owned()));
    }
    Ok((name.to_owned(), address.to_owned()))
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
    fn apply(self, rehomed: &mut Rehomed) -> Result<(), NetworkError> {
        let user_defined = rehomed.networks.first().is_some_and(Attachment::user_defined);
        let addressed = self.ip.is_some() || self.ip6.is_some() || self.mac.is_some();
        if !user_defined {
            rehomed.links = self.links.clone();
        }
        if rehomed.networks.is_empty() {
            if !addressed && self.aliases.is_empty() && self.link_local.is_empty() {
                return Ok(());
            }
            rehomed.networks.push(Attachment { name: "default".to_owned(), ..Default::default() });
        }
        let first = &mut rehomed.networks[0];
        let both = |name, twice: bool| {
            if twice { Err(NetworkError::Both(name)) } else { Ok(()) }
        };
        both("network-alias", !self.aliases.is_empty() && !first.aliases.is_empty())?;
        both("ip", self.ip.is_some() && first.ip.is_some())?;
        both("ip6", self.ip6.is_some() && first.ip6.is_some())?;
        both("mac-address", self.mac.is_some() && first.mac.is_some())?;
        both("link-local-ip", !self.link_local.is_empty() && !first.link_local.is_empty())?;
        first.aliases.extend(self.aliases);
        first.link_local.extend(self.link_local);
        first.ip = first.ip.take().or(self.ip);
        first.ip6 = first.ip6.take().or(self.ip6);
        first.mac = first.mac.take().or(self.mac);
        if user_defined {
            first.links.extend(self.links);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "rehome_tests.rs"]
mod tests;
