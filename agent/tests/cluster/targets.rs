//! What the agent does for its targets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mirrord_protocol::control::Protocol;
use mirrord_protocol::frame::{Delivery, Description, Open, OrigDst, Port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::agent::{Agent, in_pod, inside, target};
use crate::peer::{Peer, on_this_thread};

const PORT: Port = Port { protocol: Protocol::Tcp, number: 8080 };

fn has_variable(description: &Description, variable: &str) -> bool {
    description.environ.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn each_target_is_described_as_itself() {
    in_pod(|| {
        let targets = [target("first", 1), target("second", 2)];
        let agent = Agent::start(60);
        let (place, ids) = (agent.address, targets.each_ref().map(|t| t.id.to_string()));
        on_this_thread(async move {
            let [first, second] = &ids;
            let first = Peer::connect(place, Some(first)).await.unwrap();
            let second = Peer::connect(place, Some(second)).await.unwrap();
            for (peer, name, ip) in [(second, "second", "10.99.2.2"), (first, "first", "10.99.1.2")]
            {
                let description = peer.describe().await;
                assert_eq!(description.hostname, name);
                assert!(description.addresses.contains(&(ip.parse().unwrap(), 24)));
                assert!(has_variable(&description, &format!("CONTAINER={name}")));
            }
        });
    });
}

#[test]
fn connections_leave_from_the_target_and_those_to_it_are_taken_there() {
    in_pod(|| {
        let targets = [target("first", 1), target("second", 2)];
        let agent = Agent::start(60);
        let (place, ids) = (agent.address, targets.each_ref().map(|t| t.id.to_string()));
        on_this_thread(async move {
            for (id, n) in [(&ids[0], 1), (&ids[1], 2)] {
                let peer = Peer::connect(place, Some(id)).await.unwrap();
                let listener = TcpListener::bind(format!("10.99.{n}.1:0")).await.unwrap();
                let to = OrigDst(listener.local_addr().unwrap());
                let stream = peer.tunnel.open(Open::Connect(Protocol::Tcp, to));
                let (_socket, client) = listener.accept().await.unwrap();
                assert_eq!(client.ip().to_string(), format!("10.99.{n}.2"));
                stream.connected().await.unwrap();
                assert_eq!(peer.subscribe(PORT, Delivery::Steal).await, None);
                let server = address(&format!("10.99.{n}.2:8080"));
                let client = TcpStream::connect(server).await.unwrap();
                let (_stream, open) = peer.incoming().await;
                let Open::Incoming { client: from, server: to, .. } = open else { panic!() };
                assert_eq!((from.0, to.0), (client.local_addr().unwrap(), server));
                drop(peer);
            }
        });
    });
}

#[test]
fn what_was_taken_is_given_back_when_the_tunnel_ends_and_when_the_agent_is_killed() {
    in_pod(|| {
        let (container, agent) = (target("given", 1), Agent::start(60));
        let (place, id) = (agent.address, container.id.to_string());
        on_this_thread(async move {
            let (agent, server) = (agent, address("10.99.1.2:8080"));
            let peer = Peer::connect(place, Some(&id)).await.unwrap();
            assert_eq!(peer.subscribe(PORT, Delivery::Steal).await, None);
            TcpStream::connect(server).await.unwrap();
            peer.end().await;
            until_refused(server).await;
            let peer = Peer::connect(place, Some(&id)).await.unwrap();
            assert_eq!(peer.subscribe(PORT, Delivery::Steal).await, None);
            TcpStream::connect(server).await.unwrap();
            drop(agent);
            TcpStream::connect(server).await.unwrap_err();
        });
    });
}

#[test]
fn a_tunnel_that_comes_back_has_its_connections_and_ports_which_the_target_had_meanwhile() {
    in_pod(|| {
        let (container, agent) = (target("cut", 1), Agent::start(60));
        let (place, id) = (agent.address, container.id.to_string());
        on_this_thread(async move {
            let (_agent, server) = (agent, address("10.99.1.2:8080"));
            let mut peer = Peer::connect(place, Some(&id)).await.unwrap();
            assert_eq!(peer.subscribe(PORT, Delivery::Steal).await, None);
            let mut client = TcpStream::connect(server).await.unwrap();
            let (stream, _) = peer.incoming().await;
            peer.ended.abort();
            until_refused(server).await;
            client.write_all(b"meanwhile").await.unwrap();
            peer.resume(place, &id).await;
            stream.send(bytes::Bytes::from("after")).await.unwrap();
            stream.finish();
            let mut said = String::new();
            client.read_to_string(&mut said).await.unwrap();
            assert_eq!(said, "after");
            TcpStream::connect(server).await.unwrap();
            peer.incoming().await;
        });
    });
}

#[test]
fn behind_a_mesh_its_proxy_brings_what_is_taken_and_the_agent_reaches_the_target() {
    in_pod(|| {
        let (container, agent) = (target("meshed", 1), Agent::start(60));
        let [app, _mesh] = inside(&container, || ["0.0.0.0:8080", "0.0.0.0:15006"].map(listen));
        let (place, id) = (agent.address, container.id.to_string());
        on_this_thread(async move {
            let app = TcpListener::from_std(app).unwrap();
            let peer = Peer::connect(place, Some(&id)).await.unwrap();
            assert_eq!(peer.subscribe(PORT, Delivery::Steal).await, None);
            let to = OrigDst(address("10.99.1.2:8080"));
            let own = peer.tunnel.open(Open::Connect(Protocol::Tcp, to));
            assert_eq!(app.accept().await.unwrap().1.ip().to_string(), "127.0.0.13");
            own.connected().await.unwrap();
            let by_mesh = inside(&container, move || std::net::TcpStream::connect(to.0).unwrap());
            let (_stream, open) = peer.incoming().await;
            let Open::Incoming { client, server, .. } = open else { panic!() };
            assert_eq!((client.0, server), (by_mesh.local_addr().unwrap(), to));
        });
    });
}

#[test]
fn probes_of_the_node_stay_with_the_target_if_so_wanted() {
    in_pod(|| {
        let container = target("probed", 1);
        let agent = Agent::start_sparing(&["10.99.1.1".parse().unwrap()]);
        let app = inside(&container, || listen("0.0.0.0:8080"));
        let (place, id) = (agent.address, container.id.to_string());
        on_this_thread(async move {
            let app = TcpListener::from_std(app).unwrap();
            let peer = Peer::connect(place, Some(&id)).await.unwrap();
            assert_eq!(peer.subscribe(PORT, Delivery::Steal).await, None);
            let probe = TcpStream::connect("10.99.1.2:8080").await.unwrap();
            assert_eq!(app.accept().await.unwrap().1, probe.local_addr().unwrap());
        });
    });
}

fn listen(place: &str) -> std::net::TcpListener {
    let listener = std::net::TcpListener::bind(place).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

async fn until_refused(server: SocketAddr) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while TcpStream::connect(server).await.is_ok() {
        assert!(Instant::now() < deadline, "the port is not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn without_a_target_the_agents_own_place_is_served() {
    in_pod(|| {
        let agent = Agent::start(60);
        let place = agent.address;
        on_this_thread(async move {
            let peer = Peer::connect(place, None).await.unwrap();
            let description = peer.describe().await;
            assert_eq!(description.hostname, nix::unistd::gethostname().unwrap().to_str().unwrap());
            assert!(has_variable(&description, "MIRRORD_TEST_AGENT=all capabilities"));
            assert!(!description.resolv_conf.is_empty());
        });
    });
}

#[test]
fn a_new_tunnel_replaces_that_of_the_same_target_and_no_other() {
    in_pod(|| {
        let targets = [target("first", 1), target("second", 2)];
        let agent = Agent::start(60);
        let (place, ids) = (agent.address, targets.each_ref().map(|t| t.id.to_string()));
        on_this_thread(async move {
            let old = Peer::connect(place, Some(&ids[0])).await.unwrap();
            let other = Peer::connect(place, Some(&ids[1])).await.unwrap();
            let new = Peer::connect(place, Some(&ids[0])).await.unwrap();
            old.ended.await.unwrap();
            assert_eq!(new.describe().await.hostname, "first");
            assert_eq!(other.describe().await.hostname, "second");
        });
    });
}

#[test]
fn an_agent_that_nobody_uses_ends() {
    in_pod(|| {
        assert!(Agent::start(1).wait().success());
        let container = target("left", 1);
        let (mut agent, id) = (Agent::start(2), container.id.to_string());
        let place = agent.address;
        on_this_thread(async move {
            let peer = Peer::connect(place, Some(&id)).await.unwrap();
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert!(agent.is_running(), "it has a tunnel");
            peer.end().await;
            assert!(agent.wait().success());
        });
    });
}

#[test]
fn once_the_cli_is_gone_the_last_tunnels_end_is_the_agents() {
    in_pod(|| {
        let mut agent = Agent::start(60);
        let place = agent.address;
        on_this_thread(async move {
            let peer = Peer::connect(place, None).await.unwrap();
            agent.leave_alone();
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert!(!peer.describe().await.hostname.is_empty());
            peer.end().await;
            assert!(agent.wait().success());
        });
    });
}

#[test]
fn an_agent_that_is_dismissed_leaves_whoever_has_a_tunnel() {
    in_pod(|| {
        let mut agent = Agent::start(60);
        let place = agent.address;
        on_this_thread(async move {
            let _peer = Peer::connect(place, None).await.unwrap();
            agent.dismiss();
            assert!(agent.wait().success());
        });
    });
}
