//! How an app's run comes back: exit codes, signals, streams, terminals.

use std::io::Write;

use anyhow::Result;
use mirrord_tests::lab::{DEBIAN, Lab, PROBE};
use mirrord_tests::scene::Scene;
use mirrord_tests::terminal::Terminal;
use nix::sys::signal::Signal;

#[test]
fn the_exit_code_is_the_apps() -> Result<()> {
    let Some(lab) = Lab::open("exit codes")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    for (words, code) in [(["exit", "0"], 0), (["exit", "3"], 3), (["exit", "42"], 42)] {
        let done = scene.mirrord().finish(PROBE, &words)?;
        assert_eq!(done.code, code, "{done:?}");
    }
    Ok(())
}

#[test]
fn dockers_own_exit_codes_come_back() -> Result<()> {
    let Some(lab) = Lab::open("docker's exit codes")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let not_a_program = scene.mirrord().finish(DEBIAN, &["/etc/passwd"])?;
    assert_eq!(not_a_program.code, 126, "{not_a_program:?}");
    let nothing = scene.mirrord().finish(DEBIAN, &["/no/such/program"])?;
    assert_eq!(nothing.code, 127, "{nothing:?}");
    let no_image = scene.mirrord().docker(["--pull", "never"]).finish("mirrord-apps/none", &[])?;
    assert_eq!(no_image.code, 125, "{no_image:?}");
    Ok(())
}

#[test]
fn an_app_that_is_killed_ends_with_137() -> Result<()> {
    let Some(lab) = Lab::open("a killed app")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let mut session = scene.mirrord().probe("app")?;
    lab.docker.run(&["kill", "-s", "KILL", &session.name])?;
    assert_eq!(session.wait()?, 137);
    Ok(())
}

#[test]
fn a_signal_to_mirrord_reaches_the_app_once() -> Result<()> {
    let Some(lab) = Lab::open("signals")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130), (Signal::SIGHUP, 129)] {
        let mut session = scene.mirrord().probe(signal.as_str())?;
        session.signal(signal)?;
        assert_eq!(session.wait()?, code, "{signal}: {}", session.stderr());
        let told = session.app().events("signal");
        assert_eq!(told.len(), 1, "{signal}: {told:?}");
    }
    Ok(())
}

#[test]
fn standard_input_is_the_apps_and_standard_output_is_only_the_apps() -> Result<()> {
    let Some(lab) = Lab::open("pipes")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let text = "one\ntwo, without an end of line".repeat(20_000);
    let mut session = scene.mirrord().docker(["-i"]).start("app", DEBIAN, &["cat"])?;
    let mut stdin = session.child.stdin.take().ok_or_else(|| anyhow::anyhow!("no pipe"))?;
    let input = text.clone();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let done = session.finish()?;
    writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stdout == text, "{} of {} bytes came back", done.stdout.len(), text.len());
    Ok(())
}

#[test]
fn the_apps_standard_error_stays_apart() -> Result<()> {
    let Some(lab) = Lab::open("standard error")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let done =
        scene.mirrord().with(["-q"]).finish(DEBIAN, &["sh", "-c", "echo out; echo err >&2"])?;
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("out\n", "err\n"));
    Ok(())
}

#[test]
fn a_terminal_is_one_for_the_app() -> Result<()> {
    let Some(lab) = Lab::open("a terminal")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let name = lab.name("app");
    lab.adopt(&name);
    let command = scene.mirrord().docker(["-it"]).command(&name, DEBIAN, &["bash", "--norc"]);
    let mut terminal = Terminal::start(&command)?;
    terminal.until("# ")?;
    terminal.type_in("tty; stty size; echo end-$((6*7))\n")?;
    terminal.until("end-42")?;
    let screen = terminal.screen();
    assert!(screen.contains("/dev/pts/") && screen.contains("24 80"), "{screen}");
    terminal.type_in("exit 5\n")?;
    assert_eq!(terminal.end()?, 5);
    Ok(())
}

#[test]
fn the_app_starts_only_when_names_and_traffic_are_ready() -> Result<()> {
    let Some(lab) = Lab::open("the start gate")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    for _ in 0..5 {
        let done = scene.mirrord().finish(PROBE, &["ask", "client:7000", "whoami"])?;
        assert_eq!(done.code, 0, "the very first thing the app does: {done:?}");
    }
    Ok(())
}

#[test]
fn what_is_written_last_is_not_lost() -> Result<()> {
    let Some(lab) = Lab::open("the last line")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let done = scene.mirrord().finish(DEBIAN, &["sh", "-c", "seq 1 20000; echo last"])?;
    assert!(done.stdout.ends_with("20000\nlast\n"), "{}", done.stdout.len());
    Ok(())
}
