//! Datagrams, both ways.

use mirrord_netns::{MARK_DIRECT, MARK_TO_APP, spoof::PacketSender};

use crate::support::*;

#[test]
fn a_question_to_anywhere_arrives_and_its_answer_comes_back() {
    in_sidecar(|_| {
        let plane = apply(&plan());
        let sender = PacketSender::open(MARK_TO_APP).unwrap();
        let server = socket("8.8.8.8", 53);
        let mut buffer = [0; 64];
        let app = udp(socket("0.0.0.0", 0));
        app.send_to(b"question", server).unwrap();
        let (datagram, payload) = receive(&plane.udp()[0]);
        assert_eq!((datagram.to, &payload[..]), (server, &b"question"[..]));
        assert_eq!(datagram.from, socket(TARGET, app.local_addr().unwrap().port()));
        sender.send(datagram.to, datagram.from, b"answer").unwrap();
        assert_eq!(app.recv_from(&mut buffer).unwrap(), (6, server));

        let app = udp(socket("0.0.0.0", 0));
        app.connect(server).unwrap();
        app.send(b"question").unwrap();
        let (datagram, _) = receive(&plane.udp()[0]);
        assert_eq!(datagram.from, app.local_addr().unwrap());
        sender.send(server, datagram.from, b"answer").unwrap();
        assert_eq!(app.recv(&mut buffer).unwrap(), 6);
    });
}

#[test]
fn a_connected_app_hears_that_nobody_is_there() {
    in_sidecar(|_| {
        let plane = apply(&plan());
        let sender = PacketSender::open(MARK_TO_APP).unwrap();
        let server = socket("8.8.8.8", 53);
        let app = udp(socket("0.0.0.0", 0));
        app.connect(server).unwrap();
        app.send(b"question").unwrap();
        let (datagram, _) = receive(&plane.udp()[0]);
        for code in [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EPERM, libc::ECONNREFUSED] {
            sender.refuse(datagram.to, datagram.from, code).unwrap();
        }
        let error = app.recv(&mut [0; 64]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED), "the others are no final word");
    });
}

#[test]
fn an_app_that_holds_a_port_on_every_address_talks_to_that_port_elsewhere() {
    in_sidecar(|_| {
        let plane = apply(&plan());
        let sender = PacketSender::open(MARK_TO_APP).unwrap();
        let app = udp(socket("0.0.0.0", 5000));
        let peer = socket("192.0.2.8", 5000);
        app.send_to(b"hello", peer).unwrap();
        let (datagram, _) = receive(&plane.udp()[0]);
        assert_eq!((datagram.from, datagram.to), (socket(TARGET, 5000), peer));
        sender.send(peer, datagram.from, b"hello back").unwrap();
        let mut buffer = [0; 64];
        assert_eq!(app.recv_from(&mut buffer).unwrap(), (10, peer));
    });
}

#[test]
fn a_clients_datagram_reaches_the_app_and_the_reply_is_steered() {
    in_sidecar(|_| {
        let plane = apply(&plan());
        let sender = PacketSender::open(MARK_TO_APP).unwrap();
        for bound in ["0.0.0.0", TARGET] {
            let app = udp(socket(bound, 6000));
            let client = socket("203.0.113.9", 33_333);
            sender.send(client, socket(TARGET, 6000), b"question").unwrap();
            let mut buffer = [0; 64];
            let (_, peer) = app.recv_from(&mut buffer).unwrap();
            assert_eq!(peer, client);
            app.send_to(b"answer", peer).unwrap();
            let (datagram, payload) = receive(&plane.udp()[0]);
            assert_eq!((datagram.from, datagram.to), (socket(TARGET, 6000), client));
            assert_eq!(payload, b"answer");
        }
    });
}

#[test]
fn the_proxy_can_answer_directly_from_our_own_address() {
    in_sidecar(|outside| {
        let plane = apply(&plan());
        let app = udp(socket("0.0.0.0", 5353));
        let client = outside.run(|| udp(socket(BEYOND, 0)));
        client.send_to(b"question", socket(OWN, 5353)).unwrap();
        let mut buffer = [0; 64];
        let (_, peer) = app.recv_from(&mut buffer).unwrap();
        app.send_to(b"answer", peer).unwrap();
        let (datagram, payload) = receive(&plane.udp()[0]);
        assert_eq!(datagram.from, socket(TARGET, 5353));
        let sender = PacketSender::open(MARK_DIRECT).unwrap();
        sender.send(socket(OWN, 5353), datagram.to, &payload).unwrap();
        let answer = client.recv_from(&mut buffer).unwrap();
        assert_eq!(answer, (6, socket(OWN, 5353)));
    });
}

#[test]
fn the_largest_datagram_passes_both_ways() {
    in_sidecar(|_| {
        let plane = apply(&plan());
        let sender = PacketSender::open(MARK_TO_APP).unwrap();
        let app = udp(socket("0.0.0.0", 7000));
        let payload: Vec<u8> = (0..65_507).map(|number| number as u8).collect();
        app.send_to(&payload, socket(BEYOND, 9)).unwrap();
        let (datagram, received) = receive(&plane.udp()[0]);
        assert!(received == payload);
        sender.send(datagram.to, datagram.from, &payload).unwrap();
        let mut buffer = vec![0; 65_536];
        let (length, _) = app.recv_from(&mut buffer).unwrap();
        assert!(buffer[..length] == payload);
    });
}

#[test]
fn what_exceeds_the_devices_mtu_leaves_in_fragments() {
    isolated(|| {
        let outside = link();
        let receiver = outside.run(|| udp(socket(GATEWAY, 8000)));
        let sender = PacketSender::open(0).unwrap();
        let payload: Vec<u8> = (0..20_001).map(|number| number as u8).collect();
        for _ in 0..3 {
            sender.send(socket(OWN, 1234), socket(GATEWAY, 8000), &payload).unwrap();
            let mut buffer = vec![0; 65_536];
            let (length, peer) = receiver.recv_from(&mut buffer).unwrap();
            assert!(buffer[..length] == payload);
            assert_eq!(peer, socket(OWN, 1234));
        }
    });
}
