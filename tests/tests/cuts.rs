//! The tunnel's pipe breaks, and the app's connections go on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mirrord_tests::lab::Lab;
use mirrord_tests::leftovers::{Machine, alone};
use mirrord_tests::mirrord::Session;
use mirrord_tests::processes::{self, Process};
use mirrord_tests::scene::Scene;
use mirrord_tests::{cut, skip, wait};
use nix::unistd::geteuid;
use rustix::net::{SocketAddrAny, SocketAddrUnix};

const CUTS: usize = 100;
const GIGABYTE: u64 = 1_000_000_000;
/// The pipe lives so long.
const BETWEEN: Duration = Duration::from_millis(30);
const PATIENCE: Duration = Duration::from_secs(20);

/// The agent beside the scene's target.
fn agent(scene: &Scene<'_>) -> Result<Process> {
    let docker = &scene.lab.docker;
    let target = docker.inspect(&scene.target.name, "{{.Id}}")?;
    let running = docker.run(&["ps", "-q", "--no-trunc", "--filter", "name=mirrord-agent-"])?;
    let beside = |id: &&str| {
        let network = docker.inspect(id, "{{.HostConfig.NetworkMode}}");
        network.is_ok_and(|network| network.contains(&target))
    };
    let id = running.lines().find(beside).context("an agent beside the target")?;
    processes::worker(id, "agent")
}

/// Breaks the pipe of a tunnel; whether there was one.
fn cut(agent: &Process) -> Result<bool> {
    let is_pipe = |address: &SocketAddrAny| {
        let path = SocketAddrUnix::try_from(address.clone()).ok();
        let path = path.and_then(|address| Some(address.path()?.to_string_lossy().into_owned()));
        path.is_some_and(|path| path.contains("agent.sock"))
    };
    Ok(cut::connections(agent, is_pipe)? > 0)
}

fn root(test: &str) -> Result<bool> {
    if !geteuid().is_root() {
        skip::missing(test, "root")?;
    }
    Ok(geteuid().is_root())
}

/// In how many lines the user was told that the tunnel is `word`.
fn lines(session: &Session<'_>, word: &str) -> usize {
    let line = format!("the tunnel to the target is {word}");
    session.stderr().lines().filter(|said| said.contains(&line)).count()
}

/// Breaks the pipe again and again while bytes go both ways, which must arrive as they were.
fn bear(session: &Session<'_>, agent: &Process) -> Result<()> {
    let mut cuts = 0;
    while cuts < CUTS {
        let under_way = [
            (session.app(), session.app().send(&format!("upload client:7000 {GIGABYTE}"))?),
            (session.app(), session.app().send(&format!("download client:7000 {GIGABYTE}"))?),
        ];
        let end = Instant::now() + Duration::from_secs(4);
        while cuts < CUTS && Instant::now() < end {
            std::thread::sleep(BETWEEN);
            if lines(session, "back") == cuts && cut(agent)? {
                cuts += 1;
            }
        }
        for (who, id) in under_way {
            let told = who.answer(&id).with_context(|| session.stderr())?;
            assert_eq!((&told["bytes"], &told["intact"]), (&GIGABYTE.into(), &true.into()));
        }
    }
    for word in ["cut", "back"] {
        let told = || Ok((lines(session, word) == CUTS).then_some(()));
        wait::within(PATIENCE, "a line for each", told)
            .with_context(|| format!("{} lines of {word:?}", lines(session, word)))?;
    }
    Ok(())
}

type Start = for<'lab> fn(&Scene<'lab>) -> Result<Session<'lab>>;

fn outlive(test: &str, start: Start) -> Result<()> {
    let _alone = alone();
    if !root(test)? {
        return Ok(());
    }
    let Some(lab) = Lab::open(test)? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    let before = Machine::now(&lab.docker)?;
    let mut session = start(&scene)?;
    session.app().must("serve tcp 0.0.0.0:7000 local")?;
    scene.until_whoami("local", 7000)?;
    bear(&session, &agent(&scene)?)?;
    scene.until_whoami("local", 7000)?;
    assert_eq!(session.end()?, 0);
    before.as_before(PATIENCE)
}

#[test]
fn a_container_outlives_a_hundred_cuts_during_a_gigabyte_each_way() -> Result<()> {
    outlive("a hundred cuts", |scene| scene.mirrord().with(["--steal"]).probe("app"))
}

/// Here every byte goes through the tunnel.
#[test]
fn a_program_outlives_a_hundred_cuts_during_a_gigabyte_each_way() -> Result<()> {
    outlive("a hundred cuts of a program's tunnel", |scene| scene.exec().with(["--steal"]).probe())
}
