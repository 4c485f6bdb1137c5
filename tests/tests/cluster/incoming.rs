//! The target's traffic: through Services, from pods, from the node, with a mesh between.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mirrord_tests::cluster::manifest::{self, SERVERS, probe, spec};
use mirrord_tests::cluster::{Cluster, Node, Scene};
use mirrord_tests::mirrord::Session;
use mirrord_tests::{skip, wait};
use serde_json::{Value, json};

fn peer_of(answer: &Value) -> &str {
    answer["peer"].as_str().unwrap_or("").split(':').next().unwrap_or("")
}

fn steals(cluster: &Cluster, mode: &str) -> Result<()> {
    let scene = Scene::open(cluster)?;
    let (pod, client) = (scene.pod("web")?, scene.space.pod("client")?);
    scene.until_answered_by(&pod.name, "web:80")?;
    let mirrord = scene.mirrord("deployment/web").with(["--agent-mode", mode]);
    let mut session = scene.stealing(mirrord, "web:80")?;
    for at in ["web:80", &format!("{}:80", pod.address)] {
        let seen = scene.client().must(&format!("ask {at} http /"))?;
        let answer = &seen["answer"];
        ensure!(answer["name"] == "local", "{at}: {answer}");
        ensure!(peer_of(answer) == client.address, "the real client at {at}: {answer}");
        ensure!(answer["local"] == format!("{}:80", pod.address), "the target's own: {answer}");
    }
    session.app().must("serve udp 0.0.0.0:7001 local")?;
    wait::until("a stolen datagram", || {
        let answer = scene.client().must("udp web:7001 hello")?;
        Ok((answer["answer"]["name"] == "local").then_some(()))
    })?;
    let elsewhere = scene.client().must("ask web:7000 whoami")?;
    ensure!(elsewhere["answer"]["name"] == pod.name.as_str(), "not asked for: {elsewhere}");
    assert_eq!(session.end()?, 0, "{}", session.stderr());
    ensure!(scene.answers("web:80")?["name"] == pod.name.as_str(), "the very next one");
    scene.unharmed(&pod)
}

#[test]
fn a_steal_takes_what_comes_through_a_service_and_from_pods_and_shows_the_real_client() -> Result<()>
{
    let Some(cluster) = Cluster::open("steal through a Service")? else {
        return Ok(());
    };
    steals(&cluster, "job")
}

#[test]
fn an_agent_in_an_ephemeral_container_steals_the_same() -> Result<()> {
    let Some(cluster) = Cluster::open("steal by an ephemeral container")? else {
        return Ok(());
    };
    steals(&cluster, "ephemeral")
}

#[test]
fn a_steal_takes_what_comes_through_a_node_port() -> Result<()> {
    let Some(cluster) = Cluster::open("steal through a NodePort")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    scene.space.kubectl.run(&[
        "patch",
        "service",
        "web",
        "-p",
        r#"{"spec":{"type":"NodePort"}}"#,
    ])?;
    let port = scene.space.kubectl.field("service/web", ".spec.ports[0].nodePort")?;
    let node = scene.space.kubectl.field("pod/client", ".status.hostIP")?;
    let at = format!("{node}:{port}");
    scene.until_answered_by("web-", &at)?;
    let mut session = scene.stealing(scene.mirrord("deployment/web"), &at)?;
    assert_eq!(session.end()?, 0);
    scene.until_answered_by("web-", &at).map(drop)
}

fn mirrors(cluster: &Cluster, mode: &str) -> Result<()> {
    let scene = Scene::open(cluster)?;
    let (pod, client) = (scene.pod("web")?, scene.space.pod("client")?);
    scene.until_answered_by(&pod.name, "web:80")?;
    let mut session =
        scene.mirrord("deployment/web").with(["--agent-mode", mode]).probe("reader")?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    session.app().must("serve udp 0.0.0.0:7001 local")?;
    let copy = wait::until("a copy", || {
        let answer = scene.answers("web:80")?;
        ensure!(answer["name"] == pod.name.as_str(), "the original answers: {answer}");
        Ok(session.app().events("request").first().cloned())
    });
    let copy = copy.with_context(|| session.stderr())?;
    ensure!(peer_of(&copy) == client.address, "the real client: {copy}");
    wait::until("a copied datagram", || {
        let answer = scene.client().must("udp web:7001 hello")?;
        ensure!(answer["answer"]["name"] == pod.name.as_str(), "the original answers: {answer}");
        Ok(session.app().events("datagram").first().cloned())
    })?;
    assert_eq!(session.end()?, 0, "{}", session.stderr());
    scene.unharmed(&pod)
}

#[test]
fn a_mirrored_target_answers_on_and_the_copy_arrives() -> Result<()> {
    let Some(cluster) = Cluster::open("mirror")? else {
        return Ok(());
    };
    mirrors(&cluster, "job")
}

#[test]
fn an_agent_in_an_ephemeral_container_mirrors_the_same() -> Result<()> {
    let Some(cluster) = Cluster::open("mirror by an ephemeral container")? else {
        return Ok(());
    };
    mirrors(&cluster, "ephemeral")
}

#[test]
fn a_port_of_the_target_goes_to_another_port_of_the_app_and_the_rest_stays() -> Result<()> {
    let Some(cluster) = Cluster::open("--port")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let pod = scene.pod("web")?;
    let mirrord = scene.mirrord("service/web").with(["--steal", "--port", "3000:80"]);
    let session = mirrord.probe("app")?;
    session.app().must("serve http 0.0.0.0:3000 local")?;
    session.app().must("serve tcp 0.0.0.0:7000 local")?;
    scene.until_answered_by("local", "web:80")?;
    let elsewhere = scene.client().must("ask web:7000 whoami")?;
    ensure!(elsewhere["answer"]["name"] == pod.name.as_str(), "{elsewhere}");
    drop(session);

    let session = scene.mirrord("service/web").with(["--no-incoming"]).probe("alone")?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    for _ in 0..20 {
        ensure!(scene.answers("web:80")?["name"] == pod.name.as_str(), "no traffic was asked for");
    }
    ensure!(session.app().events("request").is_empty(), "not even a copy");
    Ok(())
}

/// The Deployment `web` with probes of the kubelet every second.
fn probed() -> Value {
    let get = json!({ "httpGet": { "path": "/healthz", "port": 80 }, "periodSeconds": 1,
                      "failureThreshold": 3 });
    let fields = json!({ "livenessProbe": get, "readinessProbe": get });
    let web = manifest::with(probe("web", SERVERS), fields);
    manifest::workload("Deployment", "web", 1, spec(&[web]))
}

fn of_kubelet(session: &Session<'_>) -> usize {
    let events = session.app().events("request");
    events.iter().filter(|event| event["path"] == "/healthz").count()
}

#[test]
fn a_steal_answers_the_kubelets_probes_unless_they_are_left_out() -> Result<()> {
    let Some(cluster) = Cluster::open("the kubelet's probes")? else {
        return Ok(());
    };
    let scene = Scene::with(&cluster, &[probed(), manifest::service("web", "web")])?;
    scene.space.ready("web", 1)?;
    let pod = scene.pod("web")?;
    let mut session = scene.stealing(scene.mirrord("deployment/web"), "web:80")?;
    wait::until_true("probes at the app", || Ok(of_kubelet(&session) > 2))?;
    assert_eq!(session.end()?, 0);

    let file = tempfile::Builder::new().suffix(".json").tempfile()?;
    std::fs::write(file.path(), r#"{ "agent": { "exclude_probes": true } }"#)?;
    let path = file.path().to_string_lossy().into_owned();
    let mirrord = scene.mirrord("deployment/web").with(["-f", path.as_str()]);
    let mut session = scene.stealing(mirrord, "web:80")?;
    let told =
        || -> Result<usize> { Ok(scene.space.logs(&pod.name, "web")?.matches("/healthz").count()) };
    let before = told()?;
    wait::until_true("probes at the original", || Ok(told()? > before + 2))?;
    assert_eq!(of_kubelet(&session), 0, "none came to the app");
    ensure!(scene.answers("web:80")?["name"] == "local", "its clients still do");
    assert_eq!(session.end()?, 0);
    scene.unharmed(&pod)
}

/// As a mesh's init container does it: what comes in for port 80 goes to the proxy on 15006.
const REDIRECT: &str = "nft add table ip mesh && \
    nft 'add chain ip mesh in { type nat hook prerouting priority dstnat; }' && \
    nft add rule ip mesh in tcp dport 80 redirect to :15006";

#[test]
fn behind_a_mesh_proxy_steal_and_mirror_take_what_it_hands_to_the_app() -> Result<()> {
    let Some(cluster) = Cluster::open("a mesh's proxy")? else {
        return Ok(());
    };
    let relay = manifest::container(
        "istio-proxy",
        mirrord_tests::lab::PROBE,
        &["relay", "0.0.0.0:15006", "127.0.0.1:80"],
    );
    let pod = spec(&[relay, probe("web", SERVERS)]);
    let web = manifest::workload("Deployment", "web", 1, pod);
    let scene = Scene::with(&cluster, &[web, manifest::service("web", "web")])?;
    scene.space.ready("web", 1)?;
    let pod = scene.pod("web")?;
    let Some(node) = Node::of(&pod) else {
        skip::say("a mesh's proxy", "a node that is a container of the engine");
        return Ok(());
    };
    node.within(&pod, REDIRECT)?;
    let through = scene.until_answered_by("web-", "web:80")?;
    ensure!(peer_of(&through) == "127.0.0.1", "the proxy is between: {through}");

    let mut session = scene.stealing(scene.mirrord("deployment/web"), "web:80")?;
    assert_eq!(session.end()?, 0);
    scene.until_answered_by("web-", "web:80")?;

    let session = scene.mirrord("deployment/web").probe("reader")?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    wait::within(Duration::from_secs(20), "a copy", || {
        ensure!(scene.answers("web:80")?["name"] == pod.name.as_str(), "the original answers");
        Ok(session.app().events("request").first().cloned())
    })?;
    drop(session);
    scene.unharmed(&pod)
}
