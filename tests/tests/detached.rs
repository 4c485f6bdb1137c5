//! `docker run -d` and `--restart`: the session lives as long as its container, as `docker run`
//! without us would have it.

use std::process::Command;

use anyhow::{Context, Result};
use mirrord_tests::background::{Background, finish, keeper, outlives_its_command};
use mirrord_tests::lab::{DEBIAN, Lab, PROBE};
use mirrord_tests::mirrord::Finished;
use mirrord_tests::scene::Scene;
use mirrord_tests::{skip, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

/// An app that answers in the target's place.
const SERVES: &[&str] = &["serve", "http", "0.0.0.0:80", "mine"];

/// The oracle: the same line without mirrord.
fn plainly(lab: &Lab, name: &str, flags: &[&str], image: &str, words: &[&str]) -> Result<Finished> {
    let name = lab.name(name);
    lab.adopt(&name);
    let mut command: Command = lab.docker.command();
    command.args(["run", "-d", "--name", &name]).args(flags).arg(image).args(words);
    finish(&command)
}

/// What docker itself has said.
fn dockers(stderr: &str) -> String {
    let ours = |line: &&str| !line.starts_with("mirrord: ");
    stderr.lines().filter(ours).collect::<Vec<_>>().join("\n")
}

/// Starts the app in the background, waits until it answers; its session's id.
fn serving(scene: &Scene, background: &Background, flags: &[&str]) -> Result<String> {
    let mirrord = scene.mirrord().with(["--steal"]).kept().docker(flags.to_vec());
    let done = background.run(mirrord, "app", PROBE, SERVES)?;
    assert_eq!(done.code, 0, "{done:?}");
    scene.until_answered_by("mine", 80)?;
    let template = "{{index .Config.Labels \"mirrord.session\"}}";
    scene.lab.docker.inspect(&scene.lab.name("app"), template)
}

#[test]
fn the_id_is_all_that_is_printed_and_the_session_ends_with_the_container() -> Result<()> {
    let Some(lab) = Lab::open("docker run -d")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let background = Background::new(&lab)?;
    let files = tempfile::tempdir()?;
    let cidfile = files.path().join("cid").to_string_lossy().into_owned();
    let mirrord = scene.mirrord().with(["--steal"]).docker(["--cidfile", &cidfile]);
    let done = background.run(mirrord, "app", PROBE, SERVES)?;
    let id = lab.docker.inspect(&lab.name("app"), "{{.Id}}")?;
    assert_eq!((done.code, done.stdout), (0, format!("{id}\n")), "{}", done.stderr);
    assert_eq!(std::fs::read_to_string(cidfile)?, id);
    scene.until_answered_by("mine", 80)?;
    let session = background.session("app")?;
    assert_eq!(session["app"]["id"], id);
    let process = keeper(&session)?;
    let (own, group) =
        (Pid::from_raw(process.pid), nix::unistd::getsid(Some(Pid::from_raw(process.pid)))?);
    assert_eq!(own, group, "it leads a session of its own, without a terminal");
    lab.docker.run(&["rm", "-f", &id])?;
    background.until_gone(session["session"].as_str().unwrap_or(""))?;
    background.until_empty()?;
    assert_eq!(scene.answers(80)?["name"], "original");
    wait::until_true("the keeper's end", || Ok(!process.lives()))
}

#[test]
fn what_docker_refuses_has_its_words_and_code_and_leaves_nothing() -> Result<()> {
    let Some(lab) = Lab::open("errors of docker run -d")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let background = Background::new(&lab)?;
    let taken = ["--name", &scene.client.name];
    let lines: [(&[&str], &str, &[&str]); 5] = [
        (&["--rm"], DEBIAN, &["/no/such/program"]),
        (&["--rm"], DEBIAN, &["/etc/passwd"]),
        (&["--pull", "never"], "mirrord-apps/none", &[]),
        (&["--rm", "--restart", "always"], PROBE, &["true"]),
        (&taken, PROBE, &["true"]),
    ];
    for (flags, image, words) in lines {
        let expected = plainly(&lab, "plain", flags, image, words)?;
        assert_ne!(expected.code, 0, "{expected:?}");
        let mirrord = scene.mirrord().with(["-q"]).kept().docker(flags.to_vec());
        let done = background.run(mirrord, "app", image, words)?;
        let neutral = |text: &str| dockers(text).replace(&lab.name("app"), &lab.name("plain"));
        assert_eq!(done.code, expected.code, "{flags:?} {words:?}: {done:?}");
        assert_eq!(neutral(&done.stderr), neutral(&expected.stderr), "{flags:?} {words:?}");
        assert_eq!(done.stdout.len(), expected.stdout.len(), "{done:?}");
        assert!(background.status()?.is_empty());
        background.until_empty()?;
        for name in ["plain", "app"] {
            assert!(lab.docker.inspect(&lab.name(name), "{{.Id}}").is_err(), "{name} is left");
        }
    }
    Ok(())
}

#[test]
fn a_container_that_is_restarted_keeps_its_session_and_one_that_is_stopped_does_not() -> Result<()>
{
    let Some(lab) = Lab::open("docker restart, stop, start")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let background = Background::new(&lab)?;
    let session = serving(&scene, &background, &[])?;
    let app = lab.name("app");
    for _ in 0..2 {
        lab.docker.run(&["restart", &app])?;
        scene.until_answered_by("mine", 80)?;
    }
    lab.docker.run(&["stop", &app])?;
    lab.docker.run(&["start", &app])?;
    scene.until_answered_by("mine", 80).context("started again at once")?;
    assert_eq!(background.session("app")?["session"], session.as_str());
    lab.docker.run(&["stop", &app])?;
    background.until_gone(&session)?;
    background.until_empty()?;
    assert_eq!(scene.answers(80)?["name"], "original");
    assert_eq!(lab.docker.inspect(&app, "{{.State.ExitCode}}")?, "143", "as docker stop has it");
    let refused = lab.docker.run(&["start", &app]).expect_err("its network is gone");
    assert!(format!("{refused:#}").contains("No such container"), "{refused:#}");
    Ok(())
}

#[test]
fn dockers_own_init_in_the_background_is_as_in_front() -> Result<()> {
    let Some(lab) = Lab::open("docker run -d --init")? else {
        return Ok(());
    };
    outlives_its_command(&Scene::open(&lab)?, &["--init"])
}

#[test]
fn a_container_that_docker_restarts_keeps_its_session() -> Result<()> {
    let Some(lab) = Lab::open("docker run --restart")? else {
        return Ok(());
    };
    if !geteuid().is_root() {
        return skip::missing("docker run --restart", "root");
    }
    let scene = Scene::open(&lab)?;
    let background = Background::new(&lab)?;
    let app = lab.name("app");
    for policy in ["always", "unless-stopped", "on-failure"] {
        let session = serving(&scene, &background, &["--restart", policy])?;
        let pid = |name: &str| {
            Ok::<i32, anyhow::Error>(lab.docker.inspect(name, "{{.State.Pid}}")?.parse()?)
        };
        let first = pid(&app)?;
        kill(Pid::from_raw(first), Signal::SIGKILL)?;
        wait::until_true("another life", || Ok(![0, first].contains(&pid(&app)?)))?;
        scene.until_answered_by("mine", 80).context(policy)?;
        assert_eq!(background.session("app")?["session"], session.as_str(), "{policy}");
        lab.docker.run(&["stop", &app])?;
        background.until_gone(&session)?;
        assert_eq!(lab.docker.inspect(&app, "{{.State.Running}}")?, "false", "{policy}");
        lab.docker.run(&["rm", &app])?;
    }
    Ok(())
}

#[test]
fn a_policy_that_gives_up_ends_the_session() -> Result<()> {
    let Some(lab) = Lab::open("--restart on-failure:2")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let background = Background::new(&lab)?;
    let flags = ["--restart", "on-failure:2"];
    plainly(&lab, "plain", &flags, PROBE, &["exit", "3"])?;
    let mirrord = scene.mirrord().kept().docker(flags);
    assert_eq!(background.run(mirrord, "app", PROBE, &["exit", "3"])?.code, 0);
    let after = |name: &str| {
        wait::until("an end", || {
            let template = "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}";
            let text = lab.docker.inspect(&lab.name(name), template)?;
            Ok(Some(text).filter(|text| text.starts_with("exited")))
        })
    };
    assert_eq!(after("app")?, after("plain")?);
    background.until_empty()?;
    assert!(background.status()?.is_empty());
    Ok(())
}

#[test]
fn a_keeper_that_is_killed_takes_sidecar_and_agent_along_and_is_told() -> Result<()> {
    let Some(lab) = Lab::open("kill -9 of a detached keeper")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let background = Background::new(&lab)?;
    let session = serving(&scene, &background, &[])?;
    keeper(&background.session("app")?)?.signal(Signal::SIGKILL)?;
    background.until_gone(&session)?;
    scene.until_answered_by("original", 80)?;
    let row = background.session("app")?;
    assert_eq!((&row["state"], &row["session"]), (&"lost".into(), &session.as_str().into()));
    let events = row["events"].to_string();
    assert!(events.contains("the session's keeper was killed"), "{row:#}");
    let app = lab.name("app");
    let report = background.mirrord(&["doctor", "-o", "json"])?;
    let report = String::from_utf8(report.stdout)?;
    assert!(report.contains(&format!("the container {app} has lost its session")), "{report}");
    let stopped = background.mirrord(&["stop", &app])?;
    assert!(stopped.status.success(), "{stopped:?}");
    assert_eq!(lab.docker.inspect(&app, "{{.State.Running}}")?, "false");
    background.until_empty()
}

#[test]
fn the_targets_end_is_told_by_status_afterwards() -> Result<()> {
    let Some(lab) = Lab::open("the end of a detached session's target")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let background = Background::new(&lab)?;
    let session = serving(&scene, &background, &[])?;
    lab.docker.run(&["kill", &scene.target.name])?;
    background.until_gone(&session)?;
    let row = wait::until("the end to be told", || {
        Ok(Some(background.session("app")?).filter(|row| row["state"] == "lost"))
    })?;
    let expected = format!("the target container {} stopped", scene.target.name);
    assert!(row["events"].to_string().contains(&expected), "{row:#}");
    wait::until_true("the app to be stopped", || {
        Ok(lab.docker.inspect(&lab.name("app"), "{{.State.Running}}")? == "false")
    })?;
    let forgotten = background.mirrord(&["stop", &session])?;
    assert!(forgotten.status.success(), "{forgotten:?}");
    assert!(background.status()?.is_empty());
    background.until_empty()
}
