//! Why an agent does not start, in the cluster's own words.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::Api;
use kube::api::ListParams;
use tokio::time::sleep;

use super::{Order, job};
use crate::cluster::connect::ClusterError;
use crate::failure::Failure;

/// How often a pod is looked at that does not answer yet.
const LOOK: Duration = Duration::from_millis(300);
/// A Job has its pod by then, unless somebody refuses it.
const PODLESS: Duration = Duration::from_millis(400);
/// What a container waits for that will not come.
const HOPELESS: &[&str] = &[
    "CreateContainerConfigError",
    "CreateContainerError",
    "CrashLoopBackOff",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
    "StartError",
];

/// Why there is no agent.
#[derive(Debug)]
pub enum StartError {
    /// The namespace's pod security refuses it.
    PodSecurity {
        /// For example `baseline:latest`.
        policy: String,
        /// What it objects to.
        objections: String,
    },
    /// The container's image has no shell.
    NoShell,
    /// The API server does not answer at the moment.
    Unreachable(Failure),
    /// Anything else.
    Failed(Failure),
}

impl StartError {
    /// From an answer of the API server.
    pub fn of(error: ClusterError) -> Self {
        match &error {
            ClusterError::Refused { message, .. } => {
                pod_security(message).unwrap_or_else(|| Self::Failed(error.into()))
            }
            lasting if lasting.is_lasting() => Self::Failed(error.into()),
            _ => Self::Unreachable(error.into()),
        }
    }
}

/// Reads `violates PodSecurity "baseline:latest": host namespaces (hostPID=true), …`
/// (k8s.io/pod-security-admission/admission).
fn pod_security(message: &str) -> Option<StartError> {
    let (_, rest) = message.split_once("violates PodSecurity \"")?;
    let (policy, objections) = rest.split_once("\": ")?;
    Some(StartError::PodSecurity { policy: policy.to_owned(), objections: objections.to_owned() })
}

/// Looks for the reason of a Job that has no pod.
pub struct NoPod<'a> {
    order: &'a Order<'a>,
    since: Instant,
}

impl<'a> NoPod<'a> {
    /// From now on.
    pub fn new(order: &'a Order<'a>) -> Self {
        Self { order, since: Instant::now() }
    }

    /// Fails if somebody refuses the pod.
    pub async fn look(&mut self) -> Result<(), StartError> {
        if self.since.elapsed() < PODLESS {
            return Ok(());
        }
        self.since = Instant::now();
        let refused = events(self.order, &self.order.name)
            .await
            .into_iter()
            .find(|(reason, _)| reason == "FailedCreate");
        match refused {
            None => Ok(()),
            Some((_, message)) => {
                Err(pod_security(&message).unwrap_or_else(|| self.order.failed(message)))
            }
        }
    }
}

/// Waits until the agent's pod can't be hoped for any more.
pub async fn of_pod(order: &Order<'_>, name: &str) -> StartError {
    loop {
        sleep(LOOK).await;
        let Ok(pods) = job::pods(order).await else { continue };
        let pod = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name));
        let cause = match pod {
            None => Some("its pod was deleted".to_owned()),
            Some(pod) => verdict(pod),
        };
        if let Some(cause) = cause {
            return order.failed(cause);
        }
    }
}

/// All that is known of an agent that is late.
pub async fn explain(order: &Order<'_>) -> Vec<String> {
    let pods = job::pods(order).await.unwrap_or_default();
    let mut causes = Vec::new();
    for pod in &pods {
        let status = pod.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.clone()).unwrap_or_default();
        let open = conditions.into_iter().filter(|condition| condition.status != "True");
        causes.extend(open.filter_map(|condition| condition.message));
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        causes.extend(events(order, name).await.pop().map(|(_, message)| message));
    }
    causes.dedup();
    causes
}

/// Reasons and messages of what happened to an object, oldest first.
async fn events(order: &Order<'_>, name: &str) -> Vec<(String, String)> {
    let events: Api<Event> = Api::namespaced(order.cluster.client.clone(), &order.namespace);
    let about = ListParams::default().fields(&format!("involvedObject.name={name}"));
    let found = events.list(&about).await.map(|list| list.items).unwrap_or_default();
    found
        .into_iter()
        .map(|event| (event.reason.unwrap_or_default(), event.message.unwrap_or_default()))
        .collect()
}

/// Why a pod will never run, if that is so.
fn verdict(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().flatten();
    if let Some(why) = containers.filter_map(hopeless).next() {
        return Some(why);
    }
    let ended = matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"));
    ended.then(|| {
        let words = [status.reason.clone(), status.message.clone()];
        let words: Vec<String> = words.into_iter().flatten().collect();
        match words.is_empty() {
            true => "its pod ended".to_owned(),
            false => format!("its pod failed: {}", words.join(": ")),
        }
    })
}

/// Why a container will never run, if that is so.
pub fn hopeless(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref()?;
    if let Some(ended) = &state.terminated {
        let words = ended.message.as_deref().or(ended.reason.as_deref()).unwrap_or_default();
        return Some(format!(
            "its container ended with code {}: {}",
            ended.exit_code,
            words.trim()
        ));
    }
    let waiting = state.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let message = waiting.message.as_deref().unwrap_or_default();
    HOPELESS.contains(&reason).then(|| format!("{reason}: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_security_is_told_from_other_refusals() {
        let message = "pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\": host \
                       namespaces (hostPID=true), unrestricted capabilities";
        let Some(StartError::PodSecurity { policy, objections }) = pod_security(message) else {
            panic!("not understood")
        };
        assert_eq!(policy, "restricted:latest");
        assert!(objections.starts_with("host namespaces (hostPID=true)"));
        assert!(pod_security("pods \"a\" is forbidden: exceeded quota").is_none());
    }

    #[test]
    fn a_container_that_waits_in_vain_says_why() {
        let container = |state: serde_json::Value| -> ContainerStatus {
            let json = serde_json::json!({
                "name": "agent", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
                "state": state,
            });
            serde_json::from_value(json).expect("a container's status")
        };
        let waiting = |reason: &str| {
            container(serde_json::json!({ "waiting": { "reason": reason, "message": "why" } }))
        };
        assert_eq!(hopeless(&waiting("ContainerCreating")), None);
        let never = hopeless(&waiting("ErrImageNeverPull"));
        assert_eq!(never.as_deref(), Some("ErrImageNeverPull: why"));
        let ended = container(serde_json::json!({
            "terminated": { "exitCode": 98, "reason": "Error", "message": "port taken\n" }
        }));
        let expected = "its container ended with code 98: port taken";
        assert_eq!(hopeless(&ended).as_deref(), Some(expected));
    }
}
