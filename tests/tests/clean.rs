//! After any end of a session nothing is left: not in the engine, not in the kernel.

use std::time::Duration;

use anyhow::Result;
use mirrord_tests::lab::{Lab, PROBE};
use mirrord_tests::leftovers::{Machine, alone};
use mirrord_tests::scene::Scene;
use mirrord_tests::terminal::Terminal;
use mirrord_tests::wait;
use nix::sys::signal::Signal;

/// How long the engine may take to forget what a session removed.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn nothing_is_left_after_any_end() -> Result<()> {
    let _alone = alone();
    let Some(lab) = Lab::open("what is left")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let before = Machine::now(&lab.docker)?;
    for options in [["--steal"], ["--mirror"], ["--no-incoming"]] {
        assert_eq!(scene.mirrord().with(options).finish(PROBE, &["exit", "3"])?.code, 3);
        before.as_before(SOON)?;
    }
    let mut session = scene.mirrord().with(["--steal"]).probe("served")?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    scene.until_answered_by("local", 80)?;
    session.signal(Signal::SIGTERM)?;
    assert_eq!(session.wait()?, 143);
    before.as_before(SOON)?;
    assert_eq!(scene.answers(80)?["name"], "original");
    Ok(())
}

#[test]
fn ctrl_c_ends_the_app_and_leaves_nothing() -> Result<()> {
    let _alone = alone();
    let Some(lab) = Lab::open("Ctrl-C")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let before = Machine::now(&lab.docker)?;
    let name = lab.name("app");
    lab.adopt(&name);
    let command = scene.mirrord().command(&name, PROBE, &["wait"]);
    let mut terminal = Terminal::start(&command)?;
    terminal.until("\"waiting\"")?;
    terminal.type_in("\x03")?;
    assert_eq!(terminal.end()?, 130);
    before.as_before(SOON)
}

#[test]
fn a_signal_before_the_app_runs_starts_nothing_and_leaves_nothing() -> Result<()> {
    let _alone = alone();
    let Some(lab) = Lab::open("an early signal")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    for pause in [5, 40, 80, 120, 160, 200, 300, 400] {
        let before = Machine::now(&lab.docker)?;
        let mut session = scene.mirrord().start("app", PROBE, &["wait"])?;
        // No condition can be waited for here: any moment of the start must do.
        std::thread::sleep(Duration::from_millis(pause));
        session.signal(Signal::SIGTERM)?;
        let code = session.wait()?;
        assert_eq!(code, 143, "after {pause} ms: {}", session.stderr());
        before.as_before(SOON)?;
    }
    Ok(())
}

#[test]
fn the_targets_end_is_told_and_ends_the_session() -> Result<()> {
    let _alone = alone();
    let Some(lab) = Lab::open("the target's end")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let before = Machine::now(&lab.docker)?;
    let mut session = scene.mirrord().with(["--steal"]).probe("app")?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    scene.until_answered_by("local", 80)?;
    lab.docker.run(&["kill", &scene.target.name])?;
    wait::until_true("a word about the target", || {
        Ok(session.stderr().contains(&scene.target.name) && session.stderr().contains("stopped"))
    })?;
    session.wait()?;
    before.as_before(SOON)
}
