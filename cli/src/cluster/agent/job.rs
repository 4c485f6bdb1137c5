//! A Job whose pod runs on the target's node and enters the target's namespaces.

use k8s_openapi::ByteString;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::fate::{self, StartError};
use super::{Order, PORT, Place, Site};
use crate::cluster::connect::{Cluster, ClusterError};
use crate::cluster::delivery;
use crate::engine::clean::SESSION_LABEL;

/// Where the starter is in the pod.
const STARTER_FOLDER: &str = "/mirrord";
const STARTER: &str = "starter";
/// What an agent may do: enter namespaces, read the target's process, redirect, capture.
const CAPABILITIES: &[&str] =
    &["SYS_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH", "NET_ADMIN", "NET_RAW"];
/// Seconds by which the cluster waits longer for an agent's start than we do.
const MARGIN: u64 = 5;
/// Memory for the program, its buffers and some thousand connections.
const MEMORY: &str = "512Mi";

/// Creates Job and ConfigMap; where the agent will listen.
pub async fn create(order: &Order<'_>) -> Result<Site, StartError> {
    let client = &order.cluster.client;
    let jobs: Api<Job> = Api::namespaced(client.clone(), &order.namespace);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &order.namespace);
    let doing = |what: &str| format!("cannot {what} in namespace {}", order.namespace);
    let job = serde_json::from_value(job(order)).map_err(|error| order.failed(error))?;
    let how = PostParams::default();
    let made = order.ask(&doing("create the agent's Job"), jobs.create(&how, &job)).await?;
    let map = program(order, made.metadata.uid.as_deref().unwrap_or_default());
    order.ask(&doing("create the agent's ConfigMap"), maps.create(&how, &map)).await?;
    let pod = pod(order).await?;
    Ok(Site { namespace: order.namespace.clone(), pod, port: PORT })
}

/// Lets the Job go on for as long as its agent does: until now, it was to end soon unless somebody
/// brought it a program.
pub async fn keep(order: &Order<'_>) -> Result<(), StartError> {
    let jobs: Api<Job> = Api::namespaced(order.cluster.client.clone(), &order.namespace);
    let keep = Patch::Merge(json!({ "spec": { "activeDeadlineSeconds": null } }));
    let how = PatchParams::default();
    let patched = jobs.patch(&order.name, &how, &keep);
    order.ask("cannot let the agent's Job go on", patched).await.map(drop)
}

/// The name of the Job's pod, as soon as there is one.
async fn pod(order: &Order<'_>) -> Result<String, StartError> {
    let mut why = fate::NoPod::new(order);
    loop {
        if let Some(pod) = pods(order).await?.into_iter().next() {
            return Ok(pod.metadata.name.unwrap_or_default());
        }
        why.look().await?;
        sleep(super::RETRY).await;
    }
}

/// The Job's pods.
pub async fn pods(order: &Order<'_>) -> Result<Vec<Pod>, StartError> {
    let pods: Api<Pod> = Api::namespaced(order.cluster.client.clone(), &order.namespace);
    let label = format!("batch.kubernetes.io/job-name={}", order.name);
    let labelled = ListParams::default().labels(&label);
    Ok(order.ask("cannot list the agent's pods", pods.list(&labelled)).await?.items)
}

/// Removes an agent's Job and, with it, pod and ConfigMap; one that is not there is gone, and who
/// may not delete any has made none.
pub async fn remove(cluster: &Cluster, namespace: &str, name: &str) -> Result<(), ClusterError> {
    let jobs: Api<Job> = Api::namespaced(cluster.client.clone(), namespace);
    match jobs.delete(name, &DeleteParams::background()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => {
            let error = cluster.explain(&format!("cannot delete the agent's Job {name}"), error);
            if error.is_forbidden() { Ok(()) } else { Err(error) }
        }
    }
}

fn program(order: &Order<'_>, owner: &str) -> ConfigMap {
    let metadata = json!({
        "name": order.name,
        "labels": labels(order),
        "ownerReferences": [{
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": order.name,
            "uid": owner,
            "blockOwnerDeletion": false,
        }],
    });
    ConfigMap {
        metadata: serde_json::from_value(metadata).unwrap_or_default(),
        immutable: Some(true),
        binary_data: Some([(STARTER.to_owned(), ByteString(delivery::STARTER.to_vec()))].into()),
        ..ConfigMap::default()
    }
}

fn labels(order: &Order<'_>) -> Value {
    let mut labels: serde_json::Map<String, Value> = order
        .settings
        .labels
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
        .collect();
    labels.insert("app.kubernetes.io/name".into(), "mirrord-agent".into());
    labels.insert(SESSION_LABEL.into(), order.session.to_string().into());
    Value::Object(labels)
}

fn annotations(order: &Order<'_>) -> Value {
    let mut annotations = json!({
        // A mesh has no business in the agent's own pod.
        "sidecar.istio.io/inject": "false",
        "linkerd.io/inject": "disabled",
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "true",
    });
    for (name, value) in &order.settings.annotations {
        annotations[name] = Value::from(value.as_str());
    }
    annotations
}

fn job(order: &Order<'_>) -> Value {
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": order.name,
            "labels": labels(order),
            "annotations": order.settings.annotations,
        },
        "spec": {
            // Whatever becomes of us, it ends, and the cluster removes it; see `keep`.
            "activeDeadlineSeconds": order.settings.startup_timeout + MARGIN,
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": order.settings.ttl,
            "template": {
                "metadata": { "labels": labels(order), "annotations": annotations(order) },
                "spec": pod_spec(order),
            },
        },
    })
}

fn pod_spec(order: &Order<'_>) -> Value {
    let settings = order.settings;
    let (node, image, beside) = match &order.place {
        Place::Beside(target) => (Some(target.node.as_str()), target.image.as_str(), true),
        Place::Alone { node, image, .. } => (node.as_deref(), image.as_str(), false),
    };
    let image = settings.image.as_deref().unwrap_or(image);
    let mut spec = json!({
        "restartPolicy": "Never",
        "hostPID": beside,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 1,
        "tolerations": settings.tolerations.as_ref().map_or_else(
            || json!([{ "operator": "Exists" }]),
            |tolerations| json!(tolerations),
        ),
        "containers": [container(order, image, beside)],
        "volumes": [{
            "name": STARTER,
            "configMap": { "name": order.name, "defaultMode": 0o555 },
        }],
    });
    // Newer kubelets let only those use a private image who could have pulled it.
    let secrets = order.place.secrets(&order.namespace).iter().map(|name| json!({ "name": name }));
    spec["imagePullSecrets"] = secrets.collect();
    if let Some(node) = node.filter(|_| beside || settings.node_selector.is_empty()) {
        spec["nodeName"] = node.into();
    } else {
        spec["nodeSelector"] = json!(settings.node_selector);
    }
    if let Some(account) = &settings.service_account {
        spec["serviceAccountName"] = account.as_str().into();
    }
    spec
}

fn container(order: &Order<'_>, image: &str, beside: bool) -> Value {
    let mut command = vec![format!("{STARTER_FOLDER}/{STARTER}")];
    command.extend(order.arguments(PORT));
    let default_resources = json!({
        "requests": { "cpu": "10m", "memory": "32Mi" },
        "limits": { "memory": MEMORY },
    });
    json!({
        "name": "agent",
        "image": image,
        // An image that the user names may be fetched; the target's own is there.
        "imagePullPolicy": if order.settings.image.is_some() { "IfNotPresent" } else { "Never" },
        "command": command,
        "workingDir": "/",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": order.settings.resources.clone().unwrap_or(default_resources),
        "securityContext": if beside { privileges(order) } else { none() },
        "volumeMounts": [{ "name": STARTER, "mountPath": STARTER_FOLDER, "readOnly": true }],
    })
}

fn privileges(order: &Order<'_>) -> Value {
    let unix_sockets = order.unix_sockets.then_some("DAC_OVERRIDE");
    let capabilities: Vec<&str> = CAPABILITIES.iter().copied().chain(unix_sockets).collect();
    json!({
        "runAsUser": 0,
        "runAsGroup": 0,
        "runAsNonRoot": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"], "add": capabilities },
        "seccompProfile": { "type": "RuntimeDefault" },
        "appArmorProfile": { "type": "Unconfined" },
    })
}

/// What the strictest pod security allows: an agent without a target needs no more.
pub fn none() -> Value {
    json!({
        "runAsUser": 65_534,
        "runAsGroup": 65_534,
        "runAsNonRoot": true,
        "readOnlyRootFilesystem": true,
        "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] },
        "seccompProfile": { "type": "RuntimeDefault" },
    })
}
