//! What the front asks of the keeper: the plan first, then commands, each a JSON line.

use mirrord_protocol::Token;
use mirrord_protocol::control::{AgentConfig, Incoming, ProxyConfig};
use serde::{Deserialize, Serialize};

use super::SessionId;
use crate::docker_run::Rehomed;
use crate::engine::Endpoint;

/// How long an agent stays without a tunnel, in seconds.
const AGENT_PATIENCE: u64 = 4;

/// A session to be brought up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Its id.
    pub session: SessionId,
    /// Which engine.
    pub endpoint: Endpoint,
    /// The target container's name or id.
    pub target: String,
    /// The image that the app runs, for `-P`.
    pub app_image: String,
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
}

/// What the front says after the plan. The end of the pipe means that it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// docker has ended, or never ran: clean up, or stay as long as the app goes on without it.
    End,
}

impl Plan {
    /// What the proxy is told.
    pub fn proxy_config(&self, token: &Token, image_ports: &[String]) -> ProxyConfig {
        ProxyConfig {
            session: self.session.to_string(),
            token: token.clone(),
            incoming: self.incoming.clone(),
            outgoing_tcp: self.outgoing_tcp,
            outgoing_udp: self.outgoing_udp,
            remote_dns: self.remote_dns,
            env: self.env,
            hosts: self.hosts(),
            published_udp: self.published_udp(image_ports),
            log: self.log.clone(),
        }
    }

    /// What an agent is told.
    pub fn agent_config(&self, token: &Token, target_pid: u32) -> AgentConfig {
        AgentConfig {
            session: self.session.to_string(),
            token: token.clone(),
            target_pid,
            idle_timeout: AGENT_PATIENCE,
            log: self.log.clone(),
        }
    }

    /// Lines of /etc/hosts; the engine alone knows what `host-gateway` is, and writes that line.
    fn hosts(&self) -> Vec<String> {
        let literal = self
            .rehomed
            .hosts
            .iter()
            .filter(|(_, address)| address != "host-gateway");
        literal
            .map(|(name, address)| format!("{address}\t{name}"))
            .collect()
    }

    fn published_udp(&self, image_ports: &[String]) -> Vec<u16> {
        let by_name = self
            .rehomed
            .published
            .iter()
            .map(|published| &published.container);
        let by_flag = self
            .rehomed
            .exposed
            .iter()
            .filter(|_| self.rehomed.publish_all);
        let udp = by_name.chain(by_flag).filter(|port| port.protocol == "udp");
        let by_image = image_ports
            .iter()
            .filter_map(|port| port.strip_suffix("/udp")?.parse().ok());
        let mut ports: Vec<u16> = udp.map(|port| port.number).chain(by_image).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}
