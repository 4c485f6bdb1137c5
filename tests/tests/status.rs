//! `mirrord status` and `mirrord stop`.

use anyhow::Result;
use mirrord_tests::background::Background;
use mirrord_tests::lab::{DEBIAN, Lab, PROBE};
use mirrord_tests::scene::Scene;
use mirrord_tests::wait;
use serde_json::Value;

#[test]
fn all_kinds_of_sessions_are_told_and_ended() -> Result<()> {
    let Some(lab) = Lab::open("mirrord status and stop --all")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let background = Background::new(&lab)?;
    let mut front =
        background.of(scene.mirrord().with(["--steal", "--port", "3000:80"])).probe("front")?;
    front.app().must("serve http 0.0.0.0:3000 front")?;
    let folder = background.folder();
    let mut process =
        scene.exec().with(["--no-incoming"]).env("XDG_RUNTIME_DIR", &folder).probe()?;
    let back = background.run(scene.mirrord().with(["--no-incoming"]), "back", PROBE, &["wait"])?;
    assert_eq!(back.code, 0, "{back:?}");

    scene.until_answered_by("front", 80)?;
    let row = background.session("front")?;
    for (key, value) in [
        ("target", Value::from(scene.target.target())),
        ("plane", "netns".into()),
        ("incoming", "steal".into()),
        ("state", "up".into()),
        ("detached", false.into()),
        ("ports", vec!["3000:80/tcp"].into()),
    ] {
        assert_eq!(row[key], value, "{row:#}");
    }
    assert_eq!(background.session("back")?["detached"], true);
    let all = background.status()?;
    assert_eq!(all.len(), 3, "{all:#?}");
    let exec = all.iter().find(|row| row["app"]["container"].is_null()).expect("the process");
    assert_eq!((&exec["plane"], &exec["app"]["command"][1]), (&"layer".into(), &"shell".into()));
    let table = String::from_utf8(background.mirrord(&["status"])?.stdout)?;
    assert!(table.starts_with("SESSION  "), "{table}");
    assert!(
        all.iter().all(|row| table.contains(row["session"].as_str().unwrap_or("?"))),
        "{table}"
    );

    let stopped = background.mirrord(&["stop", "--all"])?;
    assert_eq!(String::from_utf8(stopped.stdout)?.lines().count(), 3);
    assert_eq!(front.wait()?, 143, "as of docker stop: {}", front.stderr());
    assert!(front.stderr().contains("'mirrord stop' ends the session"), "{}", front.stderr());
    assert_eq!(process.wait()?, 143, "{}", process.stderr());
    assert!(background.status()?.is_empty());
    for row in all {
        background.until_gone(row["session"].as_str().unwrap_or(""))?;
    }
    background.until_empty()
}

#[test]
fn an_app_is_stopped_with_its_own_signal_and_in_its_own_time() -> Result<()> {
    let Some(lab) = Lab::open("mirrord stop")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let background = Background::new(&lab)?;
    // It still has the target's network while it says farewell.
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    let farewell = "trap 'sleep 2; nc -z client 7000 && echo farewell; exit 7' USR1; \
                    echo ready; while :; do sleep 0.1; done";
    let mirrord =
        scene.mirrord().kept().docker(["--stop-signal", "SIGUSR1", "--stop-timeout", "20"]);
    let done = background.run(mirrord, "app", DEBIAN, &["sh", "-c", farewell])?;
    assert_eq!(done.code, 0, "{done:?}");
    let app = lab.name("app");
    wait::until_true("the trap", || Ok(lab.docker.run(&["logs", &app])?.contains("ready")))?;
    let row = background.session("app")?;
    let session = row["session"].as_str().unwrap_or("");
    let stopped = background.mirrord(&["stop", &session[..6]])?;
    assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
    assert_eq!(String::from_utf8(stopped.stdout)?, format!("{session}\n"));
    assert_eq!(lab.docker.inspect(&app, "{{.State.ExitCode}}")?, "7");
    assert!(lab.docker.run(&["logs", &app])?.contains("farewell"));
    background.until_gone(session)?;
    background.until_empty()
}

#[test]
fn a_session_that_is_stopped_while_its_container_starts_leaves_none_running() -> Result<()> {
    let Some(lab) = Lab::open("mirrord stop while a container starts")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let background = Background::new(&lab)?;
    let name = lab.name("early");
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            background.run(scene.mirrord().with(["--no-incoming"]), "early", PROBE, &["wait"])
        });
        let session = wait::until("a session", || {
            let mut all = background.status()?;
            Ok(all.pop().and_then(|row| row["session"].as_str().map(str::to_owned)))
        })?;
        let stopped = background.mirrord(&["stop", &session])?;
        assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
        run.join().expect("no panic")?;
        let running = lab.docker.run(&["ps", "-q", "--filter", &format!("name={name}")])?;
        assert_eq!(running, "", "it runs without its session");
        background.until_gone(&session)
    })?;
    background.until_empty()
}

#[test]
fn a_label_of_the_users_does_not_hide_a_session() -> Result<()> {
    let Some(lab) = Lab::open("the label of a session")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let background = Background::new(&lab)?;
    let mirrord = scene.mirrord().with(["--no-incoming"]);
    let mirrord = mirrord.docker(["--label", "mirrord.session=abcdefgh"]);
    let run = background.run(mirrord, "labelled", PROBE, &["wait"])?;
    assert_eq!(run.code, 0, "{run:?}");
    let row = background.session("labelled")?;
    assert_eq!(row["state"], "up", "{row:#}");
    let session = row["session"].as_str().unwrap_or("");
    assert_eq!(background.mirrord(&["stop", session])?.status.code(), Some(0));
    background.until_gone(session)
}

#[test]
fn what_is_no_session_is_told() -> Result<()> {
    let Some(lab) = Lab::open("errors of mirrord stop")? else {
        return Ok(());
    };
    let background = Background::new(&lab)?;
    let told = |words: &[&str]| {
        let output = background.mirrord(words)?;
        let stderr = String::from_utf8(output.stderr)?;
        Ok::<_, anyhow::Error>((output.status.code(), stderr))
    };
    let (code, words) = told(&["stop", "no-such-session"])?;
    assert_eq!(code, Some(1));
    assert!(words.contains("error: there is no session \"no-such-session\""), "{words}");
    assert!(words.contains("hint: "), "{words}");
    assert_eq!(told(&["stop"])?.0, Some(2));
    assert_eq!(told(&["stop", "x", "--all"])?.0, Some(2));
    assert_eq!(told(&["stop", "--all"])?.0, Some(0), "none is as good as all");
    assert_eq!(told(&["status", "-o", "xml"])?.0, Some(2));
    Ok(())
}
