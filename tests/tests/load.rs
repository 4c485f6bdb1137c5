//! Many connections, many bytes, readers that do not read.

use anyhow::{Context, Result, ensure};
use mirrord_tests::lab::Lab;
use mirrord_tests::leftovers::alone;
use mirrord_tests::mirrord::Session;
use mirrord_tests::remote::Probe;
use mirrord_tests::scene::Scene;
use mirrord_tests::wait;
use serde_json::Value;

const GIGABYTE: u64 = 1_000_000_000;
/// What proxy and agent together may grow by while readers are slow.
const GROWTH: u64 = 24 * 1024 * 1024;

/// The app serves port 7000 in the target's place, and the client serves it for the app.
fn both_ways<'lab>(scene: &Scene<'lab>) -> Result<Session<'lab>> {
    scene.client().must("serve tcp 0.0.0.0:7000 peer")?;
    let session = scene.mirrord().with(["--steal"]).probe("app")?;
    session.app().must("serve tcp 0.0.0.0:7000 local")?;
    scene.until_whoami("local", 7000)?;
    Ok(session)
}

fn memory(session: &Session<'_>) -> Result<u64> {
    Ok(session.process("proxy")?.rss + session.process("agent")?.rss)
}

#[test]
fn a_thousand_connections_at_once_each_way() -> Result<()> {
    let _alone = alone();
    let Some(lab) = Lab::open("1,000 connections")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let session = both_ways(&scene)?;
    for (who, at) in [(session.app(), "client:7000".to_owned()), (scene.client(), scene.at(7000))] {
        let told = who.must(&format!("many {at} 1000"))?;
        assert_eq!(told["intact"], 1000, "{at}: {told}");
    }
    Ok(())
}

#[test]
fn a_thousand_connections_both_ways_at_the_same_time() -> Result<()> {
    let _alone = alone();
    let Some(lab) = Lab::open("1,000 connections both ways")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let session = both_ways(&scene)?;
    let out = session.app().send("many client:7000 1000")?;
    let into = scene.client().send(&format!("many {} 1000", scene.at(7000)))?;
    assert_eq!(session.app().answer(&out)?["intact"], 1000);
    assert_eq!(scene.client().answer(&into)?["intact"], 1000);
    Ok(())
}

#[test]
fn a_gigabyte_each_way_arrives_to_the_byte() -> Result<()> {
    let _alone = alone();
    let Some(lab) = Lab::open("a gigabyte")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let session = both_ways(&scene)?;
    let start = memory(&session)?;
    for (who, at) in [(session.app(), "client:7000".to_owned()), (scene.client(), scene.at(7000))] {
        for way in ["upload", "download"] {
            let told = who.must(&format!("{way} {at} {GIGABYTE}"))?;
            assert_eq!(told["bytes"], GIGABYTE, "{way} {at}: {told}");
            assert_eq!(told["intact"], true, "{way} {at}: {told}");
        }
    }
    let grown = memory(&session)?.saturating_sub(start);
    ensure!(grown < GROWTH, "{grown} bytes of memory stay after it");
    Ok(())
}

#[test]
fn a_mirrored_upload_arrives_to_the_byte_or_is_cut_off_and_told() -> Result<()> {
    let _alone = alone();
    let Some(lab) = Lab::open("mirrored bytes")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    scene.target.probe().must("serve tcp 0.0.0.0:7000 original")?;
    let session = scene.mirrord().probe("app")?;
    session.app().must("serve tcp 0.0.0.0:7000 local")?;
    wait::until("a mirrored connection", || {
        scene.client().must(&format!("ask {} whoami", scene.at(7000)))?;
        Ok(session.app().events("accept").first().cloned())
    })?;
    // The small ones fit into what may wait for the app; the large ones need not.
    let sizes = [2_000_000, 2_000_000, 10_000_000, 20_000_000, 40_000_000];
    for size in sizes {
        let told = scene.client().must(&format!("upload {} {size}", scene.at(7000)))?;
        assert_eq!((&told["bytes"], &told["intact"]), (&size.into(), &true.into()));
    }
    let app = session.app();
    wait::until_true("every copy's end", || {
        let ended = ["sunk", "error", "empty"].map(|how| app.events(how).len());
        Ok(ended.iter().sum::<usize>() >= sizes.len())
    })
    .with_context(|| session.stderr())?;
    let whole = app.events("sunk");
    let complete = |copy: &Value| sizes.iter().any(|size| copy["bytes"] == *size);
    assert!(whole.iter().all(|copy| copy["intact"] == true && complete(copy)), "{whole:?}");
    assert!(whole.len() >= 2, "{whole:?}");
    if whole.len() < sizes.len() {
        wait::until_true("a word about it", || Ok(session.stderr().contains("left out")))?;
    }
    Ok(())
}

#[test]
fn a_reader_that_does_not_read_grows_no_memory_and_stalls_nobody() -> Result<()> {
    let _alone = alone();
    let Some(lab) = Lab::open("slow readers")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let session = both_ways(&scene)?;
    let start = memory(&session)?;
    stall(session.app(), "client:7000")?;
    stall(scene.client(), &scene.at(7000))?;
    let grown = memory(&session)?.saturating_sub(start);
    ensure!(grown < GROWTH, "sixteen stalled streams hold {grown} bytes");
    for (who, at) in [(session.app(), "client:7000".to_owned()), (scene.client(), scene.at(7000))] {
        let told = who.must(&format!("download {at} 50000000"))?;
        assert_eq!(told["intact"], true, "beside stalled streams: {told}");
        who.must(&format!("half {at} 1000000"))?;
    }
    session.app().must("release")?;
    scene.client().must("release")?;
    session.app().must("ask client:7000 whoami")?;
    Ok(())
}

/// Four writers that nobody reads, and four readers that do not read.
fn stall(who: &Probe, at: &str) -> Result<()> {
    for _ in 0..4 {
        let taken = who.must(&format!("push {at} 500"))?["taken"].as_u64().unwrap_or(0);
        ensure!(taken < 64 * 1024 * 1024, "{taken} bytes went somewhere that nobody reads");
        who.must(&format!("hold {at} source 200000000"))?;
    }
    Ok(())
}

/// So many sockets that are not connected the agent may have given the proxy.
const GIVEN: usize = 32;

#[test]
fn connections_come_and_go_without_leaving_anything() -> Result<()> {
    let _alone = alone();
    let Some(lab) = Lab::open("short connections")? else {
        return Ok(());
    };
    let scene = Scene::open(&lab)?;
    let session = both_ways(&scene)?;
    session.app().must("rate client:7000 1 2")?;
    let (sockets, start) = (open_files(&session)?, memory(&session)?);
    session.app().must("rate client:7000 2 4")?;
    scene.client().must(&format!("rate {} 2 4", scene.at(7000)))?;
    wait::until_true("the connections to be forgotten", || {
        Ok(open_files(&session)? <= sockets + GIVEN + 4)
    })?;
    let grown = memory(&session)?.saturating_sub(start);
    ensure!(grown < GROWTH, "{grown} bytes stay after thousands of connections");
    Ok(())
}

/// How many files proxy and agent have open.
fn open_files(session: &Session<'_>) -> Result<usize> {
    let count = |role| -> Result<usize> {
        let pid = session.process(role)?.pid;
        Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
    };
    Ok(count("proxy")? + count("agent")?)
}
