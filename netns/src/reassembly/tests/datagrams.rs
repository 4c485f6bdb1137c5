//! UDP, IP fragments, and packets that are not what they claim to be.

use std::net::SocketAddr;

use super::{
    super::{Event, Limits, Meta},
    Bench,
    wire::{
        CLIENT, CLIENT6, SERVER, SERVER6, Tcp, ipv4, ipv4_part, ipv6, packet, udp, udp_between,
    },
};

fn payloads(bench: &mut Bench) -> Vec<Vec<u8>> {
    let payload = |event| match event {
        Event::Datagram { payload, .. } => payload.to_vec(),
        other => panic!("not a datagram: {other:?}"),
    };
    bench.events().into_iter().map(payload).collect()
}

#[test]
fn a_datagram_is_an_event() {
    let mut bench = Bench::new();
    bench.raw(&ipv4(17, &udp(b"query")), false, None);
    let expected = Event::Datagram {
        client: SocketAddr::new(CLIENT.into(), 5000),
        server: SocketAddr::new(SERVER.into(), 53),
        payload: b"query".as_slice().into(),
    };
    assert_eq!(bench.events(), [expected]);
    bench.raw(&ipv4(17, &udp(b"")), false, None);
    assert_eq!(payloads(&mut bench), [b""]);
}

#[test]
fn datagrams_that_the_kernel_joined_come_apart() {
    let mut bench = Bench::new();
    bench.raw(&ipv4(17, &udp(b"aaaabbbbcc")), true, Some(4));
    assert_eq!(payloads(&mut bench), [&b"aaaa"[..], b"bbbb", b"cc"]);
    bench.raw(&ipv4(17, &udp(b"aaaa")), true, Some(4));
    assert_eq!(payloads(&mut bench), [b"aaaa"]);
}

#[test]
fn datagrams_that_nobody_takes_are_dropped_and_counted() {
    let mut bench = Bench::with(Limits { queued: 10_000, ..Limits::default() });
    for _ in 0..20 {
        bench.raw(&ipv4(17, &udp(&[0; 1000])), false, None);
    }
    let counts = bench.flows.counts();
    assert_eq!(counts.datagrams + counts.datagrams_dropped, 20);
    assert_eq!(payloads(&mut bench).len() as u64, counts.datagrams);
    assert!(counts.datagrams_dropped > 0);
}

#[test]
fn options_and_padding_are_skipped() {
    let mut bench = Bench::new();
    let mut padded = ipv4_part(17, &udp(b"query"), 0, false, &[1; 8]);
    padded.extend_from_slice(&[0; 9]);
    bench.raw(&padded, false, None);
    assert_eq!(payloads(&mut bench), [b"query"]);
}

#[test]
fn wrong_checksums_are_malformed() {
    let mut bench = Bench::new();
    let good = ipv4(17, &udp(b"query"));
    for at in [8, 12, 26, 27, 30] {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        bench.raw(&bad, false, None);
    }
    assert_eq!(bench.events(), []);
    assert_eq!(bench.flows.counts().malformed, 5);
    let mut unsigned = udp(b"query");
    unsigned[6..8].fill(0);
    bench.raw(&ipv4(17, &unsigned), false, None);
    assert_eq!(payloads(&mut bench), [b"query"]);
    bench.raw(&packet(&Tcp::at(0).syn()), false, None);
    assert_eq!(bench.flows.counts().malformed, 6);
}

#[test]
fn fragments_in_any_order_make_a_datagram() {
    let whole: Vec<u8> = (0..4000_u32).map(|byte| byte as u8).collect();
    let datagram = udp(&whole);
    let parts = [(0, 1480), (1480, 2960), (2960, 4008)];
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        let mut bench = Bench::new();
        for index in order {
            let (from, to) = parts[index];
            let part = ipv4_part(17, &datagram[from..to], from as u16, to < 4008, &[]);
            bench.raw(&part, false, None);
            bench.raw(&part, false, None);
        }
        assert_eq!(payloads(&mut bench), [&whole[..]]);
    }
}

#[test]
fn fragments_that_overlap_are_dropped() {
    let mut bench = Bench::new();
    let datagram = udp(&[1; 100]);
    bench.raw(&ipv4_part(17, &datagram[..64], 0, true, &[]), false, None);
    bench.raw(&ipv4_part(17, &datagram[56..], 56, false, &[]), false, None);
    assert_eq!(bench.events(), []);
    assert_eq!(bench.flows.counts().fragments_dropped, 2);
}

#[test]
fn fragments_without_the_rest_are_bounded() {
    let limits = Limits { fragments: 50_000, ..Limits::default() };
    let mut bench = Bench::with(limits);
    for id in 0..1000_u16 {
        let mut part = ipv4_part(17, &[0; 1024], 1024, true, &[]);
        part[4..6].copy_from_slice(&id.to_be_bytes());
        part[10] = 0;
        part[11] = 0;
        let sum = part[..20].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
        let sum = sum.sum::<u32>();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        part[10..12].copy_from_slice(&sum.to_be_bytes());
        bench.raw(&part, false, None);
    }
    let dropped = bench.flows.counts().fragments_dropped;
    assert!((950..1000).contains(&dropped), "{dropped}");
    bench.wait(std::time::Duration::from_secs(10));
    assert_eq!(bench.flows.counts().fragments_dropped, 1000);
}

#[test]
fn ipv6_is_read_with_its_extension_headers() {
    let datagram = udp_between(CLIENT6.into(), SERVER6.into(), b"query");
    let hop_by_hop = [&[17, 0, 1, 4, 0, 0, 0, 0][..], &datagram].concat();
    let fragment = |place: u16, part: &[u8]| {
        let [high, low] = place.to_be_bytes();
        ipv6(44, &[&[17, 0, high, low, 0, 0, 0, 9][..], part].concat())
    };
    let mut bench = Bench::new();
    bench.raw(&ipv6(17, &datagram), false, None);
    bench.raw(&ipv6(0, &hop_by_hop), false, None);
    bench.raw(&fragment(8, &datagram[8..]), false, None);
    bench.raw(&fragment(1, &datagram[..8]), false, None);
    assert_eq!(payloads(&mut bench), [b"query"; 3]);
    bench.raw(&ipv6(51, &datagram), false, None);
    assert_eq!(bench.flows.counts().unsupported, 1);
}

#[test]
fn a_packet_that_did_not_fit_is_counted() {
    let mut bench = Bench::new();
    let meta = Meta { checksum: super::Checksum::Trusted, segment: None, truncated: true };
    let bytes = packet(&Tcp::at(0).syn());
    bench.flows.packet(&bench.ports, super::Frame::Borrowed(&bytes), meta, bench.now);
    assert_eq!(bench.flows.counts().truncated, 1);
}

#[test]
fn a_packet_beyond_64_kib_has_no_length_of_its_own() {
    let (mut bench, _) = Bench::open(0);
    let mut bytes = packet(&Tcp::at(1));
    bytes[2..4].fill(0);
    bytes[33] = 0x18;
    bytes.resize(40 + 150_000, 3);
    bench.raw(&bytes, true, None);
    assert_eq!(bench.data(), vec![3; 150_000]);
}
