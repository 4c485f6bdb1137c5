//! A namespace with a name of its own, gone when the test ends.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Kubectl;
use crate::wait;

/// How long a workload may take to stand on a busy machine.
const ROLLOUT: Duration = Duration::from_secs(90);

/// One namespace.
pub struct Space {
    /// kubectl in it.
    pub kubectl: Kubectl,
    /// Its name.
    pub name: String,
}

impl Space {
    /// A new one with those labels.
    ///
    /// # Errors
    /// If the cluster refuses.
    pub fn create(kubectl: &Kubectl, labels: &[(&str, &str)]) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("e2e-{:x}-{number}", std::process::id());
        let labels: serde_json::Map<String, Value> =
            labels.iter().map(|&(key, value)| (key.to_owned(), value.into())).collect();
        kubectl.apply(&[json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": name, "labels": labels },
        })])?;
        let space = Self { kubectl: kubectl.within(&name), name };
        // Without it the first pods are refused; controllers may be starting again just now.
        wait::within(ROLLOUT, "the namespace's service account", || {
            space.kubectl.run(&["get", "serviceaccount", "default", "-o", "name"]).map(Some)
        })?;
        Ok(space)
    }

    /// Applies objects.
    ///
    /// # Errors
    /// If the cluster refuses one.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        self.kubectl.apply(objects)
    }

    /// Waits until all pods with `app=NAME` are ready, and there are `count` of them.
    ///
    /// # Errors
    /// If they never are; the namespace's events are in the message.
    pub fn ready(&self, app: &str, count: usize) -> Result<Vec<Pod>> {
        wait::within(ROLLOUT, &format!("{count} ready pods of {app}"), || {
            let pods = self.pods(app)?;
            let ready = pods.len() == count && pods.iter().all(|pod| pod.ready);
            Ok(ready.then_some(pods))
        })
        .with_context(|| self.kubectl.run(&["get", "pods,events"]).unwrap_or_default())
    }

    /// The pods with `app=NAME` that are not going, oldest first.
    ///
    /// # Errors
    /// If they can't be listed.
    pub fn pods(&self, app: &str) -> Result<Vec<Pod>> {
        let selector = format!("app={app}");
        let list = self.kubectl.json(&["get", "pods", "-l", &selector])?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let mut pods: Vec<Pod> = items
            .into_iter()
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .map(Pod::of)
            .collect();
        pods.sort_by(|one, other| (&one.created, &one.name).cmp(&(&other.created, &other.name)));
        Ok(pods)
    }

    /// The pod of that name, once it is ready.
    ///
    /// # Errors
    /// If it never is.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        let object = format!("pod/{name}");
        wait::within(ROLLOUT, &format!("{object} to be ready"), || {
            let pod = Pod::of(self.kubectl.json(&["get", &object])?);
            Ok(pod.ready.then_some(pod))
        })
        .with_context(|| self.kubectl.run(&["describe", &object]).unwrap_or_default())
    }

    /// Everything that `container` of that pod has written.
    ///
    /// # Errors
    /// If the pod is gone.
    pub fn logs(&self, pod: &str, container: &str) -> Result<String> {
        self.kubectl.run(&["logs", pod, "-c", container])
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.kubectl.run(&[
            "delete",
            "namespace",
            &self.name,
            "--wait=false",
            "--ignore-not-found",
        ]);
    }
}

/// A pod as it was when it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// What no other pod ever has.
    pub uid: String,
    /// Its address.
    pub address: String,
    /// Its node.
    pub node: String,
    /// How often its containers were started again.
    pub restarts: u64,
    /// Its first container's id in the runtime.
    pub container_id: String,
    /// Whether it serves.
    pub ready: bool,
    created: String,
}

impl Pod {
    fn of(pod: Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let status = &pod["status"];
        let statuses = status["containerStatuses"].as_array().cloned().unwrap_or_default();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let first = statuses.first().cloned().unwrap_or_default();
        let id = text(&first["containerID"]);
        Self {
            name: text(&pod["metadata"]["name"]),
            uid: text(&pod["metadata"]["uid"]),
            address: text(&status["podIP"]),
            node: text(&pod["spec"]["nodeName"]),
            restarts: statuses.iter().filter_map(|one| one["restartCount"].as_u64()).sum(),
            container_id: id.split("://").last().unwrap_or("").to_owned(),
            ready: conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"),
            created: text(&pod["metadata"]["creationTimestamp"]),
        }
    }

    /// What `mirrord -t` takes.
    #[must_use]
    pub fn target(&self) -> String {
        format!("pod/{}", self.name)
    }
}
