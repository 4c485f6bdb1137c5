//! What the app sends.

use std::{
    io::{ErrorKind, Read},
    net::TcpListener,
    time::Duration,
};

use mirrord_netns::{MARK_DIRECT, Plan, listeners::Scanner};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::*;

#[test]
fn tcp_to_any_address_and_port_arrives_with_its_destination_and_the_targets_address() {
    in_sidecar(|_| {
        let mut plane = apply(&plan());
        let wildcard = TcpListener::bind("0.0.0.0:8080").unwrap();
        let places = [
            ("93.184.216.34", 80),
            ("10.96.0.1", 443),
            ("8.8.8.8", 65_535),
            ("169.254.169.254", 80),
            (BEYOND, 8080),
        ];
        for (ip, port) in places {
            let (app, ours) = steered(&mut plane, socket(ip, port));
            assert_eq!(ours.local_addr().unwrap(), socket(ip, port));
            assert_eq!(ours.peer_addr().unwrap(), app.local_addr().unwrap());
            assert_eq!(app.local_addr().unwrap().ip(), address(TARGET));
            talk(&app, &ours);
        }
        drop(wildcard);
    });
}

#[test]
fn ipv6_is_steered_when_the_target_has_an_ipv6_address() {
    in_sidecar(|_| {
        let mut plan = plan();
        plan.identity.push(address("fd00:1::5"));
        let mut plane = apply(&plan);
        let (app, ours) = steered(&mut plane, socket("2001:db8::7", 443));
        assert_eq!(ours.local_addr().unwrap(), socket("2001:db8::7", 443));
        assert_eq!(ours.peer_addr().unwrap().ip(), address("fd00:1::5"));
        talk(&app, &ours);
        let app = udp(socket("::", 0));
        app.send_to(b"question", socket("2001:db8::53", 53)).unwrap();
        let (datagram, payload) = receive(&plane.udp()[1]);
        assert_eq!((datagram.to, &payload[..]), (socket("2001:db8::53", 53), &b"question"[..]));
        assert_eq!(datagram.from.ip(), address("fd00:1::5"));
        let sender = mirrord_netns::spoof::PacketSender::open(0).unwrap();
        sender.send(datagram.to, datagram.from, b"answer").unwrap();
        let mut buffer = [0; 64];
        assert_eq!(app.recv_from(&mut buffer).unwrap(), (6, socket("2001:db8::53", 53)));
    });
}

#[test]
fn the_app_may_bind_to_the_targets_address() {
    in_sidecar(|_| {
        let mut plane = apply(&plan());
        let app = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        app.bind(&socket(TARGET, 4444).into()).unwrap();
        let (_app, ours) = steered_from(&mut plane, app, socket(BEYOND, 80));
        assert_eq!(ours.peer_addr().unwrap(), socket(TARGET, 4444));
    });
}

#[test]
fn connected_subnets_stay_direct() {
    in_sidecar(|outside| {
        let plane = apply(&plan());
        let listener = outside.run(|| TcpListener::bind((GATEWAY, 7000)).unwrap());
        let app = connect(socket(GATEWAY, 7000)).unwrap();
        let peer = accept(&listener);
        assert_eq!(peer.peer_addr().unwrap().ip(), address(OWN));
        talk(&app, &peer);
        let calls = plane.calls().unwrap();
        assert_eq!(calls.next().unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn a_subnet_that_the_target_is_connected_to_as_well_is_reached_through_the_target() {
    in_sidecar(|_| {
        let mut plane =
            apply(&Plan { identity_subnets: vec![subnet("172.30.0.128", 16)], ..plan() });
        let (app, ours) = steered(&mut plane, socket(GATEWAY, 7000));
        assert_eq!(ours.local_addr().unwrap(), socket(GATEWAY, 7000));
        assert_eq!(app.local_addr().unwrap().ip(), address(TARGET));
        talk(&app, &ours);
    });
}

#[test]
fn a_socket_with_the_direct_mark_leaves_directly() {
    in_sidecar(|outside| {
        let _plane = apply(&Plan { identity_subnets: vec![subnet(GATEWAY, 24)], ..plan() });
        for place in [BEYOND, GATEWAY] {
            let listener = outside.run(move || TcpListener::bind((place, 7001)).unwrap());
            let direct = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            direct.set_mark(MARK_DIRECT).unwrap();
            direct.connect(&socket(place, 7001).into()).unwrap();
            assert_eq!(accept(&listener).peer_addr().unwrap().ip(), address(OWN));
        }
    });
}

#[test]
fn a_protocol_that_is_not_steered_goes_out_directly() {
    in_sidecar(|outside| {
        let plane = apply(&Plan { steer_tcp: false, ..plan() });
        assert!(plane.tcp().is_empty() && plane.calls().is_none());
        let listener = outside.run(|| TcpListener::bind((BEYOND, 7002)).unwrap());
        let app = connect(socket(BEYOND, 7002)).unwrap();
        assert_eq!(accept(&listener).peer_addr().unwrap().ip(), address(OWN));
        drop(app);
    });
}

#[test]
fn the_listeners_cannot_be_reached_by_their_own_address() {
    in_sidecar(|_| {
        let plane = apply(&plan());
        for listener in plane.tcp() {
            let refused = connect(listener.local_addr().unwrap()).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        }
        let found = Scanner::open().unwrap().scan().unwrap();
        let own = plane.own_sockets();
        assert_eq!(found.iter().filter(|socket| own.contains(&socket.cookie)).count(), 6);
        assert!(found.iter().all(|socket| own.contains(&socket.cookie)));
    });
}

#[test]
fn loopback_and_the_namespaces_own_addresses_are_left_alone() {
    in_sidecar(|_| {
        let _plane = apply(&plan());
        let app = TcpListener::bind("0.0.0.0:9000").unwrap();
        for place in ["127.0.0.1", "127.9.9.9", TARGET, OWN] {
            let client = connect(socket(place, 9000)).unwrap();
            talk(&client, &accept(&app));
            let refused = connect(socket(place, 9001)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{place}");
        }
    });
}

#[test]
fn a_loopback_name_server_is_steered_but_not_for_the_proxy() {
    in_sidecar(|_| {
        let servers = ["127.0.0.53", "127.0.0.11"];
        let mut plane =
            apply(&Plan { loopback_nameservers: servers.map(address).to_vec(), ..plan() });
        for server in servers {
            let (app, ours) = steered(&mut plane, socket(server, 53));
            assert_eq!(ours.local_addr().unwrap(), socket(server, 53));
            talk(&app, &ours);
        }
        let docker = TcpListener::bind("127.0.0.11:4053").unwrap();
        let proxy = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        proxy.bind(&SockAddr::from(socket("127.0.0.12", 0))).unwrap();
        proxy
            .connect_timeout(&docker.local_addr().unwrap().into(), Duration::from_secs(2))
            .unwrap();
        accept(&docker);
        let other = TcpListener::bind("127.0.0.53:80").unwrap();
        connect(other.local_addr().unwrap()).unwrap();
        accept(&other);
    });
}

#[test]
fn a_ping_does_not_pretend_to_reach_the_far_side() {
    in_sidecar(|_| {
        let _plane = apply(&plan());
        let protocol = Some(socket2::Protocol::ICMPV4);
        let icmp = Socket::new(Domain::IPV4, Type::RAW, protocol).unwrap();
        icmp.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let echo = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];
        icmp.send_to(&echo, &socket(BEYOND, 0).into()).unwrap();
        let mut packet = [0; 64];
        while let Ok(len) = (&icmp).read(&mut packet) {
            assert_ne!(packet[20], 0, "an answer: {:?}", &packet[..len]);
        }
        icmp.send_to(&echo, &socket(GATEWAY, 0).into()).unwrap();
    });
}

#[test]
fn the_targets_address_is_not_answered_for_on_our_own_link() {
    in_sidecar(|outside| {
        let near = "172.30.0.55";
        let _plane = apply(&Plan {
            identity: vec![address(near)],
            identity_subnets: vec![subnet(near, 24)],
            ..plan()
        });
        for ip_address in [near, "172.30.0.200"] {
            let error = outside.run(move || connect(socket(ip_address, 80)).unwrap_err());
            assert_ne!(error.kind(), ErrorKind::ConnectionRefused, "{ip_address}");
        }
        let neighbours = outside.run(|| ip("neigh show dev peer0"));
        assert!(
            !neighbours.lines().any(|line| line.contains("lladdr") && !line.starts_with(OWN)),
            "{neighbours}"
        );
    });
}

#[test]
fn the_targets_address_is_not_announced_on_our_own_link() {
    in_sidecar(|outside| {
        let near = "172.30.0.55";
        let _plane = apply(&Plan { identity: vec![address(near)], ..plan() });
        let app = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
        app.bind(&socket(near, 0).into()).unwrap();
        app.connect(&socket(GATEWAY, 7000).into()).unwrap_err();
        connect(socket(GATEWAY, 7000)).unwrap_err();
        let neighbours = outside.run(|| ip("neigh show dev peer0"));
        let known = |ip| {
            let mut lines = neighbours.lines();
            lines.any(|line| line.starts_with(ip) && line.contains("lladdr"))
        };
        assert!(known(OWN), "{neighbours}");
        assert!(!known(near), "{neighbours}");
    });
}
