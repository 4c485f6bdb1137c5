//! Keys of the configuration file that take a cluster, and their options: what they do is seen in
//! a running session. The others are in `config.rs`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mirrord_tests::cluster::manifest::{self, SERVERS, probe, spec, workload};
use mirrord_tests::cluster::{Cluster, Scene, gone};
use mirrord_tests::lab::PROBE;
use mirrord_tests::mirrord::{Mirrord, Session};
use mirrord_tests::processes;
use mirrord_tests::setting::Given;
use nix::sys::signal::Signal;
use serde_json::Value;

/// A key, a file that has it, words that say the same, and where in the agent's Job it shows as what.
/// `OTHER` stands for another namespace.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str);

const POD: &str = "/spec/template/spec";

const OF_THE_JOB: &[Row] = &[
    ("agent.labels", r#"{"labels": {"team": "a"}}"#, "", "/metadata/labels/team", "a"),
    (
        "agent.annotations",
        r#"{"annotations": {"why": "b"}}"#,
        "",
        "/spec/template/metadata/annotations/why",
        "b",
    ),
    (
        "agent.tolerations",
        r#"{"tolerations": [{"key": "k", "operator": "Exists"}]}"#,
        "",
        "POD/tolerations/0/key",
        "k",
    ),
    (
        "agent.resources",
        r#"{"resources": {"limits": {"memory": "300Mi"}}}"#,
        "",
        "POD/containers/0/resources/limits/memory",
        "300Mi",
    ),
    (
        "agent.service_account",
        r#"{"service_account": "other"}"#,
        "",
        "POD/serviceAccountName",
        "other",
    ),
    ("agent.ttl", r#"{"ttl": 77}"#, "", "/spec/ttlSecondsAfterFinished", "77"),
    ("agent.namespace", r#"{"namespace": "OTHER"}"#, "-a OTHER", "/metadata/namespace", "OTHER"),
    (
        "agent.image",
        r#"{"image": "mirrord-apps/go:latest"}"#,
        "-i mirrord-apps/go:latest",
        "POD/containers/0/image",
        "mirrord-apps/go:latest",
    ),
    (
        "agent.image.registry",
        r#"{"image": {"registry": "mirrord-apps/go"}}"#,
        "-i mirrord-apps/go",
        "POD/containers/0/image",
        "mirrord-apps/go",
    ),
    (
        "agent.image.tag",
        r#"{"image": {"registry": "mirrord-apps/go", "tag": "latest"}}"#,
        "",
        "POD/containers/0/image",
        "mirrord-apps/go:latest",
    ),
    ("agent.mode", r#"{"mode": "ephemeral"}"#, "--agent-mode ephemeral", "/kind", "none"),
    ("agent.ephemeral", r#"{"ephemeral": true}"#, "", "/kind", "none"),
];

/// The session's Job; one of kind `none` if there is none.
fn job(scene: &Scene<'_>, session: &Session<'_>) -> Result<Value> {
    let label = format!("mirrord.session={}", session.id()?);
    let jobs = scene.space.kubectl.json(&["get", "jobs", "-A", "-l", &label])?;
    Ok(jobs["items"].get(0).cloned().unwrap_or_else(|| serde_json::json!({"kind": "none"})))
}

fn at(job: &Value, place: &str) -> String {
    match job.pointer(&place.replace("POD", POD)) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    }
}

#[test]
fn agents_are_as_the_settings_say() -> Result<()> {
    let Some(cluster) = Cluster::open("settings of agents")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let other = Scene::empty(&cluster)?;
    let account = serde_json::json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "other"},
    });
    scene.space.apply(&[account])?;
    let named = |text: &str| text.replace("OTHER", &other.space.name);
    let seen = |given: &Given| -> Result<Value> {
        let mut session = given.to(scene.mirrord("deployment/web")).probe("app")?;
        let job = job(&scene, &session)?;
        assert_eq!(session.end()?, 0, "{}", session.stderr());
        Ok(job)
    };
    let usual = seen(&Given::default())?;
    for (key, file, options, place, expected) in OF_THE_JOB {
        let expected = named(expected);
        assert_ne!(at(&usual, place), expected, "{key}: without it");
        let file = format!(r#"{{"agent": {}}}"#, named(file));
        let job = seen(&Given::by_file("mirrord.json", &file)?).context(*key)?;
        assert_eq!(at(&job, place), expected, "{key} in a file: {job}");
        if !options.is_empty() {
            let words: Vec<String> = options.split(' ').map(named).collect();
            let job = seen(&Given::by_options(&words)).context(*key)?;
            assert_eq!(at(&job, place), expected, "{key} by {options}: {job}");
        }
    }
    Ok(())
}

#[test]
fn an_agent_without_a_target_has_the_node_and_the_time_that_it_is_given() -> Result<()> {
    let Some(cluster) = Cluster::open("agent.node_selector, agent.startup_timeout")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let file = |agent: &str| {
        let image = r#""image": "mirrord-apps/probe:latest""#;
        Given::by_file("mirrord.json", &format!(r#"{{"agent": {{{agent}, {image}}}}}"#))
    };
    let given = file(r#""node_selector": {"kubernetes.io/os": "linux"}"#)?;
    let mut session = given.to(scene.targetless()).probe("app")?;
    let selector = at(&job(&scene, &session)?, "POD/nodeSelector/kubernetes.io~1os");
    assert_eq!((selector.as_str(), session.end()?), ("linux", 0));

    // Nobody starts on a node that there is not; without the key that takes a minute to be said.
    let given = file(r#""node_selector": {"no": "node"}, "startup_timeout": 3"#)?;
    let began = Instant::now();
    let done = given.to(scene.targetless()).finish(PROBE, &["exit", "0"])?;
    ensure!(done.code == 125 && began.elapsed() < Duration::from_secs(25), "{done:?}");
    Ok(())
}

#[test]
fn an_agent_waits_for_its_tunnel_as_long_as_it_is_told() -> Result<()> {
    let Some(cluster) = Cluster::open("agent.communication_timeout")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let left_alone = |seconds: u32| -> Result<Duration> {
        let file = format!(r#"{{"agent": {{"communication_timeout": {seconds}, "ttl": 0}}}}"#);
        let given = Given::by_file("mirrord.json", &file)?;
        let mut session = given.to(scene.mirrord("deployment/web")).probe("app")?;
        let id = session.id()?;
        for process in processes::family(i32::try_from(session.child.id())?) {
            process.signal(Signal::SIGKILL)?;
        }
        session.wait()?;
        let began = Instant::now();
        let _ = cluster.lab.docker.run(&["rm", "-f", &session.name]);
        gone(&scene.space.kubectl, &id, Duration::from_secs(60))?;
        Ok(began.elapsed())
    };
    let (soon, later) = (left_alone(1)?, left_alone(14)?);
    ensure!(later > soon + Duration::from_secs(8), "after {soon:?} and {later:?}");
    Ok(())
}

/// The variable of an app that has nothing but the setting to find its target by.
fn finds(scene: &Scene<'_>, mirrord: Mirrord<'_>) -> Result<bool> {
    let done = mirrord.finish(PROBE, &["env"])?;
    let pod = scene.pod("web")?;
    Ok(done.code == 0 && done.stdout.contains(&format!("\"POD_NAME\":\"{}\"", pod.name)))
}

#[test]
fn the_cluster_and_the_namespace_are_those_of_the_settings() -> Result<()> {
    let Some(cluster) = Cluster::open("kubeconfig, kube_context, target.namespace")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let kubectl = &cluster.kubectl;
    let config = kubectl.config().to_string_lossy().into_owned();
    let namespace = scene.space.name.clone();
    let folder = tempfile::tempdir()?;
    let (context, distrusts) = contexts(&cluster, folder.path())?;

    // Each without something that the file or the option then gives.
    let cases = [
        ("kubeconfig", "", format!("\"{config}\""), vec!["--kubeconfig", &config]),
        ("kube_context", &context, "\"right\"".to_owned(), vec!["--context", "right"]),
        ("accept_invalid_certificates", &distrusts, "true".to_owned(), vec!["-c"]),
    ];
    for (key, usual, value, option) in &cases {
        let bare = || {
            let mirrord = Mirrord::new(&cluster.lab, "deployment/web").with(["-n", &namespace]);
            mirrord.env("KUBECONFIG", usual).env("HOME", "/nowhere")
        };
        ensure!(!finds(&scene, bare())?, "{key}: without it");
        let given = Given::by_file("mirrord.json", &format!("{{\"{key}\": {value}}}"))?;
        ensure!(finds(&scene, given.to(bare()))?, "{key} in a file");
        ensure!(finds(&scene, bare().with(option.clone()))?, "{key} by {option:?}");
    }
    let by_variable = Mirrord::new(&cluster.lab, "deployment/web").with(["-n", &namespace]);
    ensure!(finds(&scene, by_variable.env("KUBECONFIG", &config))?, "kubeconfig by KUBECONFIG");
    let bare = || Mirrord::targetless(&cluster.lab).env("KUBECONFIG", &config);
    let target = |rest: &str| {
        let target = format!("{{\"target\": {{\"path\": {{\"deployment\": \"web\"}}{rest}}}}}");
        Given::by_file("mirrord.json", &target)
    };
    ensure!(!finds(&scene, target("")?.to(bare()))?, "target.namespace: without it");
    let rest = format!(", \"namespace\": \"{namespace}\"");
    ensure!(finds(&scene, target(&rest)?.to(bare()))?, "\"target.namespace\" in a file");
    Ok(())
}

/// Two kubeconfigs: one whose current context leads nowhere, and one that trusts nobody.
fn contexts(cluster: &Cluster, folder: &std::path::Path) -> Result<(String, String)> {
    let flat = ["config", "view", "--raw", "--minify", "--flatten", "-o", "json"];
    let good: Value = serde_json::from_str(&cluster.kubectl.run(&flat)?)?;
    let mut context = good.clone();
    context["contexts"][0]["name"] = "right".into();
    context["current-context"] = "wrong".into();
    let mut distrusts = good;
    let entry = &mut distrusts["clusters"][0]["cluster"];
    entry.as_object_mut().context("a cluster")?.remove("certificate-authority-data");
    let write = |name: &str, config: &Value| -> Result<String> {
        let file = folder.join(name);
        std::fs::write(&file, config.to_string())?;
        Ok(file.to_string_lossy().into_owned())
    };
    Ok((write("context", &context)?, write("distrusts", &distrusts)?))
}

#[test]
fn all_replicas_are_meant_where_a_file_says_so() -> Result<()> {
    let Some(cluster) = Cluster::open("target.all_replicas")? else {
        return Ok(());
    };
    let web = workload("Deployment", "web", 2, spec(&[probe("web", SERVERS)]));
    let scene = Scene::with(&cluster, &[web, manifest::service("web", "web")])?;
    let pods = scene.space.ready("web", 2)?;
    let named = |key: &str| -> Result<usize> {
        let target = format!(r#"{{"target": {{"path": "deployment/web"{key}}}}}"#);
        let given = Given::by_file("mirrord.json", &target)?;
        let mut session = given.to(scene.targetless()).probe("app")?;
        let said = session.stderr();
        assert_eq!(session.end()?, 0, "{said}");
        Ok(pods.iter().filter(|pod| said.contains(&pod.name)).count())
    };
    assert_eq!((named("")?, named(r#", "all_replicas": true"#)?), (1, 2));
    Ok(())
}
