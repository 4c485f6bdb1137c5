//! What holds for every stream, however it is cut, mixed and repeated; and for garbage.

use std::time::Duration;

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{
    super::{Event, Limits},
    Bench,
    wire::{CLIENT, SERVER, Tcp, ipv4, ipv4_part, ipv6, udp},
};

/// Small limits, so that they are met.
fn tight() -> Limits {
    Limits {
        flows: 8,
        opening: 4,
        waiting_per_flow: 2000,
        waiting: 3000,
        queued: 4000,
        fragments: 4000,
        ..Limits::default()
    }
}

/// Cuts of a stream that together have all of it, and some more that overlap them.
fn pieces(len: usize, cuts: &[Index], again: &[(Index, Index)]) -> Vec<(usize, usize)> {
    let mut edges: Vec<usize> = cuts.iter().map(|cut| cut.index(len + 1)).collect();
    edges.extend([0, len]);
    edges.sort_unstable();
    let pairs = edges.windows(2).map(|pair| (pair[0], pair[1]));
    let again = again.iter().map(|(from, to)| {
        let (from, to) = (from.index(len + 1), to.index(len + 1));
        (from.min(to), from.max(to))
    });
    pairs.chain(again).collect()
}

proptest! {
    #[test]
    fn any_cutting_and_order_gives_the_stream(
        isn: u32,
        stream in vec(any::<u8>(), 1..3000),
        cuts in vec(any::<Index>(), 0..40),
        again in vec(any::<(Index, Index)>(), 0..20),
        order in vec(any::<u64>(), 64),
        fin_first: bool,
    ) {
        let (mut bench, flow) = Bench::open(isn);
        let first = isn.wrapping_add(1);
        let mut pieces = pieces(stream.len(), &cuts, &again);
        let mut keys = order.iter().cycle();
        pieces.sort_by_cached_key(|_| keys.next());
        let end = Tcp::at(first.wrapping_add(stream.len() as u32)).fin();
        if fin_first {
            bench.tcp(end.clone());
        }
        for (from, to) in pieces {
            let at = first.wrapping_add(from as u32);
            bench.tcp(Tcp::at(at).data(&stream[from..to]));
        }
        bench.tcp(end);
        let (bytes, others) = bench.stream();
        prop_assert_eq!(bytes, stream);
        prop_assert_eq!(others, vec![Event::Fin { flow }]);
        prop_assert_eq!(bench.flows.counts().waiting, 0);
    }

    #[test]
    fn a_missing_piece_is_a_loss_and_never_a_wrong_byte(
        stream in vec(any::<u8>(), 1..3000),
        cuts in vec(any::<Index>(), 0..40),
        order in vec(any::<u64>(), 64),
        missing: Index,
    ) {
        let (mut bench, flow) = Bench::open(u32::MAX - 1000);
        let first = u32::MAX - 999;
        let mut pieces = pieces(stream.len(), &cuts, &[]);
        pieces.retain(|(from, to)| from < to);
        let (gone, _) = pieces.remove(missing.index(pieces.len()));
        let mut keys = order.iter().cycle();
        pieces.sort_by_cached_key(|_| keys.next());
        for (from, to) in pieces {
            bench.tcp(Tcp::at(first.wrapping_add(from as u32)).data(&stream[from..to]));
        }
        bench.tcp(Tcp::at(first.wrapping_add(stream.len() as u32)).fin());
        bench.wait(Duration::from_secs(60));
        let (bytes, others) = bench.stream();
        prop_assert_eq!(&bytes, &stream[..gone]);
        prop_assert_eq!(others, vec![Event::Lost { flow }]);
    }

    #[test]
    fn limits_hold_for_any_segments(
        segments in vec((any::<u8>(), 0..6u16, 0..8000u32, 0..600usize, 0..3000u64), 0..400),
    ) {
        let limits = tight();
        let mut bench = Bench::with(limits);
        for (flags, port, seq, len, pause) in segments {
            let segment = Tcp { flags, ..Tcp::at(seq).port(port).data(&vec![1; len]) };
            bench.tcp(segment);
            bench.wait(Duration::from_millis(pause));
            let counts = bench.flows.counts();
            prop_assert!(counts.flows <= limits.flows);
            prop_assert!(counts.waiting <= limits.waiting);
            prop_assert!(bench.flows.counts().opening <= limits.opening);
            if pause % 7 == 0 {
                bench.events();
            }
        }
        let opened = bench.flows.counts().opened;
        bench.events();
        let counts = bench.flows.counts();
        prop_assert_eq!(counts.queued, 0);
        prop_assert!(counts.flows as u64 <= opened);
    }

    #[test]
    fn garbage_never_panics(packets in vec((vec(any::<u8>(), 0..120), any::<bool>()), 0..60)) {
        let mut bench = Bench::with(tight());
        for (bytes, trusted) in packets {
            bench.raw(&bytes, trusted, None);
            bench.raw(&ipv4(6, &bytes), trusted, None);
            bench.raw(&ipv4(17, &bytes), trusted, Some(bytes.len() as u16));
            bench.raw(&ipv6(bytes.first().copied().unwrap_or_default(), &bytes), trusted, None);
        }
        bench.wait(Duration::from_secs(100_000));
        bench.events();
    }

    #[test]
    fn a_damaged_packet_never_panics(
        damage in vec((any::<Index>(), any::<u8>()), 1..8),
        cut: Index,
        at in 0..4000u16,
        more: bool,
        udp_like: bool,
    ) {
        let mut bench = Bench::with(tight());
        let inner = if udp_like { udp(&[5; 64]) } else { Tcp::at(1).syn().carrying(b"abc").bytes() };
        let proto = if udp_like { 17 } else { 6 };
        let mut bytes = ipv4_part(proto, &inner, at, more, &[1; 4]);
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        bench.raw(&bytes, true, Some(at));
        bench.raw(&bytes[..cut.index(bytes.len())], true, None);
        bench.events();
    }

    #[test]
    fn fragments_in_any_cutting_and_order_make_the_datagram(
        payload in vec(any::<u8>(), 1..3000),
        cuts in vec(any::<Index>(), 0..10),
        order in vec(any::<u64>(), 16),
    ) {
        let mut bench = Bench::new();
        let datagram = udp(&payload);
        let words = datagram.len().div_ceil(8);
        let mut parts: Vec<_> = pieces(words, &cuts, &[])
            .into_iter()
            .filter(|(from, to)| from < to)
            .map(|(from, to)| (from * 8, (to * 8).min(datagram.len())))
            .collect();
        let mut keys = order.iter().cycle();
        parts.sort_by_cached_key(|_| keys.next());
        for (from, to) in parts {
            let more = to < datagram.len();
            bench.raw(&ipv4_part(17, &datagram[from..to], from as u16, more, &[]), false, None);
        }
        let expected = Event::Datagram {
            client: (CLIENT, 5000).into(),
            server: (SERVER, 53).into(),
            payload: payload.into(),
        };
        prop_assert_eq!(bench.events(), vec![expected]);
    }
}
