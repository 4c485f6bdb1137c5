//! Namespaces that allow little, and strangers at the agent's door.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mirrord_tests::cluster::manifest::{self, probe, spec};
use mirrord_tests::cluster::{Cluster, Forward, Scene};
use mirrord_tests::lab::PROBE;
use mirrord_tests::wait;
use serde_json::{Value, json};

/// What the strictest level asks of a pod.
fn compliant(spec: Value) -> Value {
    let own = json!({ "securityContext": {
        "runAsNonRoot": true, "runAsUser": 65534, "seccompProfile": { "type": "RuntimeDefault" } } });
    let inner = json!({ "securityContext": {
        "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } } });
    let mut spec = manifest::with(spec, own);
    for container in spec["containers"].as_array_mut().into_iter().flatten() {
        *container = manifest::with(container.clone(), inner.clone());
    }
    spec
}

/// In a namespace of that level the agent is refused by name; from another namespace it works.
fn enforced(level: &str) -> Result<()> {
    let Some(cluster) = Cluster::open(&format!("pod security {level}"))? else {
        return Ok(());
    };
    let enforce = [("pod-security.kubernetes.io/enforce", level)];
    let mut scene = Scene::labelled(&cluster, &enforce)?;
    let client = compliant(spec(&[]));
    let words = "serve http 0.0.0.0:8000 $(POD_NAME) and serve udp 0.0.0.0:7001 $(POD_NAME)";
    let web = compliant(spec(&[probe("web", words)]));
    scene.space.apply(&[manifest::workload("Deployment", "web", 1, web)])?;
    let container = compliant(spec(&[probe("probe", "wait")]))["containers"].clone();
    let client = manifest::with(client, json!({ "containers": container }));
    scene.add_client(client)?;
    let pod = scene.space.ready("web", 1)?.remove(0);
    let at = format!("{}:8000", pod.address);

    let done = scene.mirrord("deployment/web").with(["--agent-mode", "job"]);
    let done = done.finish(PROBE, &["true"])?;
    ensure!(done.code == 125, "{done:?}");
    for part in [level, "hint: "] {
        ensure!(done.stderr.contains(part), "{part:?}: {}", done.stderr);
    }
    // Without capabilities no traffic comes in, but the app reaches what the target reaches.
    for words in [&["--agent-mode", "ephemeral"][..], &[]] {
        let mirrord = scene.mirrord("deployment/web").with(words.iter().copied());
        let done = mirrord.finish(PROBE, &["resolve", "kubernetes.default"])?;
        ensure!(done.code == 0, "{words:?}: {done:?}");
        ensure!(done.stderr.contains(level), "{words:?}: {}", done.stderr);
    }

    let agents = Scene::empty(&cluster)?;
    let mirrord = scene.mirrord("deployment/web").with(["-a", agents.space.name.as_str()]);
    let mut session = mirrord.with(["--steal"]).probe("app")?;
    session.app().must("serve http 0.0.0.0:8000 local")?;
    scene.until_answered_by("local", &at)?;
    let id = session.id()?;
    let ours = mirrord_tests::cluster::of_session(&cluster.kubectl, &id)?;
    ensure!(ours.iter().all(|line| line.contains(&agents.space.name)), "{ours:?}");
    assert_eq!(session.end()?, 0, "{}", session.stderr());
    scene.unharmed(&pod)
}

#[test]
fn a_restricted_namespace_refuses_by_name_and_an_agent_elsewhere_works() -> Result<()> {
    enforced("restricted")
}

#[test]
fn a_baseline_namespace_refuses_by_name_and_an_agent_elsewhere_works() -> Result<()> {
    enforced("baseline")
}

/// Where the agent of a session listens: its pod, the pod's address, and the port that its words
/// name.
fn door(scene: &Scene<'_>, id: &str) -> Result<(String, String, u16)> {
    let label = format!("mirrord.session={id}");
    let pods = scene.space.kubectl.json(&["get", "pods", "-l", &label])?;
    let pod = &pods["items"][0];
    let container = &pod["spec"]["containers"][0];
    let words = container["command"].as_array().into_iter().flatten();
    let words = words.chain(container["args"].as_array().into_iter().flatten());
    let port = words
        .filter_map(|word| word.as_str()?.parse().ok())
        .next()
        .with_context(|| format!("a port among the agent's words: {container}"))?;
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    Ok((text(&pod["metadata"]["name"]), text(&pod["status"]["podIP"]), port))
}

#[test]
fn another_pod_finds_no_open_port_of_the_agent() -> Result<()> {
    let Some(cluster) = Cluster::open("a stranger in the cluster")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let target = scene.pod("web")?;
    let session = scene.stealing(scene.mirrord("deployment/web"), "web:80")?;
    let (_, agent, port) = door(&scene, &session.id()?)?;
    for address in [&agent, &target.address] {
        let answer = scene.client().ask(&format!("connect {address}:{port} 3000"))?;
        ensure!(answer["errno"] == "ECONNREFUSED", "{address}:{port}: {answer}");
    }
    // The listening sockets of a steal are no ports either: each takes only what is steered to it.
    let open = scene.client().ask(&format!("connect {}:7999 3000", target.address))?;
    ensure!(open["errno"] == "ECONNREFUSED", "{open}");
    Ok(())
}

/// What comes back through a port-forward for these bytes until the end, or for two seconds.
fn says(forward: &Forward, bytes: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", forward.port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    // Who is turned away early may not have taken it all.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        answer.extend(&buffer[..count]);
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Handshakes of those who have no token, or the wrong one.
fn strangers() -> Vec<Vec<u8>> {
    let wrong = "0".repeat(64);
    let upgrade = |path: &str, more: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: agent\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
        )
        .into_bytes()
    };
    vec![
        upgrade("/tunnel", ""),
        upgrade("/tunnel", &format!("Authorization: Bearer {wrong}\r\n")),
        upgrade(&format!("/tunnel/{wrong}"), &format!("Authorization: Bearer {wrong}\r\n")),
        wrong.into_bytes(),
        vec![0; 100_000],
    ]
}

#[test]
fn a_port_forward_without_the_token_is_turned_away_and_the_session_goes_on() -> Result<()> {
    let Some(cluster) = Cluster::open("a stranger with a port-forward")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let session = scene.stealing(scene.mirrord("deployment/web"), "web:80")?;
    let (pod, _, port) = door(&scene, &session.id()?)?;
    for (number, bytes) in strangers().iter().enumerate() {
        let forward = Forward::open(&scene.space.kubectl, &pod, port)?;
        let answer = says(&forward, bytes)?;
        ensure!(number > 0 || answer.contains("401"), "not the agent's door: {answer:?}");
        ensure!(!answer.contains("101 Switching"), "let in: {answer}");
        ensure!(!answer.starts_with("M1"), "taken for the keeper: {answer}");
        ensure!(scene.answers("web:80")?["name"] == "local", "the steal goes on");
    }
    session.app().must("ask web:7000 whoami")?;
    Ok(())
}

#[test]
fn the_agents_pod_asks_for_no_more_than_it_needs() -> Result<()> {
    let Some(cluster) = Cluster::open("the agent's pod")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let session = scene.mirrord("deployment/web").probe("app")?;
    let label = format!("mirrord.session={}", session.id()?);
    let pods = wait::until("the agent's pod", || {
        let pods = scene.space.kubectl.json(&["get", "pods", "-l", &label])?;
        Ok((!pods["items"][0].is_null()).then_some(pods))
    })?;
    let spec = &pods["items"][0]["spec"];
    let container = &spec["containers"][0];
    assert_eq!(spec["automountServiceAccountToken"], false, "{spec}");
    ensure!(spec["hostNetwork"].is_null() || spec["hostNetwork"] == false, "{spec}");
    ensure!(container["securityContext"]["privileged"] != true, "{container}");
    assert_eq!(container["imagePullPolicy"], "Never", "nothing is pulled");
    ensure!(container["image"].as_str().is_some_and(|image| image.contains(PROBE)), "{container}");
    let host =
        spec["volumes"].as_array().into_iter().flatten().any(|one| !one["hostPath"].is_null());
    ensure!(!host, "no folder of the node: {spec}");
    Ok(())
}
