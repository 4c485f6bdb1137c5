//! One pod: fit to be a target, or why not.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, Pod, PodCondition, PodSecurityContext, PodSpec, PodStatus,
    SecurityContext,
};
use serde::{Deserialize, Serialize};

use crate::engine::clean::SESSION_LABEL;

/// Names which container of a pod is meant, as for kubectl.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// Containers that accompany the one that is meant.
const COMPANIONS: &[&str] = &[
    "aws-appmesh-proxy",
    "cloud-sql-proxy",
    "consul-connect-envoy-sidecar",
    "consul-dataplane",
    "daprd",
    "envoy",
    "envoy-sidecar",
    "istio-proxy",
    "kuma-sidecar",
    "linkerd-debug",
    "linkerd-proxy",
    "queue-proxy",
    "vault-agent",
];

/// A pod that can be a target, with the container that is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its uid.
    pub uid: String,
    /// The node that it runs on.
    pub node: String,
    /// The container that is meant.
    pub container: String,
    /// That container's id, without the runtime's name.
    pub container_id: String,
    /// That container's image, by a name that its node knows.
    pub image: String,
    /// That image, by what it holds.
    pub image_id: String,
    /// The ports that the container says it listens on.
    pub ports: BTreeSet<String>,
    /// The pod's host name.
    pub hostname: String,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// Its node's addresses.
    pub node_addresses: Vec<IpAddr>,
    /// The user that the container runs as, if that is said.
    pub run_as_user: Option<i64>,
    /// The group that the container runs as, if that is said.
    pub run_as_group: Option<i64>,
    /// The secrets that its images are pulled with.
    pub image_pull_secrets: Vec<String>,
    /// Seconds since 1970 when it became ready, or was created if that is not said.
    pub ready_since: i64,
}

/// A pod that cannot be a target now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherPod {
    /// Its name.
    pub pod: String,
    /// Its uid.
    pub uid: String,
    /// Why not.
    pub why: Why,
}

/// Why a pod cannot be a target now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It is being deleted.
    Terminating,
    /// It has ended.
    Ended(String),
    /// It has no running container yet, or no longer.
    NotRunning(String),
    /// Its container runs, and the pod is not ready.
    NotReady {
        /// Why.
        reason: String,
        /// As it would be if it were ready.
        pod: Box<TargetPod>,
    },
    /// It has no container of the name that is meant.
    NoContainer(Vec<String>),
    /// It uses its node's network.
    HostNetwork,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Terminating => f.write_str("it is terminating"),
            Self::Ended(how) => write!(f, "it has ended: {how}"),
            Self::NotRunning(reason) => f.write_str(reason),
            Self::NotReady { reason, .. } => write!(f, "it is not ready: {reason}"),
            Self::NoContainer(_) => f.write_str("it has no such container"),
            Self::HostNetwork => f.write_str("it uses its node's own network"),
        }
    }
}

/// The pods of a workload at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pods {
    /// Those that can be targets, the one that is ready for longest first.
    pub ready: Vec<TargetPod>,
    /// The others.
    pub others: Vec<OtherPod>,
}

/// How a pod stands among the pods of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing<'a> {
    /// It can be a target; its container may be another one than before.
    Ready(&'a TargetPod),
    /// It is there, and cannot be one now.
    Other(&'a Why),
    /// It is not there.
    Gone,
}

impl Pods {
    /// Those of a list, judged; our own pods are none of them.
    pub fn of<'a>(list: impl IntoIterator<Item = &'a Pod>, container: Option<&str>) -> Self {
        let mut pods = Self::default();
        for pod in list.into_iter().filter(|pod| !is_ours(pod)) {
            match judge(pod, container) {
                Ok(fit) => pods.ready.push(fit),
                Err(why) => {
                    let (pod, uid) = (name(pod), pod.metadata.uid.clone().unwrap_or_default());
                    pods.others.push(OtherPod { pod, uid, why });
                }
            }
        }
        pods.ready.sort_by(|a, b| (a.ready_since, &a.pod).cmp(&(b.ready_since, &b.pod)));
        pods.others.sort_by(|a, b| a.pod.cmp(&b.pod));
        pods
    }

    /// How the pod with this uid stands.
    pub fn standing(&self, uid: &str) -> Standing<'_> {
        let other = || self.others.iter().find(|other| other.uid == uid);
        match self.ready.iter().find(|ready| ready.uid == uid) {
            Some(ready) => Standing::Ready(ready),
            None => other().map_or(Standing::Gone, |other| Standing::Other(&other.why)),
        }
    }
}

/// Whether a pod is one of our agents.
pub fn is_ours(pod: &Pod) -> bool {
    pod.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(SESSION_LABEL))
}

/// The pod's name.
pub fn name(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}

/// Whether a pod can be a target.
pub fn judge(pod: &Pod, container: Option<&str>) -> Result<TargetPod, Why> {
    let (spec, status) = match (&pod.spec, &pod.status) {
        (Some(spec), Some(status)) => (spec, status),
        _ => return Err(Why::NotRunning("nothing is known of it yet".to_owned())),
    };
    let chosen = choose(pod, spec, container)?;
    if pod.metadata.deletion_timestamp.is_some() {
        return Err(Why::Terminating);
    }
    if let Some(phase @ ("Succeeded" | "Failed")) = status.phase.as_deref() {
        let said = status.reason.iter().chain(&status.message).cloned().collect::<Vec<_>>();
        let said = if said.is_empty() { String::new() } else { format!(" ({})", said.join(": ")) };
        return Err(Why::Ended(format!("{phase}{said}")));
    }
    if spec.host_network == Some(true) {
        return Err(Why::HostNetwork);
    }
    let id = running(status, &chosen.name).map_err(Why::NotRunning)?;
    let fit = describe(pod, spec, status, chosen, id);
    match condition(status, "Ready").filter(|ready| ready.status != "True") {
        Some(ready) => {
            let reason = ready.message.clone().or_else(|| ready.reason.clone());
            let reason = reason.unwrap_or_else(|| "no reason is given".to_owned());
            Err(Why::NotReady { reason, pod: Box::new(fit) })
        }
        None => Ok(fit),
    }
}

/// All containers that run side by side, native sidecars behind the others.
fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    let init = spec.init_containers.iter().flatten();
    let sidecars = init.filter(|init| init.restart_policy.as_deref() == Some("Always"));
    spec.containers.iter().chain(sidecars)
}

fn choose<'a>(pod: &Pod, spec: &'a PodSpec, wanted: Option<&str>) -> Result<&'a Container, Why> {
    let named = |name: &str| containers(spec).find(|container| container.name == name);
    let all = || containers(spec).map(|container| container.name.clone()).collect();
    if let Some(wanted) = wanted {
        return named(wanted).ok_or_else(|| Why::NoContainer(all()));
    }
    let annotations = pod.metadata.annotations.as_ref();
    let annotated = annotations.and_then(|annotations| annotations.get(DEFAULT_CONTAINER));
    let mut plain = spec.containers.iter();
    annotated
        .and_then(|name| named(name))
        .or_else(|| plain.find(|container| !COMPANIONS.contains(&container.name.as_str())))
        .or_else(|| spec.containers.first())
        .ok_or_else(|| Why::NoContainer(Vec::new()))
}

fn status_of<'a>(status: &'a PodStatus, container: &str) -> Option<&'a ContainerStatus> {
    let main = status.container_statuses.iter().flatten();
    let mut all = main.chain(status.init_container_statuses.iter().flatten());
    all.find(|status| status.name == container)
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a PodCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// The running container's id, or why it does not run.
fn running(status: &PodStatus, container: &str) -> Result<String, String> {
    if let Some(unscheduled) = condition(status, "PodScheduled").filter(|c| c.status == "False") {
        let message = unscheduled.message.as_deref().unwrap_or("it is on no node yet");
        return Err(format!("Pending: {message}"));
    }
    let found = status_of(status, container);
    let state = found.and_then(|found| found.state.as_ref());
    if let Some(found) = found.filter(|_| state.is_some_and(|state| state.running.is_some())) {
        let id = found.container_id.as_deref().unwrap_or_default();
        let id = id.split_once("://").map_or(id, |(_, id)| id);
        return match id {
            "" => Err(format!("its container {container} has no id yet")),
            id => Ok(id.to_owned()),
        };
    }
    if let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) {
        let reason = waiting.reason.as_deref().unwrap_or("no reason is given");
        let init = blocked(status).filter(|_| reason == "PodInitializing");
        let said = waiting.message.as_deref().map(|said| format!(": {said}")).unwrap_or_default();
        let plain = || format!("its container {container} is waiting: {reason}{said}");
        return Err(init.unwrap_or_else(plain));
    }
    if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
        let reason = ended.reason.as_deref().unwrap_or("ended");
        let code = ended.exit_code;
        return Err(format!("its container {container} has ended: {reason}, exit code {code}"));
    }
    let phase = status.phase.as_deref().unwrap_or("unknown");
    let said = status.message.as_deref().map(|said| format!(": {said}")).unwrap_or_default();
    Err(format!("its container {container} is not running: {phase}{said}"))
}

/// The init container that holds a pod up.
fn blocked(status: &PodStatus) -> Option<String> {
    status.init_container_statuses.iter().flatten().find_map(|init| {
        let waiting = init.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref().filter(|reason| *reason != "PodInitializing")?;
        Some(format!("its init container {} is waiting: {reason}", init.name))
    })
}

fn describe(
    pod: &Pod,
    spec: &PodSpec,
    status: &PodStatus,
    container: &Container,
    container_id: String,
) -> TargetPod {
    let addresses = status.pod_ips.iter().flatten().map(|ip| &ip.ip).chain(&status.pod_ip);
    let nodes = status.host_ips.iter().flatten().map(|ip| &ip.ip).chain(&status.host_ip);
    let own = container.security_context.as_ref();
    let pods = spec.security_context.as_ref();
    let said = |own_said: fn(&SecurityContext) -> Option<i64>,
                pod_said: fn(&PodSecurityContext) -> Option<i64>| {
        own.and_then(own_said).or_else(|| pods.and_then(pod_said))
    };
    let secrets = spec.image_pull_secrets.iter().flatten().map(|secret| secret.name.clone());
    let ports = container.ports.iter().flatten().map(|port| {
        let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
        format!("{}/{protocol}", port.container_port)
    });
    let known = status_of(status, &container.name);
    TargetPod {
        image_id: known.map(|known| known.image_id.clone()).unwrap_or_default(),
        ports: ports.collect(),
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        pod: name(pod),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        node: spec.node_name.clone().unwrap_or_default(),
        container: container.name.clone(),
        container_id,
        image: image(container, known),
        hostname: spec.hostname.clone().unwrap_or_else(|| name(pod)),
        addresses: parsed(addresses),
        node_addresses: parsed(nodes),
        run_as_user: said(|own| own.run_as_user, |pod| pod.run_as_user),
        run_as_group: said(|own| own.run_as_group, |pod| pod.run_as_group),
        image_pull_secrets: secrets.collect::<BTreeSet<_>>().into_iter().collect(),
        ready_since: ready_since(pod, status),
    }
}

fn parsed<'a>(addresses: impl Iterator<Item = &'a String>) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    for address in addresses.filter_map(|address| address.parse().ok()) {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

fn ready_since(pod: &Pod, status: &PodStatus) -> i64 {
    let ready = condition(status, "Ready").and_then(|ready| ready.last_transition_time.as_ref());
    let since = ready.or(pod.metadata.creation_timestamp.as_ref());
    since.map(|time| time.0.as_second()).unwrap_or_default()
}

/// The runtime's name for the image; a bare digest is no name that a pod can ask for.
fn image(container: &Container, status: Option<&ContainerStatus>) -> String {
    let known = status.map(|status| status.image.as_str()).unwrap_or_default();
    let asked = container.image.as_deref().unwrap_or_default();
    let id = status.map(|status| status.image_id.as_str()).unwrap_or_default();
    let id = id.split_once("://").map_or(id, |(_, id)| id);
    let mut names = [known, asked].into_iter();
    let name = names.find(|name| !name.is_empty() && !name.starts_with("sha256:"));
    name.unwrap_or(id).to_owned()
}
