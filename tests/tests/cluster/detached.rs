//! `docker run -d` in a pod's place: the keeper holds the port-forward after its command has gone.

use std::time::Duration;

use anyhow::Result;
use mirrord_tests::background::Background;
use mirrord_tests::cluster::{Cluster, Scene, gone};
use mirrord_tests::lab::PROBE;

const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_session_in_the_background_serves_until_it_is_stopped() -> Result<()> {
    let Some(cluster) = Cluster::open("docker run -d in a pod's place")? else {
        return Ok(());
    };
    let scene = Scene::open(&cluster)?;
    let original = scene.pod("web")?.name;
    let background = Background::new(&cluster.lab)?;
    let mirrord = scene.mirrord("deployment/web").with(["--steal"]);
    let done = background.run(mirrord, "app", PROBE, &["serve", "http", "0.0.0.0:80", "mine"])?;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(
        done.stdout.trim(),
        cluster.lab.docker.inspect(&cluster.lab.name("app"), "{{.Id}}")?
    );
    scene.until_answered_by("mine", "web:80")?;
    cluster.lab.docker.run(&["restart", &cluster.lab.name("app")])?;
    scene.until_answered_by("mine", "web:80")?;
    let row = background.session("app")?;
    assert_eq!(
        (&row["target"], &row["state"]),
        (&"deployment/web".into(), &"up".into()),
        "{row:#}"
    );
    let id = row["session"].as_str().unwrap_or("").to_owned();
    let stopped = background.mirrord(&["stop", &id])?;
    assert!(stopped.status.success(), "{stopped:?}");
    gone(&cluster.kubectl, &id, SOON)?;
    background.until_gone(&id)?;
    background.until_empty()?;
    scene.until_answered_by(&original, "web:80").map(drop)
}
