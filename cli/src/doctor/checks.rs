//! Engine, cluster, rights, pod security.

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;

use super::report::Item;
use crate::cluster::connect::{Cluster, ClusterError};
use crate::cluster::rights::{self, Rights, role_yaml};
use crate::cluster::settings::{AgentMode, ClusterSettings};
use crate::engine::Engine;
use crate::engine::endpoint::Sources;
use crate::failure::Failure;

/// On a namespace: which pods its pod security lets in.
const ENFORCED: &str = "pod-security.kubernetes.io/enforce";

/// What was found of the engine.
pub struct OfEngine {
    /// It, if it answers.
    pub engine: Option<Engine>,
    /// What is told.
    pub items: Vec<Item>,
}

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

/// The sentence, causes and hint of a failure, in one line.
fn line(failure: &Failure) -> String {
    let mut parts = vec![failure.sentence.clone()];
    parts.extend(failure.causes.iter().cloned());
    let hint = failure.hint.as_ref().map(|hint| format!(" (hint: {hint})"));
    format!("{}{}", parts.join(": "), hint.unwrap_or_default())
}

/// Whether the engine answers.
pub async fn engine() -> OfEngine {
    match answering().await {
        Ok((engine, text)) => {
            OfEngine { engine: Some(engine), items: vec![Item::fine("engine", text)] }
        }
        Err(failure) => {
            OfEngine { engine: None, items: vec![Item::missing("engine", line(&failure))] }
        }
    }
}

async fn answering() -> Result<(Engine, String), Failure> {
    let endpoint = Sources::of_environment().resolve()?;
    let mut engine = Engine::new(&endpoint)?;
    let ask = async |engine: &Engine| {
        let version = engine.api().version().await;
        version.map_err(|error| engine.explain("cannot ask the engine for its version", error))
    };
    let version = match ask(&engine).await {
        Ok(version) => version,
        Err(error) => match engine.with_version_of(&error) {
            Some(older) => {
                engine = older;
                ask(&engine).await?
            }
            None => return Err(error.into()),
        },
    };
    let version = version.version.unwrap_or_default();
    Ok((engine, format!("Docker Engine {version} at {} ({})", endpoint.host, endpoint.source)))
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
            let text = line(&error.into());
            let item = if absent { Item::note(topic, text) } else { Item::missing(topic, text) };
            return OfCluster { items: vec![item], fit: absent, ..OfCluster::default() };
        }
    };
    let asked = cluster.client.apiserver_version();
    let version = match cluster.ask("cannot ask the API server for its version", asked).await {
        Ok(version) => version.git_version,
        Err(error) => {
            let items = vec![Item::missing(topic, line(&error.into()))];
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
    for (name, mode, (items, allowed)) in
        [("job", AgentMode::Job, job), ("ephemeral", AgentMode::Ephemeral, ephemeral)]
    {
        found.items.extend(items);
        if !allowed {
            found.roles.push((name, role_yaml(mode, &target, &agent)));
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
    let topic = match mode {
        AgentMode::Job => "mode job",
        AgentMode::Ephemeral => "mode ephemeral",
    };
    let reviewed = rights::review(cluster, &Rights::for_all(mode, target, agent)).await;
    let all = reviewed.iter().all(|(_, allowed)| *allowed != Some(false));
    let items = reviewed.into_iter().map(|(right, allowed)| match allowed {
        Some(true) => Item::fine(topic, right.to_string()),
        Some(false) => Item::missing(topic, right.to_string()),
        None => Item::note(topic, format!("{right}: cannot be told")),
    });
    (items.collect(), all)
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
            format!(
                "pod security {level:?} of namespace {namespace} refuses agents of mode job: choose \
                 another namespace for them with -a, or --agent-mode ephemeral"
            ),
        ),
    }
}
