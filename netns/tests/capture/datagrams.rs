//! UDP in a capture.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use mirrord_netns::Proto;
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};

use super::{
    record::{Recorder, Sent},
    support::{CLIENT, Client, TARGET, TARGET6, with_client},
};

/// A socket of the target, and one of a client.
fn sockets(client: &Client, target: &str, from: &str) -> (UdpSocket, UdpSocket) {
    let local = SocketAddr::new(target.parse().unwrap(), 0);
    let server = UdpSocket::bind(local).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let from = SocketAddr::new(from.parse().unwrap(), 0);
    let to = server.local_addr().unwrap();
    let client = client.run(move || UdpSocket::bind(from)).unwrap();
    client.connect(to).unwrap();
    (server, client)
}

fn sent(server: &UdpSocket, client: &UdpSocket, payload: &[u8]) -> Sent {
    Sent {
        client: client.local_addr().unwrap(),
        server: server.local_addr().unwrap(),
        payload: payload.to_vec(),
    }
}

#[test]
fn datagrams_of_every_size_are_copied() {
    with_client(|client| {
        for (target, from) in [(TARGET, CLIENT), (TARGET6, "fd77::1")] {
            let (server, socket) = sockets(client, target, from);
            let recorder = Recorder::start(&[(Proto::Udp, server.local_addr().unwrap().port())]);
            let mut expected = Vec::new();
            for len in [0, 1, 1400, 5000, 60_000] {
                let payload: Vec<u8> = (0..len).map(|at: u32| (at * 7 + len) as u8).collect();
                socket.send(&payload).unwrap();
                let mut got = vec![0; 65_536];
                let (count, _) = server.recv_from(&mut got).unwrap();
                assert_eq!(got[..count], payload);
                expected.push(sent(&server, &socket, &payload));
            }
            let state = recorder.until("all sizes", |state| state.datagrams.len() == 5);
            assert!(state.datagrams == expected);
        }
    });
}

#[test]
fn datagrams_that_were_sent_as_one_come_apart() {
    with_client(|client| {
        let (server, socket) = sockets(client, TARGET, CLIENT);
        let recorder = Recorder::start(&[(Proto::Udp, server.local_addr().unwrap().port())]);
        setsockopt(&socket, UdpGsoSegment, &1000).unwrap();
        let payload: Vec<u8> = (0..4500_u32).map(|at| (at / 1000) as u8).collect();
        assert_eq!(socket.send(&payload).unwrap(), 4500);
        let mut got = vec![0; 65_536];
        for expected in payload.chunks(1000) {
            let count = server.recv(&mut got).unwrap();
            assert_eq!(&got[..count], expected);
        }
        let state = recorder.until("five datagrams", |state| state.datagrams.len() == 5);
        let expected: Vec<_> =
            payload.chunks(1000).map(|part| sent(&server, &socket, part)).collect();
        assert_eq!(state.datagrams, expected);
    });
}
