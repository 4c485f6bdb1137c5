//! How the bytes of a flow are put in order.

use std::time::Duration;

use bytes::Bytes;

use super::{
    super::{Checksum, Event, Frame, Limits, Meta},
    Bench,
    wire::{Tcp, packet},
};

#[test]
fn segments_in_order_are_handed_out_at_once() {
    let (mut bench, _) = Bench::open(0);
    bench.tcp(Tcp::at(1).data(b"ab"));
    assert_eq!(bench.data(), b"ab");
    bench.tcp(Tcp::at(3).data(b"c"));
    assert_eq!(bench.data(), b"c");
}

#[test]
fn segments_out_of_order_wait() {
    let (mut bench, flow) = Bench::open(0);
    bench.tcp(Tcp::at(5).data(b"ef"));
    bench.tcp(Tcp::at(7).fin());
    bench.tcp(Tcp::at(3).data(b"cd"));
    assert_eq!(bench.events(), []);
    bench.tcp(Tcp::at(1).data(b"ab"));
    let (bytes, others) = bench.stream();
    assert_eq!((bytes.as_slice(), others), (&b"abcdef"[..], vec![Event::Fin { flow }]));
    assert_eq!(bench.flows.counts().waiting, 0);
}

#[test]
fn of_bytes_that_come_twice_the_first_copy_wins() {
    let (mut bench, _) = Bench::open(0);
    bench.tcp(Tcp::at(3).data(b"CD"));
    bench.tcp(Tcp::at(7).data(b"GH"));
    bench.tcp(Tcp::at(1).data(b"abcdefghi"));
    bench.tcp(Tcp::at(1).data(b"xxxxxxxxxj"));
    assert_eq!(bench.data(), b"abCDefGHij");
}

#[test]
fn sequence_numbers_wrap_around() {
    let (mut bench, _) = Bench::open(u32::MAX - 2);
    bench.tcp(Tcp::at(2).data(b"fg"));
    bench.tcp(Tcp::at(u32::MAX - 1).data(b"abcd"));
    bench.tcp(Tcp::at(u32::MAX).data(b"bcde"));
    assert_eq!(bench.data(), b"abcdefg"[..4].iter().chain(b"fg").copied().collect::<Vec<_>>());
}

#[test]
fn probes_change_nothing() {
    let (mut bench, _) = Bench::open(10);
    bench.tcp(Tcp::at(10).data(b"?"));
    bench.tcp(Tcp::at(10).ack());
    bench.tcp(Tcp::at(11).data(b"a"));
    bench.tcp(Tcp::at(11).data(b"a"));
    bench.tcp(Tcp::at(11).ack());
    bench.tcp(Tcp::at(12).data(b"b"));
    assert_eq!(bench.data(), b"ab");
}

#[test]
fn nothing_comes_after_the_end() {
    let (mut bench, flow) = Bench::open(0);
    bench.tcp(Tcp::at(1).data(b"end").fin());
    bench.tcp(Tcp::at(4).data(b"more"));
    bench.tcp(Tcp::at(2).data(b"ndmore"));
    bench.tcp(Tcp::at(900).fin());
    let (bytes, others) = bench.stream();
    assert_eq!((bytes.as_slice(), others), (&b"end"[..], vec![Event::Fin { flow }]));
}

#[test]
fn a_hole_that_stays_is_a_loss() {
    let (mut bench, flow) = Bench::open(0);
    let limit = Limits::default().hole;
    bench.tcp(Tcp::at(2).data(b"b"));
    bench.wait(limit / 2);
    bench.tcp(Tcp::at(4).data(b"d"));
    bench.wait(limit / 2 - Duration::from_millis(1));
    assert_eq!(bench.events(), []);
    bench.wait(Duration::from_millis(300));
    assert_eq!(bench.events(), [Event::Lost { flow }]);
    bench.tcp(Tcp::at(1).data(b"a"));
    assert_eq!(bench.events(), []);
    let counts = bench.flows.counts();
    assert_eq!((counts.lost, counts.waiting, counts.skipped), (1, 0, 0));
}

#[test]
fn a_hole_after_a_filled_one_has_its_own_time() {
    let (mut bench, _) = Bench::open(0);
    let limit = Limits::default().hole;
    bench.tcp(Tcp::at(2).data(b"b"));
    bench.tcp(Tcp::at(4).data(b"d"));
    bench.wait(limit / 2);
    bench.tcp(Tcp::at(1).data(b"a"));
    bench.wait(limit / 2);
    bench.tcp(Tcp::at(3).data(b"c"));
    bench.wait(limit);
    assert_eq!(bench.data(), b"abcd");
}

#[test]
fn too_much_behind_a_hole_is_a_loss() {
    let limits = Limits { waiting_per_flow: 10_000, waiting: 15_000, ..Limits::default() };
    let mut bench = Bench::with(limits);
    let flow = bench.handshake(Tcp::at(0));
    for at in 0..11 {
        bench.tcp(Tcp::at(2 + 1000 * at).data(&[0; 1000]));
    }
    assert_eq!(bench.events(), [Event::Lost { flow }]);
    let flows = [1, 2].map(|port| bench.handshake(Tcp::at(0).port(port)));
    for port in [1, 2] {
        for at in 0..8 {
            bench.tcp(Tcp::at(2 + 1000 * at).port(port).data(&[0; 1000]));
        }
    }
    assert_eq!(bench.events(), [Event::Lost { flow: flows[1] }]);
    assert!(bench.flows.counts().waiting <= limits.waiting);
}

#[test]
fn a_byte_at_a_time_behind_a_hole_is_bounded_too() {
    let (mut bench, flow) = Bench::open(0);
    for at in 0..200_000 {
        bench.tcp(Tcp::at(2 + 2 * at).data(b"x"));
        if bench.flows.counts().lost == 1 {
            assert_eq!(bench.events(), [Event::Lost { flow }]);
            return;
        }
    }
    panic!("never lost");
}

#[test]
fn a_queue_that_nobody_reads_loses_flows_at_its_limit() {
    let mut bench = Bench::with(Limits { queued: 20_000, ..Limits::default() });
    let flow = bench.handshake(Tcp::at(0));
    for at in 0..30 {
        bench.tcp(Tcp::at(1 + 1000 * at).data(&[at as u8; 1000]));
    }
    assert!(bench.flows.counts().queued <= 20_500);
    let (bytes, others) = bench.stream();
    assert!(bytes.chunks(1000).enumerate().all(|(at, chunk)| chunk == [at as u8; 1000]));
    assert_eq!(others, [Event::Lost { flow }]);
    assert_eq!(bench.flows.counts().queued, 0);
}

#[test]
fn large_packets_are_shared_not_copied() {
    let (mut bench, _) = Bench::open(0);
    let large = Bytes::from(packet(&Tcp::at(1).data(&[7; 60_000])));
    let meta = Meta { checksum: Checksum::Trusted, segment: None, truncated: false };
    bench.flows.packet(&bench.ports, Frame::Shared(large.clone()), meta, bench.now);
    let [Event::Data { bytes, .. }] = &bench.events()[..] else {
        panic!("no data");
    };
    assert_eq!(bytes.as_ptr(), large[40..].as_ptr());
    assert_eq!(bytes.len(), 60_000);
}

#[test]
fn the_urgent_flag_is_ignored() {
    let (mut bench, _) = Bench::open(0);
    let mut segment = Tcp::at(1).data(b"!");
    segment.flags |= 0x20;
    bench.tcp(segment);
    assert_eq!(bench.data(), b"!");
}
