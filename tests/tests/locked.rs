//! `mirrord.lock`: what a run depended on, and that another world is refused.

use std::fs;

use anyhow::{Context, Result, ensure};
use mirrord_tests::compose::Project;
use mirrord_tests::lab::{Lab, MUSL, PROBE};
use mirrord_tests::mirrord::Finished;
use mirrord_tests::scene::Scene;
use serde_json::Value;
use tempfile::TempDir;

const FLAGS: [&str; 5] = ["-e", "DB=one", "-e", "TOKEN=secret", "--expose=8080"];

struct Stage<'lab> {
    scene: Scene<'lab>,
    folder: TempDir,
}

impl Stage<'_> {
    fn run(&self, option: &str, image: &str) -> Result<Finished> {
        let mirrord = self.scene.mirrord().with([option, "--no-incoming"]);
        mirrord.within(self.folder.path()).finish(image, &["exit", "0"])
    }

    fn locked(&self) -> Result<Value> {
        let text = fs::read_to_string(self.folder.path().join("mirrord.lock"))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Starts the target anew, with other flags.
    fn replace(&self, flags: &[&str], image: &str) -> Result<()> {
        let (docker, name) = (&self.scene.lab.docker, &self.scene.target.name);
        docker.run(&["rm", "-f", name])?;
        let head = ["run", "-d", "--name", name, "--network", &self.scene.inner];
        docker.run(&[&head[..], flags, &[image, "serve", "80", "new"]].concat()).map(drop)
    }
}

/// What `docker run` would have given had it run.
fn refused(done: &Finished, lines: &[&str]) -> Result<()> {
    ensure!(done.code == 125 && done.stdout.is_empty(), "{done:?}");
    for line in lines {
        ensure!(done.stderr.contains(line), "{line:?}: {done:?}");
    }
    Ok(())
}

#[test]
fn what_a_run_depends_on_is_written_down_and_held_to() -> Result<()> {
    let Some(lab) = Lab::open("mirrord.lock")? else { return Ok(()) };
    let stage = Stage { scene: Scene::open_with(&lab, &FLAGS)?, folder: TempDir::new()? };
    let target = stage.scene.target.target();
    refused(
        &stage.run("--locked", PROBE)?,
        &["cannot read mirrord.lock", "hint: the same with --lock"],
    )?;

    let done = stage.run("--lock", PROBE)?;
    ensure!(done.code == 0, "{done:?}");
    let locked = stage.locked()?;
    let entry = &locked["runs"][&target];
    assert_eq!(entry["variables"], serde_json::json!(["DB", "TOKEN"]), "{locked}");
    assert_eq!(entry["ports"], serde_json::json!(["8080/tcp"]), "{locked}");
    assert_eq!(entry["image"], PROBE);
    for key in ["image_digest", "target_image"] {
        ensure!(entry[key].as_str().is_some_and(|text| text.starts_with("sha256:")), "{locked}");
    }
    ensure!(!locked.to_string().contains("secret"), "{locked}");
    ensure!(stage.run("--locked", PROBE)?.code == 0, "nothing has changed");

    // Another value is no other world.
    let other = ["-e", "DB=two", "-e", "TOKEN=x", "--expose=8080", "--entrypoint", "/probe"];
    let probe = [&other[..], &[]].concat();
    let docker = &lab.docker;
    docker.run(&["rm", "-f", &stage.scene.target.name])?;
    let head = ["run", "-d", "--name", &stage.scene.target.name, "--network", &stage.scene.inner];
    docker.run(&[&head[..], &probe, &[PROBE, "serve", "http", "0.0.0.0:80", "new"]].concat())?;
    ensure!(stage.run("--locked", PROBE)?.code == 0, "other values");

    stage.replace(&["-e", "DB=one", "-e", "URL=x", "--expose=9090"], MUSL)?;
    let done = stage.run("--locked", PROBE)?;
    let head = format!("{target} is not as mirrord.lock has it");
    let lines = [
        "variables: -TOKEN +URL",
        "ports: -8080/tcp +9090/tcp",
        "the target's image: locked is sha256:",
    ];
    refused(&done, &[&[head.as_str()], &lines[..]].concat())?;
    refused(&stage.run("--locked", MUSL)?, &["image: locked is mirrord-apps/probe"])?;
    let left = docker.run(&[
        "ps",
        "-aq",
        "--filter",
        "label=mirrord.session",
        "--filter",
        &format!("name={}", lab.name("run")),
    ])?;
    ensure!(left.is_empty(), "{left}");
    Ok(())
}

#[test]
fn a_lock_that_is_none_is_named_with_its_line() -> Result<()> {
    let Some(lab) = Lab::open("a broken mirrord.lock")? else { return Ok(()) };
    let stage = Stage { scene: Scene::open(&lab)?, folder: TempDir::new()? };
    fs::write(stage.folder.path().join("mirrord.lock"), "{\"form\": 1,\n\"runs\": [}")?;
    for option in ["--locked", "--lock"] {
        refused(&stage.run(option, PROBE)?, &["mirrord.lock", "line 2 column"])?;
    }
    let both = stage.scene.mirrord().with(["--lock", "--locked"]).finish(PROBE, &["true"])?;
    refused(&both, &["cannot be used with"])
}

#[test]
fn services_of_compose_are_locked_each_by_its_name() -> Result<()> {
    let Some(lab) = Lab::open("mirrord.lock, compose")? else { return Ok(()) };
    let scene = Scene::open_with(&lab, &FLAGS)?;
    let file = format!(
        "services:
  one:
    image: {PROBE}
    command: sleep 60
    x-mirrord: {{target: {target}}}
  two:
    image: {MUSL}
    command: serve 80 two
    x-mirrord: {{target: {target}, no_env: true}}
",
        target = scene.target.target()
    );
    let Some(project) = Project::new(&lab, "shop", &file)? else { return Ok(()) };
    let run = |option: &str| {
        let words = [option, "docker", "compose", "up", "-d"];
        mirrord_tests::background::finish(&project.command("mirrord", &words))
    };
    let done = run("--lock")?;
    ensure!(done.code == 0, "{done:?}");
    let text = fs::read_to_string(project.path("mirrord.lock"))?;
    let runs = serde_json::from_str::<Value>(&text)?["runs"].clone();
    let (one, two) = (&runs["mirrord-one"], &runs["mirrord-two"]);
    assert_eq!((&one["image"], &two["image"]), (&PROBE.into(), &MUSL.into()), "{text}");
    assert_eq!(one["variables"], serde_json::json!(["DB", "TOKEN"]), "{text}");
    assert_eq!(two["variables"], serde_json::json!([]), "{text}");
    ensure!(run("--locked")?.code == 0);

    fs::write(project.path("mirrord.lock"), text.replace("TOKEN", "OTHER"))?;
    let done = run("--locked")?;
    ensure!(done.code != 0 && done.stderr.contains("variables: -OTHER +TOKEN"), "{done:?}");
    project.must(&["down", "-t", "1"]).context("down")?;
    project.background.until_empty()
}
