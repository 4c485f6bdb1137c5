//! The same on Debian's Docker Engine 20.10, which knows neither CAP_BPF nor the newer API.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mirrord_tests::background::outlives_its_command;
use mirrord_tests::docker::Docker;
use mirrord_tests::lab::{Lab, PROBE};
use mirrord_tests::leftovers::{Machine, alone};
use mirrord_tests::scene::Scene;
use mirrord_tests::skip;

/// The engine, started beside the usual one, with the probe's image in it.
fn engine(test: &str) -> Result<Option<Lab>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let up = folder.join("../../shared/engine/up");
    if !up.exists() {
        skip::say(test, "Docker Engine 20.10 (../shared/engine/up --debian)");
        return Ok(None);
    }
    // A 20.10 that finds its own former state removes the other engine's docker0 as it starts.
    let wiped = Command::new(up.with_file_name("down")).args(["--wipe", "debian"]).output()?;
    ensure!(wiped.status.success(), "{}", String::from_utf8_lossy(&wiped.stderr));
    let output = Command::new(up).arg("--debian").output().context("start the engine")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = told.split_once("DOCKER_HOST=").context("no DOCKER_HOST")?.1.trim().to_owned();
    let images =
        Command::new(folder.join("images")).arg("probe").env("DOCKER_HOST", &host).output()?;
    ensure!(images.status.success(), "{}", String::from_utf8_lossy(&images.stderr));
    Lab::open_at(test, Docker::at(host))
}

#[test]
fn an_older_engine_steals_mirrors_reaches_out_and_cleans_up() -> Result<()> {
    let _alone = alone();
    let Some(lab) = engine("Engine 20.10")? else {
        return Ok(());
    };
    let scene = Scene::open_with(&lab, &["-e", "WHO=far"])?;
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    let before = Machine::now(&lab.docker)?;

    let mut session = scene.mirrord().with(["--steal"]).probe("thief")?;
    let app = session.app();
    assert_eq!(app.must("env")?["env"]["WHO"], "far");
    let seen = app.must("ask client:7000 whoami")?;
    assert!(seen["answer"]["peer"].as_str().is_some_and(|peer| peer.starts_with(&scene.address)));
    app.must("serve http 0.0.0.0:80 local")?;
    scene.until_answered_by("local", 80)?;
    session.end()?;
    assert_eq!(scene.answers(80)?["name"], "original");

    let mut session = scene.mirrord().with(["--mirror"]).probe("reader")?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    scene.until_copied_to(session.app())?;
    session.end()?;

    assert_eq!(scene.mirrord().finish(PROBE, &["exit", "3"])?.code, 3);
    outlives_its_command(&scene, &["--init"])?;
    before.as_before(Duration::from_secs(10))
}
