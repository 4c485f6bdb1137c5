//! `mirrord up NAME`: a session for a container that somebody else starts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use mirrord_tests::background::Background;
use mirrord_tests::lab::{Lab, PROBE};
use mirrord_tests::mirrord::{Finished, binary};
use mirrord_tests::scene::Scene;
use mirrord_tests::{background, wait};

/// Runs mirrord from a shell that is gone afterwards, as a script's.
fn mirrord(lab: &Lab, sessions: &Background<'_>, line: &str) -> Result<Finished> {
    let mut command = Command::new("sh");
    lab.docker.aim(&mut command);
    command.env("XDG_RUNTIME_DIR", sessions.folder()).env("KUBECONFIG", "/nowhere");
    let program = fs::canonicalize(binary())?;
    command.args(["-c", &format!("{} {line}; exit $?", program.display())]);
    background::finish(&command)
}

#[test]
fn whoever_joins_the_network_stands_in_the_targets_place_until_they_end() -> Result<()> {
    let Some(lab) = Lab::open("mirrord up")? else { return Ok(()) };
    let scene = Scene::open_with(&lab, &["-e", "WHO=far", "-e", "LINES=a\nb"])?;
    let sessions = Background::new(&lab)?;
    let (name, target) = (lab.name("place"), scene.target.target());
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("target.env");
    let line = format!(
        "-t {target} --steal up -p 127.0.0.1:28951:3000 --env-file {} {name}",
        file.display()
    );
    let done = mirrord(&lab, &sessions, &line)?;
    ensure!(done.code == 0 && done.stdout.is_empty(), "{done:?}");
    ensure!(done.stderr.contains(&format!("--network container:{name} joins it")), "{done:?}");
    ensure!(done.stderr.contains("LINES is left out: it has several lines"), "{done:?}");
    ensure!(fs::read_to_string(&file)?.lines().any(|line| line == "WHO=far"));
    assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    let first = sessions.status()?.remove(0)["session"].clone();

    let app = lab.name("app");
    lab.adopt(&app);
    let file = file.to_string_lossy();
    let network = format!("container:{name}");
    let flags = ["run", "-d", "--rm", "--name", &app, "--network", &network, "--env-file", &file];
    let serve = ["serve", "http", "0.0.0.0:80", "mine"];
    lab.docker.run(&[&flags[..], &[PROBE], &serve].concat())?;
    scene.until_answered_by("mine", 80)?;
    let env = lab.docker.run(&["inspect", "-f", "{{.Config.Env}}", &app])?;
    ensure!(env.contains("WHO=far"), "{env}");

    let again = mirrord(&lab, &sessions, &line)?;
    ensure!(again.code == 0 && !again.stderr.contains("anew"), "{again:?}");
    assert_eq!(sessions.status()?.remove(0)["session"], first, "the one that stands is kept");
    lab.docker.run(&["kill", &app])?;
    sessions.until_gone(first.as_str().unwrap_or_default())?;
    sessions.until_empty()?;
    assert_eq!(scene.answers(80)?["name"], "original");
    Ok(())
}

#[test]
fn another_one_takes_the_name_and_down_ends_it() -> Result<()> {
    let Some(lab) = Lab::open("mirrord down")? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    let sessions = Background::new(&lab)?;
    let (name, target) = (lab.name("place"), scene.target.target());
    let up = |option: &str| mirrord(&lab, &sessions, &format!("-t {target} {option} up {name}"));
    ensure!(up("--steal")?.code == 0);
    let first = sessions.status()?.remove(0)["session"].clone();
    let other = up("--mirror")?;
    ensure!(other.code == 0 && other.stderr.contains("the session begins anew"), "{other:?}");
    ensure!(sessions.status()?.remove(0)["session"] != first);
    for _ in 0..2 {
        let ended = mirrord(&lab, &sessions, &format!("down {name}"))?;
        ensure!(ended.code == 0 && ended.stderr.is_empty(), "{ended:?}");
        sessions.until_empty()?;
    }
    Ok(())
}

#[test]
fn a_session_that_nobody_joins_ends_in_its_time() -> Result<()> {
    let Some(lab) = Lab::open("mirrord up --wait")? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    let sessions = Background::new(&lab)?;
    let line = format!("-t {} up --wait 1 {}", scene.target.target(), lab.name("place"));
    ensure!(mirrord(&lab, &sessions, &line)?.code == 0);
    sessions.until_empty()
}

#[test]
fn what_cannot_stand_is_said_and_nothing_is_started() -> Result<()> {
    let Some(lab) = Lab::open("errors of mirrord up")? else { return Ok(()) };
    let scene = Scene::open(&lab)?;
    let sessions = Background::new(&lab)?;
    let (target, taken) = (scene.target.target(), scene.client.name.clone());
    for (line, code, said) in [
        (format!("-t {target} up"), 2, "NAME"),
        (format!("-t {target} up --wait 18446744073709551615 xx"), 2, "--wait"),
        (
            format!("-t {target} up --env-file /no/folder/file xx"),
            1,
            "cannot write /no/folder/file",
        ),
        (format!("-t {target} up -p 80:80:80:80 xx"), 1, "invalid argument"),
        (format!("-t {target} --plane layer up xx"), 1, "cannot be given the preload library"),
        (format!("-t {target} up --network host xx"), 1, "host"),
        (format!("-t {target} up {taken}"), 1, "already in use"),
        ("-t container/nobody-there up xx".to_owned(), 1, "there is no container"),
    ] {
        let done = mirrord(&lab, &sessions, &line)?;
        ensure!(done.code == code && done.stderr.contains(said), "{line}: {done:?}");
        ensure!(sessions.status()?.is_empty(), "{line}");
    }
    wait::until_true("nothing of a session to be there", || {
        let mut command = lab.docker.command();
        let words = ["ps", "-aq", "--filter", "name=^xx$"];
        Ok(command.args(words).stdin(Stdio::null()).output()?.stdout.is_empty())
    })?;
    Ok(())
}
