//! The tunnel's pipe breaks, and the app's connections go on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mirrord_tests::lab::Lab;
use mirrord_tests::leftovers::{Machine, alone};
use mirrord_tests::mirrord::Session;
use mirrord_tests::scene::Scene;
use mirrord_tests::{cut, skip, wait};
use nix::unistd::geteuid;
use rustix::net::{SocketAddrAny, SocketAddrUnix};

const CUTS: usize = 100;
const GIGABYTE: u64 = 1_000_000_000;
/// The pipe lives so long.
const BETWEEN: Duration = Duration::from_millis(30);
const PATIENCE: Duration = Duration::from_secs(20);

/// Breaks the pipe of the session's tunnel; whether there was one.
fn cut(session: &Session<'_>) -> Result<bool> {
    let is_pipe = |address: &SocketAddrAny| {
        let path = SocketAddrUnix::try_from(address.clone()).ok();
        let path = path.and_then(|address| Some(address.path()?.to_string_lossy().into_owned()));
        path.is_some_and(|path| path.contains("agent.sock"))
    };
    Ok(cut::connections(&session.process("agent")?, is_pipe)? > 0)
}

fn root(test: &str) -> Result<bool> {
    if !geteuid().is_root() {
        skip::missing(test, "root")?;
    }
    Ok(geteuid().is_root())
}

#[test]
fn connections_outlive_a_hundred_cuts_during_a_gigabyte_each_way() -> Result<()> {
    let _alone = alone();
    if !root("a hundred cuts")? {
        return Ok(());
    }
    let Some(lab) = Lab::open("a hundred cuts")? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    let before = Machine::now(&lab.docker)?;
    let mut session = scene.mirrord().with(["--steal"]).probe("app")?;
    session.app().must("serve tcp 0.0.0.0:7000 local")?;
    scene.until_whoami("local", 7000)?;
    let stolen = format!("hold {} one", scene.at(7000));
    scene.client().must(&stolen)?;
    let mut cuts = 0;
    while cuts < CUTS {
        let under_way = [
            (session.app(), session.app().send(&format!("upload client:7000 {GIGABYTE}"))?),
            (session.app(), session.app().send(&format!("download client:7000 {GIGABYTE}"))?),
        ];
        let end = Instant::now() + Duration::from_secs(4);
        while cuts < CUTS && Instant::now() < end {
            std::thread::sleep(BETWEEN);
            cuts += usize::from(cut(&session)?);
        }
        for (who, id) in under_way {
            let told = who.answer(&id).with_context(|| session.stderr())?;
            assert_eq!((&told["bytes"], &told["intact"]), (&GIGABYTE.into(), &true.into()));
        }
    }
    let said = session.stderr();
    let lines = |of: &str| said.lines().filter(|line| line.contains(of)).count();
    ensure!(lines("the tunnel to the target is cut") == CUTS, "{said}");
    wait::within(PATIENCE, "a word of each return", || {
        let said = session.stderr();
        let back = said.lines().filter(|line| line.contains("the tunnel to the target is back"));
        Ok((back.count() == CUTS).then_some(()))
    })?;
    assert_eq!(session.end()?, 0);
    before.as_before(PATIENCE)
}
