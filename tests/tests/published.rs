//! Flags of the network's owner: ports that are published, networks, aliases, addresses, names.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mirrord_tests::lab::{Container, Lab};
use mirrord_tests::mirrord::Session;
use mirrord_tests::scene::Scene;
use mirrord_tests::wait;

/// Where the host offers one of the app's ports.
fn offered(lab: &Lab, session: &Session<'_>, port: &str) -> Result<String> {
    let published = lab.docker.run(&["port", &session.part("proxy")?, port])?;
    let first = published.lines().next().with_context(|| format!("{port} is not published"))?;
    Ok(first.replace("0.0.0.0", "127.0.0.1"))
}

/// What answers HTTP there.
fn http(address: &str) -> Result<String> {
    wait::until(&format!("an answer from {address}"), || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(wait::PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    })
}

/// What answers a datagram there.
fn datagram(address: &str) -> Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.connect(address)?;
    wait::until(&format!("a datagram from {address}"), || {
        socket.send(b"hello")?;
        let mut buffer = [0; 2048];
        let length = socket.recv(&mut buffer)?;
        Ok(Some(String::from_utf8_lossy(&buffer[..length]).into_owned()))
    })
}

fn answered_by(container: &Container<'_>, name: &str, at: &str) -> Result<()> {
    wait::until_true(&format!("{name} to answer {at}"), || {
        let answer = container.probe().must(&format!("ask {at} http /"))?;
        Ok(answer["answer"]["name"] == name)
    })
}

#[test]
fn every_kind_of_published_port_reaches_the_app() -> Result<()> {
    let Some(lab) = Lab::open("kinds of published ports")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let flags = [
        "-p127.0.0.1::8080",
        "--publish=8090-8091",
        "-p",
        "127.0.0.1:28300-28399:8100",
        "-p",
        "target=8110,protocol=tcp",
        "-p",
        "127.0.0.1::5300/udp",
    ];
    let session = scene.mirrord().docker(flags).probe("app")?;
    for port in [8080, 8090, 8091, 8100, 8110] {
        session.app().must(&format!("serve http 0.0.0.0:{port} app-{port}"))?;
        let answer = http(&offered(&lab, &session, &format!("{port}/tcp"))?)?;
        ensure!(answer.contains(&format!("\"app-{port}\"")), "{port}: {answer}");
    }
    session.app().must("serve udp 0.0.0.0:5300 app-udp")?;
    let answer = datagram(&offered(&lab, &session, "5300/udp")?)?;
    ensure!(answer.contains("app-udp"), "{answer}");
    let range = offered(&lab, &session, "8100/tcp")?;
    ensure!(range.starts_with("127.0.0.1:283"), "out of its range: {range}");
    Ok(())
}

#[test]
fn all_exposed_ports_are_published_on_demand() -> Result<()> {
    let Some(lab) = Lab::open("-P and --expose")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let session = scene.mirrord().docker(["-P", "--expose", "8200-8201"]).probe("app")?;
    for port in [8200, 8201] {
        session.app().must(&format!("serve http 0.0.0.0:{port} app"))?;
        http(&offered(&lab, &session, &format!("{port}/tcp"))?)?;
    }
    Ok(())
}

#[test]
fn the_host_and_peers_reach_the_app_while_it_has_the_targets_traffic() -> Result<()> {
    let Some(lab) = Lab::open("published ports and the target's traffic")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let own = lab.network_with("own", &[])?;
    let peer = lab.container("peer").on(&own).alias("peer").probe()?;
    peer.probe().must("serve http 0.0.0.0:80 peer")?;
    for (mode, answers) in [("--steal", "app"), ("--mirror", "original")] {
        let flags = ["-p", "127.0.0.1::80", "--network", &own, "--network-alias", "web"];
        let session = scene.mirrord().with([mode]).docker(flags).probe(&mode[2..])?;
        session.app().must("serve http 0.0.0.0:80 app")?;
        let host = offered(&lab, &session, "80/tcp")?;
        scene.until_answered_by(answers, 80)?;
        for _ in 0..3 {
            ensure!(http(&host)?.contains("\"app\""), "{mode}: the host's port");
            answered_by(&peer, "app", "web:80")?;
            answered_by(&peer, "app", &format!("{}:80", session.name))?;
            let seen = session.app().must("ask peer:80 http /")?;
            ensure!(seen["answer"]["name"] == "peer", "{mode}: {seen}");
            scene.until_answered_by(answers, 80)?;
        }
    }
    Ok(())
}

#[test]
fn a_port_of_the_host_answers_clients_of_other_networks() -> Result<()> {
    let Some(lab) = Lab::open("replies of published ports")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let session = scene.mirrord().docker(["-p", "8080", "-p", "5300/udp"]).probe("app")?;
    session.app().must("serve http 0.0.0.0:8080 app")?;
    session.app().must("serve udp 0.0.0.0:5300 app")?;
    let far = lab.network_with("far", &[])?;
    let gateway = lab.docker.inspect(&far, "{{(index .IPAM.Config 0).Gateway}}")?;
    let client = lab.container("far").on(&far).probe()?;
    let at = |port: &str| -> Result<String> {
        let offered = offered(&lab, &session, port)?;
        Ok(format!("{gateway}:{}", offered.rsplit(':').next().unwrap_or_default()))
    };
    answered_by(&client, "app", &at("8080/tcp")?)?;
    let answer = client.probe().must(&format!("udp {} hello", at("5300/udp")?))?;
    ensure!(answer["answer"]["name"] == "app", "{answer}");
    Ok(())
}

#[test]
fn several_networks_addresses_and_hosts_are_the_apps() -> Result<()> {
    let Some(lab) = Lab::open("several networks")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let (one, two) = (lab.network("one")?, lab.network("two")?);
    let first = lab.container("first").on(&one).alias("first").probe()?;
    let second = lab.container("second").on(&two).alias("second").probe()?;
    let near = first.address()?;
    let (prefix, _) = near.rsplit_once('.').context("an address")?;
    let address = format!("{prefix}.99");
    let here = format!("name={one},ip={address},alias=uno");
    let there = format!("name={two},alias=due");
    let flags = ["--network", &here, "--network", &there, "--add-host", "up:host-gateway"];
    let session = scene.mirrord().docker(flags).probe("app")?;
    session.app().must("serve http 0.0.0.0:81 app")?;
    for (peer, at) in [(&first, "uno:81"), (&first, &*format!("{address}:81")), (&second, "due:81")]
    {
        answered_by(peer, "app", at)?;
    }
    for (peer, name) in [(&first, "first"), (&second, "second")] {
        peer.probe().must(&format!("serve http 0.0.0.0:82 {name}"))?;
        let seen = session.app().must(&format!("ask {name}:82 http /"))?;
        ensure!(seen["answer"]["name"] == name, "{seen}");
    }
    let gateway = lab.docker.inspect("bridge", "{{(index .IPAM.Config 0).Gateway}}")?;
    let up = session.app().must("resolve up")?;
    ensure!(up.to_string().contains(&gateway), "{up}");
    Ok(())
}
