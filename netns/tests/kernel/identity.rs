//! The target's addresses change under a running app, and clients that a mesh's proxy stands for.

use std::{
    io::ErrorKind,
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use mirrord_netns::{
    Plan, Plane,
    calls::Heard,
    plane::PlaneError,
    privileges::{Capability, keep_only},
    spoof::{PacketSender, connect_as},
};

use crate::support::*;

/// Where the target has moved to.
const MOVED: &str = "10.244.2.8";

fn moved() -> Plan {
    Plan { identity: vec![address(MOVED)], ..plan() }
}

fn comes_from(plane: &mut Plane, source: &str) {
    let (app, ours) = steered(plane, socket(BEYOND, 80));
    assert_eq!(app.local_addr().unwrap().ip(), address(source));
    talk(&app, &ours);
    let app = udp(socket("0.0.0.0", 0));
    app.send_to(b"question", socket(BEYOND, 53)).unwrap();
    let (datagram, _) = receive(&plane.udp()[0]);
    assert_eq!(datagram.from.ip(), address(source));
}

#[test]
fn a_changed_plane_looks_like_one_that_was_applied_so() {
    let full = Plan {
        identity: vec![address(MOVED), address(TARGET), address("fd00:1::5")],
        identity_subnets: vec![subnet(OWN, 25), subnet("fd00:1::", 64)],
        ..plan()
    };
    in_sidecar(|_| {
        let other = Plan { identity: vec![address("10.1.1.1"), address("fd00::9")], ..plan() };
        for (before, after) in [(&full, &other), (&other, &full), (&full, &moved())] {
            drop(apply(after));
            let expected = state();
            let mut plane = apply(before);
            assert_ne!(state(), expected);
            plane.change(after).unwrap();
            assert_eq!(state(), expected);
            plane.change(after).unwrap();
            assert_eq!(state(), expected, "a second time");
        }
    });
}

#[test]
fn new_connections_come_from_the_new_address_and_the_old_one_is_any_other() {
    in_sidecar(|_| {
        let mut plane = apply(&plan());
        comes_from(&mut plane, TARGET);
        plane.change(&moved()).unwrap();
        comes_from(&mut plane, MOVED);
        let wildcard = TcpListener::bind("0.0.0.0:8080").unwrap();
        let (app, ours) = steered(&mut plane, socket(TARGET, 8080));
        assert_eq!(ours.local_addr().unwrap(), socket(TARGET, 8080));
        talk(&app, &ours);
        let client = connect_as(socket("203.0.113.9", 40_000), socket(MOVED, 8080)).unwrap();
        let accepted = accept(&wildcard);
        assert_eq!(accepted.local_addr().unwrap(), socket(MOVED, 8080));
        let client = TcpStream::from(client);
        client.set_nonblocking(false).unwrap();
        talk(&client, &accepted);
    });
}

#[test]
fn connections_that_do_not_use_the_old_address_survive() {
    in_sidecar(|outside| {
        let both = Plan { identity: vec![address(TARGET), address("10.244.1.6")], ..plan() };
        let mut plane = apply(&both);
        let listener = outside.run(|| TcpListener::bind((GATEWAY, 7000)).unwrap());
        let peer = (connect(socket(GATEWAY, 7000)).unwrap(), accept(&listener));
        let own = TcpListener::bind("127.0.0.1:7001").unwrap();
        let local = (connect(own.local_addr().unwrap()).unwrap(), accept(&own));
        let app = TcpListener::bind("0.0.0.0:8080").unwrap();
        let client = connect_as(socket("203.0.113.9", 41_000), socket("10.244.1.6", 8080));
        let client = TcpStream::from(client.unwrap());
        client.set_nonblocking(false).unwrap();
        let client = (client, accept(&app));
        plane
            .change(&Plan { identity: vec![address(MOVED), address("10.244.1.6")], ..plan() })
            .unwrap();
        for (one, other) in [&peer, &local, &client] {
            talk(one, other);
        }
        comes_from(&mut plane, MOVED);
    });
}

#[test]
fn a_connection_over_an_address_that_stays_survives_another_first_address() {
    in_sidecar(|_| {
        let mut plane = apply(&plan());
        let (app, ours) = steered(&mut plane, socket(BEYOND, 80));
        plane.change(&Plan { identity: vec![address(MOVED), address(TARGET)], ..plan() }).unwrap();
        talk(&app, &ours);
        comes_from(&mut plane, MOVED);
    });
}

#[test]
fn no_connection_is_lost_while_the_address_changes() {
    in_sidecar(|_| {
        let mut plane = apply(&plan());
        let listener = plane.tcp()[0].try_clone().unwrap();
        let app = thread::spawn(|| {
            for _ in 0..2000 {
                connect(socket(BEYOND, 80)).map(drop)?;
            }
            Ok::<_, std::io::Error>(())
        });
        let mut other = Plan { identity: vec![address(TARGET), address(MOVED)], ..plan() };
        while !app.is_finished() {
            other.identity.reverse();
            plane.change(&other).unwrap();
            while let Ok(Heard::Call(call)) = plane.calls().unwrap().next() {
                admit(&mut plane, &call);
                // What is admitted is answered by the kernel at once.
                plane.settle(&call).unwrap();
            }
            while listener.accept().is_ok() {}
        }
        app.join().unwrap().unwrap();
    });
}

#[test]
fn loopback_name_servers_come_and_go() {
    in_sidecar(|_| {
        let mut plane = apply(&plan());
        let with = Plan { loopback_nameservers: vec![address("127.0.0.53")], ..plan() };
        plane.change(&with).unwrap();
        let (app, ours) = steered(&mut plane, socket("127.0.0.53", 53));
        talk(&app, &ours);
        plane.change(&plan()).unwrap();
        let error = connect(socket("127.0.0.53", 53)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_change_that_cannot_be_leaves_everything_as_it_was() {
    in_sidecar(|_| {
        let mut plane = apply(&plan());
        let before = state();
        let with = |ip: &str| Plan { identity: vec![address(ip)], ..plan() };
        assert!(matches!(plane.change(&with(OWN)), Err(PlaneError::AddressInUse(_))));
        assert!(matches!(plane.change(&Plan::default()), Err(PlaneError::Protocols)));
        ip("route add local default dev lo table 28018 metric 9");
        let foreign = state();
        let changed = plane.change(&Plan {
            identity: vec![address(MOVED)],
            identity_subnets: vec![subnet(OWN, 24), subnet("2001:db8::", 64)],
            ..plan()
        });
        changed.unwrap();
        plane.change(&plan()).unwrap();
        assert_eq!(state(), foreign, "somebody else's route stays");
        ip("route del local default dev lo table 28018 metric 9");
        assert_eq!(state(), before);
        comes_from(&mut plane, TARGET);
    });
}

#[test]
fn a_change_without_the_right_to_it_is_refused_and_undone() {
    in_sidecar(|_| {
        let mut plane = apply(&plan());
        let before = state();
        keep_only(&[Capability::Bpf, Capability::NetRaw]).unwrap();
        let error = plane.change(&moved()).unwrap_err();
        assert!(matches!(error, PlaneError::Change(_)), "{error:?}");
        assert_eq!(state(), before);
        comes_from(&mut plane, TARGET);
        let (app, ours) = steered(&mut plane, socket(MOVED, 80));
        talk(&app, &ours);
    });
}

#[test]
fn net_admin_is_enough_to_change_unless_the_kernel_says_otherwise() {
    in_sidecar(|_| {
        let mut plane = apply(&plan());
        let mut keep = vec![Capability::NetAdmin, Capability::NetRaw];
        if plane.changes_need_bpf() {
            keep.push(Capability::Bpf);
        }
        keep_only(&keep).unwrap();
        plane.change(&moved()).unwrap();
        comes_from(&mut plane, MOVED);
    });
}

#[test]
fn a_client_that_a_mesh_stands_for_reaches_the_app() {
    in_sidecar(|_| {
        let _plane = apply(&plan());
        for (bound, reached) in
            [("0.0.0.0", TARGET), ("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "127.0.0.1")]
        {
            let app = TcpListener::bind((bound, 0)).unwrap();
            let port = app.local_addr().unwrap().port();
            for client in ["127.0.0.6", "127.0.0.1"] {
                let proxy = connect_as(socket(client, 45_000), socket(reached, port)).unwrap();
                let accepted = accept(&app);
                assert_eq!(accepted.peer_addr().unwrap(), socket(client, 45_000));
                let proxy = TcpStream::from(proxy);
                proxy.set_nonblocking(false).unwrap();
                proxy.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
                talk(&proxy, &accepted);
            }
        }
        let app = udp(socket(TARGET, 5353));
        let sender = PacketSender::open(mirrord_netns::MARK_TO_APP).unwrap();
        sender.send(socket("127.0.0.6", 9), socket(TARGET, 5353), b"hello").unwrap();
        assert_eq!(app.recv_from(&mut [0; 8]).unwrap(), (5, socket("127.0.0.6", 9)));
    });
}
