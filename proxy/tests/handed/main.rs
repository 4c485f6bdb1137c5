//! The real proxy in namespaces of its own, with pipes that are handed over and agents of which
//! only the tunnel is real.
//!
//! They need root: without it they fail where `CI=true`, and are skipped loudly elsewhere.
#![allow(clippy::unwrap_used, missing_docs)]

mod agent;
mod sidecar;

use std::fs;
use std::future::Future;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mirrord_netns::privileges::{Capability, has};
use mirrord_protocol::Token;
use mirrord_tunnel::accept;
use tokio::task::LocalSet;

use agent::{Agent, beside};
use sidecar::Sidecar;

fn as_root<F: Future<Output = ()>>(test: F) {
    if !has(Capability::SysAdmin) || !has(Capability::Bpf) {
        assert!(std::env::var_os("CI").is_none(), "CI must run these tests as root");
        eprintln!("SKIPPED: needs root");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// A sidecar with one target, ready.
async fn ready() -> (Sidecar, Agent) {
    let mut sidecar = Sidecar::start(1).await;
    let agent = Agent::start(&sidecar, 0, beside("a", "10.244.1.5")).await;
    assert_eq!(sidecar.hears().await, "connected");
    assert_eq!(sidecar.hears().await, "ready a");
    (sidecar, agent)
}

fn told(from: &str, by: &str) -> (String, String) {
    (from.into(), by.into())
}

#[test]
fn the_app_waits_for_all_targets_and_lives_in_the_first_ones_place() {
    as_root(async {
        let mut sidecar = Sidecar::start(2).await;
        let second = Agent::start(&sidecar, 1, beside("b", "10.244.2.5")).await;
        assert_eq!(sidecar.hears().await, "connected");
        let first = Agent::start(&sidecar, 0, beside("a", "10.244.1.5")).await;
        assert_eq!(sidecar.hears().await, "ready a");
        assert_eq!(*first.asked_env.borrow(), [true]);
        assert_eq!(*second.asked_env.borrow(), [false], "a secret that nobody needs");
        assert_eq!(sidecar.ask().await, told("10.244.1.5", "a"));
        assert_eq!(sidecar.file("hosts"), "10.0.0.1 added\n10.244.1.5 a\n");
        assert_eq!(sidecar.file("resolv.conf"), "nameserver 10.96.0.10\n");
    });
}

#[test]
fn clients_of_every_target_reach_the_app_at_that_targets_address() {
    as_root(async {
        let mut sidecar = Sidecar::start(2).await;
        let agents = [
            Agent::start(&sidecar, 0, beside("a", "10.244.1.5")).await,
            Agent::start(&sidecar, 1, beside("b", "10.244.2.5")).await,
        ];
        assert_eq!(sidecar.hears().await, "connected");
        assert_eq!(sidecar.hears().await, "ready a");
        let app = sidecar.listen("0.0.0.0:8080").await;
        assert_eq!(sidecar.hears().await, "subscribed 8080");
        for (agent, server) in agents.iter().zip(["10.244.1.5:8080", "10.244.2.5:8080"]) {
            while *agent.ports.borrow() != [8080] {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let stream = agent.client("203.0.113.9:40000", server);
            stream.send(Bytes::from("hello")).await.unwrap();
            stream.finish();
            let app = app.try_clone().unwrap();
            let accepted = sidecar.run(move || {
                let (mut socket, client) = app.accept().unwrap();
                let mut said = String::new();
                socket.read_to_string(&mut said).unwrap();
                (said, client.to_string(), socket.local_addr().unwrap().to_string())
            });
            let expected = ("hello".into(), "203.0.113.9:40000".into(), server.into());
            assert_eq!(accepted.await, expected);
        }
    });
}

#[test]
fn a_port_is_spoken_of_once_whatever_the_targets_say() {
    as_root(async {
        let mut sidecar = Sidecar::start(3).await;
        let refusing = |name, address| agent::Manner {
            refuses: Some("the port is taken"),
            ..beside(name, address)
        };
        let _agents = [
            Agent::start(&sidecar, 0, beside("a", "10.244.1.5")).await,
            Agent::start(&sidecar, 1, refusing("b", "10.244.1.6")).await,
            Agent::start(&sidecar, 2, refusing("c", "10.244.1.7")).await,
        ];
        assert_eq!(sidecar.hears().await, "connected");
        assert_eq!(sidecar.hears().await, "ready a");
        let _app = sidecar.listen("0.0.0.0:8080").await;
        let mut said = [sidecar.hears().await, sidecar.hears().await];
        said.sort();
        assert_eq!(said, ["failed 8080: the port is taken", "subscribed 8080"]);
        let _app = sidecar.listen("0.0.0.0:8081").await;
        let next = sidecar.hears().await;
        assert!(next.contains(" 8081"), "nothing more of 8080: {next}");
    });
}

#[test]
fn a_target_that_moved_is_followed_and_its_ports_with_it() {
    as_root(async {
        let (mut sidecar, agent) = ready().await;
        let _app = sidecar.listen("0.0.0.0:8080").await;
        assert_eq!(sidecar.hears().await, "subscribed 8080");
        assert!(agent.die().await.success(), "who brought a pipe leaves with it");
        assert_eq!(sidecar.hears().await, "disconnected 0");
        let moved =
            agent::Manner { resolv_conf: "nameserver 10.96.0.11\n", ..beside("z", "10.244.9.9") };
        let agent = Agent::start(&sidecar, 0, moved).await;
        assert_eq!(sidecar.hears().await, "reconnected 0");
        assert_eq!(*agent.asked_env.borrow(), [false]);
        assert_eq!(sidecar.ask().await, told("10.244.9.9", "z"));
        assert_eq!(sidecar.file("hosts"), "10.0.0.1 added\n10.244.9.9 z\n");
        assert_eq!(sidecar.file("resolv.conf"), "nameserver 10.96.0.11\n");
        while *agent.ports.borrow() != [8080] {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn connections_outlive_a_pipe_that_breaks() {
    as_root(async {
        let (mut sidecar, mut agent) = ready().await;
        let app = sidecar.listen("0.0.0.0:8080").await;
        assert_eq!(sidecar.hears().await, "subscribed 8080");
        let stream = agent.client("203.0.113.9:40000", "10.244.1.5:8080");
        stream.send(Bytes::from("before, ")).await.unwrap();
        let listener = app.try_clone().unwrap();
        let mut client = sidecar.run(move || listener.accept().unwrap().0).await;
        agent.cut().await;
        assert_eq!(sidecar.hears().await, "disconnected 0");
        stream.send(Bytes::from("meanwhile, ")).await.unwrap();
        agent.resume(&sidecar, 0).await;
        assert_eq!(sidecar.hears().await, "back 0");
        stream.send(Bytes::from("after")).await.unwrap();
        stream.finish();
        let said = sidecar.run(move || {
            let mut said = String::new();
            client.read_to_string(&mut said).map(|_| said)
        });
        assert_eq!(said.await.unwrap(), "before, meanwhile, after");
        assert_eq!(*agent.asked_env.borrow(), [true], "it was asked who it is once");
        assert_eq!(*agent.ports.borrow(), [8080]);
    });
}

#[test]
fn a_pipe_that_stays_away_resets_its_connections() {
    as_root(async {
        let (mut sidecar, mut agent) = ready().await;
        let app = sidecar.listen("0.0.0.0:8080").await;
        assert_eq!(sidecar.hears().await, "subscribed 8080");
        let _stream = agent.client("203.0.113.9:40000", "10.244.1.5:8080");
        let listener = app.try_clone().unwrap();
        let mut client = sidecar.run(move || listener.accept().unwrap().0).await;
        let cut = std::time::Instant::now();
        agent.cut().await;
        assert_eq!(sidecar.hears().await, "disconnected 0");
        let error = sidecar.run(move || client.read(&mut [0; 8]).unwrap_err()).await;
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let waited = cut.elapsed();
        assert!((4..8).contains(&waited.as_secs()), "{waited:?}, and the grace time is 5 s");
    });
}

#[test]
fn the_apps_traffic_takes_the_first_tunnel_that_lives() {
    as_root(async {
        let mut sidecar = Sidecar::start(2).await;
        let first = Agent::start(&sidecar, 0, beside("a", "10.244.1.5")).await;
        let _second = Agent::start(&sidecar, 1, beside("b", "10.244.2.5")).await;
        assert_eq!(sidecar.hears().await, "connected");
        assert_eq!(sidecar.hears().await, "ready a");
        first.die().await;
        assert_eq!(sidecar.hears().await, "disconnected 0");
        assert_eq!(sidecar.ask().await, told("10.244.1.5", "b"));
        let _first = Agent::start(&sidecar, 0, beside("a", "10.244.1.5")).await;
        assert_eq!(sidecar.hears().await, "reconnected 0");
        assert_eq!(sidecar.ask().await, told("10.244.1.5", "a"));
    });
}

#[test]
fn a_new_replica_joins_a_running_session() {
    as_root(async {
        let (mut sidecar, _agent) = ready().await;
        let app = sidecar.listen("0.0.0.0:8080").await;
        assert_eq!(sidecar.hears().await, "subscribed 8080");
        let replica = Agent::start(&sidecar, 5, beside("f", "10.244.5.5")).await;
        assert_eq!(sidecar.hears().await, "back 5");
        let _stream = replica.client("203.0.113.9:40000", "10.244.5.5:8080");
        let server = sidecar.run(move || app.accept().unwrap().0.local_addr().unwrap()).await;
        assert_eq!(server.to_string(), "10.244.5.5:8080");
        assert_eq!(sidecar.ask().await, told("10.244.1.5", "a"), "the first one stays so");
    });
}

#[test]
fn another_pipe_for_a_target_takes_the_old_ones_place() {
    as_root(async {
        let (mut sidecar, old) = ready().await;
        let _new = Agent::start(&sidecar, 0, beside("a2", "10.244.1.5")).await;
        assert_eq!(sidecar.hears().await, "disconnected 0");
        assert_eq!(sidecar.hears().await, "reconnected 0");
        assert!(old.ended().await.success());
        assert_eq!(sidecar.ask().await, told("10.244.1.5", "a2"));
    });
}

#[test]
fn a_pipe_that_leads_to_no_agent_is_refused_and_the_tunnel_goes_on() {
    as_root(async {
        let (mut sidecar, _agent) = ready().await;
        let (mut bringer, pipe) = sidecar.bring(0, Some("x"));
        let admit = |_: Option<&str>| Err::<(), _>("the container is gone".to_owned());
        accept(pipe, &sidecar::token(), admit).await.unwrap_err();
        let refused = "refused 0: the agent refused the tunnel: the container is gone";
        assert_eq!(sidecar.hears().await, refused);
        assert!(bringer.wait().await.unwrap().success());
        let (_bringer, pipe) = sidecar.bring(0, None);
        accept(pipe, &Token::new("another"), |_| Ok(())).await.unwrap_err();
        assert!(sidecar.hears().await.starts_with("refused 0: the agent refused the tunnel"));
        assert_eq!(sidecar.ask().await, told("10.244.1.5", "a"));
    });
}

#[test]
fn a_tunnel_ends_with_who_brought_its_pipe() {
    as_root(async {
        let (mut sidecar, mut agent) = ready().await;
        agent.bringer.start_kill().unwrap();
        assert_eq!(sidecar.hears().await, "disconnected 0");
        agent.ended().await;
    });
}

#[test]
fn what_is_no_handover_is_closed_and_others_are_served() {
    as_root(async {
        let mut sidecar = Sidecar::start(1).await;
        let socket = format!("/proc/{}/root/run/mirrord/handover.sock", sidecar.pid);
        assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
        for said in [&b"hello\n"[..], &[0; 4096]] {
            let mut rogue = UnixStream::connect(&socket).unwrap();
            let _ = rogue.write_all(said);
            assert!(matches!(rogue.read(&mut [0; 8]), Ok(0) | Err(_)));
        }
        let _agent = Agent::start(&sidecar, 0, beside("a", "10.244.1.5")).await;
        assert_eq!(sidecar.hears().await, "connected");
        assert_eq!(sidecar.hears().await, "ready a");
    });
}

#[test]
fn who_hands_nothing_over_keeps_nobody_out() {
    as_root(async {
        let mut sidecar = Sidecar::start(1).await;
        let socket = format!("/proc/{}/root/run/mirrord/handover.sock", sidecar.pid);
        let silent: Vec<_> = (0..600).map(|_| UnixStream::connect(&socket).unwrap()).collect();
        let begun = Instant::now();
        let _agent = Agent::start(&sidecar, 0, beside("a", "10.244.1.5")).await;
        assert_eq!(sidecar.hears().await, "connected");
        assert_eq!(sidecar.hears().await, "ready a");
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        drop(silent);
    });
}

#[test]
fn a_worker_keeps_what_it_needs_to_follow_targets_and_no_more() {
    as_root(async {
        let (sidecar, _agent) = ready().await;
        let [net_admin, net_raw, bpf] =
            [Capability::NetAdmin, Capability::NetRaw, Capability::Bpf].map(|one| 1 << one as u64);
        let kept = sidecar.worker_capabilities();
        assert_eq!(kept & !bpf, net_admin | net_raw, "{kept:x}");
    });
}

#[test]
fn a_killed_worker_is_started_again_and_serves_with_the_targets_that_are_left() {
    as_root(async {
        let mut sidecar = Sidecar::start(2).await;
        let agents = [
            Agent::start(&sidecar, 0, beside("a", "10.244.1.5")).await,
            Agent::start(&sidecar, 1, beside("b", "10.244.2.5")).await,
        ];
        assert_eq!(sidecar.hears().await, "connected");
        assert_eq!(sidecar.hears().await, "ready a");
        sidecar.kill_worker();
        for agent in agents {
            assert!(agent.ended().await.success(), "who brought a pipe leaves with the worker");
        }
        assert_eq!(sidecar.hears().await, "Restarted");
        assert_eq!(sidecar.hears().await, "Waiting");
        let _left = Agent::start(&sidecar, 1, beside("b", "10.244.2.5")).await;
        assert_eq!(sidecar.hears().await, "connected");
        assert_eq!(sidecar.hears().await, "ready b");
        assert_eq!(sidecar.ask().await, told("10.244.2.5", "b"));
    });
}

#[test]
fn a_client_that_a_mesh_stands_for_reaches_the_app() {
    as_root(async {
        let (mut sidecar, agent) = ready().await;
        let app = sidecar.listen("127.0.0.1:8080").await;
        assert_eq!(sidecar.hears().await, "subscribed 8080");
        for server in ["10.244.1.5:8080", "127.0.0.1:8080"] {
            let _stream = agent.client("127.0.0.6:40000", server);
            let app = app.try_clone().unwrap();
            let client = sidecar.run(move || {
                let (mut socket, client) = app.accept().unwrap();
                socket.write_all(b"hello").unwrap();
                client.to_string()
            });
            assert_eq!(client.await, "127.0.0.6:40000", "{server}");
        }
    });
}

#[test]
fn who_finds_no_worker_says_so() {
    as_root(async {
        let output = tokio::process::Command::new("unshare")
            .args([
                "--mount",
                "sh",
                "-c",
                "mount -t tmpfs tmpfs /run && exec \"$0\" proxy --pipe 0",
            ])
            .arg(sidecar::proxy())
            .output();
        let output = output.await.unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with("mirrord proxy: connecting to the proxy: "), "{said}");
        assert_eq!(said.lines().count(), 1);
    });
}
