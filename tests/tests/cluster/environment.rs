//! The app has the variables that the target's process has, and nobody else sees them.

use anyhow::{Context, Result, ensure};
use mirrord_tests::cluster::manifest::{self, container, pod, spec};
use mirrord_tests::cluster::{Cluster, Scene};
use mirrord_tests::lab::PROBE;
use mirrord_tests::processes;
use serde_json::{Value, json};

const SECRET: &str = "hunter2-not-for-anyone";

/// A target whose variables come from everywhere that variables come from.
fn stage(cluster: &Cluster) -> Result<Scene<'_>> {
    let scene = Scene::empty(cluster)?;
    let sources = json!([{ "configMapRef": { "name": "settings" } },
                         { "secretRef": { "name": "keys" }, "prefix": "KEY_" }]);
    let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
    let env = json!([
        { "name": "PLAIN", "value": "said" },
        { "name": "COMPOSED", "value": "$(PLAIN) and $(POD_IP)" },
        { "name": "POD_IP", "valueFrom": field("status.podIP") },
        { "name": "NODE", "valueFrom": field("spec.nodeName") },
        { "name": "ONE", "valueFrom": { "secretKeyRef": { "name": "keys", "key": "password" } } },
        { "name": "MEMORY", "valueFrom": { "resourceFieldRef": { "resource": "limits.memory" } } },
        { "name": "LINES", "value": "first\nsecond\n" },
    ]);
    let web = manifest::with(
        container("web", PROBE, &["wait"]),
        json!({ "envFrom": sources, "env": env,
                "resources": { "limits": { "memory": "64Mi" } } }),
    );
    scene.space.apply(&[
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "settings" },
                "data": { "MODE": "blue", "LEVEL": "3" } }),
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "keys" },
                "stringData": { "password": SECRET } }),
        pod("web", spec(&[web])),
    ])?;
    scene.space.pod("web")?;
    Ok(scene)
}

fn variables(text: &str) -> Result<Value> {
    let line = text.lines().find(|line| line.contains("\"env\"")).context("no environment")?;
    Ok(serde_json::from_str::<Value>(line)?["env"].clone())
}

/// Those that every container has of its own.
const OWN: [&str; 4] = ["PATH", "HOME", "HOSTNAME", "PWD"];

#[test]
fn the_app_has_the_variables_as_the_targets_process_has_them() -> Result<()> {
    let Some(cluster) = Cluster::open("variables")? else {
        return Ok(());
    };
    let scene = stage(&cluster)?;
    let there = scene.space.kubectl.run(&["exec", "web", "--", "/probe", "env"])?;
    let there = variables(&there)?;
    let done = scene.mirrord("pod/web").finish(PROBE, &["env"])?;
    let here = variables(&done.stdout).with_context(|| format!("{done:?}"))?;
    for (name, value) in there.as_object().into_iter().flatten() {
        if !OWN.contains(&name.as_str()) {
            ensure!(here[name] == *value, "{name}: {value} there, {} here", here[name]);
        }
    }
    assert_eq!(here["KEY_password"], SECRET);
    assert_eq!(here["MEMORY"], (64 << 20).to_string());
    ensure!(here["KUBERNETES_SERVICE_HOST"].is_string(), "the cluster's own: {here}");

    let done = scene.mirrord("pod/web").with(["-x", "KEY_*;ONE"]).finish(PROBE, &["env"])?;
    let here = variables(&done.stdout)?;
    ensure!(here["KEY_password"].is_null() && here["ONE"].is_null(), "{here}");
    assert_eq!(here["MODE"], "blue");

    let mirrord = scene.mirrord("pod/web").docker(["-e", "MODE=mine"]);
    let here = variables(&mirrord.finish(PROBE, &["env"])?.stdout)?;
    assert_eq!(here["MODE"], "mine", "what the user says wins");
    Ok(())
}

fn secrets_stay(cluster: &Cluster, mode: &str) -> Result<()> {
    let scene = stage(cluster)?;
    let session = scene.mirrord("pod/web").with(["--agent-mode", mode]).probe("app")?;
    assert_eq!(session.app().must("env")?["env"]["ONE"], SECRET);

    let arguments: String = processes::family(i32::try_from(session.child.id())?)
        .iter()
        .chain(&processes::of_mirrord())
        .map(|process| process.args.join(" ") + "\n")
        .collect();
    ensure!(!arguments.contains(SECRET), "in an argument list");
    let sidecar = cluster.lab.docker.run(&["inspect", &session.part("proxy")?])?;
    ensure!(!sidecar.contains(SECRET), "in docker inspect");
    let ours = format!("mirrord.session={}", session.id()?);
    let kinds = "jobs,configmaps,pods,events";
    let all = scene.space.kubectl.run(&["get", kinds, "-o", "yaml"])?;
    let labelled = scene.space.kubectl.run(&["get", kinds, "-l", &ours, "-o", "yaml"])?;
    ensure!(!all.contains(SECRET), "in an object of the cluster");

    let token = token_of(&session.part("proxy")?)?.context("no token in the proxy's memory")?;
    ensure!(!all.contains(&token) && !labelled.contains(&token), "the token in an object");
    ensure!(!arguments.contains(&token), "the token in an argument list");
    ensure!(!sidecar.contains(&token), "the token in docker inspect");
    Ok(())
}

/// The session's token, from the memory of the sidecar's first process, which keeps the
/// configuration for another worker; `None` where it can't be found there.
fn token_of(sidecar: &str) -> Result<Option<String>> {
    let first = processes::of_container(sidecar).into_iter().find(|process| process.own_pid == 1);
    let process = first.context("no process in the sidecar")?;
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", process.pid))?;
    let memory = std::fs::File::open(format!("/proc/{}/mem", process.pid))?;
    for line in maps.lines().filter(|line| line.contains(" rw-p ")) {
        let Some((from, to)) = line.split(' ').next().and_then(|range| range.split_once('-'))
        else {
            continue;
        };
        let (from, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        let mut bytes = vec![0; usize::try_from(to - from)?];
        if std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, from).is_err() {
            continue;
        }
        if let Some(token) = token_in(&bytes) {
            return Ok(Some(token));
        }
    }
    Ok(None)
}

/// What follows `"token":"` in a line of configuration.
fn token_in(bytes: &[u8]) -> Option<String> {
    const MARK: &[u8] = b"\"token\":\"";
    let at = bytes.windows(MARK.len()).position(|part| part == MARK)? + MARK.len();
    let end = at + bytes[at..].iter().take(256).position(|&byte| byte == b'"')?;
    let token = String::from_utf8(bytes[at..end].to_vec()).ok()?;
    (token.len() >= 32).then_some(token)
}

#[test]
fn secrets_and_the_token_are_in_no_argument_list_and_no_object() -> Result<()> {
    let Some(cluster) = Cluster::open("secrets")? else {
        return Ok(());
    };
    secrets_stay(&cluster, "job")
}

#[test]
fn an_ephemeral_agent_keeps_secrets_and_the_token_to_itself_as_well() -> Result<()> {
    let Some(cluster) = Cluster::open("secrets of an ephemeral agent")? else {
        return Ok(());
    };
    secrets_stay(&cluster, "ephemeral")
}
