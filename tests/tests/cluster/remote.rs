//! The app on an engine of another machine, which reaches neither the cluster nor this machine.

use anyhow::{Result, ensure};
use mirrord_tests::cluster::{Cluster, Scene};
use mirrord_tests::lab::Lab;
use mirrord_tests::mirrord::Mirrord;
use mirrord_tests::remote_engine::RemoteEngine;

#[test]
fn an_app_on_an_engine_of_another_machine_takes_a_pods_place() -> Result<()> {
    let test = "a cluster's target and an engine elsewhere";
    let Some(engine) = RemoteEngine::tls(test)? else {
        return Ok(());
    };
    let Some(lab) = Lab::open_at(test, engine.docker())? else {
        return Ok(());
    };
    let Some(cluster) = Cluster::open(test)? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let pod = scene.pod("web")?;
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    let config = cluster.kubectl.config().to_string_lossy().into_owned();
    let mirrord = Mirrord::new(&lab, "deployment/web").with(["-n", &scene.space.name]);
    let mut session = scene.stealing(mirrord.env("KUBECONFIG", &config), "web:80")?;
    let app = session.app();
    assert_eq!(app.must("env")?["env"]["POD_NAME"], pod.name.as_str());
    let client = scene.space.pod("client")?;
    let seen = app.must(&format!("ask {}:7000 whoami", client.address))?["answer"]["peer"].clone();
    ensure!(seen.as_str().is_some_and(|peer| peer.starts_with(&pod.address)), "{seen}");
    assert_eq!(session.end()?, 0, "{}", session.stderr());
    scene.until_answered_by("web-", "web:80")?;
    scene.unharmed(&pod)
}
