//! `kill -9` of any part: the target serves on, and nothing is left.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mirrord_tests::lab::Lab;
use mirrord_tests::leftovers::{Machine, alone};
use mirrord_tests::mirrord::Session;
use mirrord_tests::processes;
use mirrord_tests::scene::Scene;
use mirrord_tests::{skip, wait};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;

/// Sidecar and agent notice within five seconds; the engine then needs a moment to remove them.
const NOTICED: Duration = Duration::from_secs(8);

/// A session that steals the target's port 80.
fn stealing<'lab>(scene: &Scene<'lab>) -> Result<Session<'lab>> {
    let session = scene.mirrord().with(["--steal"]).probe("app")?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    scene.until_answered_by("local", 80)?;
    Ok(session)
}

/// Killing what runs in a container takes root here.
fn root(test: &str) -> Result<bool> {
    if !geteuid().is_root() {
        skip::missing(test, "root")?;
    }
    Ok(geteuid().is_root())
}

#[test]
fn the_command_is_killed() -> Result<()> {
    let _alone = alone();
    let Some(lab) = Lab::open("kill -9 of the command")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let before = Machine::now(&lab.docker)?;
    for _ in 0..3 {
        let mut session = stealing(&scene)?;
        session.signal(Signal::SIGKILL)?;
        session.wait()?;
        before.as_before(NOTICED)?;
        assert_eq!(scene.answers(80)?["name"], "original");
    }
    Ok(())
}

#[test]
fn everything_of_ours_on_the_host_is_killed_at_once() -> Result<()> {
    let _alone = alone();
    if !root("kill -9 of the command and its keeper")? {
        return Ok(());
    }
    let Some(lab) = Lab::open("kill -9 of the command and its keeper")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let before = Machine::now(&lab.docker)?;
    let mut session = stealing(&scene)?;
    let parts = ["proxy", "agent"].map(|role| session.part(role));
    let family = processes::family(i32::try_from(session.child.id())?);
    ensure!(family.len() > 1, "the command has a keeper: {family:?}");
    for process in family {
        process.signal(Signal::SIGKILL)?;
    }
    session.wait()?;
    // The app's container is the user's: nobody is left to stop it, but ours leave by themselves.
    for part in parts {
        let part = part?;
        wait::within(NOTICED, "sidecar and agent to leave", || {
            Ok(lab.docker.inspect(&part, "{{.Id}}").is_err().then_some(()))
        })?;
    }
    assert_eq!(scene.answers(80)?["name"], "original");
    lab.docker.run(&["rm", "-f", &session.name])?;
    before.as_before(NOTICED)
}

#[test]
fn the_proxy_is_killed_and_started_again_in_the_same_place() -> Result<()> {
    let _alone = alone();
    if !root("kill -9 of the proxy")? {
        return Ok(());
    }
    let Some(lab) = Lab::open("kill -9 of the proxy")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    let before = Machine::now(&lab.docker)?;
    let mut session = stealing(&scene)?;
    let proxy = session.process("proxy")?;
    ensure!(proxy.own_pid != 1, "an init above the proxy starts it again");
    proxy.signal(Signal::SIGKILL)?;
    wait::within(NOTICED, "the steal to go on", || {
        Ok((!proxy.lives() && scene.answers(80)?["name"] == "local").then_some(()))
    })
    .with_context(|| session.stderr())?;
    session.app().must("ask client:7000 whoami")?;
    assert_eq!(session.end()?, 0);
    before.as_before(NOTICED)
}

#[test]
fn the_sidecar_is_killed() -> Result<()> {
    let _alone = alone();
    let Some(lab) = Lab::open("kill of the sidecar")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let before = Machine::now(&lab.docker)?;
    let mut session = stealing(&scene)?;
    lab.docker.run(&["kill", &session.part("proxy")?])?;
    assert_ne!(session.wait()?, 0, "{}", session.stderr());
    before.as_before(NOTICED)?;
    assert_eq!(scene.answers(80)?["name"], "original");
    Ok(())
}

#[test]
fn while_the_agent_is_killed_the_target_answers_the_next_connection() -> Result<()> {
    let _alone = alone();
    if !root("kill -9 of the agent")? {
        return Ok(());
    }
    let Some(lab) = Lab::open("kill -9 of the agent")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let before = Machine::now(&lab.docker)?;
    let mut session = stealing(&scene)?;
    let agent = session.process("agent")?;
    agent.signal(Signal::SIGKILL)?;
    wait::until_true("the agent's end", || Ok(!agent.lives()))?;
    assert_eq!(scene.answers(80)?["name"], "original", "the very next connection");
    let start = Instant::now();
    scene.until_answered_by("local", 80).with_context(|| session.stderr())?;
    assert!(start.elapsed() < NOTICED, "a new agent took {:?}", start.elapsed());
    assert!(session.stderr().contains("agent"), "it is told: {}", session.stderr());
    assert_eq!(session.end()?, 0);
    before.as_before(NOTICED)
}

#[test]
fn an_agent_that_is_killed_while_mirroring_disturbs_nobody() -> Result<()> {
    let _alone = alone();
    if !root("kill -9 of a mirroring agent")? {
        return Ok(());
    }
    let Some(lab) = Lab::open("kill -9 of a mirroring agent")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let before = Machine::now(&lab.docker)?;
    let mut session = scene.mirrord().probe("app")?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    session.process("agent")?.signal(Signal::SIGKILL)?;
    for _ in 0..50 {
        assert_eq!(scene.answers(80)?["name"], "original");
    }
    assert_eq!(session.end()?, 0);
    before.as_before(NOTICED)
}

#[test]
fn a_killed_target_leaves_nothing_of_ours() -> Result<()> {
    let _alone = alone();
    let Some(lab) = Lab::open("docker rm -f of the target")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let mut session = stealing(&scene)?;
    let ours = format!("label=mirrord.session={}", session.id()?);
    lab.docker.run(&["rm", "-f", &scene.target.name])?;
    session.wait()?;
    assert!(session.stderr().contains("stopped, and was removed"), "{}", session.stderr());
    wait::within(NOTICED, "everything of ours to be gone", || {
        Ok(lab.docker.run(&["ps", "-a", "--filter", &ours, "-q"])?.is_empty().then_some(()))
    })
}
