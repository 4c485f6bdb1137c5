//! The app's connections before the far side has answered.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use mirrord_netns::{MARK_TO_APP, Plan, Plane, spoof::PacketSender};
use nix::libc;
use socket2::{Domain, Socket, Type};

use crate::support::*;

const FAR: [&str; 2] = [BEYOND, "2001:db8::7"];

fn both_families() -> Plan {
    let mut plan = plan();
    plan.identity.push(address("fd00:1::5"));
    plan
}

fn app(ip: &str) -> Socket {
    let app = Socket::new(Domain::for_address(socket(ip, 1)), Type::STREAM, None).unwrap();
    calling(app, socket(ip, 80))
}

fn still_waits(plane: &Plane, app: &Socket) {
    assert!(app.take_error().unwrap().is_none());
    assert!(app.peer_addr().is_err(), "it is not connected");
    for listener in plane.tcp() {
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn a_connection_waits_until_it_is_admitted() {
    in_sidecar(|_| {
        let mut plane = apply(&both_families());
        for (index, ip) in FAR.into_iter().enumerate() {
            let app = app(ip);
            let call = call(&plane);
            assert_eq!((call.to(), call.app()), (socket(ip, 80), local(&app)));
            thread::sleep(Duration::from_millis(50));
            still_waits(&plane, &app);
            admit(&mut plane, &call);
            assert_eq!(outcome(&app), None);
            let ours = accept(&plane.tcp()[index]);
            assert_eq!(ours.peer_addr().unwrap(), local(&app));
            plane.settle(&call).unwrap();
        }
    });
}

/// While the kernel replaces a half-open socket by the whole one, the app's first bytes may find
/// neither.
#[test]
fn bytes_that_find_no_socket_as_their_connection_begins_are_not_answered_with_a_reset() {
    in_sidecar(|_| {
        let mut plane = apply(&both_families());
        for (index, ip) in FAR.into_iter().enumerate() {
            let (mut stray, call) = loop {
                let app = app(ip);
                let call = call(&plane);
                let begun = Instant::now();
                admit(&mut plane, &call);
                assert_eq!(outcome(&app), None);
                drop(accept(&plane.tcp()[index]));
                let from = local(&app);
                app.set_linger(Some(Duration::ZERO)).unwrap();
                drop(app);
                let mut stray = connected_to_nobody(from, socket(ip, 80));
                stray.write_all(b"x").unwrap();
                // Later than that it would not be the connection's beginning.
                if begun.elapsed() < Duration::from_millis(50) {
                    break (stray, call);
                }
            };
            let error = stray.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{ip}");
            plane.settle(&call).unwrap();
            stray.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let error = stray.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{ip}: what is sent again");
        }
    });
}

/// A socket that believes to be connected (`TCP_REPAIR`).
fn connected_to_nobody(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&from.into()).unwrap();
    repair(&socket, 1);
    socket.connect(&to.into()).unwrap();
    repair(&socket, 0);
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    socket.into()
}

fn repair(socket: &Socket, on: libc::c_int) {
    let (value, len) = (std::ptr::from_ref(&on).cast(), size_of_val(&on) as libc::socklen_t);
    // SAFETY: the option reads an int, which lives through the call.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_REPAIR, value, len)
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

fn local(app: &Socket) -> SocketAddr {
    app.local_addr().unwrap().as_socket().unwrap()
}

#[test]
fn a_connection_fails_with_the_far_sides_error_at_once() {
    in_sidecar(|_| {
        let plane = apply(&both_families());
        let sender = PacketSender::open(MARK_TO_APP).unwrap();
        let (refused, prohibited) = (libc::ECONNREFUSED, libc::EACCES);
        let (no_host, no_net) = (libc::EHOSTUNREACH, libc::ENETUNREACH);
        for (said, heard) in [
            (refused, [refused; 2]),
            (no_host, [no_host; 2]),
            (no_net, [no_net; 2]),
            (prohibited, [no_host, prohibited]),
            (libc::EADDRNOTAVAIL, [no_host; 2]),
        ] {
            for (ip, heard) in FAR.into_iter().zip(heard) {
                let app = app(ip);
                let begun = Instant::now();
                sender.fail(&call(&plane), said).unwrap();
                assert_eq!(outcome(&app), Some(heard), "{said} {ip}");
                assert!(begun.elapsed() < Duration::from_millis(500));
            }
        }
    });
}

#[test]
fn a_connection_that_times_out_far_away_waits_for_the_apps_own_kernel() {
    in_sidecar(|_| {
        set("net.ipv4.tcp_syn_retries", "1");
        let plane = apply(&plan());
        let app = app(BEYOND);
        let first = call(&plane);
        PacketSender::open(MARK_TO_APP).unwrap().fail(&first, libc::ETIMEDOUT).unwrap();
        let again = call(&plane);
        assert_eq!((again.sequence(), again.app()), (first.sequence(), first.app()));
        assert_eq!(outcome(&app), Some(libc::ETIMEDOUT));
    });
}

#[test]
fn a_connection_that_the_app_gives_up_is_not_established() {
    in_sidecar(|_| {
        let mut plane = apply(&plan());
        let app = app(BEYOND);
        let call = call(&plane);
        drop(app);
        admit(&mut plane, &call);
        thread::sleep(Duration::from_millis(50));
        assert_eq!(plane.tcp()[0].accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

#[test]
fn an_app_that_listens_on_every_address_may_connect_to_the_same_port_elsewhere() {
    in_sidecar(|_| {
        let mut plane = apply(&plan());
        let _app = TcpListener::bind("0.0.0.0:80").unwrap();
        let (app, ours) = steered(&mut plane, socket(BEYOND, 80));
        talk(&app, &ours);
    });
}

#[test]
fn a_namespace_without_ipv6_is_steered_all_the_same() {
    in_sidecar(|_| {
        for device in ["all", "default", "lo"] {
            set(&format!("net.ipv6.conf.{device}.disable_ipv6"), "1");
        }
        let mut plane = apply(&plan());
        let (app, ours) = steered(&mut plane, socket(BEYOND, 80));
        talk(&app, &ours);
    });
}

#[test]
fn what_stays_in_the_namespace_is_not_heard_of() {
    in_sidecar(|_| {
        let plane = apply(&plan());
        let app = TcpListener::bind("0.0.0.0:9000").unwrap();
        for place in ["127.0.0.1", TARGET, OWN] {
            talk(&connect(socket(place, 9000)).unwrap(), &accept(&app));
        }
        let calls = plane.calls().unwrap();
        assert_eq!(calls.next().unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}
