use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::pod::{Pods, Standing, Why, judge};
use super::workload::{idle, of_selector, of_service};
use crate::failure::Failure;
use crate::target::Kind;

/// A pod as an API server gives it, with changes.
fn pod(change: impl FnOnce(&mut Value)) -> Pod {
    let mut value = json!({
        "metadata": {
            "name": "orders-7d9c-x2x4z", "namespace": "shop", "uid": "u-1",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "orders", "pod-template-hash": "7d9c"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet",
                "name": "orders-7d9c", "uid": "r-1", "controller": true}],
        },
        "spec": {
            "nodeName": "node-1",
            "securityContext": {"runAsUser": 1000, "runAsGroup": 2000},
            "imagePullSecrets": [{"name": "pull"}],
            "initContainers": [
                {"name": "prepare", "image": "prepare:1"},
                {"name": "proxy", "image": "proxy:1", "restartPolicy": "Always"},
            ],
            "containers": [
                {"name": "istio-proxy", "image": "istio:1"},
                {"name": "app", "image": "orders:1", "securityContext": {"runAsUser": 7}},
                {"name": "logs", "image": "logs:1"},
            ],
        },
        "status": {
            "phase": "Running", "hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.1"}],
            "podIP": "10.244.0.5", "podIPs": [{"ip": "10.244.0.5"}, {"ip": "fd00::5"}],
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:01:00Z"},
            ],
            "initContainerStatuses": [running("proxy", "p1")],
            "containerStatuses": [
                running("app", "a1"), running("istio-proxy", "i1"), running("logs", "l1"),
            ],
        },
    });
    change(&mut value);
    serde_json::from_value(value).expect("a pod")
}

fn running(name: &str, id: &str) -> Value {
    json!({
        "name": name, "ready": true, "restartCount": 0,
        "image": format!("docker.io/library/{name}:1"), "imageID": format!("sha256:{id}"),
        "containerID": format!("containerd://{id}"),
        "state": {"running": {"startedAt": "2026-01-01T00:00:30Z"}},
    })
}

fn why(change: impl FnOnce(&mut Value)) -> String {
    judge(&pod(change), None).expect_err("no target").to_string()
}

#[test]
fn a_ready_pod_says_all_that_an_agent_needs() {
    let found = judge(&pod(|_| ()), None).expect("a target");
    assert_eq!((found.container.as_str(), found.container_id.as_str()), ("app", "a1"));
    assert_eq!(found.image, "docker.io/library/app:1");
    assert_eq!((found.node.as_str(), found.hostname.as_str()), ("node-1", "orders-7d9c-x2x4z"));
    let addresses: Vec<_> = found.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.244.0.5", "fd00::5"]);
    assert_eq!((found.run_as_user, found.run_as_group), (Some(7), Some(2000)));
    assert_eq!(found.image_pull_secrets, ["pull"]);
}

#[test]
fn the_container_that_is_meant_is_no_companion() {
    let chosen =
        |wanted, change: fn(&mut Value)| judge(&pod(change), wanted).map(|found| found.container);
    assert_eq!(chosen(None, |_| ()).expect("one"), "app");
    assert_eq!(chosen(Some("logs"), |_| ()).expect("one"), "logs");
    assert_eq!(chosen(Some("proxy"), |_| ()).expect("a native sidecar"), "proxy");
    let annotate: fn(&mut Value) = |pod| {
        pod["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/default-container": "logs"});
    };
    assert_eq!(chosen(None, annotate).expect("one"), "logs");
    let alone: fn(&mut Value) = |pod| {
        pod["spec"]["containers"] = json!([{"name": "istio-proxy", "image": "istio:1"}]);
    };
    assert_eq!(chosen(None, alone).expect("one"), "istio-proxy");
    let all = ["istio-proxy", "app", "logs", "proxy"].map(str::to_owned).to_vec();
    assert_eq!(chosen(Some("prepare"), |_| ()), Err(Why::NoContainer(all)));
}

#[test]
fn an_image_without_a_name_is_asked_for_as_the_pod_does() {
    let image = |change: fn(&mut Value)| judge(&pod(change), None).expect("a target").image;
    let bare = |pod: &mut Value| {
        pod["status"]["containerStatuses"][0]["image"] = json!("sha256:0123");
    };
    assert_eq!(image(bare), "orders:1");
    assert_eq!(image(|pod| pod["status"]["containerStatuses"][0]["image"] = json!("")), "orders:1");
}

#[test]
fn a_pod_that_is_no_target_says_why() {
    let gone =
        |pod: &mut Value| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(why(gone), "it is terminating");
    assert_eq!(
        why(|pod| {
            pod["status"]["phase"] = json!("Failed");
            pod["status"]["reason"] = json!("Evicted");
        }),
        "it has ended: Failed (Evicted)"
    );
    assert_eq!(
        why(|pod| pod["spec"]["hostNetwork"] = json!(true)),
        "it uses its node's own network"
    );
    let state = |state: Value| why(|pod| pod["status"]["containerStatuses"][0]["state"] = state);
    assert_eq!(
        state(json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}})),
        "its container app is waiting: CrashLoopBackOff: back-off 5m0s"
    );
    assert_eq!(
        state(json!({"terminated": {"reason": "OOMKilled", "exitCode": 137}})),
        "its container app has ended: OOMKilled, exit code 137"
    );
    let unscheduled = |pod: &mut Value| {
        pod["status"] = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled",
            "status": "False", "message": "0/1 nodes are available: 1 Insufficient cpu."}]});
    };
    assert_eq!(why(unscheduled), "Pending: 0/1 nodes are available: 1 Insufficient cpu.");
    assert_eq!(
        why(|pod| pod["status"] = json!({"phase": "Pending"})),
        "its container app is not running: Pending"
    );
    let blocked = |pod: &mut Value| {
        pod["status"]["containerStatuses"][0]["state"] =
            json!({"waiting": {"reason": "PodInitializing"}});
        pod["status"]["initContainerStatuses"] = json!([{"name": "prepare", "ready": false,
            "restartCount": 1, "image": "", "imageID": "",
            "state": {"waiting": {"reason": "ImagePullBackOff"}}}]);
    };
    assert_eq!(why(blocked), "its init container prepare is waiting: ImagePullBackOff");
}

#[test]
fn a_pod_that_runs_and_is_not_ready_still_shows_its_container() {
    let unready = pod(|pod| {
        pod["status"]["conditions"][1] = json!({"type": "Ready", "status": "False",
            "message": "containers with unready status: [app]"});
    });
    let why = judge(&unready, None).expect_err("not ready");
    assert_eq!(why.to_string(), "it is not ready: containers with unready status: [app]");
    let Why::NotReady { pod, .. } = why else { panic!("{why:?}") };
    assert_eq!(pod.container_id, "a1");
}

#[test]
fn the_pod_that_is_ready_for_longest_is_first_and_ours_is_none() {
    let at = |name: &str, time: &str| {
        pod(|pod| {
            pod["metadata"]["name"] = json!(name);
            pod["metadata"]["uid"] = json!(format!("uid-{name}"));
            pod["status"]["conditions"][1]["lastTransitionTime"] = json!(time);
        })
    };
    let ours = pod(|pod| pod["metadata"]["labels"]["mirrord.session"] = json!("x"));
    let going = pod(|pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
    let list = [
        at("c", "2026-01-03T00:00:00Z"),
        at("b", "2026-01-02T00:00:00Z"),
        at("a", "2026-01-02T00:00:00Z"),
        ours,
        going,
    ];
    let pods = Pods::of(&list, None);
    let names: Vec<_> = pods.ready.iter().map(|pod| pod.pod.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(pods.others.len(), 1);
    assert!(matches!(pods.standing("uid-b"), Standing::Ready(found) if found.pod == "b"));
    assert_eq!(pods.standing("u-1"), Standing::Other(&Why::Terminating));
    assert_eq!(pods.standing("u-2"), Standing::Gone);
}

#[test]
fn selectors_are_taken_whole() {
    let selector = json!({"matchLabels": {"app": "orders"}, "matchExpressions": [
        {"key": "track", "operator": "In", "values": ["stable"]},
        {"key": "old", "operator": "DoesNotExist"},
    ]});
    let labels = of_selector(Kind::Deployment, "orders", &selector).expect("a selector");
    let mut parts: Vec<_> = labels.split(',').collect();
    parts.sort_unstable();
    assert_eq!(parts, ["!old", "app=orders", "track in (stable)"]);
    for none in [Value::Null, json!({})] {
        assert!(of_selector(Kind::Rollout, "orders", &none).is_err(), "{none}");
    }
}

#[test]
fn a_service_that_selects_nothing_says_so() {
    let labels = |spec: Value| {
        of_service("web", &json!({"spec": spec})).map_err(|error| Failure::from(error).sentence)
    };
    assert_eq!(labels(json!({"selector": {"app": "web"}})).expect("labels"), "app=web");
    let said = labels(json!({"type": "ExternalName", "externalName": "example.org"}));
    assert!(said.expect_err("none").ends_with("it is another name of example.org"));
    assert!(labels(json!({})).expect_err("none").ends_with("it has no selector"));
}

#[test]
fn a_workload_without_pods_says_why() {
    let why = |kind, object: Value| idle(kind, &object).expect("a reason");
    assert_eq!(
        why(Kind::Deployment, json!({"spec": {"replicas": 0}})),
        "it is scaled to 0 replicas"
    );
    let quota = json!({"spec": {"replicas": 1}, "status": {"conditions": [{"type": "ReplicaFailure",
        "status": "True", "message": "exceeded quota"}]}});
    assert_eq!(why(Kind::Deployment, quota), "exceeded quota");
    let ended = json!({"status": {"conditions": [{"type": "Failed", "status": "True"}]}});
    assert_eq!(why(Kind::Job, ended), "it has ended: Failed");
    assert!(why(Kind::CronJob, json!({})).ends_with("it has never run"));
    assert_eq!(why(Kind::CronJob, json!({"spec": {"suspend": true}})), "it is suspended");
}
