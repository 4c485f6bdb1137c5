//! What goes wrong with a cluster is told in one sentence, with a hint, exit code 125.

use std::time::Duration;

use anyhow::{Result, ensure};
use mirrord_tests::cluster::manifest::{self, container, pod, probe, spec, workload};
use mirrord_tests::cluster::{Cluster, Objects, Scene};
use mirrord_tests::lab::PROBE;
use mirrord_tests::mirrord::Mirrord;
use mirrord_tests::wait;
use serde_json::json;

fn refused(mirrord: Mirrord<'_>, parts: &[&str]) -> Result<()> {
    let done = mirrord.finish(PROBE, &["true"])?;
    ensure!(done.code == 125 && done.stdout.is_empty(), "{done:?}");
    for part in parts.iter().chain(&["error: ", "hint: "]) {
        ensure!(done.stderr.contains(part), "{part:?} is not in {}", done.stderr);
    }
    Ok(())
}

#[test]
fn a_target_that_does_not_exist_is_named_with_the_nearest_that_does() -> Result<()> {
    let Some(cluster) = Cluster::open("an unknown deployment")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let before = Objects::now(&scene.space)?;
    refused(scene.mirrord("deployment/wep"), &["wep", "web"])?;
    refused(scene.mirrord("service/wbe"), &["wbe", "web"])?;
    refused(scene.mirrord("deploymnt/web"), &["deploymnt", "deployment"])?;
    refused(scene.mirrord("pod/web"), &["pod", "\"web\""])?;
    let elsewhere = Scene::empty(&cluster)?;
    refused(elsewhere.mirrord("deployment/web"), &["deployment", "web", &elsewhere.space.name])?;
    let nowhere = Mirrord::new(&cluster.lab, "deployment/web").with(["-n", "no-such-namespace"]);
    refused(nowhere, &["no-such-namespace"])?;
    before.as_before(Duration::from_secs(1))
}

#[test]
fn a_workload_without_a_ready_pod_is_told_with_what_is_wrong() -> Result<()> {
    let Some(cluster) = Cluster::open("no ready pod")? else {
        return Ok(());
    };
    let scene = Scene::empty(&cluster)?;
    let never = manifest::with(
        probe("web", "wait"),
        json!({ "readinessProbe": { "tcpSocket": { "port": 9 }, "periodSeconds": 1 } }),
    );
    let nowhere = manifest::with(
        spec(&[probe("web", "wait")]),
        json!({ "nodeSelector": { "no-such": "node" } }),
    );
    scene.space.apply(&[
        workload("Deployment", "none", 0, spec(&[probe("web", "wait")])),
        workload("Deployment", "unready", 1, spec(&[never])),
        workload("Deployment", "crashing", 1, spec(&[probe("web", "exit 7")])),
        workload("Deployment", "imageless", 1, spec(&[container("web", "no-such/image:1", &[])])),
        pod("homeless", nowhere),
    ])?;
    let state = |app: &str, path: &str, wanted: &str| {
        let selector = format!("-lapp={app}");
        let path = format!("jsonpath={{.items[0].status{path}}}");
        wait::within(Duration::from_secs(60), &format!("{app} to be {wanted}"), || {
            let found = scene.space.kubectl.run(&["get", "pods", &selector, "-o", &path])?;
            Ok(found.contains(wanted).then_some(()))
        })
    };
    let waiting = ".containerStatuses[0].state.waiting.reason";
    state("unready", ".containerStatuses[0].state", "running")?;
    state("imageless", waiting, "ErrImageNeverPull")?;
    state("crashing", ".containerStatuses[0].restartCount", "1")?;
    refused(scene.mirrord("deployment/none"), &["deployment/none"])?;
    refused(scene.mirrord("deployment/unready"), &["deployment/unready", "ready"])?;
    refused(scene.mirrord("deployment/imageless"), &["ErrImageNeverPull"])?;
    refused(scene.mirrord("pod/homeless"), &["homeless", "not ready"])?;
    state("crashing", waiting, "CrashLoopBackOff")?;
    refused(scene.mirrord("deployment/crashing"), &["CrashLoopBackOff"])
}

#[test]
fn no_kubeconfig_and_an_unknown_context_are_told() -> Result<()> {
    let Some(cluster) = Cluster::open("no kubeconfig")? else {
        return Ok(());
    };
    let scene = Scene::empty(&cluster)?;
    let missing = scene.mirrord("deployment/web").env("KUBECONFIG", "/no/such/kubeconfig");
    refused(missing, &["/no/such/kubeconfig"])?;
    let context = scene.cluster.kubectl.run(&["config", "current-context"])?;
    let unknown = scene.mirrord("deployment/web").with(["--context", "elsewhere"]);
    refused(unknown, &["elsewhere", &context])?;
    let folder = tempfile::tempdir()?;
    let bare = scene.mirrord("deployment/web").env("KUBECONFIG", "");
    refused(bare.env("HOME", &folder.path().to_string_lossy()), &["kubeconfig"])
}

#[test]
fn a_server_that_does_not_answer_and_credentials_that_do_not_hold_are_told() -> Result<()> {
    let Some(cluster) = Cluster::open("wrong credentials")? else {
        return Ok(());
    };
    let scene = Scene::empty(&cluster)?;
    let whole = cluster.kubectl.json(&["config", "view", "--raw", "--minify"])?;
    let with = |change: &dyn Fn(&mut serde_json::Value)| -> Result<tempfile::NamedTempFile> {
        let mut config = whole.clone();
        change(&mut config);
        let file = tempfile::Builder::new().prefix("kubeconfig").tempfile()?;
        std::fs::write(file.path(), config.to_string())?;
        Ok(file)
    };
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let url = format!("https://127.0.0.1:{port}");
    let away = with(&|config| config["clusters"][0]["cluster"]["server"] = url.as_str().into())?;
    refused(scene.mirrord_as(away.path(), "deployment/web"), &[&url])?;

    let expired = "eyJhbGciOiJub25lIn0.e30.expired-token";
    let stranger = with(&|config| config["users"][0]["user"] = json!({ "token": expired }))?;
    let mirrord = scene.mirrord_as(stranger.path(), "deployment/web");
    let done = mirrord.finish(PROBE, &["true"])?;
    ensure!(done.code == 125 && done.stderr.contains("hint: "), "{done:?}");
    ensure!(done.stderr.to_lowercase().contains("credential"), "{}", done.stderr);
    ensure!(!done.stderr.contains(expired), "a credential is printed");
    Ok(())
}
