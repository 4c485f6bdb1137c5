//! Objects of the cluster, as JSON.

use serde_json::{Value, json};

use crate::lab::{DEBIAN, PROBE};

/// What the usual target listens on, each answer with the pod's name.
pub const SERVERS: &str = "serve http 0.0.0.0:80 $(POD_NAME) and serve tcp 0.0.0.0:7000 $(POD_NAME) \
                           and serve udp 0.0.0.0:7001 $(POD_NAME)";

/// A container that runs the probe with these words.
#[must_use]
pub fn probe(name: &str, words: &str) -> Value {
    container(name, PROBE, &words.split_whitespace().collect::<Vec<_>>())
}

/// A container of `image`; in its words, `$(POD_NAME)` is the pod's name.
#[must_use]
pub fn container(name: &str, image: &str, args: &[&str]) -> Value {
    json!({
        "name": name, "image": image, "imagePullPolicy": "Never", "args": args,
        "env": [{ "name": "POD_NAME",
                  "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }],
    })
}

/// A container of Debian that waits to be used.
#[must_use]
pub fn debian(name: &str) -> Value {
    container(name, DEBIAN, &["sleep", "infinity"])
}

/// `fields` over those of `object`, one level deep.
#[must_use]
pub fn with(mut object: Value, fields: Value) -> Value {
    if let (Value::Object(old), Value::Object(new)) = (&mut object, fields) {
        old.extend(new);
    }
    object
}

/// What stands in a pod's `spec`: it ends at once when it is told to.
#[must_use]
pub fn spec(containers: &[Value]) -> Value {
    json!({ "terminationGracePeriodSeconds": 1, "containers": containers })
}

/// A pod with the label `app=NAME`.
#[must_use]
pub fn pod(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": name } }, "spec": spec,
    })
}

/// A Deployment, StatefulSet, ReplicaSet or DaemonSet whose pods have the label `app=NAME`.
#[must_use]
pub fn workload(kind: &str, name: &str, replicas: u32, pod: Value) -> Value {
    let mut spec = json!({
        "selector": { "matchLabels": { "app": name } },
        "template": { "metadata": { "labels": { "app": name } }, "spec": pod },
    });
    if kind != "DaemonSet" {
        spec["replicas"] = replicas.into();
    }
    if kind == "StatefulSet" {
        spec["serviceName"] = name.into();
    }
    json!({ "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

/// A Job whose pod has the label `app=NAME`.
#[must_use]
pub fn job(name: &str, pod: Value) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": { "name": name }, "spec": job_spec(name, pod),
    })
}

/// A CronJob that starts one every minute, pods with the label `app=NAME`.
#[must_use]
pub fn cron_job(name: &str, pod: Value) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": name },
        "spec": { "schedule": "* * * * *", "concurrencyPolicy": "Forbid",
                  "jobTemplate": { "spec": job_spec(name, pod) } },
    })
}

fn job_spec(name: &str, pod: Value) -> Value {
    let pod = with(pod, json!({ "restartPolicy": "Never" }));
    json!({ "template": { "metadata": { "labels": { "app": name } }, "spec": pod } })
}

/// A Service of the pods with the label `app=APP`.
#[must_use]
pub fn service(name: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
        "spec": { "selector": { "app": app }, "ports": [
            { "name": "http", "port": 80 },
            { "name": "tcp", "port": 7000 },
            { "name": "udp", "port": 7001, "protocol": "UDP" },
        ] },
    })
}

/// A Service without an address of its own.
#[must_use]
pub fn headless(name: &str, app: &str) -> Value {
    let mut service = service(name, app);
    service["spec"]["clusterIP"] = "None".into();
    service
}
