//! A tunnel over a link that is slow, and loses and reorders packets, and engines that fail under a
//! session.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mirrord_tests::lab::Lab;
use mirrord_tests::remote_engine::RemoteEngine;
use mirrord_tests::scene::Scene;
use mirrord_tests::{toolbox, wait};

const MEGABYTES: u64 = 20_000_000;
const SOON: Duration = Duration::from_secs(15);

/// What a session has in an engine, by name.
fn of_sessions(lab: &Lab) -> Result<String> {
    let label = ["--filter", "label=mirrord.session"];
    let named = ["ps", "-a", "--format", "{{.Names}} {{.Status}}"];
    let containers = lab.docker.run(&[&named[..], &label[..]].concat())?;
    let volumes = lab.docker.run(&[&["volume", "ls", "-q"], &label[..]].concat())?;
    Ok(format!("{containers}{volumes}"))
}

fn nothing_left(lab: &Lab) -> Result<()> {
    let mut left = String::new();
    let gone = wait::within(SOON, "nothing of a session to be left", || {
        left = of_sessions(lab)?;
        Ok(left.trim().is_empty().then_some(()))
    });
    gone.with_context(|| left)
}

#[test]
fn bytes_arrive_as_they_were_over_a_link_that_is_slow_and_loses_packets() -> Result<()> {
    let test = "a rough link";
    if !toolbox::all(test, &["probe", "python3"])? {
        return Ok(());
    }
    let Some(engine) = RemoteEngine::rough(test)? else { return Ok(()) };
    let Some(lab) = Lab::open_at(test, engine.docker())? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    let mut session = scene.exec().with(["--steal"]).probe()?;
    session.app().must("serve tcp 0.0.0.0:7000 local")?;
    scene.until_whoami("local", 7000)?;
    let under_way = [
        (session.app(), session.app().send(&format!("upload client:7000 {MEGABYTES}"))?),
        (session.app(), session.app().send(&format!("download client:7000 {MEGABYTES}"))?),
        (scene.client(), scene.client().send(&format!("upload {} {MEGABYTES}", scene.at(7000)))?),
    ];
    for (who, id) in under_way {
        let told = who.answer(&id).with_context(|| session.stderr())?;
        ensure!(told["bytes"] == MEGABYTES && told["intact"] == true, "{told}");
    }
    let told = session.app().must("many client:7000 200")?;
    assert_eq!(told["intact"], 200, "{told}");
    assert_eq!(session.end()?, 0, "{}", session.stderr());
    nothing_left(&lab)
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing_and_a_session_goes_on() -> Result<()> {
    let test = "a full disk";
    let Some(engine) = RemoteEngine::small(test, "400m")? else { return Ok(()) };
    let Some(lab) = Lab::open_at(test, engine.docker())? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    let mut session = scene.mirrord().with(["--steal"]).probe("app")?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    scene.until_answered_by("local", 80)?;
    let filler = engine.disk()?.join("filler");
    let full = fill(&filler)?;
    assert_eq!(full, Some(nix::libc::ENOSPC));
    session.app().must("ask client:7000 whoami").with_context(|| session.stderr())?;
    scene.until_answered_by("local", 80)?;
    let failed = scene.mirrord().finish(mirrord_tests::lab::PROBE, &["true"])?;
    ensure!(failed.code == 125 && failed.stderr.contains("no space left"), "{failed:?}");
    session.end()?;
    fs::remove_file(&filler)?;
    nothing_left(&lab)?;
    assert_eq!(scene.answers(80)?["name"], "original");
    Ok(())
}

/// Writes until nothing more fits; with which error that ended.
fn fill(file: &std::path::Path) -> Result<Option<i32>> {
    let mut file = fs::File::create(file)?;
    let block = vec![7; 1 << 20];
    loop {
        if let Err(error) = std::io::Write::write_all(&mut file, &block) {
            return Ok(error.raw_os_error());
        }
    }
}

#[test]
fn an_engine_that_is_killed_and_keeps_its_containers_leaves_nothing_of_a_session() -> Result<()> {
    let test = "an engine that is killed";
    let Some(engine) = RemoteEngine::bare(test, &["--live-restore"])? else { return Ok(()) };
    let Some(lab) = Lab::open_at(test, engine.docker())? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    let mut session = scene.mirrord().with(["--steal"]).probe("app")?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    scene.until_answered_by("local", 80)?;
    engine.restart()?;
    let code = session.wait()?;
    ensure!(code != 0, "the app's end is not known: {}", session.stderr());
    let _ = lab.docker.run(&["rm", "-f", &session.name]);
    nothing_left(&lab).with_context(|| session.stderr())?;
    let running = lab.docker.run(&["ps", "-q", "--filter", &format!("name={}", scene.target.name)]);
    ensure!(!running?.is_empty(), "the target runs on");
    Ok(())
}
