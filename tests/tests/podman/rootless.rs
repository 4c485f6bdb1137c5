//! Podman of a user without rights: the preload library redirects, and it is said why. Its storage
//! may copy a whole image for each container: servers are of the smallest image.

use std::process::Command;

use anyhow::{Result, ensure};
use mirrord_tests::lab::{DEBIAN, MUSL, PROBE};
use mirrord_tests::leftovers::alone;
use mirrord_tests::mirrord::binary;
use mirrord_tests::scene::Scene;
use mirrord_tests::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::stage::{Held, answers_here, outlives_its_command, rootless};

#[test]
fn without_root_the_library_redirects_and_says_so() -> Result<()> {
    let _alone = alone();
    let Some(lab) = rootless("rootless podman")? else {
        return Ok(());
    };
    let scene = Scene::open_with(&lab, &["-e", "WHO=far", "--hostname", "far"])?;
    scene.client().must("serve http 0.0.0.0:7000 peer")?;
    let before = Held::now(&lab.docker)?;
    let lines = "hostname; echo $WHO; getent hosts client | cut -d' ' -f1; curl -sS http://client:7000/; exit 3";
    let done = scene.mirrord().with(["--no-incoming"]).finish(DEBIAN, &["sh", "-c", lines])?;
    assert_eq!(done.code, 3, "{done:?}");
    let said: Vec<&str> =
        done.stderr.lines().filter(|line| line.contains("without root")).collect();
    assert_eq!(said.len(), 1, "{done:?}");
    let told: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(told[..3], ["far", "far", &scene.client.address()?], "{done:?}");
    let seen: Value = serde_json::from_str(told[3])?;
    assert_eq!(seen["name"], "peer");
    ensure!(seen["peer"].as_str().is_some_and(|peer| peer.starts_with(&scene.address)), "{seen}");
    before.as_before()
}

#[test]
fn without_root_a_container_steals_and_mirrors() -> Result<()> {
    let _alone = alone();
    let Some(lab) = rootless("rootless podman, incoming")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let before = Held::now(&lab.docker)?;
    let client = scene.client.address()?;
    let words = ["serve", "80", "local"];

    let published = ["-p", "127.0.0.1:28932:80", "--network", "podman"];
    let mirrord = scene.mirrord().with(["--steal"]).docker(published);
    let session = mirrord.start("thief", MUSL, &words)?;
    let answer = scene.until_answered_by("local", 80)?;
    ensure!(answer["peer"].as_str().is_some_and(|peer| peer.starts_with(&client)), "{answer}");
    answers_here(28932, "local")?;
    lab.docker.run(&["stop", "-t", "1", &session.name])?;
    drop(session);
    assert_eq!(scene.answers(80)?["name"], "original");

    let session = scene.mirrord().with(["--mirror"]).start("reader", MUSL, &words)?;
    wait::until("a copy", || {
        assert_eq!(scene.answers(80)?["name"], "original");
        Ok(format!("{}{}", session.stdout(), session.stderr()).contains(&client).then_some(()))
    })?;
    lab.docker.run(&["stop", "-t", "1", &session.name])?;
    drop(session);
    before.as_before()
}

#[test]
fn without_root_the_agent_is_killed_and_the_target_serves_at_once() -> Result<()> {
    let _alone = alone();
    let Some(lab) = rootless("rootless podman, kill -9")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let before = Held::now(&lab.docker)?;
    let words = ["serve", "80", "local"];
    let mut session = scene.mirrord().with(["--steal"]).start("app", MUSL, &words)?;
    scene.until_answered_by("local", 80)?;
    let agent: i32 = lab.docker.inspect(&session.part("agent")?, "{{.State.Pid}}")?.parse()?;
    kill(Pid::from_raw(agent), Signal::SIGKILL)?;
    // Another one is on its way: who asks until then is answered by the target itself.
    scene.until_answered_by("original", 80)?;
    session.signal(Signal::SIGKILL)?;
    session.wait()?;
    before.as_before()?;
    assert_eq!(scene.answers(80)?["name"], "original");
    Ok(())
}

#[test]
fn without_root_a_static_program_is_refused_by_name_before_it_starts() -> Result<()> {
    let _alone = alone();
    let Some(lab) = rootless("rootless podman, a static program")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let before = Held::now(&lab.docker)?;
    let done = scene.mirrord().finish(PROBE, &["true"])?;
    ensure!(done.code == 125 && done.stdout.is_empty(), "{done:?}");
    ensure!(done.stderr.contains("/probe is statically linked"), "{done:?}");
    before.as_before()?;
    // Who insists on the kernel is told what it lacks.
    let done = scene.mirrord().with(["--plane", "netns"]).finish(PROBE, &["true"])?;
    ensure!(done.code == 125 && done.stderr.contains("a rootless one can't"), "{done:?}");
    before.as_before()
}

#[test]
fn without_root_the_library_is_read_only_and_joins_the_users_own() -> Result<()> {
    let _alone = alone();
    let Some(lab) = rootless("rootless podman, LD_PRELOAD")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let flags = ["-e", "LD_PRELOAD=/lib/x86_64-linux-gnu/libdl.so.2"];
    let lines = "echo \"$LD_PRELOAD\"; touch /opt/mirrord/libmirrord_layer.so || echo refused";
    let done = scene.mirrord().docker(flags).finish(DEBIAN, &["sh", "-c", lines])?;
    let expected = "/opt/mirrord/libmirrord_layer.so:/lib/x86_64-linux-gnu/libdl.so.2\nrefused\n";
    assert_eq!(done.stdout, expected, "{done:?}");
    Ok(())
}

#[test]
fn without_root_a_container_in_the_background_keeps_its_session_while_it_runs() -> Result<()> {
    let _alone = alone();
    let Some(lab) = rootless("rootless podman run -d")? else {
        return Ok(());
    };
    outlives_its_command(&lab)
}

#[test]
fn doctor_and_ls_know_podman_where_no_docker_may_be_used() -> Result<()> {
    let _alone = alone();
    let Some(lab) = rootless("podman in doctor and ls")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let before = Held::now(&lab.docker)?;
    let told = |words: &[&str]| -> Result<(Option<i32>, String, String)> {
        let mut command = Command::new(lab.docker.executable(binary())?);
        lab.docker.aim(&mut command);
        let output = command.env_remove("DOCKER_HOST").args(words).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
    };
    let (code, list, said) = told(&["ls", "-o", "name", "-t", "container"])?;
    assert_eq!(code, Some(0), "{said}");
    ensure!(list.lines().any(|line| line == scene.target.target()), "{list}");
    ensure!(said.contains("the containers are podman's"), "{said}");

    let (code, report, said) = told(&["doctor"])?;
    assert_eq!(code, Some(0), "{report}{said}");
    let podman = report.split_once("\npodman\n").map_or("", |(_, rest)| rest);
    ensure!(podman.trim_start().starts_with("✓ Podman "), "{report}");
    ensure!(podman.contains("rootless") && podman.contains("the preload library"), "{report}");
    ensure!(report.ends_with("\nsessions can run\n"), "{report}");
    before.as_before()
}
