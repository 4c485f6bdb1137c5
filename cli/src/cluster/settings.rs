//! What the user decides about clusters and agents in them.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Which cluster, as kubectl finds it. No credential is in here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Absolute paths of kubeconfig files, separated as in `KUBECONFIG`; otherwise kubectl's rules.
    pub kubeconfig: Option<String>,
    /// The context; otherwise the current one.
    pub context: Option<String>,
    /// Whether the API server's certificate may be anybody's.
    pub accept_invalid_certificates: bool,
}

/// How an agent comes to its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AgentMode {
    /// A Job's pod on the target's node.
    Job,
    /// An ephemeral container in the target's pod.
    Ephemeral,
}

/// Everything about the cluster that a session needs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClusterSettings {
    /// Which cluster.
    pub access: Access,
    /// The target's namespace; otherwise the context's.
    pub namespace: Option<String>,
    /// Whether all ready pods of the workload are targets.
    pub all_replicas: bool,
    /// The agents.
    pub agent: AgentSettings,
}

/// The agents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentSettings {
    /// How they come to their targets; unless said, as a Job, and as ephemeral containers where
    /// pod security refuses that.
    pub mode: Option<AgentMode>,
    /// Their namespace; otherwise the target's.
    pub namespace: Option<String>,
    /// Their image; otherwise the target's own. The node must have it.
    pub image: Option<String>,
    /// More labels of job and pod.
    pub labels: BTreeMap<String, String>,
    /// More annotations of job and pod.
    pub annotations: BTreeMap<String, String>,
    /// The pod's tolerations, as in a pod's specification; otherwise every taint is tolerated.
    pub tolerations: Option<Vec<Value>>,
    /// The container's resources, as in a pod's specification.
    pub resources: Option<Value>,
    /// The pod's node selector, for a targetless session.
    pub node_selector: BTreeMap<String, String>,
    /// The pod's service account; its token is never mounted.
    pub service_account: Option<String>,
    /// Whether connections from the node stay with the target, and its probes with them.
    pub exclude_probes: bool,
    /// Seconds that an agent may take to start.
    pub startup_timeout: u64,
    /// Seconds that an agent waits for a tunnel to come back.
    pub communication_timeout: u64,
    /// Seconds after which the cluster removes a Job that has ended.
    pub ttl: u64,
}

impl Default for AgentSettings {
    fn default() -> Self {
        Self {
            mode: None,
            namespace: None,
            image: None,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            tolerations: None,
            resources: None,
            node_selector: BTreeMap::new(),
            service_account: None,
            exclude_probes: false,
            startup_timeout: 60,
            communication_timeout: 60,
            ttl: 10,
        }
    }
}
