//! The target's incoming traffic: stolen, mirrored or left alone.

use anyhow::Result;
use mirrord_tests::lab::Lab;
use mirrord_tests::scene::Scene;
use mirrord_tests::wait;
use serde_json::Value;

#[test]
fn a_stolen_request_is_answered_by_the_app_and_not_seen_by_the_target() -> Result<()> {
    let Some(lab) = Lab::open("steal")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let mut session = scene.mirrord().with(["--steal"]).probe("app")?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    scene.until_answered_by("local", 80)?;
    let before = scene.target.probe().events("request").len();
    scene.client().must(&format!("ask {} http /stolen", scene.at(80)))?;
    session.app().event("request", |request| request["path"] == "/stolen")?;
    assert_eq!(scene.target.probe().events("request").len(), before);
    assert_eq!(session.end()?, 0);
    assert_eq!(scene.answers(80)?["name"], "original");
    Ok(())
}

#[test]
fn a_mirrored_request_is_answered_by_the_target_and_seen_by_both() -> Result<()> {
    let Some(lab) = Lab::open("mirror")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let session = scene.mirrord().with(["--mirror"]).probe("app")?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    until_mirrored(&scene, session.app())?;
    let answer = scene.client().must(&format!("ask {} http /both", scene.at(80)))?;
    assert_eq!(answer["answer"]["name"], "original");
    let seen = session.app().event("request", |request| request["path"] == "/both")?;
    assert_eq!(seen["peer"], answer["local"], "the copy comes from the real client");
    scene.target.probe().event("request", |request| request["path"] == "/both")?;
    Ok(())
}

#[test]
fn mirroring_is_the_default() -> Result<()> {
    let Some(lab) = Lab::open("mirror by default")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let session = scene.mirrord().probe("app")?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    until_mirrored(&scene, session.app())
}

#[test]
fn no_incoming_leaves_everything_with_the_target() -> Result<()> {
    let Some(lab) = Lab::open("--no-incoming")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let session = scene.mirrord().with(["--no-incoming"]).probe("app")?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    session.app().must("serve http 0.0.0.0:81 local")?;
    // A session that steals subscribes a port within this time: nothing else shows an absence.
    session.app().must("sleep 1500")?;
    assert_eq!(scene.answers(80)?["name"], "original");
    assert!(session.app().events("request").is_empty());
    let refused = scene.client().ask(&format!("connect {}", scene.at(81)))?;
    assert_eq!(refused["errno"], "ECONNREFUSED");
    Ok(())
}

#[test]
fn a_local_port_takes_the_place_of_another_one_of_the_target() -> Result<()> {
    let Some(lab) = Lab::open("--port LOCAL:REMOTE")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let session = scene.mirrord().with(["--steal", "--port", "8080:80"]).probe("app")?;
    session.app().must("serve http 0.0.0.0:8080 local")?;
    session.app().must("serve http 0.0.0.0:9090 other")?;
    scene.until_answered_by("local", 80)?;
    let refused = scene.client().ask(&format!("connect {}", scene.at(9090)))?;
    assert_eq!(refused["errno"], "ECONNREFUSED", "only the named port is subscribed");
    Ok(())
}

#[test]
fn ignored_ports_stay_with_the_target() -> Result<()> {
    let Some(lab) = Lab::open("--ignore-ports")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    scene.target.probe().must("serve http 0.0.0.0:81 original")?;
    let session = scene.mirrord().with(["--steal", "--ignore-ports", "80"]).probe("app")?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    session.app().must("serve http 0.0.0.0:81 local")?;
    scene.until_answered_by("local", 81)?;
    assert_eq!(scene.answers(80)?["name"], "original");
    Ok(())
}

#[test]
fn an_app_without_any_capability_serves_the_targets_port_80() -> Result<()> {
    let Some(lab) = Lab::open("port 80 without capability")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let session = scene
        .mirrord()
        .with(["--steal"])
        .docker(["--cap-drop", "ALL", "--user", "1000:1000"])
        .probe("app")?;
    let sets = session.app().must("capabilities")?;
    assert_eq!(sets["capabilities"]["Bnd"], "0000000000000000");
    session.app().must("serve http 0.0.0.0:80 local")?;
    scene.until_answered_by("local", 80)?;
    Ok(())
}

#[test]
fn the_app_sees_the_real_client_and_the_targets_own_address() -> Result<()> {
    let Some(lab) = Lab::open("addresses of stolen connections")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let session = scene.mirrord().with(["--steal"]).probe("app")?;
    session.app().must("serve tcp 0.0.0.0:7000 local")?;
    let answer = scene.until_whoami("local", 7000)?;
    assert_eq!(answer["answer"]["peer"], answer["local"]);
    assert_eq!(answer["answer"]["local"], scene.at(7000).as_str());
    Ok(())
}

#[test]
fn the_app_binds_to_the_targets_address() -> Result<()> {
    let Some(lab) = Lab::open("bind to the target's address")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let session = scene.mirrord().with(["--steal"]).probe("app")?;
    session.app().must(&format!("serve tcp {} local", scene.at(7000)))?;
    let answer = scene.until_whoami("local", 7000)?;
    assert_eq!(answer["answer"]["peer"], answer["local"]);
    Ok(())
}

#[test]
fn an_app_that_listens_only_on_loopback_is_reached() -> Result<()> {
    let Some(lab) = Lab::open("listen on loopback")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let session = scene.mirrord().with(["--steal"]).probe("app")?;
    session.app().must("serve tcp 127.0.0.1:7000 local")?;
    scene.until_whoami("local", 7000)?;
    Ok(())
}

#[test]
fn a_port_that_the_app_closes_goes_back_to_the_target() -> Result<()> {
    let Some(lab) = Lab::open("a closed port")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let session = scene.mirrord().with(["--steal"]).probe("app")?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    scene.until_answered_by("local", 80)?;
    session.app().must("close 0.0.0.0:80")?;
    scene.until_answered_by("original", 80)?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    scene.until_answered_by("local", 80)?;
    Ok(())
}

#[test]
fn the_targets_own_loopback_connections_are_not_stolen() -> Result<()> {
    let Some(lab) = Lab::open("loopback in the target")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let session = scene.mirrord().with(["--steal"]).probe("app")?;
    session.app().must("serve http 0.0.0.0:80 local")?;
    scene.until_answered_by("local", 80)?;
    let answer = scene.target.exec(&["/probe", "ask", "127.0.0.1:80", "http", "/health"])?;
    assert!(answer.contains("original"), "{answer}");
    Ok(())
}

#[test]
fn a_connection_that_was_open_stays_with_the_target() -> Result<()> {
    let Some(lab) = Lab::open("established connections")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    scene.target.probe().must("serve tcp 0.0.0.0:7000 original")?;
    let slow = scene.client().send(&format!("latency {} 60000", scene.at(7000)))?;
    scene
        .target
        .probe()
        .event("accept", |accepted| accepted["local"] == scene.at(7000).as_str())?;
    let session = scene.mirrord().with(["--steal"]).probe("app")?;
    session.app().must("serve tcp 0.0.0.0:7000 local")?;
    scene.until_whoami("local", 7000)?;
    assert_eq!(scene.client().answer(&slow)?["ok"], true);
    Ok(())
}

#[test]
fn stolen_datagrams_are_answered_by_the_app_as_the_target() -> Result<()> {
    let Some(lab) = Lab::open("stolen datagrams")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    scene.target.probe().must("serve udp 0.0.0.0:5353 original")?;
    let session = scene.mirrord().with(["--steal"]).probe("app")?;
    session.app().must("serve udp 0.0.0.0:5353 local")?;
    let answer = wait::until("the app's datagram", || {
        let answer = scene.client().must(&format!("udp {} hello", scene.at(5353)))?;
        Ok(Some(answer).filter(|answer| answer["answer"]["name"] == "local"))
    })?;
    assert_eq!(answer["from"], scene.at(5353).as_str());
    let connected = scene.client().must(&format!("udp-connected {} hello", scene.at(5353)))?;
    assert_eq!(connected["answer"]["peer"], connected["local"], "the real client is seen");
    let large = scene.client().must(&format!("udp big {} 1400", scene.at(5353)))?;
    assert_eq!(large["bytes"], 1400);
    Ok(())
}

#[test]
fn a_datagram_port_takes_the_place_of_another_one() -> Result<()> {
    let Some(lab) = Lab::open("--port LOCAL:REMOTE/udp")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let mapped = ["--steal", "--port", "6000:5353/udp"];
    let session = scene.mirrord().with(mapped).probe("app")?;
    session.app().must("serve udp 0.0.0.0:6000 local")?;
    let answer = wait::until("the app's datagram", || {
        let answer = scene.client().ask(&format!("udp {} hello", scene.at(5353)))?;
        Ok(Some(answer).filter(|answer| answer["answer"]["name"] == "local"))
    })?;
    assert_eq!(answer["from"], scene.at(5353).as_str());
    Ok(())
}

#[test]
fn mirrored_datagrams_reach_both() -> Result<()> {
    let Some(lab) = Lab::open("mirrored datagrams")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    scene.target.probe().must("serve udp 0.0.0.0:5353 original")?;
    let session = scene.mirrord().probe("app")?;
    session.app().must("serve udp 0.0.0.0:5353 local")?;
    wait::until("a copied datagram", || {
        let answer = scene.client().must(&format!("udp {} hello", scene.at(5353)))?;
        assert_eq!(answer["answer"]["name"], "original");
        Ok(session.app().events("datagram").first().cloned())
    })?;
    Ok(())
}

#[test]
fn half_closed_and_reset_connections_arrive_as_what_they_are() -> Result<()> {
    let Some(lab) = Lab::open("half-close and reset, incoming")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let session = scene.mirrord().with(["--steal"]).probe("app")?;
    session.app().must("serve tcp 0.0.0.0:7000 local")?;
    scene.until_whoami("local", 7000)?;
    ends_are_told(&scene, session.app())
}

#[test]
fn without_the_product_the_ends_are_told_the_same() -> Result<()> {
    let Some(lab) = Lab::open("half-close and reset, plain")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    scene.target.probe().must("serve tcp 0.0.0.0:7000 original")?;
    ends_are_told(&scene, scene.target.probe())
}

/// How connections end, as both sides see it.
fn ends_are_told(scene: &Scene<'_>, server: &mirrord_tests::remote::Probe) -> Result<()> {
    let (client, at) = (scene.client(), scene.at(7000));
    let half = client.must(&format!("half {at} 300000"))?;
    assert_eq!((&half["bytes"], &half["intact"]), (&Value::from(300_000), &Value::from(true)));
    let first = client.must(&format!("fin-first {at} 100000"))?;
    assert_eq!(first["read"], 0);
    server.event("after-fin", |event| event["bytes"] == 100_000)?;
    assert_eq!(client.must(&format!("see-reset {at}"))?["errno"], "ECONNRESET");
    client.must(&format!("send-reset {at}"))?;
    server.event("ended", |event| event["errno"] == "ECONNRESET")?;
    Ok(())
}

#[test]
fn a_connection_that_was_open_is_not_mirrored_and_the_next_one_is() -> Result<()> {
    let Some(lab) = Lab::open("established connections, mirrored")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    scene.target.probe().must("serve tcp 0.0.0.0:7000 original")?;
    scene.client().must(&format!("hold {} echo", scene.at(7000)))?;
    let session = scene.mirrord().probe("app")?;
    session.app().must("serve tcp 0.0.0.0:7000 local")?;
    let ask = format!("ask {} whoami", scene.at(7000));
    wait::until("a copy", || {
        scene.client().must(&ask)?;
        Ok(session.app().events("accept").first().cloned())
    })?;
    let old = scene.client().must("talk 20000")?["locals"][0].clone();
    let new = scene.client().must(&ask)?["local"].clone();
    session.app().event("accept", |accepted| accepted["peer"] == new)?;
    let copied = session.app().events("accept");
    assert!(copied.iter().all(|accepted| accepted["peer"] != old), "{old} in {copied:?}");
    assert!(!session.stderr().contains("left out"), "skipped is not lost: {}", session.stderr());
    Ok(())
}

/// A copy comes as soon as the app's port is subscribed; the client asks until then.
fn until_mirrored(scene: &Scene<'_>, app: &mirrord_tests::remote::Probe) -> Result<()> {
    wait::until("a mirrored request", || {
        assert_eq!(scene.answers(80)?["name"], "original");
        Ok(app.events("request").first().cloned())
    })?;
    Ok(())
}
