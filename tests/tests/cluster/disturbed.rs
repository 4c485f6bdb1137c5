//! The cluster's own parts fail under a session.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mirrord_tests::cluster::{Cluster, Node, Pod, Scene, gone};
use mirrord_tests::mirrord::Session;
use mirrord_tests::{skip, wait};

/// How long the API server is kept down.
const DOWN: Duration = Duration::from_secs(10);
/// How long a session may need once it is back.
const BACK: Duration = Duration::from_secs(60);

/// Kills it as often as its node starts it again.
fn keep_down(node: &Node) -> Result<()> {
    let end = Instant::now() + DOWN;
    while Instant::now() < end {
        node.shell("kill -9 $(pidof kube-apiserver) 2>/dev/null; sleep 0.3")?;
    }
    Ok(())
}

/// Who answers the node itself, which needs no API server.
fn answers(node: &Node, pod: &Pod) -> Result<String> {
    node.shell(&format!("printf 'GET / HTTP/1.1\\r\\n\\r\\n' | nc -w 3 {} 80", pod.address))
}

fn go_on(
    cluster: &Cluster,
    scene: &Scene<'_>,
    node: &Node,
    session: &mut Session<'_>,
) -> Result<()> {
    let pod = {
        let ready = || Ok(cluster.kubectl.run(&["get", "--raw", "/readyz"]).ok());
        wait::within(BACK, "the API server", ready)?;
        node.renew_services()?;
        scene.pod("web")?
    };
    let back = wait::within(BACK, "the steal to go on", || {
        Ok(answers(node, &pod)?.contains("\"local\"").then_some(()))
    });
    back.with_context(|| session.stderr())?;
    let reached = wait::within(BACK, "a Service by its name", || {
        session.app().must("ask web:7000 whoami").map(Some)
    });
    reached.with_context(|| session.stderr())?;
    assert_eq!(session.end()?, 0, "{}", session.stderr());
    Ok(())
}

#[test]
fn a_session_outlives_an_api_server_that_is_away_for_a_while_and_says_so() -> Result<()> {
    let Some(cluster) = Cluster::open_alone("the API server is killed")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let pod = scene.pod("web")?;
    let Some(node) = Node::of(&pod) else {
        skip::say("the API server is killed", "a node that is a container of the engine");
        return Ok(());
    };
    // Not by name: the cluster's name server may have lost the API server as well.
    let at = format!("{}:80", pod.address);
    let mut session = scene.stealing(scene.mirrord("deployment/web"), &at)?;
    let id = session.id()?;
    let before = session.stderr().len();
    keep_down(&node)?;
    let told = session.stderr();
    if told.len() == before {
        bail!("nothing was said while the API server was away: {told}");
    }
    let gone_on = go_on(&cluster, &scene, &node, &mut session);
    if gone_on.is_err() && session.child.try_wait()?.is_some() {
        bail!("the session ended: {}", session.stderr());
    }
    gone_on?;
    gone(&cluster.kubectl, &id, Duration::from_secs(90))?;
    scene.space.ready("web", 1)?;
    scene.unharmed(&pod)
}
