use proptest::prelude::*;

use super::*;

fn address() -> impl Strategy<Value = SocketAddr> {
    any::<SocketAddr>().prop_map(|address| SocketAddr::new(address.ip(), address.port()))
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)]
}

fn delivery() -> impl Strategy<Value = Delivery> {
    prop_oneof![Just(Delivery::Mirror), Just(Delivery::Steal)]
}

fn port() -> impl Strategy<Value = Port> {
    (protocol(), any::<u16>()).prop_map(|(protocol, number)| Port { protocol, number })
}

fn stream() -> impl Strategy<Value = StreamId> {
    any::<u32>().prop_map(StreamId)
}

fn blob(max: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn description() -> impl Strategy<Value = Description> {
    let ip = prop_oneof![
        (any::<u32>(), 0u8..=32).prop_map(|(ip, prefix)| (IpAddr::from(ip.to_be_bytes()), prefix)),
        (any::<u128>(), 0u8..=128)
            .prop_map(|(ip, prefix)| (IpAddr::from(ip.to_be_bytes()), prefix)),
    ];
    ("[a-z.-]{0,60}", prop::collection::vec(ip, 0..5), blob(200), blob(200), blob(200)).prop_map(
        |(hostname, addresses, resolv_conf, hosts, environ)| Description {
            hostname,
            addresses,
            resolv_conf,
            hosts,
            environ,
        },
    )
}

fn open() -> impl Strategy<Value = Open> {
    prop_oneof![
        (protocol(), address()).prop_map(|(p, a)| Open::Connect(p, OrigDst(a))),
        address().prop_map(|a| Open::Echo(OrigDst(a))),
        (protocol(), delivery(), address(), address()).prop_map(|(p, d, c, v)| Open::Incoming {
            protocol: p,
            delivery: d,
            client: ClientAddr(c),
            server: OrigDst(v),
        }),
        (prop_oneof![Just(UnixKind::Stream), Just(UnixKind::Packets)], blob(108)).prop_filter_map(
            "a name",
            |(kind, name)| Some(Open::ConnectUnix(kind, UnixName::new(&name)?))
        ),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        (stream(), open()).prop_map(|(s, open)| Frame::Open(s, open)),
        stream().prop_map(Frame::Opened),
        (stream(), 1..4096).prop_map(|(s, e)| Frame::Refused(s, Errno(e))),
        (stream(), any::<u64>(), blob(3000)).prop_map(|(s, o, b)| Frame::Data(s, o, b)),
        (stream(), blob(3000)).prop_map(|(s, b)| Frame::Datagram(s, b)),
        (stream(), any::<u64>(), any::<u64>())
            .prop_map(|(stream, consumed, limit)| Frame::Window { stream, consumed, limit }),
        (stream(), any::<u64>()).prop_map(|(s, o)| Frame::Fin(s, o)),
        stream().prop_map(Frame::Reset),
        (port(), delivery()).prop_map(|(p, d)| Frame::Subscribe(p, d)),
        (port(), prop::option::of("\\PC{0,100}")).prop_map(|(p, e)| Frame::Subscribed(p, e)),
        port().prop_map(Frame::Unsubscribe),
        any::<bool>().prop_map(|env| Frame::Describe { env }),
        description().prop_map(|d| Frame::Description(Box::new(d))),
        any::<u64>().prop_map(Frame::Ping),
        any::<u64>().prop_map(Frame::Pong),
        (any::<u64>(), any::<Option<u64>>(), any::<bool>()).prop_map(
            |(id, received, descriptors)| {
                Frame::Hello { tunnel: TunnelId(id), received, descriptors }
            }
        ),
        stream().prop_map(Frame::Handed),
        any::<bool>().prop_map(Frame::Hand),
        any::<(bool, u8)>().prop_map(|(v6, count)| Frame::Want { v6, count }),
        any::<bool>().prop_map(|v6| Frame::Spare { v6 }),
        open().prop_map(Frame::Brought),
        any::<u64>().prop_map(Frame::Received),
        (any::<u64>(), any::<u64>())
            .prop_map(|(packets, connections)| Frame::MirrorLoss { packets, connections }),
    ]
}

proptest! {
    #[test]
    fn every_frame_comes_back_as_it_went(frame in frame()) {
        prop_assert_eq!(Frame::decode(frame.encode()), Ok(frame));
    }

    #[test]
    fn every_cut_frame_is_refused(frame in frame(), cut in any::<prop::sample::Index>()) {
        let bytes = frame.encode();
        let cut = bytes.slice(..cut.index(bytes.len()));
        match frame {
            // A payload has no length of its own: the message's end is its end.
            Frame::Data(..) | Frame::Datagram(..) => {}
            _ => prop_assert!(Frame::decode(cut).is_err()),
        }
    }

    #[test]
    fn garbage_never_panics(bytes in blob(200)) {
        let _ = Frame::decode(bytes);
    }
}

#[test]
fn the_bytes_of_each_frame_stay_what_they_are() {
    let client = ClientAddr("10.0.0.9:40000".parse().unwrap());
    let server = OrigDst("[fd00::1]:80".parse().unwrap());
    let tcp80 = Port { protocol: Protocol::Tcp, number: 80 };
    let golden: &[(Frame, &[u8])] = &[
        (
            Frame::Open(StreamId(1), Open::Connect(Protocol::Udp, OrigDst(client.0))),
            &[1, 0, 0, 0, 1, 1, 17, 4, 10, 0, 0, 9, 0x9c, 0x40],
        ),
        (
            Frame::Open(
                StreamId(2),
                Open::Incoming {
                    protocol: Protocol::Tcp,
                    delivery: Delivery::Steal,
                    client,
                    server,
                },
            ),
            &[
                1, 0, 0, 0, 2, 2, 6, 2, 4, 10, 0, 0, 9, 0x9c, 0x40, 6, 0xfd, 0, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 0, 0, 0, 0, 1, 0, 80,
            ],
        ),
        (Frame::Opened(StreamId(7)), &[2, 0, 0, 0, 7]),
        (Frame::Refused(StreamId(7), Errno(111)), &[3, 0, 0, 0, 7, 0, 0, 0, 111]),
        (
            Frame::Data(StreamId(7), 258, Bytes::from_static(b"hi")),
            &[4, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 1, 2, b'h', b'i'],
        ),
        (Frame::Datagram(StreamId(7), Bytes::from_static(b"hi")), &[5, 0, 0, 0, 7, b'h', b'i']),
        (
            Frame::Window { stream: StreamId(7), consumed: 1, limit: 2 },
            &[6, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2],
        ),
        (Frame::Fin(StreamId(7), 3), &[7, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 3]),
        (Frame::Reset(StreamId(7)), &[8, 0, 0, 0, 7]),
        (Frame::Subscribe(tcp80, Delivery::Mirror), &[9, 6, 0, 80, 1]),
        (Frame::Subscribed(tcp80, None), &[10, 6, 0, 80, 0, 0, 0, 0, 0]),
        (Frame::Subscribed(tcp80, Some("x".into())), &[10, 6, 0, 80, 1, 0, 0, 0, 1, b'x']),
        (Frame::Unsubscribe(tcp80), &[11, 6, 0, 80]),
        (Frame::Describe { env: true }, &[12, 1]),
        (
            Frame::Description(Box::new(Description {
                hostname: "h".into(),
                addresses: vec![("10.0.0.9".parse().unwrap(), 24)],
                resolv_conf: Bytes::from_static(b"r"),
                hosts: Bytes::new(),
                environ: Bytes::from_static(b"A=1\0"),
            })),
            &[
                13, 0, 0, 0, 1, b'h', 0, 1, 4, 10, 0, 0, 9, 24, 0, 0, 0, 1, b'r', 0, 0, 0, 0, 0, 0,
                0, 4, b'A', b'=', b'1', 0,
            ],
        ),
        (Frame::Ping(1), &[14, 0, 0, 0, 0, 0, 0, 0, 1]),
        (Frame::Pong(1), &[15, 0, 0, 0, 0, 0, 0, 0, 1]),
        (
            Frame::Hello { tunnel: TunnelId(2), received: Some(3), descriptors: false },
            &[17, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3],
        ),
        (
            Frame::Hello { tunnel: TunnelId(2), received: None, descriptors: true },
            &[17, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        (Frame::Handed(StreamId(7)), &[19, 0, 0, 0, 7]),
        (Frame::Hand(true), &[21, 1]),
        (Frame::Want { v6: false, count: 16 }, &[22, 0, 16]),
        (Frame::Spare { v6: true }, &[23, 1]),
        (
            Frame::Open(StreamId(1), Open::Echo(OrigDst(client.0))),
            &[1, 0, 0, 0, 1, 4, 4, 10, 0, 0, 9, 0x9c, 0x40],
        ),
        (
            Frame::Brought(Open::Connect(Protocol::Udp, OrigDst(client.0))),
            &[20, 1, 17, 4, 10, 0, 0, 9, 0x9c, 0x40],
        ),
        (Frame::Received(4), &[18, 0, 0, 0, 0, 0, 0, 0, 4]),
        (
            Frame::MirrorLoss { packets: 1, connections: 2 },
            &[16, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2],
        ),
    ];
    for (frame, bytes) in golden {
        assert_eq!(&frame.encode()[..], *bytes, "{frame:?}");
        assert_eq!(Frame::decode(Bytes::copy_from_slice(bytes)).as_ref(), Ok(frame));
    }
}

#[test]
fn what_is_too_long_is_refused_before_it_is_copied() {
    let data = |len| Frame::Data(StreamId(1), 0, Bytes::from(vec![0; len])).encode();
    assert!(Frame::decode(data(MAX_DATA)).is_ok());
    assert_eq!(Frame::decode(data(MAX_DATA + 1)), Err(DecodeError::TooLong("payload")));
    assert_eq!(
        Frame::decode(Bytes::from(vec![13; MAX_FRAME + 1])),
        Err(DecodeError::TooLong("frame"))
    );
    let claims_4_gib = [10, 6, 0, 80, 1, 255, 255, 255, 255, b'x'];
    assert_eq!(Frame::decode(Bytes::copy_from_slice(&claims_4_gib)), Err(DecodeError::Truncated));
}

#[test]
fn a_long_reason_is_cut_at_a_character() {
    let port = Port { protocol: Protocol::Tcp, number: 1 };
    let frame = Frame::Subscribed(port, Some("é".repeat(MAX_REASON)));
    let Ok(Frame::Subscribed(_, Some(reason))) = Frame::decode(frame.encode()) else {
        panic!("it decodes")
    };
    assert_eq!(reason, "é".repeat(MAX_REASON / 2));
}
