//! What the agent does not do, and how it says so.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use mirrord_protocol::control::Protocol;
use mirrord_protocol::frame::{Delivery, Port};

use crate::agent::{Agent, in_pod, target};
use crate::peer::{Peer, on_this_thread};

const PORT: Port = Port { protocol: Protocol::Tcp, number: 8080 };

#[test]
fn who_has_no_token_learns_nothing() {
    in_pod(|| {
        let (container, agent) = (target("closed", 1), Agent::start(60));
        let (place, id) = (agent.address, container.id.to_string());
        on_this_thread(async move {
            for id in [&id, "0123456789abcdef"] {
                let refused = Peer::connect_with(place, Some(id), "a guess").await.err().unwrap();
                let expected = "the agent refused the tunnel: the token is not this session's";
                assert_eq!(refused, expected);
            }
        });
    });
}

#[test]
fn peers_that_say_nothing_keep_nobody_out() {
    in_pod(|| {
        let (container, agent) = (target("crowded", 1), Agent::start(60));
        let (place, id) = (agent.address, container.id.to_string());
        on_this_thread(async move {
            let silent: Vec<_> = (0..64).map(|_| TcpStream::connect(place).unwrap()).collect();
            let peer = Peer::connect(place, Some(&id)).await.unwrap();
            assert_eq!(peer.describe().await.hostname, "crowded");
            drop(silent);
        });
    });
}

#[test]
fn peers_that_say_a_byte_now_and_then_keep_nobody_out() {
    in_pod(|| {
        let (container, agent) = (target("dripping", 1), Agent::start(60));
        let (place, id) = (agent.address, container.id.to_string());
        let over = Arc::new(AtomicBool::new(false));
        let drips = {
            let over = over.clone();
            let mut drips: Vec<_> = (0..64).map(|_| TcpStream::connect(place).unwrap()).collect();
            thread::spawn(move || {
                for byte in b"GET /tunnel HTTP/1.1\r\nA: ".iter().chain([b'a'].iter().cycle()) {
                    for drip in &mut drips {
                        // Who was turned away comes again.
                        if drip.write_all(&[*byte]).is_err() {
                            *drip = TcpStream::connect(place).unwrap();
                        }
                    }
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            })
        };
        on_this_thread(async move {
            for _ in 0..10 {
                // One in a crowd may have to knock twice.
                let peer = match Peer::connect(place, Some(&id)).await {
                    Ok(peer) => peer,
                    Err(_) => Peer::connect(place, Some(&id)).await.unwrap(),
                };
                assert_eq!(peer.describe().await.hostname, "dripping");
                peer.end().await;
            }
        });
        over.store(true, Ordering::Relaxed);
        drips.join().unwrap();
    });
}

#[test]
fn garbage_at_the_door_harms_nobody() {
    in_pod(|| {
        let (container, agent) = (target("calm", 1), Agent::start(60));
        let (place, id) = (agent.address, container.id.to_string());
        for said in [&[0xff; 100_000][..], b"\r\n\r\n", &[0; 70_000], b"GET / HTTP/1.1\r\n\r\n"] {
            let mut rogue = TcpStream::connect(place).unwrap();
            let _ = rogue.write_all(said);
            let _ = rogue.shutdown(Shutdown::Write);
            let _ = rogue.read_to_end(&mut Vec::new());
        }
        on_this_thread(async move {
            let peer = Peer::connect(place, Some(&id)).await.unwrap();
            assert_eq!(peer.describe().await.hostname, "calm");
        });
    });
}

#[test]
fn a_container_that_does_not_run_is_refused_by_name() {
    in_pod(|| {
        let mut container = target("ending", 1);
        let agent = Agent::start(60);
        let (place, id) = (agent.address, container.id.to_string());
        let ended = id.clone();
        on_this_thread(async move {
            Peer::connect(place, Some(&id)).await.unwrap();
            container.kill();
            for id in [&ended, "0123456789abcdef"] {
                let refused = Peer::connect(place, Some(id)).await.err().unwrap();
                let expected = format!(
                    "the agent refused the tunnel: no process of the container {id} runs here"
                );
                assert_eq!(refused, expected);
            }
            let refused = Peer::connect(place, Some("short")).await.err().unwrap();
            assert!(refused.contains("a container's id has"), "{refused}");
        });
    });
}

#[test]
fn a_target_whose_process_has_ended_is_still_described_as_far_as_it_goes() {
    in_pod(|| {
        let mut container = target("ended", 1);
        let agent = Agent::start(60);
        let (place, id) = (agent.address, container.id.to_string());
        on_this_thread(async move {
            let peer = Peer::connect(place, Some(&id)).await.unwrap();
            container.kill();
            let description = peer.describe().await;
            assert_eq!(description.hostname, "ended");
            assert!(description.environ.is_empty() && description.resolv_conf.is_empty());
        });
    });
}

#[test]
fn an_agent_without_capabilities_does_what_needs_none_and_says_what_it_lacks() {
    in_pod(|| {
        let (container, agent) = (target("other", 1), Agent::start_powerless());
        let (place, id) = (agent.address, container.id.to_string());
        on_this_thread(async move {
            let peer = Peer::connect(place, None).await.unwrap();
            assert!(!peer.describe().await.environ.is_empty());
            let reason = peer.subscribe(PORT, Delivery::Steal).await;
            let expected =
                "taking the target's traffic: the agent has no NET_ADMIN and no NET_RAW and no BPF";
            assert_eq!(reason.as_deref(), Some(expected));
            let reason = peer.subscribe(PORT, Delivery::Mirror).await;
            let expected = "copying the target's traffic: the agent has no NET_RAW and no BPF";
            assert_eq!(reason.as_deref(), Some(expected));
            let refused = Peer::connect(place, Some(&id)).await.err().unwrap();
            assert!(refused.ends_with("the agent has no SYS_ADMIN and no SYS_PTRACE"), "{refused}");
        });
    });
}
