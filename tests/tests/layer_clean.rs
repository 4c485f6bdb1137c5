//! After any end of a session with the layer nothing is left: no process, file or container.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mirrord_tests::lab::{DEBIAN, Lab};
use mirrord_tests::leftovers::{Machine, alone};
use mirrord_tests::mirrord::Session;
use mirrord_tests::processes::{self, Process};
use mirrord_tests::scene::Scene;
use mirrord_tests::terminal::Terminal;
use mirrord_tests::toolbox::path;
use nix::sys::signal::Signal;

/// How long the engine may take to forget what a session removed, and an agent to notice.
const SOON: Duration = Duration::from_secs(10);

/// A process that steals the target's port 80.
fn stealing<'lab>(scene: &Scene<'lab>) -> Result<Session<'lab>> {
    let session = scene.exec().with(["--steal"]).probe()?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    scene.until_answered_by("local", 80)?;
    Ok(session)
}

/// The session's processes of this machine with that word, but not the app.
fn part(session: &Session<'_>, word: &str) -> Result<Process> {
    let family = processes::family(i32::try_from(session.child.id())?);
    let fits = |process: &&Process| {
        process.args.get(1).is_some_and(|arg| arg == word)
            && !process.args.contains(&"--pipe".into())
    };
    family.iter().find(fits).cloned().with_context(|| format!("no {word} among {family:?}"))
}

#[test]
fn nothing_is_left_after_any_end() -> Result<()> {
    let _alone = alone();
    let Some(lab) = Lab::open("what a process leaves")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let before = Machine::now(&lab.docker)?;
    for options in [["--steal"], ["--mirror"], ["--no-incoming"]] {
        assert_eq!(scene.exec().with(options).finish(&["sh", "-c", "exit 3"])?.code, 3);
        before.as_before(SOON)?;
    }
    let mut session = stealing(&scene)?;
    assert_eq!(session.end()?, 0);
    before.as_before(SOON)?;
    let mut session = stealing(&scene)?;
    session.signal(Signal::SIGTERM)?;
    assert_eq!(session.wait()?, 143);
    before.as_before(SOON)?;
    assert_eq!(scene.answers(80)?["name"], "original");
    Ok(())
}

#[test]
fn ctrl_c_leaves_nothing() -> Result<()> {
    let _alone = alone();
    let Some(lab) = Lab::open("Ctrl-C of a process")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let before = Machine::now(&lab.docker)?;
    let mut terminal = Terminal::start(&scene.exec().command(&[&path("probe"), "wait"]))?;
    terminal.until("\"waiting\"")?;
    terminal.type_in("\x03")?;
    assert_eq!(terminal.end()?, 130);
    before.as_before(SOON)
}

#[test]
fn an_early_signal_leaves_nothing() -> Result<()> {
    let _alone = alone();
    let Some(lab) = Lab::open("an early signal to a process")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    for pause in [5, 40, 120, 250, 400] {
        let before = Machine::now(&lab.docker)?;
        let mut session = scene.exec().start(&[&path("probe"), "wait"])?;
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
fn the_command_is_killed() -> Result<()> {
    let _alone = alone();
    let Some(lab) = Lab::open("kill -9 of exec")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let before = Machine::now(&lab.docker)?;
    let mut session = stealing(&scene)?;
    session.signal(Signal::SIGKILL)?;
    session.wait()?;
    // The app is the user's, and may outlive the command: its own end comes with its input's.
    session.end()?;
    before.as_before(SOON)?;
    assert_eq!(scene.answers(80)?["name"], "original");
    Ok(())
}

#[test]
fn the_keeper_is_killed() -> Result<()> {
    let _alone = alone();
    let Some(lab) = Lab::open("kill -9 of exec's keeper")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let before = Machine::now(&lab.docker)?;
    let mut session = stealing(&scene)?;
    part(&session, "session")?.signal(Signal::SIGKILL)?;
    assert_eq!(session.wait()?, 1, "{}", session.stderr());
    before.as_before(SOON)?;
    assert_eq!(scene.answers(80)?["name"], "original");
    Ok(())
}

#[test]
fn the_proxy_is_killed() -> Result<()> {
    let _alone = alone();
    let Some(lab) = Lab::open("kill -9 of exec's proxy")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let before = Machine::now(&lab.docker)?;
    let mut session = stealing(&scene)?;
    part(&session, "proxy")?.signal(Signal::SIGKILL)?;
    assert_eq!(session.wait()?, 1, "{}", session.stderr());
    before.as_before(SOON)?;
    assert_eq!(scene.answers(80)?["name"], "original");
    Ok(())
}

#[test]
fn everything_of_ours_on_this_machine_is_killed_at_once() -> Result<()> {
    let _alone = alone();
    let Some(lab) = Lab::open("kill -9 of all of exec")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let before = Machine::now(&lab.docker)?;
    let mut session = stealing(&scene)?;
    let family = processes::family(i32::try_from(session.child.id())?);
    ensure!(family.len() > 2, "the command, its keeper and a proxy: {family:?}");
    for process in family {
        process.signal(Signal::SIGKILL)?;
    }
    session.wait()?;
    // A folder may stay, for the next run to remove.
    scene.exec().finish(&["true"])?;
    before.as_before(SOON)?;
    assert_eq!(scene.answers(80)?["name"], "original");
    Ok(())
}

#[test]
fn a_container_with_the_layer_leaves_nothing() -> Result<()> {
    let _alone = alone();
    let Some(lab) = Lab::open("what --plane layer leaves")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let before = Machine::now(&lab.docker)?;
    let run = || scene.mirrord().with(["--plane", "layer", "--steal"]);
    assert_eq!(run().finish(DEBIAN, &["sh", "-c", "exit 3"])?.code, 3);
    before.as_before(SOON)?;
    let mut session = run().docker(["--init"]).start("app", DEBIAN, &["sleep", "infinity"])?;
    session.part("proxy")?;
    session.signal(Signal::SIGKILL)?;
    session.wait()?;
    before.as_before(SOON)
}
