//! What the front asks of the keeper: the plan first, then commands, each a JSON line.

use std::net::IpAddr;

use mirrord_protocol::Token;
use mirrord_protocol::control::{AgentConfig, Agents, Door, Incoming, IncomingMode, ProxyConfig};
use serde::{Deserialize, Serialize};

use super::SessionId;
use super::plane::{LayerWishes, Plane};
use super::standing::Standing;
use crate::cluster::settings::ClusterSettings;
use crate::docker_run::Rehomed;
use crate::engine::apps::Apps;
use crate::engine::connect::EngineError;
use crate::engine::containers::Common;
use crate::engine::{Endpoint, Engine};
use crate::target::TargetName;

/// How long an agent stays without a tunnel while its keeper is there, in seconds.
const AGENT_PATIENCE: u64 = 30;

/// The same once its keeper is gone as well.
const AGENT_ALONE: u64 = 1;

/// The address in `--add-host` that stands for this machine's.
pub const HOST_GATEWAY: &str = "host-gateway";

/// What the engine says that a plan needs.
#[derive(Debug, Default)]
pub struct Learned {
    /// The ports that the app's image exposes, if all are to be published.
    pub image_ports: Vec<String>,
    /// This machine's address on docker's own network, if a host name is to have it.
    pub gateway: Option<String>,
    /// The target's address.
    pub address: Option<String>,
    /// Lines of /etc/hosts for containers that are linked on docker's own network.
    pub links: Vec<String>,
}

/// A session to be brought up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Its id.
    pub session: SessionId,
    /// Who redirects.
    pub plane: Plane,
    /// What is asked for of the layer.
    pub layer: LayerWishes,
    /// Whether the app has the target's host name.
    pub hostname: bool,
    /// Which engine, if one is needed.
    pub endpoint: Option<Endpoint>,
    /// The target; without one, the cluster's network is that of an agent on its own.
    pub target: Option<TargetName>,
    /// The cluster, if the target is there.
    pub cluster: ClusterSettings,
    /// The image that the app runs, for `-P`.
    pub app_image: String,
    /// `--entrypoint`, if it was given.
    pub app_entrypoint: Option<String>,
    /// What stands behind the image.
    pub app_words: Vec<String>,
    /// `--userns`, if it was given: who joins a network has its owner's users.
    pub app_userns: Option<String>,
    /// Whether the engine removes the app once it has ended.
    pub app_removes: bool,
    /// The user's flags for the namespace.
    pub rehomed: Rehomed,
    /// What happens to the target's traffic.
    pub incoming: Incoming,
    /// Whether the app's TCP connections leave from the target.
    pub outgoing_tcp: bool,
    /// Whether the app's UDP datagrams leave from the target.
    pub outgoing_udp: bool,
    /// Whether names are resolved as the target does.
    pub remote_dns: bool,
    /// Whether the target's environment is wanted.
    pub env: bool,
    /// `tracing` filter of the proxy and the agent.
    pub log: String,
    /// The service of a compose project that it stands for, if it does.
    pub standing: Option<Standing>,
}

/// What the front says after the plan. The end of the pipe means that it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// docker has ended, or never ran: clean up, or stay as long as the app goes on without it.
    End,
    /// The same, after a signal that was handed on to it.
    EndSignalled,
    /// The same, soon after a signal: what docker was still creating is to go as well.
    EndInterrupted,
    /// The session goes on in the background for an app that somebody else starts.
    Stay,
}

impl Plan {
    /// Whether the target is in a cluster.
    pub fn is_remote(&self) -> bool {
        !matches!(self.target, Some(TargetName::Container(_)))
    }

    /// The engine, if one is needed.
    pub fn engine(&self) -> Result<Option<Engine>, EngineError> {
        self.endpoint.as_ref().map(Engine::new).transpose()
    }

    /// The target container's name or id; empty if the target is none.
    pub fn container(&self) -> &str {
        match &self.target {
            Some(TargetName::Container(name)) => name,
            _ => "",
        }
    }

    /// What the containers of the session have in common.
    pub fn common<'a>(&'a self, engine: &'a Engine, image: &'a str) -> Common<'a> {
        Common {
            engine,
            session: &self.session,
            image,
            unix_sockets: self.unix_sockets(),
            mirrors: self.incoming.mode == IncomingMode::Mirror,
            standing: self.standing.as_ref(),
        }
    }

    /// Whose the app containers are, once the sidecar has an id.
    pub fn apps(&self, sidecar: &str) -> Apps {
        match &self.standing {
            Some(standing) => {
                Apps::Joined { id: sidecar.to_owned(), name: standing.place.sidecar() }
            }
            None => Apps::Labelled(self.session.clone()),
        }
    }

    /// Where the app stands, in words; the target as its session names it.
    pub fn in_place_of(&self, name: &str) -> String {
        let traffic = match self.incoming.mode {
            IncomingMode::Mirror => "with a copy of its traffic",
            IncomingMode::Steal => "with its traffic",
            IncomingMode::Off => "without its traffic",
        };
        match (&self.target, self.is_remote()) {
            (None, _) => "in the cluster's network, without a target".to_owned(),
            (_, true) => format!("in the place of {name}, {traffic}"),
            (_, false) => format!("in the place of container/{name}, {traffic}"),
        }
    }

    /// Whether the agents connect to unix sockets.
    pub fn unix_sockets(&self) -> bool {
        !self.layer.unix_streams.is_empty()
    }

    /// What the proxy is told.
    pub fn proxy_config(&self, token: &Token, agents: Agents, learned: &Learned) -> ProxyConfig {
        ProxyConfig {
            session: self.session.to_string(),
            token: token.clone(),
            agents,
            folder: self.plane.folder(),
            plane: self.plane.kind(&self.session, &self.layer, self.hostname),
            incoming: self.incoming.clone(),
            outgoing_tcp: self.outgoing_tcp,
            outgoing_udp: self.outgoing_udp,
            remote_dns: self.remote_dns,
            env: self.env,
            hosts: self.hosts(learned),
            published_udp: self.published_udp(&learned.image_ports),
            grace: self.cluster.agent.communication_timeout,
            log: self.log.clone(),
        }
    }

    /// What an agent in the sidecar's engine is told.
    pub fn agent_beside(&self, token: &Token, target_pid: u32) -> AgentConfig {
        AgentConfig {
            session: self.session.to_string(),
            token: token.clone(),
            door: Door::Socket { target_pid },
            idle_timeout: AGENT_PATIENCE,
            alone_timeout: AGENT_ALONE,
            grace: self.cluster.agent.communication_timeout,
            exclude_probes: None,
            log: self.log.clone(),
        }
    }

    /// What an agent in a cluster is told: there the keeper's connection may break, and come back.
    pub fn agent_remote(&self, token: &Token, node: &[IpAddr]) -> AgentConfig {
        let settings = &self.cluster.agent;
        AgentConfig {
            session: self.session.to_string(),
            token: token.clone(),
            door: Door::Listener,
            idle_timeout: settings.startup_timeout.max(settings.communication_timeout),
            alone_timeout: settings.communication_timeout,
            grace: settings.communication_timeout,
            exclude_probes: settings.exclude_probes.then(|| node.to_vec()),
            log: self.log.clone(),
        }
    }

    /// Whether a host's address is this machine's, which the engine alone knows.
    pub fn wants_gateway(&self) -> bool {
        self.rehomed.hosts.iter().any(|(_, address)| address == HOST_GATEWAY)
    }

    /// The user's flags for names that the target's settings overrule, in a sentence.
    pub fn overruled_dns(&self) -> Option<String> {
        let Rehomed { dns, dns_search, dns_options, .. } = &self.rehomed;
        let given = [("--dns", dns), ("--dns-search", dns_search), ("--dns-option", dns_options)];
        let given: Vec<&str> =
            given.into_iter().filter(|(_, list)| !list.is_empty()).map(|(flag, _)| flag).collect();
        (self.remote_dns && !given.is_empty()).then(|| {
            format!(
                "the app gets the target's resolv.conf instead of {}: give mirrord \
                 --no-remote-dns to have yours",
                given.join(" and ")
            )
        })
    }

    /// Lines of /etc/hosts: `--add-host`, and the container's own name if the user gave it one.
    fn hosts(&self, learned: &Learned) -> Vec<String> {
        let added = self.rehomed.hosts.iter().filter_map(|(name, address)| {
            let address = match address.as_str() {
                HOST_GATEWAY => learned.gateway.as_deref()?,
                literal => literal,
            };
            Some(format!("{address}\t{name}"))
        });
        let own = self.rehomed.hostname.as_ref().zip(learned.address.as_ref());
        let own = own.map(|(name, address)| match &self.rehomed.domainname {
            Some(domain) => format!("{address}\t{name}.{domain} {name}"),
            None => format!("{address}\t{name}"),
        });
        added.chain(own).chain(learned.links.iter().cloned()).collect()
    }

    fn published_udp(&self, image_ports: &[String]) -> Vec<u16> {
        let by_name = self.rehomed.published.iter().map(|published| &published.container);
        let by_flag = self.rehomed.exposed.iter().filter(|_| self.rehomed.publish_all);
        let udp = by_name.chain(by_flag).filter(|port| port.protocol == "udp");
        let by_image =
            image_ports.iter().filter_map(|port| port.strip_suffix("/udp")?.parse().ok());
        let mut ports: Vec<u16> = udp.map(|port| port.number).chain(by_image).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}

#[cfg(test)]
impl Plan {
    /// One for tests, with an engine at that address.
    pub fn example(host: String) -> Self {
        Self {
            session: SessionId::random().expect("random"),
            plane: Plane::Netns { or_layer: false },
            layer: LayerWishes::default(),
            hostname: true,
            endpoint: Some(Endpoint { host, source: "-H".to_owned(), tls: None, podman: None }),
            target: Some("container/web".parse().expect("a target")),
            cluster: ClusterSettings::default(),
            app_image: "img".to_owned(),
            app_entrypoint: None,
            app_words: Vec::new(),
            app_userns: None,
            app_removes: false,
            rehomed: Rehomed::default(),
            incoming: Incoming { mode: IncomingMode::Mirror, ports: vec![], ignore_ports: vec![] },
            outgoing_tcp: true,
            outgoing_udp: true,
            remote_dns: true,
            env: true,
            log: "warn".to_owned(),
            standing: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(rehomed: Rehomed) -> Plan {
        Plan { rehomed, ..Plan::example("unix:///x".to_owned()) }
    }

    #[test]
    fn the_users_hosts_and_own_name_are_told_with_addresses() {
        let pair = |name: &str, address: &str| (name.to_owned(), address.to_owned());
        let plan = plan(Rehomed {
            hosts: vec![pair("db", "10.0.0.1"), pair("here", "host-gateway")],
            hostname: Some("web".to_owned()),
            domainname: Some("shop".to_owned()),
            ..Rehomed::default()
        });
        let learned = Learned {
            gateway: Some("172.17.0.1".to_owned()),
            address: Some("172.17.0.3".to_owned()),
            ..Learned::default()
        };
        assert!(plan.wants_gateway());
        let expected = ["10.0.0.1\tdb", "172.17.0.1\there", "172.17.0.3\tweb.shop web"];
        assert_eq!(plan.hosts(&learned), expected);
        assert_eq!(plan.hosts(&Learned::default()), ["10.0.0.1\tdb"]);
    }

    #[test]
    fn the_users_flags_for_names_are_overruled_by_the_target_unless_it_has_no_say() {
        let list = |text: &str| vec![text.to_owned()];
        let mut plan =
            plan(Rehomed { dns: list("1.1.1.1"), dns_search: list("shop"), ..Rehomed::default() });
        let told = plan.overruled_dns().expect("a warning");
        assert_eq!(
            told,
            "the app gets the target's resolv.conf instead of --dns and --dns-search: give mirrord \
             --no-remote-dns to have yours"
        );
        plan.remote_dns = false;
        assert_eq!(plan.overruled_dns(), None);
        plan.remote_dns = true;
        plan.rehomed = Rehomed::default();
        assert_eq!(plan.overruled_dns(), None);
    }

    #[test]
    fn published_udp_ports_are_named_once() {
        let rehomed = Rehomed {
            published: crate::docker_run::ports::publish("53:53/udp").expect("a port"),
            exposed: crate::docker_run::ports::expose("54/udp").expect("a port"),
            publish_all: true,
            ..Rehomed::default()
        };
        let image_ports = ["53/udp".to_owned(), "80/tcp".to_owned(), "55/udp".to_owned()];
        assert_eq!(plan(rehomed).published_udp(&image_ports), [53, 54, 55]);
    }
}
