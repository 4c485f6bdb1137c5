//! Several sessions on one engine.

use anyhow::Result;
use mirrord_tests::lab::{Lab, PROBE};
use mirrord_tests::mirrord::Mirrord;
use mirrord_tests::scene::Scene;

#[test]
fn two_sessions_of_one_target_take_a_port_each() -> Result<()> {
    let Some(lab) = Lab::open("two sessions, one target")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    scene.target.probe().must("serve http 0.0.0.0:81 original")?;
    let one = scene.mirrord().with(["--steal", "--port", "80"]).probe("one")?;
    let mut two = scene.mirrord().with(["--steal", "--port", "81"]).probe("two")?;
    one.app().must("serve http 0.0.0.0:80 one")?;
    two.app().must("serve http 0.0.0.0:81 two")?;
    scene.until_answered_by("one", 80)?;
    scene.until_answered_by("two", 81)?;
    two.end()?;
    scene.until_answered_by("original", 81)?;
    assert_eq!(scene.answers(80)?["name"], "one");
    Ok(())
}

#[test]
fn a_port_that_another_session_steals_is_told_and_stays_with_it() -> Result<()> {
    let Some(lab) = Lab::open("two sessions, one port")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let one = scene.mirrord().with(["--steal"]).probe("one")?;
    one.app().must("serve http 0.0.0.0:80 one")?;
    scene.until_answered_by("one", 80)?;
    let two = scene.mirrord().with(["--steal"]).probe("two")?;
    two.app().must("serve http 0.0.0.0:80 two")?;
    for _ in 0..20 {
        let name = scene.answers(80)?["name"].clone();
        assert!(name == "one" || name == "two", "someone who steals answers: {name}");
    }
    Ok(())
}

#[test]
fn a_target_is_mirrored_and_stolen_by_different_sessions() -> Result<()> {
    let Some(lab) = Lab::open("steal beside mirror")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let thief = scene.mirrord().with(["--steal"]).probe("thief")?;
    let reader = scene.mirrord().with(["--mirror"]).probe("reader")?;
    thief.app().must("serve http 0.0.0.0:80 thief")?;
    reader.app().must("serve http 0.0.0.0:80 reader")?;
    scene.until_answered_by("thief", 80)?;
    mirrord_tests::wait::until("a copy", || {
        scene.answers(80)?;
        Ok(reader.app().events("request").first().cloned())
    })?;
    Ok(())
}

#[test]
fn two_sessions_with_different_targets_keep_apart() -> Result<()> {
    let Some(lab) = Lab::open("two targets")? else {
        return Ok(());
    };
    let scene = Scene::open_with(&lab, &["-e", "WHO=first"])?;
    let other = lab.container("other").on(&scene.inner).with(["-e", "WHO=second"]).probe()?;
    other.probe().must("serve http 0.0.0.0:80 original-two")?;
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    let one = scene.mirrord().with(["--steal"]).probe("one")?;
    let two = Mirrord::new(&lab, &other.target()).with(["--steal"]).probe("two")?;
    for (session, who, address) in
        [(&one, "first", scene.address.clone()), (&two, "second", other.address()?)]
    {
        let app = session.app();
        app.must(&format!("serve http 0.0.0.0:80 {who}"))?;
        assert_eq!(app.must("env")?["env"]["WHO"], who);
        let seen = app.must("ask client:7000 whoami")?["answer"]["peer"].clone();
        assert!(
            seen.as_str().is_some_and(|peer| peer.starts_with(&format!("{address}:"))),
            "{seen}"
        );
        mirrord_tests::wait::until(who, || {
            let answer = scene.client().must(&format!("ask {address}:80 http /"))?;
            Ok((answer["answer"]["name"] == who).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn the_app_of_a_session_is_no_target() -> Result<()> {
    let Some(lab) = Lab::open("a session upon a session")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let one = scene.mirrord().probe("one")?;
    let done = Mirrord::new(&lab, &format!("container/{}", one.name)).finish(PROBE, &["true"])?;
    assert_eq!(done.code, 125, "{done:?}");
    assert!(done.stderr.contains(&one.name) && done.stderr.contains("hint: "), "{done:?}");
    Ok(())
}
