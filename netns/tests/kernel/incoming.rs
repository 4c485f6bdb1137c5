//! What the proxy brings to the app, and what comes to the sidecar's own address.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use mirrord_netns::{
    MARK_DIRECT, MARK_TO_APP,
    privileges::{Capability, keep_only, marks_need_net_admin},
    spoof::{PacketSender, connect_as},
};
use socket2::Socket;

use crate::support::*;

/// Clients far away, on our own link, and on the target's.
const CLIENTS: [&str; 3] = ["203.0.113.9", "172.30.0.77", "10.244.1.77"];

fn connected(socket: Socket) -> TcpStream {
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    stream
}

fn the_app_sees_the_client(bound: &str, reached: &str) {
    in_sidecar(|_| {
        let _plane = apply(&plan());
        let app = TcpListener::bind((bound, 0)).unwrap();
        let port = app.local_addr().unwrap().port();
        for client in CLIENTS {
            let proxy = connect_as(socket(client, 40_000), socket(reached, port)).unwrap();
            let accepted = accept(&app);
            assert_eq!(accepted.peer_addr().unwrap(), socket(client, 40_000));
            assert_eq!(accepted.local_addr().unwrap(), socket(reached, port));
            talk(&connected(proxy), &accepted);
        }
    });
}

#[test]
fn an_app_on_every_address_sees_the_real_client_and_the_targets_address() {
    the_app_sees_the_client("0.0.0.0", TARGET);
}

#[test]
fn an_app_on_the_targets_address_sees_the_real_client() {
    the_app_sees_the_client(TARGET, TARGET);
}

#[test]
fn an_app_on_loopback_sees_the_real_client() {
    the_app_sees_the_client("127.0.0.1", "127.0.0.1");
}

#[test]
fn the_same_client_port_can_connect_twice() {
    in_sidecar(|_| {
        let _plane = apply(&plan());
        let apps = ["0.0.0.0:0", "0.0.0.0:0"].map(|place| TcpListener::bind(place).unwrap());
        let client = socket(CLIENTS[0], 41_000);
        let mut open = Vec::new();
        for app in &apps {
            open.push(
                connect_as(client, socket(TARGET, app.local_addr().unwrap().port())).unwrap(),
            );
            open.push(accept(app).into());
        }
        assert_eq!(open[2].local_addr().unwrap().as_socket(), Some(client));
        let again =
            connect_as(client, socket(TARGET, apps[0].local_addr().unwrap().port())).unwrap();
        let peer: SocketAddr = accept(&apps[0]).peer_addr().unwrap();
        assert_eq!(peer.ip(), client.ip());
        drop(again);
    });
}

#[test]
fn a_client_port_that_the_app_itself_listens_on_is_replaced() {
    in_sidecar(|_| {
        let _plane = apply(&plan());
        let app = TcpListener::bind("0.0.0.0:8080").unwrap();
        let proxy = connect_as(socket(CLIENTS[0], 8080), socket(TARGET, 8080)).unwrap();
        let accepted = accept(&app);
        assert_eq!(accepted.peer_addr().unwrap().ip(), address(CLIENTS[0]));
        talk(&connected(proxy), &accepted);
    });
}

#[test]
fn a_port_that_nobody_listens_on_refuses_at_once() {
    in_sidecar(|_| {
        let _plane = apply(&plan());
        for client in CLIENTS {
            let started = Instant::now();
            let proxy = connect_as(socket(client, 42_000), socket(TARGET, 9)).unwrap();
            assert!(wait(&proxy), "{client}");
            let error = proxy.take_error().unwrap().expect("an error");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{client}");
            assert!(started.elapsed() < Duration::from_millis(500));
        }
    });
}

#[test]
fn once_the_plane_stands_only_net_raw_is_needed() {
    in_sidecar(|_| {
        let mut plane = apply(&plan());
        if marks_need_net_admin() {
            eprintln!("SKIPPED: this kernel is older than 5.17");
            return;
        }
        let mut keep = vec![Capability::NetRaw];
        if plane.changes_need_bpf() {
            keep.push(Capability::Bpf);
        }
        keep_only(&keep).unwrap();
        let app = TcpListener::bind("0.0.0.0:8080").unwrap();
        let proxy = connect_as(socket(CLIENTS[0], 40_000), socket(TARGET, 8080)).unwrap();
        talk(&connected(proxy), &accept(&app));
        let receiver = udp(socket(TARGET, 8080));
        let sender = PacketSender::open(MARK_TO_APP).unwrap();
        sender.send(socket(CLIENTS[0], 1), socket(TARGET, 8080), b"hello").unwrap();
        assert_eq!(receiver.recv(&mut [0; 64]).unwrap(), 5);
        steered(&mut plane, socket(BEYOND, 80));
    });
}

#[test]
fn two_families_cannot_be_mixed() {
    let error = connect_as(socket("::1", 1), socket("127.0.0.1", 1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn published_ports_and_peers_still_reach_the_app() {
    in_sidecar(|outside| {
        let _plane = apply(&plan());
        let app = TcpListener::bind("0.0.0.0:8080").unwrap();
        let app_udp = udp(socket("0.0.0.0", 5353));
        let direct = PacketSender::open(MARK_DIRECT).unwrap();
        for from in [GATEWAY, BEYOND] {
            let client = outside.run(move || {
                let socket =
                    Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
                socket.bind(&crate::support::socket(from, 0).into()).unwrap();
                socket
                    .connect_timeout(
                        &crate::support::socket(OWN, 8080).into(),
                        Duration::from_secs(2),
                    )
                    .unwrap();
                TcpStream::from(socket)
            });
            let accepted = accept(&app);
            assert_eq!(accepted.peer_addr().unwrap().ip(), address(from));
            talk(&client, &accepted);
            let client = outside.run(move || udp(socket(from, 0)));
            client.send_to(b"question", socket(OWN, 5353)).unwrap();
            let mut buffer = [0; 64];
            let (_, peer) = app_udp.recv_from(&mut buffer).unwrap();
            assert_eq!(peer.ip(), address(from));
            // The app names no source: its answer is steered, and whoever took it sends it on.
            direct.send(socket(OWN, 5353), peer, b"answer").unwrap();
            assert_eq!(client.recv_from(&mut buffer).unwrap(), (6, socket(OWN, 5353)));
        }
    });
}
