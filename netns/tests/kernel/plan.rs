//! How a plan comes and goes.

use std::{io::ErrorKind, net::TcpListener};

use mirrord_netns::{
    Plan,
    plane::PlaneError,
    privileges::{Capability, keep_only},
};
use socket2::{Domain, Socket, Type};

use crate::support::*;

fn full() -> Plan {
    Plan {
        identity: vec![address(TARGET), address("10.244.1.6"), address("fd00:1::5")],
        identity_subnets: vec![subnet(OWN, 25), subnet("fd00:1::", 64)],
        ..plan()
    }
}

#[test]
fn a_second_application_changes_nothing() {
    in_sidecar(|_| {
        drop(apply(&full()));
        let first = state();
        let mut plane = apply(&full());
        assert_eq!(state(), first);
        steered(&mut plane, socket(BEYOND, 80));
    });
}

#[test]
fn a_killed_predecessors_other_plan_is_replaced() {
    in_sidecar(|_| {
        drop(apply(&plan()));
        let expected = state();
        drop(apply(&Plan { identity: vec![address("10.1.1.1"), address("fd00::9")], ..full() }));
        assert_ne!(state(), expected);
        let mut plane = apply(&plan());
        assert_eq!(state(), expected);
        let (app, _ours) = steered(&mut plane, socket(BEYOND, 80));
        assert_eq!(app.local_addr().unwrap().ip(), address(TARGET));
    });
}

#[test]
fn a_plan_that_fails_midway_leaves_the_namespace_as_it_was() {
    in_sidecar(|_| {
        let before = state();
        keep_only(&[Capability::NetAdmin]).unwrap();
        let error = try_apply(&full()).unwrap_err();
        assert!(matches!(error, PlaneError::Steer(_)), "{error:?}");
        assert_eq!(state(), before);
    });
}

#[test]
fn somebody_elses_route_in_our_table_is_an_error_and_stays() {
    in_sidecar(|_| {
        ip("route add local default dev lo table 28018");
        let before = state();
        let error = try_apply(&full()).unwrap_err();
        assert!(matches!(error, PlaneError::Change(_)), "{error:?}");
        assert_eq!(state(), before);
    });
}

#[test]
fn a_failed_change_of_plan_keeps_the_predecessors() {
    in_sidecar(|_| {
        drop(apply(&plan()));
        let before = state();
        keep_only(&[Capability::NetAdmin]).unwrap();
        let other = Plan { identity: vec![address("10.1.1.1")], ..full() };
        try_apply(&other).unwrap_err();
        assert_eq!(state(), before);
    });
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_done() {
    in_sidecar(|_| {
        let before = state();
        let with = |ip: &str| Plan { identity: vec![address(ip)], ..plan() };
        assert!(matches!(try_apply(&Plan::default()), Err(PlaneError::NoIdentity)));
        assert!(matches!(try_apply(&with("127.0.0.1")), Err(PlaneError::BadIdentity(_))));
        assert!(matches!(try_apply(&with(OWN)), Err(PlaneError::AddressInUse(_))));
        let bad = Plan { identity_subnets: vec![subnet(OWN, 33)], ..plan() };
        assert!(matches!(try_apply(&bad), Err(PlaneError::BadSubnet(_))));
        let bad = Plan { loopback_nameservers: vec![address("8.8.8.8")], ..plan() };
        assert!(matches!(try_apply(&bad), Err(PlaneError::BadNameserver(_))));
        set("net.ipv4.tcp_fwmark_accept", "0");
        assert!(matches!(try_apply(&plan()), Err(PlaneError::Setting { .. })));
        assert_eq!(state(), before);
    });
}

#[test]
fn a_connection_begun_while_no_proxy_lives_waits_for_the_next_one() {
    in_sidecar(|_| {
        drop(apply(&plan()));
        let wildcard = TcpListener::bind("0.0.0.0:80").unwrap();
        let app = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
        app.connect(&socket(BEYOND, 80).into()).unwrap_err();
        let mut plane = apply(&plan());
        // The app's kernel sends the SYN again.
        let call = call(&plane);
        admit(&mut plane, &call);
        let ours = accept(&plane.tcp()[0]);
        assert_eq!(ours.local_addr().unwrap(), socket(BEYOND, 80));
        wildcard.set_nonblocking(true).unwrap();
        assert_eq!(wildcard.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}
