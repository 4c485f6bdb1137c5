//! Why a workload cannot be a target.

use super::super::connect::ClusterError;
use super::near::Neighbours;
use super::pod::{OtherPod, Why};
use crate::failure::{Failure, nearest};
use crate::target::{ClusterTarget, Kind};

/// How many pods are told of, each with what is wrong with it.
const TOLD: usize = 5;

/// Why a workload cannot be a target.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// There is no such object.
    #[error("there is no {kind} {name:?} in namespace {namespace}")]
    NotFound {
        /// What was looked for.
        kind: Kind,
        /// Its name.
        name: String,
        /// Where.
        namespace: String,
        /// What might have been meant.
        near: Box<Neighbours>,
    },
    /// There is no such namespace.
    #[error("there is no namespace {name:?}")]
    NoNamespace {
        /// Its name.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// The cluster does not know the kind.
    #[error("the cluster has no {}.{}: nothing of that kind can be a target", .0.plural(), .0.group())]
    UnknownKind(Kind),
    /// A service that leads to no pods.
    #[error("the service {name} leads to no pods that could be a target: {reason}")]
    Service {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// A rollout that does not say which pods are its own.
    #[error("cannot tell which pods the {kind} {name} has: {reason}")]
    Selector {
        /// What it is.
        kind: Kind,
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// No pods at all.
    #[error("the {kind} {name} has no pods")]
    NoPods {
        /// What it is.
        kind: Kind,
        /// Its name.
        name: String,
        /// Its namespace.
        namespace: String,
        /// Why, if the cluster says so.
        reason: Option<String>,
    },
    /// Pods, and none that could be a target.
    #[error("{}", not_ready(target))]
    NoneReady {
        /// What was looked for.
        target: ClusterTarget,
        /// Its namespace.
        namespace: String,
        /// What is wrong with each.
        pods: Vec<OtherPod>,
    },
    /// A container that is not there.
    #[error("the pods of {target} have no container {container:?}")]
    NoContainer {
        /// What was looked for.
        target: ClusterTarget,
        /// The container.
        container: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// It runs in a network namespace that a session must not touch.
    #[error("the pod {pod} uses its node's own network, which no session may redirect")]
    HostNetwork {
        /// Which.
        pod: String,
    },
    /// There is nowhere to run an agent.
    #[error("no pod is there whose image and node an agent without a target could use")]
    NoNode {
        /// Which namespaces were looked at, and what was in the way.
        looked: Vec<String>,
    },
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl From<TargetError> for Failure {
    fn from(error: TargetError) -> Self {
        let failure = Failure::new(error.to_string());
        match error {
            TargetError::NotFound { kind, name, namespace, near } => {
                failure.hint(near.hint(kind, &name, &namespace))
            }
            TargetError::NoNamespace { name, known } => {
                let near = nearest(&name, known.iter().map(String::as_str)).join(" or ");
                failure.hint(match near.as_str() {
                    "" => "see 'kubectl get namespaces', and choose one with -n".to_owned(),
                    near => format!("did you mean {near}?"),
                })
            }
            TargetError::UnknownKind(Kind::Rollout) => {
                failure.hint("Argo Rollouts is not installed there; see 'mirrord ls'")
            }
            TargetError::UnknownKind(_) => failure.hint("see 'mirrord ls'"),
            TargetError::Service { .. } => failure.hint("name a workload: see 'mirrord ls'"),
            TargetError::Selector { .. } => failure.hint("name one of its pods: see 'mirrord ls'"),
            TargetError::NoPods { kind, name, namespace, reason } => {
                let hint = no_pods_hint(kind, &name, &namespace);
                match reason {
                    Some(reason) => failure.because(reason).hint(hint),
                    None => failure.hint(hint),
                }
            }
            TargetError::NoneReady { target, namespace, pods } => {
                none_ready(failure, &target, &namespace, &pods)
            }
            TargetError::NoContainer { container, known, .. } => {
                let near = nearest(&container, known.iter().map(String::as_str)).join(" or ");
                failure.hint(match near.as_str() {
                    "" => format!("containers are: {}", known.join(", ")),
                    near => format!("did you mean {near}? containers are: {}", known.join(", ")),
                })
            }
            TargetError::HostNetwork { .. } => {
                failure.hint("its traffic is all of the node's; choose a target without hostNetwork")
            }
            TargetError::NoNode { looked } => looked
                .into_iter()
                .fold(failure, Failure::because)
                .hint("name an image that the nodes have: --agent-image IMAGE; or a target: -t TYPE/NAME"),
            TargetError::Cluster(error) => error.into(),
        }
    }
}

fn not_ready(target: &ClusterTarget) -> String {
    match target.kind {
        Kind::Pod => format!("the pod {} is not ready", target.name),
        _ => format!("no pod of {target} is ready"),
    }
}

fn no_pods_hint(kind: Kind, name: &str, namespace: &str) -> String {
    match kind {
        Kind::Deployment | Kind::StatefulSet | Kind::ReplicaSet | Kind::Rollout => {
            format!("give it one: kubectl -n {namespace} scale {kind}/{name} --replicas 1")
        }
        Kind::CronJob => {
            format!("run it: kubectl -n {namespace} create job --from=cronjob/{name} {name}-now")
        }
        _ => format!("see 'kubectl -n {namespace} describe {kind} {name}'"),
    }
}

fn none_ready(
    failure: Failure,
    target: &ClusterTarget,
    namespace: &str,
    pods: &[OtherPod],
) -> Failure {
    let told = pods.iter().take(TOLD).fold(failure, |failure, other| {
        failure.because(format!("pod {}: {}", other.pod, other.why))
    });
    let told = match pods.len().saturating_sub(TOLD) {
        0 => told,
        more => told.because(format!("and {more} more")),
    };
    let ended = pods.iter().all(|other| matches!(other.why, Why::Ended(_)));
    match (pods, target.kind) {
        (_, Kind::Job | Kind::Pod) if ended => told.hint("only a running pod can be a target"),
        (_, Kind::CronJob) if ended => {
            told.hint(no_pods_hint(target.kind, &target.name, namespace))
        }
        ([first, ..], _) => {
            told.hint(format!("see 'kubectl -n {namespace} describe pod {}'", first.pod))
        }
        ([], _) => told,
    }
}
