//! The app's outgoing connections and datagrams leave from the target.

use std::time::{Duration, Instant};

use anyhow::Result;
use mirrord_tests::lab::{DEBIAN, Lab};
use mirrord_tests::scene::Scene;
use mirrord_tests::wait;
use serde_json::Value;

/// The host part of `HOST:PORT`.
fn host(address: &Value) -> &str {
    address.as_str().and_then(|text| text.rsplit_once(':')).map_or("", |(host, _)| host)
}

#[test]
fn a_connection_by_address_leaves_from_the_target() -> Result<()> {
    let Some(lab) = Lab::open("outgoing by address")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let at = format!("{}:7000", scene.client.address()?);
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    let session = scene.mirrord().probe("app")?;
    let seen = session.app().must(&format!("ask {at} whoami"))?;
    assert_eq!(host(&seen["answer"]["peer"]), scene.address, "the peer sees the target");
    assert_eq!(host(&seen["local"]), scene.address, "so does the app itself");
    assert_eq!(seen["peer"], at.as_str());
    Ok(())
}

#[test]
fn a_connected_datagram_socket_hears_that_nobody_listens() -> Result<()> {
    let Some(lab) = Lab::open("refused datagrams")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let ask = format!("udp-connected {}:9 hello", scene.client.address()?);
    let there = scene.target.probe().ask(&ask)?;
    assert_eq!(there["errno"], "ECONNREFUSED", "the oracle itself");
    let session = scene.mirrord().probe("app")?;
    for _ in 0..3 {
        assert_eq!(session.app().ask(&ask)?["errno"], there["errno"]);
    }
    Ok(())
}

#[test]
fn a_connection_by_a_name_that_only_the_targets_network_knows_leaves_from_the_target() -> Result<()>
{
    let Some(lab) = Lab::open("outgoing by name")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    let session = scene.mirrord().probe("app")?;
    let seen = session.app().must("ask client:7000 whoami")?;
    assert_eq!(seen["answer"]["name"], "peer");
    assert_eq!(host(&seen["answer"]["peer"]), scene.address);
    Ok(())
}

#[test]
fn a_connection_from_the_targets_address_is_one() -> Result<()> {
    let Some(lab) = Lab::open("bind before connect")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    let session = scene.mirrord().probe("app")?;
    let seen = session.app().must(&format!("connect-from {}:0 client:7000", scene.address))?;
    assert_eq!(host(&seen["answer"]["peer"]), scene.address);
    Ok(())
}

#[test]
fn datagrams_leave_from_the_target_and_their_answers_come_back() -> Result<()> {
    let Some(lab) = Lab::open("outgoing datagrams")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let at = format!("{}:7001", scene.client.address()?);
    scene.client().must("serve udp 0.0.0.0:7001 peer")?;
    let session = scene.mirrord().probe("app")?;
    for (ask, from) in [
        (format!("udp {at} hello"), at.clone()),
        ("udp client:7001 hello".to_owned(), at.clone()),
        (format!("udp-connected {at} hello"), at.clone()),
    ] {
        let seen = session.app().must(&ask)?;
        assert_eq!(seen["answer"]["text"], "hello", "{ask}");
        assert_eq!(host(&seen["answer"]["peer"]), scene.address, "{ask}");
        assert_eq!(seen["from"], from.as_str(), "{ask}");
    }
    for size in [1, 1400, 1472, 9000] {
        let seen = session.app().must(&format!("udp big {at} {}", size.max(513)))?;
        assert_eq!(seen["bytes"], size.max(513));
    }
    Ok(())
}

#[test]
fn one_datagram_socket_talks_to_many_peers() -> Result<()> {
    let Some(lab) = Lab::open("several datagram peers")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let session = scene.mirrord().probe("app")?;
    for port in 7101..7109 {
        scene.client().must(&format!("serve udp 0.0.0.0:{port} peer{port}"))?;
        let seen = session.app().must(&format!("udp client:{port} hello"))?;
        assert_eq!(seen["answer"]["name"], format!("peer{port}"));
    }
    Ok(())
}

#[test]
fn a_connection_that_the_far_side_refuses_ends_at_once() -> Result<()> {
    let Some(lab) = Lab::open("refused connections")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let peer = scene.client.address()?;
    let session = scene.mirrord().probe("app")?;
    let start = Instant::now();
    // Nobody listens there, and no route leads there.
    for address in [format!("{peer}:9"), "198.51.100.7:9".to_owned()] {
        let there = scene.target.probe().ask(&format!("ask {address} whoami"))?;
        assert_eq!(there["ok"], false, "{address}: {there}");
        let here = session.app().ask(&format!("ask {address} whoami"))?;
        let told = here["errno"] == there["errno"] || here["errno"] == "ECONNRESET";
        assert!(told && here["ok"] == false, "{address}: {here}");
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    Ok(())
}

#[test]
fn half_closed_and_reset_connections_leave_as_what_they_are() -> Result<()> {
    let Some(lab) = Lab::open("half-close and reset, outgoing")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    let session = scene.mirrord().probe("app")?;
    let (app, at) = (session.app(), "client:7000");
    let half = app.must(&format!("half {at} 300000"))?;
    assert_eq!((&half["bytes"], &half["intact"]), (&Value::from(300_000), &Value::from(true)));
    assert_eq!(app.must(&format!("fin-first {at} 100000"))?["read"], 0);
    scene.client().event("after-fin", |event| event["bytes"] == 100_000)?;
    assert_eq!(app.must(&format!("see-reset {at}"))?["errno"], "ECONNRESET");
    app.must(&format!("send-reset {at}"))?;
    scene.client().event("ended", |event| event["errno"] == "ECONNRESET")?;
    Ok(())
}

#[test]
fn the_apps_own_networks_stay_direct_and_its_peers_keep_their_names() -> Result<()> {
    let Some(lab) = Lab::open("the app's own networks")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let own = lab.network("own")?;
    let neighbour = lab.container("neighbour").on(&own).alias("neighbour").probe()?;
    neighbour.probe().must("serve tcp 0.0.0.0:7000 neighbour")?;
    neighbour.probe().must("serve udp 0.0.0.0:7001 neighbour")?;
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    let session = scene.mirrord().docker(["--network", own.as_str()]).probe("app")?;
    let app = session.app();
    let near = app.must("ask neighbour:7000 whoami")?;
    assert_eq!(near["answer"]["name"], "neighbour");
    let (subnet, _) = host(&near["answer"]["local"]).rsplit_once('.').unwrap_or_default();
    assert!(host(&near["answer"]["peer"]).starts_with(subnet), "not through the target: {near}");
    assert_eq!(app.must("udp neighbour:7001 hello")?["answer"]["name"], "neighbour");
    let far = app.must("ask client:7000 whoami")?;
    assert_eq!(host(&far["answer"]["peer"]), scene.address, "the others leave from the target");
    Ok(())
}

#[test]
fn a_published_port_is_reached_from_the_host() -> Result<()> {
    let Some(lab) = Lab::open("published ports")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let session = scene.mirrord().docker(["-p", "127.0.0.1::8080"]).probe("app")?;
    session.app().must("serve http 0.0.0.0:8080 local")?;
    let sidecar = format!("mirrord-proxy-{}", session.id()?);
    let published = lab.docker.run(&["port", &sidecar, "8080/tcp"])?;
    let address = published.lines().next().unwrap_or_default().to_owned();
    let answer = mirrord_tests::wait::until("the published port", || {
        let stream = std::net::TcpStream::connect(&address)?;
        ask_http(stream).map(Some)
    })?;
    assert!(answer.contains("\"local\""), "{answer}");
    Ok(())
}

fn ask_http(mut stream: std::net::TcpStream) -> Result<String> {
    use std::io::{Read, Write};
    stream.set_read_timeout(Some(mirrord_tests::wait::PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn what_is_not_to_leave_from_the_target_does_not() -> Result<()> {
    let Some(lab) = Lab::open("--no-outgoing")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let address = scene.client.address()?;
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    scene.client().must("serve udp 0.0.0.0:7001 peer")?;
    for (option, tcp, udp) in [
        ("--no-outgoing", false, false),
        ("--no-tcp-outgoing", false, true),
        ("--no-udp-outgoing", true, false),
    ] {
        let mut session = scene.mirrord().with([option]).probe(&option[2..])?;
        let app = session.app();
        let connected = app.ask(&format!("connect {address}:7000 1500"))?;
        assert_eq!(connected["ok"], tcp, "{option}: {connected}");
        let answered = app.ask(&format!("udp {address}:7001 hello"))?;
        assert_eq!(answered["ok"], udp, "{option}: {answered}");
        session.end()?;
    }
    Ok(())
}

#[test]
fn loopback_stays_the_apps_own() -> Result<()> {
    let Some(lab) = Lab::open("loopback of the app")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let session = scene.mirrord().with(["--no-incoming"]).probe("app")?;
    session.app().must("serve tcp 127.0.0.1:7000 local")?;
    let seen = session.app().must("ask 127.0.0.1:7000 whoami")?;
    assert_eq!(seen["answer"]["name"], "local");
    let refused = session.app().ask("connect 127.0.0.1:80")?;
    assert_eq!(refused["errno"], "ECONNREFUSED", "the target's loopback is not the app's");
    Ok(())
}

#[test]
fn what_the_app_wrote_before_it_ended_arrives() -> Result<()> {
    const SINK: &str = "
import socket
listener = socket.create_server(('', 7000))
while True:
    peer, _ = listener.accept()
    total = 0
    while data := peer.recv(65536):
        total += len(data)
    print('got', total, flush=True)
";
    const SOURCE: &str = "
import socket
socket.create_connection(('sink', 7000)).sendall(bytes(3_000_000))
";
    let Some(lab) = Lab::open("last bytes")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let sink = lab.container("sink").on(&scene.inner).alias("sink");
    let sink = sink.start(DEBIAN, &["python3", "-c", SINK])?;
    for round in 1..=3 {
        let finished = scene.mirrord().finish(DEBIAN, &["python3", "-c", SOURCE])?;
        assert_eq!(finished.code, 0, "{}", finished.stderr);
        wait::until("all of it at the sink", || {
            Ok((sink.logs()?.matches("got 3000000").count() == round).then_some(()))
        })?;
    }
    Ok(())
}
