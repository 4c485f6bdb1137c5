//! The way to the cluster breaks under a session, and its connections go on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mirrord_tests::cluster::{Cluster, Scene};
use mirrord_tests::mirrord::Session;
use mirrord_tests::{cut, processes, skip, wait};
use nix::unistd::geteuid;
use rustix::net::SocketAddrAny;

const CUTS: usize = 20;
const BYTES: u64 = 200_000_000;
/// A connection to the API server lives so long.
const BETWEEN: Duration = Duration::from_millis(200);
const BACK: Duration = Duration::from_secs(20);

/// Breaks the keeper's connections to that port.
fn cut(session: &Session<'_>, port: u16) -> Result<usize> {
    let there = |address: &SocketAddrAny| {
        SocketAddr::try_from(address.clone()).is_ok_and(|address| address.port() == port)
    };
    let family = processes::family(i32::try_from(session.child.id())?);
    let keeper = family.iter().find(|process| process.args.iter().any(|arg| arg == "session"));
    cut::connections(keeper.context("the session's keeper")?, there)
}

fn lines(session: &Session<'_>, word: &str) -> usize {
    let line = format!("the tunnel to the target is {word}");
    session.stderr().lines().filter(|said| said.contains(&line)).count()
}

#[test]
fn transfers_outlive_the_connections_to_the_api_server() -> Result<()> {
    let test = "cuts of the way to the cluster";
    let Some(cluster) = Cluster::open(test)? else { return Ok(()) };
    if !geteuid().is_root() {
        skip::missing(test, "root")?;
        return Ok(());
    }
    let server = cluster.kubectl.run(&[
        "config",
        "view",
        "--minify",
        "-o",
        "jsonpath={.clusters[0].cluster.server}",
    ])?;
    let port = server.trim().rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(443);
    let scene = Scene::open(&cluster)?;
    let target = scene.space.pod("client")?;
    let mut session = scene.mirrord("pod/client").probe("app")?;
    let mut cuts = 0;
    while cuts < CUTS {
        let up = session.app().send(&format!("upload web:7000 {BYTES}"))?;
        let down = session.app().send(&format!("download web:7000 {BYTES}"))?;
        let end = Instant::now() + Duration::from_secs(8);
        while cuts < CUTS && Instant::now() < end {
            std::thread::sleep(BETWEEN);
            ensure!(cut(&session, port)? > 0, "the keeper has no connection to {server}");
            cuts += 1;
            let back = || Ok((lines(&session, "back") >= cuts).then_some(()));
            wait::within(BACK, "the tunnel to be back", back).with_context(|| session.stderr())?;
        }
        for id in [up, down] {
            let told = session.app().answer(&id).with_context(|| session.stderr())?;
            ensure!(
                told["bytes"] == BYTES && told["intact"] == true,
                "{told} {}",
                session.stderr()
            );
        }
    }
    assert_eq!((lines(&session, "cut"), lines(&session, "back")), (CUTS, CUTS));
    assert_eq!(session.end()?, 0, "{}", session.stderr());
    scene.unharmed(&target)
}
