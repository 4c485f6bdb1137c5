//! Unix sockets of the target: the same words, the same errors as in its container.

use std::fs;

use anyhow::{Result, ensure};
use mirrord_tests::lab::{Container, DEBIAN, Lab};
use mirrord_tests::mirrord::Finished;
use mirrord_tests::toolbox::{self, PYTHON, source};
use mirrord_tests::{exec::Exec, mirrord::Mirrord, wait};
use tempfile::TempDir;

const SERVER: &str = include_str!("../../apps/layer/unix_server.py");
const CLIENT: &str = include_str!("../../apps/layer/unix_client.py");
const PATTERNS: &str = r#"["^/run/.*", "^@lab-"]"#;

struct Target<'lab> {
    container: Container<'lab>,
    folder: TempDir,
}

impl<'lab> Target<'lab> {
    fn open(lab: &'lab Lab) -> Result<Self> {
        let words = ["python3", "-c", SERVER];
        let recipe = lab.container("target").on(&lab.network("inner")?);
        let container = recipe.start(DEBIAN, &words)?;
        let listens = || Ok(container.logs()?.contains("ready"));
        wait::until_true("the target's sockets", listens)?;
        Ok(Self { container, folder: TempDir::new()? })
    }

    /// A configuration file with these patterns.
    fn unix_streams(&self, patterns: &str) -> Result<[String; 2]> {
        let path = self.folder.path().join("mirrord.json");
        let outgoing = format!(r#"{{"unix_streams": {patterns}}}"#);
        fs::write(&path, format!(r#"{{"feature": {{"network": {{"outgoing": {outgoing}}}}}}}"#))?;
        Ok(["-f".to_owned(), path.to_string_lossy().into_owned()])
    }
}

/// The oracle: the same program inside the target's container.
fn at_the_target(target: &Target<'_>) -> Result<String> {
    target.container.exec(&["python3", "-c", CLIENT])
}

fn same(target: &Target<'_>, done: &Finished) -> Result<()> {
    let there = at_the_target(target)?;
    ensure!(there.matches("echo True").count() == 9, "the oracle itself: {there}");
    for (here, there) in done.stdout.lines().zip(there.lines()) {
        assert_eq!(here, there, "{}", done.stderr);
    }
    assert_eq!(done.stdout.trim(), there.trim(), "{}", done.stderr);
    Ok(())
}

#[test]
fn a_process_gets_to_the_targets_unix_sockets() -> Result<()> {
    let test = "unix sockets of a process";
    let Some(lab) = Lab::open(test)? else {
        return Ok(());
    };
    if !toolbox::all(test, &[PYTHON])? {
        return Ok(());
    }
    let target = Target::open(&lab)?;
    let exec = Exec::new(&lab, &target.container.target()).with(target.unix_streams(PATTERNS)?);
    let done = exec.with(["--no-incoming"]).finish(&[PYTHON, &source("unix_client.py")])?;
    same(&target, &done)
}

fn a_container(test: &str, options: &[&str]) -> Result<()> {
    let Some(lab) = Lab::open(test)? else {
        return Ok(());
    };
    let target = Target::open(&lab)?;
    let run = Mirrord::new(&lab, &target.container.target()).with(target.unix_streams(PATTERNS)?);
    let run = run.with(options.to_vec()).with(["--no-incoming"]);
    let done = run.finish(DEBIAN, &["python3", "-c", CLIENT])?;
    same(&target, &done)
}

#[test]
fn a_container_gets_to_the_targets_unix_sockets_while_the_kernel_does_the_rest() -> Result<()> {
    a_container("unix sockets, --plane netns", &["--plane", "netns"])
}

#[test]
fn a_container_of_the_layer_plane_gets_to_the_targets_unix_sockets() -> Result<()> {
    a_container("unix sockets, --plane layer", &["--plane", "layer"])
}
