//! What the tests of servers share: one runs in the target's place, and its client tells all.

use anyhow::{Context, Result, ensure};
use mirrord_tests::lab::Lab;
use mirrord_tests::mirrord::Session;
use mirrord_tests::scene::Scene;
use mirrord_tests::{toolbox, wait};
use serde_json::Value;

/// The port of the servers; each target has a network of its own.
pub const PORT: u16 = 8000;

/// A server that is started by `words` and answers as `name`: it must see its real client, and as
/// its own address the target's.
pub fn sees_its_clients(name: &str, words: &[&str]) -> Result<()> {
    let Some(lab) = Lab::open(name)? else {
        return Ok(());
    };
    if !toolbox::all(name, &words[..1])? {
        return Ok(());
    }
    let scene = Scene::open(&lab)?;
    let session = scene.exec().with(["--steal"]).start(words)?;
    answers_as(&scene, &session, name)?;
    // Some write 0.0.0.0, some [::], whatever they were asked for.
    let listens = |line: &str| line.contains("listening") && line.contains(&format!(":{PORT}"));
    wait::until_true("where it listens", || Ok(said(&session).lines().any(listens)))
        .with_context(|| said(&session))
}

/// What the target's clients get from a running server, and what it saw.
pub fn answers_as(scene: &Scene<'_>, session: &Session<'_>, name: &str) -> Result<()> {
    scene.until_answered_by(name, PORT).with_context(|| said(session))?;
    let seen = scene.client().must(&format!("ask {} http /", scene.at(PORT)))?;
    let told = &seen["answer"];
    ensure!(told["peer"] == seen["local"], "the client's address: {seen}");
    ensure!(told["local"] == Value::Null || told["local"] == scene.at(PORT), "its own: {seen}");
    Ok(())
}

/// What getsockname(2) of the listener said.
pub fn listens_as(session: &Session<'_>, address: &str) -> Result<()> {
    let wanted = format!("listening {address}");
    wait::until_true(&wanted, || Ok(said(session).contains(&wanted))).with_context(|| said(session))
}

/// Everything said so far.
pub fn said(session: &Session<'_>) -> String {
    format!("{}{}", session.stdout(), session.stderr())
}
