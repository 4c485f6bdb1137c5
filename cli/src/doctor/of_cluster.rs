//! The cluster: whether it answers, rights, pod security.

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;

use super::report::{Item, State};
use crate::cluster::connect::{Cluster, ClusterError};
use crate::cluster::rights::{self, Rights, role_yaml};
use crate::cluster::settings::{AgentMode, ClusterSettings};

/// On a namespace: which pods its pod security lets in.
const ENFORCED: &str = "pod-security.kubernetes.io/enforce";

/// What was found of the cluster.
#[derive(Default)]
pub struct OfCluster {
    /// It, if it answers.
    pub cluster: Option<Cluster>,
    /// The namespaces that sessions would use.
    pub namespaces: Vec<String>,
    /// What is told.
    pub items: Vec<Item>,
    /// The Roles of which something is missing.
    pub roles: Vec<(&'static str, String)>,
    /// Whether nothing is in the way of sessions.
    pub fit: bool,
}

/// The namespace of the context, or what stands for none.
pub async fn default_namespace(settings: &ClusterSettings) -> String {
    let cluster = Cluster::connect(&settings.access).await;
    cluster.map_or_else(|_| "default".to_owned(), |cluster| cluster.namespace)
}

/// Whether the cluster answers, and what it allows.
pub async fn cluster(settings: &ClusterSettings) -> OfCluster {
    let topic = "cluster";
    let cluster = match Cluster::connect(&settings.access).await {
        Ok(cluster) => cluster,
        Err(error) => {
            let absent = matches!(error, ClusterError::NoKubeconfig { .. });
            let mut item = Item::failure(topic, &error.into());
            if absent {
                item.state = State::Note;
            }
            return OfCluster { items: vec![item], fit: absent, ..OfCluster::default() };
        }
    };
    let asked = cluster.client.apiserver_version();
    let version = match cluster.ask("cannot ask the API server for its version", asked).await {
        Ok(version) => version.git_version,
        Err(error) => {
            let items = vec![Item::failure(topic, &error.into())];
            return OfCluster { items, ..OfCluster::default() };
        }
    };
    let context = cluster.context.as_deref().unwrap_or("none, inside a pod");
    let text = format!("Kubernetes {version} at {} (context {context})", cluster.server);
    let target = settings.namespace.clone().unwrap_or_else(|| cluster.namespace.clone());
    let agent = settings.agent.namespace.clone().unwrap_or_else(|| target.clone());
    let mut found = OfCluster { items: vec![Item::fine(topic, text)], ..OfCluster::default() };
    let (job, ephemeral, level) = tokio::join!(
        mode(&cluster, AgentMode::Job, &target, &agent),
        mode(&cluster, AgentMode::Ephemeral, &target, &agent),
        level(&cluster, &agent),
    );
    let lets_jobs = level.as_deref().is_none_or(|level| level == "privileged");
    found.items.push(security(&agent, level.as_deref()));
    found.fit = (job.1 && lets_jobs) || ephemeral.1;
    for (mode, (items, allowed)) in [(AgentMode::Job, job), (AgentMode::Ephemeral, ephemeral)] {
        found.items.extend(items);
        if !allowed {
            found.roles.push((word(mode), role_yaml(mode, &target, &agent)));
        }
    }
    found.namespaces = match target == agent {
        true => vec![target],
        false => vec![target, agent],
    };
    found.cluster = Some(cluster);
    found
}

/// Every right of a mode, and whether all are there.
async fn mode(cluster: &Cluster, mode: AgentMode, target: &str, agent: &str) -> (Vec<Item>, bool) {
    let topic = &format!("mode {}", word(mode));
    let reviewed = rights::review(cluster, &Rights::for_all(mode, target, agent)).await;
    let all = reviewed.iter().all(|(_, allowed)| *allowed != Some(false));
    let items = reviewed.into_iter().map(|(right, allowed)| match allowed {
        Some(true) => Item::fine(topic.clone(), right.to_string()),
        Some(false) => Item::missing(topic.clone(), right.to_string())
            .hint(format!("mirrord doctor --role {} | kubectl apply -f -", word(mode))),
        None => Item::note(topic.clone(), format!("{right}: cannot be told")),
    });
    (items.collect(), all)
}

fn word(mode: AgentMode) -> &'static str {
    match mode {
        AgentMode::Job => "job",
        AgentMode::Ephemeral => "ephemeral",
    }
}

/// The level that a namespace enforces; empty if none; nothing if that may not be read.
async fn level(cluster: &Cluster, namespace: &str) -> Option<String> {
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    let found = cluster.ask("cannot read the namespace", api.get_metadata(namespace)).await.ok()?;
    let labels = found.metadata.labels.unwrap_or_default();
    Some(labels.get(ENFORCED).cloned().unwrap_or_else(|| "privileged".to_owned()))
}

fn security(namespace: &str, level: Option<&str>) -> Item {
    let topic = "cluster";
    match level {
        None => Item::note(topic, format!("pod security of namespace {namespace} may not be read")),
        Some("privileged") => {
            Item::fine(topic, format!("pod security of namespace {namespace} lets agents in"))
        }
        Some(level) => Item::missing(
            topic,
            format!("pod security {level:?} of namespace {namespace} refuses agents of mode job"),
        )
        .hint("choose another namespace for them with -a, or --agent-mode ephemeral"),
    }
}
