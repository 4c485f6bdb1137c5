//! What the CLI tells the proxy and the agent on their standard input, and hears from them on
//! their standard output: one JSON value a line.
//!
//! The first line of standard input is the configuration. The end of standard input means that the
//! CLI is gone, and the proxy leaves. An agent leaves at once when anything comes after its
//! configuration; when its standard input merely ends, it waits a while for a tunnel.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::Token;

/// Where the volume that proxy and agent share is mounted in both.
pub const SHARED_FOLDER: &str = "/run/mirrord";
/// The agent's end of the tunnel, in [`SHARED_FOLDER`].
pub const AGENT_SOCKET: &str = "/run/mirrord/agent.sock";
/// Where the proxy takes pipes over that `mirrord proxy --pipe` brings, in its folder: that is
/// [`SHARED_FOLDER`] in a sidecar.
pub const HANDOVER_SOCKET: &str = "handover.sock";
/// The descriptor of the listener that an agent in a cluster is born with.
pub const LISTENER_FD: i32 = 3;
/// The name server that Docker's embedded one hands unknown names to, in the sidecar's own network:
/// an address that leads nowhere (RFC 5737), so that steering brings it to the proxy.
pub const DNS_VIA_PROXY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);

/// The proxy's configuration: the first line of its standard input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProxyConfig {
    /// The session's id: short, random, in every name and label that we create.
    pub session: String,
    /// Shown to the agent in the tunnel's handshake.
    pub token: Token,
    /// How the agents are reached.
    pub agents: Agents,
    /// Where [`HANDOVER_SOCKET`] is.
    pub folder: String,
    /// Who redirects the app's network.
    pub plane: PlaneKind,
    /// What happens to the target's incoming traffic.
    pub incoming: Incoming,
    /// Whether the app's TCP connections leave from the target.
    pub outgoing_tcp: bool,
    /// Whether the app's UDP datagrams leave from the target.
    pub outgoing_udp: bool,
    /// Whether names are resolved as the target does.
    pub remote_dns: bool,
    /// Whether the target's environment is wanted in [`ProxyEvent::Ready`].
    pub env: bool,
    /// Lines of /etc/hosts that go above the target's: the user's `--add-host`.
    pub hosts: Vec<String>,
    /// UDP ports of the app that are published: their replies leave directly.
    pub published_udp: Vec<u16>,
    /// Seconds that a tunnel whose pipe broke waits for the next one.
    pub grace: u64,
    /// `tracing` filter of the proxy's log on standard error.
    pub log: String,
}

/// Who redirects the app's network.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlaneKind {
    /// The kernel, in the namespace that the proxy shares with the app; the preload library as well
    /// if unix sockets of the target are wanted, for those alone.
    Netns(Option<LayerConfig>),
    /// The preload library in each of the app's processes; the proxy needs no right.
    Layer(LayerConfig),
}

/// What the layer plane needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LayerConfig {
    /// The name of the abstract unix socket that the layer asks on.
    pub socket: String,
    /// What each request must show, unless the network namespace is the session's own.
    pub key: Option<LayerKey>,
    /// Whether the app sees the target's host name.
    pub hostname: bool,
    /// Whether names and hosts are also written to /etc, which is the session's own.
    pub owns_etc: bool,
    /// Programs that are left alone, by their file names.
    pub skipped: Vec<String>,
    /// Ports of the app, each with the one that stands for it instead of any free one.
    pub listen_ports: Vec<(u16, u16)>,
    /// Regular expressions: unix sockets whose names one of them matches are the target's.
    pub unix_streams: Vec<String>,
}

/// The layer's secret; it prints as `…`.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LayerKey(pub [u8; crate::layer::KEY_LEN]);

impl std::fmt::Debug for LayerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// How a proxy reaches its agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Agents {
    /// One agent, on [`AGENT_SOCKET`].
    Socket,
    /// Through pipes that `mirrord proxy --pipe` hands over, each to the agent beside one target.
    /// The first so many targets are described before the app starts; others may follow, and each
    /// may come again through another pipe.
    Handed(u16),
}

/// Which of a session's targets a pipe leads to; the first one lends its names and environment.
pub type TargetIndex = u16;

/// What happens to the target's incoming traffic.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Incoming {
    /// Copied, taken or left alone.
    pub mode: IncomingMode,
    /// If not empty: the only ports that are subscribed, each local port with its remote one.
    pub ports: Vec<PortMapping>,
    /// Remote ports that are never subscribed.
    pub ignore_ports: Vec<u16>,
}

/// What happens to the target's incoming traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IncomingMode {
    /// It stays with the target.
    Off,
    /// The app gets a copy, and its answers go nowhere.
    Mirror,
    /// The app gets it in the target's place.
    Steal,
}

/// `--port LOCAL[:REMOTE][/udp]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where the app listens.
    pub local: u16,
    /// Where the target's clients connect.
    pub remote: u16,
}

/// The transport protocols that a tunnel carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// A byte stream.
    Tcp,
    /// Datagrams.
    Udp,
}

/// The agent's configuration: the first line of its standard input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AgentConfig {
    /// The session's id.
    pub session: String,
    /// What every handshake must show.
    pub token: Token,
    /// Where tunnels come from.
    pub door: Door,
    /// Seconds without a tunnel after which the agent ends.
    pub idle_timeout: u64,
    /// The same once the CLI is gone.
    pub alone_timeout: u64,
    /// Seconds that a tunnel whose pipe broke waits for the next one.
    pub grace: u64,
    /// The addresses of the target's node, if the connections of its probes stay with the target;
    /// the default gateway of the target's namespace counts as one of them.
    pub exclude_probes: Option<Vec<IpAddr>>,
    /// `tracing` filter of the agent's log on standard error.
    pub log: String,
}

/// Where an agent's tunnels come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// From [`AGENT_SOCKET`]; the agent was born in its target's namespaces.
    Socket {
        /// The target's process, as this agent's /proc numbers it; 1 in a joined pid namespace.
        target_pid: u32,
    },
    /// From the listener that the agent inherited as [`LISTENER_FD`], on 127.0.0.1. Each handshake
    /// names a target's container, whose namespaces the agent finds and enters; one that names
    /// none is for the agent's own namespaces.
    Listener,
}

/// What the proxy says on its standard output.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ProxyEvent {
    /// Pipes may be handed over from now on.
    Waiting,
    /// The first tunnel stands; steering and names are next.
    Connected,
    /// Tunnel, names and steering stand: the app may start.
    Ready(Target),
    /// The target's traffic for a port now comes to the app (or a copy of it).
    Subscribed(PortMapping),
    /// The target's traffic for a port could not be had.
    SubscribeFailed {
        /// Which port.
        port: PortMapping,
        /// One sentence for the user.
        reason: String,
    },
    /// The target's traffic for a port no longer comes.
    Unsubscribed(PortMapping),
    /// A tunnel broke; the proxy goes on trying to make a new one, or waits for a pipe.
    Disconnected {
        /// Which target's.
        target: TargetIndex,
        /// One sentence for the user.
        reason: String,
    },
    /// A new tunnel stands after a [`ProxyEvent::Disconnected`].
    Reconnected {
        /// Which target's.
        target: TargetIndex,
        /// Whether the connections that were open go on.
        kept: bool,
    },
    /// What a pipe led to is no agent, or did not let us in; another pipe may be handed over.
    Refused {
        /// Which target's.
        target: TargetIndex,
        /// One sentence for the user.
        reason: String,
    },
    /// Something the user should know, and that ends nothing.
    Warning {
        /// One sentence.
        message: String,
    },
    /// The proxy's process was killed and has been started again in the same namespace.
    Restarted,
    /// The proxy can't go on and leaves.
    Failed {
        /// The sentence, then its causes.
        causes: Vec<String>,
    },
    /// The proxy was told to leave: what the app has sent up to its end has arrived, and nobody
    /// needs the agents any more.
    Left,
}

/// What the proxy learned of the target.
#[derive(Clone, Serialize, Deserialize)]
pub struct Target {
    /// Its host name.
    pub hostname: String,
    /// Its addresses, those of loopback left out.
    pub addresses: Vec<IpAddr>,
    /// Its process's environment, in its order; empty unless asked for.
    pub env: Vec<(String, String)>,
    /// Names of variables whose values are not UTF-8, so that no engine could carry them.
    pub env_skipped: Vec<String>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target")
            .field("hostname", &self.hostname)
            .field("addresses", &self.addresses)
            .field("env", &format_args!("{} variables", self.env.len()))
            .finish()
    }
}

/// What the agent says on its standard output.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum AgentEvent {
    /// It accepts tunnels.
    Listening,
    /// It can't go on and leaves.
    Failed {
        /// The sentence, then its causes.
        causes: Vec<String>,
    },
}
