//! Engines that are elsewhere: nothing of this machine's files, sockets or addresses is there.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mirrord_tests::background::outlives_its_command;
use mirrord_tests::docker::Docker;
use mirrord_tests::lab::{Lab, MUSL, PROBE};
use mirrord_tests::mirrord::{Mirrord, Session, binary};
use mirrord_tests::remote_engine::RemoteEngine;
use mirrord_tests::scene::Scene;
use mirrord_tests::{toolbox, wait};

/// A session that answers in the target's place, calls the client from there, and has its variable.
fn in_place(scene: &Scene<'_>, session: &Session<'_>) -> Result<()> {
    let app = session.app();
    assert_eq!(app.must("env")?["env"]["WHO"], "far");
    let seen = app.must("ask client:7000 whoami")?["answer"]["peer"].clone();
    ensure!(seen.as_str().is_some_and(|peer| peer.starts_with(&scene.address)), "{seen}");
    app.must("serve http 0.0.0.0:80 local")?;
    scene.until_answered_by("local", 80)?;
    Ok(())
}

fn stage(lab: &Lab) -> Result<Scene<'_>> {
    let scene = Scene::open_with(lab, &["-e", "WHO=far"])?;
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    Ok(scene)
}

fn ended(scene: &Scene<'_>, session: &mut Session<'_>) -> Result<()> {
    session.end()?;
    is_over(scene)
}

/// The original answers, and nothing of a session is in the engine.
fn is_over(scene: &Scene<'_>) -> Result<()> {
    assert_eq!(scene.answers(80)?["name"], "original");
    wait::until_true("nothing of the session to be there", || {
        Ok(scene.lab.docker.run(&["ps", "-aq", "--filter", "label=mirrord.session"])?.is_empty()
            && scene
                .lab
                .docker
                .run(&["volume", "ls", "-q", "--filter", "label=mirrord.session"])?
                .is_empty())
    })
}

/// What `mirrord` says with the variables of an engine, and its exit code.
fn told(docker: &Docker, words: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(binary());
    docker.aim(&mut command);
    let output =
        command.args(words).env("KUBECONFIG", "/nowhere").output().context("run mirrord")?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

#[test]
fn an_engine_of_another_machine_over_tls() -> Result<()> {
    let test = "an engine over TLS";
    let Some(engine) = RemoteEngine::tls(test)? else { return Ok(()) };
    let Some(lab) = Lab::open_at(test, engine.docker())? else { return Ok(()) };
    let scene = stage(&lab)?;

    let mut session = scene.mirrord().with(["--steal"]).docker(["-p", "8080:81"]).probe("thief")?;
    in_place(&scene, &session)?;
    session.app().must("serve http 0.0.0.0:81 published")?;
    let answer = wait::until("the published port, on the engine's machine", || {
        let mut stream = TcpStream::connect((engine.address.as_str(), 8080))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(Some(answer).filter(|answer| !answer.is_empty()))
    })?;
    ensure!(answer.contains("published"), "{answer}");
    ended(&scene, &mut session)?;

    let mut session = scene.mirrord().with(["--mirror"]).probe("reader")?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    scene.until_copied_to(session.app())?;
    ended(&scene, &mut session)?;

    if toolbox::all(test, &["probe"])? {
        let mut session = scene.exec().with(["--steal"]).probe()?;
        in_place(&scene, &session)?;
        ended(&scene, &mut session)?;
    }
    outlives_its_command(&scene, &[])?;
    is_over(&scene)?;
    certificates_are_looked_at(&engine, &scene)
}

fn certificates_are_looked_at(engine: &RemoteEngine, scene: &Scene<'_>) -> Result<()> {
    let other = tempfile::tempdir()?;
    let target = scene.target.target();
    let line = ["-t", &target, "docker", "run", "--rm", PROBE, "true"];
    let at = |folder: &std::path::Path| {
        engine.docker().with("DOCKER_CERT_PATH", folder.to_string_lossy())
    };
    let (code, said) = told(&at(other.path()), &line)?;
    ensure!(code == Some(125) && said.contains("ca.pem") && said.contains("hint: "), "{said}");
    std::fs::copy(engine.certificates().join("ca.pem"), other.path().join("ca.pem"))?;
    let (code, said) = told(&at(other.path()), &line)?;
    ensure!(code == Some(125) && said.contains("certificate") && said.contains("hint: "), "{said}");
    // Whoever does not ask for proof gets none, and is asked for his own all the same.
    std::fs::remove_file(other.path().join("ca.pem"))?;
    for file in ["cert.pem", "key.pem"] {
        std::fs::copy(engine.certificates().join(file), other.path().join(file))?;
    }
    let unproved = at(other.path()).with("DOCKER_TLS_VERIFY", "").with("DOCKER_TLS", "1");
    let (code, said) = told(&unproved, &["ls", "-t", "container"])?;
    ensure!(code == Some(0) && said.contains(&scene.target.name), "{said}");
    Ok(())
}

#[test]
fn an_engine_of_another_machine_over_ssh() -> Result<()> {
    let test = "an engine over ssh";
    if !toolbox::all(test, &["ssh", "ssh-keygen"])? {
        return Ok(());
    }
    let Some(engine) = RemoteEngine::tls(test)? else { return Ok(()) };
    let Some(lab) = Lab::open_at(test, engine.docker())? else { return Ok(()) };
    let scene = stage(&lab)?;
    let by_ssh = Lab::open_at(test, engine.ssh())?.context("the same engine answers by ssh")?;

    let target = scene.target.target();
    let mut session = Mirrord::new(&by_ssh, &target).with(["--steal"]).probe("thief")?;
    in_place(&scene, &session)?;
    ended(&scene, &mut session)?;
    outlives_its_command(&scene, &[])?;

    let (code, said) = told(&engine.ssh(), &["ls", "-o", "name", "-t", "container"])?;
    ensure!(code == Some(0) && said.contains(&target), "{said}");
    let line = ["-t", &target, "docker", "run", "--rm", PROBE, "true"];
    for (user, why) in [("stranger", "Permission denied"), ("nobody", "not available")] {
        let wrong = engine.ssh().with("DOCKER_HOST", format!("ssh://{user}@remote-box"));
        let (code, said) = told(&wrong, &line)?;
        ensure!(code == Some(125) && said.contains(why), "{said}");
        ensure!(said.contains(&format!("hint: 'ssh {user}@remote-box'")), "{said}");
    }
    Ok(())
}

#[test]
fn a_context_of_dockers_names_the_engine_and_its_certificates() -> Result<()> {
    let test = "docker contexts";
    let Some(engine) = RemoteEngine::tls(test)? else { return Ok(()) };
    let Some(lab) = Lab::open_at(test, engine.docker())? else { return Ok(()) };
    let scene = stage(&lab)?;
    let config = tempfile::tempdir()?;
    let home = Docker::local()
        .with("DOCKER_CONFIG", config.path().to_string_lossy())
        .with("DOCKER_HOST", "");
    let file = |name: &str| engine.certificates().join(name).display().to_string();
    let endpoint = format!(
        "host=tcp://{}:2376,ca={},cert={},key={}",
        engine.address,
        file("ca.pem"),
        file("cert.pem"),
        file("key.pem")
    );
    home.run(&["context", "create", "box", "--docker", &endpoint])?;

    let target = scene.target.target();
    let line = |head: &[&str]| -> Vec<String> {
        let words =
            [&["-t", &target, "docker"], head, &["run", "--rm", PROBE, "exit", "7"]].concat();
        words.into_iter().map(str::to_owned).collect()
    };
    let code = |docker: &Docker, head: &[&str]| -> Result<Option<i32>> {
        let line = line(head);
        let words: Vec<&str> = line.iter().map(String::as_str).collect();
        let (code, said) = told(docker, &words)?;
        ensure!(code == Some(7), "{code:?}: {said}");
        Ok(code)
    };
    code(&home, &["--context", "box"])?;
    code(&home.clone().with("DOCKER_CONTEXT", "box"), &[])?;
    home.run(&["context", "use", "box"])?;
    code(&home, &[])?;
    let config = config.path().to_string_lossy();
    let elsewhere = home.clone().with("DOCKER_CONFIG", "/nowhere");
    code(&elsewhere, &["--config", &config])?;
    let (_, said) = told(&elsewhere, &["-t", &target, "docker", "--context", "box", "run", PROBE])?;
    ensure!(said.contains("context \"box\" does not exist"), "{said}");
    let (code, said) = told(&home, &["ls", "-o", "name", "-t", "container"])?;
    ensure!(code == Some(0) && said.contains(&target), "{said}");
    Ok(())
}

#[test]
fn an_engine_that_remaps_users() -> Result<()> {
    let test = "an engine that remaps users";
    let Some(engine) = RemoteEngine::bare(test, &["--userns-remap=default"])? else {
        return Ok(());
    };
    let Some(lab) = Lab::open_at(test, engine.docker())? else { return Ok(()) };
    let scene = stage(&lab)?;

    let host_users = ["--userns", "host"];
    let mut session =
        scene.mirrord().with(["--steal", "--plane", "netns"]).docker(host_users).probe("kernel")?;
    in_place(&scene, &session)?;
    ended(&scene, &mut session)?;

    scene.client().must("serve http 0.0.0.0:7002 peer")?;
    let done = scene.mirrord().finish(MUSL, &["get", "client", "7002"])?;
    ensure!(done.code == 0 && done.stdout.contains(&scene.address), "{done:?}");
    ensure!(done.stderr.contains("the preload library does"), "{done:?}");
    let mirrord = scene.mirrord().with(["--steal"]);
    let mut session = mirrord.start("layer", MUSL, &["serve", "80", "layer"])?;
    let answer = scene.until_answered_by("layer", 80)?;
    assert_eq!(answer["local"], scene.at(80), "{answer}");
    lab.docker.run(&["kill", &session.name])?;
    session.wait()?;
    is_over(&scene)?;

    let (code, said) = told(&engine.docker(), &["doctor"])?;
    ensure!(code == Some(0) && said.contains("it remaps users"), "{said}");
    ensure!(said.contains("a container may not redirect its network"), "{said}");
    Ok(())
}
