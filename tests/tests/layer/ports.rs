//! The app listens where it wants, whatever this machine allows or uses.

use std::collections::BTreeSet;
use std::fs;
use std::net::{TcpListener, TcpStream};

use anyhow::{Context, Result, ensure};
use mirrord_tests::lab::Lab;
use mirrord_tests::scene::Scene;
use mirrord_tests::toolbox::{PYTHON, path, source};
use mirrord_tests::{skip, wait};
use nix::unistd::geteuid;
use serde_json::Value;
use tempfile::TempDir;

use crate::stage::{PORT, answers_as, listens_as, said};

/// A port of this machine that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// What an HTTP server of this machine says.
fn ask_here(port: u16) -> Result<Value> {
    use std::io::{Read, Write};
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(wait::PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    serde_json::from_str(text.rsplit("\r\n\r\n").next().unwrap_or_default()).context(text)
}

#[test]
fn port_80_takes_no_root() -> Result<()> {
    let Some(lab) = Lab::open("port 80 without root")? else {
        return Ok(());
    };
    if !geteuid().is_root() {
        return skip::missing("port 80 without root", "root, to become nobody");
    }
    let scene = Scene::open(&lab)?;
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let folder = TempDir::new()?;
    let script = folder.path().join("server.py");
    fs::copy(source("server.py"), &script)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(folder.path(), mode)?;
    let script = script.to_string_lossy();
    let words = [&nobody[..], &[PYTHON, &script, "blocking", "80"]].concat();
    let session = scene.exec().with(["--steal"]).start(&words)?;
    scene.until_answered_by("blocking", 80).with_context(|| said(&session))?;
    listens_as(&session, "0.0.0.0:80")
}

#[test]
fn two_sessions_listen_on_the_same_port() -> Result<()> {
    let Some(lab) = Lab::open("one port, two sessions")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let other = lab.container("other").on(&scene.inner).probe()?;
    let words = |name| ["serve", "http", "0.0.0.0:8000", name];
    let program = path("probe");
    let first = [&[program.as_str()], &words("first")[..]].concat();
    let second = [&[program.as_str()], &words("second")[..]].concat();
    let here = scene.exec().with(["--steal"]).start(&first)?;
    answers_as(&scene, &here, "first")?;
    let exec = mirrord_tests::exec::Exec::new(&lab, &other.target());
    let there = exec.with(["--steal"]).start(&second)?;
    let at = format!("{}:{PORT}", other.address()?);
    wait::until_true("the second session", || {
        Ok(scene.client().must(&format!("ask {at} http /"))?["answer"]["name"] == "second")
    })
    .with_context(|| said(&there))?;
    answers_as(&scene, &here, "first")
}

#[test]
fn a_port_that_the_app_itself_holds_is_taken() -> Result<()> {
    let Some(lab) = Lab::open("one port, twice")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let done = scene.exec().finish(&[PYTHON, &source("server.py"), "twice", "8000"])?;
    // EADDRINUSE, and then the port is free again.
    let lines: Vec<_> = done.stdout.lines().collect();
    assert_eq!(lines, ["listening 0.0.0.0:8000", "98", "listening 0.0.0.0:8000"], "{done:?}");
    Ok(())
}

#[test]
fn a_port_that_another_process_of_the_session_holds_is_taken() -> Result<()> {
    let Some(lab) = Lab::open("one port, two processes")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let script = source("server.py");
    let line = format!(
        "{PYTHON} {script} blocking 8000 & first=$!
         while ! {PYTHON} -c 'import socket; socket.create_connection((\"127.0.0.1\", 8000))'
         do :; done 2>/dev/null
         {PYTHON} {script} blocking 8000; echo second $?; kill $first"
    );
    let done = scene.exec().finish(&["sh", "-c", &line])?;
    ensure!(done.stdout.contains("second 1"), "{done:?}");
    ensure!(done.stderr.contains("Address already in use"), "{done:?}");
    Ok(())
}

#[test]
fn processes_share_a_port_with_so_reuseport() -> Result<()> {
    let Some(lab) = Lab::open("SO_REUSEPORT")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let words = [&path("app"), "serve", "shared", "8000", "3"];
    let session = scene.exec().with(["--steal"]).start(&words)?;
    answers_as(&scene, &session, "shared")?;
    let mut pids = BTreeSet::new();
    wait::until_true("an answer of every process", || {
        pids.insert(scene.answers(PORT)?["pid"].as_i64());
        Ok(pids.len() == 3)
    })
    .with_context(|| format!("answered: {pids:?}"))
}

#[test]
fn a_dual_stack_listener_sees_the_client_as_ipv4_in_ipv6() -> Result<()> {
    let Some(lab) = Lab::open("dual stack")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let words = [PYTHON, &source("server.py"), "dual", "8000"];
    let session = scene.exec().with(["--steal"]).start(&words)?;
    answers_as(&scene, &session, "dual")?;
    listens_as(&session, ":::8000")
}

#[test]
fn a_port_of_the_kernels_choice_is_left_alone() -> Result<()> {
    let Some(lab) = Lab::open("bind to 0")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let done = scene.exec().finish(&[PYTHON, &source("server.py"), "any", "0"])?;
    let told: Value = serde_json::from_str(&done.stdout).with_context(|| format!("{done:?}"))?;
    assert_eq!(told["same"], true, "{told}");
    Ok(())
}

#[test]
fn a_local_port_takes_the_place_of_another_one_of_the_target() -> Result<()> {
    let Some(lab) = Lab::open("--port LOCAL:REMOTE of a process")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let session = scene.exec().with(["--steal", "--port", "8080:80"]).probe()?;
    session.app().must("serve http 0.0.0.0:8080 local")?;
    scene.until_answered_by("local", 80)?;
    let seen = scene.client().must(&format!("ask {} http /", scene.at(80)))?;
    assert_eq!(seen["answer"]["peer"], seen["local"]);
    Ok(())
}

#[test]
fn a_listen_port_is_the_one_that_the_kernel_sees() -> Result<()> {
    let Some(lab) = Lab::open("listen_ports")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let (folder, port) = (TempDir::new()?, free_port()?);
    let file = folder.path().join("mirrord.json");
    let incoming = format!(r#"{{"mode": "steal", "listen_ports": [[{PORT}, {port}]]}}"#);
    fs::write(&file, format!(r#"{{"feature": {{"network": {{"incoming": {incoming}}}}}}}"#))?;
    let words = [&path("app"), "serve", "accept", "8000"];
    let session = scene.exec().with(["-f", &file.to_string_lossy()]).start(&words)?;
    answers_as(&scene, &session, "accept")?;
    assert_eq!(ask_here(port)?["name"], "accept", "on its fixed port");
    Ok(())
}

#[test]
fn this_machine_reaches_the_app_at_the_port_that_it_asked_for() -> Result<()> {
    let Some(lab) = Lab::open("the local door")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let port = free_port()?;
    let words = [&path("app"), "serve", "accept", &port.to_string()];
    let mut session = scene.exec().with(["--steal"]).start(&words)?;
    let told =
        wait::until("the door", || ask_here(port).map(Some)).with_context(|| said(&session))?;
    assert_eq!(told["name"], "accept");
    ensure!(told["peer"].as_str().is_some_and(|at| at.starts_with("127.0.0.1:")), "{told}");
    session.signal(nix::sys::signal::Signal::SIGTERM)?;
    session.wait()?;
    ensure!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the door is closed with the app");
    Ok(())
}

#[test]
fn the_address_of_a_client_is_never_lost_however_short_its_connection() -> Result<()> {
    const COUNT: usize = 1000;
    let Some(lab) = Lab::open("short connections")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let words = [PYTHON, &source("server.py"), "record", "8000"];
    let session = scene.exec().with(["--steal"]).start(&words)?;
    let at = scene.at(PORT);
    wait::until("the stolen port", || scene.client().must(&format!("burst {at} 1")).map(Some))
        .with_context(|| said(&session))?;
    let sent = scene.client().must(&format!("burst {at} {COUNT}"))?;
    let sent: Vec<_> = sent["locals"].as_array().into_iter().flatten().collect();
    assert_eq!(sent.len(), COUNT);
    let mut missing = Vec::new();
    wait::until_true("all of them", || {
        let seen = session.stdout();
        let seen: BTreeSet<_> =
            seen.lines().filter_map(|line| line.strip_prefix("peer ")).collect();
        missing =
            sent.iter().filter_map(|at| at.as_str()).filter(|at| !seen.contains(at)).collect();
        Ok(missing.is_empty())
    })
    .with_context(|| format!("{} of {COUNT} were not seen: {missing:?}", missing.len()))
}

#[test]
fn datagrams_of_the_targets_clients_come_and_their_answers_go_back() -> Result<()> {
    let Some(lab) = Lab::open("stolen datagrams of a process")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let words = [PYTHON, &source("server.py"), "datagrams", "5353"];
    let session = scene.exec().with(["--steal"]).start(&words)?;
    let ask = format!("udp-connected {} hello", scene.at(5353));
    let seen = wait::until("the app's datagram", || scene.client().must(&ask).map(Some))
        .with_context(|| said(&session))?;
    assert_eq!(seen["answer"]["name"], "datagrams");
    assert_eq!(seen["answer"]["peer"], seen["local"], "the real client is seen");
    listens_as(&session, "0.0.0.0:5353")
}

#[test]
fn a_mirrored_request_is_answered_by_the_target_and_seen_by_both() -> Result<()> {
    let Some(lab) = Lab::open("mirror to a process")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let session = scene.exec().with(["--mirror"]).probe()?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    wait::until_true("a copy", || {
        let answer = scene.client().must(&format!("ask {} http /both", scene.at(80)))?;
        assert_eq!(answer["answer"]["name"], "original");
        Ok(session.app().events("request").iter().any(|seen| seen["peer"] == answer["local"]))
    })
}

#[test]
fn a_port_that_the_app_closes_goes_back_to_the_target() -> Result<()> {
    let Some(lab) = Lab::open("a closed port of a process")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let session = scene.exec().with(["--steal"]).probe()?;
    for _ in 0..2 {
        session.app().must("serve http 0.0.0.0:80 local")?;
        scene.until_answered_by("local", 80)?;
        session.app().must("close 0.0.0.0:80")?;
        scene.until_answered_by("original", 80)?;
    }
    Ok(())
}
