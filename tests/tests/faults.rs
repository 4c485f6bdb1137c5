//! Whatever is killed or stopped, and whenever: the target serves, nothing is left, and no byte is
//! another than was sent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mirrord_tests::dice::Dice;
use mirrord_tests::lab::{Lab, PROBE};
use mirrord_tests::leftovers::{Machine, alone};
use mirrord_tests::mirrord::Session;
use mirrord_tests::processes::{self, Process};
use mirrord_tests::scene::Scene;
use mirrord_tests::{skip, wait};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use serde_json::Value;

/// Kills in the midst of a session, and while it comes up.
const KILLS: (usize, usize) = (32, 18);
/// How soon the target's clients must be served again.
const SERVES: Duration = Duration::from_secs(1);
/// How soon what was left must be gone.
const NOTICED: Duration = Duration::from_secs(10);
const STOPPED: Duration = Duration::from_secs(10);
const BYTES: u64 = 200_000_000;

#[derive(Debug, Clone, Copy)]
enum Victim {
    Command,
    Everything,
    Worker,
    Sidecar,
    Agent,
    App,
    Shim(&'static str),
}

const VICTIMS: [Victim; 9] = [
    Victim::Command,
    Victim::Everything,
    Victim::Worker,
    Victim::Sidecar,
    Victim::Agent,
    Victim::App,
    Victim::Shim("app"),
    Victim::Shim("proxy"),
    Victim::Shim("agent"),
];

impl Victim {
    /// Who that is now; nobody if it is not there yet.
    fn find(self, lab: &Lab, session: &Session<'_>) -> Vec<Process> {
        let container = |role: &str| match role {
            "app" => lab.docker.inspect(&session.name, "{{.Id}}").ok(),
            role => session.part(role).ok(),
        };
        let inside = |role: &str| container(role).map(|id| processes::of_container(&id));
        let first =
            |role: &str| inside(role).into_iter().flatten().find(|process| process.own_pid == 1);
        let command = i32::try_from(session.child.id()).unwrap_or(-1);
        let family = processes::family(command);
        let found = match self {
            Self::Command => family.into_iter().find(|process| process.pid == command),
            Self::Everything => return family,
            Self::Worker => session.process("proxy").ok(),
            Self::Sidecar => first("proxy"),
            Self::Agent => session.process("agent").ok(),
            Self::App => first("app"),
            Self::Shim(role) => first(role).and_then(|first| {
                processes::all().into_iter().find(|process| process.pid == first.parent)
            }),
        };
        found.into_iter().collect()
    }
}

fn lab(test: &str) -> Result<Option<Lab>> {
    if !geteuid().is_root() {
        skip::missing(test, "root")?;
        return Ok(None);
    }
    Lab::open(test)
}

/// Whether somebody answers a client of the target's port 80.
fn is_served(address: &str) -> Result<()> {
    let (address, patience): (SocketAddr, _) = (address.parse()?, Duration::from_millis(400));
    let mut client = TcpStream::connect_timeout(&address, patience)?;
    client.set_read_timeout(Some(patience))?;
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    ensure!(client.read(&mut [0; 64])? > 0, "an empty answer");
    Ok(())
}

/// Kills, and sees to it that the target's clients have an answer soon.
fn strike(scene: &Scene<'_>, victim: Victim, session: &Session<'_>) -> Result<()> {
    let processes = victim.find(scene.lab, session);
    for process in &processes {
        // It may have ended by itself.
        let _ = process.signal(Signal::SIGKILL);
    }
    let (struck, at) = (Instant::now(), scene.at(80));
    loop {
        match is_served(&at) {
            Ok(()) if struck.elapsed() <= SERVES => return Ok(()),
            Ok(()) => bail!("the target was served after {:?}", struck.elapsed()),
            Err(error) if struck.elapsed() > NOTICED => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// What a transfer may say: all of it as it was, or that it broke.
fn is_honest(told: &Result<Value>) -> Result<()> {
    match told {
        Ok(told) if told["ok"] == true => {
            ensure!(told["intact"] == true, "another byte than was sent: {told}");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Waits for the end of a session whose part was killed, and looks for what it left.
fn nothing_left(scene: &Scene<'_>, session: &mut Session<'_>, before: &Machine) -> Result<()> {
    session.end()?;
    // The app's container is the user's, and may have nobody left to remove it.
    let _ = scene.lab.docker.run(&["rm", "-f", &session.name]);
    before.as_before(NOTICED)
}

fn kill_under_load(scene: &Scene<'_>, victim: Victim, dice: &mut Dice) -> Result<()> {
    let before = Machine::now(&scene.lab.docker)?;
    let mut session = scene.mirrord().with(["--steal"]).probe("app")?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    session.app().must("serve tcp 0.0.0.0:7000 local")?;
    scene.until_whoami("local", 7000)?;
    let out = session.app().send(&format!("upload client:7000 {BYTES}"))?;
    let into = scene.client().send(&format!("download {} {BYTES}", scene.at(7000)))?;
    std::thread::sleep(Duration::from_millis(dice.below(300)));
    strike(scene, victim, &session).with_context(|| session.stderr())?;
    is_honest(&scene.client().answer(&into))?;
    if session.child.try_wait()?.is_none() && !matches!(victim, Victim::App | Victim::Shim("app")) {
        is_honest(&session.app().answer(&out))?;
    }
    nothing_left(scene, &mut session, &before).with_context(|| session.stderr())
}

fn kill_early(scene: &Scene<'_>, victim: Victim, dice: &mut Dice) -> Result<()> {
    let before = Machine::now(&scene.lab.docker)?;
    let mut session =
        scene.mirrord().with(["--steal"]).docker(["-i"]).start("app", PROBE, &["shell"])?;
    std::thread::sleep(Duration::from_millis(dice.below(900)));
    strike(scene, victim, &session).with_context(|| session.stderr())?;
    session.end()?;
    if matches!(victim, Victim::Everything) {
        remove_unstarted(scene.lab)?;
    }
    nothing_left(scene, &mut session, &before).with_context(|| session.stderr())
}

/// What was created and never started has nobody left to remove it: that is for the next run, or
/// `mirrord doctor`, once it is old enough to belong to nobody.
fn remove_unstarted(lab: &Lab) -> Result<()> {
    std::thread::sleep(SERVES);
    let filters = ["--filter", "status=created", "--filter", "label=mirrord.role"];
    for id in lab.docker.run(&[&["ps", "-aq"], &filters[..]].concat())?.lines() {
        lab.docker.run(&["rm", "-f", "-v", id])?;
    }
    Ok(())
}

#[test]
fn fifty_kills_at_random_moments() -> Result<()> {
    let _alone = alone();
    let Some(lab) = lab("fifty kills")? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    scene.target.probe().must("serve tcp 0.0.0.0:7000 original")?;
    let mut dice = Dice::of_now();
    let seed = dice.seed();
    let turns = (0..KILLS.0).map(|turn| (turn, true)).chain((0..KILLS.1).map(|turn| (turn, false)));
    for (turn, under_load) in turns {
        let victim = VICTIMS[turn % VICTIMS.len()];
        let struck = match under_load {
            true => kill_under_load(&scene, victim, &mut dice),
            false => kill_early(&scene, victim, &mut dice),
        };
        struck
            .with_context(|| format!("{victim:?}, turn {turn}, load {under_load}, seed {seed}"))?;
        let healthy =
            || scene.answers(80).map(|answer| (answer["name"] == "original").then_some(()));
        wait::within(NOTICED, "the original", healthy)?;
    }
    Ok(())
}

#[test]
fn whoever_is_stopped_for_ten_seconds_goes_on() -> Result<()> {
    let _alone = alone();
    let Some(first) = lab("SIGSTOP")? else { return Ok(()) };
    let before = Machine::now(&first.docker)?;
    std::thread::scope(|scope| {
        let victims = [Victim::Command, Victim::Worker, Victim::Agent, Victim::App];
        let running = victims.map(|victim| (victim, scope.spawn(move || stop(victim))));
        for (victim, running) in running {
            let stopped = running.join().unwrap_or_else(|_| bail!("it panicked"));
            stopped.with_context(|| format!("{victim:?}"))?;
        }
        anyhow::Ok(())
    })?;
    before.as_before(NOTICED)
}

/// Stops a part in the midst of transfers, which must then go on to their end.
fn stop(victim: Victim) -> Result<()> {
    let Some(lab) = lab("SIGSTOP")? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    let mut session = scene.mirrord().with(["--steal"]).probe("app")?;
    session.app().must("serve tcp 0.0.0.0:7000 local")?;
    scene.until_whoami("local", 7000)?;
    // Not by name: who asks for one gives up within ten seconds.
    let client = scene.client.address()?;
    let out = session.app().send(&format!("upload {client}:7000 {}", 10 * BYTES))?;
    let into = scene.client().send(&format!("upload {} {}", scene.at(7000), 10 * BYTES))?;
    let parts = victim.find(&lab, &session);
    ensure!(!parts.is_empty(), "nobody is there to be stopped");
    for signal in [Signal::SIGSTOP, Signal::SIGCONT] {
        parts.iter().try_for_each(|part| part.signal(signal))?;
        std::thread::sleep(if signal == Signal::SIGSTOP { STOPPED } else { Duration::ZERO });
    }
    for told in [session.app().answer(&out), scene.client().answer(&into)] {
        let told = told.with_context(|| session.stderr())?;
        ensure!(told["bytes"] == 10 * BYTES && told["intact"] == true, "{told}");
    }
    scene.until_whoami("local", 7000)?;
    assert_eq!(session.end()?, 0, "{}", session.stderr());
    Ok(())
}

#[test]
fn a_sidecar_without_memory_leaves_a_target_that_serves() -> Result<()> {
    let _alone = alone();
    let Some(lab) = lab("a sidecar without memory")? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    let before = Machine::now(&lab.docker)?;
    let mut session = scene.mirrord().with(["--steal"]).probe("app")?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    scene.until_answered_by("local", 80)?;
    let limit = ["update", "--memory", "6m", "--memory-swap", "6m"];
    let sidecar = session.part("proxy")?;
    let limited = lab.docker.run(&[&limit[..], &[&sidecar]].concat());
    if limited.is_ok() {
        let _ = session.app().send("many client:7000 3000")?;
        std::thread::sleep(SERVES);
    }
    is_served(&scene.at(80)).with_context(|| format!("{limited:?} {}", session.stderr()))?;
    nothing_left(&scene, &mut session, &before).with_context(|| session.stderr())
}
