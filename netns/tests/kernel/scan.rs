//! Listening sockets.

use std::{
    net::{TcpListener, TcpStream},
    time::Instant,
};

use mirrord_netns::{Proto, addresses, listeners::Scanner};

use crate::support::*;

#[test]
fn listeners_of_both_protocols_and_families_appear_and_vanish() {
    isolated(|| {
        let mut scanner = Scanner::open().unwrap();
        assert_eq!(scanner.scan().unwrap(), []);
        let tcp =
            ["127.0.0.1", "0.0.0.0", "::1", "::"].map(|ip| TcpListener::bind((ip, 0)).unwrap());
        let bound = ["127.0.0.1", "::1"].map(|ip| udp(socket(ip, 0)));
        let connected = udp(socket("127.0.0.1", 0));
        connected.connect("127.0.0.1:9").unwrap();
        let client = TcpStream::connect(tcp[0].local_addr().unwrap()).unwrap();
        let expected_tcp = tcp.iter().map(|socket| (Proto::Tcp, socket.local_addr().unwrap()));
        let expected_udp = bound.iter().map(|socket| (Proto::Udp, socket.local_addr().unwrap()));
        let mut expected: Vec<_> = expected_tcp.chain(expected_udp).collect();
        let mut found: Vec<_> =
            scanner.scan().unwrap().iter().map(|l| (l.proto, l.address)).collect();
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
        drop((tcp, bound, connected, client));
        assert_eq!(scanner.scan().unwrap(), []);
    });
}

#[test]
fn more_sockets_than_one_answer_holds_are_all_found() {
    isolated(|| {
        let listeners: Vec<_> =
            (0..900).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        assert_eq!(Scanner::open().unwrap().scan().unwrap().len(), listeners.len());
    });
}

#[test]
fn a_scan_is_cheap() {
    isolated(|| {
        let _listeners: Vec<_> =
            (0..50).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let mut scanner = Scanner::open().unwrap();
        scanner.scan().unwrap();
        let started = Instant::now();
        for _ in 0..100 {
            scanner.scan().unwrap();
        }
        let each = started.elapsed() / 100;
        eprintln!("a scan of 50 sockets takes {each:?}");
        assert!(each.as_millis() < 5, "{each:?}");
    });
}

#[test]
fn the_namespaces_addresses_are_listed() {
    isolated(|| {
        let _outside = link();
        let found = addresses::addresses().unwrap();
        let eth0 = found.iter().find(|a| a.ip == address(OWN)).expect("eth0's address");
        assert_eq!((eth0.name.as_str(), eth0.prefix, eth0.loopback), ("eth0", 24, false));
        let lo = found.iter().find(|a| a.ip == address("127.0.0.1")).expect("lo's address");
        assert_eq!((lo.name.as_str(), lo.prefix, lo.loopback), ("lo", 8, true));
    });
}
