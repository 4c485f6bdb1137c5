//! Workloads of several pods, and pods that come and go under a session.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mirrord_tests::cluster::manifest::{self, SERVERS, probe, spec, workload};
use mirrord_tests::cluster::{Cluster, Scene, of_session};
use mirrord_tests::mirrord::Session;
use mirrord_tests::wait;

/// The Deployment and Service `web` of `count` pods.
fn scene(cluster: &Cluster, count: u32) -> Result<Scene<'_>> {
    let web = workload("Deployment", "web", count, spec(&[probe("web", SERVERS)]));
    let scene = Scene::with(cluster, &[web, manifest::service("web", "web")])?;
    scene.space.ready("web", usize::try_from(count)?)?;
    Ok(scene)
}

/// Who answers a few requests that go to all pods in turn.
fn names(scene: &Scene<'_>, count: usize) -> Result<BTreeSet<String>> {
    (0..count)
        .map(|_| Ok(scene.answers("web:80")?["name"].as_str().unwrap_or("").to_owned()))
        .collect()
}

#[test]
fn of_several_pods_one_is_taken_and_named() -> Result<()> {
    let Some(cluster) = Cluster::open("one of several pods")? else {
        return Ok(());
    };
    let scene = scene(&cluster, 2)?;
    let pods = scene.space.pods("web")?;
    let mut session = scene.stealing(scene.mirrord("deployment/web"), "web:80")?;
    let said = session.stderr();
    let named: Vec<_> = pods.iter().filter(|pod| said.contains(&pod.name)).collect();
    ensure!(named.len() == 1, "one of {pods:?} is named: {said}");
    let other = pods.iter().find(|pod| pod.name != named[0].name).context("another pod")?;
    ensure!(scene.answers(&format!("{}:80", named[0].address))?["name"] == "local");
    ensure!(scene.answers(&format!("{}:80", other.address))?["name"] == other.name.as_str());
    assert_eq!(session.end()?, 0);
    Ok(())
}

#[test]
fn all_replicas_are_taken_by_one_agent_a_node() -> Result<()> {
    let Some(cluster) = Cluster::open("--all-replicas")? else {
        return Ok(());
    };
    let scene = scene(&cluster, 2)?;
    let pods = scene.space.pods("web")?;
    let mirrord = scene.mirrord("deployment/web").with(["--all-replicas"]);
    let mut session = scene.stealing(mirrord, "web:80")?;
    for pod in &pods {
        scene.until_answered_by("local", &format!("{}:80", pod.address))?;
    }
    assert_eq!(names(&scene, 20)?, BTreeSet::from(["local".to_owned()]));
    let nodes: BTreeSet<_> = pods.iter().map(|pod| &pod.node).collect();
    let objects = of_session(&cluster.kubectl, &session.id()?)?;
    let agents = objects.iter().filter(|line| line.starts_with("Pod")).count();
    assert_eq!(agents, nodes.len(), "{objects:?}");

    let client = scene.space.pod("client")?.address;
    let peers = session.app().events("request");
    ensure!(
        peers.iter().any(|seen| seen["peer"].as_str().is_some_and(|peer| peer.contains(&client)))
    );

    scene.space.kubectl.run(&["scale", "deployment/web", "--replicas=3"])?;
    let grown = scene.space.ready("web", 3)?;
    for pod in &grown {
        let at = format!("{}:80", pod.address);
        scene.until_answered_by("local", &at).with_context(|| session.stderr())?;
    }
    assert_eq!(session.end()?, 0);
    for pod in &grown {
        scene.until_answered_by(&pod.name, &format!("{}:80", pod.address))?;
    }
    pods.iter().try_for_each(|pod| scene.unharmed(pod))
}

#[test]
fn a_mirror_of_all_replicas_gets_the_copies_of_each() -> Result<()> {
    let Some(cluster) = Cluster::open("--all-replicas, mirrored")? else {
        return Ok(());
    };
    let scene = scene(&cluster, 2)?;
    let session = scene.mirrord("deployment/web").with(["--all-replicas"]).probe("reader")?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    for pod in scene.space.pods("web")? {
        let ask = format!("ask {}:80 http /to/{}", pod.address, pod.name);
        wait::until(&format!("a copy of {}", pod.name), || {
            let answer = scene.client().must(&ask)?;
            ensure!(answer["answer"]["name"] == pod.name.as_str(), "the original: {answer}");
            let path = format!("/to/{}", pod.name);
            let events = session.app().events("request");
            Ok(events.iter().any(|event| event["path"] == path.as_str()).then_some(()))
        })?;
    }
    Ok(())
}

/// The session says where it went, steals there, and ends well.
fn moved(scene: &Scene<'_>, session: &mut Session<'_>) -> Result<()> {
    let moved = wait::within(Duration::from_secs(60), "the steal in the new pod", || {
        let pod = scene.space.pods("web")?.pop().context("no pod")?;
        let answer = scene.answers(&format!("{}:80", pod.address))?;
        Ok((answer["name"] == "local").then_some(pod))
    });
    let pod = moved.with_context(|| session.stderr())?;
    session.until_said("", &pod.name)?;
    scene.until_answered_by("local", "web:80")?;
    // The Service's rules may name the old pod for a moment.
    wait::within(Duration::from_secs(30), "an answer from the Service", || {
        session.app().must("ask web:7000 whoami").map(Some)
    })?;
    assert_eq!(session.end()?, 0, "{}", session.stderr());
    scene.until_answered_by("web-", "web:80").map(drop)
}

#[test]
fn a_session_follows_a_rolling_update() -> Result<()> {
    let Some(cluster) = Cluster::open("a rolling update")? else {
        return Ok(());
    };
    let scene = scene(&cluster, 1)?;
    let mut session = scene.stealing(scene.mirrord("deployment/web"), "web:80")?;
    scene.space.kubectl.run(&["rollout", "restart", "deployment/web"])?;
    scene.space.kubectl.run(&["rollout", "status", "deployment/web", "--timeout=90s"])?;
    moved(&scene, &mut session)
}

#[test]
fn a_session_follows_a_deleted_pod_to_its_replacement() -> Result<()> {
    let Some(cluster) = Cluster::open("a deleted pod")? else {
        return Ok(());
    };
    let scene = scene(&cluster, 1)?;
    let pod = scene.pod("web")?;
    let mut session = scene.stealing(scene.mirrord("deployment/web"), "web:80")?;
    let said = session.stderr();
    scene.space.kubectl.run(&["delete", "pod", &pod.name, "--wait=false"])?;
    session.until_said(&said, &pod.name)?;
    moved(&scene, &mut session)
}

#[test]
fn a_session_follows_its_container_when_the_kubelet_starts_it_again() -> Result<()> {
    let Some(cluster) = Cluster::open("a restarted container")? else {
        return Ok(());
    };
    let scene = scene(&cluster, 1)?;
    let pod = scene.pod("web")?;
    let session = scene.stealing(scene.mirrord("deployment/web"), "web:80")?;
    // The pod's network outlives its container; a steal may, too.
    let process = mirrord_tests::processes::of_container(&pod.container_id);
    let Some(process) = process.first() else {
        mirrord_tests::skip::say("a restarted container", "a node on this machine");
        return Ok(());
    };
    process.signal(nix::sys::signal::Signal::SIGKILL)?;
    wait::within(Duration::from_secs(60), "the container to be started again", || {
        let now = scene.space.pod(&pod.name)?;
        Ok((now.restarts > pod.restarts && now.ready).then_some(()))
    })?;
    scene.until_answered_by("local", "web:80").with_context(|| session.stderr()).map(drop)
}
