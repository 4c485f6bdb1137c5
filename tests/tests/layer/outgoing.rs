//! What the app connects to, it connects to from the target: the same words, the same errors.

use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use mirrord_tests::lab::Lab;
use mirrord_tests::scene::Scene;
use mirrord_tests::toolbox::{self, PYTHON, path, source};
use mirrord_tests::{processes, skip};
use nix::unistd::geteuid;
use serde_json::Value;

/// A scene whose client serves on port 7000, TCP, and 7001, UDP.
fn scene(lab: &Lab) -> Result<Scene<'_>> {
    let scene = Scene::open(lab)?;
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    scene.client().must("serve udp 0.0.0.0:7001 peer")?;
    Ok(scene)
}

/// The oracle: the same program of this machine in the target's own network namespace.
fn at_the_target(scene: &Scene<'_>, words: &[&str]) -> Result<String> {
    let pid = scene.lab.docker.inspect(&scene.target.name, "{{.State.Pid}}")?;
    let output = Command::new("nsenter").args(["-n", "-t", &pid]).args(words).output()?;
    ensure!(!output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn as_at_the_target(test: &str, words: &[&str], addresses: &[String]) -> Result<()> {
    let Some(lab) = Lab::open(test)? else {
        return Ok(());
    };
    if !geteuid().is_root() {
        return skip::missing(test, "root, to enter the target's namespace");
    }
    if !toolbox::all(test, &[words[0]])? {
        return Ok(());
    }
    let scene = scene(&lab)?;
    let peer = scene.client.address()?;
    let addresses: Vec<_> = addresses.iter().map(|at| at.replace("PEER", &peer)).collect();
    let words = [words, &addresses.iter().map(String::as_str).collect::<Vec<_>>()].concat();
    let there = sorted(&at_the_target(&scene, &words)?);
    let done = scene.exec().with(["--no-incoming"]).finish(&words)?;
    let here = sorted(&done.stdout);
    let mut differs = String::new();
    for line in here.iter().filter(|line| !there.contains(line)) {
        write!(differs, "\n  here  {line}")?;
    }
    for line in there.iter().filter(|line| !here.contains(line)) {
        write!(differs, "\n  there {line}")?;
    }
    ensure!(differs.is_empty(), "{words:?}{differs}\n{}", done.stderr);
    Ok(())
}

fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Somebody listens, nobody listens, no route leads there.
fn truth() -> Vec<String> {
    ["PEER:7000", "PEER:9", "198.51.100.7:9"].map(str::to_owned).to_vec()
}

#[test]
fn pythons_connections_come_to_what_they_come_to_at_the_target() -> Result<()> {
    as_at_the_target("truth of Python", &[PYTHON, &source("dial.py")], &truth())
}

#[test]
fn nodes_connections_come_to_what_they_come_to_at_the_target() -> Result<()> {
    as_at_the_target("truth of Node", &["node", &source("dial.js")], &truth())
}

#[test]
fn the_connections_of_go_with_cgo_come_to_what_they_come_to_at_the_target() -> Result<()> {
    as_at_the_target("truth of Go with cgo", &[&path("go-cgo"), "dial"], &truth())
}

#[test]
fn static_gos_connections_come_to_what_they_come_to_at_the_target() -> Result<()> {
    as_at_the_target("truth of static Go", &[&path("go-static"), "dial"], &truth())
}

/// One connection of the C program: the answer, and the same from the target's namespace.
fn dialled(program: &str, scene: &Scene<'_>, way: &str, at: (&str, u16)) -> Result<[Value; 2]> {
    let port = at.1.to_string();
    let words = [&path(program), "dial", way, at.0, &port];
    let done = scene.exec().with(["--no-incoming"]).finish(&words)?;
    let read = |text: &str| serde_json::from_str(text).with_context(|| format!("{done:?}"));
    Ok([read(&done.stdout)?, read(&at_the_target(scene, &words)?)?])
}

/// Ephemeral ports differ from run to run.
fn host(address: &Value) -> &str {
    address.as_str().and_then(|text| text.rsplit_once(':')).map_or("", |(host, _)| host)
}

fn every_way_in_c(program: &str) -> Result<()> {
    let Some(lab) = Lab::open("every way to connect")? else {
        return Ok(());
    };
    if !geteuid().is_root() {
        return skip::missing("every way to connect", "root, to enter the target's namespace");
    }
    let scene = scene(&lab)?;
    let peer = scene.client.address()?;
    for way in ["block", "poll", "again", "bound", "six"] {
        let [here, there] = dialled(program, &scene, way, (&peer, 7000))?;
        ensure!(here["result"] == "ok", "{way}: {here}");
        ensure!(here["peer"] == there["peer"], "{way}: {here}, at the target {there}");
        ensure!(host(&here["local"]) == scene.address, "{way}: its own address: {here}");
        let seen = host(&here["answer"]["peer"]);
        ensure!(seen == host(&here["local"]), "{way}: as the far end sees it: {here}");
        let numbers = |told: &Value| [told["client"].clone(), told["spare"].clone()];
        ensure!(numbers(&here) == numbers(&there), "{way}: descriptors: {here}, {there}");
        let [here, there] = dialled(program, &scene, way, (&peer, 9))?;
        ensure!(here["result"] == there["result"], "{way}: {here}, at the target {there}");
    }
    Ok(())
}

#[test]
fn every_way_to_connect_of_a_c_program() -> Result<()> {
    every_way_in_c("app")
}

#[test]
fn every_way_to_connect_of_a_musl_program() -> Result<()> {
    every_way_in_c("app-musl")
}

#[test]
fn a_host_that_is_not_there_is_unreachable() -> Result<()> {
    let Some(lab) = Lab::open("EHOSTUNREACH")? else {
        return Ok(());
    };
    if !geteuid().is_root() {
        return skip::missing("EHOSTUNREACH", "root, to enter the target's namespace");
    }
    let scene = scene(&lab)?;
    let (subnet, _) = scene.address.rsplit_once('.').context("an address")?;
    for way in ["block", "poll"] {
        let [here, there] = dialled("app", &scene, way, (&format!("{subnet}.250"), 7000))?;
        assert_eq!(there["result"], "EHOSTUNREACH", "{way}");
        assert_eq!(here["result"], there["result"], "{way}");
    }
    Ok(())
}

#[test]
fn datagrams_leave_from_the_target_and_their_answers_come_back() -> Result<()> {
    let Some(lab) = Lab::open("outgoing datagrams of a process")? else {
        return Ok(());
    };
    let scene = scene(&lab)?;
    let at = format!("{}:7001", scene.client.address()?);
    let session = scene.exec().with(["--no-incoming"]).probe()?;
    for ask in [
        format!("udp {at} hello"),
        "udp client:7001 hello".to_owned(),
        format!("udp-connected {at} hello"),
    ] {
        let seen = session.app().must(&ask)?;
        assert_eq!(seen["answer"]["text"], "hello", "{ask}");
        assert_eq!(host(&seen["answer"]["peer"]), scene.address, "{ask}");
        assert_eq!(seen["from"], at.as_str(), "{ask}");
    }
    let connected = session.app().must(&format!("udp-connected {at} hello"))?;
    assert_eq!(host(&connected["local"]), scene.address, "which address is mine: {connected}");
    for size in [513, 1400, 9000] {
        let seen = session.app().must(&format!("udp big {at} {size}"))?;
        assert_eq!(seen["bytes"], size);
    }
    Ok(())
}

#[test]
fn many_connections_and_many_bytes_go_through() -> Result<()> {
    let Some(lab) = Lab::open("many connections of a process")? else {
        return Ok(());
    };
    let scene = scene(&lab)?;
    let session = scene.exec().with(["--steal"]).probe()?;
    session.app().must("serve tcp 0.0.0.0:7000 local")?;
    scene.until_whoami("local", 7000)?;
    for (who, at) in [(session.app(), "client:7000".to_owned()), (scene.client(), scene.at(7000))] {
        assert_eq!(who.must(&format!("many {at} 200"))?["intact"], 200, "{at}");
        assert_eq!(who.must(&format!("half {at} 300000"))?["intact"], true, "{at}");
        assert_eq!(who.must(&format!("upload {at} 50000000"))?["intact"], true, "{at}");
        assert_eq!(who.must(&format!("download {at} 50000000"))?["intact"], true, "{at}");
        assert_eq!(who.must(&format!("see-reset {at}"))?["errno"], "ECONNRESET", "{at}");
        who.must(&format!("send-reset {at}"))?;
    }
    let reset = |event: &Value| event["errno"] == "ECONNRESET";
    scene.client().event("ended", reset)?;
    session.app().event("ended", reset)?;
    Ok(())
}

#[test]
fn loopback_stays_the_apps_own() -> Result<()> {
    let Some(lab) = Lab::open("loopback of a process")? else {
        return Ok(());
    };
    let scene = scene(&lab)?;
    let session = scene.exec().with(["--steal"]).probe()?;
    let app = session.app();
    app.must("serve tcp 127.0.0.1:7000 local")?;
    for at in ["127.0.0.1:7000", "localhost:7000", "0.0.0.0:7000"] {
        let seen = app.must(&format!("ask {at} whoami"))?;
        assert_eq!(seen["answer"]["name"], "local", "{at}");
    }
    app.must("serve udp 127.0.0.1:7001 local")?;
    let seen = app.must("udp 127.0.0.1:7001 hello")?;
    assert_eq!(seen["answer"]["name"], "local");
    assert_eq!(seen["from"], "127.0.0.1:7001");
    let refused = app.ask("connect 127.0.0.1:9")?;
    assert_eq!(refused["errno"], "ECONNREFUSED");
    Ok(())
}

#[test]
fn what_is_not_to_leave_from_the_target_leaves_from_here() -> Result<()> {
    let Some(lab) = Lab::open("--no-outgoing of a process")? else {
        return Ok(());
    };
    let scene = scene(&lab)?;
    let peer = scene.client.address()?;
    for (option, tcp, udp) in [
        ("--no-outgoing", false, false),
        ("--no-tcp-outgoing", false, true),
        ("--no-udp-outgoing", true, false),
    ] {
        let session = scene.exec().with(["--no-incoming", option]).probe()?;
        // This machine has a foot in the network of the lab: it is reached either way.
        let seen = session.app().must(&format!("ask {peer}:7000 whoami"))?;
        assert_eq!(host(&seen["answer"]["peer"]) == scene.address, tcp, "{option}: {seen}");
        let seen = session.app().must(&format!("udp {peer}:7001 hello"))?;
        assert_eq!(host(&seen["answer"]["peer"]) == scene.address, udp, "{option}: {seen}");
    }
    Ok(())
}

#[test]
fn a_connection_that_the_app_gives_up_disturbs_nobody() -> Result<()> {
    let Some(lab) = Lab::open("connections given up")? else {
        return Ok(());
    };
    let scene = scene(&lab)?;
    let session = scene.exec().with(["--no-incoming"]).probe()?;
    let (subnet, _) = scene.address.rsplit_once('.').context("an address")?;
    for _ in 0..20 {
        let given_up = session.app().ask(&format!("connect {subnet}.251:7000 20"))?;
        assert_eq!(given_up["ok"], false, "{given_up}");
    }
    session.app().must("ask client:7000 whoami")?;
    Ok(())
}

/// Dials from another process of mirrord, started by the words `user`; whether a process carried the
/// bytes to the agent.
fn is_carried(lab: &Lab, scene: &Scene<'_>, user: &[&str]) -> Result<bool> {
    let peer = scene.client.address()?;
    let line = format!("{} dial block {peer} 7000; echo $MIRRORD_LAYER; read end", path("app"));
    let exec = scene.exec().with(["-q", "--no-incoming"]).command(&["sh", "-c", &line]);
    let mut command = Command::new("env");
    lab.docker.aim(&mut command);
    command.args(user).arg(exec.get_program()).args(exec.get_args());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no pipe")?).lines();
    let mut line = || anyhow::Ok(lines.next().context("it ended")??);
    let seen: Value = serde_json::from_str(&line()?)?;
    ensure!(host(&seen["answer"]["peer"]) == scene.address, "{seen}");
    let layer = line()?;
    let session = layer.split('-').nth(1).context("no session")?;
    let agent = lab.docker.inspect(&format!("mirrord-agent-{session}"), "{{.Id}}")?;
    let agents = processes::of_container(&agent);
    drop(child.stdin.take());
    child.wait()?;
    Ok(agents.iter().any(|agent| agent.args.iter().any(|word| word == "--pipe")))
}

#[test]
fn bytes_are_carried_only_for_who_may_not_enter_the_engines_volumes() -> Result<()> {
    let Some(lab) = Lab::open("the agent's own socket")? else {
        return Ok(());
    };
    let engine =
        std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".into());
    let group = std::fs::metadata(engine.trim_start_matches("unix://")).map(|socket| socket.gid());
    let (Ok(group), true) = (group, geteuid().is_root()) else {
        return skip::missing("the agent's own socket", "root, and an engine on this machine");
    };
    let scene = scene(&lab)?;
    ensure!(!is_carried(&lab, &scene, &[])?, "root needs nobody between");
    let group = group.to_string();
    let nobody = ["HOME=/", "setpriv", "--reuid", "65534", "--regid", &group, "--clear-groups"];
    ensure!(is_carried(&lab, &scene, &nobody)?, "another user has no other way");
    Ok(())
}
