//! Whatever runs pods can be a target, and whatever image they run.

use std::time::Duration;

use anyhow::{Result, ensure};
use mirrord_tests::cluster::manifest::{self, SERVERS, probe, spec, workload};
use mirrord_tests::cluster::{Cluster, Pod, Scene};
use mirrord_tests::lab::{GO, MUSL, PROBE};
use mirrord_tests::{skip, wait};
use serde_json::{Value, json};

fn servers() -> Value {
    spec(&[probe("web", SERVERS)])
}

/// The app of a session with this target says that it stands in for one of these pods.
fn stands_in(scene: &Scene<'_>, target: &str, pods: &[Pod]) -> Result<()> {
    let mirrord = scene.mirrord(target).with(["--no-incoming"]);
    let done = mirrord.finish(PROBE, &["env", "and", "hostname"])?;
    ensure!(done.code == 0, "{target}: {done:?}");
    let pod =
        pods.iter().find(|pod| done.stdout.contains(&format!("\"POD_NAME\":\"{}\"", pod.name)));
    let Some(pod) = pod else { anyhow::bail!("{target}: no pod of {pods:?} in {done:?}") };
    let hostname = format!("\"hostname\":\"{}\"", pod.name);
    ensure!(done.stdout.contains(&hostname), "{target}: {}", done.stdout);
    scene.unharmed(pod)
}

#[test]
fn pods_and_everything_that_runs_pods_are_targets() -> Result<()> {
    let Some(cluster) = Cluster::open("every kind of target")? else {
        return Ok(());
    };
    let scene = Scene::empty(&cluster)?;
    let kinds = ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"];
    let mut objects: Vec<Value> = kinds
        .iter()
        .map(|kind| workload(kind, &format!("a-{}", kind.to_lowercase()), 1, servers()))
        .collect();
    objects.push(manifest::pod("a-pod", servers()));
    objects.push(manifest::job("a-job", servers()));
    objects.push(manifest::service("a-service", "a-deployment"));
    scene.space.apply(&objects)?;
    for kind in ["deployment", "statefulset", "daemonset", "replicaset", "pod", "job"] {
        let name = format!("a-{kind}");
        let pods = scene.space.ready(&name, 1)?;
        stands_in(&scene, &format!("{kind}/{name}"), &pods)?;
    }
    stands_in(&scene, "service/a-service", &scene.space.pods("a-deployment")?)?;
    stands_in(&scene, "deploy/a-deployment/container/web", &scene.space.pods("a-deployment")?)
}

#[test]
fn the_running_job_of_a_cronjob_is_a_target() -> Result<()> {
    let Some(cluster) = Cluster::open("a cronjob's running job")? else {
        return Ok(());
    };
    let scene = Scene::empty(&cluster)?;
    scene.space.apply(&[manifest::cron_job("nightly", servers())])?;
    scene.space.kubectl.run(&["create", "job", "now", "--from=cronjob/nightly"])?;
    let pods = scene.space.ready("nightly", 1)?;
    // The clock may have started another one by now.
    let all = scene.space.pods("nightly")?;
    let pods = if all.len() > pods.len() { all } else { pods };
    stands_in(&scene, "cronjob/nightly", &pods)
}

#[test]
fn a_rollout_is_a_target_through_its_labels() -> Result<()> {
    let Some(cluster) = Cluster::open_alone("a rollout")? else {
        return Ok(());
    };
    if cluster.kubectl.run(&["get", "crd", "rollouts.argoproj.io"]).is_ok() {
        return rollout(&cluster);
    }
    let schema = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let names = json!({ "plural": "rollouts", "singular": "rollout", "kind": "Rollout" });
    let version = json!({ "name": "v1alpha1", "served": true, "storage": true,
                          "schema": { "openAPIV3Schema": schema } });
    cluster.kubectl.apply(&[json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "rollouts.argoproj.io" },
        "spec": { "group": "argoproj.io", "scope": "Namespaced", "names": names,
                  "versions": [version] },
    })])?;
    let told = rollout(&cluster);
    cluster.kubectl.run(&["delete", "crd", "rollouts.argoproj.io", "--timeout=60s"])?;
    told
}

/// No controller runs here: the pods are a ReplicaSet's, as Argo's would be.
fn rollout(cluster: &Cluster) -> Result<()> {
    let crd = "crd/rollouts.argoproj.io";
    cluster.kubectl.run(&["wait", "--for=condition=Established", crd, "--timeout=30s"])?;
    let scene = Scene::empty(cluster)?;
    scene.space.apply(&[workload("ReplicaSet", "shop", 1, servers())])?;
    let rollout = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": { "name": "shop" },
        "spec": { "replicas": 1, "selector": { "matchLabels": { "app": "shop" } },
                  "template": { "metadata": { "labels": { "app": "shop" } }, "spec": servers() } },
    });
    let rollout = [rollout];
    wait::until("the new kind to be served", || scene.space.apply(&rollout).map(Some))?;
    let pods = scene.space.ready("shop", 1)?;
    stands_in(&scene, "rollout/shop", &pods)
}

#[test]
fn without_argo_a_rollout_is_refused_by_name() -> Result<()> {
    let Some(cluster) = Cluster::open("a rollout without its kind")? else {
        return Ok(());
    };
    if cluster.kubectl.run(&["get", "crd", "rollouts.argoproj.io"]).is_ok() {
        skip::say("a rollout without its kind", "a cluster without Argo Rollouts");
        return Ok(());
    }
    let scene = Scene::empty(&cluster)?;
    let done = scene.mirrord("rollout/shop").finish(PROBE, &["true"])?;
    ensure!(done.code == 125 && done.stderr.to_lowercase().contains("rollout"), "{done:?}");
    Ok(())
}

/// A container that says in its environment which one it is.
fn named(name: &str) -> Value {
    let mut container = probe(name, "wait");
    container["env"] = json!([{ "name": "WHO", "value": name }]);
    container
}

#[test]
fn the_container_is_the_one_asked_for_the_annotated_one_or_the_first_that_is_no_mesh_proxy()
-> Result<()> {
    let Some(cluster) = Cluster::open("the choice of a container")? else {
        return Ok(());
    };
    let scene = Scene::empty(&cluster)?;
    let containers = [named("istio-proxy"), named("first"), named("second")];
    let mut annotated = manifest::pod("annotated", spec(&containers));
    annotated["metadata"]["annotations"] =
        json!({ "kubectl.kubernetes.io/default-container": "second" });
    scene.space.apply(&[manifest::pod("plain", spec(&containers)), annotated])?;
    for pod in ["plain", "annotated"] {
        scene.space.pod(pod)?;
    }
    let choices = [
        ("pod/plain", "first"),
        ("pod/plain/container/second", "second"),
        ("pod/plain/container/istio-proxy", "istio-proxy"),
        ("pod/annotated", "second"),
        ("pod/annotated/container/first", "first"),
    ];
    for (target, who) in choices {
        let done = scene.mirrord(target).with(["--no-incoming"]).finish(PROBE, &["env"])?;
        ensure!(done.stdout.contains(&format!("\"WHO\":\"{who}\"")), "{target}: {done:?}");
    }
    let done = scene.mirrord("pod/plain/container/third").finish(PROBE, &["true"])?;
    ensure!(done.code == 125, "{done:?}");
    for name in ["third", "first", "second"] {
        ensure!(done.stderr.contains(name), "{name} is named: {}", done.stderr);
    }
    Ok(())
}

#[test]
fn without_a_target_the_app_has_the_clusters_network_and_nobodys_traffic() -> Result<()> {
    let Some(cluster) = Cluster::open("no target")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let mut session = scene.targetless().probe("app")?;
    let web = format!("web.{}:80", scene.space.name);
    let answer = session.app().must(&format!("ask {web} http /"))?;
    ensure!(answer["answer"]["name"] == scene.pod("web")?.name.as_str(), "{answer}");
    assert_eq!(session.end()?, 0);
    Ok(())
}

/// A target that an agent must not expect anything of, with HTTP on 8000.
fn austere(name: &str, image: &str, words: &[&str], fields: Value) -> Value {
    let container = manifest::with(manifest::container("web", image, words), fields);
    manifest::pod(name, spec(&[container]))
}

#[test]
fn images_without_a_shell_read_only_roots_other_users_and_little_memory_do_not_matter() -> Result<()>
{
    let Some(cluster) = Cluster::open("austere targets")? else {
        return Ok(());
    };
    let serve = ["serve", "http", "0.0.0.0:8000", "original"];
    let hardened = json!({
        "securityContext": {
            "readOnlyRootFilesystem": true, "runAsNonRoot": true, "runAsUser": 65534,
            "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
        },
        "resources": { "limits": { "memory": "16Mi", "cpu": "100m" } },
    });
    let targets = [
        austere("scratch", PROBE, &serve, json!({})),
        austere("hardened", PROBE, &serve, hardened.clone()),
        austere("static-go", GO, &["serve", "0.0.0.0:8000", "original"], hardened.clone()),
        austere("musl", MUSL, &["serve", "8000", "original"], hardened),
    ];
    let scene = Scene::with(&cluster, &targets)?;
    for name in ["scratch", "hardened", "static-go", "musl"] {
        let pod = scene.space.pod(name)?;
        let at = format!("{}:8000", pod.address);
        scene.until_answered_by("original", &at)?;
        let mut session = scene.mirrord(&pod.target()).with(["--steal"]).probe("app")?;
        session.app().must("serve http 0.0.0.0:8000 local")?;
        scene.until_answered_by("local", &at)?;
        assert_eq!(session.end()?, 0, "{name}: {}", session.stderr());
        scene.until_answered_by("original", &at)?;
        scene.unharmed(&pod)?;
    }
    Ok(())
}

#[test]
fn a_pod_on_its_nodes_network_is_refused_by_name() -> Result<()> {
    let Some(cluster) = Cluster::open("a host network pod")? else {
        return Ok(());
    };
    let scene = Scene::empty(&cluster)?;
    let host = manifest::with(spec(&[probe("web", "wait")]), json!({ "hostNetwork": true }));
    scene.space.apply(&[manifest::pod("host", host)])?;
    scene.space.pod("host")?;
    let done = scene.mirrord("pod/host").finish(PROBE, &["true"])?;
    ensure!(done.code == 125, "{done:?}");
    ensure!(done.stderr.contains("host") && done.stderr.contains("network"), "{}", done.stderr);
    Ok(())
}

#[test]
fn all_that_can_be_a_target_is_listed_and_the_list_is_what_minus_t_takes() -> Result<()> {
    let Some(cluster) = Cluster::open("mirrord ls")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let list = |words: &[&str]| -> Result<String> {
        let mut command = std::process::Command::new(mirrord_tests::mirrord::binary());
        command.env("KUBECONFIG", scene.space.kubectl.config());
        let output = command.arg("ls").args(["-n", &scene.space.name]).args(words).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let names = list(&["-o", "name"])?;
    for target in ["deployment/web", "service/web", "pod/client"] {
        ensure!(names.lines().any(|line| line == target), "{target} in {names}");
    }
    let deployments = list(&["-o", "name", "-t", "deployment"])?;
    assert_eq!(deployments.trim(), "deployment/web");
    let value: Value = serde_json::from_str(&list(&["-o", "json"])?)?;
    let found = value.as_array().into_iter().flatten().any(|one| {
        one["type"] == "deployment" && one["name"] == "web" && one["namespace"] == scene.space.name
    });
    ensure!(found, "{value}");
    let begun = std::time::Instant::now();
    list(&[])?;
    ensure!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    Ok(())
}
