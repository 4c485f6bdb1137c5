//! bind(2), listen(2), accept(2).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use mirrord_protocol::control::{IncomingMode, PortMapping, Protocol, ProxyEvent};
use mirrord_protocol::frame::{ClientAddr, Delivery, Open, OrigDst};
use mirrord_protocol::layer::{Slot, Status, Transport};
use socket2::{Domain, Socket, Type};

use crate::agent::{Agent, TARGET};
use crate::client::{App, named};
use crate::session::Session;
use crate::{app, on_one_thread, ready, ready_with, until};

fn tcp() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()
}

fn errno(client: &App, socket: &Socket, address: &str) -> &'static str {
    let reply = client.bind(socket, address);
    match reply.status {
        Status::Done => "done",
        Status::Direct => "direct",
        Status::Refused => named(i32::try_from(reply.value).unwrap()),
    }
}

#[test]
fn a_targets_client_is_accepted_with_its_own_address() {
    on_one_thread(async {
        let (mut session, agent) = ready().await;
        let client = session.app.clone();
        let (listener, fake) = app(move || client.listen("0.0.0.0:80")).await;
        let page = session.app.map();
        assert_eq!(page.asked(Transport::Tcp, fake), Some("0.0.0.0:80".parse().unwrap()));
        assert_eq!(page.fake(Transport::Tcp, 80), fake);
        session.hears(|event| matches!(event, ProxyEvent::Subscribed(p) if p.remote == 80)).await;
        let stream = agent.client(Protocol::Tcp, "203.0.113.9:40000", 80);
        stream.send(Bytes::from("hello")).await.unwrap();
        stream.finish();
        app(move || {
            let (mut socket, from) = listener.accept().unwrap();
            assert_eq!(page.behind(from), Some("203.0.113.9:40000".parse().unwrap()));
            let slot = Slot::of_remote(from.ip()).unwrap();
            assert_eq!(page.local(slot), Some((TARGET, 80).into()));
            let mut said = String::new();
            socket.read_to_string(&mut said).unwrap();
            assert_eq!(said, "hello");
        })
        .await;
    });
}

#[test]
fn a_port_goes_back_to_the_target_with_its_last_listener() {
    on_one_thread(async {
        let (mut session, agent) = ready().await;
        let client = session.app.clone();
        let (listener, _) = app(move || client.listen("127.0.0.1:18081")).await;
        agent.wants(&[18081]).await;
        let second = listener.try_clone().unwrap();
        drop(listener);
        tokio::time::sleep(Duration::from_millis(600)).await;
        agent.wants(&[18081]).await;
        drop(second);
        agent.wants(&[]).await;
        session.hears(|event| matches!(event, ProxyEvent::Unsubscribed(_))).await;
        let page = session.app.map();
        until("the port is forgotten", || page.fake(Transport::Tcp, 18081) == 0).await;
        let client = session.app.clone();
        let _again = app(move || client.listen("127.0.0.1:18081")).await;
        agent.wants(&[18081]).await;
    });
}

#[test]
fn a_taken_port_is_in_use_and_sharing_is_as_the_kernel_has_it() {
    on_one_thread(async {
        let (session, _agent) = ready().await;
        let client = session.app.clone();
        app(move || {
            let _first = client.listen("0.0.0.0:18082");
            for taken in ["0.0.0.0:18082", "127.0.0.1:18082"] {
                assert_eq!(errno(&client, &tcp(), taken), "in use", "{taken}");
            }
            let v6 = || Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
            assert_eq!(errno(&client, &v6(), "[::]:18082"), "in use");
            let only = v6();
            only.set_only_v6(true).unwrap();
            assert_eq!(errno(&client, &only, "[::]:18082"), "done", "as nginx does");
            let shared = [tcp(), tcp()];
            let fakes = shared.each_ref().map(|socket| {
                socket.set_reuse_port(true).unwrap();
                client.bind(socket, "0.0.0.0:18083").value
            });
            assert_eq!(fakes[0], fakes[1]);
            assert_eq!(errno(&client, &tcp(), "203.0.113.77:80"), "not available");
            assert_eq!(errno(&client, &tcp(), "10.244.1.5:18084"), "done", "the target's");
            let bound = tcp();
            bound.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
            assert_eq!(errno(&client, &bound, "0.0.0.0:18085"), "invalid");
            let unix = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            assert_eq!(errno(&client, &unix, "0.0.0.0:18085"), "invalid");
        })
        .await;
    });
}

#[test]
fn only_ports_that_count_are_taken_and_each_stands_for_the_one_it_is_mapped_to() {
    on_one_thread(async {
        let mapped = ready_with(|config, layer| {
            let protocol = Protocol::Tcp;
            let mapping = |local, remote| PortMapping { protocol, local, remote };
            config.incoming.ports = vec![mapping(18086, 80), mapping(18087, 81)];
            config.incoming.ignore_ports = vec![81];
            layer.listen_ports = vec![(18086, 28086)];
        });
        let (session, agent) = mapped.await;
        let client = session.app.clone();
        let listener = app(move || {
            assert_eq!(errno(&client, &tcp(), "0.0.0.0:18088"), "direct", "not named");
            assert_eq!(errno(&client, &tcp(), "0.0.0.0:18087"), "direct", "ignored");
            let (listener, fake) = client.listen("0.0.0.0:18086");
            assert_eq!(fake, 28086);
            listener
        })
        .await;
        agent.wants(&[80]).await;
        let _stream = agent.client(Protocol::Tcp, "203.0.113.9:40000", 80);
        let page = session.app.map();
        app(move || {
            let (_, from) = listener.accept().unwrap();
            let slot = Slot::of_remote(from.ip()).unwrap();
            assert_eq!(page.local(slot), Some((TARGET, 18086).into()), "the app's own port");
        })
        .await;
        let off = ready_with(|config, _| config.incoming.mode = IncomingMode::Off).await;
        let client = off.0.app.clone();
        app(move || assert_eq!(errno(&client, &tcp(), "0.0.0.0:18086"), "direct")).await;
    });
}

#[test]
fn clients_of_this_machine_come_through_a_door_of_the_same_address() {
    on_one_thread(async {
        let (session, _agent) = ready().await;
        let client = session.app.clone();
        app(move || {
            let (listener, _) = client.listen("0.0.0.0:18089");
            let mut local = TcpStream::connect("127.0.0.1:18089").unwrap();
            let own = local.local_addr().unwrap();
            let (mut accepted, from) = listener.accept().unwrap();
            let page = client.map();
            assert_eq!(page.behind(from), Some(own));
            let slot = Slot::of_remote(from.ip()).unwrap();
            assert_eq!(page.local(slot), Some("127.0.0.1:18089".parse().unwrap()));
            accepted.write_all(b"hello").unwrap();
            drop(accepted);
            let mut said = String::new();
            local.read_to_string(&mut said).unwrap();
            assert_eq!(said, "hello");
            let udp = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
            assert_eq!(client.bind(&udp, "0.0.0.0:18089").status, Status::Done);
            let (udp, local): (UdpSocket, UdpSocket) = (udp.into(), crate::client::udp());
            local.send_to(b"ping", "127.0.0.1:18089").unwrap();
            let mut buffer = [0; 64];
            udp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let (len, from) = udp.recv_from(&mut buffer).unwrap();
            assert_eq!(page.behind(from), Some(local.local_addr().unwrap()));
            udp.send_to(&buffer[..len], from).unwrap();
            let (len, from) = local.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..len], from), (&b"ping"[..], "127.0.0.1:18089".parse().unwrap()));
        })
        .await;
    });
}

#[test]
fn a_copy_is_carried_and_its_answers_go_nowhere() {
    on_one_thread(async {
        let mirrors = ready_with(|config, _| config.incoming.mode = IncomingMode::Mirror);
        let (session, agent) = mirrors.await;
        let client = session.app.clone();
        let (listener, _) = app(move || client.listen("[::]:18091")).await;
        agent.wants(&[18091]).await;
        let stream = agent.tunnel.open(Open::Incoming {
            protocol: Protocol::Tcp,
            delivery: Delivery::Mirror,
            client: ClientAddr("[2001:db8::9]:40000".parse().unwrap()),
            server: OrigDst("[2001:db8::5]:18091".parse().unwrap()),
        });
        stream.send(Bytes::from("hello")).await.unwrap();
        stream.finish();
        let page = session.app.map();
        app(move || {
            let (mut socket, from) = listener.accept().unwrap();
            assert_eq!(page.behind(from), Some("[2001:db8::9]:40000".parse().unwrap()));
            let mut said = String::new();
            socket.read_to_string(&mut said).unwrap();
            assert_eq!(said, "hello");
            socket.write_all(b"nobody hears").unwrap();
        })
        .await;
        stream.ended().await;
        assert!(!stream.is_broken());
    });
}

#[test]
fn two_sessions_listen_on_the_same_port() {
    on_one_thread(async {
        for_each_of_two(async |session: &mut Session, agent: &Agent, name: &'static str| {
            let client = session.app.clone();
            let (listener, _) = app(move || client.listen("0.0.0.0:18092")).await;
            agent.wants(&[18092]).await;
            let stream = agent.client(Protocol::Tcp, "203.0.113.9:40000", 18092);
            app(move || listener.accept().unwrap().0.write_all(name.as_bytes()).unwrap()).await;
            stream.ended().await;
        })
        .await;
    });
}

async fn for_each_of_two(test: impl AsyncFn(&mut Session, &Agent, &'static str)) {
    let (mut one, mut other) = (ready().await, ready().await);
    tokio::join!(test(&mut one.0, &one.1, "one"), test(&mut other.0, &other.1, "other"));
}

#[test]
fn connections_however_short_keep_their_clients() {
    on_one_thread(async {
        let (session, agent) = ready().await;
        let client = session.app.clone();
        let (listener, _) = app(move || client.listen("0.0.0.0:18090")).await;
        agent.wants(&[18090]).await;
        for number in 0..50 {
            let stream =
                agent.client(Protocol::Tcp, &format!("203.0.113.9:{}", 40000 + number), 18090);
            stream.send(Bytes::from("x")).await.unwrap();
            stream.finish();
            stream.connected().await.unwrap();
        }
        let page = session.app.map();
        app(move || {
            for _ in 0..50 {
                let (mut socket, from) = listener.accept().unwrap();
                let real = page.behind(from).unwrap();
                assert_eq!(real.ip().to_string(), "203.0.113.9");
                let _ = socket.read(&mut [0; 8]);
            }
        })
        .await;
    });
}
