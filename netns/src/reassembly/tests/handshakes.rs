//! How flows begin, and how they end.

use std::{net::SocketAddr, time::Duration};

use super::{
    super::{Event, Limits, Verdict},
    Bench,
    wire::{CLIENT, SERVER, Tcp},
};

#[test]
fn a_flow_opens_with_the_ack_that_follows_the_syn() {
    let mut bench = Bench::new();
    bench.tcp(Tcp::at(1000).syn());
    assert_eq!(bench.events(), []);
    bench.tcp(Tcp::at(1001).ack());
    let [Event::Opened { client, server, .. }] = bench.events()[..] else {
        panic!("not opened");
    };
    assert_eq!(client, SocketAddr::new(CLIENT.into(), 40_000));
    assert_eq!(server, SocketAddr::new(SERVER.into(), 80));
}

#[test]
fn a_flow_opens_with_data_when_its_first_ack_was_missed() {
    let mut bench = Bench::new();
    bench.tcp(Tcp::at(u32::MAX).syn());
    bench.tcp(Tcp::at(0).data(b"hello"));
    let (bytes, others) = bench.stream();
    assert_eq!(bytes, b"hello");
    assert!(matches!(others[..], [Event::Opened { .. }]));
}

#[test]
fn a_repeated_syn_changes_nothing() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.tcp(Tcp::at(5).syn());
    }
    bench.tcp(Tcp::at(6).ack());
    bench.tcp(Tcp::at(5).syn());
    bench.tcp(Tcp::at(6).data(b"x"));
    let (bytes, others) = bench.stream();
    assert_eq!((bytes.as_slice(), others.len()), (&b"x"[..], 1));
}

#[test]
fn a_syn_that_is_taken_back_opens_nothing() {
    let mut bench = Bench::new();
    bench.tcp(Tcp::at(5).syn());
    bench.tcp(Tcp::at(6).rst());
    bench.tcp(Tcp::at(6).ack());
    assert_eq!(bench.events(), []);
}

#[test]
fn data_of_a_syn_counts_if_the_server_took_it() {
    for (next, expected) in [(1, &b"world"[..]), (6, b"helloworld")] {
        let mut bench = Bench::new();
        bench.tcp(Tcp::at(0).syn().carrying(b"hello"));
        bench.tcp(Tcp::at(next).ack());
        bench.tcp(Tcp::at(next).data(b"world"));
        assert_eq!(bench.stream().0, expected);
    }
}

#[test]
fn a_syn_flood_opens_nothing_and_is_bounded() {
    let mut bench = Bench::with(Limits { opening: 100, ..Limits::default() });
    for seq in 0..10_000 {
        bench.tcp(Tcp::at(seq).port(seq as u16).syn().carrying(&[0; 1000]));
    }
    assert_eq!(bench.events(), []);
    assert_eq!(bench.flows.counts().opening, 100);
}

#[test]
fn a_connection_from_before_is_skipped_and_counted_once() {
    let mut bench = Bench::new();
    for seq in 0..10 {
        bench.tcp(Tcp::at(seq).data(b"x"));
    }
    bench.tcp(Tcp::at(10).port(7).fin());
    assert_eq!(bench.events(), []);
    assert_eq!(bench.flows.counts().skipped, 2);
    let verdicts: Vec<_> = bench.flows.verdicts().collect();
    assert!(matches!(verdicts[..], [Verdict::Ignore(_), Verdict::Ignore(_)]));
}

#[test]
fn ends_that_were_skipped_are_followed_when_they_connect_anew() {
    let mut bench = Bench::new();
    bench.tcp(Tcp::at(77).data(b"old"));
    bench.flows.verdicts().for_each(drop);
    bench.tcp(Tcp::at(1000).syn());
    let verdicts: Vec<_> = bench.flows.verdicts().collect();
    assert!(matches!(verdicts[..], [Verdict::Follow(_)]));
    bench.tcp(Tcp::at(77).data(b"old"));
    assert_eq!(bench.flows.verdicts().count(), 0);
    bench.tcp(Tcp::at(1001).data(b"new"));
    assert_eq!(bench.stream().0, b"new");
}

#[test]
fn other_ports_and_answers_are_left_out() {
    let mut bench = Bench::new();
    bench.ports.remove(crate::Proto::Tcp, 80);
    bench.tcp(Tcp::at(0).syn());
    bench.tcp(Tcp::at(1).ack());
    assert_eq!(bench.events(), []);
    assert_eq!(bench.flows.counts(), Default::default());
}

#[test]
fn a_half_closed_flow_can_still_be_reset() {
    let (mut bench, flow) = Bench::open(0);
    bench.tcp(Tcp::at(1).data(b"all").fin());
    bench.tcp(Tcp::at(4).fin());
    let (bytes, others) = bench.stream();
    assert_eq!((bytes.as_slice(), others), (&b"all"[..], vec![Event::Fin { flow }]));
    bench.tcp(Tcp::at(5).rst());
    assert_eq!(bench.events(), [Event::Reset { flow }]);
    assert_eq!(bench.flows.counts().flows, 0);
}

#[test]
fn a_reset_counts_only_at_its_place() {
    let (mut bench, flow) = Bench::open(100);
    bench.tcp(Tcp::at(101).data(b"data"));
    bench.tcp(Tcp::at(101).rst());
    assert_eq!(bench.stream().1, []);
    bench.tcp(Tcp::at(109).rst());
    assert_eq!(bench.events(), []);
    bench.tcp(Tcp::at(105).data(b"more"));
    let (bytes, others) = bench.stream();
    assert_eq!((bytes.as_slice(), others), (&b"more"[..], vec![Event::Reset { flow }]));
    assert_eq!(bench.flows.counts().waiting, 0);
}

#[test]
fn a_reset_behind_a_hole_that_stays_is_a_loss() {
    let (mut bench, flow) = Bench::open(100);
    bench.tcp(Tcp::at(200).rst());
    bench.wait(Duration::from_secs(60));
    assert_eq!(bench.events(), [Event::Lost { flow }]);
}

#[test]
fn the_same_ends_can_connect_again() {
    let (mut bench, first) = Bench::open(100);
    bench.tcp(Tcp::at(101).fin());
    bench.events();
    let second = bench.handshake(Tcp::at(5_000_000));
    assert_ne!(first, second);
    bench.tcp(Tcp::at(5_000_001).data(b"again"));
    assert_eq!(bench.data(), b"again");
}

#[test]
fn a_new_connection_ends_one_whose_end_was_missed() {
    let (mut bench, first) = Bench::open(100);
    bench.tcp(Tcp::at(300_000).syn());
    bench.tcp(Tcp::at(101).data(b"still there"));
    assert_eq!(bench.data(), b"still there");
    bench.tcp(Tcp::at(300_001).ack());
    let events = bench.events();
    assert_eq!(events[0], Event::Lost { flow: first });
    assert!(matches!(events[1..], [Event::Opened { .. }]));
}

#[test]
fn flows_beyond_the_limit_are_refused_but_finished_ones_make_room() {
    let mut bench = Bench::with(Limits { flows: 2, ..Limits::default() });
    for port in [1, 2] {
        bench.handshake(Tcp::at(0).port(port));
    }
    bench.tcp(Tcp::at(0).port(3).syn());
    bench.tcp(Tcp::at(1).port(3).ack());
    assert_eq!((bench.events(), bench.flows.counts().refused), (vec![], 1));
    bench.tcp(Tcp::at(1).port(1).fin());
    bench.handshake(Tcp::at(0).port(4));
    assert_eq!(bench.flows.counts().flows, 2);
}

#[test]
fn an_abandoned_flow_is_silent_and_leaves_nothing() {
    let (mut bench, flow) = Bench::open(0);
    bench.tcp(Tcp::at(1).data(b"one"));
    bench.tcp(Tcp::at(9).data(b"three"));
    bench.flows.abandon(flow);
    bench.tcp(Tcp::at(4).data(b"two"));
    bench.tcp(Tcp::at(9).fin());
    assert_eq!(bench.events(), []);
    let counts = bench.flows.counts();
    assert_eq!((counts.flows, counts.waiting, counts.queued), (0, 0, 0));
    assert_eq!((counts.skipped, counts.lost), (0, 0));
}

#[test]
fn flows_of_a_port_that_is_closed_are_over() {
    let (mut bench, flow) = Bench::open(0);
    bench.flows.close_port(81, bench.now);
    assert_eq!(bench.events(), []);
    bench.flows.close_port(80, bench.now);
    assert_eq!(bench.events(), [Event::Lost { flow }]);
}

#[test]
fn silent_flows_and_handshakes_are_forgotten() {
    let limits = Limits::default();
    let (mut bench, flow) = Bench::open(0);
    bench.tcp(Tcp::at(0).port(9).syn());
    bench.wait(limits.handshake);
    assert_eq!((bench.flows.counts().opening, bench.events()), (0, vec![]));
    bench.wait(limits.idle);
    assert_eq!(bench.events(), [Event::Lost { flow }]);
    let flow = bench.handshake(Tcp::at(0));
    bench.tcp(Tcp::at(1).fin());
    assert_eq!(bench.events(), [Event::Fin { flow }]);
    bench.wait(limits.linger);
    assert_eq!((bench.flows.counts().flows, bench.events()), (0, vec![]));
}
